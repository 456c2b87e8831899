"""Windows: pure functions of (seed, sequence number) that visit everything evenly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline._kernels.windows import draw_starts
from crystalline.data.windows import (
    check_fits,
    gather,
    spread_windows,
    train_starts,
    val_windows,
    windows_per_epoch,
)
from crystalline.errors import DataError

SIZES = st.integers(1, 9).flatmap(lambda t: st.tuples(st.integers(t + 1, 40 * t + 40), st.just(t)))


@given(size=SIZES, seed=st.integers(0, 2**70), epoch=st.integers(0, 50))
def test_an_epoch_visits_windows_once_that_neither_overlap_nor_leave_the_split(
    size: tuple[int, int], seed: int, epoch: int
) -> None:
    n_tokens, seq_len = size
    count = windows_per_epoch(n_tokens, seq_len)
    starts = train_starts(n_tokens, seq_len, seed, epoch * count, count)
    assert starts.dtype == np.int64
    assert np.all(np.diff(np.sort(starts)) == seq_len)
    assert starts.min() >= 0
    assert starts.max() + seq_len + 1 <= n_tokens


@given(
    size=SIZES,
    seed=st.integers(0, 2**32),
    first=st.integers(0, 500),
    parts=st.lists(st.integers(0, 30), min_size=1, max_size=5),
)
def test_how_sequences_are_grouped_into_steps_does_not_matter(
    size: tuple[int, int], seed: int, first: int, parts: list[int]
) -> None:
    whole = train_starts(*size, seed, first, sum(parts))
    pieces = []
    for part in parts:
        pieces.append(train_starts(*size, seed, first, part))
        first += part
    assert np.array_equal(np.concatenate(pieces), whole)


def mix(x: int) -> int:
    """SplitMix64, as published."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def slow_start(n_tokens: int, seq_len: int, seed: int, index: int) -> int:
    """One start offset with Python integers, step by step as the docstrings say."""
    n_windows = windows_per_epoch(n_tokens, seq_len)
    epoch, window = divmod(index, n_windows)
    key = mix((epoch + mix(seed % 2**64)) % 2**64)
    hashes = [mix((key + mix(i)) % 2**64) for i in range(7)]
    half = 1
    while 4**half < n_windows:
        half += 1
    while True:
        left, right = window >> half, window % 2**half
        for i in range(6):
            left, right = right, left ^ (mix(right ^ hashes[i]) % 2**half)
        window = left << half | right
        if window < n_windows:
            break
    phase = hashes[6] % (n_tokens - n_windows * seq_len)
    return phase + window * seq_len


@given(size=SIZES, seed=st.integers(0, 2**70), first=st.integers(0, 10_000))
def test_the_offsets_are_those_of_the_slow_twin(
    size: tuple[int, int], seed: int, first: int
) -> None:
    expected = [slow_start(*size, seed, first + i) for i in range(7)]
    assert train_starts(*size, seed, first, 7).tolist() == expected


@given(size=SIZES, first=st.integers(0, 10_000), stride=st.integers(1, 40))
def test_sequences_may_be_drawn_with_a_stride(
    size: tuple[int, int], first: int, stride: int
) -> None:
    all_of_them = train_starts(*size, 5, first, 4 * stride)
    assert train_starts(*size, 5, first, 4, stride).tolist() == all_of_them[::stride].tolist()


def test_the_values_of_a_seed_never_change() -> None:
    """A checkpoint stores the step only; another order would change a resumed run."""
    shakespeare = train_starts(1_003_854, 64, 1337, 24 * 2000, 6)
    assert shakespeare.tolist() == [345794, 67586, 20866, 164290, 773442, 998082]
    assert train_starts(50, 7, 3, 4, 8).tolist() == [11, 18, 12, 19, 40, 33, 26, 5]


def test_epochs_and_seeds_differ_in_order_and_in_alignment() -> None:
    n_tokens, seq_len = 10_007, 64
    count = windows_per_epoch(n_tokens, seq_len)
    starts = train_starts(n_tokens, seq_len, 1, 0, 40 * count).reshape(40, count)
    orders = {tuple(np.argsort(row)) for row in starts}
    assert len(orders) == 40
    assert len(set(starts.min(axis=1) % seq_len)) > 20
    other = train_starts(n_tokens, seq_len, 2, 0, count)
    assert not np.array_equal(other, starts[0])


def test_every_token_is_a_target_about_equally_often() -> None:
    n_tokens, seq_len, epochs = 997, 16, 400
    count = windows_per_epoch(n_tokens, seq_len)
    starts = train_starts(n_tokens, seq_len, 5, 0, epochs * count)
    seen = np.bincount((starts[:, None] + 1 + np.arange(seq_len)).ravel(), minlength=n_tokens)
    assert seen[0] == 0
    edge = 2 * seq_len
    assert seen[edge:-edge].min() == epochs
    assert seen[1:].min() > 0  # the first and the last targets as well


def test_the_order_is_not_tied_to_the_place_in_the_text() -> None:
    n_tokens, seq_len = 64_065, 64
    count = windows_per_epoch(n_tokens, seq_len)
    starts = train_starts(n_tokens, seq_len, 11, 0, count).astype(float)
    assert abs(np.corrcoef(starts, np.arange(count))[0, 1]) < 0.15
    assert abs(np.corrcoef(starts[1:], starts[:-1])[0, 1]) < 0.15
    first_half = starts[: count // 2]
    assert abs(first_half.mean() / starts.mean() - 1) < 0.1


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 13])
def test_small_permutations_reach_every_place(size: int) -> None:
    n_tokens, seq_len = (size + 1) * 10, 10
    assert windows_per_epoch(n_tokens, seq_len) == size
    starts = train_starts(n_tokens, seq_len, 9, 0, 3000 * size).reshape(3000, size)
    first_window = starts.argmin(axis=1)  # when the first window has its turn
    shares = np.bincount(first_window, minlength=size) / 3000 * size
    assert shares.min() > 0.75
    assert shares.max() < 1.25


def test_one_window_serves_a_whole_step() -> None:
    assert train_starts(65, 64, 0, 0, 24).tolist() == [0] * 24


def test_gather_copies_windows_as_int32() -> None:
    tokens = np.arange(100, 130, dtype=np.uint16)
    windows = gather(tokens, np.array([3, 0, 26]), 3)
    assert windows.dtype == np.int32
    assert windows.tolist() == [[103, 104, 105, 106], [100, 101, 102, 103], [126, 127, 128, 129]]
    with pytest.raises(IndexError):
        gather(tokens, np.array([27]), 3)


def test_the_kernel_refuses_what_it_cannot_mean() -> None:
    starts = np.zeros(2, np.int64)
    for windows, slack in ((0, 0), (2**63, 0), (1, 2**64 - 1)):
        with pytest.raises(ValueError, match=f"an epoch of {windows} windows and {slack} tokens"):
            draw_starts(starts, windows, slack, 1, 0, 0)


@given(n_tokens=st.integers(0, 60), seq_len=st.integers(1, 12))
def test_every_held_out_token_but_the_first_is_predicted_once(n_tokens: int, seq_len: int) -> None:
    windows = val_windows(n_tokens, seq_len)
    targets = [start + 1 + i for start, length in windows for i in range(length)]
    assert targets == list(range(1, n_tokens))
    assert all(length == seq_len for _, length in windows[:-1])
    assert all(1 <= length <= seq_len for _, length in windows)


def test_a_context_longer_than_the_corpus_names_the_longest_that_works() -> None:
    with pytest.raises(DataError, match=r"40 tokens.*--seq-len 64.*--seq-len 39 or less") as info:
        train_starts(40, 64, 0, 0, 1)
    assert info.value.exit_code == 3
    check_fits(40, 0, 39)
    with pytest.raises(DataError, match="too few"):
        check_fits(40, 0, 40)
    with pytest.raises(DataError, match=r"1 token, too few.*Give more text\.$"):
        check_fits(1, 5, 8)


def test_one_held_out_token_cannot_be_evaluated() -> None:
    check_fits(40, 2, 8)
    with pytest.raises(DataError, match="--val-fraction 0"):
        check_fits(40, 1, 8)


@given(n=st.integers(0, 3000), seq_len=st.integers(1, 70), most=st.integers(0, 3500))
def test_spread_windows_are_some_of_all_and_even(n: int, seq_len: int, most: int) -> None:
    everything = val_windows(n, seq_len)
    found = spread_windows(n, seq_len, most)
    assert set(found) <= set(everything)
    assert found == sorted(set(found))
    predicted = sum(length for _, length in found)
    if most == 0 or n - 1 <= most:
        assert found == everything
    elif found != everything:
        assert most <= predicted < most + seq_len or len(found) == (n - 1) // seq_len
        gaps = {b[0] - a[0] for a, b in pairwise(found)}
        assert not gaps or max(gaps) - min(gaps) <= seq_len
        assert found[0][0] == 0
