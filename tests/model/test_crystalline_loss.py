"""The model's crystalline loss: its gradients against float64, its limits, and what it depends on.

An earlier system computed its loss from token ids alone, so that it could not depend on the model.
The last section makes that impossible: both losses must move with every tensor of the model, and
the check itself is shown to fail for a loss of the ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import gpt2, ops
from tests.oracles.ops import F64

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

GRADIENT_TOLERANCE = 2e-5  # of the largest entry of a tensor
LOSS_TOLERANCE = 2e-6

ODD = ModelConfig(vocab_size=67, seq_len=13, num_layers=2, num_heads=3, embed_dim=21)
WIDE = ModelConfig(vocab_size=1031, seq_len=33, num_layers=1, num_heads=2, embed_dim=32)
BLOCKS = ModelConfig(vocab_size=70001, seq_len=125, num_layers=1, num_heads=1, embed_dim=12)


def neighbors(config: ModelConfig, k: int, seed: int = 0) -> tuple[I32, F32]:
    """Random neighbors; every fifth token has none."""
    rng = np.random.default_rng((k, seed))
    V = config.vocab_size
    ids = (np.arange(V)[:, None] + rng.integers(1, V, (V, k))) % V
    weights = rng.random((V, k))
    weights /= weights.sum(axis=1, keepdims=True)
    weights[::5] = 0.0
    return ids.astype(np.int32), weights.astype(np.float32)


def subject(
    config: ModelConfig, k: int = 4, *, precision: str = "float32"
) -> tuple[Transformer, F32]:
    """Return a model with neighbors, and a buffer for its gradients."""
    flat = gpt2.to_flat(config, gpt2.random_parameters(config, seed=1))
    model = Transformer.allocate(config, flat, precision=precision)
    model.set_neighbors(*neighbors(config, k))
    return model, np.zeros_like(flat)


def batch(config: ModelConfig, sequences: int, length: int, seed: int = 11) -> I32:
    return gpt2.random_tokens(config, sequences, length + 1, seed).astype(np.int32)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(
    ("config", "sequences", "length"),
    [(ODD, 3, 7), (ODD, 45, 13), (ODD, 1, 1), (WIDE, 2, 33)],
    ids=["odd", "more than a chunk", "one position", "wide"],
)
def test_losses_and_every_gradient_agree_with_the_oracle(
    config: ModelConfig, sequences: int, length: int, epsilon: float
) -> None:
    model, grads = subject(config)
    tokens = batch(config, sequences, length)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    scale = 1.0 / targets.size
    params = gpt2.random_parameters(config, seed=1)
    soft = ops.soft_targets(*neighbors(config, 4), epsilon)
    smoothed, expected = gpt2.loss_and_gradients(params, config, inputs, targets, scale, soft=soft)
    plain = gpt2.loss(params, config, inputs, targets)
    got = model.compute(tokens, grads, scale=scale, epsilon=epsilon)
    assert got == pytest.approx(plain, rel=LOSS_TOLERANCE)
    assert model.smoothed_loss == pytest.approx(smoothed, rel=LOSS_TOLERANCE)
    assert_same_gradients(parameter_table(config).views(grads), expected)


def assert_same_gradients(
    got: dict[str, F32], expected: dict[str, F64], tolerance: float = GRADIENT_TOLERANCE
) -> None:
    assert list(got) == list(expected)
    for name, want in expected.items():
        assert np.abs(got[name] - want).max() <= tolerance * np.abs(want).max(), name


def test_gradients_are_slopes_of_the_smoothed_loss_alone() -> None:
    """Finite differences of what `compute` itself returns, one direction a tensor."""
    model, grads = subject(ODD)
    tokens, table = batch(ODD, 3, 13), parameter_table(ODD)
    model.compute(tokens, grads, scale=1.0, epsilon=0.3)
    found = {name: view.copy() for name, view in table.views(grads).items()}
    params = gpt2.random_parameters(ODD, seed=1)
    rng = np.random.default_rng(5)
    for name in found:
        direction = rng.standard_normal(found[name].shape)
        direction /= np.linalg.norm(direction)
        losses, step = [], 0.02
        for sign in (1.0, -1.0):
            moved = gpt2.to_flat(ODD, {**params, name: params[name] + sign * step * direction})
            other = Transformer.allocate(ODD, moved)
            other.set_neighbors(*neighbors(ODD, 4))
            other.compute(tokens, grads, scale=1.0, epsilon=0.3)
            losses.append(other.smoothed_loss)
        slope = (losses[0] - losses[1]) / (2 * step)
        size = max(1.0, float(np.linalg.norm(found[name])))
        assert slope == pytest.approx((found[name] * direction).sum(), abs=5e-3 * size), name


def test_a_head_in_several_blocks_sums_both_losses() -> None:
    model, grads = subject(BLOCKS, k=3)
    tokens = batch(BLOCKS, 1, 125)
    plain = model.compute(tokens, grads, scale=0.5, epsilon=0.25)
    logits = model.logits(np.ascontiguousarray(tokens[:, :-1]))[0].astype(np.float64)
    assert plain == model.evaluate(tokens)
    ids, weights = neighbors(BLOCKS, 3)
    expected = 0.0
    for target, row in zip(tokens[0, 1:], ops.log_softmax(logits), strict=True):
        epsilon = 0.25 if weights[target].any() else 0.0
        expected -= (1 - epsilon) * row[target] + epsilon * (weights[target] @ row[ids[target]])
    assert model.smoothed_loss == pytest.approx(expected, rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_epsilon_zero_is_plain_to_the_bit(precision: str) -> None:
    flat = gpt2.to_flat(ODD, gpt2.random_parameters(ODD, seed=1))
    plain = Transformer.allocate(ODD, flat, precision=precision)
    model, grads = subject(ODD, precision=precision)
    tokens, expected = batch(ODD, 45, 13), np.zeros_like(flat)
    loss = plain.compute(tokens, expected, scale=0.1)
    assert plain.smoothed_loss == loss
    model.compute(tokens, grads, scale=0.1, epsilon=0.5)
    assert grads.tobytes() != expected.tobytes()
    assert model.compute(tokens, grads, scale=0.1, epsilon=0.0) == loss == model.smoothed_loss
    assert grads.tobytes() == expected.tobytes()


def test_reported_losses_and_evaluation_stay_plain() -> None:
    model, grads = subject(ODD)
    tokens = batch(ODD, 3, 13)
    before = model.evaluate(tokens)
    plain = model.compute(tokens, grads, scale=1.0)
    assert model.compute(tokens, grads, scale=1.0, epsilon=0.4) == plain
    assert model.smoothed_loss != plain
    assert model.evaluate(tokens) == before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_second_lane_on_top_of_the_first_is_their_sum_to_the_bit(precision: str) -> None:
    model, together = subject(ODD, precision=precision)
    first, second = batch(ODD, 2, 13, seed=6), batch(ODD, 3, 12, seed=7)
    apart = np.zeros((2, together.size), np.float32)
    for tokens, lane in zip((first, second), apart, strict=True):
        model.compute(tokens, lane, scale=0.1, epsilon=0.3)
    smoothed = model.smoothed_loss
    side = np.full(Transformer.side_size(ODD), np.nan, np.float32)
    model.compute(first, together, scale=0.1, epsilon=0.3)
    model.compute(second, together, scale=0.1, side=side, epsilon=0.3)
    assert model.smoothed_loss == smoothed
    for name, got in parameter_table(ODD).views(together).items():
        want = parameter_table(ODD).views(apart[0] + apart[1])[name]
        np.testing.assert_array_equal(got, want, name)


def test_the_tables_are_read_in_place() -> None:
    """A remap writes new tables into the same shared memory."""
    model, grads = subject(ODD)
    ids, weights = neighbors(ODD, 4)
    model.set_neighbors(ids, weights)
    tokens = batch(ODD, 3, 13)
    model.compute(tokens, grads, scale=1.0, epsilon=0.3)
    before = model.smoothed_loss
    ids[:], weights[:] = neighbors(ODD, 4, seed=1)
    model.compute(tokens, grads, scale=1.0, epsilon=0.3)
    again, _ = subject(ODD)
    again.set_neighbors(*neighbors(ODD, 4, seed=1))
    again.compute(tokens, grads, scale=1.0, epsilon=0.3)
    assert model.smoothed_loss == again.smoothed_loss != before


def test_what_cannot_be_a_target_is_refused() -> None:
    model, grads = subject(ODD)
    tokens = batch(ODD, 1, 5)
    for epsilon in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}"):
            model.compute(tokens, grads, scale=1.0, epsilon=epsilon)
    ids, weights = neighbors(ODD, 4)
    with pytest.raises(ValueError, match=r"ids are \[66, 4\]: they must be \[67, k\]"):
        model.set_neighbors(ids[1:], weights[1:])
    with pytest.raises(ValueError, match=r"weights are \[67, 3\], the ids \[67, 4\]"):
        model.set_neighbors(ids, np.ascontiguousarray(weights[:, 1:]))
    with pytest.raises(TypeError, match="must not be None"):
        model.set_neighbors(None, None)
    ids[66, 3] = 67
    with pytest.raises(ValueError, match="neighbor 3 of token 66 is 67, outside the vocabulary"):
        model.set_neighbors(ids, weights)
    flat = np.zeros(parameter_table(ODD).size, np.float32)
    bare, grads = Transformer.allocate(ODD, flat), np.zeros_like(flat)
    with pytest.raises(ValueError, match="epsilon needs neighbors: call set_neighbors first"):
        bare.compute(tokens, grads, scale=1.0, epsilon=0.1)


# --- both losses depend on every tensor ----------------------------------------------------

Losses = Callable[[F32, I32], tuple[float, float]]
"""(weights, tokens) -> plain and smoothed loss."""


def model_losses(weights: F32, tokens: I32) -> tuple[float, float]:
    model = Transformer.allocate(ODD, weights)
    model.set_neighbors(*neighbors(ODD, 4))
    plain = model.compute(tokens, np.zeros_like(weights), scale=1.0, epsilon=0.3)
    return plain, model.smoothed_loss


def assert_losses_depend_on_every_tensor(losses: Losses) -> None:
    """Change one tensor after the other: each time both losses must move, and not by rounding."""
    params, tokens = gpt2.random_parameters(ODD, seed=1), batch(ODD, 3, 13)
    before = losses(gpt2.to_flat(ODD, params), tokens)
    rng = np.random.default_rng(9)
    for name, value in params.items():
        moved = {**params, name: value + 0.3 * rng.standard_normal(value.shape)}
        after = losses(gpt2.to_flat(ODD, moved), tokens)
        for kind, old, new in zip(("plain", "smoothed"), before, after, strict=True):
            assert abs(new - old) > 1e-4 * abs(old), f"the {kind} loss is blind to {name}"


def test_losses_depend_on_every_tensor() -> None:
    assert_losses_depend_on_every_tensor(model_losses)


def _loss_of_ids(_weights: F32, tokens: I32) -> float:
    """What the earlier system did: a similarity of the tokens' numbers, without any logits."""
    a, b = (tokens[:, :-1] + 1).ravel().tolist(), (tokens[:, 1:] + 1).ravel().tolist()
    return sum(1.0 - math.gcd(x, y) / max(x, y) for x, y in zip(a, b, strict=True))


def test_a_loss_of_token_ids_alone_would_be_found() -> None:
    with pytest.raises(AssertionError, match="the plain loss is blind to transformer"):
        assert_losses_depend_on_every_tensor(lambda w, t: (_loss_of_ids(w, t),) * 2)
    with pytest.raises(AssertionError, match="the smoothed loss is blind to transformer"):
        assert_losses_depend_on_every_tensor(
            lambda w, t: (model_losses(w, t)[0], _loss_of_ids(w, t))
        )


@pytest.mark.parametrize("name", [p.name for p in parameter_table(ODD).parameters])
def test_a_loss_blind_to_one_tensor_would_be_found(name: str) -> None:
    frozen = gpt2.to_flat(ODD, gpt2.random_parameters(ODD, seed=1))

    def blind(weights: F32, tokens: I32) -> tuple[float, float]:
        weights = weights.copy()
        views, originals = (parameter_table(ODD).views(x) for x in (weights, frozen))
        views[name][...] = originals[name]
        return model_losses(weights, tokens)

    with pytest.raises(AssertionError, match=f"blind to {name}"):
        assert_losses_depend_on_every_tensor(blind)
