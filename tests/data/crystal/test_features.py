"""The fixed features of crystalline attention against their formulas, and the code of the roots."""

from __future__ import annotations

import hashlib
import itertools
import math

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import sympy

from crystalline.data.crystal.affixes import Affix, Derivations
from crystalline.data.crystal.features import (
    FEATURES,
    _root_codes,
    _shell_lines,
    clock_part,
    place_part,
    root_part,
    token_features,
)
from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import prime_array


def vocabulary(size: int) -> Crystal:
    """Roots, and every third token a derivation of an earlier one, by one of nine affixes."""
    parent = np.arange(size, dtype=np.int32)
    affix = np.full(size, -1, np.int32)
    for token in range(7, size, 3):
        parent[token] = (token * 2654435761 >> 9) % (token - 3)
        affix[token] = token % 9
    affixes = tuple(Affix("x" * (i + 1), "suffix") for i in range(9))
    counts = (np.arange(size, dtype=np.int64) * 7919) % 1000 + 1
    texts = [f"token{i}" for i in range(size)]
    return Crystal.of(texts, counts, Derivations(parent, affix, affixes))


def place(n: int) -> tuple[int, int]:
    """The place of n on Ulam's spiral, by walking there."""
    x = y = 0
    dx, dy, left, length, turns = 1, 0, 1, 1, 0
    for _ in range(n - 1):
        x, y, left = x + dx, y + dy, left - 1
        if left == 0:
            dx, dy, turns = -dy, dx, turns + 1
            length += turns % 2 == 0
            left = length
    return x, y


def drawn_together(n: int) -> tuple[float, float]:
    """The place at the distance log2(1 + r), with lines between powers of two."""
    x, y = place(n)
    r = math.hypot(x, y)
    below = math.floor(math.log2(1 + r))
    distance = below + (1 + r) / 2**below - 1
    assert 0 <= math.log2(1 + r) - distance <= 0.0861
    return (x * distance / r, y * distance / r) if r else (0.0, 0.0)


def similarity(numbers: list[int], i: int, j: int) -> float:
    """The place's and the clock's shares of K for two tokens, from the formulas."""
    a, b = drawn_together(numbers[i]), drawn_together(numbers[j])
    golden = 2 * math.pi / ((1 + math.sqrt(5)) / 2) ** 2
    total = 0.0
    for direction in (0, 2):
        along = (a[0] - b[0]) * math.cos(direction * golden)
        along += (a[1] - b[1]) * math.sin(direction * golden)
        total += math.cos(along * math.sqrt(2) / 2) / 8
    with mpmath.workdps(60):
        step = 2 * mpmath.pi / mpmath.phi**2
        total += float(mpmath.cos((numbers[i] - numbers[j]) * step)) / 8
    return total + math.cos(2 * math.pi * (numbers[i] - numbers[j]) / 12) / 8


def test_similarities_are_those_of_the_formulas() -> None:
    crystal = vocabulary(120)
    phi = token_features(crystal)
    assert (phi.shape, phi.dtype) == ((120, FEATURES), np.float32)
    wide = phi.astype(np.float64)
    rest = wide[:, 8:] @ wide[:, 8:].T
    root = wide[:, :8] @ wide[:, :8].T
    numbers, roots = crystal.numbers.tolist(), crystal.root.tolist()
    chosen = [t for t in range(120) if numbers[t] < 30_000]
    assert len({roots[t] for t in chosen}) < len(chosen) - 10
    for i, j in itertools.product(chosen, chosen[::7]):
        assert rest[i, j] == pytest.approx(similarity(numbers, i, j), abs=3e-7)
        if roots[i] == roots[j]:
            assert root[i, j] == pytest.approx(0.5, abs=1e-7)
        else:
            assert abs(root[i, j]) <= 0.25 + 1e-7


def test_every_token_is_like_itself() -> None:
    crystal = vocabulary(3000)
    phi = token_features(crystal).astype(np.float64)
    np.testing.assert_allclose((phi**2).sum(axis=1), 1.0, atol=2e-7)
    numbers = np.append(crystal.numbers, np.array([2**61 - 1, 2**62 - 57], np.uint64))
    for part, size in ((root_part, 8), (place_part, 4), (clock_part, 4)):
        units = part(numbers)
        assert units.shape == (3002, size)
        np.testing.assert_allclose((units**2).sum(axis=1), 1.0, atol=1e-12)


def test_the_largest_numbers_keep_their_direction() -> None:
    """In float64 a number near 2^62 times the golden angle would have lost its turns."""
    numbers = [2**61 - 1, 2**62 - 57, 2**62 - 1]
    got = clock_part(np.array(numbers, np.uint64))[:, 2:] * math.sqrt(2)
    with mpmath.workdps(60):
        angles = [n * 2 * mpmath.pi / mpmath.phi**2 for n in numbers]
        want = [[float(mpmath.cos(a)), float(mpmath.sin(a))] for a in angles]
    np.testing.assert_allclose(got, want, atol=1e-15)


def test_unrelated_tokens_are_a_quarter_apart() -> None:
    crystal = vocabulary(3000)
    phi = token_features(crystal).astype(np.float64)
    like = (phi @ phi.T)[crystal.root[:, None] != crystal.root]
    assert math.sqrt((like**2).mean()) == pytest.approx(0.25, abs=0.01)
    assert abs(like.mean()) < 0.06  # most roots lie at similar distances from the center
    of_one_root = (phi @ phi.T)[(crystal.root[:, None] == crystal.root) & ~np.eye(3000, dtype=bool)]
    assert of_one_root.size > 1000
    assert of_one_root.mean() == pytest.approx(0.5, abs=0.1)


def test_features_belong_to_numbers_not_to_ids() -> None:
    numbers = vocabulary(50).numbers
    order = np.random.default_rng(1).permutation(50)
    for part in (root_part, place_part, clock_part):
        assert np.array_equal(part(numbers[order]), part(numbers)[order])


def test_the_bits_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(token_features(vocabulary(500)).tobytes()).hexdigest()
    assert digest == "43188edeafabaea5dd533ad49c78eb348cdb247ae02d991b1599a051934cec48"


# --- the code of the roots -------------------------------------------------------------------


def test_the_first_shell_by_brute_force() -> None:
    """The 240 roots of E8: ±e_i ± e_j, and halves with an even number of minus signs."""
    whole = [v for v in itertools.product((-1, 0, 1), repeat=8) if sum(x * x for x in v) == 2]
    halves = [v for v in itertools.product((-0.5, 0.5), repeat=8) if sum(v) % 2 == 0]
    expected = {tuple(2 * x for x in v) for v in [*whole, *halves]}
    assert len(expected) == 240
    lines = {tuple(line) for line in _shell_lines(1).tolist()}
    assert lines | {tuple(-x for x in line) for line in lines} == expected
    assert len(lines) == 120


@pytest.mark.parametrize("shell", [1, 2, 3, 4, 5, 8, 9])
def test_shells_have_as_many_vectors_as_the_theta_series_says(shell: int) -> None:
    """E8 has 240 σ₃(n) vectors of square 2n; those that are no multiples remain."""

    def vectors(n: int) -> int:
        return 240 * int(sympy.divisor_sigma(n, 3))

    primitive = {n: vectors(n) for n in range(1, shell + 1)}
    for n in primitive:
        for factor in range(2, math.isqrt(n) + 1):
            if n % factor**2 == 0:
                primitive[n] -= primitive[n // factor**2]
    lines = _shell_lines(shell)
    assert len(lines) == primitive[shell] // 2
    assert len(np.unique(lines, axis=0)) == len(lines)
    assert np.all((lines**2).sum(axis=1) == 8 * shell)


def _cosines(count: int) -> npt.NDArray[np.float64]:
    codes = _root_codes(count)
    return (codes @ codes.T)[~np.eye(count, dtype=bool)]


@pytest.mark.parametrize(("count", "largest"), [(2, 0.5), (65, 0.5), (120, 0.5), (1200, 0.75)])
def test_codes_of_frequent_roots_keep_apart(count: int, largest: float) -> None:
    cosines = _cosines(count)
    assert np.abs(cosines).max() <= largest + 1e-12
    if count >= 65:
        welch = math.sqrt((count / 8 - 1) / (count - 1))
        assert math.sqrt((cosines**2).mean()) <= 1.04 * welch
        assert abs(cosines.mean()) < 0.03


def test_the_first_shell_lies_on_the_welch_bound() -> None:
    assert (_cosines(120) ** 2).mean() == pytest.approx((120 / 8 - 1) / 119, rel=1e-12)


def test_all_codes_are_different() -> None:
    codes = _root_codes(6000)
    lines = codes * np.sign(codes[np.arange(6000), (codes != 0).argmax(axis=1)])[:, None]
    assert len(np.unique(lines.round(12), axis=0)) == 6000
    primes = prime_array(100_000)[:6000]
    shuffled = np.random.default_rng(2).permutation(primes)
    assert np.array_equal(root_part(shuffled)[np.argsort(shuffled)], codes)
