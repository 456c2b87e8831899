"""What commands and runs find around them in tests: nothing of the machine's, and a little text."""

from __future__ import annotations

import os

import pytest

TEXT = "the quick brown fox jumps over the lazy dog, and again; " * 60


def own_surroundings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give a test a cache, a working directory and a place where runs meet, and no variables."""
    for name in list(os.environ):
        if name.startswith("CLLM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
    # Where runs meet that share cores: those of a test share with nobody else's.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
