"""Parents in the tree of spheres die, fail and are stopped everywhere: the results are the same.

Between rounds the toy program itself asserts that each row has one process, which is the child of
the process in its parent's row, and that there is no other process, dead or alive.
"""

from __future__ import annotations

import pytest

from tests.engine.mishaps import MISHAPS
from tests.engine.test_toy import toy
from tests.engine.toy import expected

ROUNDS = 4
pytestmark = pytest.mark.timeout(120)


TRIES = 4  # runs until a mishap happened as often as it should: when it does is a matter of luck


@pytest.mark.parametrize("name", MISHAPS)
def test_a_parent_may_die_anywhere(name: str) -> None:
    for _ in range(TRIES):
        told = toy("2+4+8,3+9,5", 2, ROUNDS, 0, 0, name)
        assert told["total"] == expected(ROUNDS + 1)
        assert (told["left"], told["refusals"], told["states"]) == ([], [], ["retired"])
        if min(told["mishaps"], told["deaths"]) >= 2:
            return
    raise AssertionError(f"{told['mishaps']} mishaps, {told['deaths']} deaths")


def test_a_fork_that_fails_in_a_control_changes_nothing_and_is_told() -> None:
    told = toy("2,2+6", 2, ROUNDS, 0, 0, "refuse")
    assert told["refusals"]
    for refusal in told["refusals"]:
        assert refusal.endswith("could not be started (Resource temporarily unavailable)")
        assert " could not have 3 children: sphere " in refusal
    assert (told["deaths"], told["total"]) == (0, expected(ROUNDS + 1))
    assert told["left"] == []


@pytest.mark.parametrize(
    ("name", "shapes"), [("stop control", "2+4+8,3+9"), ("stop leaf", "5,3+9")]
)
def test_who_is_stopped_is_replaced_by_its_parent(name: str, shapes: str) -> None:
    for _ in range(TRIES):
        told = toy(shapes, 2, ROUNDS, 0, 0, name)
        assert told["total"] == expected(ROUNDS + 1)
        assert told["left"] == []
        assert told["settling_s"] < 5.0
        if told["deaths"] == 2:
            return
    raise AssertionError(f"{told['deaths']} deaths")


def test_nobody_is_taken_for_hanging_when_all_are_stopped() -> None:
    told = toy("2+4+8,3+9", 2, ROUNDS, 0, 0, "suspend")
    assert told["mishaps"] == 2
    assert (told["deaths"], told["total"]) == (0, expected(ROUNDS + 1))
