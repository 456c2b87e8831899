"""Every request from another process, in every state of a run: done, or refused with the reason."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import control
from crystalline.engine.call import Call
from crystalline.engine.requests import BY_NAME
from crystalline.train.metrics import read_metrics
from tests.train.test_endings import ENDLESS, ROOT

pytestmark = pytest.mark.timeout(60)

EXAMPLES: dict[str, Any] = {
    "workers": 4, "lr-factor": 0.5, "checkpoint": "mark", "spawn": [0, 2],
    "terminate": 2,
}  # fmt: skip
# What each state is refused for; other requests are done.
FLAT = {"spawn": "sphere 0 cannot have children: the tree may have 1 level"}
STARTED = {"start": "the run has started already"}
RUNNING = {**FLAT, **STARTED, "resume": "the run is not paused"}
ENDING = dict.fromkeys(BY_NAME, "the run is ending already")
SLOW: dict[str, Any] = {"naps": {"compute": 0.002}}
STATES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "held": ({"held": True}, {**FLAT, "rebalance": "no sphere has been measured yet",
                              "resume": "the run is not paused"}),
    "training": ({"options": SLOW}, RUNNING),
    "evaluating": ({"eval_interval": 5, "options": {"naps": {"evaluate": 0.08}}}, RUNNING),
    "saving": ({"save_interval": 3, "options": {**SLOW, "save_s": 0.3}}, RUNNING),
    "discovering": ({"discovery_interval": 1, "crystalline_epsilon": 0.25, "eval_interval": 5,
                     "options": {"discoveries": 0.1, "discovery_s": 0.5}}, RUNNING),
    "paused": ({"options": SLOW}, {**FLAT, **STARTED, "pause": "the run is paused already"}),
    "stopping": ({"options": {"naps": {"compute": 0.05}}}, ENDING),
}  # fmt: skip


class Asked:
    """A run in a process of its own, asked by its socket."""

    def __init__(self, run_dir: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.call = Call.open(run_dir, "control.sock", timeout_s=20)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def ask(self, command: str, argument: Any = None) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        request = {"command": command}
        if argument is not None:
            request["argument"] = argument
        while (answer := self.call.ask(request)).get("again"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return answer

    def outcome(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return what came of a request that was taken."""
        number = answer.get("number")
        deadline = time.monotonic() + 20
        while (answer["ok"] and "number" in answer) or answer.get("pending"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
            answer = self.call.ask({"command": "answer", "number": number})
        return answer

    def wait_for(self, state: str) -> None:
        deadline = time.monotonic() + 20
        while (answer := self.ask("status"))["state"] != state or (
            state == "training" and answer["snapshot"]["step"] < 3
        ):
            assert time.monotonic() < deadline, answer["state"]
            time.sleep(0.002)


@contextmanager
def asking(run_dir: Path) -> Iterator[Asked]:
    run = Asked(run_dir)
    with contextlib.closing(run.call):
        yield run


@contextmanager
def launched(run_dir: Path, **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    settings = {**ENDLESS, "eval_interval": 0, **keywords}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.train.engine_runs", str(run_dir), json.dumps(settings)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        # What it says is read as it comes, or it would wait for us.
        readers = [
            threading.Thread(target=stream.read) for stream in (process.stdout, process.stderr)
            if stream is not None
        ]  # fmt: skip
        for reader in readers:
            reader.start()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for reader in readers:
                reader.join()


@pytest.mark.parametrize("state", STATES)
def test_every_request_in_every_state(tmp_path: Path, state: str) -> None:
    keywords, refused = STATES[state]
    with launched(tmp_path, **keywords) as process, asking(tmp_path) as run:
        if state in ("paused", "stopping"):
            run.wait_for("training")
            assert run.outcome(run.ask("checkpoint"))["ok"]
            assert run.ask("pause" if state == "paused" else "stop")["ok"]
        if state != "stopping":  # which a run is only until its step is over
            run.wait_for(state)
        if state in ("training", "evaluating", "saving", "discovering"):
            assert run.outcome(run.ask("checkpoint"))["ok"]
        last = {"paused": ["resume", "stop"], "held": ["start", "stop"]}.get(state, ["stop"])
        for name in [name for name in BY_NAME if name not in last] + last:
            argument = EXAMPLES.get(name)
            if name == "restore":
                steps = sorted(int(path.name[5:]) for path in tmp_path.glob("checkpoints/step-*"))
                argument = str(steps[-1])
            answer = run.ask(name, argument)
            if name == "stop" and answer["ok"]:
                break
            outcome = run.outcome(answer)
            assert outcome["ok"] is (name not in refused), (name, outcome)
            if name in refused:
                assert outcome["reason"].startswith(refused[name]), name
            if name == "pause" and outcome["ok"]:
                assert run.ask("resume")["ok"]
        assert process.wait(20) == 75


def test_the_status_names_what_is_kept_and_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan_steps = [1]
    with launched(
        tmp_path, health_interval_s=0.05, options={**SLOW, "nan_steps": nan_steps}
    ) as process:  # fmt: skip

        def words(*argv: str) -> str:
            capsys.readouterr()
            assert control.main([str(tmp_path), *argv]) == 0
            return capsys.readouterr().out

        with asking(tmp_path) as run:
            run.wait_for("training")
            assert words("checkpoint", "before").endswith("is written, and kept as before\n")
            assert words("lr-factor", "0.25").endswith("of the schedule times 0.25\n")
            assert words("pause")
            run.wait_for("paused")
            time.sleep(0.3)
            status = words("status")
            assert words("stop")
        assert process.wait(20) == 75
    assert "\nlearning rate: the schedule's times 0.25\n" in status
    assert "\nkept by name: before (step " in status
    assert "\nhealth: DEGRADED: " in status
    assert "1 of the last 100 steps were dropped" in status


def test_requests_before_there_is_anybody_to_ask(tmp_path: Path) -> None:
    """The socket is there before Node Zero, and says so."""
    with (
        launched(tmp_path, options={"naps": {"compute": 0.002, "pack": 0.3}}) as process,
        asking(tmp_path) as run,
    ):
        answers = [run.call.ask({"command": name}) for name in ("status", "pause", "answer")]
        assert [answer["again"] for answer in answers] == [True] * 3
        assert {answer["reason"] for answer in answers} == {"the run is still starting"}
        assert run.ask("pause")["ok"]
        run.wait_for("paused")
        assert run.ask("status")["snapshot"]["step"] == 0
        assert run.ask("stop")["ok"]
        assert process.wait(20) == 75


def test_more_requests_than_places_are_refused_and_a_stop_is_not(tmp_path: Path) -> None:
    with launched(tmp_path, options={"naps": {"compute": 0.3}}) as process, asking(tmp_path) as run:
        run.ask("status")
        answers = [run.ask("lr-factor", 0.5) for _ in range(40)]
        refused = [answer["reason"] for answer in answers if not answer["ok"]]
        assert refused
        assert set(refused) == {"16 requests wait for the end of the step already"}
        assert run.ask("stop")["ok"]
        assert process.wait(20) == 75
    asked = [
        line for line in read_metrics(tmp_path / "metrics.jsonl") if line.get("event") == "request"
    ]
    assert len(asked) >= 40 - len(refused)


@pytest.mark.parametrize("number", [-1, 0, 10**30, "1", None, True, [0]])
def test_answers_to_nothing(tmp_path: Path, number: object) -> None:
    with launched(tmp_path, held=True) as process, asking(tmp_path) as run:
        run.wait_for("held")
        answer = run.call.ask({"command": "answer", "number": number})
        assert not answer["ok"]
        assert answer["reason"] == "no request of that number is known"
        assert run.ask("stop")["ok"]
        assert process.wait(20) == 75
