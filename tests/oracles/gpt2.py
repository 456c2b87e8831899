"""GPT-2 in NumPy float64, forward and backward by hand: the judge of the compiled model.

Written from the formulas (Radford et al. 2019, and the released code's GELU and
epsilon): pre-LayerNorm, learned positions, biases, causal attention scaled by
1/√D, head tied to the token embedding.  Only names and shapes of the tensors
come from the package under test.  `test_gpt2_oracle.py` judges the judge.

Parameters are a dict of float64 arrays by name; a linear layer is
[inputs, outputs].  Dropout is a dict of multiplicative masks by site, so zero
or 1/(1−p); a missing site means no dropout there:

    embedding                  (B, T, C)     token + position
    h.<layer>.attention        (B, H, T, T)  attention probabilities
    h.<layer>.attention_output (B, T, C)     before the first residual sum
    h.<layer>.mlp_output       (B, T, C)     before the second residual sum

Crystalline attention needs `features` (V, F) beside the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.oracles import ops
from tests.oracles.ops import F64, Ints

Masks = Mapping[str, F64]
NO_DROPOUT: Masks = {}

WTE, WPE = "transformer.wte.weight", "transformer.wpe.weight"
LN_F_WEIGHT, LN_F_BIAS = "transformer.ln_f.weight", "transformer.ln_f.bias"


def forward(
    params: Mapping[str, F64],
    config: ModelConfig,
    tokens: Ints,
    masks: Masks = NO_DROPOUT,
    features: npt.ArrayLike | None = None,
) -> F64:
    """Logits (B, T, V) for tokens (B, T); T is anything from 1 to config.seq_len."""
    return _forward(params, config, tokens, masks, features)[0]


def loss(
    params: Mapping[str, F64],
    config: ModelConfig,
    tokens: Ints,
    targets: Ints,
    masks: Masks = NO_DROPOUT,
    features: npt.ArrayLike | None = None,
) -> float:
    """Sum of nats over all B·T targets."""
    logits = forward(params, config, tokens, masks, features)
    return float(ops.cross_entropy_rows(logits, targets).sum())


def loss_and_gradients(
    params: Mapping[str, F64],
    config: ModelConfig,
    tokens: Ints,
    targets: Ints,
    scale: float = 1.0,
    masks: Masks = NO_DROPOUT,
    features: npt.ArrayLike | None = None,
    soft: F64 | None = None,
) -> tuple[float, dict[str, F64]]:
    """Return the loss sum (unscaled) and the gradient of scale · loss sum, for every tensor.

    With `soft` (V, V), row t of which is the target distribution of token t, both are those of
    the cross-entropy against it.
    """
    logits, saved = _forward(params, config, tokens, masks, features)
    if soft is None:
        loss_sum, dlogits = ops.cross_entropy(logits, targets, scale)
    else:
        loss_sum, dlogits = ops.soft_cross_entropy(logits, soft[targets], scale)
    grads: dict[str, F64] = {}
    C = config.embed_dim

    # The tied head: logits = normed · wteᵀ.
    normed = ops.layer_norm(saved["final"], params[LN_F_WEIGHT], params[LN_F_BIAS])
    dwte_head = _rows(dlogits).T @ _rows(normed)
    dnormed = dlogits @ params[WTE]
    dx, grads[LN_F_WEIGHT], grads[LN_F_BIAS] = ops.layer_norm_backward(
        saved["final"], params[LN_F_WEIGHT], dnormed
    )

    for layer in reversed(range(config.num_layers)):
        p, h = f"transformer.h.{layer}.", f"h.{layer}."

        # x = middle + mask · (c_proj(gelu(c_fc(ln_2(middle)))))
        dmlp = dx * masks.get(h + "mlp_output", 1.0)
        dactivated = _linear_backward(p + "mlp.c_proj", saved[h + "activated"], dmlp, params, grads)
        dhidden = ops.gelu_backward(saved[h + "hidden"], dactivated)
        dnormed = _linear_backward(p + "mlp.c_fc", saved[h + "normed_2"], dhidden, params, grads)
        dmiddle = dx + _layer_norm_backward(p + "ln_2", saved[h + "middle"], dnormed, params, grads)

        # middle = input + mask · c_proj(attention(c_attn(ln_1(input))))
        dprojected = dmiddle * masks.get(h + "attention_output", 1.0)
        dattended = _linear_backward(
            p + "attn.c_proj", saved[h + "attended"], dprojected, params, grads
        )
        mask, added = masks.get(h + "attention"), saved.get(h + "added")
        dqkv = ops.causal_attention_backward(
            saved[h + "qkv"], config.num_heads, dattended, mask, added
        )
        if features is not None:
            lambdas = p + "attn.crystal_lambda"
            grads[lambdas] = ops.crystal_lambda_gradient(
                saved[h + "qkv"], dattended, features, tokens, params[lambdas], mask
            )
        dnormed = _linear_backward(p + "attn.c_attn", saved[h + "normed_1"], dqkv, params, grads)
        dx = dmiddle + _layer_norm_backward(p + "ln_1", saved[h + "input"], dnormed, params, grads)

    dx = dx * masks.get("embedding", 1.0)
    grads[WTE] = dwte_head + ops.embedding_backward(tokens, dx, config.vocab_size)
    grads[WPE] = np.zeros((config.seq_len, C))
    grads[WPE][: tokens.shape[1]] = dx.sum(axis=0)
    return loss_sum, {name: grads[name] for name in params}


def _forward(
    params: Mapping[str, F64],
    config: ModelConfig,
    tokens: Ints,
    masks: Masks,
    features: npt.ArrayLike | None,
) -> tuple[F64, dict[str, F64]]:
    """Logits, and every intermediate value that the backward pass reads."""
    T = tokens.shape[1]
    if not 1 <= T <= config.seq_len:
        raise ValueError(f"tokens have length {T}, the model takes 1 to {config.seq_len}")
    saved: dict[str, F64] = {}
    x = ops.embedding(params[WTE], tokens) + params[WPE][:T]
    x = x * masks.get("embedding", 1.0)
    for layer in range(config.num_layers):
        p, h = f"transformer.h.{layer}.", f"h.{layer}."
        saved[h + "input"] = x
        normed = ops.layer_norm(x, params[p + "ln_1.weight"], params[p + "ln_1.bias"])
        saved[h + "normed_1"] = normed
        qkv = _linear(p + "attn.c_attn", normed, params)
        saved[h + "qkv"] = qkv
        if features is not None:
            lambdas = params[p + "attn.crystal_lambda"]
            saved[h + "added"] = ops.crystal_scores(features, tokens, lambdas)
        attended = ops.causal_attention(
            qkv, config.num_heads, masks.get(h + "attention"), saved.get(h + "added")
        )
        saved[h + "attended"] = attended
        projected = _linear(p + "attn.c_proj", attended, params)
        x = x + projected * masks.get(h + "attention_output", 1.0)

        saved[h + "middle"] = x
        normed = ops.layer_norm(x, params[p + "ln_2.weight"], params[p + "ln_2.bias"])
        saved[h + "normed_2"] = normed
        hidden = _linear(p + "mlp.c_fc", normed, params)
        saved[h + "hidden"] = hidden
        activated = ops.gelu(hidden)
        saved[h + "activated"] = activated
        projected = _linear(p + "mlp.c_proj", activated, params)
        x = x + projected * masks.get(h + "mlp_output", 1.0)
    saved["final"] = x
    normed = ops.layer_norm(x, params[LN_F_WEIGHT], params[LN_F_BIAS])
    return normed @ params[WTE].T, saved


def _linear(name: str, x: F64, params: Mapping[str, F64]) -> F64:
    out = ops.linear(_rows(x), params[name + ".weight"], params[name + ".bias"])
    return out.reshape(*x.shape[:-1], -1)


def _linear_backward(
    name: str, x: F64, dout: F64, params: Mapping[str, F64], grads: dict[str, F64]
) -> F64:
    grads[name + ".weight"] = ops.linear_weight_gradient(_rows(x), _rows(dout))
    grads[name + ".bias"] = ops.linear_bias_gradient(_rows(dout))
    return ops.linear_input_gradient(_rows(dout), params[name + ".weight"]).reshape(x.shape)


def _layer_norm_backward(
    name: str, x: F64, dout: F64, params: Mapping[str, F64], grads: dict[str, F64]
) -> F64:
    dx, grads[name + ".weight"], grads[name + ".bias"] = ops.layer_norm_backward(
        x, params[name + ".weight"], dout
    )
    return dx


def _rows(x: F64) -> F64:
    return x.reshape(-1, x.shape[-1])


# --- inputs for tests ----------------------------------------------------------------------


def random_parameters(config: ModelConfig, seed: int) -> dict[str, F64]:
    """Parameters far from symmetric: no zero biases, no unit scales, attention that attends.

    Matrices have standard deviation 1/√inputs, embeddings 0.5, so that every
    part of the model matters to the loss.  All values are representable in
    float32.
    """
    generator = np.random.default_rng(seed)
    params: dict[str, F64] = {}
    for p in parameter_table(config).parameters:
        noise = generator.standard_normal(p.shape)
        if p.name.endswith(("wte.weight", "wpe.weight")):
            value = 0.5 * noise
        elif len(p.shape) == 2:
            value = noise / np.sqrt(p.shape[0])
        elif ".ln_" in p.name and p.name.endswith(".weight"):
            value = 1.0 + 0.3 * noise
        elif p.name.endswith("crystal_lambda"):
            value = noise
        else:
            value = 0.2 * noise
        params[p.name] = value.astype(np.float32).astype(np.float64)
    return params


def random_features(config: ModelConfig, seed: int) -> npt.NDArray[np.float32]:
    """Features (V, 16) of crystalline attention, K(a, a) about 2: more than real ones have."""
    noise = np.random.default_rng(seed).standard_normal((config.vocab_size, 16))
    return (noise * math.sqrt(2 / 16)).astype(np.float32)


def random_tokens(config: ModelConfig, sequences: int, length: int, seed: int) -> Ints:
    """Tokens (sequences, length), int32; repeated ones are as common as in text."""
    generator = np.random.default_rng(seed)
    skewed = generator.random((sequences, length)) ** 2
    return (skewed * config.vocab_size).astype(np.int32)


def to_flat(config: ModelConfig, params: Mapping[str, F64]) -> npt.NDArray[np.float32]:
    """The flat float32 buffer of the parameter table; gaps are 0."""
    table = parameter_table(config)
    flat = np.zeros(table.size, np.float32)
    for name, view in table.views(flat).items():
        view[...] = params[name]
    return flat


def from_flat(config: ModelConfig, flat: npt.NDArray[np.float32]) -> dict[str, F64]:
    """Copies of the tensors of a flat float32 buffer, in float64."""
    table = parameter_table(config)
    return {name: view.astype(np.float64) for name, view in table.views(flat).items()}
