"""Every named point is passed, and whatever happens there changes no bit and leaves nothing behind.

Here each point is met once by each role that passes it, with the worst that can happen: death, and
a call that fails.  `-m exhaustive` meets every action alone, and random pairs.
"""

from __future__ import annotations

import random

import pytest

from crystalline.faults import CONTROL, FAIL, KILL, LAUNCHER, NODE_ZERO, POINTS, SAVER, SPHERE
from tests.faults.walking import PASSAGES, Passage, Walk, around, grouped
from tests.surroundings import TEXT
from tests.train.real_runs import prepare_text

pytestmark = pytest.mark.timeout(300)

PAIRS, SEED = 150, 20261201
# Failures of calls that a run cannot do without: it says so, ends, and begins anew.
FATAL = {
    ("arena.file", NODE_ZERO), ("arena.attach", LAUNCHER), ("fork.workers", NODE_ZERO),
    ("fork.workers", CONTROL), ("message.send", NODE_ZERO), ("launcher.spawn", LAUNCHER),
    ("metrics.open", NODE_ZERO), ("atomic.open", LAUNCHER), ("atomic.sync", LAUNCHER),
    ("atomic.replace", LAUNCHER), ("atomic.folder", LAUNCHER),
}  # fmt: skip


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("walk")
    return Walk(prepare_text(folder, TEXT, "char"), folder / "runs")


def passages_of(role: str, action: str = KILL) -> list[Passage]:
    return [(name, who) for name, who in PASSAGES if who == role and action in POINTS[name].actions]


def asked(passages: list[Passage], action: str) -> list[str]:
    return [f"{name}={action}/{role}" for name, role in passages]


def test_spheres_die_everywhere(walk: Walk) -> None:
    for surroundings, passages in grouped(passages_of(SPHERE)):
        walk.together(asked(passages, KILL), surroundings, most=4)


def test_controls_die_everywhere(walk: Walk) -> None:
    for surroundings, passages in grouped(passages_of(CONTROL)):
        walk.together(asked(passages, KILL), surroundings, most=2)


def test_node_zero_dies_everywhere(walk: Walk) -> None:
    for surroundings, passages in grouped(passages_of(NODE_ZERO)):
        walk.require_met(asked(passages, KILL), surroundings)


def test_the_launcher_dies_everywhere(walk: Walk) -> None:
    for surroundings, passages in grouped(passages_of(LAUNCHER)):
        walk.require_met(asked(passages, KILL), surroundings)


def test_who_writes_checkpoints_dies_everywhere(walk: Walk) -> None:
    for surroundings, passages in grouped(passages_of(SAVER)):
        walk.together(asked(passages, KILL), surroundings, most=3)


def test_calls_fail_and_the_run_ends(walk: Walk) -> None:
    for surroundings, passages in grouped(sorted(FATAL)):
        walk.require_met(asked(passages, FAIL), surroundings)


def test_calls_fail_and_the_run_goes_on(walk: Walk) -> None:
    failing = [passage for role in (LAUNCHER, NODE_ZERO, CONTROL, SPHERE, SAVER)
               for passage in passages_of(role, FAIL) if passage not in FATAL]  # fmt: skip
    for surroundings, passages in grouped(failing):
        walk.together(asked(passages, FAIL), surroundings, most=3)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "role", "action"),
    [(name, role, action) for name, role in PASSAGES for action in POINTS[name].actions],
)
def test_each_alone(walk: Walk, name: str, role: str, action: str) -> None:
    ended = walk.alone(f"{name}={action}/{role}", around(name, role))
    assert ended.met_last, ended


def pairs() -> list[str]:
    """Return pairs of faults, drawn at random and always the same."""
    draw = random.Random(SEED)
    drawn = []
    for _ in range(PAIRS):
        both = []
        for _ in range(2):
            name, role = draw.choice(PASSAGES)
            at = draw.choice([1, 1, 2, 5, 20])
            both.append(f"{name}={draw.choice(POINTS[name].actions)}@{at}/{role}")
        drawn.append(",".join(both))
    return drawn


@pytest.mark.exhaustive
@pytest.mark.parametrize("pair", pairs())
def test_random_pairs(walk: Walk, pair: str) -> None:
    first = pair.partition("=")[0], pair.partition(",")[0].rpartition("/")[2]
    walk.alone(pair, around(*first))
