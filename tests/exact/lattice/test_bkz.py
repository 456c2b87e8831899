"""Block reduction: the same lattice, reduced, and blocks that hold nothing shorter."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.bkz import bkz, insert, linear_pruning
from crystalline.exact.lattice.lll import lll
from tests.exact.lattice.search_bases import qary
from tests.oracles import enumeration as oracle


@pytest.mark.parametrize("seed", range(3))
def test_every_block_is_reduced(seed: int) -> None:
    n, size = 14, 5
    basis = LatticeBasis(qary(n, 7, 2053, seed))
    reduction = bkz(basis, size)
    assert reduction.basis.same_lattice(basis)
    certificate = reduction.certificate()
    assert certificate.reduced == reduction.basis
    certificate.verify()
    rows = reduction.basis.rows
    mu, norms, stars = oracle.orthogonalize(rows)
    for k in range(n - 1):
        # The projected block as a lattice of its own: rows k.. without their parts along b*_(<k).
        block = [
            [sum((mu[i][j] * stars[j][c] for j in range(k, i)), stars[i][c]) for c in range(n)]
            for i in range(k, min(k + size, n))
        ]
        common = math.lcm(*(entry.denominator for row in block for entry in row))
        whole = [[int(entry * common) for entry in row] for row in block]
        shortest = oracle.closest(whole, [0] * n, nonzero=True) / common**2
        assert norms[k] * reduction.delta <= shortest * (1 + 1e-8)


def test_larger_blocks_shorten_the_first_vector_and_are_certified() -> None:
    basis = LatticeBasis(qary(40, 20, 1048583, 1))
    plain, blocks = lll(basis), bkz(basis, 24, max_tours=4)
    first = [sum(x * x for x in reduction.basis.rows[0]) for reduction in (plain, blocks)]
    assert first[1] < first[0]
    certificate = blocks.certificate()
    assert certificate.reduced == blocks.basis
    certificate.verify()


def test_insert_keeps_the_lattice() -> None:
    generator = random.Random(5)
    rows = [[generator.randint(-9, 9) for _ in range(5)] for _ in range(5)]
    x = [6, -10, 15, 0]
    combination = [sum(c * rows[1 + i][j] for i, c in enumerate(x)) for j in range(5)]
    changed = [list(row) for row in rows]
    insert(changed, 1, x)
    assert changed[1] in (combination, [-a for a in combination])
    assert changed[1] == combination
    assert changed[0] == rows[0]
    assert LatticeBasis(changed).same_lattice(LatticeBasis(rows))


def test_insert_refuses_what_is_not_primitive() -> None:
    with pytest.raises(ValueError, match="factor 2"):
        insert([[1, 0], [0, 1]], 0, [4, 2])


def test_linear_pruning_never_cuts_the_whole() -> None:
    shares = linear_pruning(30)
    assert shares[0] == 1.0
    assert all(a > b for a, b in itertools.pairwise(shares))


def test_dependent_rows_are_removed() -> None:
    reduction = bkz([[6, 0], [10, 0], [0, 9]], 2)
    assert [[abs(x) for x in row] for row in reduction.basis.rows] == [[2, 0], [0, 9]]
    assert reduction.dependencies == 1
    reduction.certificate().verify()
    assert bkz([[0, 0]], 2).reduced is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="not 1"):
        bkz([[1]], 1)
    with pytest.raises(ValueError, match="not 0"):
        bkz([[1]], max_tours=0)
