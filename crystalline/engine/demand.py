"""What is asked of the tree's shape while a run lasts: by its user, and by the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.deaths import Happened
from crystalline.engine.growth import Growth
from crystalline.engine.load import Gauge
from crystalline.engine.policy import Limits, Node, Seen, Spawn, obstacle
from crystalline.engine.policy import plan as plan_of
from crystalline.engine.shape import free_positions
from crystalline.engine.tree import Tree
from crystalline.errors import EngineError
from crystalline.ipc.positions import POSITIONS
from crystalline.log import get_logger

logger = get_logger("train")


class Demand:
    """Decides what the tree shall be like, and lets it become so; all of it between phases."""

    def __init__(
        self, board: Board, growth: Growth, limits: Limits, queue: int, happened: Happened
    ) -> None:
        """`queue` is how many units wait when a step begins; `happened` is told of "spawned" and
        "collapsed".
        """
        self._tree = Tree(board)
        self._growth = growth
        self._limits = limits
        self._queue = queue
        self._happened = happened
        self._gauge = Gauge(board)
        self._seen = Seen()

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask the policy again."""
        return self._gauge.is_due

    def spawn(self, row: int, count: int) -> None:
        """Give a leaf so many children, between phases: from then on it computes nothing.

        Raises:
            EngineError: it can have none, the message says why; or as `Growth.want`.
        """
        nodes = self._gauge.nodes()
        node = self._node(row, nodes)
        if not 1 <= count <= POSITIONS:
            raise EngineError(f"a sphere cannot have {count} children", advice="Ask for 1 to 12.")
        reason = obstacle(node, nodes, self._limits)
        if reason is None and len(nodes) + count > self._limits.nodes:
            reason = f"there are {len(nodes)} nodes, and there is room for {self._limits.nodes}"
        if reason is not None:
            raise EngineError(
                f"sphere {row} cannot have children: {reason}", advice="Ask for another."
            )
        tree = self._tree
        path = tuple(place % POSITIONS for place in tree.path(row))
        groups = Counter(tree.word(n.row, b.S_GROUP) for n in nodes if n.is_leaf and n.row != row)
        self._growth.spawn(row, free_positions(path, count, groups))

    def terminate(self, row: int) -> None:
        """Let the children of a control go, or a leaf itself, between phases.

        Raises:
            EngineError: there is no such sphere, or it is the last; or as `Growth.want`.
        """
        nodes = self._gauge.nodes()
        if self._node(row, nodes).is_leaf and sum(node.is_leaf for node in nodes) == 1:
            raise EngineError(f"sphere {row} is the last that computes", advice="Stop the run.")
        self._growth.prune(row)

    @staticmethod
    def _node(row: int, nodes: Sequence[Node]) -> Node:
        for node in nodes:
            if node.row == row:
                return node
        raise EngineError(f"there is no sphere {row}", advice="See which there are with: tree.")

    def follow_policy(self) -> None:
        """Let the tree grow or shrink as its load asks for; between phases."""
        self._gauge.look()
        nodes = self._gauge.nodes()
        plan = plan_of(nodes, self._gauge.load(self._queue), self._limits, self._seen)
        self._seen = plan.seen
        for action in plan.actions:
            if isinstance(action, Spawn):
                self._growth.spawn(action.row, action.positions)
                self._happened("spawned", sphere=action.row, children=len(action.positions))
            else:
                self._growth.prune(action.row)
                self._happened("collapsed", sphere=action.row)
            logger.info("the tree has %d leaves now: %s", self._growth.size, action.reason)
