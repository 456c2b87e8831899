"""Beam search: the likeliest continuation, as far as a beam of the given width can see.

A hypothesis of n tokens (an end-of-text token included) with natural
log-probability lp has the score lp / n**alpha; alpha 0 compares plain
log-probabilities and prefers short texts, 1 compares the mean per token.  In
each step the 2 × width likeliest continuations are looked at: those that end
are set aside, the first `width` of the others go on.  The search ends when
`width` finished hypotheses are at least as good as anything still growing can
become, or after `max_tokens`.  Ties are decided for the lower beam and the
lower token id, so the result is a function of model and prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crystalline.infer.protocol import Logits
from crystalline.infer.sampling import checked, log_softmax
from crystalline.infer.scheduler import Job, Scheduler

DEFAULT_ALPHA = 1.0


@dataclass(frozen=True)
class Hypothesis:
    """A continuation of the prompt."""

    tokens: tuple[int, ...]
    log_probability: float  # nats
    score: float  # log_probability / len(tokens)**alpha
    finish_reason: str  # what `ends` said, or "length"


@dataclass(frozen=True)
class _Beam:
    tokens: tuple[int, ...]
    log_probability: float


class BeamSearch(Job):
    """A search as a job of `width` sequences; what it `found` is there in the end, best first.

    `ends` returns why a continuation is complete, or None when it may go on.  Tokens of
    `vocab_size` and above are never taken.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        width: int,
        max_tokens: int,
        vocab_size: int,
        ends: Callable[[tuple[int, ...]], str | None],
        alpha: float = DEFAULT_ALPHA,
    ) -> None:
        super().__init__(prompt)
        self.width = width
        self.found: list[Hypothesis] = []
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self._ends = ends
        self._alpha = alpha
        self._beams = [_Beam((), 0.0)]

    def advance(self, rows: Sequence[Logits]) -> list[tuple[int, int]]:
        """Set the continuations aside that end; return the likeliest of the others."""
        candidates = _continuations(
            self._beams, [row[: self._vocab_size] for row in rows], 2 * self.width
        )
        length = len(self._beams[0].tokens) + 1
        onward: list[tuple[int, int]] = []
        grown: list[_Beam] = []
        for source, beam in candidates:
            reason = self._ends(beam.tokens)
            if reason is None and length == self._max_tokens:
                reason = "length"
            if reason is not None:
                score = beam.log_probability / length**self._alpha
                self.found.append(Hypothesis(beam.tokens, beam.log_probability, score, reason))
            elif len(grown) < self.width:
                onward.append((source, beam.tokens[-1]))
                grown.append(beam)
        self.found.sort(key=lambda h: (-h.score, h.tokens))
        del self.found[self.width :]
        self._beams = grown
        return [] if self._is_settled() else onward

    def _is_settled(self) -> bool:
        """Return whether nothing that still grows can become one of the best."""
        if len(self.found) < self.width:
            return not self._beams
        # log-probabilities only fall, so this is the best score a growing beam can reach
        most = self._max_tokens**self._alpha
        reachable = max((beam.log_probability / most for beam in self._beams), default=-np.inf)
        return self.found[-1].score >= reachable


def beam_search(scheduler: Scheduler, search: BeamSearch) -> list[Hypothesis]:
    """Return what a search finds: at most its `width` continuations, best score first.

    The scheduler's decoder has at least `width` slots.
    """
    scheduler.submit(search)
    scheduler.finish(search)
    return search.found


def _continuations(beams: list[_Beam], rows: list[Logits], count: int) -> list[tuple[int, _Beam]]:
    """Return the `count` likeliest (index of its beam, beam one token longer), best first."""
    totals = np.concatenate(
        [b.log_probability + log_softmax(checked(row)) for b, row in zip(beams, rows, strict=True)]
    )
    vocab_size = totals.size // len(beams)
    count = min(count, totals.size)
    least = np.partition(totals, totals.size - count)[totals.size - count]
    chosen = np.flatnonzero((totals >= least) & (totals > -np.inf))
    chosen = chosen[np.argsort(-totals[chosen], kind="stable")][:count]
    result = []
    for flat in chosen.tolist():
        source, token = divmod(flat, vocab_size)
        result.append((source, _Beam((*beams[source].tokens, token), float(totals[flat]))))
    return result
