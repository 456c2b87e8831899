"""Functions of BigFixedArray: rounded correctly, as arb's balls at 200 more bits prove."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import flint
import numpy as np
import pytest

from crystalline.exact import BigFixedArray
from tests.oracles.fixedarrays import fits, limbs_of, mantissas_of

# width_bits, frac_bits: the widths with vectors and those without, points at odd places
FORMATS = [
    (64, 30), (128, 0), (128, 77), (128, 127), (192, 128), (256, 0), (256, 64), (256, 192),
    (256, 193), (256, 255), (320, 201), (384, 320), (448, 333), (512, 256), (512, 448),
    (512, 511), (640, 500), (1024, 900),
]  # fmt: skip

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "atan": lambda x: x.atan(),
}


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    before = flint.ctx.prec
    yield
    flint.ctx.prec = before


def rounded(name: str, mantissa: int, frac_bits: int, width_bits: int) -> int | None:
    """Return the one integer to which the function rounds, proven; None where it is too large."""
    if name == "exp" and mantissa >> frac_bits > width_bits:
        return None
    for more in (200, 1000, 5000):
        flint.ctx.prec = 2 * width_bits + more
        x = flint.arb(mantissa) * flint.arb(2) ** -frac_bits
        units = FUNCTIONS[name](x) * flint.arb(2) ** frac_bits
        nearest = (units + flint.arb(0.5)).floor().unique_fmpz()
        if nearest is not None:
            return int(nearest) if fits(int(nearest), width_bits) else None
    raise AssertionError(f"{name} of {mantissa} / 2^{frac_bits} is too close to a tie")


def arguments(name: str, width_bits: int, frac_bits: int, n: int) -> list[int]:
    """Numbers of all sizes, near 0 and 1, tiny, with long runs of equal bits, and the extremes."""
    rng = random.Random(width_bits + frac_bits)
    top = width_bits - 1
    useful = top
    if name == "exp":
        useful = min(top, frac_bits + max(width_bits - frac_bits, 1).bit_length() - 1)
    elif name in ("sin", "cos", "atan"):
        useful = min(top, frac_bits + 12)
    one = 1 << frac_bits
    values = [0, 1, 2, 3, one - 1, one, one + 1, (1 << top) - 1, one // 2, one // 256, 3 * one]
    while len(values) < n:
        bits = (
            rng.randrange(useful + 1) if rng.random() < 0.4 else max(useful - rng.randrange(12), 0)
        )
        if rng.random() < 0.1:
            bits = rng.randrange(top)
        value = rng.getrandbits(max(bits, 1))
        if rng.random() < 0.2:
            value &= ~((1 << (max(bits, 1) * 3 // 4)) - 1)
        if rng.random() < 0.3:  # near 1, from both sides
            value = one + (value >> rng.randrange(max(bits, 1))) * rng.choice([-1, 1])
        values.append(abs(value))
    values = [v for v in values if v < 1 << top]
    if name == "log":
        return [max(v, 1) for v in values]
    return [*(v if rng.random() < 0.5 else -v for v in values), -(1 << top)]


@pytest.mark.parametrize(("width_bits", "frac_bits"), FORMATS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_rounded_correctly(name: str, width_bits: int, frac_bits: int) -> None:
    values = arguments(name, width_bits, frac_bits, 75)
    wanted = [rounded(name, m, frac_bits, width_bits) for m in values]
    kept = [m for m, w in zip(values, wanted, strict=True) if w is not None]
    a = BigFixedArray.from_limbs(limbs_of(kept, width_bits // 64), frac_bits)
    assert len(kept) >= 8
    got = getattr(a, name)().mantissas()
    assert got == [w for w in wanted if w is not None]
    assert getattr(a, name)(out=a) is a
    assert a.mantissas() == got
    limbs = limbs_of(values, width_bits // 64)
    if None in wanted:
        place = wanted.index(None)
        whole = BigFixedArray.from_limbs(limbs, frac_bits)
        with pytest.raises(OverflowError, match=rf"element {place} of the "):
            getattr(whole, name)()


@pytest.mark.parametrize(("width_bits", "frac_bits"), FORMATS)
def test_square_roots(width_bits: int, frac_bits: int) -> None:
    import gmpy2

    values = arguments("log", width_bits, frac_bits, 60)
    for root in arguments("log", width_bits, frac_bits, 30):  # squares, and their neighbors
        square = root * root >> frac_bits
        values += [v for v in (square - 1, square, square + 1) if 0 <= v < 1 << (width_bits - 1)]
    wanted = []
    for m in values:  # round(sqrt(N)) = floor((floor(sqrt(4 N)) + 1) / 2): there are no ties
        wanted.append((int(gmpy2.isqrt(gmpy2.mpz(4 * m << frac_bits))) + 1) // 2)
    kept = [m for m, w in zip(values, wanted, strict=True) if fits(w, width_bits)]
    a = BigFixedArray.from_limbs(limbs_of(kept, width_bits // 64), frac_bits)
    assert a.sqrt().mantissas() == [w for w in wanted if fits(w, width_bits)]
    assert mantissas_of(a.sqrt(out=a).limbs) == [w for w in wanted if fits(w, width_bits)]


def test_arguments_without_a_value_are_named() -> None:
    a = BigFixedArray.of([[1, 2], [-0.5, 0]])
    with pytest.raises(ValueError, match=r"sqrt of element \(1, 0\), -0\.5: expected 0 or more"):
        a.sqrt()
    with pytest.raises(ValueError, match=r"log of element \(1, 0\), -0\.5: expected more than 0"):
        a.log()
    with pytest.raises(ValueError, match=r"log of element 1, 0\.0"):
        a[:, 1].log()
    assert a[:, 1].sqrt().shape == (2,)
    with pytest.raises(OverflowError, match=r"element 3 of the exponential does not fit in 256"):
        BigFixedArray.of([0, -(2**62), 43.6, 43.7]).exp()


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos"])
def test_what_is_nearly_a_tie(name: str) -> None:
    """exp x = 1 + x + x^2/2 + x^3/6 is just above or below a tie for odd x 2^96, and so on."""
    odd = list(range(-63, 64, 2))
    if name == "sin":
        values = [3 * k << 128 for k in odd]
    else:
        values = [(name == "log") * (1 << 192) + (k << 96) for k in odd]
    a = BigFixedArray.from_limbs(limbs_of(values, 4), 192)
    assert getattr(a, name)().mantissas() == [rounded(name, m, 192, 256) for m in values]


def test_empty_and_strided_arrays() -> None:
    assert BigFixedArray((0, 3)).exp().shape == (0, 3)
    a = BigFixedArray.of(np.linspace(0.1, 3, 60).reshape(6, 10))
    for name in (*FUNCTIONS, "sqrt"):
        whole = getattr(a, name)()
        assert (getattr(a[::2, ::-3], name)() == whole[::2, ::-3]).all()
        assert (getattr(a.T, name)() == whole.T).all()
        out = BigFixedArray((6, 20))
        getattr(a, name)(out=out[:, ::2])
        assert (out[:, ::2] == whole).all()
        assert not out[:, 1::2].limbs.any()


def test_identities_over_many() -> None:
    rng = np.random.default_rng(4)
    a = BigFixedArray.of(rng.uniform(-20, 20, 4000))
    unit = BigFixedArray.of(2.0**-189)
    assert (abs(a.sin() * a.sin() + a.cos() * a.cos() - 1) <= unit).all()
    assert (abs(a.exp().log() - a) <= BigFixedArray.of(2.0**-160)).all()
    assert (a.atan().to_floats() == np.arctan(a.to_floats())).mean() > 0.8
    np.testing.assert_allclose(a.sin().to_floats(), np.sin(a.to_floats()), rtol=1e-13)


def test_threads_share_the_tables() -> None:
    a = BigFixedArray.of(np.linspace(-3, 3, 3000))
    wanted = a.exp().limbs
    results: list[Any] = [None] * 3

    def work(i: int) -> None:
        results[i] = a.exp()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((result.limbs == wanted).all() for result in results)


def test_the_lock_is_released() -> None:
    a = BigFixedArray.of(np.linspace(-3, 3, 60_000), 512, 448)
    a[:8].exp()
    ticks: list[float] = []
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        begin = time.perf_counter()
        a.exp()
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    assert sum(begin < tick < end for tick in ticks) >= 5


def test_long_calls_can_be_interrupted() -> None:
    a = BigFixedArray.of(np.linspace(1, 3, 200_000))
    out = BigFixedArray(a.size)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.015)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(50):
                out[:] = 0
                a.sqrt(out=out)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert out[-1] == 0  # it ended in the middle


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__, timeout_s=100)
