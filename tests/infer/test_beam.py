"""Beam search, against every continuation there is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from crystalline.infer.beam import BeamSearch, beam_search
from crystalline.infer.scheduler import Scheduler
from tests.infer.fake_model import FakeDecoder, noise

V, EOT = 4, 3


def log_probabilities(rule, cache):
    row = np.asarray(rule(cache), dtype=np.float32).astype(np.float64)
    return row - math.log(math.fsum(math.exp(value) for value in row))


def ends(tokens):
    return "eot" if tokens[-1] == EOT else None


def window(tokens, prompt_length, seq_len):
    """The tokens that the model sees, by the documented rule of the full context."""
    cache = list(tokens[:prompt_length])[-seq_len:]
    for token in tokens[prompt_length:]:
        cache.append(token)
        if len(cache) > seq_len:
            cache = cache[-max(1, seq_len // 2) :]
    return tuple(cache)


def every_continuation(rule, prompt, longest, alpha, seq_len=99):
    """Return (score, tokens, log-probability) of all of them, best first."""
    found = []
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(V), repeat=length):
            if EOT in tokens[:-1] or (tokens[-1] != EOT and length < longest):
                continue
            total = sum(
                log_probabilities(rule, window((*prompt, *tokens[:at]), len(prompt), seq_len))[
                    token
                ]
                for at, token in enumerate(tokens)
            )
            found.append((total / length**alpha, tokens, total))
    return sorted(found, key=lambda entry: (-entry[0], entry[1]))


def search(rule, prompt, width, longest, *, seq_len=99, slots=None, **more):
    decoder = FakeDecoder(rule, vocab_size=V, seq_len=seq_len, slots=slots or width)
    more.setdefault("ends", ends)
    more.setdefault("vocab_size", V)
    return beam_search(
        Scheduler(decoder), BeamSearch(prompt, width=width, max_tokens=longest, **more)
    )


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("prompt", [[1], [0, 2, 1]])
def test_a_wide_beam_finds_the_best_of_all(prompt, alpha):
    rule = noise(V)
    expected = every_continuation(rule, prompt, 4, alpha)
    found = search(rule, prompt, 3**3 * V, 4, alpha=alpha)
    assert len(found) == min(3**3 * V, len(expected))
    for hypothesis, (score, tokens, total) in zip(found, expected, strict=False):
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score, rel=1e-9)
        assert hypothesis.log_probability == pytest.approx(total, rel=1e-9)
        assert hypothesis.finish_reason == ("eot" if tokens[-1] == EOT else "length")


def test_a_narrow_beam_reports_true_scores_and_is_not_better_than_all():
    rule = noise(V)
    everything = {t: score for score, t, _ in every_continuation(rule, [2], 5, 1.0)}
    found = search(rule, [2], 3, 5)
    assert len(found) == 3
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)
    assert [everything[h.tokens] for h in found] == pytest.approx(scores, rel=1e-9)


def test_it_sees_what_greedy_misses():
    """The likeliest first token leads to an even spread, the second to certainty."""

    def rule(cache):
        if len(cache) == 1:
            return np.log([0.45, 0.40, 0.10, 0.05])
        return np.log([0.97, 0.01, 0.01, 0.01] if cache[1] == 1 else [0.25, 0.25, 0.25, 0.25])

    assert search(rule, [0], 1, 2)[0].tokens == (0, 0)
    assert search(rule, [0], 2, 2)[0].tokens == (1, 0)


def test_width_one_is_greedy():
    rule = noise(V)
    cache, expected = [1], []
    while len(expected) < 6:
        expected.append(int(np.argmax(rule(tuple(cache))[:EOT])))
        cache.append(expected[-1])
    found = search(rule, [1], 1, 6, vocab_size=EOT)  # the end is not on offer
    assert found[0].tokens == tuple(expected)


@pytest.mark.parametrize("seq_len", [1, 2, 3, 5])
def test_it_goes_on_in_a_full_context(seq_len):
    rule = noise(V)
    expected = every_continuation(rule, [2, 0], 4, 1.0, seq_len)
    found = search(rule, [2, 0], 3**3 * V, 4, seq_len=seq_len)
    assert found[0].tokens == expected[0][1]
    assert found[0].score == pytest.approx(expected[0][0], rel=1e-9)


def test_ties_are_decided_for_the_lower_ids():
    found = search(lambda _: np.zeros(V), [0], 2, 2, ends=lambda _: None)
    assert [h.tokens for h in found] == [(0, 0), (0, 1)]


def test_it_is_repeatable():
    assert search(noise(V), [1, 1], 3, 8) == search(noise(V), [1, 1], 3, 8)


def test_it_ends_early_when_nothing_can_get_better():
    def rule(cache):
        return (
            np.log([0.005, 0.003, 0.002, 0.99])
            if len(cache) > 1
            else np.log([0.97, 0.01, 0.01, 0.01])
        )

    decoder = FakeDecoder(rule, vocab_size=V, seq_len=99, slots=2)
    lone = BeamSearch([0], width=2, max_tokens=50, vocab_size=V, ends=ends, alpha=0.0)
    found = beam_search(Scheduler(decoder), lone)
    assert found[0].tokens == (0, EOT)
    assert len(decoder.calls) < 6


def test_it_waits_for_a_mean_that_can_still_rise():
    """An early end beats the growing beam's sum, but not the mean it comes to."""

    def rule(cache):
        return np.log([0.45, 1e-9, 1e-9, 0.55] if len(cache) == 1 else [0.999, 1e-9, 1e-9, 1e-9])

    found = search(rule, [0], 1, 6)
    assert found[0].tokens == (0,) * 6


def test_a_stop_ends_a_hypothesis():
    found = search(
        noise(V), [1], 4, 3, ends=lambda tokens: "stop" if tokens[-2:] == (2, 2) else None
    )
    assert all(h.finish_reason == "length" or h.tokens[-2:] == (2, 2) for h in found)
    only = search(noise(V), [1], 1, 9, ends=lambda _: "stop")
    assert [(len(h.tokens), h.finish_reason) for h in only] == [(1, "stop")]


def test_impossible_tokens_are_never_taken():
    def rule(_):
        return np.array([-np.inf, 0.0, -np.inf, -np.inf])

    found = search(rule, [0], 3, 4)
    assert [h.tokens for h in found] == [(1, 1, 1, 1)]


def test_too_few_slots():
    with pytest.raises(ValueError, match="slots"):
        search(noise(V), [0], 3, 2, slots=2)


def test_the_prompt_is_read_once():
    decoder = FakeDecoder(noise(V), vocab_size=V, seq_len=99, slots=3)
    wide = BeamSearch([1, 2, 0], width=3, max_tokens=3, vocab_size=V, ends=lambda _: None)
    beam_search(Scheduler(decoder), wide)
    assert [sorted(map(len, call.values())) for call in decoder.calls] == [[3], [1] * 3, [1] * 3]
