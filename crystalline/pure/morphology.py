"""Which token derives from which: a forest over the tokens, from their numbers' factors.

A token whose number is a prime is a root.  The root of any other is the token of its largest prime
factor that is a root's; it derives directly from the token with the largest number that divides
its own properly and has that prime, the root at the least.  A number without a root's prime among
its factors stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from crystalline.errors import DataError
from crystalline.pure.token import CrystallineToken


@dataclass(frozen=True, eq=False)
class Morphology:
    """The forest of derivations of n tokens.

    parent [n]: the id of the token that a token derives from directly, its own for those that
    derive from none; root [n]: the id at the top; depth [n]: steps from the top.

    >>> graph = Morphology.of_parents([0, 0, 1, 3])
    >>> graph.root_of(2), graph.derived(0), graph.derived(0, direct=True), graph.family(1)
    (0, (1, 2), (1,), (0, 1, 2))
    >>> graph.depth.tolist(), graph.roots
    ([0, 1, 2, 0], (0, 3))
    """

    parent: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]
    depth: npt.NDArray[np.int64]

    @classmethod
    def of_parents(cls, parent: Sequence[int] | npt.NDArray[np.integer]) -> Morphology:
        """Return the forest in which token i derives from parent[i].

        DataError where a parent is no token, or a token derives from itself by a detour.
        """
        above = np.asarray(parent, np.int64)
        if above.size and not 0 <= above.min() <= above.max() < above.size:
            bad = int(np.argmax((above < 0) | (above >= above.size)))
            raise DataError(
                f"token {bad} derives from token {above[bad]}, which does not exist",
                advice="Parents are ids of tokens; a root's parent is itself.",
            )
        depth = np.full(above.size, -1, np.int64)
        root = np.arange(above.size)
        for start in range(above.size):
            path = [start]
            while depth[path[-1]] < 0 and above[path[-1]] != path[-1]:
                path.append(int(above[path[-1]]))
                if len(path) > above.size:
                    raise DataError(
                        f"token {start} derives from itself by a detour",
                        advice="Derivations must end at a root.",
                    )
            top = path.pop()
            if depth[top] < 0:
                depth[top] = 0
            for steps, token in enumerate(reversed(path), 1):
                depth[token], root[token] = depth[top] + steps, root[top]
        for array in (above, root, depth):
            array.flags.writeable = False
        return cls(above, root, depth)

    @classmethod
    def of_tokens(
        cls, tokens: Sequence[CrystallineToken], given: Mapping[int, int] | None = None
    ) -> Morphology:
        """Return the forest that the tokens' factors make; `given` parents come before factors.

        >>> from crystalline.pure.token import make_token
        >>> words = [("run", 5), ("running", 10), ("runs", 15), ("sit", 7)]
        >>> graph = Morphology.of_tokens([make_token(i, *w, 2) for i, w in enumerate(words)])
        >>> graph.root.tolist()
        [0, 0, 0, 3]
        """
        known = given or {}
        by_number = {token.number: token.id for token in tokens}
        roots = {token.number for token in tokens if token.is_root}
        parents = []
        for token in tokens:
            parent = known.get(token.id)
            if parent is None:
                parent = token.id if token.is_root else _parent(token, by_number, roots)
            parents.append(parent)
        return cls.of_parents(parents)

    @property
    def roots(self) -> tuple[int, ...]:
        """The tokens that derive from none."""
        return tuple(np.flatnonzero(self.depth == 0).tolist())

    def root_of(self, token: int) -> int:
        """Return the root of a token, itself for a root."""
        return int(self.root[token])

    def derived(self, token: int, *, direct: bool = False) -> tuple[int, ...]:
        """Return the tokens that derive from a token, ascending; only in one step if `direct`."""
        found = list(self._children[token])
        if not direct:
            for child in found:  # grows on the way
                found += self._children[child]
        return tuple(sorted(found))

    def family(self, token: int) -> tuple[int, ...]:
        """Return the token's root and all that derives from it, ascending."""
        root = self.root_of(token)
        return tuple(sorted((root, *self.derived(root))))

    @cached_property
    def _children(self) -> list[list[int]]:
        children: list[list[int]] = [[] for _ in range(self.parent.size)]
        for token, parent in enumerate(self.parent.tolist()):
            if parent != token:
                children[parent].append(token)
        return children


def _parent(token: CrystallineToken, by_number: Mapping[int, int], roots: set[int]) -> int:
    """Return what a token that is no root derives from, by its factors."""
    prime = next((p for p in reversed(token.factors) if p in roots), None)
    if prime is None:
        return token.id
    others = list(token.factors)
    others.remove(prime)
    divisors = {prime}
    for p in others:
        divisors |= {p * divisor for divisor in divisors}
    divisors.discard(token.number)
    return by_number[max(divisor for divisor in divisors if divisor in by_number)]
