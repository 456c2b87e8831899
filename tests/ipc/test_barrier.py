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
    """Claim as one of a flat tree does."""
    return barrier.claim(phase, sphere, sphere % POSITIONS)


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


# Queues of positions, and what is stolen from them


def test_queues_share_out_the_units(barrier: Barrier) -> None:
    compute = publish(barrier, COMPUTE)
    assert [list(barrier.queue(compute, p)) for p in (0, 3, 4, 11)] == [[0, 12], [3, 15], [4], [11]]
    for kind in (COMPUTE, REDUCE):
        phase = kind  # a phase word of generation 0
        units = [unit for position in range(POSITIONS) for unit in barrier.queue(phase, position)]
        assert sorted(units) == list(range(barrier.unit_count(kind)))


@pytest.mark.parametrize("units", [0, 1, 5, 12, 13, 100])
def test_queues_of_units_without_positions_are_blocks(units: int) -> None:
    barrier = Barrier(
        np.zeros(BARRIER_WORDS, np.int64), np.zeros(max(1, units), np.int64), [Handout(units)]
    )
    queues = [barrier.queue(1, position) for position in range(POSITIONS)]
    assert [unit for queue in queues for unit in queue] == list(range(units))
    assert max(map(len, queues)) - min(map(len, queues)) <= 1


@pytest.mark.parametrize("cycle", [12, 6, 4, 3, 2, 1])
def test_a_queue_begins_with_what_its_position_claims_first(cycle: int) -> None:
    for position in range(POSITIONS):
        barrier = Barrier(
            np.zeros(BARRIER_WORDS, np.int64), np.zeros(9, np.int64), [Handout(9, cycle=cycle)]
        )
        phase = publish(barrier, COMPUTE)
        queue = list(barrier.queue(phase, position))
        assert [barrier.claim(phase, 5, position) for _ in queue] == queue
        assert barrier.pending(phase, position) == 0


def many() -> Barrier:
    return Barrier(
        np.zeros(BARRIER_WORDS, np.int64), np.zeros(120, np.int64), [Handout(120), Handout(24)]
    )


def test_pending_units_are_those_that_nobody_has_claimed() -> None:
    barrier = many()
    phase = publish(barrier, 1)
    assert [barrier.pending(phase, position) for position in range(POSITIONS)] == [10] * POSITIONS
    assert barrier.claim_many(phase, 7, 3, 4) == [30, 31, 32, 33]
    assert (barrier.pending(phase, 3), barrier.pending(phase, 2)) == (6, 10)
    barrier.done(phase, 30, 7)
    assert barrier.pending(phase, 3) == 6
    barrier.free_units_of(7)
    assert barrier.pending(phase, 3) == 9
    assert barrier.claim_many(phase, 8, 3, 100) == [31, 32, 33, 34, 35, 36, 37, 38, 39]
    assert barrier.claim_many(phase, 8, 3, 100) == []
    assert barrier.claim_many(phase, 8, 4, 0) == []


def test_half_of_what_is_pending_is_stolen_again_and_again() -> None:
    barrier = many()
    phase = publish(barrier, 1)
    taken = [barrier.steal_half(phase, 7, 5) for _ in range(5)]
    assert taken == [[50, 51, 52, 53, 54], [55, 56], [57], [58], []]
    assert barrier.pending(phase, 5) == 1
    barrier.done(phase, 50, 7)
    assert barrier.units_claimed_by(7) == [51, 52, 53, 54, 55, 56, 57, 58]


def test_what_a_thief_leaves_is_claimed_one_by_one(barrier: Barrier) -> None:
    phase = publish(barrier, COMPUTE)
    assert barrier.steal_half(phase, 9, 3) == [3]  # of 3 and 15
    assert barrier.steal_half(phase, 9, 4) == []  # there is one only
    rest = []
    while (unit := claim(barrier, phase, 1)) >= 0:
        rest.append(unit)
    assert sorted([3, *rest]) == list(range(16))


def test_nothing_is_stolen_in_an_old_phase() -> None:
    barrier = many()
    old = publish(barrier, 1)
    while (unit := claim(barrier, old, 0)) >= 0:
        barrier.done(old, unit, 0)
    assert barrier.claim_hand_over(old, 0)
    new = barrier.advance(old, 2)
    assert barrier.pending(old, 1) == 0
    assert barrier.steal_half(old, 5, 1) == barrier.claim_many(old, 5, 1, 9) == []
    assert barrier.pending(new, 1) == 2


def test_units_are_stolen_once() -> None:
    """Each takes what it can from everybody, in turns, and all is taken once."""
    barrier = many()
    phase = publish(barrier, 1)
    taken: list[int] = []
    for turn in range(1000):
        sphere = turn % 12
        got = barrier.steal_half(phase, sphere, (turn * 7) % 12)
        if not got and turn > 500:
            got = [unit] if (unit := claim(barrier, phase, sphere)) >= 0 else []
        taken += got
        for unit in got:
            barrier.done(phase, unit, sphere)
    assert sorted(taken) == list(range(120))
    assert barrier.all_done(phase)
