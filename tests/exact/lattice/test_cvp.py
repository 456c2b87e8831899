"""Closest vectors against an exact rational enumeration."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from crystalline.exact.lattice.certificate import CertificateError
from crystalline.exact.lattice.cvp import ClosestVectorSearch, closest_vector
from tests.exact.lattice.search_bases import rows_of
from tests.oracles import enumeration as oracle


@pytest.mark.parametrize(
    ("n", "m", "bits"),
    [
        (1, 1, 3),
        (1, 3, 70),
        (2, 2, 200),
        (3, 7, 20),
        (6, 6, 64),
        (8, 8, 130),
        (10, 12, 9),
        (13, 13, 6),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_proved_is_the_oracles(n: int, m: int, bits: int, seed: int) -> None:
    search = ClosestVectorSearch(rows_of(n, m, bits, 1000 * n + seed))
    generator = random.Random(seed)
    for spread in (bits - 1, bits + 40):
        target = [generator.randint(-(2**spread), 2**spread) for _ in range(m)]
        found = search.closest(target)
        assert found.squared_distance == oracle.closest(search.reduced.rows, target)
        assert search.basis.same_lattice(
            type(search.basis)([*search.basis.rows, [int(x) for x in found.vector]])
        )


@pytest.mark.parametrize("seed", range(4))
def test_rational_targets(seed: int) -> None:
    generator = random.Random(seed)
    search = ClosestVectorSearch(rows_of(6, 7, 9, seed))
    target = [
        Fraction(generator.randint(-5000, 5000), generator.choice((1, 2, 3, 7))) for _ in range(7)
    ]
    found = search.closest(target)
    assert found.squared_distance == oracle.closest(search.reduced.rows, target)
    found.verify()


@pytest.mark.parametrize("n", [3, 8])
def test_many_targets_are_what_single_ones_are(n: int) -> None:
    search = ClosestVectorSearch(rows_of(n, n, 15, n))
    targets = np.random.default_rng(n).integers(-(2**18), 2**18, (40, n))
    vectors, squared = search.closest_to_all(targets)
    for target, vector, distance in zip(targets.tolist(), vectors.tolist(), squared, strict=True):
        assert sum((t - v) ** 2 for t, v in zip(target, vector, strict=True)) == distance
        assert distance == oracle.closest(search.reduced.rows, target)
        assert tuple(vector) == search.closest(target).vector


def test_no_targets() -> None:
    vectors, squared = ClosestVectorSearch([[2, 0], [0, 3]]).closest_to_all(np.zeros((0, 2), int))
    assert vectors.shape == (0, 2)
    assert squared == []


def test_fast_is_never_nearer_and_seldom_farther() -> None:
    search = ClosestVectorSearch(rows_of(16, 16, 12, 5))
    targets = np.random.default_rng(1).integers(-(2**12), 2**12, (60, 16))
    _, proved = search.closest_to_all(targets)
    vectors, fast = search.closest_to_all(targets, method="fast")
    assert all(a <= b for a, b in zip(proved, fast, strict=True))
    assert sum(a == b for a, b in zip(proved, fast, strict=True)) >= 45
    assert [int(x) for x in ((targets - vectors) ** 2).sum(1)] == fast


def test_verify_refuses_what_is_tampered_with() -> None:
    found = closest_vector(rows_of(5, 5, 8, 2), [100, -7, 3, 50, Fraction(1, 2)])
    found.verify()
    row = [Fraction(x) for x in found.reduced.rows[0]]
    farther = tuple(a + b for a, b in zip(found.vector, row, strict=True))
    if replace(found, vector=farther).squared_distance == found.squared_distance:
        pytest.fail("the test needs a vector that is farther")
    with pytest.raises(CertificateError, match="nearer"):
        replace(found, vector=farther).verify()
    with pytest.raises(CertificateError, match="not in the lattice"):
        replace(found, vector=(found.vector[0] + Fraction(1, 3), *found.vector[1:])).verify()


def test_bad_input() -> None:
    search = ClosestVectorSearch([[2, 0], [0, 3]])
    with pytest.raises(TypeError, match=r"entry 1 of the target is 0\.5"):
        search.closest([1, 0.5])
    with pytest.raises(ValueError, match="3 entries"):
        search.closest([1, 2, 3])
    with pytest.raises(TypeError, match="float64"):
        search.closest_to_all(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        search.closest_to_all(np.zeros(2, int))
    with pytest.raises(OverflowError, match=r"\[0\]\[1\]"):
        search.closest_to_all(np.array([[0, 2**55]]))
    with pytest.raises(OverflowError, match="use closest"):
        ClosestVectorSearch([[2**70, 1], [3, 2**80]]).closest_to_all(np.zeros((1, 2), int))
    with pytest.raises(ValueError, match="'exact'"):
        search.closest([0, 0], method="exact")
