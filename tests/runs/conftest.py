"""What the tests of runs share: a text, a cache and a working directory of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.surroundings import TEXT, own_surroundings


@pytest.fixture(autouse=True)
def _surroundings(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path
