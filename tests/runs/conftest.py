"""What the tests of runs share: a text, a cache and a working directory of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TEXT = "the quick brown fox jumps over the lazy dog, and again; " * 60


@pytest.fixture(autouse=True)
def _surroundings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("CLLM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path
