"""Powers modulo limb vectors against Python's pow and gmpy2: odd, even, powers of two, windows."""

from __future__ import annotations

import random

import gmpy2
import pytest

from crystalline._kernels.bigint import powmod, tuning
from tests._kernels.bigint.numbers import B, limbs, number, room, shaped, size


def check(base: int, exp: int, mod: int) -> None:
    r = room(size(mod))
    powmod.powmod(r, limbs(base), limbs(exp), limbs(mod))
    assert number(r) == int(gmpy2.powmod(base, exp, mod))


SMALL = (0, 1, 2, 3, 17, 255, 256, B - 1, B, B + 1, B**3 - 1)


@pytest.mark.parametrize("redc_products", [1, 2, 5, 10**9])
def test_shaped_numbers(redc_products: int) -> None:
    rng = random.Random(redc_products)
    with tuning.forced(redc_products=redc_products):
        for n in [*range(1, 12), 16, 21, 33]:
            for _ in range(6):
                mod = shaped(rng, n)
                even = mod << rng.choice([1, 63, 64, 65, 130])
                for m in (mod | 1, mod, even):
                    exp = rng.getrandbits(rng.choice([1, 8, 64, 200])) + 1
                    check(shaped(rng, rng.randrange(1, 2 * n + 2)), exp, m)


def test_operands_at_their_bounds() -> None:
    for mod in (1, 2, 3, 4, 6, B - 1, B // 2, B, B + 1, B**2 - 1, B**2, B**5 // 2 + 1, B**5 - 2):
        for base in (*SMALL, mod - 1, mod, mod + 1, B**7 - 1):
            for exp in (0, 1, 2, 3, 5, 64, B - 1, B, B**2 + 1):
                check(base, exp, mod)


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 30, 100, 400, 1500, 5000])
def test_windows_of_every_length(bits: int) -> None:
    rng = random.Random(bits)
    for exp in ((1 << bits) - 1, 1 << (bits - 1), rng.getrandbits(bits) | 1, (1 << bits) // 3):
        check(rng.getrandbits(190), exp, rng.getrandbits(192) | 1)
        check(rng.getrandbits(190), exp, rng.getrandbits(192) << 3 | 8)


@pytest.mark.parametrize("bits", [256, 1024, 2048, 4096, 20_000])
def test_moduli_of_many_bits(bits: int) -> None:
    rng = random.Random(bits)
    mod = rng.getrandbits(bits) | 1 << (bits - 1) | 1
    check(rng.getrandbits(bits), rng.getrandbits(min(bits, 1024)), mod)
    check(mod - 1, mod - 1 if bits < 5000 else 65537, mod)
    check(rng.getrandbits(bits), rng.getrandbits(300), (1 << bits) - 1)


def test_moduli_that_are_none() -> None:
    for mod in (limbs(0), limbs(5, 2)):
        with pytest.raises(ValueError, match="limbs are not normalized"):
            powmod.powmod(room(len(mod)), limbs(2), limbs(2), mod)
