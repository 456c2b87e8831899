"""How the next token is chosen from a row of logits.

One pure function for each method, on rows [V] of float64 in which -inf means
"excluded".  `Sampler` composes them in this order, which is also that of the
flags' documentation:

    repetition penalty → temperature → top-k → top-p → min-p → softmax → draw

Ties are always decided for the lowest token id, and the random number of a
draw is a pure function of (seed, sample, number of the draw), so the same
logits give the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crystalline.errors import CheckpointError, UsageError

Row = npt.NDArray[np.float64]  # [V]

REPEAT_WINDOW = 64  # newest tokens that the repetition penalty looks at
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class SamplingSettings:
    """The knobs of sampling; the defaults of temperature and top-p suit small models.

    >>> SamplingSettings(temperature=0).greedy
    True
    """

    temperature: float = 0.8  # 0 is greedy
    top_k: int = 0  # 0 keeps all
    top_p: float = 0.95  # 1 keeps all
    min_p: float = 0.0  # 0 keeps all
    repeat_penalty: float = 1.0  # 1 changes nothing
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(
                f"--temperature is {self.temperature}",
                advice="It must be a number of at least 0; 0 takes the likeliest token.",
            )
        if self.top_k < 0:
            raise UsageError(
                f"--top-k is {self.top_k}", advice="It must be at least 0; 0 keeps every token."
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(
                f"--top-p is {self.top_p}", advice="It must be greater than 0 and at most 1."
            )
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"--min-p is {self.min_p}", advice="It must lie between 0 and 1.")
        if not (math.isfinite(self.repeat_penalty) and self.repeat_penalty > 0):
            raise UsageError(
                f"--repeat-penalty is {self.repeat_penalty}",
                advice="It must be greater than 0; 1 changes nothing.",
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed is {self.seed}", advice="It must lie between 0 and 2^64 - 1.")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def checked(logits: npt.ArrayLike) -> Row:
    """Return a float64 copy of a row [V] that can be sampled from.

    Raises:
        CheckpointError: NaN or +inf among the logits, or nothing but -inf.
    """
    row = np.array(logits, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        raise ValueError(f"logits have shape {row.shape}, one row [V] is needed")
    top = row.max()  # NaN if there is one
    if not np.isfinite(top):
        fault = "NaN" if np.isnan(top) else "infinite" if top > 0 else "all -inf"
        raise CheckpointError(
            f"the model's logits are {fault}",
            advice="Its weights are damaged or its training diverged; use an earlier checkpoint.",
        )
    return row


def penalize_repeats(logits: Row, tokens: Sequence[int], penalty: float) -> Row:
    """Make each of `tokens` less likely: positive logits / penalty, negative × penalty.

    A token counts once, however often it occurs (Keskar et al. 2019, CTRL).

    >>> penalize_repeats(np.array([2.0, -1.0, 3.0]), [0, 1, 1], 2.0).tolist()
    [1.0, -2.0, 3.0]
    """
    seen = np.unique(np.asarray(tokens, dtype=np.int64))
    result = logits.copy()
    values = result[seen]
    result[seen] = np.where(values > 0, values / penalty, values * penalty)
    return result


def apply_temperature(logits: Row, temperature: float) -> Row:
    """Divide by `temperature` > 0, the largest logit taken as 0, so that nothing overflows.

    >>> apply_temperature(np.array([1.0, 3.0]), 0.5).tolist()
    [-4.0, 0.0]
    """
    with np.errstate(over="ignore"):  # a tiny temperature excludes all but the likeliest: -inf
        scaled: Row = (logits - logits.max()) / temperature
    return scaled


def keep_top_k(logits: Row, k: int) -> Row:
    """Exclude all but the `k` largest; 0 or k ≥ V keeps all.

    >>> keep_top_k(np.array([1.0, 2.0, 2.0, 2.0]), 2).tolist()
    [-inf, 2.0, 2.0, -inf]
    """
    if k == 0 or k >= logits.size:
        return logits.copy()
    smallest = np.partition(logits, logits.size - k)[logits.size - k]
    above = np.flatnonzero(logits > smallest)
    ties = np.flatnonzero(logits == smallest)[: k - above.size]
    return _only(logits, np.concatenate([above, ties]))


def keep_top_p(logits: Row, p: float) -> Row:
    """Exclude all but the smallest set of likeliest tokens whose probability reaches `p`.

    At least one token stays; 1 keeps all (Holtzman et al. 2020).

    >>> keep_top_p(np.log([0.5, 0.2, 0.3]), 0.6).round(3).tolist()
    [-0.693, -inf, -1.204]
    """
    if p >= 1:
        return logits.copy()
    order = np.argsort(-logits, kind="stable")
    reached = np.cumsum(softmax(logits)[order])
    count = int(np.searchsorted(reached, p, side="left")) + 1
    return _only(logits, order[:count])


def keep_min_p(logits: Row, p: float) -> Row:
    """Exclude tokens less likely than `p` times the likeliest; 0 keeps all.

    >>> keep_min_p(np.log([0.5, 0.2, 0.3]), 0.5).round(3).tolist()
    [-0.693, -inf, -1.204]
    """
    if p == 0:
        return logits.copy()
    return np.where(logits >= logits.max() + math.log(p), logits, -np.inf)


def softmax(logits: Row) -> Row:
    """Return the probabilities [V].

    >>> softmax(np.array([0.0, -np.inf, 0.0])).tolist()
    [0.5, 0.0, 0.5]
    """
    weights = np.exp(logits - logits.max())
    probabilities: Row = weights / weights.sum()
    return probabilities


def log_softmax(logits: Row) -> Row:
    """Return the natural logarithms [V] of the probabilities.

    >>> log_softmax(np.array([5.0, 5.0])).round(6).tolist()
    [-0.693147, -0.693147]
    """
    shifted: Row = logits - logits.max()
    logs: Row = shifted - math.log(np.exp(shifted).sum())
    return logs


def draw(probabilities: Row, uniform: float) -> int:
    """Return the token at `uniform` in [0, 1) of the cumulative distribution.

    A token of probability 0 is never returned.

    >>> [draw(np.array([0.25, 0.0, 0.75]), u) for u in (0.0, 0.25, 0.999)]
    [0, 2, 2]
    """
    reached = np.cumsum(probabilities)
    token = int(np.searchsorted(reached, uniform * reached[-1], side="right"))
    return min(token, int(np.flatnonzero(probabilities)[-1]))


def uniform(seed: int, sample: int, index: int) -> float:
    """Return the random number in [0, 1) of draw `index` of a sample (Philox 4x64, counted).

    >>> uniform(1, 0, 5) == uniform(1, 0, 5) != uniform(1, 0, 6)
    True
    """
    key = np.array([seed, sample], dtype=np.uint64)
    counter = np.array([index, 0, 0, 0], dtype=np.uint64)
    return float(np.random.Generator(np.random.Philox(counter=counter, key=key)).random())


def distribution(logits: npt.ArrayLike, settings: SamplingSettings, recent: Sequence[int]) -> Row:
    """Return the probabilities [V] to draw from, after every method in the documented order.

    `recent` are the tokens that the repetition penalty applies to.  At
    temperature 0 all probability is on the likeliest token.
    """
    row = checked(logits)
    if settings.repeat_penalty != 1 and len(recent):
        row = penalize_repeats(row, recent, settings.repeat_penalty)
    if settings.greedy:
        only = np.zeros_like(row)
        only[int(row.argmax())] = 1.0
        return only
    row = apply_temperature(row, settings.temperature)
    row = keep_top_k(row, settings.top_k)
    row = keep_top_p(row, settings.top_p)
    return softmax(keep_min_p(row, settings.min_p))


class Sampler:
    """Chooses the tokens of one sample, one after the other.

    >>> Sampler(SamplingSettings(temperature=0)).choose(np.array([0.0, 7.0, 7.0]), [])
    1
    """

    def __init__(self, settings: SamplingSettings, sample: int = 0) -> None:
        self.settings = settings
        self._sample = sample
        self._draws = 0

    def choose(self, logits: npt.ArrayLike, tokens: Sequence[int]) -> int:
        """Return the next token after `tokens`, whose logits [V] these are."""
        probabilities = distribution(logits, self.settings, tokens[-REPEAT_WINDOW:])
        if self.settings.greedy:
            return int(probabilities.argmax())
        number = uniform(self.settings.seed, self._sample, self._draws)
        self._draws += 1
        return draw(probabilities, number)


def _only(logits: Row, kept: npt.NDArray[np.intp]) -> Row:
    result = np.full_like(logits, -np.inf)
    result[kept] = logits[kept]
    return result
