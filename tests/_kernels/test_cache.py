"""Attention over a cache of keys and values, against a float64 twin; and the bits of a row.

Keys and values are rounded to bfloat16 before the twin sees them, so that what is judged is float32
arithmetic.  With u = 2^-24: a score is a chain of D additions, so its error is D u times the sum of
its terms' magnitudes, and it moves its weight by as much; the weights' exponentials add a few u; a
sum over a block's values is a chain of 512 at most, and each block more rounds a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.cache import BLOCK, Cache
from crystalline._kernels.team import Team
from tests._kernels.buffers import F32, U, guards_intact, normal, place, same_bits
from tests._kernels.test_bf16 import value
from tests.oracles import ops

# T, G, H, D: panels of 32 and blocks of 512 positions just met and just missed, odd D, odd groups
SHAPES = [
    (1, 1, 1, 1),
    (33, 2, 2, 7),
    (70, 3, 3, 20),
    (513, 1, 2, 8),
    (130, 2, 8, 48),
    (97, 1, 7, 80),
    (520, 1, 1, 33),
    (64, 2, 10, 96),
]


def variants(T: int) -> list[tuple[bool, int]]:
    """Return what is tried of a shape: whether attention is crystalline, and the window."""
    if T > BLOCK:
        return [(False, 0), (True, 513), (True, 19)]
    return [(False, 0), (True, 0), (False, 1), (True, 19)]


@dataclass
class Case:
    """A sequence whose rows are columns of a wider buffer, as those of qkv are."""

    T: int
    G: int
    H: int
    D: int
    precision: str = "bf16"
    crystalline: bool = False
    extra: dict[str, F32] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.T * self.D)
        C, K = self.H * self.D, self.G * self.D
        self.qkv = normal(rng, self.T, C + 2 * K)
        self.q, self.k, self.v = self.qkv[:, :C], self.qkv[:, C : C + K], self.qkv[:, C + K :]
        self.similar, self.lambdas = normal(rng, self.T, self.T), place(np.linspace(-2, 1, self.H))

    def attend(self, cache: Cache, first: int, n: int, **extra: object) -> F32:
        if self.crystalline:
            extra |= {"similar": self.similar[first : first + n, : first + n]}
            extra |= {"lambdas": self.lambdas}
        return cache.attend(self.q[first : first + n], first, **extra)  # type: ignore[arg-type]

    def cache(self) -> Cache:
        return Cache(self.T, self.G, self.D, self.precision)

    def whole(self, **extra: object) -> F32:
        cache = self.cache()
        cache.append(self.k, self.v, 0)
        return self.attend(cache, 0, self.T, **extra)

    def want(self, window: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """What is right, and a bound of each element's error."""
        k, v = (value(x) if self.precision == "bf16" else x for x in (self.k, self.v))
        out, bound = np.empty((2, self.T, self.H * self.D))
        at = np.arange(self.T)
        hidden = at[None] > at[:, None]
        if window:
            hidden |= at[None] <= at[:, None] - window
        for h in range(self.H):
            g = h * self.G // self.H
            mine, kept = (slice(i * self.D, (i + 1) * self.D) for i in (h, g))
            parts = self.q[:, mine], k[:, kept], v[:, kept]
            q, keys, values = (x.astype(np.float64) for x in parts)
            scores = q @ keys.T / np.sqrt(self.D)
            reach = np.abs(q) @ np.abs(keys.T) / np.sqrt(self.D)
            if self.crystalline:
                scores += float(self.lambdas[h]) * self.similar
                reach += abs(float(self.lambdas[h])) * np.abs(self.similar)
            scores[hidden] = -np.inf
            p = ops.softmax(scores)
            out[:, mine] = p @ values
            error = (self.D + 8) * U * np.where(hidden, 0, reach).max(1, keepdims=True)
            chain = (min(self.T, BLOCK) + 40) * U
            bound[:, mine] = (2 * error + chain) * (p @ np.abs(values))
        return out, bound


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_twin(shape: tuple[int, int, int, int], precision: str) -> None:
    for crystalline, window in variants(shape[0]):
        case = Case(*shape, precision, crystalline)
        want, bound = case.want(window)
        assert np.all(np.abs(case.whole(window=window) - want) <= bound)
    assert guards_intact(case.qkv, case.similar, case.lambdas)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_has_its_bits_however_the_prompt_is_cut(
    shape: tuple[int, int, int, int], precision: str
) -> None:
    rng = np.random.default_rng(shape[0])
    for crystalline, window in variants(shape[0]):
        case = Case(*shape, precision, crystalline)
        whole = case.whole(window=window)
        cache, at, rows = case.cache(), 0, []
        while at < case.T:
            n = min(case.T - at, int(rng.choice([1, 1, 2, 3, 7, 13, 64, 150])))
            cache.append(case.k[at : at + n], case.v[at : at + n], at)
            spans = int(rng.integers(1, 4))
            rows.append(case.attend(cache, at, n, window=window, spans=spans))
            at += n
        assert same_bits(np.concatenate(rows), whole)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_row_has_its_bits_on_any_number_of_threads(threads: int) -> None:
    case = Case(1100, 2, 6, 24)
    with Team(threads) as team:
        for window in (0, 700):
            whole = case.whole(window=window)
            assert same_bits(case.whole(window=window, team=team), whole)
            cache = case.cache()
            cache.append(case.k, case.v, 0)
            last = case.attend(cache, case.T - 1, 1, window=window, spans=3, team=team)
            assert same_bits(last, whole[-1:])


def test_values_that_fit_bf16_have_the_bits_of_float32() -> None:
    """What is kept as bfloat16 is widened exactly, and all sums are float32."""
    case = Case(600, 2, 4, 40)
    case.qkv[:] = value(case.qkv)
    narrow = case.whole()
    case.precision = "float32"
    assert same_bits(narrow, case.whole())


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_what_a_row_does_not_see_cannot_touch_it(precision: str) -> None:
    """Later positions of the same call, positions before the window, what was there before."""
    case = Case(90, 1, 3, 20, precision)
    plain, windowed = case.whole(), case.whole(window=9)
    case.k[60:], case.v[60:] = np.nan, np.inf
    assert same_bits(case.whole()[:60], plain[:60])
    cache = case.cache()
    cache.append(case.k, case.v, 0)
    again = Case(90, 1, 3, 20, precision)
    cache.append(again.k[41:50], again.v[41:50], 41)  # over what was there, as after a truncation
    cache.append(again.k[50:61], again.v[50:61], 50)
    assert same_bits(again.attend(cache, 60, 1), plain[60:61])
    again.k[:50], again.v[:50] = np.nan, -np.inf
    assert same_bits(again.whole(window=9)[58:], windowed[58:])


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("length", [0, 1, 32, 45])
def test_a_copy_goes_on_like_the_original(precision: str, length: int) -> None:
    case = Case(70, 2, 4, 10, precision)
    cache, copy = case.cache(), case.cache()
    cache.append(case.k, case.v, 0)
    copy.copy_from(cache, length)
    copy.append(case.k[length:], case.v[length:], length)
    assert same_bits(case.attend(copy, 0, 70), case.attend(cache, 0, 70))


def test_lambda_zero_has_the_bits_of_standard_attention() -> None:
    case = Case(40, 2, 4, 12)
    plain = case.whole()
    case.crystalline = True
    case.similar[:] = np.nan
    case.lambdas[:] = [0.0, -0.0, 0.0, 0.0]
    assert same_bits(case.whole(), plain)


def test_bf16_takes_half_the_memory() -> None:
    narrow, wide = (Cache(1024, 2, 64, precision).size_bytes for precision in ("bf16", "float32"))
    assert narrow - 64 == 2 * 2 * 1024 * 64 * 2 == (wide - 64) // 2


def test_what_does_not_fit_is_refused() -> None:
    cache, x = Cache(8, 2, 4), np.zeros((3, 8), np.float32)
    for call, words in (
        (lambda: Cache(0, 1, 1), "there is no room in 0 positions"),
        (lambda: Cache(1, 1, 1, "int8"), "precision is 'int8'"),
        (lambda: cache.append(x, x, 6), "3 positions from 6 on, of a cache with room for 8"),
        (lambda: cache.append(x, x, -1), "3 positions from -1"),
        (lambda: cache.append(x[:0], x[:0], 0), "0 positions from 0"),
        (lambda: cache.append(x[:, :4], x, 0), r"k has shape \(3, 4\), expected \(3, 8\)"),
        (lambda: cache.append(x[:, ::2], x[:, :4], 0), "do not lie side by side"),
        (lambda: cache.append(np.zeros((3, 16), np.float32)[:, :8], x, 0), "differently far apart"),
        (lambda: cache.attend(x[:, :4], 0), "q has 4 columns, expected a multiple of 2 heads of 4"),
        (lambda: cache.attend(x, 6), "3 positions from 6"),
        (lambda: cache.attend(x, 0, window=-1), "window is -1"),
        (lambda: cache.attend(x, 0, spans=0), "spans 0"),
        (lambda: cache.attend(x, 0, similar=x[:, :3]), "come together"),
        (lambda: cache.attend(x, 1, similar=x[:, :3], lambdas=x[0, :2]), r"expected \(3, 4\)"),
        (lambda: cache.attend(x, 0, similar=x[:, :3], lambdas=x[0, :3]), "lambdas has 3 elements"),
        (lambda: cache.copy_from(Cache(8, 2, 5), 1), "different shapes"),
        (lambda: cache.copy_from(Cache(9, 2, 4), 9), "length is 9, of 9 and 8 positions"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
