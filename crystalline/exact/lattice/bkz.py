"""Block Korkine-Zolotarev reduction: enumeration in projected blocks, LLL in between.

The whole enumeration of a lattice is left to `svp` and `cvp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.lattice.basis import IntMatrix
from crystalline._kernels.lattice.enumerate import shortest_rounded
from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.gso import float_gram_schmidt
from crystalline.exact.lattice.lll import DELTA, ETA, Reduction, lll

UNPRUNED = 24  # blocks up to here are searched whole: that takes less than reducing once more


def bkz(
    basis: Any,
    block_size: int = 20,
    delta: float | Fraction = DELTA,
    eta: float | Fraction = ETA,
    *,
    max_tours: int | None = None,
) -> Reduction:
    """Return a block-reduced basis of the same lattice; the argument is left as it is.

    basis: a LatticeBasis or what makes one; dependent rows are removed.  For every k the row k of
    the result, orthogonalized, is at most 1/sqrt(delta) times as long as the shortest vector
    found in the projected block of rows k .. k + block_size - 1; blocks of more than 24 rows are
    searched with linear pruning, so that a shorter one may be missed there.  Tours over the
    blocks end when one changes nothing, or after `max_tours`.  What is proved of the result is
    what `lll` proves: its LLL-reducedness at (delta, eta), with a certificate.  Ctrl-C ends a
    long call.  ValueError for a block size below 2 or fewer than one tour.

    Source: C. P. Schnorr, M. Euchner, Mathematical Programming 66 (1994).

    >>> bkz([[1, 0, 331], [0, 1, 303], [0, 0, 1000]], 3).basis.rows[0]
    (-3, 0, 7)
    """
    if block_size < 2:
        raise ValueError(f"the block size must be at least 2, not {block_size}")
    if max_tours is not None and max_tours < 1:
        raise ValueError(f"max_tours must be at least 1, not {max_tours}")
    reduction = lll(basis, delta, eta)
    if reduction.reduced is None:
        return reduction
    basis = improve(reduction.reduced, block_size, delta, eta, max_tours)
    return replace(reduction, reduced=basis, transformation=None)


def insert(rows: list[list[int]], first: int, x: Sequence[int]) -> None:
    """Make the primitive combination sum x[i] rows[first + i] the row at `first`, in place.

    Rows change by whole multiples of each other only, so that they span the same lattice.

    >>> rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    >>> insert(rows, 1, [2, 3])
    >>> rows[1]
    [0, 2, 3]
    """
    left = list(x)
    while True:
        used = [i for i, factor in enumerate(left) if factor]
        pivot = min(used, key=lambda i: abs(left[i]))
        if len(used) == 1:
            break
        for i in used:
            # x_p b_p + x_i b_i = x_p (b_p + q b_i) + (x_i - q x_p) b_i
            if i != pivot and (q := left[i] // left[pivot]):
                rows[first + pivot] = [
                    a + q * b for a, b in zip(rows[first + pivot], rows[first + i], strict=True)
                ]
                left[i] -= q * left[pivot]
    if abs(left[pivot]) != 1:
        raise ValueError(f"{list(x)} is not primitive: its entries share the factor {left[pivot]}")
    row = rows.pop(first + pivot)
    rows.insert(first, [left[pivot] * entry for entry in row])


def linear_pruning(n: int, above: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the shares of the bound that levels k.. of n may use, growing with their number.

    `above` is added to each share, up to the whole.

    Linear pruning (Gama, Nguyen, Regev 2010, section 4.1) finds a shortest vector with a
    probability of at least 1/n for random lattices, usually far more, and visits a small share
    of the nodes.

    >>> linear_pruning(4).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    return np.minimum(1.0, np.arange(n, 0, -1) / n + above)


def improve(
    basis: LatticeBasis,
    block_size: int,
    delta: float | Fraction = DELTA,
    eta: float | Fraction = ETA,
    max_tours: int | None = None,
) -> LatticeBasis:
    """Return a block-reduced basis of the lattice of an LLL-reduced one: `bkz` without checks."""
    n = len(basis)
    clean, tours, k = 0, 0, 0  # blocks in a row that had no shorter vector; tours begun; block
    floats = float_gram_schmidt(basis)
    while clean < n - 1 and (max_tours is None or tours < max_tours):
        end = min(k + block_size, n)
        r = np.ascontiguousarray(floats.r[k:end])
        mu = np.ascontiguousarray(floats.mu[k:end, k:end].T)
        pruning = linear_pruning(end - k) if end - k > UNPRUNED else None
        found = shortest_rounded(mu, r, float(delta) * r[0], pruning)
        if found is None:
            clean += 1
        else:
            rows = [list(row) for row in basis.rows]
            insert(rows, k, found[0])
            changed = LatticeBasis.from_matrix(IntMatrix(rows), basis.denominator)
            basis = lll(changed, delta, eta).basis
            floats = float_gram_schmidt(basis)
            clean = 0
        k += 1
        if k == n - 1:
            k, tours = 0, tours + 1
    return basis
