"""How the next token is chosen from a row of logits.

One pure function for each method, on rows [V] of float64 in which -inf means
"excluded".  `candidates` composes them in this order, which is also that of the
flags' documentation:

    repetition penalty → temperature → top-k → top-p → min-p → softmax → draw

From top-k on it holds the tokens that are left and no others, and nothing sorts a whole
vocabulary: a text must not wait longer for its draw than for its model.

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
Ids = npt.NDArray[np.intp]  # of tokens, or places in a row; ascending

REPEAT_WINDOW = 64  # newest tokens that the repetition penalty looks at
MAX_SEED = 2**64 - 1

_FEW = 256  # tokens that top-p mostly leaves


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
    return _only(logits, _top_k(logits, k)) if 0 < k < logits.size else logits.copy()


def keep_top_p(logits: Row, p: float) -> Row:
    """Exclude all but the smallest set of likeliest tokens whose probability reaches `p`.

    At least one token stays; 1 keeps all (Holtzman et al. 2020).

    >>> keep_top_p(np.log([0.5, 0.2, 0.3]), 0.6).round(3).tolist()
    [-0.693, -inf, -1.204]
    """
    return _only(logits, _top_p(logits, p)) if p < 1 else logits.copy()


def keep_min_p(logits: Row, p: float) -> Row:
    """Exclude tokens less likely than `p` times the likeliest; 0 keeps all.

    >>> keep_min_p(np.log([0.5, 0.2, 0.3]), 0.5).round(3).tolist()
    [-0.693, -inf, -1.204]
    """
    return _only(logits, _min_p(logits, p)) if p > 0 else logits.copy()


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


def candidates(
    logits: npt.ArrayLike, settings: SamplingSettings, recent: Sequence[int]
) -> tuple[Ids, Row]:
    """Return the tokens that may be drawn, after every method in the documented order.

    With them come their probabilities.  `recent` are the tokens that the repetition penalty
    applies to.  At temperature 0 it is the likeliest token alone.
    """
    row = checked(logits)
    if settings.repeat_penalty != 1 and len(recent):
        row = penalize_repeats(row, recent, settings.repeat_penalty)
    if settings.greedy:
        return np.array([row.argmax()]), np.ones(1)
    row = apply_temperature(row, settings.temperature)
    ids = np.arange(row.size)
    if 0 < settings.top_k < row.size:
        kept = _top_k(row, settings.top_k)
        ids, row = ids[kept], row[kept]
    if settings.top_p < 1:
        kept = _top_p(row, settings.top_p)
        ids, row = ids[kept], row[kept]
    if settings.min_p > 0:
        kept = _min_p(row, settings.min_p)
        ids, row = ids[kept], row[kept]
    return ids, softmax(row)


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
        ids, probabilities = candidates(logits, self.settings, tokens[-REPEAT_WINDOW:])
        if self.settings.greedy:
            return int(ids[0])
        number = uniform(self.settings.seed, self._sample, self._draws)
        self._draws += 1
        return int(ids[draw(probabilities, number)])


def _top_k(logits: Row, k: int) -> Ids:
    """Return the places of the `k` largest, 0 < k < size; of equal ones, the lower."""
    smallest = np.partition(logits, logits.size - k)[logits.size - k]
    above = np.flatnonzero(logits > smallest)
    ties = np.flatnonzero(logits == smallest)[: k - above.size]
    return np.sort(np.concatenate([above, ties]))


def _top_p(logits: Row, p: float) -> Ids:
    """Return the places of the smallest set of likeliest ones that reaches `p` < 1."""
    weights = softmax(logits)
    # What is less likely than this has less than 1 - p altogether, so the others reach p
    # without it; half of it leaves room for rounding.
    possible = np.flatnonzero(weights >= 0.5 * (1 - p) / logits.size)
    count = _FEW
    while True:
        likeliest = possible
        if count < possible.size:  # sort no more than are needed
            values = logits[possible]
            least = np.partition(values, values.size - count)[values.size - count]
            likeliest = possible[values >= least]
        order = likeliest[np.argsort(-logits[likeliest], kind="stable")]
        reached = np.cumsum(weights[order])
        if reached[-1] >= p or likeliest.size == possible.size:
            break
        count *= 8
    return np.sort(order[: int(np.searchsorted(reached, p, side="left")) + 1])


def _min_p(logits: Row, p: float) -> Ids:
    """Return the places of those at least `p` > 0 times as likely as the likeliest."""
    return np.flatnonzero(logits >= logits.max() + math.log(p))


def _only(logits: Row, kept: Ids) -> Row:
    result = np.full_like(logits, -np.inf)
    result[kept] = logits[kept]
    return result
