"""A run for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.checkpoints import save


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 10 and 20."""
    run = tmp_path / "run"
    save(run, 10)
    save(run, 20)
    return run
