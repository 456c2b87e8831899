"""Digits of limb vectors against Python and gmpy2, in every base, leaves and trees forced."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext

import gmpy2
import pytest

from crystalline._kernels.bigint import radix, tuning
from tests._kernels.bigint.numbers import limbs, number, room, shaped

FORCED = {
    "measured": {},
    "small leaves": {"to_digits": 2, "from_digits": 2, "to_digits_reciprocal": 10**9},
    "leaves of nine chunks": {"to_digits": 9, "from_digits": 9, "to_digits_reciprocal": 10**9},
    "leaves of twenty chunks": {"to_digits": 20, "from_digits": 20, "to_digits_reciprocal": 40},
    "reciprocals": {"to_digits": 3, "from_digits": 3, "to_digits_reciprocal": 2},
}
BASES = [2, 3, 7, 8, 10, 16, 32, 36, 37, 61, 62]


def forced(name: str) -> AbstractContextManager[None]:
    return tuning.forced(**FORCED[name]) if FORCED[name] else nullcontext()


def check(x: int, base: int) -> None:
    digits = gmpy2.mpz(x).digits(base).encode()
    assert radix.to_digits(limbs(x), base) == digits
    r = room(radix.room_for_digits(len(digits), base))
    n = radix.from_digits(r, digits, base)
    assert number(r[:n]) == x
    assert n == 0 or r[n - 1] != 0


@pytest.mark.parametrize("base", range(2, 63))
def test_every_base(base: int) -> None:
    rng = random.Random(base)
    for x in (0, 1, base - 1, base, base + 1, 2**64 - 1, 2**64, base**40, base**41 - 1):
        check(x, base)
    for n in (1, 2, 3, 9, 12, 40):
        check(shaped(rng, n), base)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", FORCED)
def test_shaped_numbers(name: str, base: int) -> None:
    rng = random.Random(f"{name} {base}")
    with forced(name):
        for n in [*range(1, 25), 33, 64, 65, 100, 128]:
            check(shaped(rng, n), base)


@pytest.mark.parametrize("name", FORCED)
def test_numbers_at_powers_of_the_base(name: str) -> None:
    """Runs of zeros and of the highest digit cross every boundary of the tree."""
    with forced(name):
        for base in (3, 10, 36):
            for count in [1, 2, 18, 19, 20, 38, 57, 76, 151, 152, 153, 304, 305, 608, 1500]:
                for x in (base**count - 1, base**count, base**count + 1, base**count // 2):
                    check(x, base)
                check((base**count - 1) * base ** (count // 3), base)


@pytest.mark.parametrize("count", [20_000, 100_000, 300_000])
def test_many_digits(count: int) -> None:
    x = gmpy2.mpz(10) ** count // 7 + 10 ** (count // 2)
    check(int(x), 10)
    check(int(x >> 5), 3)


def test_leading_zeros_and_letters_of_either_case() -> None:
    for digits, base, value in [
        (b"", 10, 0),
        (b"0", 10, 0),
        (b"0" * 500, 10, 0),
        (b"0" * 500 + b"17", 10, 17),
        (b"00fF", 16, 255),
        (b"Zz", 36, 35 * 37),
        (b"Zz", 62, 35 * 62 + 61),
        (b"0001" * 9, 2, int("0001" * 9, 2)),
    ]:
        r = room(radix.room_for_digits(len(digits), base))
        n = radix.from_digits(r, digits, base)
        assert number(r[:n]) == value


@pytest.mark.parametrize(
    ("digits", "base", "place"),
    [(b"12a", 10, 2), (b"-1", 10, 0), (b"1_0", 10, 1), (b"012", 2, 2), (b"1\xff", 62, 1)],
)
def test_characters_that_are_no_digits(digits: bytes, base: int, place: int) -> None:
    with pytest.raises(ValueError, match=f"at {place} is no digit in base {base}"):
        radix.from_digits(room(9), digits, base)


@pytest.mark.parametrize("base", [-10, 0, 1, 63])
def test_bases_that_are_none(base: int) -> None:
    with pytest.raises(ValueError, match=f"base {base} is not from 2 to 62"):
        radix.to_digits(limbs(1), base)
