"""Transform products of limb vectors against gmpy2, at every level, length boundary and mode."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gmpy2
import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import exact_isa, isa
from crystalline._kernels.bigint import ntt

ROOT = Path(__file__).resolve().parents[3]
U64 = npt.NDArray[np.uint64]
ONES = 2**64 - 1
GUARD = np.uint64(0x5EED5EED5EED5EED)
BLOCKS = (4, 5, 6, 7)  # a transform has this many times 2^k points


def random_limbs(rng: np.random.Generator, n: int) -> U64:
    return rng.integers(0, 2**64, n, np.uint64)


def ones(_: np.random.Generator, n: int) -> U64:
    return np.full(n, ONES, np.uint64)


def sparse(rng: np.random.Generator, n: int) -> U64:
    limbs = np.where(rng.random(n) < 0.1, random_limbs(rng, n), np.uint64(0))
    limbs[-1] = 1
    return limbs


Kind = Callable[[np.random.Generator, int], U64]
KINDS = (random_limbs, ones, sparse)


def integer(a: U64) -> gmpy2.mpz:
    return gmpy2.mpz.from_bytes(a.tobytes(), "little")


def check(a: U64, b: U64, h: int = 0) -> None:
    """Compare with gmpy2, and see that nothing beyond the product is written."""
    n = a.size + b.size
    buffer = np.full(n + 16, GUARD)
    if a is b and h == 0:
        ntt.square(buffer[8 : n + 8], a)
    else:
        ntt.product(buffer[8 : n + 8], a, b, h)
    assert integer(buffer[8 : n + 8]) == integer(a) * integer(b), (a.size, b.size, h)
    assert (buffer[:8] == GUARD).all()
    assert (buffer[n + 8 :] == GUARD).all()


@pytest.mark.parametrize("h", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_short_operands(kind: Kind, h: int) -> None:
    rng = np.random.default_rng(1)
    for an in (*range(1, 41), *range(45, 201, 5)):
        for bn in {1, 2, 3, an // 3 or 1, max(an - 1, 1), an}:
            if bn <= an:
                check(kind(rng, an), kind(rng, bn), h)


@pytest.mark.parametrize("h", [1, 2])
@pytest.mark.parametrize("log", range(2, 14))
def test_around_every_transform_length(log: int, h: int) -> None:
    rng = np.random.default_rng(log)
    for blocks in BLOCKS:
        total = h * blocks << log
        for n in (total - 1, total, total + 1):
            for kind in KINDS if log < 9 else (ones, random_limbs):
                check(kind(rng, n - n // 2), kind(rng, n // 2), h)
        check(ones(rng, total - 3), ones(rng, 3), h)


@pytest.mark.parametrize("kind", KINDS)
def test_squares(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    for n in (*range(1, 60), 127, 128, 129, 1000, 2561, 7000, 20_000):
        a = kind(rng, n)
        check(a, a)
        check(a, a, 2)


@pytest.mark.parametrize("an", [300, 5000, 40_000])
def test_unbalanced(an: int) -> None:
    rng = np.random.default_rng(an)
    for bn in (1, 2, 7, 33, an // 50, an // 7, an // 2 + 1):
        check(random_limbs(rng, an), ones(rng, bn))
        check(ones(rng, an), random_limbs(rng, bn))


@pytest.mark.parametrize("n", [15_625, 60_000, 156_250])
def test_long_operands(n: int) -> None:
    rng = np.random.default_rng(n)
    check(random_limbs(rng, n), random_limbs(rng, n - 7))
    check(ones(rng, n), ones(rng, n))


# The longest smaller operand of three primes, and the first of six: the coefficients' bound.
@pytest.mark.parametrize("n", [4_189_441, 4_189_442])
def test_all_ones_at_the_bound_of_the_primes(n: int) -> None:
    r = np.empty(2 * n, np.uint64)
    ntt.square(r, np.full(n, ONES, np.uint64))  # 2^(128 n) - 2^(64 n + 1) + 1
    assert (r[0], r[n]) == (1, ONES - 1)
    assert not r[1:n].any()
    assert (r[n + 1 :] == ONES).all()


def test_zero_limbs_on_top_and_offset_operands() -> None:
    rng = np.random.default_rng(4)
    for n in (70, 300, 1111):
        a, b = random_limbs(rng, n + 3)[3:], random_limbs(rng, n + 1)[1:]
        a[n // 2 :] = 0
        check(a, b)
        check(b, np.zeros(n, np.uint64))


def test_threads_that_need_new_roots_at_once() -> None:
    rng = np.random.default_rng(5)
    sizes = [n for n in (50, 900, 12_345, 30_000) for _ in range(4)]
    pairs = [(random_limbs(rng, n), random_limbs(rng, n)) for n in sizes]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, a, b) for a, b in reversed(pairs)]:
            done.result()


def test_bad_sizes_are_named() -> None:
    a = np.ones(4, np.uint64)
    with pytest.raises(ValueError, match="sizes 2 and 4"):
        ntt.product(np.zeros(6, np.uint64), a[:2], a)
    with pytest.raises(ValueError, match="has 8, not 7"):
        ntt.product(np.zeros(7, np.uint64), a, a)
    with pytest.raises(ValueError, match="has 8, not 9"):
        ntt.square(np.zeros(9, np.uint64), a)
    with pytest.raises(ValueError, match="3 limbs a coefficient"):
        ntt.product(np.zeros(8, np.uint64), a, a, 3)
    long = np.zeros(4_189_442, np.uint64)
    with pytest.raises(ValueError, match="1 limbs a coefficient do not do for 4189442"):
        ntt.product(np.zeros(2 * long.size, np.uint64), long, long, 1)
    with pytest.raises(ValueError, match="empty"):
        ntt.square(np.zeros(0, np.uint64), a[:0])


# The levels that can be forced and are not in use; the one in use runs in this process.
OTHERS = [n for n in isa.available_levels() if n in exact_isa.LEVELS and n != exact_isa.level()]


@pytest.mark.parametrize("level", OTHERS)
def test_same_at_level(level: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__, "-k", "not same_at_level"],
        env=os.environ | {"CRYSTALLINE_ISA": level},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-3000:]
