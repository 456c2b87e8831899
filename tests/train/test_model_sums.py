"""The model of sums in place finds no fault in them, and finds every fault that is put in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.model_sums import BUGS, USUAL, Instance, Model
from tools.walk import ViolationError, explore

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("instance", USUAL[:4], ids=str)
def test_every_interleaving_is_well(instance: Instance) -> None:
    assert explore(Model(instance)) > 200


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_found(bug: str) -> None:
    with pytest.raises(ViolationError, match="\n  sphere "):  # with the way to it
        explore(Model(replace(USUAL[0], bug=bug)))


def test_the_command() -> None:
    command = [sys.executable, str(ROOT / "tools" / "model_sums.py"), "--break", "no-undo"]
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (broken.returncode, broken.stderr) == (1, "")
    assert "a merge for 0 and 1 finds" in broken.stdout
