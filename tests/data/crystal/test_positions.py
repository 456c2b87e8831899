"""Lattice positions against mpmath, rationals and the definition; sums, balance, reduction."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy

from crystalline._kernels import isa
from crystalline.data.crystal import positions
from crystalline.data.crystal.positions import lattice_positions, positions_of_numbers
from crystalline.data.crystal.tokens import Crystal, build_crystal
from crystalline.data.tokenizer import Tokenizer
from crystalline.exact import lll, spiral_place

UNIT = 2**32


def vocabulary(size: int, affixes: int = 7, seed: int = 0) -> np.ndarray:
    """Numbers of a made-up vocabulary in a random order, about a third of them derived."""
    rng = np.random.default_rng(seed)
    primes = [sympy.prime(k) for k in range(1, affixes + size + 1)]
    roots = max(1, 2 * size // 3)
    numbers = dict.fromkeys(primes[affixes : affixes + roots])
    while len(numbers) < size:
        known = list(numbers)
        numbers[known[rng.integers(len(known))] * primes[rng.integers(affixes)]] = None
    return rng.permutation(np.array(list(numbers), np.uint64))


def direction(i: int, pairs: range) -> list[mpmath.mpf]:
    """The channels of the i-th prime (from 1), from the definition, in high precision."""
    distance = mpmath.sqrt(sum(z * z for z in spiral_place(sympy.prime(i))))
    radius = mpmath.sqrt(distance / (1 + distance))
    angles = [2 * mpmath.pi / mpmath.phi**2 * i * 3**m for m in pairs]
    return [radius * f(a) for a in angles for f in (mpmath.cos, mpmath.sin)]


@pytest.fixture(scope="module")
def words() -> Crystal:
    """A word vocabulary of the standard library's source."""
    folder = Path(os.__file__).parent
    names = ["argparse.py", "typing.py", "inspect.py", "doctest.py", "pydoc.py", "subprocess.py"]
    names += ["tarfile.py", "threading.py", "datetime.py", "enum.py", "socket.py", "ssl.py"]
    texts = [(folder / name).read_text("utf-8") for name in names if (folder / name).exists()]
    tokenizer = Tokenizer.train("word", texts, 3000)
    ids = np.concatenate([tokenizer.encode(text) for text in texts])
    return build_crystal(tokenizer, np.bincount(ids, minlength=tokenizer.vocab_size))


# --- the mathematics --------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (12, 17), (300, 306)])
def test_directions_are_those_of_the_definition(start: int, stop: int) -> None:
    got = positions._directions(positions._ulam_radii(3000), start, stop)
    assert got.shape == (3000, stop - start)
    with mpmath.workprec(1000):
        for i in (1, 2, 7, 64, 65, 1000, 3000):
            want = direction(i, range(start // 2, (stop + 1) // 2))[: stop - start]
            for have, exact in zip(got[i - 1].tolist(), want, strict=True):
                assert abs(have - exact * UNIT) < 0.51


def test_the_whole_table_is_that_of_the_definition() -> None:
    """Directions from mpmath, coordinates by rationals, sums by sympy, statistics by NumPy."""
    numbers, dim = vocabulary(40, seed=3), 17
    factors = [sympy.factorint(n) for n in numbers.tolist()]
    primes = sorted({p for found in factors for p in found})
    roots = sorted(n for n in numbers.tolist() if sympy.isprime(n))
    want = np.empty((len(numbers), dim))
    for start, stop in ((0, 12), (12, 17)):
        pairs = range(start // 2, (stop + 1) // 2)
        with mpmath.workprec(400):
            points = {
                p: [int(mpmath.nint(x * UNIT)) for x in direction(int(sympy.primepi(p)), pairs)]
                for p in primes
            }
        points = {p: point[: stop - start] for p, point in points.items()}
        done = lll([points[p] for p in roots[: stop - start]])
        done.certificate().verify()
        inverse = np.linalg.inv(np.array(done.basis.rows, np.float64))
        sums = np.array(
            [sum(k * np.array(points[p]) for p, k in found.items()) for found in factors]
        )
        coordinates = sums @ inverse
        want[:, start:stop] = (coordinates - coordinates.mean(axis=0)) / coordinates.std(axis=0)
    assert np.abs(positions_of_numbers(numbers, dim) - want).max() < 1e-5


def test_primes_are_spread_evenly_in_every_pair() -> None:
    """The largest gap between n angles: log n / n where they are random, a few / n here."""
    n = 2000
    got = positions._directions(np.ones(n), 0, 128).reshape(n, 64, 2)
    angles = np.sort(np.arctan2(got[..., 1], got[..., 0]), axis=0) / (2 * np.pi)
    gaps = np.diff(angles, axis=0, append=angles[:1] + 1).max(axis=0) * n
    random = np.sort(np.random.default_rng(0).random((n, 64)), axis=0)
    by_chance = np.diff(random, axis=0, append=random[:1] + 1).max(axis=0) * n
    assert gaps[0] < 2.7  # three distances, the golden angle's of the ratio phi
    assert np.median(gaps) < 0.75 * np.median(by_chance)


def test_directions_of_different_primes_are_nearly_orthogonal() -> None:
    got = positions._directions(np.ones(700), 0, 384) / UNIT
    cosines = got @ got.T / 192 - np.eye(700)
    assert np.abs(cosines).max() < 0.4
    assert np.sqrt((cosines**2).mean()) < 1.1 / np.sqrt(384)


def test_bases_are_proved_reduced_and_of_the_same_lattice() -> None:
    directions = positions._directions(positions._ulam_radii(60), 24, 36)
    basis = positions.initial_basis(directions, range(4, 60))
    assert basis.fractions() == tuple(
        tuple(Fraction(x, UNIT) for x in row) for row in directions[4:16].tolist()
    )
    reduced = positions.reduced_basis(directions, range(4, 60))
    assert reduced.same_lattice(basis)
    assert reduced.orthogonality_defect() < basis.orthogonality_defect()
    again = lll(reduced, transformation=True)
    assert again.basis == reduced  # nothing is left to reduce


def test_roots_of_the_basis_have_integer_coordinates() -> None:
    directions = positions._directions(positions._ulam_radii(400), 0, 12)
    got = positions._coordinates(directions, positions.reduced_basis(directions, range(3, 400)))
    corner = got[3:15] / UNIT
    assert (corner == np.rint(corner)).all()
    assert abs(round(np.linalg.det(corner))) == 1
    assert np.mean(got[20:] % UNIT == 0) < 0.01


def test_dependent_rows_are_passed_over() -> None:
    rows = np.array([[0, 0, 0], [2, 4, 6], [1, 2, 3], [0, 1, 0], [1, 3, 3], [0, 0, 5]])
    assert positions.initial_basis(rows, range(6)).rows == ((2, 4, 6), (0, 1, 0), (0, 0, 5))
    with pytest.raises(ValueError, match="2 independent directions are no basis of 3 dim"):
        positions.initial_basis(rows, range(5))


def test_reduction_decorrelates_the_channels(words: Crystal) -> None:
    """Against coordinates to the basis as it was, the blocks' covariances are better conditioned.

    And the tokens of the basis, unit vectors there, come near to the length of the others.
    """
    primes, exponents, starts = positions.factor_arrays(words.numbers)
    factors = (positions._prime_indices(primes), exponents.astype(np.int64), starts)
    roots = np.unique(factors[0][starts[:-1][np.diff(starts) == 1]])
    radii = positions._ulam_radii(int(factors[0].max()) + 1)
    frequent = np.isin(words.numbers, [sympy.prime(int(i) + 1) for i in roots[:12]])
    improvements, lengths_of_frequent = [], []
    for start in range(0, 96, 12):
        directions = positions._directions(radii, start, start + 12)
        conditions, lengths = [], []
        for basis in (
            positions.initial_basis(directions, roots),
            positions.reduced_basis(directions, roots),
        ):
            points = positions._sums(positions._coordinates(directions, basis), *factors) / UNIT
            points -= points.mean(axis=0)
            conditions.append(np.linalg.cond(np.cov(points.T)))
            norms = np.linalg.norm(points / points.std(axis=0), axis=1)
            lengths.append(norms[frequent].mean() / norms.mean())
        improvements.append(conditions[0] / conditions[1])
        lengths_of_frequent.append(lengths)
    assert min(improvements) > 0.5  # where the basis was nearly reduced, it may go either way
    assert np.median(improvements) > 5
    before, after = np.median(lengths_of_frequent, axis=0)
    assert before < 0.5 < 0.75 < after


# --- what it promises -------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 12, 13, 50])
@pytest.mark.parametrize("size", [2, 3, 12, 65, 500])
def test_mean_zero_and_variance_one(size: int, dim: int) -> None:
    table = positions_of_numbers(vocabulary(size), dim)
    assert (table.shape, table.dtype) == ((size, dim), np.float32)
    wide = table.astype(np.float64)
    assert np.abs(wide.mean(axis=0)).max() < 1e-6
    assert (wide**2).mean() == pytest.approx(1, abs=1e-6)
    varied = table.any(axis=0)
    assert np.ptp((wide**2).mean(axis=0)[varied]) < 1e-5
    if size > 12:
        assert varied.all()
    if dim > 2 or size < 12:
        assert len(np.unique(table, axis=0)) == size


def test_a_derived_token_is_its_root_and_its_affixes() -> None:
    """-ing 2, -s 3, un- 5: exact before the balance, the same difference for all roots after it."""
    roots = np.array([7, 11, 13, 6857, 104729], np.uint64)
    numbers = np.concatenate([roots, 2 * roots, 30 * roots, 4 * roots])
    table = positions_of_numbers(numbers, 40).astype(np.float64).reshape(4, 5, 40)
    for k in (1, 2, 3):
        steps = table[k] - table[0]
        assert np.abs(steps - steps[0]).max() < 2e-6
        assert np.abs(steps[0]).max() > 0.1
    assert np.abs((table[3] - table[0]) - 2 * (table[1] - table[0])).max() < 2e-6
    points = np.arange(40).reshape(20, 2) ** 2  # of the first primes, any integers
    primes, exponents, starts = positions.factor_arrays([7, 14, 28, 42, 2, 3])
    sums = positions._sums(
        points, positions._prime_indices(primes), exponents.astype(np.int64), starts
    )
    assert (sums[1] == sums[0] + sums[4]).all()
    assert (sums[2] == sums[0] + 2 * sums[4]).all()
    assert (sums[3] == sums[0] + sums[4] + sums[5]).all()


def test_tokens_of_one_root_lie_close(words: Crystal) -> None:
    table = lattice_positions(words, 96).astype(np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    derived = np.flatnonzero(words.root != np.arange(words.vocab_size))
    assert len(derived) > 200
    same = (table[derived] * table[words.root[derived]]).sum(axis=1)
    # Derived tokens have affixes in common, which roots have not: strangers are compared without
    # what either side shares.
    others = np.random.default_rng(1).permutation(words.root[derived])
    sides = [table[tokens] - table[tokens].mean(axis=0) for tokens in (derived, others)]
    chance = (sides[0] * sides[1]).sum(axis=1)[others != words.root[derived]]
    assert same.mean() > 0.6
    assert abs(chance.mean()) < 0.02
    assert (same > 0.4).mean() > 0.95


def test_a_table_of_the_crystal_is_that_of_its_numbers(words: Crystal) -> None:
    assert (lattice_positions(words, 30) == positions_of_numbers(words.numbers, 30)).all()


def test_two_roots_may_agree_in_channels_without_losing_variance() -> None:
    table = positions_of_numbers(np.array([3, 2], np.uint64), 96)
    assert not table.any(axis=0).all()
    assert (table[0] == -table[1]).all()
    assert (table.astype(np.float64) ** 2).mean() == pytest.approx(1, abs=1e-6)


def test_one_token_is_all_zeros() -> None:
    assert not positions_of_numbers(np.array([2], np.uint64), 5).any()


def test_empty_tables_are_refused() -> None:
    for numbers, dim in (([], 3), ([2, 3], 0)):
        with pytest.raises(ValueError, match="is empty"):
            positions_of_numbers(np.array(numbers, np.uint64), dim)


# --- the same bits everywhere -----------------------------------------------------------------

HASH = "5c1c867a76b484a0737cbd4dd62bccd532445617136e3c4ef1c3a8146da4c085"
PROGRAM = """
import hashlib
import numpy as np
from crystalline.data.crystal.positions import positions_of_numbers
from crystalline.model.twelvefold import twelvefold_positions
primes = [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83]
numbers = np.array([p * a for p in primes for a in (1, 2, 15, 9)], np.uint64)
table = positions_of_numbers(numbers, 77)
print(hashlib.sha256(table.tobytes() + twelvefold_positions(99, 77).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("level", isa.available_levels())
def test_bits_at_every_level(level: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"CRYSTALLINE_ISA": level},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == HASH, done.stderr


def test_statistics_are_those_of_exact_sums() -> None:
    points = np.random.default_rng(2).integers(-(2**36), 2**36, (50, 3))
    points[:, 2] = 12345678901
    got = positions._standardized(points)
    assert not got[:, 2].any()
    for have, column in zip(got.T[:2].tolist(), points.T[:2].tolist(), strict=True):
        mean = Fraction(sum(column), 50)
        variance = sum((x - mean) ** 2 for x in column) / 50
        with mpmath.workprec(200):
            for x, y in zip(have, column, strict=True):
                centered = y - mean
                want = mpmath.mpf(centered.numerator) / centered.denominator
                want /= mpmath.sqrt(mpmath.mpf(variance.numerator) / variance.denominator)
                assert abs(x - want) <= 6e-8 * max(1, abs(want))
    with pytest.raises(OverflowError, match="are too large"):
        positions._standardized(points << 18)
