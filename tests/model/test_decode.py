"""The cached decoder against the full forward pass, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline.model.config import ModelConfig
from crystalline.model.decode import Decoder
from crystalline.model.transformer import Transformer
from crystalline.model.params import initialize, parameter_table

CONFIG = ModelConfig(vocab_size=67, seq_len=13, num_layers=2, num_heads=3, embed_dim=33)
TOLERANCE = 2e-5  # logits are of order 1; the two orders of summation differ by a few ulp


@pytest.fixture
def weights() -> np.ndarray:
    flat = np.zeros(parameter_table(CONFIG).size, np.float32)
    initialize(CONFIG, flat, seed=3)
    flat *= 5.0  # far from uniform, so that attention matters
    return flat


def full_logits(weights: np.ndarray, tokens: list[int]) -> np.ndarray:
    model = Transformer.allocate(CONFIG, weights)
    return model.logits(np.array([tokens], np.int32))[0]


def test_steps_equal_the_full_pass(weights: np.ndarray) -> None:
    tokens = np.random.default_rng(1).integers(0, 67, 13).tolist()
    expected = full_logits(weights, tokens)
    decoder = Decoder(CONFIG, weights)
    rows = [decoder.extend([0], [tokens[:4]])[0]]
    rows += [decoder.extend([0], [[token]])[0] for token in tokens[4:]]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.array(rows), expected[3:], atol=TOLERANCE * scale)
    assert decoder.length() == 13


def test_slots_do_not_mix_and_reorder_copies_them(weights: np.ndarray) -> None:
    a, b = [5, 9, 60, 2], [33, 1]
    decoder = Decoder(CONFIG, weights, slots=3)
    decoder.extend([1, 0], [b, a])
    rows = decoder.extend([0, 1], [[7], [8]])
    scale = np.abs(rows).max()
    np.testing.assert_allclose(rows[0], full_logits(weights, [*a, 7])[-1], atol=TOLERANCE * scale)
    np.testing.assert_allclose(rows[1], full_logits(weights, [*b, 8])[-1], atol=TOLERANCE * scale)
    decoder.reorder([1, 0, 1])
    assert [decoder.length(i) for i in range(3)] == [3, 5, 3]
    rows = decoder.extend([0, 1, 2], [[10], [11], [12]])
    for row, text in zip(rows, ([*b, 8, 10], [*a, 7, 11], [*b, 8, 12]), strict=True):
        np.testing.assert_allclose(row, full_logits(weights, text)[-1], atol=TOLERANCE * scale)


def test_score_is_the_log_softmax_of_the_full_pass(weights: np.ndarray) -> None:
    tokens = np.random.default_rng(2).integers(0, 67, 14)
    logits = full_logits(weights, tokens[:-1].tolist()).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(13), tokens[1:]]
    got = Decoder(CONFIG, weights).score(tokens)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert got.sum() == pytest.approx(
        Transformer.allocate(CONFIG, weights).evaluate(tokens[None].astype(np.int32)), rel=1e-6
    )


def test_any_slots_get_any_number_of_tokens(weights: np.ndarray) -> None:
    """Some empty, some not, in any order, one or many: as if each were read at once."""
    random = np.random.default_rng(4)
    decoder = Decoder(CONFIG, weights, slots=4)
    texts: list[list[int]] = [[], [], [], []]
    for _ in range(30):
        chosen = random.permutation(4)[: random.integers(1, 5)].tolist()
        for slot in chosen:
            if len(texts[slot]) > 9:
                keep = int(random.integers(0, 5))
                decoder.truncate(slot, keep)
                del texts[slot][keep:]
        added = [random.integers(0, 67, random.integers(1, 4)).tolist() for _ in chosen]
        rows = decoder.extend(chosen, added)
        for slot, ids, row in zip(chosen, added, rows, strict=True):
            texts[slot] += ids
            expected = full_logits(weights, texts[slot])[-1]
            np.testing.assert_allclose(row, expected, atol=TOLERANCE * np.abs(expected).max())
            assert decoder.length(slot) == len(texts[slot])


def test_bad_calls_are_refused(weights: np.ndarray) -> None:
    decoder = Decoder(CONFIG, weights, slots=2, chunk=14)
    decoder.extend([0], [[5, 9]])
    for slots, tokens, words in (
        ([0], [[1] * 12], "slot 0 holds 2 tokens and gets 12: the most are 13"),
        ([0, 1], [[1] * 7, [1] * 8], "15 tokens in one call: the most are 14"),
        ([1, 0], [[1], [67]], "token 67 is outside the vocabulary of 67"),
        ([0, 0], [[1], [1]], "distinct"),
        ([0, 1], [[1]], "1 texts for the slots"),
        ([], [], "0 texts"),
        ([0], [[]], "a row is needed"),
    ):
        with pytest.raises(ValueError, match=words):
            decoder.extend(slots, tokens)
    assert [decoder.length(slot) for slot in (0, 1)] == [2, 0]  # nothing was read
    for call in (lambda: decoder.extend([2], [[1]]), lambda: decoder.truncate(-1, 0)):
        with pytest.raises(IndexError, match="of 2"):
            call()
    with pytest.raises(ValueError, match="slot 0 holds 2 tokens, not 3"):
        decoder.truncate(0, 3)
    with pytest.raises(ValueError, match="slots is 0"):
        Decoder(CONFIG, weights, slots=0)
