"""The model of the tree of spheres finds no fault in it, and finds faults that are put in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.model_tree import BUGS, SHOWS, SLOW, USUAL, Instance, explore
from tools.walk import ViolationError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("instance", USUAL, ids=str)
def test_every_interleaving_is_well(instance: Instance) -> None:
    assert explore(instance) > 3_000


@pytest.mark.parametrize("bug", sorted(SHOWS.keys() - SLOW))
def test_a_seeded_bug_is_found(bug: str) -> None:
    with pytest.raises(ViolationError, match="\\n  "):  # with the way to it
        explore(replace(SHOWS[bug], bug=bug))


def test_every_bug_has_an_instance() -> None:
    assert SHOWS.keys() == BUGS.keys()


def test_the_command() -> None:
    command = [sys.executable, str(ROOT / "tools" / "model_tree.py")]
    options = ["--kills", "0", "--before", "0", "--after", "0 00", "--late"]
    well = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.startswith("0 to a phase, then 0+00, 0 kills, 2 places: ")
    assert "all well" in well.stdout
    broken = subprocess.run(
        [*command, "--break", "keep-permit"], capture_output=True, text=True, check=False
    )
    assert broken.returncode == 1
    assert "becomes a control with a permit" in broken.stdout
