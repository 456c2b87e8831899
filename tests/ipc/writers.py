"""Many processes that write into one mailbox: forked, since starting so many would take long.

python -m tests.ipc.writers ARENA_DESCRIPTOR WRITERS MESSAGES
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from crystalline._kernels.atomics import Words, fork_workers
from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.mailbox import MAILBOX_WORDS, NODE_ZERO, Address, Kind, Post

ROWS = 64
LAYOUT = Layout(
    [Region("start", "int64", (8,)), Region("mailboxes", "int64", ((ROWS + 1) * MAILBOX_WORDS,))]
)
VICTIM = 5  # this one kills itself after it has claimed a slot, if there is a slot to be claimed
READY, GO, KILL = 0, 1, 2  # words of `start`


class Fatal(Words):
    """Words that kill their writer before it writes a message."""

    def put(self, *_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def address(row: int) -> Address:
    """Return a writer's address."""
    return Address(row, row + 100)


def post(arena: Arena, me: Address) -> Post:
    """Return a door by which everybody may write to everybody, as long as nobody dies."""
    return Post(Words(arena["mailboxes"]), me, linked=lambda *_: True, is_gone=lambda _: False)


def main(descriptor: int, writers: int, messages: int) -> None:
    arena = Arena.attach(LAYOUT, descriptor)
    start = Words(arena["start"])
    pids = np.zeros(writers, np.intc)
    row = fork_workers("writer", np.arange(writers, dtype=np.intc), pids, True)
    if row < 0:
        for pid in pids:
            os.waitpid(int(pid), 0)
        return
    mine = post(arena, address(row))
    start.fetch_add(READY, 1)
    while not start.load(GO):
        start.wait(GO, 0, 10_000_000)
    if row == VICTIM and start.load(KILL):
        mine._words = Fatal(arena["mailboxes"])
    for number in range(messages):
        while not mine.send(Kind.STATS, NODE_ZERO, number, (row, number, row * number)):
            time.sleep(0.0005)
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
