"""The rules of `crystalline.ipc`, one process at a time."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline.ipc.barrier import (
    BARRIER_WORDS,
    MOST_SPHERES,
    Barrier,
    Handout,
    generation_of,
    kind_of,
)
from crystalline.ipc.positions import POSITIONS

COMPUTE, REDUCE, UPDATE = 1, 2, 3
HANDOUTS = [Handout(16, cycle=POSITIONS), Handout(5), Handout(5)]


@pytest.fixture
def barrier() -> Barrier:
    return Barrier(np.zeros(BARRIER_WORDS, np.int64), np.zeros(16, np.int64), HANDOUTS)


def publish(barrier: Barrier, kind: int) -> int:
    return barrier.publish(kind)


def claim(barrier: Barrier, phase: int, sphere: int) -> int:
    """Claim in cyclic order, from the sphere's own position on."""
    order = [(sphere + turn) % POSITIONS for turn in range(POSITIONS)]
    return barrier.claim(phase, sphere, order)


def finish(barrier: Barrier, phase: int, following: int, sphere: int = 0) -> int:
    while (unit := claim(barrier, phase, sphere)) >= 0:
        barrier.done(phase, unit, sphere)
    assert barrier.claim_hand_over(phase, sphere)
    return barrier.advance(phase, following)


def test_phases_grow_and_carry_their_kind(barrier: Barrier) -> None:
    compute = publish(barrier, COMPUTE)
    assert (generation_of(compute), kind_of(compute)) == (1, COMPUTE)
    reduce = finish(barrier, compute, REDUCE)
    assert (generation_of(reduce), kind_of(reduce)) == (2, REDUCE)
    assert barrier.phase() == reduce


def test_nothing_is_published_on_top_of_a_running_phase(barrier: Barrier) -> None:
    publish(barrier, COMPUTE)
    with pytest.raises(RuntimeError, match="not idle"):
        publish(barrier, REDUCE)


def test_own_position_first_then_the_others_in_order(barrier: Barrier) -> None:
    phase = publish(barrier, COMPUTE)
    order = [claim(barrier, phase, 15) for _ in range(16)]  # position 3
    assert order == [3, 15, 4, 5, 6, 7, 8, 9, 10, 11, 0, 12, 1, 13, 2, 14]
    assert claim(barrier, phase, 15) == -1


def test_fewer_lanes_than_positions() -> None:
    barrier = Barrier(
        np.zeros(BARRIER_WORDS, np.int64), np.zeros(2, np.int64), [Handout(2, cycle=12)]
    )
    phase = publish(barrier, COMPUTE)
    assert [claim(barrier, phase, 7) for _ in range(3)] == [0, 1, -1]


def test_segments_go_in_order_and_once(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    assert [claim(barrier, phase, s) for s in (4, 1, 4, 9, 2, 0)] == [0, 1, 2, 3, 4, -1]


def test_claims_of_earlier_phases_do_not_matter(barrier: Barrier) -> None:
    phase = finish(barrier, publish(barrier, COMPUTE), REDUCE, sphere=11)
    assert not barrier.all_done(phase)
    assert [claim(barrier, phase, 2) for _ in range(6)] == [0, 1, 2, 3, 4, -1]


def test_a_late_sphere_finds_nothing_in_an_old_phase(barrier: Barrier) -> None:
    old = publish(barrier, COMPUTE)
    new = finish(barrier, old, REDUCE)
    finish(barrier, new, UPDATE)
    assert claim(barrier, new, 5) == -1
    assert not barrier.claim_hand_over(new, 5)
    assert not barrier.claim_hand_over(old, 5)


def test_a_phase_is_done_when_all_its_units_are(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    units = [claim(barrier, phase, s) for s in range(5)]
    for sphere, unit in reversed(list(enumerate(units))):
        assert not barrier.all_done(phase)
        barrier.done(phase, unit, sphere)
    assert barrier.all_done(phase)


def test_one_hands_over(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    while (unit := claim(barrier, phase, 3)) >= 0:
        barrier.done(phase, unit, 3)
    assert barrier.claim_hand_over(phase, 3)
    assert not barrier.claim_hand_over(phase, 4)
    barrier.advance(phase, UPDATE)
    with pytest.raises(RuntimeError, match="moved by somebody else"):
        barrier.advance(phase, UPDATE)


def test_what_a_dead_sphere_held_goes_back(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    units = [claim(barrier, phase, s) for s in (7, 8, 7, 8)]
    barrier.done(phase, units[0], 7)
    assert barrier.units_claimed_by(7) == [units[2]]
    barrier.free_units_of(7)
    assert barrier.units_claimed_by(7) == []
    assert barrier.units_claimed_by(8) == [units[1], units[3]]
    assert [claim(barrier, phase, 1) for _ in range(3)] == [4, 2, -1]


def test_a_hand_over_goes_back(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    while (unit := claim(barrier, phase, 3)) >= 0:
        barrier.done(phase, unit, 3)
    assert barrier.claim_hand_over(phase, 3)
    barrier.free_units_of(4)
    assert not barrier.claim_hand_over(phase, 5)
    barrier.free_units_of(3)
    assert barrier.claim_hand_over(phase, 5)


def test_a_lost_ticket_is_made_up_for(barrier: Barrier) -> None:
    """A sphere that dies between drawing a ticket and claiming leaves no gap."""
    phase = publish(barrier, REDUCE)
    assert claim(barrier, phase, 0) == 0
    barrier._words.fetch_add(8, 2)  # TICKET
    assert sorted(claim(barrier, phase, 0) for _ in range(4)) == [1, 2, 3, 4]
    assert claim(barrier, phase, 0) == -1


def test_the_bell_of_node_zero(barrier: Barrier) -> None:
    heard = barrier.node_bell()
    assert barrier.sleep_on_node_bell(heard, 1_000_000) is False
    barrier.ring_node()
    assert barrier.sleep_on_node_bell(heard, 10_000_000_000) is True


def test_as_many_spheres_as_a_claim_word_can_name(barrier: Barrier) -> None:
    phase = publish(barrier, REDUCE)
    last = MOST_SPHERES - 1
    assert claim(barrier, phase, last) == 0
    assert barrier.units_claimed_by(last) == [0]
    assert barrier.units_claimed_by(last - 256) == []
    barrier.done(phase, 0, last)
    assert [claim(barrier, phase, s) for s in range(5)] == [1, 2, 3, 4, -1]


def test_heavy_units_come_before_the_others_for_everybody() -> None:
    """Eight of twelve lanes hold a sequence more; pairs of lanes are claimed together."""
    words, claims = np.zeros(BARRIER_WORDS, np.int64), np.zeros(6, np.int64)
    barrier = Barrier(words, claims, [Handout(6, cycle=6, heavy_units=4)])
    phase = publish(barrier, COMPUTE)
    # Sphere 9's own pair is unit 4, a light one; sphere 4's is unit 2.
    assert [claim(barrier, phase, 9), claim(barrier, phase, 4)] == [0, 2]
    assert [claim(barrier, phase, 9), claim(barrier, phase, 4)] == [1, 3]
    assert [claim(barrier, phase, 9), claim(barrier, phase, 4)] == [4, 5]
    assert claim(barrier, phase, 4) == -1
