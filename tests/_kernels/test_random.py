"""Dropout's random numbers: an independent twin to the bit, rates, independence, splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.random import derive_key, dropout
from tests._kernels.buffers import F32, SIZES, guards_intact, place, same_bits

MASK64 = 2**64 - 1
U32 = npt.NDArray[np.uint32]


# --- the twin: the generator as random.h and mix64.h describe it, in Python's integers --------


def _finish64(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK64
    return z ^ (z >> 31)


def _mix64(a: int, b: int) -> int:
    return _finish64(_finish64((a + 0x9E3779B97F4A7C15) & MASK64) ^ b)


def _mix32(x: U32) -> U32:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _hash(key: int, first: int, n: int) -> U32:
    counters = [(first + i) & MASK64 for i in range(n)]
    words = {upper: _mix64(key, upper) for upper in {c >> 32 for c in counters}}
    low = np.array([c & 0xFFFFFFFF for c in counters], np.uint32)
    key0 = np.array([words[c >> 32] & 0xFFFFFFFF for c in counters], np.uint32)
    key1 = np.array([words[c >> 32] >> 32 for c in counters], np.uint32)
    return _mix32(_mix32(low ^ key0) + key1)


def _kept(key: int, n: int, probability: float, first: int = 0) -> npt.NDArray[np.float64]:
    out = np.empty(n, np.float32)
    dropout(np.ones(n, np.float32), out, probability, key, first)
    return (out != 0).astype(np.float64)


# --- keys --------------------------------------------------------------------------------------


def test_keys_match_the_twin() -> None:
    for words in ([], [0], [1, 2, 3], [MASK64, 7], [0, 0, 0, 0]):
        expected = 0
        for word in words:
            expected = _mix64(expected, word)
        assert derive_key(*words) == expected


def test_keys_of_neighbors_differ_in_half_of_their_bits() -> None:
    rng = np.random.default_rng(0)
    flips = [
        bin(derive_key(a, b) ^ derive_key(a ^ (1 << bit), b)).count("1")
        for a, b in rng.integers(0, 2**62, (50, 2)).tolist()
        for bit in range(0, 64, 7)
    ]
    assert np.mean(flips) == pytest.approx(32, abs=5 * 4 / np.sqrt(len(flips)))
    keys = {derive_key(1, step, lane) for step in range(100) for lane in range(100)}
    assert len(keys) == 10_000


@pytest.mark.parametrize("word", [-1, 2**64])
def test_words_outside_64_bits(word: int) -> None:
    with pytest.raises(ValueError, match=f"not {word}"):
        derive_key(5, word)


# --- the mask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 5, 2**32 - 20, 2**32 - 1, 7 * 2**32 + 3, MASK64 - 30])
@pytest.mark.parametrize("n", SIZES)
def test_bits_match_the_twin(n: int, first: int) -> None:
    key, probability = derive_key(42, n), 0.375
    x = place(np.random.default_rng(n).standard_normal(n))
    out = place(np.zeros(n))
    dropout(x, out, probability, key, first)
    assert guards_intact(x, out)
    keep = _hash(key, first, n) >= np.uint32(probability * 2**32)
    expected = np.where(keep, x * np.float32(1 / (1 - probability)), np.float32(0))
    assert same_bits(np.array(out), expected.astype(np.float32))
    dropout(x, x, probability, key, first)
    assert same_bits(np.array(x), np.array(out))


def test_threshold_belongs_to_the_kept() -> None:
    """At p = hash / 2^32 an element is kept, one step above it is dropped."""
    for i, value in enumerate(_hash(6, 0, 40).tolist()):
        assert _kept(6, 1, value / 2**32, first=i) == 1
        assert _kept(6, 1, (value + 1) / 2**32, first=i) == 0


@pytest.mark.parametrize("probability", [0.0, 1e-4, 0.1, 0.5, 0.9, 1 - 2.0**-24])
def test_rate_and_mean(probability: float) -> None:
    n = 1_000_000
    kept = _kept(11, n, probability)
    sigma = np.sqrt(probability * (1 - probability) / n)
    assert abs(kept.mean() - (1 - probability)) <= 5 * sigma
    x, out = np.full(n, 3, np.float32), np.empty(n, np.float32)
    dropout(x, out, probability, 11)
    kept_value = out[out != 0]
    assert kept_value.size == 0 or np.allclose(kept_value, 3 / (1 - probability), rtol=1e-6)


def test_probability_zero_keeps_every_bit() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    out = np.empty_like(x)
    dropout(x, out, 0.0, 3)
    assert same_bits(out, x)


def test_any_split_gives_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    x, first = rng.standard_normal(3001).astype(np.float32), 2**32 - 1234
    whole = np.empty_like(x)
    dropout(x, whole, 0.3, 77, first)
    for cuts in ([1], [16, 17, 1234], sorted(rng.integers(0, 3001, 9).tolist())):
        pieces = np.empty_like(x)
        for start, stop in zip([0, *cuts], [*cuts, 3001], strict=True):
            dropout(x[start:stop], pieces[start:stop], 0.3, 77, first + start)
        assert same_bits(pieces, whole)


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Correlation in units of its standard deviation under independence."""
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(len(a)))


def test_neighbors_and_keys_are_uncorrelated() -> None:
    n = 200_000
    kept = _kept(derive_key(1, 1), n, 0.5)
    for lag in (1, 2, 3, 4, 8, 16, 31, 64, 1024, 65536):
        assert abs(_correlation(kept[lag:], kept[: n - lag])) < 5, lag
    for other in (derive_key(1, 2), derive_key(2, 1), derive_key(1, 1) ^ 1):
        assert abs(_correlation(kept, _kept(other, n, 0.5))) < 5
    assert abs(_correlation(kept, _kept(derive_key(1, 1), n, 0.5, first=1 << 32))) < 5


def test_masks_of_two_keys_are_not_one_mask_reordered() -> None:
    """With a single mixing round, key k' would give mask[i ^ k ^ k'] of key k."""
    n = 1 << 14
    a, b = _kept(derive_key(3), n, 0.5), _kept(derive_key(4), n, 0.5)
    words = _mix64(derive_key(3), 0) ^ _mix64(derive_key(4), 0)
    reordered = a[np.arange(n) ^ (words & (n - 1))]
    assert abs(_correlation(reordered, b)) < 5


def test_words_of_the_counter_avalanche() -> None:
    """Flipping any bit of the place flips the decision half of the time."""
    n = 1 << 16
    kept = _kept(derive_key(9), n, 0.5)
    for bit in range(16):
        flipped = kept[np.arange(n) ^ (1 << bit)]
        # each unordered pair is seen twice: n / 2 independent pairs
        assert abs((kept != flipped).mean() - 0.5) < 5 * 0.5 / np.sqrt(n / 2), bit


@pytest.mark.parametrize("probability", [-0.1, 1.0, 2.0, np.nan])
def test_probability_outside_its_range(probability: float) -> None:
    x: F32 = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="dropout probability"):
        dropout(x, x, probability, 1)


def test_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="out has 2 elements, expected 3"):
        dropout(np.zeros(3, np.float32), np.zeros(2, np.float32), 0.5, 1)


def test_dropped_numbers_are_zero_even_if_not_finite() -> None:
    x = np.float32([np.nan, np.inf] * 500)
    out = np.empty_like(x)
    dropout(x, out, 0.5, 8)
    dropped = _hash(8, 0, 1000) < np.uint32(2**31)
    assert not out[dropped].any()
    assert not np.isfinite(out[~dropped]).any()


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
