"""Bells: who is woken, and that nobody sleeps through."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.bells import BELL_WORDS, CALL, WORK, Bells

pytestmark = pytest.mark.timeout(30)

FAMILIES = 4


@pytest.fixture
def arena(tmp_path):  # type: ignore[no-untyped-def]
    made = Arena.create(
        Layout([
            Region("bells", "int64", (FAMILIES, BELL_WORDS)),
            Region("seen", "int64", (8,)),
        ]),
        tmp_path,
    )  # fmt: skip
    yield made
    made.close()


def sleeper(arena: Arena, family: int, bell: int, place: int) -> int:
    """Fork a process that sleeps on a bell until it rings, and says so."""
    pid = os.fork()
    if pid == 0:
        bells = Bells(arena["bells"])
        heard = bells.heard(family, bell)
        arena["seen"][place] = 1
        bells.sleep(family, bell, heard, 20_000_000_000)
        arena["seen"][place] = 2
        os._exit(0)
    while arena["seen"][place] != 1:
        time.sleep(0.001)
    time.sleep(0.05)  # until it sleeps
    return pid


def awake(arena: Arena, count: int) -> list[int]:
    """Return who woke up, once that many did, and no more do in a while."""
    deadline = time.monotonic() + 10
    while (arena["seen"] == 2).sum() < count and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    return np.flatnonzero(arena["seen"] == 2).tolist()


def test_a_bell_that_rang_since_is_heard(arena: Arena) -> None:
    bells = Bells(arena["bells"])
    heard = bells.heard(2, WORK)
    bells.ring(2, WORK)
    began = time.monotonic()
    bells.sleep(2, WORK, heard, 5_000_000_000)
    bells.sleep(2, CALL, bells.heard(2, CALL), 1_000_000)  # another bell: it did not ring
    assert time.monotonic() - began < 2


def test_work_is_rung_for_family_by_family(arena: Arena) -> None:
    pids = [sleeper(arena, family, WORK, place) for place, family in enumerate((1, 1, 3))]
    pids.append(sleeper(arena, 1, CALL, 3))  # a control, which work does not wake
    bells = Bells(arena["bells"])
    order = []
    for count in (1, 2, 3):
        bells.ring_for_work(1, [1, 2, 3])
        order.append(awake(arena, count))
    assert order == [[0], [0, 2], [0, 1, 2]]  # the family that was rung for last comes last
    bells.ring_for_work(2, [1, 2, 3])  # nobody sleeps: that costs nothing
    bells.ring_family(1)
    assert awake(arena, 4) == [0, 1, 2, 3]
    for pid in pids:
        os.waitpid(pid, 0)
