"""Judges the judge: the float64 GPT-2 against differences and cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.oracles import gpt2, ops
from tests.oracles.ops import F64

SMALL = ModelConfig(vocab_size=11, seq_len=7, num_layers=2, num_heads=3, embed_dim=15)
NAMES = [p.name for p in parameter_table(SMALL).parameters]


def batch(config: ModelConfig, sequences: int, length: int, seed: int) -> tuple[ops.Ints, ops.Ints]:
    tokens = gpt2.random_tokens(config, sequences, length + 1, seed)
    return tokens[:, :-1], tokens[:, 1:]


def masks(config: ModelConfig, B: int, T: int, seed: int) -> dict[str, F64]:
    """A mask at every dropout site, each with its own keep probability."""
    C, H = config.embed_dim, config.num_heads
    shapes: dict[str, tuple[int, ...]] = {"embedding": (B, T, C)}
    for layer in range(config.num_layers):
        shapes[f"h.{layer}.attention"] = (B, H, T, T)
        shapes[f"h.{layer}.attention_output"] = (B, T, C)
        shapes[f"h.{layer}.mlp_output"] = (B, T, C)
    generator = np.random.default_rng(seed)
    keeps = np.linspace(0.6, 0.9, len(shapes))
    return {
        site: (generator.random(shape) < keep) / keep
        for (site, shape), keep in zip(shapes.items(), keeps, strict=True)
    }


def slope(
    params: dict[str, F64],
    name: str,
    direction: F64,
    tokens: ops.Ints,
    targets: ops.Ints,
    site_masks: dict[str, F64],
) -> float:
    """Derivative of the loss along `direction`: central differences of fourth order."""

    def at(distance: float) -> float:
        moved = {**params, name: params[name] + distance * direction}
        return gpt2.loss(moved, SMALL, tokens, targets, site_masks)

    h = 1e-3 / float(np.linalg.norm(direction))
    return (8.0 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12.0 * h)


@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("length", [1, 5, 7])
def test_gradient_of_every_tensor_agrees_with_differences(length: int, dropout: bool) -> None:
    params = gpt2.random_parameters(SMALL, seed=3)
    tokens, targets = batch(SMALL, 2, length, seed=4)
    site_masks = masks(SMALL, 2, length, seed=5) if dropout else {}
    _, grads = gpt2.loss_and_gradients(params, SMALL, tokens, targets, 1.0, site_masks)
    generator = np.random.default_rng(6)
    assert list(grads) == NAMES
    for name in NAMES:
        for _ in range(2):
            direction = generator.standard_normal(params[name].shape)
            expected = slope(params, name, direction, tokens, targets, site_masks)
            size = float(np.linalg.norm(grads[name]) * np.linalg.norm(direction))
            got = float((grads[name] * direction).sum())
            # A direction can be nearly orthogonal to the gradient: measure against the lengths.
            assert abs(got - expected) <= 1e-6 * max(abs(expected), 0.05 * size), name


@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
def test_crystalline_gradients_agree_with_differences(dropout: bool) -> None:
    config = replace(SMALL, attention="crystalline")
    params, features = gpt2.random_parameters(config, 3), gpt2.random_features(config, 4)
    tokens, targets = batch(config, 2, 6, seed=5)
    site_masks = masks(config, 2, 6, seed=5) if dropout else {}
    _, grads = gpt2.loss_and_gradients(
        params, config, tokens, targets, 1.0, site_masks, features=features
    )
    assert list(grads) == [p.name for p in parameter_table(config).parameters]
    generator = np.random.default_rng(6)
    names = [name for name in params if ".attn." in name or name == gpt2.WTE]
    for name in names:
        direction = generator.standard_normal(params[name].shape)
        h = 1e-3 / float(np.linalg.norm(direction))

        def at(distance: float) -> float:
            moved = {**params, name: params[name] + distance * direction}  # noqa: B023
            return gpt2.loss(moved, config, tokens, targets, site_masks, features)

        expected = (8.0 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12.0 * h)
        got = float((grads[name] * direction).sum())
        size = float(np.linalg.norm(grads[name]) * np.linalg.norm(direction))
        assert abs(got - expected) <= 1e-6 * max(abs(expected), 0.05 * size), name


def test_crystalline_attention_without_lambda_is_standard() -> None:
    config = replace(SMALL, attention="crystalline")
    params, features = gpt2.random_parameters(config, 3), gpt2.random_features(config, 4)
    tokens, _ = batch(config, 2, 6, seed=5)
    crystalline = gpt2.forward(params, config, tokens, features=features)
    standard = gpt2.forward(params, SMALL, tokens)
    assert np.abs(crystalline - standard).max() > 0.1
    for name in params:
        if name.endswith("crystal_lambda"):
            params[name][:] = 0.0
    silent = gpt2.forward(params, config, tokens, features=features)
    np.testing.assert_array_equal(silent, standard)


def test_scale_multiplies_gradients_and_not_the_loss() -> None:
    params = gpt2.random_parameters(SMALL, seed=7)
    tokens, targets = batch(SMALL, 3, 6, seed=8)
    loss, grads = gpt2.loss_and_gradients(params, SMALL, tokens, targets, 1.0)
    loss_scaled, scaled = gpt2.loss_and_gradients(params, SMALL, tokens, targets, 0.125)
    assert loss_scaled == loss == pytest.approx(gpt2.loss(params, SMALL, tokens, targets))
    for name in NAMES:
        np.testing.assert_allclose(scaled[name], 0.125 * grads[name], rtol=1e-12, atol=1e-15)


def test_all_zero_parameters_guess_uniformly() -> None:
    params = {p.name: np.zeros(p.shape) for p in parameter_table(SMALL).parameters}
    tokens, targets = batch(SMALL, 3, 7, seed=9)
    assert np.all(gpt2.forward(params, SMALL, tokens) == 0.0)
    assert gpt2.loss(params, SMALL, tokens, targets) == pytest.approx(21 * math.log(11), rel=1e-14)


def test_silent_blocks_leave_the_embeddings() -> None:
    """Where both projections of every block are zero, only LayerNorm and the head are left."""
    params = gpt2.random_parameters(SMALL, seed=10)
    for name in NAMES:
        if ".c_proj." in name:
            params[name] = np.zeros_like(params[name])
    tokens, _ = batch(SMALL, 2, 4, seed=11)
    wte, wpe = params[gpt2.WTE], params[gpt2.WPE]
    logits = gpt2.forward(params, SMALL, tokens)
    for b in range(2):
        for t in range(4):
            x = wte[tokens[b, t]] + wpe[t]
            x = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
            x = x * params[gpt2.LN_F_WEIGHT] + params[gpt2.LN_F_BIAS]
            np.testing.assert_allclose(logits[b, t], [x @ row for row in wte], rtol=1e-12)


def test_one_token_by_hand() -> None:
    """V = 2, T = 1, L = 1, H = 1, C = 2, worked through number by number.

    The input (1, −1) has mean 0 and variance 1, so LayerNorm changes it by
    1/√(1 + 1e-5) only.  One position attends to itself alone.
    """
    config = ModelConfig(vocab_size=2, seq_len=1, num_layers=1, num_heads=1, embed_dim=2)
    params = {p.name: np.zeros(p.shape) for p in parameter_table(config).parameters}
    h = "transformer.h.0."
    params[gpt2.WTE] = np.array([[1.0, -1.0], [0.5, 2.0]])
    for norm in (h + "ln_1", h + "ln_2", "transformer.ln_f"):
        params[norm + ".weight"] = np.ones(2)
    params[h + "attn.c_attn.weight"][:, 4:] = [[2.0, 0.0], [0.0, 1.0]]  # v = (2·x0, x1)
    params[h + "attn.c_proj.weight"] = np.array([[0.0, 1.0], [1.0, 0.0]])  # swaps
    params[h + "mlp.c_fc.weight"][0, 3] = 1.0
    params[h + "mlp.c_fc.bias"][3] = 0.25
    params[h + "mlp.c_proj.weight"][3] = [3.0, -1.0]

    n = 1.0 / math.sqrt(1.0 + 1e-5)
    a0, a1 = 1.0 + -n, -1.0 + 2.0 * n  # residual + swap(v)
    mean, half = (a0 + a1) / 2, (a0 - a1) / 2
    first = half / math.sqrt(half * half + 1e-5) + 0.25
    inner = math.sqrt(2 / math.pi) * (first + 0.044715 * first**3)
    activated = 0.5 * first * (1 + math.tanh(inner))
    x0, x1 = a0 + 3.0 * activated, a1 - activated
    mean, half = (x0 + x1) / 2, (x0 - x1) / 2
    assert mean + half == pytest.approx(x0)
    y = half / math.sqrt(half * half + 1e-5)
    logits = gpt2.forward(params, config, np.array([[0]], np.int32))
    np.testing.assert_allclose(logits[0, 0], [y + y, 0.5 * y - 2.0 * y], rtol=1e-13)


def test_later_tokens_never_reach_earlier_logits() -> None:
    params = gpt2.random_parameters(SMALL, seed=12)
    tokens, _ = batch(SMALL, 1, 7, seed=13)
    logits = gpt2.forward(params, SMALL, tokens)
    for t in range(7):
        changed = tokens.copy()
        changed[0, t] = (changed[0, t] + 1) % SMALL.vocab_size
        other = gpt2.forward(params, SMALL, changed)
        assert np.array_equal(other[0, :t], logits[0, :t])
        assert all(np.abs(other[0, s] - logits[0, s]).max() > 1e-3 for s in range(t, 7))


def test_sequences_of_a_batch_do_not_mix() -> None:
    params = gpt2.random_parameters(SMALL, seed=14)
    tokens, targets = batch(SMALL, 3, 6, seed=15)
    loss, grads = gpt2.loss_and_gradients(params, SMALL, tokens, targets)
    parts = [
        gpt2.loss_and_gradients(params, SMALL, tokens[b : b + 1], targets[b : b + 1])
        for b in range(3)
    ]
    assert loss == pytest.approx(sum(part[0] for part in parts), rel=1e-13)
    for name in NAMES:
        total = sum(part[1][name] for part in parts)
        np.testing.assert_allclose(grads[name], total, rtol=1e-10, atol=1e-13)


def test_a_constant_on_every_key_changes_nothing() -> None:
    """Softmax does not see a constant: the gradient of the key bias is zero."""
    params = gpt2.random_parameters(SMALL, seed=16)
    tokens, targets = batch(SMALL, 2, 7, seed=17)
    _, grads = gpt2.loss_and_gradients(params, SMALL, tokens, targets)
    C = SMALL.embed_dim
    for layer in range(SMALL.num_layers):
        bias = grads[f"transformer.h.{layer}.attn.c_attn.bias"]
        assert np.abs(bias[C : 2 * C]).max() < 1e-13 < np.abs(bias[:C]).max()


def test_unused_positions_get_zero_gradient() -> None:
    params = gpt2.random_parameters(SMALL, seed=18)
    tokens, targets = batch(SMALL, 2, 4, seed=19)
    _, grads = gpt2.loss_and_gradients(params, SMALL, tokens, targets)
    assert np.all(grads[gpt2.WPE][4:] == 0.0)
    assert np.all(np.abs(grads[gpt2.WPE][:4]).max(axis=1) > 0.0)


def test_masks_of_ones_are_no_dropout_and_each_mask_matters() -> None:
    params = gpt2.random_parameters(SMALL, seed=20)
    tokens, targets = batch(SMALL, 2, 5, seed=21)
    sites = masks(SMALL, 2, 5, seed=22)
    plain = gpt2.loss(params, SMALL, tokens, targets)
    ones = {site: np.ones_like(mask) for site, mask in sites.items()}
    assert gpt2.loss(params, SMALL, tokens, targets, ones) == plain
    for site, mask in sites.items():
        assert abs(gpt2.loss(params, SMALL, tokens, targets, {site: mask}) - plain) > 1e-6, site


def test_flat_buffer_there_and_back() -> None:
    params = gpt2.random_parameters(SMALL, seed=23)
    flat = gpt2.to_flat(SMALL, params)
    back = gpt2.from_flat(SMALL, flat)
    assert all(np.array_equal(back[name], params[name]) for name in NAMES)
    assert np.count_nonzero(flat) == parameter_table(SMALL).count


@pytest.mark.parametrize("length", [0, 8])
def test_a_length_outside_the_context_is_refused(length: int) -> None:
    params = gpt2.random_parameters(SMALL, seed=24)
    with pytest.raises(ValueError, match=f"length {length}, the model takes 1 to 7"):
        gpt2.forward(params, SMALL, np.zeros((1, length), np.int32))
