"""Division of limb vectors against Python's, at boundary shapes, every algorithm on small sizes."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext

import pytest

from crystalline._kernels.bigint import div, tuning
from tests._kernels.bigint.numbers import B, limbs, number, room, shaped, size

# Schoolbook only; the recursion from the start; Newton's iteration from the start.
FORCED = {
    "measured": {},
    "schoolbook": {"div_recursive": 10**9, "div_newton": 10**9},
    "recursive": {"div_recursive": 2, "div_newton": 10**9},
    "newton": {"div_recursive": 4, "div_newton": 5},
    "newton over schoolbook": {"div_recursive": 3, "div_newton": 3},
}


# Limbs of the divisor and the quotient.
SIZES = [(2, 1), (2, 2), (3, 5), (5, 3), (8, 8), (9, 17), (20, 21), (40, 7), (13, 60)]


def forced(name: str) -> AbstractContextManager[None]:
    return tuning.forced(**FORCED[name]) if FORCED[name] else nullcontext()


def check(a: int, b: int) -> None:
    an, bn = max(size(a), size(b)), size(b)
    q, r, rest = room(an - bn + 1), room(bn), room(bn)
    x, y = limbs(a, an), limbs(b)
    div.divrem(q, r, x, y)
    assert (number(q), number(r)) == divmod(a, b)
    assert (number(x), number(y)) == (a, b)
    div.rem(rest, x, y)
    assert number(rest) == a % b


@pytest.mark.parametrize("name", FORCED)
def test_divrem_of_shaped_numbers(name: str) -> None:
    rng = random.Random(f"divrem {name}")
    with forced(name):
        for bn in [*range(1, 13), 16, 17, 31, 33, 64, 65]:
            for an in sorted({bn, bn + 1, bn + 2, 2 * bn - 1, 2 * bn, 2 * bn + 1, 3 * bn + 2, 77}):
                if an >= bn:
                    for _ in range(6):
                        check(shaped(rng, an), shaped(rng, bn))


@pytest.mark.parametrize("name", FORCED)
def test_quotient_digits_that_need_correction(name: str) -> None:
    """a = q b + r with q all ones or sparse and r at its bounds, 0 and b - 1."""
    rng = random.Random(f"correct {name}")
    with forced(name):
        for bn, qn in SIZES:
            for _ in range(8):
                b, q = shaped(rng, bn), shaped(rng, qn)
                for r in (0, 1, b - 1, rng.randrange(b)):
                    check(q * b + r, b)
                # A divisor whose second half is all ones, and one just above a power.
                for b in (B**bn - B ** (bn // 2) - 1 or 1, B**bn // 2 + 1):
                    for r in (0, b - 1):
                        check(q * b + r, b)


@pytest.mark.parametrize("name", ["measured", "recursive", "newton"])
@pytest.mark.parametrize(("an", "bn"), [(200, 2), (300, 7), (301, 290), (400, 130), (257, 128)])
def test_divrem_of_unbalanced_sizes(name: str, an: int, bn: int) -> None:
    rng = random.Random(an)
    with forced(name):
        for _ in range(4):
            check(shaped(rng, an), shaped(rng, bn))


@pytest.mark.parametrize("bits", [250_000, 1_000_000])
def test_divrem_of_large_numbers(bits: int) -> None:
    rng = random.Random(bits)
    b = rng.getrandbits(bits) | 1 << (bits - 1)
    q, r = rng.getrandbits(bits + 13), rng.randrange(b)
    x, y = limbs(q * b + r), limbs(b)
    got_q, got_r = room(len(x) - len(y) + 1), room(len(y))
    div.divrem(got_q, got_r, x, y)
    assert number(got_q) == q
    assert number(got_r) == r


def test_divisors_that_are_no_divisors() -> None:
    one = limbs(1)
    with pytest.raises(ValueError, match="0 limbs are not normalized"):
        div.divrem(room(1), room(0), one, limbs(0))
    with pytest.raises(ValueError, match="2 limbs are not normalized"):
        div.rem(room(2), limbs(1, 3), limbs(1, 2))
    with pytest.raises(ValueError, match="1 limbs are fewer than the divisor's 2"):
        div.rem(room(2), one, limbs(B))
    with pytest.raises(ValueError, match="q has 2 elements, expected 1"):
        div.divrem(room(2), room(1), one, one)
