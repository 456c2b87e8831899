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

from crystalline.infer.engine import newest_half
from crystalline.infer.protocol import Decoder, Logits
from crystalline.infer.sampling import checked, log_softmax

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


def beam_search(
    decoder: Decoder,
    prompt: Sequence[int],
    *,
    width: int,
    max_tokens: int,
    vocab_size: int,
    ends: Callable[[tuple[int, ...]], str | None],
    alpha: float = DEFAULT_ALPHA,
) -> list[Hypothesis]:
    """Return at most `width` continuations of `prompt`, best score first.

    `decoder` has at least `width` slots.  `ends` returns why a continuation is
    complete, or None when it may go on.  Tokens of `vocab_size` and above are
    never taken.
    """
    if width > decoder.slots:
        raise ValueError(f"{width} beams need as many slots, the decoder has {decoder.slots}")
    seq_len = decoder.config.seq_len
    context = list(prompt)[-seq_len:]
    rows = [decoder.prefill(context)]
    beams = [_Beam((), 0.0)]
    finished: list[Hypothesis] = []
    for length in range(1, max_tokens + 1):
        candidates = _continuations(beams, [row[:vocab_size] for row in rows], 2 * width)
        sources: list[int] = []
        grown: list[_Beam] = []
        for source, beam in candidates:
            reason = ends(beam.tokens)
            if reason is None and length == max_tokens:
                reason = "length"
            if reason is not None:
                score = beam.log_probability / length**alpha
                finished.append(Hypothesis(beam.tokens, beam.log_probability, score, reason))
            elif len(grown) < width:
                sources.append(source)
                grown.append(beam)
        finished.sort(key=lambda h: (-h.score, h.tokens))
        del finished[width:]
        # log-probabilities only fall, so this is the best score a growing beam can reach
        reachable = max((b.log_probability / max_tokens**alpha for b in grown), default=-np.inf)
        if not grown or (len(finished) == width and finished[-1].score >= reachable):
            break
        beams = grown
        rows = _advance(decoder, context, beams, sources)
    return finished


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


def _advance(
    decoder: Decoder, context: list[int], beams: list[_Beam], sources: list[int]
) -> list[Logits]:
    """Feed each beam's newest token; return the logits [V] of each."""
    seq_len = decoder.config.seq_len
    if decoder.length(0) < seq_len:
        decoder.reorder(sources)
        newest = np.array([beam.tokens[-1] for beam in beams], dtype=np.int32)
        return list(decoder.step(newest))
    return [
        decoder.prefill(newest_half([*context, *beam.tokens], seq_len), slot)
        for slot, beam in enumerate(beams)
    ]
