"""What a run tells: train.log, --log-file and levels, and the variables of the command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from crystalline.data.finding import find
from tests.surroundings import TEXT, own_surroundings

_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --eval-interval 0 --save-interval 10 --workers 2 --plain --precision float32"""
TINY = _TINY.split()
STEP = re.compile(
    r"step (\d+): lanes [\d.]+ ms, sums [\d.]+ ms, update [\d.]+ ms; "
    r"lanes by sphere ([\d: ]+); (\d+) claims stolen"
)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


@pytest.fixture
def train(call_train):
    """Run the command in this process; return (exit code, stderr)."""

    def train(*argv: object) -> tuple[int, str]:
        code, _, err = call_train(*argv)
        return code, err

    return train


def messages(path: Path, level: str = "[A-Z]+") -> list[str]:
    return re.findall(rf"^\S+Z {level} crystalline\.\w+: (.*)", path.read_text(), re.MULTILINE)


def test_a_run_keeps_a_log_of_all_its_sessions(train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, err = train(text, *TINY, "--max-steps", 2, "--checkpoint-dir", run, "--quiet")
    assert (code, err) == (0, "")
    first = messages(run / "train.log")
    assert re.fullmatch(rf"{run} begins, process \d+, version \S+", first[0])
    assert first[1].startswith("lanes by symmetry position")
    assert first[2].startswith(f"{run} ends at step 2 of 2 (finished), validation loss ")
    assert f"    run      {run}\n" in (run / "train.log").read_text()
    code, _ = train("--resume", run, "--max-steps", 3, "--plain")
    assert code == 0
    log = messages(run / "train.log")
    assert log[:3] == first
    assert log[3].startswith(f"{run} goes on, process ")
    assert len(log) == 6  # each once
    code, _ = train("--resume", run, "--learning-rate", 5)
    assert code == 2
    assert "learning-rate" in messages(run / "train.log", "ERROR")[-1]


def test_debug_tells_of_every_step(train, text: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "new.log"
    argv = [text, *TINY, "--max-steps", 3, "--checkpoint-dir", run, "--log-file", log, "-v"]
    code, err = train(*argv)
    assert code == 0
    for where in (err, (run / "train.log").read_text(), log.read_text()):
        steps = STEP.findall(where)
        assert [int(step) for step, _, _ in steps] == [1, 2, 3]
        for _, lanes, stolen in steps:
            assert sum(int(each.partition(":")[2]) for each in lanes.split()) == 12
            assert 0 <= int(stolen) <= 12
    assert (run / "train.log").read_text() == log.read_text()
    code, err = train("--resume", run, "--max-steps", 4, "--plain", "--log-level", "DEBUG")
    assert [step for step, _, _ in STEP.findall(err)] == ["4"]
    assert STEP.findall((run / "train.log").read_text())[-1][0] == "4"


def test_levels_by_flag_variable_and_file(
    train, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = tmp_path / "run", tmp_path / "new.log"
    monkeypatch.setenv("CLLM_LOG_FILE", str(log))
    monkeypatch.setenv("CLLM_LOG_LEVEL", "ERROR")
    code, err = train(text, *TINY, "--max-steps", 1, "--checkpoint-dir", run)
    assert code == 0
    assert "symmetry" not in err  # shown from INFO on
    assert "Finished step 1" in err  # no message
    assert not log.exists()  # nothing to tell
    assert len(messages(run / "train.log")) == 3
    monkeypatch.setenv("CLLM_LOG_LEVEL", "LOUD")
    code, err = train(text, *TINY)
    assert code == 2
    assert "CLLM_LOG_LEVEL is 'LOUD'. It must be DEBUG, INFO, WARNING or ERROR." in err


def test_a_log_file_has_what_came_before_the_run(train, tmp_path: Path) -> None:
    log = tmp_path / "new.log"
    code, err = train(tmp_path / "nothing", "--log-file", log)
    assert code == 3
    (said,) = messages(log, "ERROR")
    assert said in err


def test_a_log_file_is_a_log(train, text: Path) -> None:
    code, err = train(text, *TINY, "--log-file", text)
    assert code == 2
    assert f"--log-file {text} is a file that holds something else." in err
    assert text.read_text() == TEXT


def test_a_log_that_cannot_be_written_stops_nothing(train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = [text, *TINY, "--max-steps", 1, "--checkpoint-dir", run]
    code, err = train(*argv, "--log-file", tmp_path / "no" / "folder.log", "--quiet")
    assert code == 0
    assert err.count("cannot be written (No such file or directory)") == 1
    (run / "train.log").unlink()
    (run / "train.log").mkdir()
    code, err = train("--resume", run, "--max-steps", 2, "--quiet")
    assert code == 0
    assert err.count("train.log cannot be written (it is a folder, not a file)") == 1


def test_logs_are_no_text(train, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    shutil.copy(text, folder)
    argv = [folder, *TINY, "--max-steps", 1, "--checkpoint-dir", folder / "run"]
    code, err = train(*argv, "--log-file", folder / "all.log")
    assert code == 0, err
    shutil.copy(folder / "run" / "train.log", folder / "copy.log")
    (folder / "server.log").write_text("somebody's")
    assert [source.path.name for source in find([folder]).sources] == ["server.log", "text.txt"]
    # And a folder with nothing but what a run that failed has left is a run's.
    for entry in (folder / "run").iterdir():
        if entry.name not in ("train.log", "config.toml"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (folder / "run" / "train.log.1").write_text("older")
    assert [source.path.name for source in find([folder]).sources] == ["server.log", "text.txt"]


def test_a_run_that_starts_over_keeps_its_log(train, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, _ = train(text, *TINY, "--max-steps", 1, "--checkpoint-dir", run)
    for entry in run.iterdir():
        if entry.name not in ("train.log", "config.toml", "run.lock"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    code, err = train(text, *TINY, "--max-steps", 1, "--checkpoint-dir", run)
    assert code == 0, err
    assert len(messages(run / "train.log")) == 6


def test_a_variable_names_the_text(
    train, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLLM_DATA_DIR is a default: flags and files win, and a resumed run keeps its text."""
    other = tmp_path / "other.txt"
    other.write_text(TEXT.upper() * 2)
    monkeypatch.setenv("CLLM_DATA_DIR", str(other))
    code, err = train(*TINY, "--max-steps", 1, "--checkpoint-dir", tmp_path / "a")
    assert code == 0
    assert f"data     {other}" in err
    code, err = train(text, *TINY, "--max-steps", 1, "--checkpoint-dir", tmp_path / "b")
    assert code == 0
    assert f"data     {text}" in err
    code, err = train("--resume", tmp_path / "b", "--max-steps", 2, "--plain")
    assert code == 0
    assert f"data     {text}" in err
    monkeypatch.setenv("CLLM_CHECKPOINT_DIR", str(tmp_path / "b"))
    code, err = train("--resume", "--max-steps", 3, "--plain")
    assert code == 0, err
    assert "Finished step 3" in err
