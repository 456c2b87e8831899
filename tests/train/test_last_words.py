"""What spheres, Node Zero and the launcher say last is in the log of the run: once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystalline.errors import EngineError
from crystalline.logfile import LogFile
from tests.train.engine_runs import run


def log_of(tmp_path: Path, **keywords) -> str:
    path = tmp_path / "train.log"
    with pytest.raises(EngineError), LogFile(path, one_thread=True):
        run(tmp_path / "run", **keywords)
    return path.read_text()


def test_of_a_sphere(tmp_path: Path) -> None:
    log = log_of(tmp_path, workers=1, permits=1, options={"fail_lane": [2, 3]})
    places = [
        log.index("WARNING crystalline.train: sphere 0 failed with exit code 1 and is replaced"),
        log.index("ERROR crystalline.train: Traceback"),
        log.index("    ArithmeticError: lane 2 of step 3 is meant to fail"),
        log.index("ERROR crystalline.log: sphere 0 died 5 times within 60 seconds"),
    ]
    assert places == sorted(places)
    assert log.count("Traceback") == 1
    assert log.count("and is replaced") == 5


def test_of_node_zero_and_the_launcher(tmp_path: Path) -> None:
    log = log_of(tmp_path, options={"fail_start": True})
    places = [
        log.index("ERROR crystalline.train: Traceback"),
        log.index("    LookupError: a bug in the program"),
        log.index(
            "ERROR crystalline.log: the coordinator process Node Zero ended with exit code 1"
        ),
    ]
    assert places == sorted(places)
    assert log.count("LookupError: ") == 1
