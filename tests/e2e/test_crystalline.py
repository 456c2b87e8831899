"""Runs with every crystalline part on, as a user has them: trained, stopped, resumed, used."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import run, training
from tests.train.real_runs import inflected_text

pytestmark = pytest.mark.timeout(90)

STEPS = 60
SETTINGS = (
    "--tokenizer=word", "--vocab-size=300", "--num-layers=2", "--num-heads=4", "--embed-dim=32",
    "--seq-len=32", "--batch-size=36", f"--max-steps={STEPS}", "--warmup-steps=5",
    "--learning-rate=1e-2", "--log-interval=1", "--eval-interval=10", "--save-interval=10",
    "--crystalline-epsilon=0.2", "--crystalline-k=6", "--crystalline-schedule=linear",
    "--init=lattice", "--positions=twelvefold", "--attention=crystalline",
    "--discovery-interval=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def inflected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of words with endings: there are affixes to find."""
    path = tmp_path_factory.mktemp("inflected") / "words.txt"
    path.write_text(inflected_text())
    return path


@pytest.fixture(scope="module")
def finished(inflected: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the folder of the undisturbed run `run`, and its result."""
    folder = tmp_path_factory.mktemp("crystalline")
    done = run(
        "cllm-train", inflected, *SETTINGS, "--workers=2", "--checkpoint-dir=run", "--json",
        "--plain", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "crystal  loss 0.2 linear over 6 neighbors by primes, lattice embeddings, "
        "crystalline attention, root discovery every 20 steps"
    ) in done.stderr
    assert "root discovery after step 20: " in done.stderr
    assert re.search(r"^step \d+/60  loss \d\.\d+  crystal \d\.\d+  val ", done.stderr, re.M)
    return folder, json.loads(done.stdout)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_its_files_tell_what_it_was_made_with(finished: tuple[Path, Any]) -> None:
    run_dir = finished[0] / "run"
    remaps = [line for line in lines(run_dir) if line.get("event") == "root_discovery"]
    assert remaps[0]["step"] == 21
    assert (run_dir / "crystal.json").is_file()
    for checkpoint in (run_dir / "checkpoints").iterdir():
        names = json.loads((checkpoint / "manifest.json").read_text())["files"]
        assert "crystal.json" in names
    config = (run_dir / "config.toml").read_text()
    for line in ("crystalline_epsilon = 0.2", 'attention = "crystalline"', "discovery_interval = 2",
                 "freeze_lambda = false"):  # fmt: skip
        assert line in config.splitlines()


def test_it_generates(finished: tuple[Path, Any]) -> None:
    folder = finished[0]
    settings = ("--max-tokens=12", "--seed=3")
    done = run("cllm-infer", "run", "--prompt", "the", *settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 5
    again = run("cllm-infer", "run", "--prompt", "the", *settings, cwd=folder)
    assert again.stdout == done.stdout
    copied = folder / "model"  # a checkpoint alone has all that it takes
    shutil.copytree(folder / "run" / "best", copied)
    alone = run("cllm-infer", copied, "--prompt", "the", *settings, cwd=folder)
    assert (alone.returncode, alone.stdout) == (0, done.stdout), alone.stderr


def test_a_signal_after_the_remap_saves_and_the_run_goes_on(
    inflected: Path, finished: tuple[Path, Any], tmp_path: Path
) -> None:
    with training(
        inflected, *SETTINGS, "--workers=3", "--checkpoint-dir=run", run_dir=tmp_path / "run",
        cwd=tmp_path,
    ) as it:  # fmt: skip
        it.wait_for_step(24)
        it.process.send_signal(signal.SIGINT)
        returned, _, err = it.end()
        it.assert_all_gone()
    assert returned == 130, err
    command = shlex.split(re.findall(r"cllm-train (--resume .*)$", err, re.MULTILINE)[-1])
    done = run("cllm-train", *command, "--workers=5", "--json", "--plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for key in ("final_step", "train_loss", "val_loss", "weights_sha256"):
        assert result[key] == finished[1][key], key


def test_faults_are_told_in_one_sentence(finished: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(finished[0] / "run", tmp_path / "run", symlinks=True)
    refused = run("cllm-train", "--resume=run", "--eval-interval=5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--eval-interval 5 differs from the 10 that the run run was started with" in (
        refused.stderr
    )
    crystal = tmp_path / "run" / "latest" / "crystal.json"
    crystal.write_text(crystal.read_text().replace("1", "2", 5))
    damaged = run("cllm-train", "--resume=run", cwd=tmp_path)
    assert damaged.returncode == 4
    assert "crystal.json is damaged" in damaged.stderr
    for done in (refused, damaged):
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("cllm-train: error: ")
