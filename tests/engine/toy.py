"""A program that is no model, run by the engine alone: powers of numbers, in three phases.

    python -m tests.engine.toy SHAPES PERMITS ROUNDS [KILLS [NODES [MISHAP]]]

SHAPES are those of the tree, as in 13 or 3+9,2+4+8: the next one before each round.

In a round every number is multiplied by its own place plus one (in place, with an undo), then the
numbers are added up by nines (positions matter), and then the sums (one unit).  Before that, what
nobody needs is counted, a phase that a stop may leave.  Spheres are killed in the middle of
multiplications, KILLS of them; and of all nodes at random, controls too, one in each of the first
NODES rounds; and as MISHAP says (`tests.engine.mishaps`).  Between rounds every process must be
where its row says, and there must be no other.  Prints the last sum, the rounds' order of phases,
deaths, and what of the package is in memory.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from crystalline.engine import board as b
from crystalline.engine.node import Node
from crystalline.engine.phase import Phase, Worker
from crystalline.engine.shape import NODE_ZERO, places_of, shape_of
from crystalline.engine.tree import Tree
from crystalline.errors import EngineError
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.liveness import children_of, parent_of
from crystalline.ipc.positions import POSITIONS
from tests.engine.mishaps import FAILURES, HANG_S, Mishap

NUMBERS, NINE = 216, 9
MODULUS = 2**31 - 1
S_UNITS = b.S_PROGRAM


class Toy:
    """The phases, and the numbers that they are about."""

    def __init__(self, permits: int, kills: int) -> None:
        self.permits, self.kills = permits, kills
        self.round = 0

    def regions(self) -> list[Region]:
        return [
            Region("numbers", "int64", (NUMBERS,)),
            Region("sums", "int64", (NUMBERS // NINE,)),
            Region("total", "int64", (3,)),  # of the round; kills, and mishaps, so far
            Region("undo", "int64", (self.permits, 2)),  # number + 1, its value before
            Region("order", "int64", (64,)),
        ]

    def bind(self, arena: Arena) -> None:
        self.numbers, self.sums, self.total = arena["numbers"], arena["sums"], arena["total"]
        self.undo, self.order = arena["undo"], arena["order"]
        self.numbers[:] = np.arange(NUMBERS) + 2

    def declare(self) -> tuple[Phase, ...]:
        return (
            Phase("wander", 40, self.wander, "wander", leaves=True),
            Phase(
                "multiply", NUMBERS, self.multiply, "multiply", undo=self.take_back,
                follows=lambda: self.noted(1, "add"), computes=True,
            ),
            Phase(
                "add", NUMBERS // NINE, self.add, "add", cycle=POSITIONS,
                follows=lambda: self.noted(2, "total"), heavy_units=5,
            ),
            Phase("total", 1, self.add_up, "add", follows=lambda: self.noted(3, None)),
        )  # fmt: skip

    def noted(self, mark: int, name: str | None) -> str | None:
        self.order[0] += 1
        self.order[int(self.order[0])] = mark
        return name

    def wander(self, _: int, __: int, me: Worker) -> None:
        time.sleep(0.05)
        me.count(S_UNITS, 1)

    def multiply(self, unit: int, permit: int, me: Worker) -> None:
        self.undo[permit] = (0, self.numbers[unit])
        self.undo[permit, 0] = unit + 1
        self.numbers[unit] = -7  # half done
        if unit % 5 == 3 and self.total[1] < self.kills:
            self.total[1] += 1
            os.kill(os.getpid(), signal.SIGKILL)
        self.numbers[unit] = self.undo[permit, 1] * (unit + 1) % MODULUS
        me.count(S_UNITS, 1)

    def take_back(self, unit: int, permit: int) -> None:
        if self.undo[permit, 0] == unit + 1:
            self.numbers[unit] = self.undo[permit, 1]
            self.undo[permit, 0] = 0

    def add(self, unit: int, _: int, me: Worker) -> None:
        self.sums[unit] = self.numbers[unit * NINE : (unit + 1) * NINE].sum()
        me.book()
        me.count(S_UNITS, 1)

    def add_up(self, _: int, __: int, ___: Worker) -> None:
        self.total[0] = self.sums.sum()


def expected(rounds: int) -> int:
    """What the numbers come to, computed by nobody but Python."""
    numbers = [place + 2 for place in range(NUMBERS)]
    for _ in range(rounds):
        numbers = [number * (place + 1) % MODULUS for place, number in enumerate(numbers)]
    return sum(numbers)


def assert_whole(node: Node, tree: Tree) -> None:
    """Every row has one process, which is its parent's child, and every process has one row."""
    until = time.monotonic() + 5.0
    while (found := processes()) != (wanted := wanted_processes(tree)):
        assert time.monotonic() < until, (found, wanted)
        node.look_after()
        time.sleep(0.01)


def processes() -> dict[int, int]:
    """Return all processes below this one, and whose child each is; 0 for the dead."""
    found: dict[int, int] = {}
    below = [os.getpid()]
    while below:
        for pid in children_of(below.pop()):
            found[pid] = parent_of(pid)
            below.append(pid)
    return found


def wanted_processes(tree: Tree) -> dict[int, int]:
    """Return the process of each row, and whose child it shall be."""
    pids = {NODE_ZERO: os.getpid()} | {row: tree.word(row, b.S_PID) for row in tree.rows()}
    return {pids[row]: pids[tree.word(row, b.S_PARENT)] for row in tree.rows()}


def main(
    shapes: str, permits: int, rounds: int, kills: int = 0, nodes: int = 0, name: str = ""
) -> None:
    toy = Toy(permits, kills)
    mishap = Mishap(name)
    phases = toy.declare()
    wanted = [places_of(shape_of(int(s) if s.isdecimal() else s)) for s in shapes.split(",")]
    chosen = random.Random(7)
    events: list[str] = []
    refusals: list[str] = []
    settling_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        node = Node(
            phases, toy.regions(), folder=Path(folder), permits=permits, rows=400,
            depth="1", states=("at work",),
            jitter_s=0.0, hang_s=HANG_S if name in FAILURES else 10.0, lost_file=lambda: None,
            happened=lambda event, **_: events.append(event),
        )  # fmt: skip
        toy.bind(node.arena)
        board, runner = node.board, node.runner
        tree = Tree(board)
        mishap.put_in(tree, toy.total[2:])
        try:
            for number in range(rounds):
                shape = wanted[number % len(wanted)]
                before = time.monotonic()
                try:
                    node.growth.want(shape)
                except EngineError as error:
                    refusals.append(error.message)
                    node.growth.want(wanted[(number - 1) % len(wanted)])
                    assert_whole(node, tree)
                    node.growth.want(shape)
                settling_s = max(settling_s, time.monotonic() - before)
                assert tree.paths().keys() == shape
                if len(shape) < 40:
                    assert_whole(node, tree)
                toy.order[0] = 0
                mishap.before_round(number)
                runner.begin("multiply")
                mishap.in_round(number)
                if number < nodes:
                    pid = tree.word(chosen.choice(tree.rows()), b.S_PID)
                    if pid > 0:  # it is not just being replaced
                        os.kill(pid, signal.SIGKILL)
                assert runner.wait()
                node.look_after()
                mishap.after_round(number)
            board.control.store(b.STOP, 1)
            assert runner.begin("multiply") is None
            assert runner.wait()  # is not left, stop or no stop
            before = time.monotonic()
            runner.begin("wander")
            assert not runner.wait()
            took_s = time.monotonic() - before
        finally:
            node.disband()
            left = processes()
    rows = board.sphere_table
    parents = {tree.word(row, b.S_PARENT) for row in tree.rows()}
    told = {
        "total": int(toy.total[0]),
        "order": toy.order[1 : int(toy.order[0]) + 1].tolist(),
        "deaths": board.state.load(b.DEATHS),
        "units": int(rows[:, S_UNITS].sum()),
        "wandering_s": took_s,
        "settling_s": settling_s,
        "events": sorted(set(events)),
        "mishaps": int(toy.total[2]),
        "refusals": refusals,
        "left": sorted(left),
        "units_of_controls": int(rows[[r for r in parents if r >= 0], S_UNITS].sum()),
        "compute_ns": int(rows[:, b.S_COMPUTE_NS].sum()),
        "sync_ns": int(rows[:, b.S_SYNC_NS].sum()),
        "states": sorted({b.states_of(phases)[state] for state in rows[tree.rows(), b.S_STATE]}),
        "modules": sorted({name.split(".")[1] for name in sys.modules
                           if name.startswith("crystalline.")}),
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]), *sys.argv[6:])
