"""A run stopped, or killed in part or whole, says how to go on, and comes to the same end."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import run, training

pytestmark = pytest.mark.timeout(90)

STEPS = 80
# Steps of some 15 ms: long enough to be hit in the middle.
SETTINGS = (
    "--tokenizer=char", "--num-layers=2", "--num-heads=4", "--embed-dim=64", "--seq-len=96",
    "--batch-size=48", f"--max-steps={STEPS}", "--warmup-steps=10", "--log-interval=1",
    "--eval-interval=0", "--dropout=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of the run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(
        "cllm-train", text, *SETTINGS, "--workers=2", "--checkpoint-dir=run", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["final_step"] == STEPS
    return result


def go_on(err: str, cwd: Path, *more: str) -> dict[str, Any]:
    """Run the command that the message `err` gives, and return its result."""
    found = re.findall(r"cllm-train (--resume .*)$", err, re.MULTILINE)
    assert found, f"no command to go on in: {err}"
    done = run("cllm-train", *shlex.split(found[-1]), *more, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def assert_same_end(result: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    for key in ("final_step", "train_loss", "val_loss", "weights_sha256"):
        assert result[key] == undisturbed[key], key


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_tells_how_to_go_on(
    text: Path, undisturbed: dict[str, Any], tmp_path: Path, number: int, code: int
) -> None:
    run_dir = tmp_path / "my run"  # the command needs quotes
    with training(
        text, *SETTINGS, "--checkpoint-dir=my run", "--json", run_dir=run_dir, cwd=tmp_path
    ) as it:
        it.wait_for_step(5)
        it.process.send_signal(number)
        returned, out, err = it.end()
        it.assert_all_gone()
    assert returned == code, err
    assert "Traceback" not in err
    step = json.loads(out)["final_step"]
    assert 5 <= step < STEPS
    assert (run_dir / "latest").readlink() == Path(f"checkpoints/step-{step:08d}")
    assert f"Saved step {step}." in err.splitlines()[-1]
    assert_same_end(go_on(err, tmp_path, "--workers=5"), undisturbed)
    logged = [line["step"] for line in it.metrics() if "loss" in line]
    assert logged == list(range(1, STEPS + 1))


def test_a_second_ctrl_c_leaves_at_once(text: Path, tmp_path: Path) -> None:
    slow = [s for s in SETTINGS if not s.startswith("--batch-size")]
    with training(
        text, *slow, "--batch-size=9600", "--checkpoint-dir=run", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        while not (it.run_dir / "metrics.jsonl").exists():  # the first step takes seconds
            time.sleep(0.01)
        began = time.monotonic()
        it.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert it.process.poll() is None  # the step is being finished
        it.process.send_signal(signal.SIGINT)
        returned, _, err = it.end()
        assert time.monotonic() - began < 2.0
        it.assert_all_gone()
    assert returned == 130
    assert "left at once" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_killed_spheres_are_replaced_within_two_seconds(
    text: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with training(
        text, *SETTINGS, "--workers=2", "--checkpoint-dir=run", "--json", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        for victim in (0, 1, 0, 1):
            it.wait_for_step(it.step() + 3)
            before = it.spheres()
            assert len(before) == 2
            before[victim].kill()
            killed = time.monotonic()
            while len(set(it.spheres()) - {before[victim]}) < 2:
                assert time.monotonic() < killed + 2.0
                time.sleep(0.005)
        returned, out, err = it.end()
        it.assert_all_gone()
    assert returned == 0, err
    assert err.count("was killed by signal 9 (Killed) and is replaced") == 4
    assert_same_end(json.loads(out), undisturbed)


def test_a_stopped_sphere_does_not_change_the_end(
    text: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with training(
        text, *SETTINGS, "--workers=4", "--checkpoint-dir=run", "--json", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        it.wait_for_step(3)
        sphere = it.spheres()[2]
        sphere.suspend()
        time.sleep(0.5)
        sphere.resume()
        returned, out, err = it.end()
        it.assert_all_gone()
    assert returned == 0, err
    assert_same_end(json.loads(out), undisturbed)


def test_node_zero_killed(text: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with training(
        text, *SETTINGS, "--save-interval=4", "--checkpoint-dir=run", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        it.wait_for_step(10)
        it.node_zero.kill()
        returned, _, err = it.end()
        it.assert_all_gone()
    assert returned == 1
    assert "Node Zero was killed by signal 9" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert_same_end(go_on(err, tmp_path, "--workers=3"), undisturbed)


def test_the_launcher_killed(text: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with training(
        text, *SETTINGS, "--save-interval=4", "--checkpoint-dir=run", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        it.wait_for_step(10)
        it.process.kill()
        it.end()
        it.assert_all_gone()
    assert_same_end(go_on("cllm-train --resume run", tmp_path), undisturbed)


def test_everything_killed_while_saving(
    text: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """The crash comes at any moment of many checkpoints; what is found is whole."""
    with training(
        text, *SETTINGS, "--save-interval=1", "--checkpoint-dir=run", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        it.wait_for_step(6)
        for process in (it.node_zero, it.process):
            process.kill()
        it.end()
        it.assert_all_gone()
    assert_same_end(go_on("cllm-train --resume run", tmp_path), undisturbed)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert all(re.fullmatch(r"step-\d{8}", name) for name in names), names
