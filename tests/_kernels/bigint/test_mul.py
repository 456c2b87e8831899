"""Products by every algorithm, forced onto small operands, against Python's integers."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from crystalline._kernels.bigint import tuning
from crystalline._kernels.bigint.mul import multiply, square
from tests._kernels.bigint.vectors import KINDS, to_int, to_limbs, vector

NEVER = 10**9
PRODUCTS = ("vector", "karatsuba", "toom3", "ntt", "ntt_long")
ALGORITHMS = {
    "schoolbook": {"karatsuba": NEVER, "vector": NEVER},
    "digits": {"karatsuba": NEVER, "vector": 1},
    "karatsuba": {"karatsuba": 2, "toom3": NEVER, "vector": NEVER},
    "karatsuba on digits": {"karatsuba": 5, "toom3": NEVER, "vector": 1},
    "toom3": {"karatsuba": 4, "toom3": 9, "vector": NEVER},
    "toom3 and karatsuba": {"karatsuba": 4, "toom3": 21, "vector": 3},
    "ntt": {"ntt": 1},
    "as tuned": {},
}


def force(name: str) -> dict[str, int]:
    """Return the thresholds of an algorithm, for products and squares alike."""
    if name == "as tuned":
        return {}
    sizes = {"ntt": NEVER, **ALGORITHMS[name]}
    return sizes | {f"sqr_{key}": size for key, size in sizes.items()} | {"ntt_long": NEVER}


def check(an: int, bn: int, kinds: tuple[str, str] = ("random", "random"), seed: int = 0) -> None:
    a, b = vector(kinds[0], an, seed), vector(kinds[1], bn, seed + 1)
    result = multiply(a, b)
    assert len(result) == an + bn
    assert to_int(result) == to_int(a) * to_int(b), (an, bn, kinds)
    assert to_int(square(a)) == to_int(a) ** 2, (an, kinds)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_small_shape(name: str) -> None:
    with tuning.forced(**force(name)):
        for an in range(1, 45):
            for bn in range(1, an + 1):
                check(an, bn, seed=an)
        for n in range(45, 160, 7):
            check(n, n)
            check(n, n - 1, ("ones", "ones"))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_operand(name: str, kind: str) -> None:
    with tuning.forced(**force(name)):
        for an, bn in ((12, 11), (27, 27), (31, 22), (64, 63), (95, 40), (130, 129), (162, 121)):
            for other in KINDS:
                check(an, bn, (kind, other))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_unbalanced_shapes(name: str) -> None:
    with tuning.forced(**force(name)):
        for an, bn in ((100, 1), (200, 3), (301, 17), (1000, 40), (1025, 513), (2000, 600)):
            check(an, bn)
            check(an, bn, ("ones", "ones"))
            a, b = vector("random", an, 2), vector("runs", bn, 3)
            assert to_int(multiply(b, a)) == to_int(a) * to_int(b)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_carries_between_pieces(name: str) -> None:
    """Where the pieces of a long operand overlap, a carry leaves the overlap every other time."""
    with tuning.forced(**force(name)):
        for bn in range(1, 60, 6):
            check(600 + bn, bn, seed=bn)
            check(1200, bn, ("random", "ones"), seed=bn)


@pytest.mark.parametrize("name", ["karatsuba", "toom3", "toom3 and karatsuba"])
def test_parts_that_cancel(name: str) -> None:
    """Parts of equal value make differences and values at -1 vanish."""
    with tuning.forced(**force(name)):
        for n in (24, 33, 48):
            for parts in (2, 3):
                part = to_int(vector("random", n // parts, 1))
                a = to_limbs(sum(part << 64 * (n // parts) * i for i in range(parts)), n)
                middle = to_limbs(2 * (part >> 1) << 64 * (n // parts), n)
                for x, y in ((a, a.copy()), (a, middle), (middle, vector("ones", n, 0))):
                    assert to_int(multiply(x, y)) == to_int(x) * to_int(y)
                    assert to_int(square(x)) == to_int(x) ** 2


def test_sizes_around_every_crossover() -> None:
    for name, size in tuning.values().items():
        if name.removeprefix("sqr_") not in PRODUCTS or size > 10**5:
            continue
        for n in (size - 1, size, size + 1, 2 * size, 2 * size + 1):
            if n > 0:
                check(n, n)
                check(n, n, ("ones", "ones"))
        check(5 * size // 2, size)
        check(7 * size // 2, size + 1, ("ones", "runs"))
        check(9 * size, size, ("runs", "random"))


def test_random_shapes_at_random_thresholds() -> None:
    rng = random.Random(4)
    for _ in range(150):
        karatsuba = rng.randrange(2, 30)
        sizes = {
            "vector": rng.choice((1, 5, NEVER)),
            "karatsuba": karatsuba,
            "toom3": rng.randrange(karatsuba, 60),
            "ntt": NEVER,
        }
        with tuning.forced(**sizes, **{f"sqr_{key}": size for key, size in sizes.items()}):
            an = rng.randrange(1, 700)
            kinds = (rng.choice(KINDS), rng.choice(KINDS))
            check(an, rng.randrange(1, an + 1), kinds, rng.randrange(10**6))


def test_a_large_product_and_its_square() -> None:
    check(30_011, 29_989)
    check(20_000, 999, ("ones", "runs"))


def test_factors_are_left_alone_and_may_be_the_same() -> None:
    a = vector("random", 300, 1)
    kept = a.copy()
    with tuning.forced(**force("toom3")):
        assert to_int(multiply(a, a)) == to_int(a) ** 2
        assert to_int(multiply(a, a[:200])) == to_int(a) * to_int(a[:200])
    assert (a == kept).all()


def test_products_without_limbs() -> None:
    empty, three = to_limbs(0, 0), to_limbs(5, 3)
    assert multiply(empty, empty).tolist() == []
    assert multiply(empty, three).tolist() == [0, 0, 0]
    assert multiply(three, empty).dtype == np.uint64


def test_strangers_are_refused() -> None:
    three = to_limbs(5, 3)
    with pytest.raises(ValueError, match="dtype mismatch"):
        multiply(three.astype(np.int64), three)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        multiply(3, three)  # type: ignore[arg-type]


def test_memory_that_runs_out_is_an_error() -> None:
    """Under an address-space limit the scratch of a product does not fit."""
    code = (
        "import resource, numpy as np\n"
        "from crystalline._kernels.bigint import tuning\n"
        "from crystalline._kernels.bigint.mul import multiply\n"
        "a = np.ones(1 << 23, np.uint64)\n"
        "b = np.full(1 << 23, 2, np.uint64)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "limit = used + (160 << 20)\n"  # the product takes 128 MiB, no scratch fits beside it
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n    multiply(a, b)\n"
        "except MemoryError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "no memory for a product of 8388608 and 8388608 limbs", (
        done.stderr
    )


# The thresholds


def test_forced_thresholds_end_with_the_block() -> None:
    before = tuning.values()
    with tuning.forced(karatsuba=4), tuning.forced(toom3=9):
        assert tuning.values() == before | {"karatsuba": 4, "toom3": 9}
    with pytest.raises(RuntimeError), tuning.forced(karatsuba=4):
        raise RuntimeError
    assert tuning.values() == before


def test_unknown_thresholds_and_sizes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"'carazuba'; there are .*karatsuba"):
        tuning.forced(carazuba=3)
    with pytest.raises(ValueError, match="threshold ntt is 0"):
        tuning.forced(ntt=0)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
