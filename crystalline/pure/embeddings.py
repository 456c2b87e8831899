"""Tokens as points of a lattice, in exact arithmetic: the pure embeddings.

Every token has a place in space that follows from its number (`coordinates`).  A lattice, given by
a basis, lies under them: a token's lattice coordinates c are those with c B = its place.  Changing
the basis moves no token.  The class keeps tokens, basis and what follows from both in step; how
things are computed is in the modules it calls.
"""

from __future__ import annotations

import math
import operator
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels import similarity as kernel
from crystalline.errors import DataError
from crystalline.exact import BigFixed, BigFixedArray, factor_arrays
from crystalline.exact.lattice import (
    ClosestVector,
    ClosestVectorSearch,
    LatticeBasis,
    Reduction,
    lll,
)
from crystalline.pure import phases
from crystalline.pure.coordinates import (
    FRAC_BITS,
    WIDTH_BITS,
    from_mantissas,
    rounded_quotient,
)
from crystalline.pure.morphology import Morphology
from crystalline.pure.nearest import Neighbor, TokenIndex, as_point, as_points
from crystalline.pure.similarity import (
    WEIGHTS,
    checked_pairs,
    lattice_distance,
    prime_similarity,
    similarities,
)
from crystalline.pure.token import LARGEST_NUMBER, CrystallineToken, make_token

CACHED_QUERIES = 1024


class NumberedTokens(Protocol):
    """What `from_crystal` reads: texts [V] (None for what is no text), numbers [V], parent [V]."""

    @property
    def texts(self) -> Sequence[str | None]: ...
    @property
    def numbers(self) -> npt.NDArray[np.uint64]: ...
    @property
    def parent(self) -> npt.NDArray[np.int32]: ...


@dataclass(frozen=True)
class Statistics:
    """How often tokens were looked up by place, and how long that took.

    lookups: points asked for, of which cache_hits were answered from the cache of recent answers;
    mean_lookup_s: seconds a point, 0 before the first.
    """

    lookups: int = 0
    cache_hits: int = 0
    mean_lookup_s: float = 0.0


class CrystallineEmbeddings:
    """Tokens with explicit numbers as points in `dimension` dimensions, over a lattice.

    The basis [dimension, dimension] is the identity if none is given (see `set_basis`).

    >>> tokens = CrystallineEmbeddings(dimension=3)
    >>> for text, number in [("run", 5), ("running", 2 * 5), ("runs", 3 * 5)]:
    ...     _ = tokens.add_token(text, number)
    >>> tokens.positions.shape, tokens.positions.width_bits
    ((3, 3), 256)
    >>> tokens.root_of("running").text, [token.text for token in tokens.derived("run")]
    ('run', ['running', 'runs'])
    >>> tokens.nearest([2, -1, 0]).token.text
    'running'
    >>> tokens.set_basis([[1, 0, 0], [7, 1, 0], [3, 5, 1]])
    >>> reduction = tokens.optimize_basis()
    >>> reduction.certificate().verify()
    >>> round(tokens.lattice_basis.orthogonality_defect(), 6)
    1.0
    """

    def __init__(self, dimension: int = 3, basis: Any = None) -> None:
        self._dimension = operator.index(dimension)
        if self._dimension < 1:
            raise ValueError(f"dimension is {dimension}, expected 1 or more")
        self._tokens: list[CrystallineToken] = []
        self._mantissas: list[list[int]] = []
        self._by_text: dict[str, int] = {}
        self._by_number: dict[int, int] = {}
        self._given: dict[int, int] = {}
        self._cache: OrderedDict[tuple[int, bytes], list[Neighbor]] = OrderedDict()
        self._lookups, self._hits, self._seconds = 0, 0, 0.0
        identity = [[int(i == j) for j in range(self._dimension)] for i in range(self._dimension)]
        self.set_basis(identity if basis is None else basis)

    @classmethod
    def from_crystal(cls, crystal: NumberedTokens, dimension: int = 3) -> CrystallineEmbeddings:
        """Return the embeddings of a vocabulary whose tokens have numbers; ids are the same.

        What derives from what is the crystal's to say; of tokens added later their factors say it.

        >>> from types import SimpleNamespace
        >>> crystal = SimpleNamespace(
        ...     texts=["run", "running"], numbers=np.array([5, 10]), parent=np.array([0, 0])
        ... )
        >>> CrystallineEmbeddings.from_crystal(crystal).root_of("running").text
        'run'
        """
        embeddings = cls(dimension)
        embeddings.add_tokens(crystal.texts, crystal.numbers.tolist())
        embeddings._given.update(enumerate(crystal.parent.tolist()))
        return embeddings

    # Tokens

    @property
    def dimension(self) -> int:
        """The number of coordinates of a place."""
        return self._dimension

    @property
    def tokens(self) -> tuple[CrystallineToken, ...]:
        """All tokens; the id of each is its index."""
        return tuple(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[CrystallineToken]:
        return iter(self.tokens)

    def __getitem__(self, token: SupportsIndex | str) -> CrystallineToken:
        """Return a token by id or text; IndexError or KeyError for none."""
        return self._tokens[self._id(token)]

    def __repr__(self) -> str:
        return f"CrystallineEmbeddings({len(self)} tokens, dimension {self._dimension})"

    def add_token(self, text: str, number: SupportsIndex) -> CrystallineToken:
        """Add a token and return it; its id is the number of tokens before it.

        DataError where the number belongs to a token already (both would share a place) and where
        it is not from 2 to 2^64 - 1.  Texts may repeat; the first token of a text is found by it.
        """
        return self.add_tokens([text], [number])[0]

    def add_tokens(
        self, texts: Sequence[str | None], numbers: Sequence[SupportsIndex]
    ) -> list[CrystallineToken]:
        """Add many tokens, all or none, and return them.

        >>> added = CrystallineEmbeddings(2).add_tokens(["a", "b"], [2, 3])
        >>> [token.id for token in added]
        [0, 1]
        """
        values = [operator.index(number) for number in numbers]
        if len(texts) != len(values):
            raise ValueError(f"{len(texts)} texts and {len(values)} numbers")
        self._expect_new(texts, values)
        primes, exponents, starts = factor_arrays(values)
        spelled = np.repeat(primes, exponents)
        ends = np.concatenate([[0], np.cumsum(exponents, dtype=np.int64)])[starts].tolist()
        added = []
        for i, (text, number) in enumerate(zip(texts, values, strict=True)):
            factors = spelled[ends[i] : ends[i + 1]].tolist()
            added.append(make_token(len(self) + i, text, number, self._dimension, factors))
        self._append(added)
        return added

    def _expect_new(self, texts: Sequence[str | None], numbers: Sequence[int]) -> None:
        new_numbers: set[int] = set()
        for text, number in zip(texts, numbers, strict=True):
            if not 2 <= number <= LARGEST_NUMBER:
                raise DataError(
                    f"token {text!r} has the number {number}",
                    advice="Numbers of tokens are primes and products of primes below 2^64.",
                )
            if number in self._by_number or number in new_numbers:
                raise DataError(
                    f"two tokens have the number {number}, one of them {text!r}",
                    advice="Give every token a number of its own: the number is its place.",
                )
            new_numbers.add(number)

    def _append(self, tokens: Sequence[CrystallineToken]) -> None:
        for token in tokens:
            self._tokens.append(token)
            self._mantissas.append([int(c.mantissa) for c in token.coordinates])
            self._by_number[token.number] = token.id
            if token.text is not None:
                self._by_text.setdefault(token.text, token.id)
        self._changed()

    def _id(self, token: SupportsIndex | str) -> int:
        if isinstance(token, str):
            if token not in self._by_text:
                raise KeyError(f"there is no token {token!r}")
            return self._by_text[token]
        at = operator.index(token)
        if not 0 <= at < len(self):
            raise IndexError(f"there is no token {at}, only 0 to {len(self) - 1}")
        return at

    def _changed(self) -> None:
        self._now = _Derived(self._tokens, self._mantissas, self._given, self._lattice)
        self._cache.clear()

    # Places and the lattice

    @property
    def positions(self) -> BigFixedArray:
        """The places of the tokens in space: [n, d], 256 bits, read-only."""
        return self._now.positions

    @property
    def lattice_positions(self) -> BigFixedArray:
        """The tokens' coordinates in the basis: [n, d], 256 bits, read-only; rows c with c B = x.

        Each is the exact solution rounded once to 2^-192, and exact where that has no more bits, as
        over every unimodular basis of integers.
        """
        return self._now.lattice_positions

    @property
    def basis(self) -> BigFixedArray:
        """The basis B: a row [d] for each vector, [d, d], 256 bits, read-only."""
        return self._basis

    @property
    def lattice_basis(self) -> LatticeBasis:
        """The basis as exact mathematics takes it."""
        return self._lattice

    @property
    def inverse(self) -> BigFixedArray:
        """The inverse of B: [d, d], each entry the exact one rounded once to 2^-192, read-only."""
        return self._now.inverse

    @property
    def exact_inverse(self) -> tuple[tuple[Fraction, ...], ...]:
        """The inverse of B in rationals."""
        return tuple(zip(*self._now.dual.fractions(), strict=True))

    def set_basis(self, rows: Any) -> None:
        """Take another basis, of another lattice maybe; no token moves in space.

        rows [d, d]: what BigFixedArray.of takes, rounded once to 2^-192.  ValueError for another
        shape and for dependent rows.

        >>> tokens = CrystallineEmbeddings(2)
        >>> tokens.set_basis([[2, 0], [1, 1]])
        >>> tokens.inverse.to_strings()
        [['0.5', '0.0'], ['-0.5', '1.0']]
        """
        array = BigFixedArray.of(rows, WIDTH_BITS, FRAC_BITS)
        if array.shape != (self._dimension, self._dimension):
            expected = (self._dimension, self._dimension)
            raise ValueError(f"the basis has the shape {array.shape}, expected {expected}")
        entries, unit = array.mantissas(), 1 << FRAC_BITS
        common = math.gcd(unit, *(x for row in entries for x in row))
        lattice = LatticeBasis([[x // common for x in row] for row in entries], unit // common)
        if lattice.determinant() == 0:
            raise ValueError("the rows of the basis depend on each other")
        self._basis, self._lattice = _read_only(array), lattice
        self._changed()

    def optimize_basis(self, delta: float = 0.99) -> Reduction:
        """Reduce the basis by LLL and compute all lattice positions anew; return the reduction.

        The lattice and the places in space stay as they are.  The reduction is proved, and
        `certificate()` of it is what a slow check can verify.
        """
        reduction = lll(self._lattice, delta, transformation=True, singular="error")
        unit = (1 << FRAC_BITS) // reduction.basis.denominator
        rows = [[x * unit for x in row] for row in reduction.basis.rows]
        self.set_basis(from_mantissas(rows, self._dimension))
        _ = self.lattice_positions
        return reduction

    def closest_lattice_vector(self, point: Any) -> ClosestVector:
        """Return the vector of the lattice closest to a point [d], proved (CVP).

        >>> tokens = CrystallineEmbeddings(2, [[2, 0], [1, 1]])
        >>> tokens.closest_lattice_vector([2.9, 1]).vector
        (Fraction(3, 1), Fraction(1, 1))
        """
        (target,) = as_point(point, self._dimension).to_bigfixed()
        return self._now.search.closest(target)

    # Nearest tokens

    def nearest(self, point: Any) -> Neighbor:
        """Return the token nearest to a point [d], of equally near ones that with the lowest id.

        The point is rounded once to 2^-192; from there on everything is exact.
        """
        return self.k_nearest(point, 1)[0]

    def k_nearest(self, point: Any, k: SupportsIndex) -> list[Neighbor]:
        """Return the k tokens nearest to a point [d], nearest first, ties by the lower id.

        ValueError unless 1 <= k <= the number of tokens.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["a", "b", "c"], [2, 3, 5])
        >>> [(n.token.text, int(n.squared_distance)) for n in tokens.k_nearest([1, 0], 2)]
        [('a', 0), ('b', 1)]
        """
        start = time.perf_counter()
        many = self._expect_k(k)
        query = as_point(point, self._dimension)
        key = (many, query.limbs.tobytes())
        found = self._cache.get(key)
        if found is None:
            ((rows, squares),) = self._now.index.nearest(query, many)
            found = [
                Neighbor(self._tokens[row], BigFixed.from_mantissa(square, 2 * FRAC_BITS))
                for row, square in zip(rows, squares, strict=True)
            ]
            self._cache[key] = found
            if len(self._cache) > CACHED_QUERIES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
            self._hits += 1
        self._count(1, start)
        return list(found)

    def nearest_many(self, points: Any) -> npt.NDArray[np.int64]:
        """Return the id of the token nearest to each of points [m, d]: [m]."""
        return self.k_nearest_many(points, 1)[:, 0]

    def k_nearest_many(self, points: Any, k: SupportsIndex) -> npt.NDArray[np.int64]:
        """Return the ids of the k tokens nearest to each of points [m, d]: [m, k].

        The same as `k_nearest` of each, without the cache.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["a", "b", "c"], [2, 3, 5])
        >>> tokens.k_nearest_many(np.array([[1.0, 0.0], [-3.0, 2.0]]), 2).tolist()
        [[0, 1], [2, 1]]
        """
        start = time.perf_counter()
        many = self._expect_k(k)
        queries = as_points(points, self._dimension)
        rows = self._now.index.nearest_rows(queries, many)
        self._count(len(rows), start)
        return rows

    @property
    def statistics(self) -> Statistics:
        """Lookups by place up to now.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_token("a", 2)
        >>> _ = tokens.nearest([1, 0]), tokens.nearest([1, 0])
        >>> tokens.statistics.lookups, tokens.statistics.cache_hits
        (2, 1)
        """
        mean = self._seconds / self._lookups if self._lookups else 0.0
        return Statistics(self._lookups, self._hits, mean)

    def _expect_k(self, k: SupportsIndex) -> int:
        many = operator.index(k)
        if not 1 <= many <= len(self):
            raise ValueError(f"the {many} nearest of {len(self)} tokens do not exist")
        return many

    def _count(self, points: int, start: float) -> None:
        self._lookups += points
        self._seconds += time.perf_counter() - start

    # Relations between tokens

    @property
    def morphology(self) -> Morphology:
        """Which token derives from which."""
        return self._now.morphology

    def root_of(self, token: SupportsIndex | str) -> CrystallineToken:
        """Return the root of a token, by id or text; the token itself where it is one."""
        return self._tokens[self.morphology.root_of(self._id(token))]

    def derived(self, token: SupportsIndex | str) -> list[CrystallineToken]:
        """Return the tokens that derive from a token, in any number of steps, by id."""
        return [self._tokens[i] for i in self.morphology.derived(self._id(token))]

    def similarity(
        self,
        a: SupportsIndex | str,
        b: SupportsIndex | str,
        weights: Sequence[float] = WEIGHTS,
    ) -> float:
        """Return w1 lattice + w2 prime + w3 morphology similarity of two tokens (`similarity`).

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["run", "running", "sit"], [5, 10, 7])
        >>> tokens.similarity("run", "run"), tokens.similarity("run", "sit") < 0.25
        (1.0, True)
        >>> tokens.similarity("run", "running", (0, 0.5, 0.5))
        0.5
        """
        return float(self.similarities([[self._id(a), self._id(b)]], weights)[0])

    def similarities(
        self, pairs: Any, weights: Sequence[float] = WEIGHTS
    ) -> npt.NDArray[np.float64]:
        """Return the similarity of each of pairs [m, 2] of ids, in one pass: [m]."""
        now = self._now
        return similarities(now.floats, now.numbers, now.morphology, pairs, weights)

    def lattice_distance(self, a: SupportsIndex | str, b: SupportsIndex | str) -> BigFixed:
        """Return the distance of two tokens' places, rounded once to 192 bits.

        It is the length of the difference of their lattice coordinates in the lattice's own
        metric, whatever the basis.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["a", "b"], [2, 10])  # at (1, 0) and (2, -1)
        >>> tokens.lattice_distance("a", "b").to_decimal(30)
        '1.414213562373095048801688724210'
        """
        return lattice_distance(self[a].coordinates, self[b].coordinates)

    def prime_similarity(self, a: SupportsIndex | str, b: SupportsIndex | str) -> Fraction:
        """Return gcd / max of two tokens' numbers, exact.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["running", "runs"], [10, 15])
        >>> tokens.prime_similarity("running", "runs")
        Fraction(1, 3)
        """
        return prime_similarity(self[a].number, self[b].number)

    def phase_alignment(
        self,
        a: SupportsIndex | str,
        b: SupportsIndex | str,
        harmonics: int = phases.HARMONICS,
    ) -> BigFixed:
        """Return the phase alignment of two tokens' numbers (`phases`), 192 bits."""
        return phases.phase_alignment(self[a].number, self[b].number, harmonics)

    def phase_alignments(
        self, pairs: Any, harmonics: int = phases.HARMONICS
    ) -> npt.NDArray[np.float64]:
        """Return the phase alignment of each of pairs [m, 2] of ids, in one pass: [m].

        In doubles, within (harmonics + 2) 2^-51 of `phase_alignment`.

        >>> tokens = CrystallineEmbeddings(2)
        >>> _ = tokens.add_tokens(["a", "b"], [5, 17])
        >>> tokens.phase_alignments([[0, 1], [1, 1]]).round(6)
        array([0.391403, 1.      ])
        """
        a, b = checked_pairs(pairs, len(self))
        out = np.empty(a.size)
        kernel.phase_alignments(self._now.phase_table(harmonics), a, b, out)
        return out

    # For transformations

    def moved(self, mantissas: Sequence[Sequence[int]], basis: Any) -> CrystallineEmbeddings:
        """Return the same tokens at other places, over another basis.

        mantissas [n, d]: the coordinates in units of 2^-192.  DataError where two tokens would
        share a place.

        >>> tokens = CrystallineEmbeddings(1)
        >>> _ = tokens.add_token("a", 2)
        >>> float(tokens.moved([[1 << 191]], tokens.basis)["a"].coordinates[0])
        0.5
        """
        array = from_mantissas(mantissas, self._dimension)
        places = array.to_bigfixed()
        if len({tuple(row) for row in mantissas}) != len(self):
            raise DataError(
                f"{len(self)} tokens have {len({tuple(row) for row in mantissas})} places",
                advice="Every token needs a place of its own.",
            )
        result = CrystallineEmbeddings(self._dimension, basis)
        result._given.update(self._given)
        result._append(
            [
                replace(token, coordinates=tuple(place))
                for token, place in zip(self._tokens, places, strict=True)
            ]
        )
        return result

    def mantissas(self) -> list[list[int]]:
        """Return the coordinates of the places [n, d] in units of 2^-192."""
        return [list(row) for row in self._mantissas]


class _Derived:
    """What follows from tokens and a basis that do not change any more, computed when asked for."""

    def __init__(
        self,
        tokens: Sequence[CrystallineToken],
        mantissas: Sequence[Sequence[int]],
        given: Mapping[int, int],
        lattice: LatticeBasis,
    ) -> None:
        self._tokens, self._mantissas, self._given = tokens, mantissas, given
        self._lattice, self._dimension = lattice, len(lattice)
        self._phases: dict[int, npt.NDArray[np.float64]] = {}

    @cached_property
    def positions(self) -> BigFixedArray:
        return _read_only(from_mantissas(self._mantissas, self._dimension))

    @cached_property
    def floats(self) -> npt.NDArray[np.float64]:
        return self.positions.to_floats()

    @cached_property
    def numbers(self) -> npt.NDArray[np.uint64]:
        return np.array([token.number for token in self._tokens], np.uint64)

    @cached_property
    def dual(self) -> LatticeBasis:
        """The dual basis: its rows are the columns of the inverse."""
        return self._lattice.dual()

    @cached_property
    def inverse(self) -> BigFixedArray:
        unit = 1 << FRAC_BITS
        rows = zip(*self.dual.rows, strict=True)
        bottom = self.dual.denominator
        entries = [[rounded_quotient(x * unit, bottom) for x in row] for row in rows]
        return _read_only(from_mantissas(entries, self._dimension))

    @cached_property
    def lattice_positions(self) -> BigFixedArray:
        columns, bottom = self.dual.rows, self.dual.denominator
        if (1 << FRAC_BITS) % bottom == 0:  # the array of the inverse is exact: one rounding, too
            return _read_only(self.positions @ self.inverse)
        rows = (
            [rounded_quotient(sum(map(int.__mul__, x, column)), bottom) for column in columns]
            for x in self._mantissas
        )
        return _read_only(from_mantissas(rows, self._dimension))

    @cached_property
    def search(self) -> ClosestVectorSearch:
        return ClosestVectorSearch(self._lattice)

    @cached_property
    def index(self) -> TokenIndex:
        return TokenIndex(self.positions, self._lattice)

    @cached_property
    def morphology(self) -> Morphology:
        return Morphology.of_tokens(self._tokens, self._given)

    def phase_table(self, harmonics: int) -> npt.NDArray[np.float64]:
        if harmonics not in self._phases:
            self._phases[harmonics] = phases.phase_table(self.numbers, harmonics)
        return self._phases[harmonics]


def _read_only(array: BigFixedArray) -> BigFixedArray:
    array.limbs.flags.writeable = False
    return array
