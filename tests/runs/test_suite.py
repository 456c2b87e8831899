"""--eval-suite: best checkpoints are measured beside training, and training is none the wiser."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import crystalline as cl
from crystalline import suspension
from crystalline.cli import eval as evaluation
from crystalline.errors import DataError, UsageError
from crystalline.formats.pointers import set_pointer
from crystalline.formats.rundir import read_toml
from crystalline.infer.suite import BUILT_IN, Question
from crystalline.runs import suite_worker
from crystalline.runs.settings import RunSettings
from crystalline.runs.suite import SuiteWatch, questions_of
from crystalline.train.launcher import import_path

TINY: dict[str, Any] = {
    "tokenizer": "char", "num_layers": 1, "num_heads": 2, "embed_dim": 16, "seq_len": 16,
    "batch_size": 12, "workers": 2, "precision": "float32", "eval_interval": 6, "log_interval": 6,
    "max_steps": 6,
}  # fmt: skip
QUESTIONS = [
    {"group": "code", "prompt": "the fox", "answer": " jumps"},
    {"group": "dogs", "prompt": "lazy", "answer": " dog"},
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return path


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "crystalline.runs")
    return caplog


def checkpoint(run: Path, step: int, *, best: bool = True) -> Path:
    """Make what looks like a checkpoint until it is opened."""
    path = run / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text("{}")
    if best:
        set_pointer(run, "best", path)
    return path


def watch_of(run: Path) -> SuiteWatch:
    return SuiteWatch(run, "built-in", [Question("code", "a", "b")])


def until(condition: Any, watch: SuiteWatch | None = None) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        if watch is not None:
            watch.look()
        time.sleep(0.02)


def children() -> list[psutil.Process]:
    """Return the processes of suites that have not been waited for."""
    found = []
    for one in psutil.Process().children():
        try:
            found += [one] * ("suite" in one.cmdline())
        except psutil.ZombieProcess:
            found.append(one)
    return found


def test_the_best_checkpoints_are_measured_and_the_bits_are_the_same(
    text: Path, suite: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain = cl.train(text, **TINY, checkpoint_dir=tmp_path / "plain")
    run = cl.train(text, **TINY, checkpoint_dir=tmp_path / "run", eval_suite=suite)
    assert run.weights_sha256 == plain.weights_sha256
    assert not (plain.path / "suite.jsonl").exists()
    [line] = map(json.loads, (run.path / "suite.jsonl").read_text().splitlines())
    assert (line["step"], line["suite"]) == (6, str(suite))
    assert f"({suite})" in said.messages[0]
    assert [message for message in said.messages if message.startswith("Suite at step 6: code: ")]
    capsys.readouterr()
    assert evaluation.main([str(run.best), "--suite", str(suite), "--json"]) == 0
    [wanted] = json.loads(capsys.readouterr().out)["models"]
    assert line["groups"] == wanted["groups"]
    assert list(line["groups"]) == ["code", "dogs"]
    assert read_toml(run.path / "config.toml")["eval_suite"] == str(suite)
    assert not children()

    more = cl.resume(run, max_steps=12)  # it goes on with the suite
    steps = [json.loads(one)["step"] for one in (run.path / "suite.jsonl").read_text().splitlines()]
    assert steps == ([6, 12] if more.best != run.latest.with_name("step-00000006") else [6])
    cl.resume(run, max_steps=13, eval_suite="off")
    assert "eval_suite" not in read_toml(run.path / "config.toml")


def test_of_what_comes_meanwhile_the_newest_waits(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    checkpoint(tmp_path, 1)
    with watch_of(tmp_path) as watch:
        watch.look()
        assert not children()  # that one was the best before
        checkpoint(tmp_path, 2)
        watch.look()
        [child] = children()
        child.suspend()
        checkpoint(tmp_path, 3, best=False)
        checkpoint(tmp_path, 4)
        watch.look()
        checkpoint(tmp_path, 5)
        watch.look()
        assert children() == [child]
        assert said.messages[1:] == [
            "The suite was not run on step 4: there was a better one before its turn."
        ]
        child.resume()
        watch.finish(is_whole=True)
        for step, message in zip((2, 5), said.messages[3:], strict=True):
            assert message.startswith(f"The suite could not be run on step {step}: ")
    assert not children()
    assert not (tmp_path / "suite.jsonl").exists()


def test_a_checkpoint_that_is_gone_meanwhile_is_left_out(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    with watch_of(tmp_path) as watch:
        path = checkpoint(tmp_path, 2)
        watch.look()
        (path / "manifest.json").unlink()
        path.rmdir()
        watch.finish(is_whole=True)
    assert said.messages[-1].startswith("The suite was not run on step 2: ")


def test_a_process_that_is_killed_is_told(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    with watch_of(tmp_path) as watch:
        checkpoint(tmp_path, 2)
        watch.look()
        children()[0].kill()
        until(lambda: not children(), watch)
    assert said.messages[1:] == [
        "The suite could not be run on step 2: its process was killed by signal 9."
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_training_gives_the_suite_up(
    number: int, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    with watch_of(tmp_path) as watch:
        checkpoint(tmp_path, 2)
        watch.look()
        [child] = children()
        child.suspend()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
        last = threading.Timer(10, child.kill)  # or a fault would let this wait for ever
        timer.start()
        last.start()
        watch.finish(is_whole=True)
        timer.join()
        last.cancel()
    assert said.messages[1:] == [
        "The suite is run on the best checkpoint; Ctrl-C leaves it out.",
        "The suite on step 2 was given up.",
    ]
    assert not children()


def test_a_run_that_is_stopped_waits_for_nothing(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    with watch_of(tmp_path) as watch:
        checkpoint(tmp_path, 2)
        watch.look()
        children()[0].suspend()
        watch.finish(is_whole=False)
    assert said.messages[1:] == ["The suite on step 2 was given up."]
    assert not children()


def test_ctrl_z_stops_the_process_too(tmp_path: Path) -> None:
    with watch_of(tmp_path) as watch:
        checkpoint(tmp_path, 2)
        watch.look()
        [child] = children()
        part = suspension._parts[-1]
        part.before()
        until(lambda: child.status() == psutil.STATUS_STOPPED)
        part.after()
        until(lambda: child.status() != psutil.STATUS_STOPPED)
    assert part not in suspension._parts


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_file_that_cannot_be_written_is_told(
    kind: str, text: Path, suite: Path, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    run, precious = tmp_path / "run", tmp_path / "precious"
    precious.write_text("precious")

    def spoil(_: object) -> None:
        place = run / "suite.jsonl"
        if not os.path.lexists(place):
            place.mkdir() if kind == "folder" else place.symlink_to(precious)

    cl.train(text, **TINY, checkpoint_dir=run, eval_suite=suite, on_progress=spoil)
    assert [one for one in said.messages if "suite.jsonl cannot be written" in one]
    assert precious.read_text() == "precious"


def test_a_suite_that_cannot_be_is_told_before_the_long_work(tmp_path: Path, text: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"group": "code"}\n')
    for name, words in ((bad, "--eval-suite: line 1"), (tmp_path / "no", "--eval-suite: ")):
        run = tmp_path / "run"
        with pytest.raises(DataError) as raised:
            cl.train(text, **TINY, checkpoint_dir=run, eval_suite=name)
        assert raised.value.message.replace("eval_suite", "--eval-suite").startswith(words)
        assert not run.exists()
    with pytest.raises(UsageError, match="eval_suite is empty"):
        cl.train(text, **TINY, eval_suite="")
    assert questions_of(RunSettings()) == ()
    assert questions_of(RunSettings(eval_suite="built-in")) == BUILT_IN


def test_its_process_steps_back() -> None:
    code = (
        "import os; from crystalline.runs.suite_worker import step_back; step_back();"
        "print(os.nice(0), open('/proc/self/oom_score_adj').read())"
    )
    code = f"import sys; sys.path[:] = {import_path()!r}; {code}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nice, score = found.stdout.split()
    assert int(nice) == min(19, os.nice(0) + suite_worker.NICE)
    assert score == suite_worker.LIKELIEST_TO_DIE
