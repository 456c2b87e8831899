"""Runs from Python: begun, resumed, watched, stopped, in threads and without a guard."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crystalline as cl
from crystalline._kernels.atomics import adopt_orphans
from crystalline.cli import train as command
from crystalline.runs.settings import RunSettings

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "tokenizer": "char", "num_layers": 1, "num_heads": 2, "embed_dim": 12, "seq_len": 9,
    "batch_size": 13, "log_interval": 5, "eval_interval": 10, "workers": 2,
    "precision": "float32",
}  # fmt: skip
# More than anybody waits for, and nothing on the way.
ENDLESS = {**TINY, "max_steps": 10**6, "eval_interval": 0, "save_interval": 0}


def flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> cl.Run:
    """A run of 20 steps, to be looked at only."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(
        "the quick brown fox jumps over the lazy dog, and again; " * 60
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLLM_CACHE", str(folder / "cache"))
        return cl.train(folder / "text.txt", **TINY, max_steps=20, checkpoint_dir=folder / "run")


@pytest.fixture
def run(trained: cl.Run, tmp_path: Path) -> cl.Run:
    """A copy of it, to go on with."""
    shutil.copytree(trained.path, tmp_path / "run", symlinks=True)
    return cl.Run(tmp_path / "run")


# --- what comes out -------------------------------------------------------------------------------


def test_it_is_the_run_of_the_command(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = cl.train(text, **TINY, max_steps=20, checkpoint_dir=tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    place = ["--checkpoint-dir", str(tmp_path / "b"), "--json", "--quiet"]
    assert command.main([str(text), *flags(TINY), "--max-steps=20", *place]) == 0
    result = json.loads(capfd.readouterr().out)
    assert run.weights_sha256 == result["weights_sha256"]
    assert run.step == result["final_step"] == 20
    assert run.stop_reason == "finished"
    mine, theirs = ((tmp_path / name / "config.toml").read_text() for name in "ab")
    assert mine == theirs.replace(str(tmp_path / "b"), str(tmp_path / "a"))


def test_a_run_says_what_its_files_say(trained: cl.Run, tmp_path: Path) -> None:
    run = trained
    assert run.latest == run.path / "checkpoints" / "step-00000020"
    assert run.best is not None
    assert run.best.parent == run.latest.parent
    assert [step for step, _ in run.losses] == [5, 10, 15, 20]
    assert [step for step, _ in run.val_losses] == [10, 20]
    assert run.losses[-1][1] < run.losses[0][1]
    assert run.metrics[0]["step"] == 5
    assert run.settings["embed_dim"] == 12
    assert os.fspath(run) == str(run.path)
    again = cl.Run(run.path)
    assert (again.step, again.weights_sha256) == (20, run.weights_sha256)
    assert again.stop_reason is None
    assert (again.latest, again.best, again.losses) == (run.latest, run.best, run.losses)
    assert again != run
    assert again == cl.Run(str(run.path))
    nothing = cl.Run(tmp_path / "nothing")
    assert (nothing.step, nothing.latest, nothing.best, nothing.metrics) == (0, None, None, [])
    with pytest.raises(cl.CheckpointError):
        _ = nothing.weights_sha256


def test_a_relative_run_is_found_from_elsewhere(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cl.train(text, **TINY, max_steps=2, checkpoint_dir="here")
    monkeypatch.chdir(tmp_path)
    assert run.latest is not None
    assert run.step == cl.Run(run.path).step == 2


def test_its_model_writes_and_measures(trained: cl.Run) -> None:
    run = trained
    model = cl.load(run)
    assert model.path == run.best
    assert model.config.embed_dim == 12
    text = model.generate("the ", max_tokens=20, seed=3)
    assert text == cl.load(run.path, checkpoint="best").generate("the ", max_tokens=20, seed=3)
    assert len(text) == 20
    assert 1 < model.perplexity("the quick brown fox") < 40


def test_a_resumed_run_goes_on_bit_for_bit(text: Path, tmp_path: Path) -> None:
    # A warm-up that the shorter run has room for, too, however few steps the stopped one makes.
    settings = {**ENDLESS, "lr_schedule": "constant", "warmup_steps": 9, "keep": 99}
    stopped = cl.train(
        text, **settings, checkpoint_dir=tmp_path / "stopped", on_progress=lambda s: s.step < 1
    )
    assert stopped.stop_reason == "stopped"
    assert stopped.step > 0
    end = stopped.step + 30
    settings["max_steps"] = end
    straight = cl.train(text, **settings, checkpoint_dir=tmp_path / "straight")
    checkpoint = stopped.path / "checkpoints" / f"step-{stopped.step:08}"
    longer = cl.resume(stopped, workers=3, max_steps=end)
    assert (longer.path, longer.step) == (stopped.path, end)
    assert longer.weights_sha256 == straight.weights_sha256
    assert cl.resume(os.fspath(longer)).step == end  # finished: says its result again
    assert cl.resume(checkpoint, max_steps=end).weights_sha256 == straight.weights_sha256


def test_the_newest_run_is_resumed_without_a_name(text: Path) -> None:
    run = cl.train(text, **TINY, max_steps=2)
    assert run.path.parent == Path.cwd() / "runs"
    assert cl.resume(max_steps=3).path == run.path


def test_settings_come_from_a_file_below_the_keywords(text: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("seed = 5\nmax_steps = 7\nquiet = true\n")
    run = cl.train(text, **TINY, config=path, max_steps=2, checkpoint_dir=tmp_path / "run")
    assert (run.step, run.settings["seed"]) == (2, 5)
    path.write_text("seed = 5\nmax_steps = 4\n")
    assert cl.resume(run, config=path).step == 4


def test_the_environment_is_for_commands(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLLM_SEED", "5")
    monkeypatch.setenv("CLLM_NO_SUCH", "1")
    run = cl.train(text, **TINY, max_steps=1, checkpoint_dir=tmp_path / "run")
    assert run.settings["seed"] == RunSettings.seed


# --- wrong settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_layers": 0}, "num_layers is 0. It must be at least 1."),
        ({"num_layer": 2}, "'num_layer' is not a setting. Did you mean num_layers?"),
        ({"seq_len": "9"}, "seq_len is '9'. It must be a whole number."),
        ({"optimizer": "adam"}, "optimizer is 'adam'. It must be adamw or sgd."),
        ({"min_lr": 9.0}, "min_lr is 9.0. It must lie between 0 and learning_rate (0.001)."),
        (
            {"workers": 64},
            "workers is 64. It must be between 1 and 63, or up to 144 with recursive_depth 2.",
        ),
        ({"quiet": True}, "'quiet' is not a setting. It says how the command shows a run"),
        ({"resume": "runs/a"}, "'resume' is not a setting. Use crystalline.resume."),
        ({"threads": 2}, "'threads' is not a setting. Its name is workers."),
        ({"data": []}, "data names no text. Leave it out"),
        ({"data": ""}, "a DATA argument is empty"),
        ({"data": 3}, "data is 3. It must be a string or several."),
        ({"plan": "0:5", "max_steps": 6}, "plan 0:5 ends at step 5, and max_steps is 6"),
        ({"config": "nothing.toml"}, "nothing.toml"),
        ({"freeze_lambda": True}, "Add attention crystalline, or leave it out."),
    ],
)
def test_a_wrong_setting_is_told_in_python(given: dict[str, Any], words: str) -> None:
    with pytest.raises(cl.UsageError) as caught:
        cl.train(**given)
    assert words in str(caught.value)
    assert "--" not in str(caught.value)
    assert not Path("runs").exists()


def test_what_a_resumed_run_cannot_change_is_refused(run: cl.Run) -> None:
    for given, words in [
        ({"embed_dim": 24}, "embed_dim 24 differs from the 12 that the run"),
        ({"checkpoint_dir": "b"}, "checkpoint_dir is 'b', and a resumed run stays where it is"),
        ({"max_steps": 5}, "Use max_steps 21 or more."),
    ]:
        with pytest.raises(cl.UsageError) as caught:
            cl.resume(run, **given)
        assert words in str(caught.value)
        assert "--" not in str(caught.value)
    with pytest.raises(cl.UsageError, match="the run to resume is ''"):
        cl.resume("")


def test_errors_name_the_door_and_not_the_command(run: cl.Run, text: Path, tmp_path: Path) -> None:
    with pytest.raises(cl.CheckpointError, match="there is no run at"):
        cl.resume(tmp_path / "nothing")
    place = run.path
    with pytest.raises(cl.UsageError) as caught:
        cl.train(text, **TINY, max_steps=1, checkpoint_dir=place)
    assert "Continue it with" in caught.value.advice
    assert "--" not in caught.value.advice
    for checkpoint in (place / "checkpoints").iterdir():
        (checkpoint / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(cl.CheckpointError) as damaged:
        cl.resume(place)
    assert "cllm-" not in str(damaged.value)


def test_help_shows_every_setting() -> None:
    names = {field.name for field in dataclasses.fields(RunSettings)}
    for function in (cl.train, cl.resume):
        shown = set(inspect.signature(function).parameters)
        own = {"on_progress", "on_preparing", "config", "data"}
        assert names - {"checkpoint_dir"} <= shown
        assert shown - names - {"run"} == own - {"data"}
    assert cl.resume.__doc__


# --- watching and stopping ------------------------------------------------------------------------


def test_progress_is_told_in_snapshots(text: Path, tmp_path: Path) -> None:
    seen: list[cl.Snapshot] = []
    stages: list[tuple[str, int, int]] = []
    cl.train(
        text, **TINY, max_steps=20, checkpoint_dir=tmp_path / "run",
        on_progress=seen.append, on_preparing=lambda *stage: stages.append(stage),
    )  # fmt: skip
    last = seen[-1]
    assert (last.step, last.max_steps, last.state) == (20, 20, "finished")
    assert last.loss is not None
    assert last.tokens == 20 * 9 * 13
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.step = 3  # type: ignore[misc]
    assert stages
    assert all(isinstance(name, str) for name, _, _ in stages)


def test_false_saves_and_ends_the_run(text: Path, tmp_path: Path) -> None:
    calls = []

    def stop(snapshot: cl.Snapshot) -> object:
        if snapshot.step:
            calls.append(snapshot.step)
            return np.False_  # as a comparison with a number of NumPy's gives it
        return None

    run = cl.train(text, **ENDLESS, checkpoint_dir=tmp_path / "run", on_progress=stop)
    assert run.stop_reason == "stopped"
    assert len(calls) == 1
    assert 0 < run.step < 10**6
    assert cl.resume(run, max_steps=run.step + 5).step == run.step + 5


def test_a_run_that_is_stopped_at_its_first_snapshot_can_be_resumed(
    text: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    run = cl.train(text, **ENDLESS, checkpoint_dir=place, on_progress=lambda _: False)
    assert run.stop_reason == "stopped"
    assert cl.resume(run, max_steps=run.step + 2).step == run.step + 2


def test_what_a_callback_returns_else_means_nothing(text: Path, tmp_path: Path) -> None:
    answers: list[object] = [[], "", 0, None]
    run = cl.train(
        text, **TINY, max_steps=100, checkpoint_dir=tmp_path / "run",
        on_progress=lambda _: answers.pop() if answers else True,
    )  # fmt: skip
    assert run.stop_reason == "finished"


@pytest.mark.parametrize("error", [StopIteration("mine"), KeyboardInterrupt()])
def test_an_exception_saves_the_run_and_goes_on(
    text: Path, tmp_path: Path, error: BaseException
) -> None:
    def fail(snapshot: cl.Snapshot) -> None:
        if snapshot.step:
            raise error

    place = tmp_path / "run"
    with pytest.raises(type(error)) as caught:
        cl.train(text, **ENDLESS, checkpoint_dir=place, on_progress=fail)
    assert caught.value is error
    assert cl.Run(place).step > 0
    assert cl.resume(place, max_steps=cl.Run(place).step + 1).stop_reason == "finished"


def test_an_exception_while_preparing_leaves_nothing(text: Path, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cl.train(text, **TINY, checkpoint_dir=tmp_path / "run", on_preparing=fail)
    assert not (tmp_path / "run").exists()


KILLED = f"""
import logging, os, signal, sys
import crystalline as cl

killed = []

def kill(now):
    sphere = now.spheres[0] if now.step else None
    if sphere is None or sphere.respawns < len(killed) or sphere.pid in (0, *killed):
        return True
    if len(killed) == 2:
        return False
    if killed:
        logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
    os.kill(sphere.pid, signal.SIGKILL)
    killed.append(sphere.pid)
    return True

cl.train(sys.argv[1], **{ENDLESS!r}, checkpoint_dir="run", on_progress=kill)
"""


def test_warnings_are_told_where_the_program_asks_for_them(text: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(text)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"WARNING:crystalline\.train:sphere 0 .* is replaced\n", done.stdout)


# --- threads --------------------------------------------------------------------------------------


def test_threads_train_at_once_and_leave_the_process_as_it_was(text: Path, tmp_path: Path) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)]
    found: dict[str, cl.Run] = {}

    def train(name: str, steps: int) -> None:
        found[name] = cl.train(text, **TINY, max_steps=steps, checkpoint_dir=tmp_path / name)

    threads = [threading.Thread(target=train, args=(n, s)) for n, s in (("a", 15), ("b", 60))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: run.step for name, run in found.items()} == {"a": 15, "b": 60}
    assert handlers == [
        signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)
    ]
    before = adopt_orphans(False)
    assert before is False
    alone = cl.train(text, **TINY, max_steps=15, checkpoint_dir=tmp_path / "alone")
    assert alone.weights_sha256 == found["a"].weights_sha256


def test_a_program_may_have_a_thousand_files_open(text: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("no more files may be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 1050:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        assert cl.train(text, **TINY, max_steps=2, checkpoint_dir=tmp_path / "run").step == 2
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- scripts without a guard ----------------------------------------------------------------------

SCRIPT = f"""
import numpy, os, selectors, socket, sys
import crystalline as cl
os.chdir(sys.argv[1])
run = cl.train(sys.argv[2], **{TINY!r}, max_steps=3, checkpoint_dir="run")
print(run.step, cl.load(run).generate("the ", max_tokens=5, seed=1) != "")
"""


@pytest.mark.parametrize("how", ["-c", "-"])
def test_a_script_needs_no_guard(how: str, text: Path, tmp_path: Path) -> None:
    """Nor does it matter that it moves, and that its folder holds modules with usual names."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("selectors.py", "socket.py", "numpy.py"):
        (elsewhere / name).write_text("raise SystemExit('not this one')")
    script, stdin = ([SCRIPT], None) if how == "-c" else ([], SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "error", how, *script, str(elsewhere), str(text)],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 True\n", "")


# --- signals --------------------------------------------------------------------------------------

INTERRUPTED = f"""
import sys
import crystalline as cl
try:
    cl.train(sys.argv[1], **{ENDLESS!r}, checkpoint_dir="run",
             on_progress=lambda s: s.step and print("on", flush=True))
except KeyboardInterrupt as stop:
    print(type(stop).__name__, stop.run.step > 0, stop.run.stop_reason, stop)
"""


def interrupted(number: int, text: Path, tmp_path: Path) -> tuple[int, str, str]:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(text)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_ctrl_c_saves_and_raises_with_the_run(text: Path, tmp_path: Path) -> None:
    code, out, err = interrupted(signal.SIGINT, text, tmp_path)
    assert (code, err) == (0, "")
    step = cl.Run(tmp_path / "run").step
    assert out.splitlines()[-1] == (
        f"Interrupted True interrupted saved at step {step}; go on with crystalline.resume('run')"
    )


def test_sigterm_saves_and_then_ends_the_program(text: Path, tmp_path: Path) -> None:
    code, out, err = interrupted(signal.SIGTERM, text, tmp_path)
    assert (code, err) == (-signal.SIGTERM, "")
    assert "Interrupted" not in out
    assert cl.Run(tmp_path / "run").step > 0
    deadline = time.monotonic() + 5  # its lock is free
    while time.monotonic() < deadline:
        try:
            assert cl.resume(tmp_path / "run", max_steps=cl.Run(tmp_path / "run").step).step
        except cl.UsageError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the run is still in use")


def test_a_handler_of_the_program_is_called_when_the_run_is_saved(
    text: Path, tmp_path: Path
) -> None:
    calls: list[int] = []
    sent: list[int] = []

    def terminate(snapshot: cl.Snapshot) -> None:
        if snapshot.step and not sent:
            sent.append(snapshot.step)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(cl.Run(tmp_path / "run").step))
    try:
        run = cl.train(
            text, **ENDLESS, checkpoint_dir=tmp_path / "run",
            on_progress=terminate,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.stop_reason == "terminated"
    assert calls == [run.step]
    assert run.step >= sent[0]


def test_a_second_ctrl_c_leaves_at_once(text: Path, tmp_path: Path) -> None:
    def interrupt(snapshot: cl.Snapshot) -> None:
        if snapshot.step:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(cl.Interrupted, match="left at once, without saving") as caught:
        cl.train(text, **ENDLESS, checkpoint_dir=tmp_path / "run", on_progress=interrupt)
    assert caught.value.run == cl.Run(tmp_path / "run")


def test_the_way_on_is_in_the_words_of_the_door(text: Path, tmp_path: Path) -> None:
    def kill(snapshot: cl.Snapshot) -> None:
        """Kill Node Zero, the spheres' parent, when there is a checkpoint."""
        if snapshot.last_checkpoint is not None:
            status = Path(f"/proc/{snapshot.spheres[0].pid}/stat").read_text()
            os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGKILL)

    place = tmp_path / "run"
    with pytest.raises(cl.EngineError) as caught:
        cl.train(text, **{**ENDLESS, "save_interval": 5}, checkpoint_dir=place, on_progress=kill)
    way_on = f"Go on from the newest checkpoint: crystalline.resume('{place}')"
    assert caught.value.advice == way_on
