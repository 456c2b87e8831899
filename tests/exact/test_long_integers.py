"""Integers long enough for work in slices: the same as GMP's, whatever lies at the seams."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest

from crystalline.exact import BigInt, gcd, is_power, is_square, isqrt_rem

SEAM = 1 << 20  # limbs: the longest slice


def number(limbs: int, seed: int = 0) -> int:
    return int.from_bytes(np.random.default_rng(seed + limbs).bytes(8 * limbs), "little")


def ours(x: int) -> BigInt:
    return BigInt.from_bytes(x.to_bytes((x.bit_length() + 7) // 8, "little"), "little")


A = number(SEAM + 5)
ONES = (1 << 64 * (SEAM + 5)) - 1
SHORTER = (number(SEAM + 3), (1 << 64 * (SEAM - 3)) - 1, 1, (1 << 64 * SEAM) + 1)


@pytest.mark.parametrize("a", [A, ONES], ids=["random", "ones"])
def test_sums_and_shifts(a: int) -> None:
    for b in SHORTER:
        assert int(ours(a) + ours(b)) == a + b
        assert int(ours(a) - ours(b)) == a - b
        assert int(ours(b) - ours(a)) == b - a
    assert int(ours(ONES + 1) - 1) == ONES
    for bits in (0, 63, 64 * SEAM + 17):
        assert int(ours(a) << bits) == a << bits


@pytest.mark.parametrize("limbs", [1, 2, 11, 40, 181, 300])
def test_products_and_quotients_with_short_numbers(limbs: int) -> None:
    a, b = number(2**18 + 77), number(limbs)
    assert int(ours(a) * ours(b)) == int(gmpy2.mpz(a) * b)
    quotient, rest = divmod(ours(a), ours(b))
    assert (int(quotient), int(rest)) == tuple(map(int, gmpy2.f_divmod(gmpy2.mpz(a), b)))
    divisible = ours(b) * ours(a)
    assert int(divisible // ours(b)) == a
    assert divisible % ours(b) == 0


def test_quotients_of_few_limbs() -> None:
    a = number(2**18)
    for shift in (1, 64, 640, 64 * 30 + 1):
        b = (a >> shift) | 1
        quotient, rest = divmod(ours(a), ours(b))
        assert (int(quotient), int(rest)) == tuple(map(int, gmpy2.f_divmod(gmpy2.mpz(a), b)))


@pytest.mark.parametrize("limbs", [(2**18, 2**18 - 1), (2**19, 2**16 + 5), (2**17 + 1, 1000)])
def test_transforms(limbs: tuple[int, int]) -> None:
    a, b = (number(n) for n in limbs)
    assert int(ours(a) * ours(b)) == int(gmpy2.mpz(a) * b)
    assert int(ours(b) * ours(b)) == int(gmpy2.mpz(b) ** 2)


def test_bytes() -> None:
    for x in (A, -A, ONES, -ONES - 1):
        for order in ("big", "little"):
            size = A.bit_length() // 8 + 1000
            data = x.to_bytes(size, order, signed=True)
            assert BigInt(x).to_bytes(size, order, signed=True) == data
            assert int(BigInt.from_bytes(data, order, signed=True)) == x
    assert BigInt(1).to_bytes(2**23 + 1, "big") == (1).to_bytes(2**23 + 1, "big")


def test_digits() -> None:
    x = number(2**14)
    for base in (2, 8, 16, 32):
        text = ours(x).digits(base)
        assert text == gmpy2.mpz(x).digits(base)
        assert int(BigInt(text, base)) == x
    text = str(gmpy2.mpz(x))
    separated = "_".join(text)
    assert int(BigInt(separated)) == x
    assert int(BigInt("".join(chr(0x660 + int(c)) for c in text))) == x
    for wrong in (separated + "_", separated[:-1] + "_", separated + "x", text[:300000] + " 1"):
        with pytest.raises(ValueError, match="invalid literal"):
            BigInt(wrong)


def test_residues() -> None:
    root = number(2**17 + 3)
    square = ours(root) ** 2
    assert is_square(square)
    assert not is_square(square + 4)
    assert is_power(square)
    assert isqrt_rem(square + 5) == (root, 5)
    assert gcd(square, ours(root) * 3) == root
