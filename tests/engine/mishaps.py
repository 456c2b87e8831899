"""Mishaps of parents in the tree of spheres, for `tests.engine.toy`: each at one point in the code.

The point is found by name and bent for the whole tree before the first fork; the first spheres that
come there die, or are too slow, or fail.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.engine import board as b
from crystalline.engine import supervisor
from crystalline.engine.deaths import Deaths
from crystalline.engine.tree import LEAF, Tree

TIMES = 2  # that it happens
LATE_S = 0.3
HANG_S = 0.5  # that a sphere may be silent

# Whose process dies when, in a sphere that has children or is about to.
MISHAPS = {
    "take": "while it writes a row for a child",
    "fork": "when it has forked, before it knows",
    "late": "so, and the children take their time to enter themselves",
    "adopt": "when it has adopted one of several children of a dead control",
    "part": "when the row of a dead child has forgotten it, before it is waited for",
    "tell": "when it has told of a death",
    "dismiss": "when it has told the first of its children to leave",
    "order": "when it has become a control, or a leaf again",
    "all": "and everybody else with it, before a phase that Node Zero then begins",
}
FAILURES = {
    "refuse": "a control may fork one child and no more",
    "stop control": "a control is stopped",
    "stop leaf": "a leaf is stopped before it is ordered to have children",
    "suspend": "all are stopped, as by Ctrl-Z, for longer than one may be silent",
}


class Mishap:
    """One of them."""

    def __init__(self, name: str) -> None:
        assert name in {"", *MISHAPS, *FAILURES}
        self._name = name
        self._node_zero = os.getpid()

    def put_in(self, tree: Tree, count: npt.NDArray[np.int64]) -> None:
        """Bend the code; `count` is in the arena and tells how often it has happened."""
        self._tree, self._count = tree, count
        if self._name == "take":
            self._dies_after(Tree, "_stand", lambda tree, row, *_: tree.word(row, b.S_ID) <= 0)
        elif self._name in ("fork", "late", "refuse"):
            supervisor.fork_workers = self._fork  # type: ignore[assignment]
        elif self._name == "adopt":
            self._dies_after(Tree, "stand", lambda *_: True)
        elif self._name == "part":
            self._dies_after(
                Tree,
                "put",
                lambda tree, row, word, value: (
                    (word, value) == (b.S_PID, 0) and tree.word(row, b.S_ID) > 0
                ),
            )
        elif self._name == "tell":
            self._dies_after(Deaths, "tell", lambda *_: True)
        elif self._name == "dismiss":
            self._dies_after(Tree, "become", lambda _, __, role: role != LEAF)
        elif self._name == "order":
            self._dies_after(Tree, "change_role", lambda *_: True)

    def before_round(self, number: int) -> None:
        """Bring about, before a phase, what leads to the mishap."""
        if number < TIMES and self._name == "all":
            for row in self._tree.rows():
                self._signal(row, signal.SIGKILL)

    def in_round(self, number: int) -> None:
        """Bring about, in the middle of a phase, what leads to the mishap."""
        if number >= TIMES:
            return
        parents = {self._tree.word(row, b.S_PARENT) for row in self._tree.rows()}
        paths = self._tree.paths()
        controls = {path: row for path, row in paths.items() if row in parents}
        leaves = {path: row for path, row in paths.items() if row not in parents}
        if self._name == "adopt":
            self._signal(controls[max(controls, key=len)], signal.SIGKILL)
        elif self._name in ("part", "tell"):
            self._signal(leaves[max(leaves, key=len)], signal.SIGKILL)
        elif self._name == "stop control":
            self._signal(controls[max(controls, key=len)], signal.SIGSTOP)
        elif self._name == "suspend":
            self._count[0] += 1
            group = os.getpgrp()
            assert group == self._node_zero
            script = f"kill -STOP -{group}; sleep {2 * HANG_S}; kill -CONT -{group}"
            subprocess.run(["sh", "-c", script], start_new_session=True, check=True)

    def after_round(self, number: int) -> None:
        """Bring about, between phases, what leads to the mishap."""
        if number < TIMES and self._name == "stop leaf":
            self._signal(self._tree.paths()[(0,)], signal.SIGSTOP)

    def _signal(self, row: int, number: int) -> None:
        self._count[0] += 1
        pid = self._tree.word(row, b.S_PID)
        if pid > 0:
            os.kill(pid, number)

    def _is_due(self) -> bool:
        return os.getpid() != self._node_zero and bool(self._count[0] < self._most)

    @property
    def _most(self) -> int:
        return 2 * TIMES if self._name in ("adopt", "part", "tell") else TIMES

    def _dies_after(self, kind: type, name: str, here: Callable[..., bool]) -> None:
        real = getattr(kind, name)

        def bent(*arguments: Any) -> Any:
            result = real(*arguments)
            if self._is_due() and here(*arguments):
                self._die()
            return result

        setattr(kind, name, bent)

    def _die(self) -> None:
        self._count[0] += 1
        os.kill(os.getpid(), signal.SIGKILL)

    def _fork(
        self, name: str, rows: npt.NDArray[np.intc], pids: npt.NDArray[np.intc], last: bool
    ) -> int:
        due = self._is_due()
        if due and self._name == "refuse":
            place = self._real(name, rows[:1], pids[:1], last)
            if place < 0:
                self._count[0] += 1
                pids[1] = errno.EAGAIN
            return place
        place = self._real(name, rows, pids, last)
        if due and place < 0:
            self._die()
        elif due and self._name == "late":
            time.sleep(LATE_S)
        return place

    _real = staticmethod(supervisor.fork_workers)
