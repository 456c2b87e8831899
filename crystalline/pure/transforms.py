"""Maps of space and changes of the basis: each takes embeddings and returns new ones.

Rotations, reflections and translations move the tokens; a rotation or a reflection moves the
lattice with them, so that lattice coordinates stay what they are.  A change of basis moves nothing
and keeps the lattice.  Reflections, translations, changes of basis and rotations by quarter turns
are exact; other rotations round each coordinate once, to within 0.51 units of 2^-192.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from crystalline.exact import golden_direction
from crystalline.exact.lattice.basis import integer_determinant
from crystalline.pure.coordinates import (
    FRAC_BITS,
    clock_direction,
    from_mantissas,
    rounded_quotient,
)
from crystalline.pure.embeddings import CrystallineEmbeddings
from crystalline.pure.nearest import as_point

# Bits of cosine and sine: a coordinate below 2^63 times their error is below 2^-16 units.
_DIRECTION_BITS = FRAC_BITS + 80
Plane = tuple[int, int]


def rotate_by_hours(
    embeddings: CrystallineEmbeddings, hours: SupportsIndex, plane: Plane = (0, 1)
) -> CrystallineEmbeddings:
    """Turn space by 2 pi hours / 12 in a plane, from its first axis towards its second.

    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("run", 5)  # at (-1, 1)
    >>> rotate_by_hours(tokens, 3).positions.to_strings()
    [['-1.0', '-1.0']]
    """
    return _rotated(embeddings, plane, clock_direction(operator.index(hours), _DIRECTION_BITS))


def rotate_by_golden_angle(
    embeddings: CrystallineEmbeddings, times: SupportsIndex = 1, plane: Plane = (0, 1)
) -> CrystallineEmbeddings:
    """Turn space by times 2 pi / phi^2 in a plane, from its first axis towards its second.

    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("a", 2)  # at (1, 0)
    >>> rotate_by_golden_angle(tokens).positions.to_strings(6)
    [['-0.737369', '0.675490']]
    """
    return _rotated(embeddings, plane, golden_direction(times, _DIRECTION_BITS))


def reflect(embeddings: CrystallineEmbeddings, axis: SupportsIndex) -> CrystallineEmbeddings:
    """Mirror space along an axis: that coordinate changes its sign.

    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("run", 5)  # at (-1, 1)
    >>> reflect(tokens, 0).positions.to_ints()
    [[1, 1]]
    """
    (at,) = _axes(embeddings, (axis,))

    def mirrored(rows: Iterable[Sequence[int]]) -> list[list[int]]:
        return [[-x if i == at else x for i, x in enumerate(row)] for row in rows]

    basis = from_mantissas(mirrored(embeddings.basis.mantissas()), embeddings.dimension)
    return embeddings.moved(mirrored(embeddings.mantissas()), basis)


def translate(embeddings: CrystallineEmbeddings, vector: Any) -> CrystallineEmbeddings:
    """Move all tokens by a vector [d], which is rounded to 2^-192 first; the lattice stays.

    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("run", 5)  # at (-1, 1)
    >>> translate(tokens, [0.5, 3]).positions.to_strings()
    [['-0.5', '4.0']]
    """
    (by,) = as_point(vector, embeddings.dimension).mantissas()
    rows = [[x + y for x, y in zip(row, by, strict=True)] for row in embeddings.mantissas()]
    return embeddings.moved(rows, embeddings.basis)


def change_basis(
    embeddings: CrystallineEmbeddings, transformation: Sequence[Sequence[SupportsIndex]]
) -> CrystallineEmbeddings:
    """Take the basis U B for a unimodular integer matrix U [d, d]: the same lattice and places.

    The lattice coordinates c become c U^-1.  ValueError for a U that is not unimodular.

    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("run", 5)  # at (-1, 1)
    >>> other = change_basis(tokens, [[1, 1], [0, 1]])
    >>> other.lattice_positions.to_ints(), other.lattice_basis.same_lattice(tokens.lattice_basis)
    ([[-1, 2]], True)
    """
    d = embeddings.dimension
    u = [[operator.index(x) for x in row] for row in transformation]
    if len(u) != d or any(len(row) != d for row in u):
        raise ValueError(f"the transformation is not of {d} x {d}")
    if abs(integer_determinant(u)) != 1:
        determinant = integer_determinant(u)
        raise ValueError(f"the transformation has the determinant {determinant}, expected 1 or -1")
    columns = list(zip(*embeddings.basis.mantissas(), strict=True))
    rows = [[sum(map(int.__mul__, line, column)) for column in columns] for line in u]
    return embeddings.moved(embeddings.mantissas(), from_mantissas(rows, d))


def _rotated(
    embeddings: CrystallineEmbeddings, plane: Plane, direction: Any
) -> CrystallineEmbeddings:
    i, j = _axes(embeddings, plane)
    if i == j:
        raise ValueError(f"the axes {i} and {j} span no plane")
    cosine, sine = (int(x.mantissa) for x in direction)
    unit = 1 << _DIRECTION_BITS

    def turned(rows: Iterable[Sequence[int]]) -> list[list[int]]:
        result = []
        for row in rows:
            new = list(row)
            new[i] = rounded_quotient(cosine * row[i] - sine * row[j], unit)
            new[j] = rounded_quotient(sine * row[i] + cosine * row[j], unit)
            result.append(new)
        return result

    basis = from_mantissas(turned(embeddings.basis.mantissas()), embeddings.dimension)
    return embeddings.moved(turned(embeddings.mantissas()), basis)


def _axes(embeddings: CrystallineEmbeddings, axes: Sequence[SupportsIndex]) -> list[int]:
    found = [operator.index(axis) for axis in axes]
    for axis in found:
        if not 0 <= axis < embeddings.dimension:
            raise ValueError(f"axis {axis} is not one of {embeddings.dimension}")
    return found
