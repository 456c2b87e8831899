"""Lattice bases: rows of exact integers over one denominator, and what can be said of them.

A lattice is the set of integer combinations of the rows divided by the denominator.  Reduction is
left to `lll`, orthogonalization to `gso`, close vectors to `babai`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from crystalline._kernels.lattice.basis import IntMatrix

# More entries than this are refused at once: a dimension beyond 30,000 is a mistake.
MAX_ENTRIES = 10**9


class LatticeBasis:
    """Rows of integers of any size, over one positive denominator; immutable.

    `rows`: a sequence of sequences of int, BigInt or anything else that is an integer (NumPy's
    too), or a NumPy array of integers [d, n].  The lattice has the vectors sum of x_i rows[i] /
    denominator for integers x_i; rows may be dependent (`lll` removes dependencies).

    Errors: TypeError for entries that are no integers, ValueError for no rows, empty rows, rows of
    unequal length and a denominator below 1.

    >>> basis = LatticeBasis([[4, 1], [2, 3]])
    >>> basis.shape, basis.rows, basis.determinant()
    ((2, 2), ((4, 1), (2, 3)), Fraction(10, 1))
    >>> LatticeBasis([[1, 2], [3, 4.5]])
    Traceback (most recent call last):
    TypeError: entry [1][1] of the basis is 4.5 (float), expected an integer
    """

    __slots__ = ("_denominator", "_matrix", "_rows")

    _denominator: int
    _matrix: IntMatrix
    _rows: tuple[tuple[int, ...], ...] | None

    def __init__(self, rows: Iterable[Iterable[Any]], denominator: int = 1) -> None:
        self._denominator = operator.index(denominator)
        if self._denominator < 1:
            raise ValueError(f"the denominator of a basis must be at least 1, not {denominator}")
        lists = [_integers(row, i) for i, row in enumerate(rows)]
        if not lists:
            raise ValueError("a basis needs at least one row")
        for i, row in enumerate(lists):
            if len(row) != len(lists[0]):
                raise ValueError(
                    f"row {i} of the basis has {len(row)} entries, row 0 has {len(lists[0])}"
                )
        if not lists[0]:
            raise ValueError("the rows of a basis need at least one entry")
        if len(lists) * len(lists[0]) > MAX_ENTRIES:
            raise OverflowError(f"a basis of {len(lists)} x {len(lists[0])} entries")
        self._matrix = IntMatrix(lists)
        self._rows = None

    # Other ways to begin

    @classmethod
    def from_matrix(cls, matrix: IntMatrix, denominator: int = 1) -> LatticeBasis:
        """Return the basis whose rows a kernel's matrix holds, which must not change any more."""
        if 0 in matrix.shape:
            raise ValueError(f"a basis needs rows and entries, not {matrix.shape}")
        basis = object.__new__(cls)
        basis._matrix = matrix
        basis._denominator = denominator
        basis._rows = None
        return basis

    @classmethod
    def from_rationals(cls, rows: Iterable[Iterable[Any]]) -> LatticeBasis:
        """Return the basis of rational rows, exactly: integers over the common denominator.

        An entry is an int, a Fraction, a BigFixed, a Decimal, a float (the rational that it is), or
        whatever else has an `as_integer_ratio`.

        >>> basis = LatticeBasis.from_rationals([[Fraction(1, 2), 0], [Fraction(1, 3), 1]])
        >>> basis.rows, basis.denominator
        (((3, 0), (2, 6)), 6)
        """
        return cls(*rational_rows(rows, "row"))

    @classmethod
    def from_fixed(cls, array: Any) -> LatticeBasis:
        """Return the basis whose rows are those of a BigFixedArray [d, n], over 2^frac_bits.

        Exact: the entries are the mantissas.  `to_limbs` is the way back.
        """
        limbs, frac_bits = np.ascontiguousarray(array.limbs), operator.index(array.frac_bits)
        if limbs.ndim != 3:
            raise ValueError(f"a basis needs an array of two axes, not of shape {array.shape}")
        size = 8 * limbs.shape[2]
        rows = []
        for row in limbs:
            data = row.tobytes()
            rows.append(
                [
                    int.from_bytes(data[at : at + size], "little", signed=True)
                    for at in range(0, len(data), size)
                ]
            )
        return cls(rows, 1 << frac_bits)

    def to_limbs(self, width_bits: int = 256) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return the integer rows as uint64 [d, n, width_bits / 64], two's complement.

        With frac_bits = log2 of the denominator this is the memory of a BigFixedArray:
        BigFixedArray.from_limbs(basis.to_limbs(256), frac_bits).  OverflowError where an entry
        does not fit.

        >>> LatticeBasis([[1, -2]]).to_limbs(64).tolist()
        [[[1], [18446744073709551614]]]
        """
        if width_bits < 64 or width_bits % 64:
            raise ValueError(f"width_bits is {width_bits}, expected a positive multiple of 64")
        data = bytearray()
        for row in self.rows:
            for entry in row:
                if not -(1 << (width_bits - 1)) <= entry < 1 << (width_bits - 1):
                    raise OverflowError(
                        f"an entry of {entry.bit_length()} bits does not fit {width_bits} bits"
                    )
                data += entry.to_bytes(width_bits // 8, "little", signed=True)
        return np.frombuffer(data, np.uint64).reshape(*self.shape, width_bits // 64)

    # What it is

    @property
    def matrix(self) -> IntMatrix:
        """The rows in the kernels' form; not to be changed."""
        return self._matrix

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The integer rows."""
        if self._rows is None:
            self._rows = tuple(tuple(row) for row in self._matrix.to_lists())
        return self._rows

    @property
    def denominator(self) -> int:
        """What the integer rows are divided by."""
        return self._denominator

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows d and of entries a row n."""
        return self._matrix.shape

    @property
    def bits(self) -> int:
        """A number of bits below 2 to the power of which every integer entry is in magnitude."""
        return self._matrix.bits

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        d, n = self.shape
        over = f" / {self._denominator}" if self._denominator != 1 else ""
        if d * n <= 16 and self.bits <= 64:
            return f"LatticeBasis({[list(row) for row in self.rows]}{over})"
        return f"LatticeBasis({d} x {n}, entries of at most {self.bits} bits{over})"

    def __eq__(self, other: object) -> bool:
        """Whether the vectors are the same, one by one; `same_lattice` compares what they span."""
        if not isinstance(other, LatticeBasis):
            return NotImplemented
        return self.fractions() == other.fractions()

    def __hash__(self) -> int:
        return hash(self.fractions())

    def __reduce__(self) -> tuple[Any, ...]:
        return LatticeBasis, (self.rows, self._denominator)

    def fractions(self) -> tuple[tuple[Fraction, ...], ...]:
        """Return the basis vectors as rationals.

        >>> LatticeBasis([[1, 2]], denominator=2).fractions()
        ((Fraction(1, 2), Fraction(1, 1)),)
        """
        return tuple(tuple(Fraction(x, self._denominator) for x in row) for row in self.rows)

    # What can be computed

    def gram(self) -> tuple[tuple[int, ...], ...]:
        """Return the inner products of the integer rows.

        >>> LatticeBasis([[1, 2], [3, 4]]).gram()
        ((5, 11), (11, 25))
        """
        rows = self.rows
        lower = [[sum(map(int.__mul__, a, b)) for b in rows[: i + 1]] for i, a in enumerate(rows)]
        return tuple(
            tuple(lower[max(i, j)][min(i, j)] for j in range(len(rows))) for i in range(len(rows))
        )

    def rank(self) -> int:
        """Return the dimension of the lattice, at most the number of rows.

        >>> LatticeBasis([[1, 2], [2, 4]]).rank()
        1
        """
        return sum(any(row) for row in self.hnf().rows)

    def determinant(self) -> Fraction:
        """Return |det| of a square basis, in the scale of the lattice; 0 for dependent rows.

        ValueError for a basis that is not square; `gram_determinant` is defined for all.

        >>> LatticeBasis([[1, 2], [3, 4]], denominator=2).determinant()
        Fraction(1, 2)
        """
        d, n = self.shape
        if d != n:
            raise ValueError(f"a basis of {d} x {n} has no determinant")
        return Fraction(abs(integer_determinant(self.rows)), self._denominator**d)

    def gram_determinant(self) -> Fraction:
        """Return det(B B^T), the squared volume of a cell; 0 for dependent rows.

        >>> LatticeBasis([[1, 1, 0], [0, 1, 1]]).gram_determinant()
        Fraction(3, 1)
        """
        return Fraction(integer_determinant(self.gram()), self._denominator ** (2 * len(self)))

    def orthogonality_defect(self) -> float:
        """Return the product of the row norms over the volume: 1 for orthogonal rows, else more.

        ZeroDivisionError for dependent rows.

        >>> LatticeBasis([[1, 0], [1, 1]]).orthogonality_defect()
        1.4142135623730951
        """
        product = math.prod(sum(x * x for x in row) for row in self.rows)
        ratio = Fraction(product, integer_determinant(self.gram()))
        shift = ratio.numerator.bit_length() - ratio.denominator.bit_length()
        shift -= shift % 2
        return math.ldexp(math.sqrt(ratio / Fraction(2) ** shift), shift // 2)

    def dual(self) -> LatticeBasis:
        """Return the dual basis: rows d_i in the same space with <d_i, b_j> = [i = j].

        ValueError for dependent rows.

        >>> LatticeBasis([[2, 0], [1, 1]]).dual().fractions()
        ((Fraction(1, 2), Fraction(-1, 2)), (Fraction(0, 1), Fraction(1, 1)))
        """
        inverse, determinant = _adjugate(self.gram())
        rows = self.rows
        top = [
            [
                sum(map(int.__mul__, line, column)) * self._denominator
                for column in zip(*rows, strict=True)
            ]
            for line in inverse
        ]
        common = determinant
        for row in top:  # one by one: Ctrl-C is heard in between
            for entry in row:
                common = math.gcd(common, entry)
        return LatticeBasis([[x // common for x in row] for row in top], determinant // common)

    def hnf(self) -> LatticeBasis:
        """Return the Hermite normal form: the one basis of the lattice in echelon form.

        Row style: pivots positive and in columns from left to right, entries above a pivot from 0
        to the pivot - 1, zero rows last.  Plain elimination: for dimensions up to about 100.

        >>> LatticeBasis([[4, 1], [2, 3]]).hnf().rows
        ((2, 3), (0, 5))
        """
        return LatticeBasis(_hermite([list(row) for row in self.rows]), self._denominator)

    def same_lattice(self, other: LatticeBasis) -> bool:
        """Return whether both bases span the same lattice.

        >>> LatticeBasis([[4, 1], [2, 3]]).same_lattice(LatticeBasis([[2, 3], [2, -2]]))
        True
        """
        scale = math.lcm(self._denominator, other._denominator)
        forms = []
        for basis in (self, other):
            factor = scale // basis._denominator
            rows = [[x * factor for x in row] for row in basis.rows]
            forms.append([row for row in _hermite(rows) if any(row)])
        return forms[0] == forms[1]

    def combine(self, coordinates: Sequence[int]) -> tuple[Fraction, ...]:
        """Return the lattice vector with these integer coordinates.

        >>> LatticeBasis([[4, 1], [2, 3]]).combine([1, -1])
        (Fraction(2, 1), Fraction(-2, 1))
        """
        if len(coordinates) != len(self):
            raise ValueError(f"{len(coordinates)} coordinates for {len(self)} rows")
        factors = [operator.index(x) for x in coordinates]
        return tuple(
            Fraction(sum(map(int.__mul__, factors, column)), self._denominator)
            for column in zip(*self.rows, strict=True)
        )


def as_basis(basis: Any) -> LatticeBasis:
    """Return the argument, or the LatticeBasis that its rows make.

    >>> as_basis([[4, 1], [2, 3]]).shape
    (2, 2)
    """
    return basis if isinstance(basis, LatticeBasis) else LatticeBasis(basis)


def integer_determinant(rows: Sequence[Sequence[int]]) -> int:
    """Return the determinant of a square integer matrix, by Bareiss's elimination.

    >>> integer_determinant([[1, 2], [3, 4]])
    -2
    """
    a = [list(row) for row in rows]
    size, sign, previous = len(a), 1, 1
    for k in range(size):
        pivot = next((i for i in range(k, size) if a[i][k]), None)
        if pivot is None:
            return 0
        if pivot != k:
            a[k], a[pivot] = a[pivot], a[k]
            sign = -sign
        top = a[k]
        for i in range(k + 1, size):
            row, head = a[i], a[i][k]
            a[i] = [0] * (k + 1) + [
                (top[k] * row[j] - head * top[j]) // previous for j in range(k + 1, size)
            ]
        previous = top[k]
    return sign * previous


def _adjugate(gram: Sequence[Sequence[int]]) -> tuple[list[list[int]], int]:
    """Return (adjugate, determinant) of a positive definite matrix, by Bareiss-Jordan steps."""
    size = len(gram)
    a = [[*row, *(int(i == j) for j in range(size))] for i, row in enumerate(gram)]
    previous = 1
    for k in range(size):
        pivot = a[k][k]
        if pivot == 0:
            raise ValueError(f"row {k} of the basis depends on the rows before it")
        for i in range(size):
            if i != k:
                head = a[i][k]
                a[i] = [(pivot * x - head * y) // previous for x, y in zip(a[i], a[k], strict=True)]
        previous = pivot
    return [row[size:] for row in a], previous


def _hermite(a: list[list[int]]) -> list[list[int]]:
    """Bring rows into Hermite normal form, in place; zero rows last."""
    top = 0
    for column in range(len(a[0])):
        while True:
            below = [i for i in range(top, len(a)) if a[i][column]]
            if not below:
                break
            least = min(below, key=lambda i: abs(a[i][column]))
            a[top], a[least] = a[least], a[top]
            pivot = a[top]
            if len(below) == 1:
                if pivot[column] < 0:
                    a[top] = [-x for x in pivot]
                for i in range(top):
                    _subtract(a, i, a[i][column] // a[top][column], top)
                top += 1
                break
            for i in range(top + 1, len(a)):
                _subtract(a, i, a[i][column] // pivot[column], top)
        if top == len(a):
            break
    return a


def _subtract(a: list[list[int]], i: int, factor: int, k: int) -> None:
    if factor:
        a[i] = [x - factor * y for x, y in zip(a[i], a[k], strict=True)]


def _integers(row: Iterable[Any], i: int) -> list[int]:
    if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
        raise TypeError(f"row {i} of the basis is {row!r}, expected a sequence of integers")
    result = []
    for j, entry in enumerate(row):
        try:
            result.append(operator.index(entry))
        except TypeError:
            raise TypeError(
                f"entry [{i}][{j}] of the basis is {entry!r} ({type(entry).__name__}), "
                "expected an integer"
            ) from None
    return result


def rational_rows(rows: Iterable[Iterable[Any]], name: str) -> tuple[list[list[int]], int]:
    """Return rows of rationals as integers over their common denominator.

    An entry is whatever has an `as_integer_ratio` or is an integer; `name` is what a row is called
    in a TypeError.

    >>> rational_rows([[0.5, 2], [Fraction(1, 3), 0]], "row")
    ([[3, 12], [2, 0]], 6)
    """
    lists = []
    for i, row in enumerate(rows.tolist() if isinstance(rows, np.ndarray) else rows):
        if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
            raise TypeError(f"{name} {i} is {row!r}, expected a sequence of rationals")
        lists.append([_ratio(entry, name, i) for entry in row])
    denominator = 1
    for line in lists:
        for _, bottom in line:
            if denominator % bottom:
                denominator = math.lcm(denominator, bottom)
    return [[top * (denominator // bottom) for top, bottom in row] for row in lists], denominator


def _ratio(entry: Any, name: str, i: int) -> tuple[int, int]:
    if hasattr(entry, "__index__"):
        return operator.index(entry), 1
    try:
        top, bottom = entry.as_integer_ratio()
    except AttributeError:
        raise TypeError(
            f"an entry of {name} {i} is {entry!r} ({type(entry).__name__}), expected a rational"
        ) from None
    return int(top), int(bottom)
