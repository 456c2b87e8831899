"""One of several processes that fight over the words of an arena.

python -m tests.ipc.contender ARENA_DESCRIPTOR WHO
"""

from __future__ import annotations

import sys

from crystalline._kernels.atomics import Words
from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.barrier import BARRIER_WORDS, IDLE, Barrier, Handout

WORK = 1  # the only kind of phase
UNITS = 200
ROUNDS = 40
ADDITIONS = 20_000
LAYOUT = Layout(
    [
        Region("counter", "int64", (8,)),
        Region("barrier", "int64", (BARRIER_WORDS,)),
        Region("claims", "int64", (UNITS,)),
        Region("taken", "int64", (ROUNDS, UNITS)),  # how often each unit was done, by round
        Region("handed", "int64", (ROUNDS,)),
    ]
)


def main(descriptor: int, who: int) -> None:
    arena = Arena.attach(LAYOUT, descriptor)
    counter = Words(arena["counter"])
    barrier = Barrier(arena["barrier"], arena["claims"], [Handout(UNITS)])
    taken, handed = Words(arena["taken"].reshape(-1)), Words(arena["handed"])
    counter.fetch_add(1, 1)
    while not counter.load(2):
        counter.wait(2, 0, 1_000_000)
    for _ in range(ADDITIONS):
        counter.fetch_add(0, 1)
    for round_ in range(ROUNDS):
        phase = (2 * round_ + 1) << 4 | WORK
        while barrier.phase() < phase:
            barrier.wait_for_change(barrier.phase(), 10_000, 1_000_000)
        while barrier.phase() == phase:
            unit = barrier.claim(phase, who, ())
            if unit >= 0:
                taken.fetch_add(round_ * UNITS + unit, 1)
                barrier.done(phase, unit, who)
            elif barrier.all_done(phase) and barrier.claim_hand_over(phase, who):
                handed.fetch_add(round_, 1)
                barrier.advance(phase, IDLE)
                barrier.ring_node()
            else:
                barrier.wait_for_change(phase, 10_000, 1_000_000)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
