"""(seed, sequence number) to training windows: pure functions, no state.

The sequence number is global: step × sequences per step + place within the step.
So the data of any step can be found again after a resume, on any number of workers.

T is the context length.  A window of T targets spans T + 1 tokens: inputs are all
but the last, targets all but the first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crystalline._kernels.windows import draw_starts
from crystalline.errors import DataError


def windows_per_epoch(n_tokens: int, seq_len: int) -> int:
    """Return how many windows of `seq_len` targets one epoch visits.

    One less than fit when the split is a multiple of nothing, so that every
    alignment of the windows has room; at least 1.

    >>> windows_per_epoch(1000, 64), windows_per_epoch(65, 64)
    (14, 1)
    """
    return max(1, n_tokens // seq_len - 1)


def train_starts(
    n_tokens: int, seq_len: int, seed: int, first: int, count: int, stride: int = 1
) -> npt.NDArray[np.int64]:
    """Return the start offsets of `count` sequences: `first`, `first + stride`, and so on.

    An epoch visits its windows, which do not overlap, once each in an order drawn
    from `seed` and the epoch; where the first window begins is drawn as well, so
    that the windows are cut differently in each epoch.  Where an epoch has fewer
    windows than a step has sequences, the step runs on into the next epochs.

    Returns int64[count], each from 0 to `n_tokens - seq_len - 1`.  Raises
    `DataError` when not even one window fits.

    >>> train_starts(10, 3, seed=7, first=0, count=2).tolist()
    [0, 3]
    """
    check_fits(n_tokens, 0, seq_len)
    n_windows = windows_per_epoch(n_tokens, seq_len)
    slack = n_tokens - 1 - n_windows * seq_len
    starts = np.empty(count, np.int64)
    draw_starts(starts, n_windows, slack, seq_len, seed % 2**64, first, stride)
    return starts


def gather(
    tokens: npt.NDArray[np.integer], starts: npt.NDArray[np.int64], seq_len: int
) -> npt.NDArray[np.int32]:
    """Copy the windows at `starts` out of `tokens`: int32[len(starts), seq_len + 1].

    >>> gather(np.arange(10, 20, dtype=np.uint16), np.array([0, 4]), 2).tolist()
    [[10, 11, 12], [14, 15, 16]]
    """
    offsets = starts[:, None] + np.arange(seq_len + 1)
    windows: npt.NDArray[np.int32] = tokens[offsets].astype(np.int32)
    return windows


def val_windows(n_tokens: int, seq_len: int) -> list[tuple[int, int]]:
    """Return (start, number of targets) of windows that predict every held-out token once.

    The first token has nothing before it and is not predicted.  A window spans
    `tokens[start : start + targets + 1]`; only the last may have fewer than
    `seq_len` targets.

    >>> val_windows(8, 3)
    [(0, 3), (3, 3), (6, 1)]
    >>> val_windows(1, 3)
    []
    """
    return [
        (start, min(seq_len, n_tokens - 1 - start)) for start in range(0, n_tokens - 1, seq_len)
    ]


def spread_windows(n_tokens: int, seq_len: int, most_tokens: int) -> list[tuple[int, int]]:
    """Return windows of `val_windows`, evenly spread, that predict about `most_tokens` tokens.

    All of them where the split predicts no more than that, or `most_tokens` is 0.  Otherwise
    whole windows only, as many as reach `most_tokens`: of n the k at i·n//k.  Which ones depends
    on the arguments alone.

    >>> spread_windows(50, 5, 14)
    [(0, 5), (15, 5), (30, 5)]
    >>> spread_windows(8, 3, 7) == spread_windows(8, 3, 0) == val_windows(8, 3)
    True
    """
    if not most_tokens or n_tokens - 1 <= most_tokens:
        return val_windows(n_tokens, seq_len)
    whole = (n_tokens - 1) // seq_len
    count = min(whole, -(-most_tokens // seq_len))
    if not whole:  # one window, cut short
        return val_windows(n_tokens, seq_len)
    return [(i * whole // count * seq_len, seq_len) for i in range(count)]


def check_fits(train_tokens: int, val_tokens: int, seq_len: int) -> None:
    """Raise `DataError` unless a window fits the training split and something can be evaluated.

    `val_tokens` 0 means that nothing is held out.
    """
    if train_tokens < seq_len + 1:
        longest = train_tokens - 1
        raise DataError(
            f"the training split has {_tokens(train_tokens)}, too few for --seq-len {seq_len} "
            f"(at least {seq_len + 1})",
            advice=f"Give more text, or use --seq-len {longest} or less."
            if longest >= 1
            else "Give more text.",
        )
    if val_tokens == 1:
        raise DataError(
            "the held-out split has 1 token, which leaves nothing to predict",
            advice="Give more text, hold out more with --val-fraction, or use --val-fraction 0.",
        )


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"
