"""Every primitive on limb vectors, at every level, against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crystalline._kernels.bigint import limbs
from tests._kernels.bigint.vectors import BASE, KINDS, Limbs, to_int, to_limbs, vector

SIZES = range(1, 71)
MULTIPLIERS = (0, 1, 2, 2**63, BASE - 1, 0x9E3779B97F4A7C15)
COUNTS = (1, 2, 31, 32, 33, 62, 63)
CANARY = np.uint64(0x5555555555555555)


def guarded(n: int, misalign: int) -> tuple[Limbs, Limbs]:
    """Return memory full of canaries and n limbs in the middle of it."""
    memory = np.full(n + 24, CANARY)
    return memory, memory[8 + misalign : 8 + misalign + n]


def intact(memory: Limbs, n: int, misalign: int) -> bool:
    outside = np.concatenate([memory[: 8 + misalign], memory[8 + misalign + n :]])
    return bool((outside == CANARY).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["random", "ones", "one"])
def test_sums_and_differences(kind: str, other: str) -> None:
    for n in SIZES:
        a, b = vector(kind, n, 1), vector(other, n, 2)
        x, y = to_int(a), to_int(b)
        memory, r = guarded(n, n % 8)
        assert (limbs.add_n(r, a, b), to_int(r)) == divmod(x + y, BASE**n)
        assert limbs.sub_n(r, a, b) == (x < y)
        assert to_int(r) == (x - y) % BASE**n
        assert intact(memory, n, n % 8)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_differences_in_place(kind: str) -> None:
    for n in SIZES:
        a, b = vector(kind, n, 1), vector("ones", n, 2)
        x, y = to_int(a), to_int(b)
        for target in (0, 1):
            pair = [a.copy(), b.copy()]
            assert limbs.add_n(pair[target], *pair) == (x + y) // BASE**n
            assert to_int(pair[target]) == (x + y) % BASE**n
            pair = [a.copy(), b.copy()]
            assert limbs.sub_n(pair[target], *pair) == (x < y)
            assert to_int(pair[target]) == (x - y) % BASE**n
        r = a.copy()
        assert limbs.sub_n(r, r, r) == 0
        assert not r.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", MULTIPLIERS)
def test_products_by_one_limb(kind: str, factor: int) -> None:
    for n in SIZES:
        a, c = vector(kind, n, 3), vector("ones" if n % 2 else "random", n, 4)
        x, z = to_int(a), to_int(c)
        memory, r = guarded(n, n % 8)
        assert (limbs.mul_1(r, a, factor), to_int(r)) == divmod(x * factor, BASE**n)
        r[:] = c
        assert (limbs.addmul_1(r, a, factor), to_int(r)) == divmod(z + x * factor, BASE**n)
        r[:] = c
        assert (-limbs.submul_1(r, a, factor), to_int(r)) == divmod(z - x * factor, BASE**n)
        assert intact(memory, n, n % 8)
        for operation, value in (
            (limbs.mul_1, x * factor),
            (limbs.addmul_1, x + x * factor),
            (limbs.submul_1, x - x * factor),
        ):
            r[:] = a
            carry = operation(r, r, factor)
            assert to_int(r) == value % BASE**n
            assert carry == abs(value // BASE**n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_shifts(kind: str, count: int) -> None:
    for n in SIZES:
        a = vector(kind, n, 5)
        x = to_int(a)
        memory, r = guarded(n, n % 8)
        for source in (a, r):
            r[:] = a
            assert limbs.lshift(r, source, count) == (x << count) >> 64 * n
            assert to_int(r) == (x << count) % BASE**n
            r[:] = a
            assert limbs.rshift(r, source, count) == (x << (64 - count)) % BASE
            assert to_int(r) == x >> count
        assert intact(memory, n, n % 8)


PRODUCTS = [limbs.mul_basecase, limbs.mul_vector]
SQUARES = [limbs.sqr_basecase, limbs.sqr_vector]


def check_product(
    multiply: Callable[[Limbs, Limbs, Limbs], None], a: Limbs, b: Limbs, misalign: int
) -> None:
    n = len(a) + len(b)
    memory, r = guarded(n, misalign)
    multiply(r, a, b)
    assert to_int(r) == to_int(a) * to_int(b), (len(a), len(b))
    assert intact(memory, n, misalign)


@pytest.mark.parametrize("multiply", PRODUCTS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_every_small_shape(
    multiply: Callable[[Limbs, Limbs, Limbs], None], kind: str
) -> None:
    for an in range(1, 33):
        a = vector(kind, an, 6)
        for bn in range(1, an + 1):
            check_product(multiply, a, vector(kind, bn, 7), bn % 8)


@pytest.mark.parametrize("multiply", PRODUCTS)
def test_products_of_longer_shapes(multiply: Callable[[Limbs, Limbs, Limbs], None]) -> None:
    for an, bn in ((70, 1), (70, 13), (64, 64), (127, 26), (255, 254), (512, 3), (512, 512)):
        for kind in KINDS:
            check_product(multiply, vector(kind, an, 8), vector(kind, bn, 9), 3)


def test_product_in_digits_takes_factors_in_either_order() -> None:
    check_product(limbs.mul_vector, vector("random", 5, 1), vector("random", 44, 1), 1)


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("kind", KINDS)
def test_squares(square: Callable[[Limbs, Limbs], None], kind: str) -> None:
    for n in (*SIZES, 127, 128, 200, 511, 512):
        a = vector(kind, n, 10)
        memory, r = guarded(2 * n, n % 8)
        square(r, a)
        assert to_int(r) == to_int(a) ** 2, n
        assert intact(memory, 2 * n, n % 8)


def test_sizes_that_do_not_fit_are_refused() -> None:
    two, three, none = to_limbs(1, 2), to_limbs(1, 3), to_limbs(0, 0)
    with pytest.raises(ValueError, match="sizes 2 and 3 differ"):
        limbs.add_n(two, two, three)
    with pytest.raises(ValueError, match="sizes 3 and 2 differ"):
        limbs.mul_1(three, two, 1)
    with pytest.raises(ValueError, match="without limbs"):
        limbs.sub_n(none, none, none)
    with pytest.raises(ValueError, match="without limbs"):
        limbs.mul_basecase(two, two, none)
    with pytest.raises(ValueError, match="4 limbs for a product of 3 and 2"):
        limbs.mul_basecase(to_limbs(0, 4), three, two)
    with pytest.raises(ValueError, match="2 limbs times 3"):
        limbs.mul_basecase(to_limbs(0, 5), two, three)
    for count in (0, 64, -1):
        with pytest.raises(ValueError, match=f"by {count} bits"):
            limbs.lshift(two, two, count)
        with pytest.raises(ValueError, match=f"by {count} bits"):
            limbs.rshift(two, two, count)
    long = to_limbs(1, limbs.VECTOR_LIMBS + 1)
    with pytest.raises(ValueError, match="513 limbs are more than 512"):
        limbs.mul_vector(to_limbs(0, 515), long, two)
    with pytest.raises(ValueError, match="513 limbs are more than 512"):
        limbs.sqr_vector(to_limbs(0, 1026), long)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
