"""What the policy of the tree looks at, measured: idle spheres, busy processors, free memory."""

from __future__ import annotations

import time
from collections import deque

from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.policy import Load, Node
from crystalline.engine.tree import LEAF, LEAVING, Tree
from crystalline.ipc.liveness import cpu_time_ns
from crystalline.ipc.positions import POSITIONS

LOOK_S = 1.0
IDLE_S = 30.0  # over which idle shares are taken
BUSY_S = 5.0  # over which the processors' is
NODE_BYTES = 30_000_000  # of a process's own, where it cannot be measured


class Gauge:
    """Samples of the last half minute; look about once a second."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._tree = Tree(board)
        self._idle: deque[tuple[float, dict[tuple[int, int], int]]] = deque()  # (row, id) → ns
        self._busy: deque[tuple[float, float, float]] = deque()  # time, seconds busy, in all
        self._watched: dict[int, tuple[float, int]] = {}  # pid → time, processor time
        self._looked_s = -LOOK_S

    @property
    def is_due(self) -> bool:
        """Whether the last look was so long ago that another tells something."""
        return time.monotonic() - self._looked_s >= LOOK_S

    def look(self) -> None:
        """Take a sample."""
        now_s = self._looked_s = time.monotonic()
        tree = self._tree
        idle = {(row, tree.word(row, b.S_ID)): tree.word(row, b.S_IDLE_NS) for row in tree.rows()}
        self._idle.append((now_s, idle))
        while now_s - self._idle[0][0] > IDLE_S:
            self._idle.popleft()
        import psutil  # a run whose tree does not grow by itself needs none of it

        times = psutil.cpu_times()
        whole = sum(times[:8])  # guests' time is in the others
        self._busy.append((now_s, whole - times.idle - times.iowait, whole))
        while len(self._busy) > 2 and now_s - self._busy[0][0] > BUSY_S:
            self._busy.popleft()

    def nodes(self) -> list[Node]:
        """Return the nodes that work or control."""
        tree = self._tree
        nodes = []
        for row in tree.rows():
            role = tree.word(row, b.S_ROLE)
            if role == LEAVING:
                continue
            path = tree.path(row)
            nodes.append(
                Node(
                    row,
                    tree.word(row, b.S_PARENT),
                    len(path),
                    path[-1] % POSITIONS,
                    is_leaf=role == LEAF,
                    idle_share=self._idle_share(row) if role == LEAF else 0.0,
                    watch_share=0.0 if role == LEAF else self._watch_share(row),
                )
            )
        return nodes

    def load(self, units: int) -> Load:
        """Return the load, with so many units at Point A."""
        import psutil

        memory = psutil.virtual_memory()
        (_, busy, whole), (_, busy_before, whole_before) = self._busy[-1], self._busy[0]
        passed = whole - whole_before
        return Load(
            now_s=self._looked_s,
            units=units,
            cpu_share=(busy - busy_before) / passed if passed > 0 else 1.0,
            free_bytes=memory.available,
            total_bytes=memory.total,
            node_bytes=self._node_bytes(),
        )

    def _idle_share(self, row: int) -> float:
        """Return the share of the last half minute that a leaf was idle; 0 for a younger one."""
        if not self._idle:  # nobody has looked yet
            return 0.0
        began_s, before = self._idle[0]
        key = (row, self._tree.word(row, b.S_ID))
        passed_s = self._looked_s - began_s
        if key not in before or passed_s < IDLE_S - 2 * LOOK_S:
            return 0.0
        return min(1.0, (self._idle[-1][1][key] - before[key]) / 1e9 / passed_s)

    def _watch_share(self, row: int) -> float:
        """Return the processor time of a control, which does nothing but watch, over the time."""
        pid = self._tree.word(row, b.S_PID)
        used_ns = cpu_time_ns(pid)
        began_s, before_ns = self._watched.setdefault(pid, (self._looked_s, used_ns))
        passed_s = self._looked_s - began_s
        if passed_s > BUSY_S:
            self._watched[pid] = (self._looked_s, used_ns)
        return (used_ns - before_ns) / 1e9 / passed_s if passed_s else 0.0

    def _node_bytes(self) -> int:
        """Return the memory of a leaf's own."""
        import psutil

        for row in self._tree.rows():
            try:
                own: int = psutil.Process(self._tree.word(row, b.S_PID)).memory_full_info().uss
            except (psutil.Error, ValueError):  # it has just gone
                continue
            return own
        return NODE_BYTES
