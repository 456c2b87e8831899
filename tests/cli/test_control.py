"""cllm-control against runs that go on in other processes, in every state."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import control
from crystalline.train.metrics import read_metrics
from tests.train.engine_runs import make_spec, run, serial_run
from tests.train.test_endings import ENDLESS, ROOT, started
from tests.train.test_suspending import EVALUATING
from tests.ui.pty_tools import on_terminal

pytestmark = pytest.mark.timeout(60)

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = control.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ask


def status(ask: Ask, run_dir: Path) -> dict[str, Any]:
    code, out, err = ask(run_dir, "status", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def wait_for(ask: Ask, run_dir: Path, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while (found := status(ask, run_dir))["state"] != state:
        assert time.monotonic() < deadline, found["state"]
        time.sleep(0.02)
    return found


def test_a_run_is_paused_changed_saved_and_stopped(tmp_path: Path, ask: Ask) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        assert status(ask, tmp_path)["workers"] == 3
        assert ask(tmp_path, "pause")[0] == 0
        paused = wait_for(ask, tmp_path, "paused")
        code, out, _ = ask(tmp_path)
        assert code == 0
        assert out.startswith(f"{tmp_path}: paused, 3 workers\nstep {paused['step']}/100000  loss")
        assert ask(tmp_path, "pause")[::2] == (
            1, "cllm-control: error: the run is paused already. Let it go on with: resume.\n",
        )  # fmt: skip
        assert ask(tmp_path, "checkpoint")[0] == 0
        deadline = time.monotonic() + 10
        wanted = tmp_path / "checkpoints" / f"step-{paused['step']:08d}" / "state.json"
        while not wanted.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ask(tmp_path, "workers", 5)[0] == 0
        assert ask(tmp_path, "workers", 5)[2].endswith("5 workers already. Nothing changes.\n")
        assert ask(tmp_path, "workers", 0)[2].endswith("Use 1 to 63 of them.\n")
        assert status(ask, tmp_path)["step"] == paused["step"]
        assert ask(tmp_path, "resume")[0] == 0
        assert ask(tmp_path, "resume")[::2] == (
            1, "cllm-control: error: the run is not paused. There is nothing to resume.\n",
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while status(ask, tmp_path)["step"] <= paused["step"]:
            assert time.monotonic() < deadline
        assert ask(tmp_path, "stop")[:2] == (
            0, f"{tmp_path}: it will finish the step in hand, write a checkpoint and end\n",
        )  # fmt: skip
        returned, out, err = engine.end()
        engine.assert_all_gone()
    assert returned == 75, err
    assert json.loads(out)["stop_reason"] == "stopped"
    step = json.loads(out)["final_step"]
    assert "process" not in err  # the wishes are told of, not errors
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "event" in line]
    assert [line["event"] for line in lines if line["event"] != "request"] == [
        "paused", "workers", "resumed",
    ]  # fmt: skip
    asked = [line for line in lines if line["event"] == "request"]
    assert [(line["command"], line["argument"], line["ok"]) for line in asked] == [
        ("pause", None, True), ("checkpoint", None, True), ("workers", "5", True),
        ("resume", None, True), ("stop", None, True),
    ]  # fmt: skip
    assert {(line["pid"], line["uid"]) for line in asked} == {(os.getpid(), os.getuid())}
    assert all(abs(line["asked_at"] - time.time()) < 60 for line in asked)
    assert not (tmp_path / "control.sock").exists()
    code, _, err = ask(tmp_path, "status")
    assert (code, err) == (
        4, (f"cllm-control: error: nobody trains in {tmp_path}; it ended at step "
        f"{step:,}: stopped. "
        f"Go on with the run by: cllm-train --resume {tmp_path}.\n"),
    )  # fmt: skip


def test_an_evaluation_is_paused_and_ended(tmp_path: Path, ask: Ask) -> None:
    with started(tmp_path, **EVALUATING) as engine:
        wait_for(ask, tmp_path, "evaluating")
        assert ask(tmp_path, "pause")[0] == 0
        wait_for(ask, tmp_path, "paused")
        assert ask(tmp_path, "resume")[0] == 0
        found = wait_for(ask, tmp_path, "evaluating")
        assert found["work_total"] > 0
        assert ask(tmp_path, "stop")[0] == 0
        assert engine.end()[0] == 75


def test_a_run_that_is_ending_hears_no_more(tmp_path: Path, ask: Ask) -> None:
    slow = {**ENDLESS, "options": {"naps": {"compute": 0.04}}}
    with started(tmp_path, **slow) as engine:
        assert ask(tmp_path, "stop")[0] == 0
        for command in ("pause", "resume", "checkpoint", "stop"):
            code, _, err = ask(tmp_path, command)
            assert (code, err) == (
                1, ("cllm-control: error: the run is ending already. "
                "Nothing more can be asked of it.\n"),
            )  # fmt: skip
        assert engine.end()[0] == 75


def test_a_stopped_launcher_is_told_of(tmp_path: Path, ask: Ask) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        engine.process.send_signal(signal.SIGSTOP)
        code, _, err = ask(tmp_path, "status", "--timeout", 0.3)
        pid = engine.process.pid
        assert (code, err) == (
            1, ("cllm-control: error: the run does not answer: its process "
            f"{pid} is stopped, as by Ctrl-Z. Let it go on with: kill -CONT {pid}.\n"),
        )  # fmt: skip
        engine.process.send_signal(signal.SIGCONT)
        assert ask(tmp_path, "stop")[0] == 0
        assert engine.end()[0] == 75


def test_a_run_under_nohup_loses_its_terminal_and_is_stopped(tmp_path: Path, ask: Ask) -> None:
    argv = [sys.executable, "-m", "tests.train.engine_runs", str(tmp_path), json.dumps(ENDLESS)]
    with subprocess.Popen(
        ["nohup", *argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "control.sock").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert ask(tmp_path, "pause")[0] == 0  # waits until it has started
            wait_for(ask, tmp_path, "paused")
            process.send_signal(signal.SIGHUP)
            assert ask(tmp_path, "stop")[0] == 0
            assert process.wait(20) == 75
        finally:
            if process.poll() is None:
                process.kill()


def test_bits_are_the_same_whatever_was_asked(tmp_path: Path) -> None:
    """Another process asks while this one trains."""
    words = ["pause", "resume", "workers 5", "checkpoint", "pause", "resume"]
    script = "\n".join(
        ["import time; from crystalline.cli.control import main"]
        + [
            f"assert main({[str(tmp_path), *word.split()]!r}) == 0; time.sleep(0.05)"
            for word in words
        ]
    )
    asking: list[subprocess.Popen[bytes]] = []

    def ask_once(_: object) -> None:
        if not asking:
            asking.append(subprocess.Popen([sys.executable, "-c", script], cwd=ROOT))

    slow = {"naps": {"compute": 0.002}}
    result = run(tmp_path, ask_once, steps=150, options=slow)
    assert asking[0].wait(20) == 0
    events = [line["event"] for line in read_metrics(tmp_path / "metrics.jsonl") if "event" in line]
    assert events.count("paused") == events.count("resumed") >= 1
    program, _ = serial_run(make_spec(tmp_path / "alone", steps=150))
    assert result.weights_sha256 == program.weights_sha256()


def test_without_a_socket_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "control.sock").mkdir()
    assert run(tmp_path, steps=2).stop_reason == "finished"
    assert [m for m in caplog.messages if "cannot be reached by other processes" in m]
    assert (tmp_path / "control.sock").is_dir()


def test_a_stale_socket_is_nobody(tmp_path: Path, ask: Ask) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control.sock"))
    stale.close()
    assert ask(tmp_path, "pause")[0] == 4
    run(tmp_path, steps=2)
    assert not (tmp_path / "control.sock").exists()


def test_a_run_that_is_locked_but_has_no_door(tmp_path: Path, ask: Ask) -> None:
    from crystalline.formats.rundir import RunDir

    with RunDir.create(tmp_path):
        code, _, err = ask(tmp_path, "status")
    assert code == 1
    assert f"process {os.getpid()} on " in err
    assert "cannot be reached. It is about to start or to end" in err
    assert ask(tmp_path, "status")[0] == 4


def test_watching_without_a_terminal_prints_lines_until_the_end(tmp_path: Path, ask: Ask) -> None:
    with started(tmp_path, **{**ENDLESS, "steps": 400}) as engine:
        code, out, err = ask(tmp_path, "watch")
        assert engine.end()[0] == 0
    assert code == 0
    assert out == f"{tmp_path}: the run has ended; it ended at step 400: finished\n"
    assert err.count("step ") >= 1


def test_watching_on_a_terminal_takes_keys_and_leaves_the_run(tmp_path: Path, ask: Ask) -> None:
    script = "import sys\nfrom crystalline.cli.control import main\nsys.exit(main(sys.argv[1:]))"
    with (
        started(tmp_path, **ENDLESS) as engine,
        on_terminal(script, str(tmp_path), "watch") as session,
    ):
        session.wait_for(b"leave")
        session.send(b"p")
        wait_for(ask, tmp_path, "paused")
        session.wait_for(b"PAUSED")
        session.send(b"p")
        wait_for(ask, tmp_path, "training")
        session.send(b"q")
        assert session.end() == 0
        assert status(ask, tmp_path)["state"] == "training"
        assert ask(tmp_path, "stop")[0] == 0
        assert engine.end()[0] == 75


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "no run is given. Name its directory, as in: cllm-control runs/NAME status."),
        (["."], 4, "nobody trains in . "),
        (["nothing"], 4, "there is no run or checkpoint at nothing"),
        ([".", "dance"], 2, "'dance' is not a command of cllm-control. The commands are status,"),
        ([".", "workers"], 2, "workers takes a whole number, and none was given"),
        ([".", "workers", "many"], 2, "workers takes a whole number"),
        ([".", "pause", "3"], 2, "pause takes no argument"),
        ([".", "status", "3"], 2, "status takes no argument, and got '3'"),
        ([".", "checkpoint", "a b"], 2, "checkpoint takes a name of 1 to 64 letters, digits and"),
        ([".", "checkpoint", "a", "b"], 2, "checkpoint takes one argument, and got 'a b'"),
        ([".", "restore"], 2, "restore takes a step, or a name of a checkpoint, and none was"),
        ([".", "restore", "../x"], 2, "restore takes a step, or a name of a checkpoint."),
        ([".", "lr-factor", "0"], 2, "lr-factor takes a number from 0.0001 to 10,000."),
        ([".", "lr-factor", "nan"], 2, "lr-factor takes a number from 0.0001 to 10,000."),
        ([".", "spawn", "3"], 2, "spawn takes two whole numbers."),
        ([".", "status", "--timeout", "0"], 2, "--timeout is 0"),
        ([".", "status", "--timeout", "nan"], 2, "--timeout is nan"),
    ],
)
def test_mistakes_get_one_sentence(
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    returned, out, err = ask(*argv)
    assert (returned, out) == (code, "")
    assert err.startswith(f"cllm-control: error: {words.strip()}")
    assert err.count("\n") == 1


def test_help_lists_every_request(ask: Ask) -> None:
    from crystalline.engine.requests import REQUESTS

    code, out, _ = ask("--help")
    assert code == 0
    for request in REQUESTS:
        assert request.help in " ".join(out.split())
    assert "Exit codes:" in out
