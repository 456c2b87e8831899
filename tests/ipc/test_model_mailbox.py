"""The model of a mailbox finds no fault in it, and finds every fault that is put in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.model_mailbox import BROKEN, BUGS, USUAL, Instance, Model
from tools.walk import ViolationError, explore

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("instance", USUAL, ids=str)
def test_every_interleaving_is_well(instance: Instance) -> None:
    assert explore(Model(instance)) > 2_000


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_found(bug: str) -> None:
    def explore_all() -> None:
        for instance in BROKEN:
            explore(Model(replace(instance, bug=bug)))

    with pytest.raises(ViolationError, match="\n  writer "):  # with the way to it
        explore_all()


def test_the_command() -> None:
    command = [sys.executable, str(ROOT / "tools" / "model_mailbox.py")]
    well = subprocess.run(
        [*command, "--messages", "1", "--kills", "1"], capture_output=True, text=True, check=False
    )
    assert (well.returncode, well.stderr) == (0, "")
    assert "2 writers, 1 messages each, 2 slots, 1 kills: " in well.stdout
    assert "all well" in well.stdout
    broken = subprocess.run(
        [*command, "--break", "never-skip"], capture_output=True, text=True, check=False
    )
    assert broken.returncode == 1
    assert "never ends" in broken.stdout
