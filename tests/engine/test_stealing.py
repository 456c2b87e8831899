"""Who is robbed: the longest queue among the nearest."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from crystalline.engine.geometry import group, siblings_in_contact
from crystalline.engine.shape import shape_of
from crystalline.engine.stealing import Queue, queues, victim
from crystalline.ipc.barrier import BARRIER_WORDS, Barrier, Handout

TWELVE = [(k,) for k in range(12)]
FULL = list(product(range(12), repeat=2))


def test_the_tiers_of_twelve_in_one_level() -> None:
    tiers = queues((3,), TWELVE)
    assert [[queue.position for queue in tier] for tier in tiers] == [
        [2, 4, 7, 11], [0, 1, 5, 6, 8, 9, 10], [],
    ]  # fmt: skip
    assert all(queue.owner == queue.position for tier in tiers for queue in tier)


@pytest.mark.parametrize("leaves", [TWELVE, FULL, [(0,), (5,)], [(0,), (1, 3), (1, 9)]], ids=len)
def test_every_queue_but_its_own_is_in_one_tier(leaves: list[tuple[int, ...]]) -> None:
    for path in leaves:
        found = [queue.position for tier in queues(path, leaves) for queue in tier]
        assert sorted([group(path), *found]) == list(range(12))


def test_in_a_full_tree_siblings_have_all_groups() -> None:
    tiers = queues((4, 7), FULL)
    assert [len(tier) for tier in tiers] == [4, 7, 0]
    for tier in tiers:
        for queue in tier:
            assert FULL[queue.owner][0] == 4
            assert group(FULL[queue.owner]) == queue.position
    assert [FULL[queue.owner][1] for queue in tiers[0]] == list(siblings_in_contact(7))


def test_the_owner_is_the_nearest_of_its_group() -> None:
    leaves = [place.path for place in shape_of("3+9") if place.level == 2]
    leaves += [(9,)]
    tiers = queues(leaves[0], leaves)
    assert [leaves[queue.owner] for queue in tiers[0]] == [(0, 1), (0, 2)]
    assert tiers[1] == ()
    assert [queue.owner for queue in tiers[2][-2:]] == [-1, -1]  # groups 10 and 11 have no leaf


def test_the_longest_of_the_nearest_is_robbed() -> None:
    tiers = queues((3,), TWELVE)
    rest = {0: 50, 2: 2, 4: 5, 7: 5, 11: 1}
    assert victim(tiers, lambda p: rest.get(p, 0)) == Queue(4, 4)  # 4 and 7 tie
    rest[7] = 6
    assert victim(tiers, lambda p: rest.get(p, 0)) == Queue(7, 7)
    few = {0: 50, 10: 50, 2: 1, 4: 1, 7: 1, 11: 1}  # none in contact has two
    assert victim(tiers, lambda p: few.get(p, 0)) == Queue(0, 0)
    assert victim(tiers, lambda p: few.get(p, 0), least=1) == Queue(2, 2)
    assert victim(tiers, lambda _: 1) is None
    assert victim(tiers, lambda _: 0, least=1) is None
    assert victim(((), (), ()), lambda _: 9) is None


@pytest.mark.parametrize("leaves", [TWELVE, [(0,), (4,), (8,)], FULL], ids=len)
def test_all_work_is_done_and_the_counters_add_up(leaves: list[tuple[int, ...]]) -> None:
    """One leaf is ten times as slow; what is left when nobody has two is claimed singly."""
    barrier = Barrier(
        np.zeros(BARRIER_WORDS, np.int64), np.zeros(600, np.int64), [Handout(600)]
    )  # fmt: skip
    phase = barrier.publish(1)
    tiers = [queues(path, leaves) for path in leaves]
    hands: list[list[int]] = [[] for _ in leaves]
    did, to, of = Counter[int](), Counter[int](), Counter[int]()
    turn = 0
    while not barrier.all_done(phase):
        turn += 1
        assert turn < 100_000
        me = turn % len(leaves)
        if me == 1 and turn // len(leaves) % 10:
            continue
        if hands[me]:
            barrier.done(phase, hands[me].pop(), me)
            did[me] += 1
            continue
        own = group(leaves[me])
        got = barrier.steal_half(phase, me, own)
        if not got:
            robbed = victim(tiers[me], lambda position: barrier.pending(phase, position))
            if robbed:
                got = barrier.steal_half(phase, me, robbed.position)
                to[me] += 1
                of[robbed.owner] += 1
        if not got and (unit := barrier.claim(phase, me, own)) >= 0:
            got = [unit]
        hands[me] = got
    assert sum(did.values()) == 600
    assert sum(to.values()) == sum(of.values()) > 0
