"""train.log of a run from Python: there, and no level of the program's own changes for it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

import crystalline
from tests.surroundings import TEXT, own_surroundings

TINY = {
    "tokenizer": "char", "num_layers": 1, "num_heads": 2, "embed_dim": 12, "seq_len": 9,
    "batch_size": 13, "eval_interval": 0, "workers": 2, "max_steps": 3, "precision": "float32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


def test_runs_in_threads_have_logs_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    logger = logging.getLogger("crystalline")
    before = logger.level, logger.getEffectiveLevel()

    def train(name: str) -> None:
        crystalline.train(text, **TINY, checkpoint_dir=str(tmp_path / name))  # type: ignore[arg-type]

    threads = [threading.Thread(target=train, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("one", "two"):
        log = (tmp_path / name / "train.log").read_text()
        assert f"{tmp_path / name} begins, process " in log
        assert log.count("lanes by symmetry position: 3 3 3") == 1
        assert f"{tmp_path / name} ends at step 3 of 3 (finished)" in log
        assert not {"one", "two"} - {name} & set(log.split("/"))
    assert caplog.messages == []
    assert (logger.level, logger.getEffectiveLevel()) == before
