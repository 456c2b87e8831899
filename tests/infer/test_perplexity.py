"""Scores of whole texts: every token once, in its own window."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.infer.perplexity import score_text
from crystalline.infer.scheduler import Scheduler
from tests.infer.fake_model import FakeDecoder, noise


@pytest.fixture(scope="module")
def byte():
    return Tokenizer.train("byte", [], 0)


def twin(rule, ids, window):
    """Each token but the first, from what is before it in its window of `window` inputs."""
    nats = []
    for at in range(1, len(ids)):
        start = (at - 1) // window * window
        row = rule(tuple(ids[start:at]))
        nats.append(math.log(math.fsum(math.exp(v) for v in row)) - row[ids[at]])
    return nats


@pytest.mark.parametrize("length", [2, 5, 6, 7, 11, 12, 23])
def test_every_token_is_predicted_once(byte, length):
    text = "the quick brown fox jumps"[:length]
    decoder = FakeDecoder(noise(257), vocab_size=257, seq_len=5)
    score = score_text(Scheduler(decoder), byte, text)
    nats = twin(noise(257), list(text.encode()), 5)
    assert (score.tokens, score.size_bytes) == (length, length)
    assert score.nats_per_token == pytest.approx(math.fsum(nats) / (length - 1), rel=1e-12)
    assert score.perplexity == pytest.approx(math.exp(math.fsum(nats) / (length - 1)), rel=1e-9)


def test_an_even_model_has_the_entropy_of_its_vocabulary(byte):
    decoder = FakeDecoder(lambda _: np.zeros(257), vocab_size=257, seq_len=7)
    score = score_text(Scheduler(decoder), byte, "äöü and more")
    assert score.nats_per_token == pytest.approx(math.log(257))
    assert score.perplexity == pytest.approx(257)
    assert score.bits_per_byte == pytest.approx(math.log2(257))
    assert score.tokens == score.size_bytes == len("äöü and more".encode())


def test_bits_per_byte_count_bytes_not_tokens():
    char = Tokenizer.train("char", ["äb"], 0)
    decoder = FakeDecoder(lambda _: np.zeros(2), vocab_size=2, seq_len=4)
    score = score_text(Scheduler(decoder), char, "äbäbäb")
    assert (score.tokens, score.size_bytes) == (6, 9)
    assert score.bits_per_byte == pytest.approx(6 / 9)


def test_progress_reaches_the_end(byte):
    told = []
    decoder = FakeDecoder(lambda _: np.zeros(257), vocab_size=257, seq_len=4)
    score_text(Scheduler(decoder), byte, "0123456789", progress=lambda *now: told.append(now))
    assert told == [(4, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize("text", ["", "a"])
def test_too_short_a_text(byte, text):
    decoder = FakeDecoder(noise(257), vocab_size=257, seq_len=4)
    with pytest.raises(DataError, match=f"{len(text)} token"):
        score_text(Scheduler(decoder), byte, text)


def test_a_broken_model_is_named(byte):
    decoder = FakeDecoder(lambda _: np.full(257, np.nan), vocab_size=257, seq_len=4)
    with pytest.raises(CheckpointError, match="not a number"):
        score_text(Scheduler(decoder), byte, "abc")


def test_an_absurd_loss_has_infinite_perplexity(byte):
    rule = np.zeros(257)
    rule[ord("a")] = -5000.0
    decoder = FakeDecoder(lambda _: rule, vocab_size=257, seq_len=4)
    assert score_text(Scheduler(decoder), byte, "aaaa").perplexity == math.inf
