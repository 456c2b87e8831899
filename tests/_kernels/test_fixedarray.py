"""Kernels of fixed-width arrays against Python's integers and fractions, at every level."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from crystalline._kernels.fixedarray import arithmetic, convert, division
from tests.oracles.fixedarrays import expected, fits, limbs_of, mantissas_of, operands

# limbs, frac_bits: every unrolled width, and a wide one; where digits and limbs end, and odd ones
FORMATS = [
    *((1, f) for f in (0, 1, 31, 63)),
    *((2, f) for f in (0, 1, 52, 64, 104, 127)),
    *((3, f) for f in (0, 53, 128, 191)),
    *((4, f) for f in (0, 1, 51, 52, 64, 156, 191, 192, 208, 255)),
    *((5, f) for f in (0, 161, 256, 319)),
    *((6, f) for f in (0, 7, 312, 383)),
    *((7, f) for f in (0, 260, 447)),
    *((8, f) for f in (0, 63, 364, 448, 511)),
    *((10, f) for f in (0, 333, 639)),
    *((16, f) for f in (0, 1000, 1023)),
]
N = 83  # ten vectors and a tail


def fitting(seed: int, L: int, F: int) -> tuple[list[int], list[int]]:
    """Pairs whose products mostly fit, many of them just so."""
    W = 64 * L
    rng = random.Random(seed)
    a, b = [], []
    for _ in range(N):
        bits = rng.randrange(W)
        a += operands(rng.randrange(1 << 30), 1, W, lambda _, bits=bits: bits)
        rest = max(0, min(W - 1, W - 1 + F - bits - rng.randrange(3)))
        b += operands(rng.randrange(1 << 30), 1, W, lambda _, rest=rest: rest)
    return a, b


def check(
    kernel: Callable[[np.ndarray], int], exact: list[Fraction | int], L: int, n: int = N
) -> None:
    out = np.full((n, L), 0xDEADBEEF, np.uint64)
    first, values = expected(exact, 64 * L)
    assert kernel(out) == first
    assert mantissas_of(out)[:first] == values


@pytest.mark.parametrize("L", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16])
def test_add_and_subtract(L: int) -> None:
    W = 64 * L
    a = [x // 2 for x in operands(L, N, W)]
    b = [x // 2 for x in operands(L + 50, N, W)]
    al, bl = limbs_of(a, L), limbs_of(b, L)
    check(lambda out: arithmetic.add(out, al, bl), [x + y for x, y in zip(a, b, strict=True)], L)
    check(
        lambda out: arithmetic.subtract(out, al, bl), [x - y for x, y in zip(a, b, strict=True)], L
    )
    check(lambda out: arithmetic.subtract(out, al[3:4], bl), [a[3] - y for y in b], L)
    check(lambda out: arithmetic.add(out, al, bl[9:10]), [x + b[9] for x in a], L)


@pytest.mark.parametrize("L", [2, 3, 4, 8, 11])
def test_the_first_sum_that_does_not_fit_is_named(L: int) -> None:
    largest, least = (1 << (64 * L - 1)) - 1, -(1 << (64 * L - 1))
    for at in (0, 3, 8, 17, N - 1):
        a = [largest] * N
        b = [0 if i < at else 1 for i in range(N)]
        out = np.empty((N, L), np.uint64)
        assert arithmetic.add(out, limbs_of(a, L), limbs_of(b, L)) == at
        a = [least] * N
        assert arithmetic.subtract(out, limbs_of(a, L), limbs_of(b, L)) == at
        a = [-1] * at + [least] * (N - at)
        assert arithmetic.absolute(out, limbs_of(a, L)) == at


@pytest.mark.parametrize(("L", "F"), FORMATS)
def test_products(L: int, F: int) -> None:
    a, b = fitting(3 * L + F, L, F)
    al, bl = limbs_of(a, L), limbs_of(b, L)
    exact: list[Fraction | int] = [Fraction(x * y, 1 << F) for x, y in zip(a, b, strict=True)]
    kept = [i for i in range(N) if fits(round(exact[i]), 64 * L)]
    assert len(kept) > N // 2
    check(lambda out: arithmetic.multiply_add(out, al, bl, None, F), exact, L)
    check(
        lambda out: arithmetic.multiply_add(out, al[kept], bl[kept], None, F),
        [exact[i] for i in kept],
        L,
        len(kept),
    )


@pytest.mark.parametrize(("L", "F"), FORMATS)
def test_products_of_all_extremes(L: int, F: int) -> None:
    """Every pair by itself, so that one overflow hides no other."""
    values = operands(1, 13 if L > 1 else 11, 64 * L)
    for x in values:
        for y in values:
            a, b = limbs_of([x] * 8, L), limbs_of([y] * 8, L)
            first, value = expected([Fraction(x * y, 1 << F)] * 8, 64 * L)
            out = np.empty((8, L), np.uint64)
            assert arithmetic.multiply_add(out, a, b, None, F) == first
            assert mantissas_of(out)[:first] == value


@pytest.mark.parametrize(("L", "F"), FORMATS)
def test_fused_products_round_once(L: int, F: int) -> None:
    a, b = fitting(7 * L + F, L, F)
    c = operands(L + F, N, 64 * L)
    rng = random.Random(F)
    if F < 64 * L - 3:  # products beyond the format that the addend brings back
        for i in range(0, N, 3):
            a[i] = rng.randrange(1 << (F + 1), 1 << (64 * L - 1)) * rng.choice([-1, 1])
            b[i] = rng.randrange(9, 15) * (1 << (64 * L - 4 + F)) // a[i]
            c[i] = -(1 << (64 * L - 1)) if a[i] * b[i] > 0 else (1 << (64 * L - 1)) - 1
    al, bl, cl = limbs_of(a, L), limbs_of(b, L), limbs_of(c, L)
    exact: list[Fraction | int] = [
        Fraction(x * y, 1 << F) + z for x, y, z in zip(a, b, c, strict=True)
    ]
    check(lambda out: arithmetic.multiply_add(out, al, bl, cl, F), exact, L)
    kept = [i for i in range(N) if fits(round(exact[i]), 64 * L)]
    beyond = [i for i in kept if not fits(round(exact[i]) - c[i], 64 * L)]
    assert len(beyond) > N // 8 or F >= 64 * L - 3
    check(
        lambda out: arithmetic.multiply_add(out, al[kept], bl[kept], cl[kept], F),
        [exact[i] for i in kept],
        L,
        len(kept),
    )
    for i in range(N):  # overflows one by one
        if i not in kept:
            out = np.empty((8, L), np.uint64)
            rows = [np.repeat(x[i : i + 1], 8, 0) for x in (al, bl, cl)]
            assert arithmetic.multiply_add(out, *rows, F) == 0
    same = cl[kept].copy()
    assert arithmetic.multiply_add(same, al[kept], bl[kept], same, F) == len(kept)
    assert mantissas_of(same) == [round(exact[i]) for i in kept]


@pytest.mark.parametrize(("L", "F"), [(2, 3), (3, 64), (4, 52), (4, 192), (6, 53), (8, 105)])
def test_ties_go_to_the_even_unit(L: int, F: int) -> None:
    # (2 k + 1) 2^(F-1) in units of 2^-F, times an integer that keeps it odd
    a = [(2 * k + 1) << (F - 1) for k in range(-20, 20)]
    b = [2 * (k % 5) + 1 for k in range(40)]
    exact: list[Fraction | int] = [Fraction(x * y, 1 << F) for x, y in zip(a, b, strict=True)]
    assert all(e.denominator == 2 for e in exact)  # type: ignore[union-attr]
    al, bl = limbs_of(a, L), limbs_of(b, L)
    check(lambda out: arithmetic.multiply_add(out, al, bl, None, F), exact, L, 40)
    c = limbs_of(list(range(40)), L)
    exact = [e + k for k, e in enumerate(exact)]
    check(lambda out: arithmetic.multiply_add(out, al, bl, c, F), exact, L, 40)


@pytest.mark.parametrize(("L", "F"), FORMATS)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 83, 1100])
def test_dot_products(L: int, F: int, n: int) -> None:
    if n == 1100 and L > 8:
        n = 40
    rng = random.Random(n)
    shift = (64 * L - F) // 2 + n.bit_length()
    a = [x >> shift if rng.random() < 0.9 else x >> 2 * shift for x in operands(n, n, 64 * L)]
    b = operands(n + 1, n, 64 * L)
    a, b = a[: n // 2] + b[n // 2 :], b[: n // 2] + a[n // 2 :]
    total = Fraction(sum(x * y for x, y in zip(a, b, strict=True)), 1 << F)
    out = np.empty(L, np.uint64)
    done = arithmetic.dot(out, limbs_of(a, L), limbs_of(b, L), F)
    assert done == fits(round(total), 64 * L)
    if done:
        assert mantissas_of(out[None]) == [round(total)]


@pytest.mark.parametrize("L", [2, 4, 8, 10])
def test_dot_products_of_extremes_do_not_lose_carries(L: int) -> None:
    least, largest = -(1 << (64 * L - 1)), (1 << (64 * L - 1)) - 1
    n = 12_000 if L < 8 else 4000  # columns of digits beyond 64 bits, were they not settled
    for x, y in ((least, least), (largest, largest), (least, largest)):
        a, b = limbs_of([x], L).repeat(2 * n, 0), limbs_of([y], L).repeat(2 * n, 0)
        b[n:] = limbs_of([-largest], L)
        out = np.empty(L, np.uint64)
        total = Fraction(n * x * y - n * x * largest, 1 << (64 * L - 1))
        done = arithmetic.dot(out, a, b, 64 * L - 1)
        assert done == fits(round(total), 64 * L)
        assert not done or mantissas_of(out[None]) == [round(total)]
        assert done or x == least


@pytest.mark.parametrize("L", [1, 2, 3, 4, 5, 6, 7, 8, 10])
@pytest.mark.parametrize(("M", "K", "N"), [(1, 1, 1), (3, 5, 2), (2, 4, 8), (5, 140, 11)])
def test_matrix_products(L: int, M: int, K: int, N: int) -> None:
    F = 64 * L - 20
    small = lambda rng: rng.randrange(64 * L - 14)  # noqa: E731
    a, b = operands(L, M * K, 64 * L, small), operands(L + 1, K * N, 64 * L, small)
    exact = [
        Fraction(sum(a[i * K + k] * b[k * N + j] for k in range(K)), 1 << F)
        for i in range(M)
        for j in range(N)
    ]
    out = np.empty((M, N, L), np.uint64)
    al, bl = limbs_of(a, L).reshape(M, K, L), limbs_of(b, L).reshape(K, N, L)
    assert arithmetic.matmul(out, al, bl, F) == M * N
    assert mantissas_of(out.reshape(-1, L)) == [round(x) for x in exact]


def test_the_first_element_of_a_matrix_that_does_not_fit_is_named() -> None:
    L, F = 4, 192
    a = np.zeros((3, 1, L), np.uint64)
    b = np.zeros((1, 20, L), np.uint64)
    a[:, 0, 3] = 1, 1 << 40, 1 << 40
    b[0, :, 3] = 1
    b[0, 17, 3] = b[0, 5, 3] = 1 << 30
    assert arithmetic.matmul(np.empty((3, 20, L), np.uint64), a, b, F) == 25


@pytest.mark.parametrize("L", [1, 2, 4, 9])
def test_sums(L: int) -> None:
    a = operands(L, 60, 64 * L)
    rows = limbs_of(a, L).reshape(5, 12, L)
    exact: list[Fraction | int] = [sum(a[12 * i : 12 * i + 12]) for i in range(5)]
    check(lambda out: arithmetic.sum_rows(out, rows), exact, L, 5)
    largest = (1 << (64 * L - 1)) - 1
    for row in ([largest, largest, -largest], [-largest - 1, -1, 1], [largest, 1], [-largest, -2]):
        total = sum(row)
        out = np.empty((1, L), np.uint64)
        assert arithmetic.sum_rows(out, limbs_of(row, L)[None]) == fits(total, 64 * L)
        if fits(total, 64 * L):
            assert mantissas_of(out) == [total]


@pytest.mark.parametrize("L", [1, 2, 4, 9])
def test_order(L: int) -> None:
    a = operands(L, N, 64 * L)
    b = [x + random.Random(i).choice([-1, 0, 1]) for i, x in enumerate(a)]
    b = [y if fits(y, 64 * L) else x for x, y in zip(a, b, strict=True)]
    out = np.empty(N, np.int8)
    arithmetic.compare(out, limbs_of(a, L), limbs_of(b, L))
    assert out.tolist() == [(x > y) - (x < y) for x, y in zip(a, b, strict=True)]
    assert arithmetic.extreme(limbs_of(a, L), 1) == a.index(max(a))
    assert arithmetic.extreme(limbs_of(a, L), -1) == a.index(min(a))


@pytest.mark.parametrize(("L", "F"), FORMATS)
def test_quotients(L: int, F: int) -> None:
    W = 64 * L
    rng = random.Random(L + F)
    q = operands(L * F, N, W, lambda r: r.randrange(W))
    b = [x or 1 for x in operands(L * F + 1, N, W)]
    a = []
    for x, y in zip(q, b, strict=True):  # quotients near units and near ties
        value = (2 * x * y + rng.choice([-1, 0, 1]) * y >> (F + 1)) + rng.choice([-1, 0, 1])
        a.append(value if fits(value, W) else rng.getrandbits(W - 1))
    exact: list[Fraction | int] = [Fraction(x << F, y) for x, y in zip(a, b, strict=True)]
    for i in range(N):
        first, value = expected(exact[i : i + 1], W)
        out = np.empty((1, L), np.uint64)
        done = division.divide(out, limbs_of(a[i : i + 1], L), limbs_of(b[i : i + 1], L), F)
        assert done == first, i
        assert mantissas_of(out)[:first] == value
    kept = [i for i in range(N) if fits(round(exact[i]), W)]
    al, bl = limbs_of([a[i] for i in kept], L), limbs_of([b[i] for i in kept], L)
    check(lambda out: division.divide(out, al, bl, F), [exact[i] for i in kept], L, len(kept))


def test_a_quotient_of_zero_or_by_zero() -> None:
    zero, one, out = limbs_of([0], 2), limbs_of([1], 2), np.empty((1, 2), np.uint64)
    assert division.divide(out, zero, one, 64) == 1
    assert not out.any()
    assert division.divide(out, one, zero, 64) == 0


@pytest.mark.parametrize(("L", "F"), FORMATS)
def test_rescaling(L: int, F: int) -> None:
    a = operands(F, N, 64 * L)
    for to in {1, 2, L, L + 1}:
        for shift in (0, 1, -1, 64, -64, -F, 64 * to - 1 - F, 17, -(64 * L - 1)):
            if abs(shift) >= 64 * max(to, L):
                continue
            exact = [x * Fraction(2) ** shift for x in a]
            for i in range(0, N, 5):
                first, value = expected(exact[i : i + 1], 64 * to)
                out = np.empty((1, to), np.uint64)
                assert arithmetic.rescale(out, limbs_of(a[i : i + 1], L), shift) == first
                assert mantissas_of(out)[:first] == value


@pytest.mark.parametrize(("L", "F"), [*FORMATS, (20, 1100), (64, 4000), (64, 1000), (20, 1274)])
def test_doubles(L: int, F: int) -> None:
    a = operands(F, 200, 64 * L)
    a += [(1 << k) + d for k in (53, 54, 55, 62) for d in (-1, 0, 1, 2, 3)]
    out = np.empty(1)
    for m in a:
        if not fits(m, 64 * L):
            continue
        try:
            value = m / (1 << F)  # Python rounds this correctly
        except OverflowError:
            assert convert.to_doubles(out, limbs_of([m], L), F) == 0
            continue
        assert convert.to_doubles(out, limbs_of([m], L), F) == 1
        assert out[0].hex() == value.hex() or (out[0] == 0 and value == 0)
    rng = random.Random(L)
    doubles = [0.0, -0.0, 5e-324, -2.3e-308, 1.0, -1.5, 1e300, math.pi]
    low, high = max(-F - 3, -1070), min(64 * L - F, 1020)
    doubles += [rng.uniform(-4, 4) * 2.0 ** rng.randrange(low, high) for _ in range(200)]
    doubles += [(k + 0.5) * 2.0**-F for k in range(-9, 9) if F < 1000]
    if 64 * L - F < 1020:
        edge = 2.0 ** (64 * L - 1 - F)
        doubles += [edge, -edge, math.nextafter(edge, 0), math.nextafter(-edge, -math.inf)]
    for x in doubles:
        first, value = expected([Fraction(x) * (1 << F)], 64 * L)
        row = np.empty((1, L), np.uint64)
        assert convert.from_doubles(row, np.array([x]), F) == first, x
        assert mantissas_of(row)[:first] == value, x


def test_no_number_and_infinity_are_no_elements() -> None:
    out = np.empty((3, 4), np.uint64)
    for bad in (math.nan, math.inf, -math.inf):
        assert convert.from_doubles(out, np.array([1.0, bad, 2.0]), 64) == 1


def test_doors_check_their_arguments() -> None:
    a, out = np.zeros((3, 2), np.uint64), np.zeros((4, 2), np.uint64)
    with pytest.raises(ValueError, match=r"a is \[3, 2\], expected \[4 or 1, 2\]"):
        arithmetic.add(out, a, a)
    with pytest.raises(ValueError, match="frac_bits is 128"):
        arithmetic.multiply_add(a, a, a, None, 128)
    with pytest.raises(ValueError, match="65 limbs"):
        wide = np.zeros((1, 65), np.uint64)
        arithmetic.multiply_add(wide, wide, wide, None, 0)
    with pytest.raises(ValueError, match="expected the same n"):
        arithmetic.dot(out[0], a, out, 0)
    with pytest.raises(ValueError, match="no extreme"):
        arithmetic.extreme(a[:0], 1)
    for kernel in (arithmetic.add, arithmetic.subtract, division.divide):
        extra = () if kernel is not division.divide else (0,)
        assert kernel(a[:0], a[:0], a[:1], *extra) == 0


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
