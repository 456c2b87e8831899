"""The model of the protocol finds no fault in it, and finds every fault that is put in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.model_barrier import BROKEN, BUGS, USUAL, Instance, explore
from tools.walk import ViolationError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("instance", USUAL, ids=str)
def test_every_interleaving_is_well(instance: Instance) -> None:
    assert explore(instance) > 10_000


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_found(bug: str) -> None:
    def explore_all() -> None:
        for instance in BROKEN:
            explore(replace(instance, bug=bug))

    with pytest.raises(ViolationError, match="\n  sphere "):  # with the way to it
        explore_all()


def test_the_command() -> None:
    command = [sys.executable, str(ROOT / "tools" / "model_barrier.py")]
    well = subprocess.run(
        [*command, "--units", "1", "--kills", "0"], capture_output=True, text=True, check=False
    )
    assert (well.returncode, well.stderr) == (0, "")
    assert "2 spheres, 1 units, 1 permits, 0 kills, 1 steps: " in well.stdout
    assert "all well" in well.stdout
    broken = subprocess.run(
        [*command, "--break", "no-ring"], capture_output=True, text=True, check=False
    )
    assert broken.returncode == 1
    assert "never ends" in broken.stdout
