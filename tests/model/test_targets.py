"""Targets that do not count: no part in the loss, and none in its gradients.

The oracle knows no such targets.  But attention looks back only: where the targets of a
sequence count up to a place, loss and gradients are those of the sequence cut there; where they
count from there on, the rest of the whole.
"""

from __future__ import annotations

import numpy as np
import pytest

from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from tests.model.test_crystalline_loss import neighbors
from tests.model.test_gradients import BLOCKS, ODD, TILES, assert_same_gradients
from tests.oracles import gpt2

LOSS_TOLERANCE = 2e-6


@pytest.mark.parametrize(
    ("config", "sequences", "length", "cut"),
    [(ODD, 3, 13, 5), (ODD, 45, 13, 1), (TILES, 2, 65, 40), (BLOCKS, 1, 125, 60)],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_part_of_the_targets_agrees_with_the_oracle(
    config: ModelConfig, sequences: int, length: int, cut: int, first: bool
) -> None:
    params = gpt2.random_parameters(config, seed=1)
    tokens = gpt2.random_tokens(config, sequences, length + 1, seed=3).astype(np.int32)
    loss, grads = gpt2.loss_and_gradients(params, config, tokens[:, :cut], tokens[:, 1 : cut + 1])
    targets = tokens[:, 1:].copy()
    if first:
        targets[:, cut:] = -1
    else:
        targets[:, :cut] = -1
        whole, all_grads = gpt2.loss_and_gradients(params, config, tokens[:, :-1], tokens[:, 1:])
        loss, grads = whole - loss, {name: all_grads[name] - grads[name] for name in grads}
    flat = gpt2.to_flat(config, params)
    model = Transformer.allocate(config, flat)
    found = np.full_like(flat, np.nan)
    scale = 1.0 / (targets >= 0).sum()
    got = model.compute(tokens, found, scale=scale, targets=targets)
    assert got == pytest.approx(loss, rel=LOSS_TOLERANCE)
    assert model.evaluate(tokens, targets) == got
    tolerance = 2e-5 if first else 1e-4  # a difference of large sums
    assert_same_gradients(parameter_table(config).views(found), grads, scale, tolerance)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_targets_that_all_count_change_no_bit(precision: str, epsilon: float) -> None:
    flat = gpt2.to_flat(ODD, gpt2.random_parameters(ODD, seed=1))
    tokens = gpt2.random_tokens(ODD, 45, 14, seed=3).astype(np.int32)
    model = Transformer.allocate(ODD, flat, precision=precision)
    model.set_neighbors(*neighbors(ODD, 4))
    plain, told = np.zeros_like(flat), np.zeros_like(flat)
    loss = model.compute(tokens, plain, scale=0.1, epsilon=epsilon)
    smoothed = model.smoothed_loss
    targets = np.ascontiguousarray(tokens[:, 1:])
    assert model.compute(tokens, told, scale=0.1, epsilon=epsilon, targets=targets) == loss
    assert model.smoothed_loss == smoothed
    np.testing.assert_array_equal(plain, told)
    targets[:] = -1
    assert model.compute(tokens, told, scale=0.1, epsilon=epsilon, targets=targets) == 0.0
    assert model.smoothed_loss == 0.0
    assert not told.any()


def test_smoothed_targets_that_do_not_count_add_nothing() -> None:
    """Losses and gradients of two halves of the targets come to those of all."""
    flat = gpt2.to_flat(ODD, gpt2.random_parameters(ODD, seed=1))
    tokens = gpt2.random_tokens(ODD, 5, 14, seed=3).astype(np.int32)
    model = Transformer.allocate(ODD, flat)
    model.set_neighbors(*neighbors(ODD, 4))
    grads = np.zeros((3, flat.size), np.float32)
    whole = model.compute(tokens, grads[0], scale=0.1, epsilon=0.3)
    smoothed = model.smoothed_loss
    mask = np.random.default_rng(4).random((5, 13)) < 0.5
    halves = []
    for half, counts in ((1, mask), (2, ~mask)):
        targets = np.where(counts, tokens[:, 1:], -1).astype(np.int32)
        loss = model.compute(tokens, grads[half], scale=0.1, epsilon=0.3, targets=targets)
        halves.append((loss, model.smoothed_loss))
    assert np.sum(halves, axis=0) == pytest.approx([whole, smoothed], rel=1e-6)
    assert np.abs(grads[1] + grads[2] - grads[0]).max() < 1e-5 * np.abs(grads[0]).max()


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (np.full((1, 5), 67, np.int32), "targets holds 67, outside the vocabulary of 67"),
        (np.full((1, 5), -2, np.int32), "targets holds -2"),
        (np.zeros((1, 4), np.int32), r"targets is \[1, 4\], the tokens need \[1, 5\]"),
    ],
)
def test_what_cannot_be_targets_is_refused(targets: np.ndarray, words: str) -> None:
    flat = gpt2.to_flat(ODD, gpt2.random_parameters(ODD, seed=1))
    model = Transformer.allocate(ODD, flat)
    tokens = np.zeros((1, 6), np.int32)
    with pytest.raises(ValueError, match=words):
        model.compute(tokens, np.zeros_like(flat), scale=1.0, targets=targets)
    with pytest.raises(ValueError, match=words):
        model.evaluate(tokens, targets)
