"""What the tests of this folder share: a run, and transformers as a judge."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.formats.checkpoints import save


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 10 and 20."""
    run = tmp_path / "run"
    save(run, 10)
    save(run, 20)
    return run


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    """transformers, which must not look for anything on the network."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("USE_TF", "0")
        warnings.simplefilter("ignore")  # of other people's modules
        pytest.importorskip("torch")
        yield pytest.importorskip("transformers", minversion="5")
