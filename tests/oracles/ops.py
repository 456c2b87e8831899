"""Slow, obvious twins of the kernels, in NumPy float64.

One function per kernel, written from the textbook formula with plain loops over
heads and rows where that reads better.  Nothing here imports the package under
test, and nothing here is fast.  The whole model is in `gpt2.py`, optimizers
over many steps in `optim.py`.

Letters: B batch, T sequence, C channels, H heads, D head size, V vocabulary,
N rows (B·T).  The gradient of `x` is `dx`.  Everything returns new arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.integer[Any]]

LAYER_NORM_EPSILON = 1e-5
GELU_SLOPE = math.sqrt(2.0 / math.pi)
GELU_CUBIC = 0.044715


# --- matrix products: the three transpositions that training needs -------------------------


def linear(x: npt.ArrayLike, w: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> F64:
    """x (N, inputs) · w (inputs, outputs) + bias (outputs) → (N, outputs)."""
    out = _f64(x) @ _f64(w)
    return out if bias is None else out + _f64(bias)


def linear_input_gradient(dout: npt.ArrayLike, w: npt.ArrayLike) -> F64:
    """dout (N, outputs) · wᵀ → dx (N, inputs)."""
    return _f64(dout) @ _f64(w).T


def linear_weight_gradient(x: npt.ArrayLike, dout: npt.ArrayLike) -> F64:
    """xᵀ · dout → dw (inputs, outputs)."""
    return _f64(x).T @ _f64(dout)


def linear_bias_gradient(dout: npt.ArrayLike) -> F64:
    """Sum of dout (N, outputs) over its rows → (outputs)."""
    return _f64(dout).sum(axis=0)


# --- LayerNorm (Ba et al. 2016): variance without Bessel's correction ----------------------


def layer_norm(
    x: npt.ArrayLike, scale: npt.ArrayLike, shift: npt.ArrayLike, eps: float = LAYER_NORM_EPSILON
) -> F64:
    """(x − mean) / √(variance + eps) · scale + shift, over the last axis."""
    mean, rstd = layer_norm_statistics(x, eps)
    return (_f64(x) - mean[..., None]) * rstd[..., None] * _f64(scale) + _f64(shift)


def layer_norm_statistics(x: npt.ArrayLike, eps: float = LAYER_NORM_EPSILON) -> tuple[F64, F64]:
    """Mean and 1/√(variance + eps) of every row (..., C) → (...), (...)."""
    x = _f64(x)
    mean = x.mean(axis=-1)
    variance = ((x - mean[..., None]) ** 2).mean(axis=-1)
    return mean, 1.0 / np.sqrt(variance + eps)


def layer_norm_backward(
    x: npt.ArrayLike, scale: npt.ArrayLike, dout: npt.ArrayLike, eps: float = LAYER_NORM_EPSILON
) -> tuple[F64, F64, F64]:
    """Return dx (..., C), dscale (C), dshift (C).

    With n = (x − mean)·rstd and g = dout·scale, the Jacobian of the
    normalization gives dx = rstd · (g − mean(g) − n·mean(g·n)).
    """
    mean, rstd = layer_norm_statistics(x, eps)
    dout = _f64(dout)
    n = (_f64(x) - mean[..., None]) * rstd[..., None]
    g = dout * _f64(scale)
    mean_g = g.mean(axis=-1)[..., None]
    mean_gn = (g * n).mean(axis=-1)[..., None]
    dx = rstd[..., None] * (g - mean_g - n * mean_gn)
    rows = tuple(range(dout.ndim - 1))
    return dx, (dout * n).sum(axis=rows), dout.sum(axis=rows)


# --- GELU, the tanh form of GPT-2 (Hendrycks and Gimpel 2016) ------------------------------


def gelu(x: npt.ArrayLike) -> F64:
    """0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))."""
    x = _f64(x)
    return 0.5 * x * (1.0 + np.tanh(GELU_SLOPE * (x + GELU_CUBIC * x**3)))


def gelu_backward(x: npt.ArrayLike, dout: npt.ArrayLike) -> F64:
    """dout times the derivative of `gelu` at x; x is the input of the forward pass."""
    x = _f64(x)
    tanh = np.tanh(GELU_SLOPE * (x + GELU_CUBIC * x**3))
    inner_slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * x**2)
    return _f64(dout) * (0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh**2) * inner_slope)


# --- causal attention (Vaswani et al. 2017) ------------------------------------------------


def attention_head(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    dropout_mask: npt.ArrayLike | None = None,
    added: npt.ArrayLike | None = None,
) -> F64:
    """One head: q (M, D) over k, v (T, D) → (M, D).

    The queries belong to the last M of the T positions, so M = T is the
    training form and M = 1 the row that a KV cache needs.  `dropout_mask`
    (M, T) multiplies the probabilities; `added` (M, T) is added to the scores.
    """
    weights = attention_probabilities(q, k, added)
    if dropout_mask is not None:
        weights = weights * _f64(dropout_mask)
    return weights @ _f64(v)


def attention_probabilities(
    q: npt.ArrayLike, k: npt.ArrayLike, added: npt.ArrayLike | None = None
) -> F64:
    """Row-wise softmax of q·kᵀ/√D (+ added) over the positions up to the query's own → (M, T)."""
    q, k = _f64(q), _f64(k)
    rows, positions = len(q), len(k)
    out = np.zeros((rows, positions))
    for i in range(rows):
        seen = positions - rows + i + 1
        scores = k[:seen] @ q[i] / math.sqrt(q.shape[1])
        if added is not None:
            scores = scores + _f64(added)[i, :seen]
        out[i, :seen] = softmax(scores)
    return out


def attention_score_gradient(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    dout: npt.ArrayLike,
    dropout_mask: npt.ArrayLike | None = None,
    added: npt.ArrayLike | None = None,
) -> F64:
    """Gradient (M, T) of one head's scores, as the softmax sees them, for dout (M, D)."""
    q, k, v, dout = _f64(q), _f64(k), _f64(v), _f64(dout)
    p = attention_probabilities(q, k, added)
    dp = dout @ v.T
    if dropout_mask is not None:
        dp = dp * _f64(dropout_mask)
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))


def attention_head_backward(
    q: npt.ArrayLike,
    k: npt.ArrayLike,
    v: npt.ArrayLike,
    dout: npt.ArrayLike,
    dropout_mask: npt.ArrayLike | None = None,
    added: npt.ArrayLike | None = None,
) -> tuple[F64, F64, F64]:
    """Gradients dq (M, D), dk (T, D), dv (T, D) of one head, for dout (M, D)."""
    q, k, v, dout = _f64(q), _f64(k), _f64(v), _f64(dout)
    mask = np.ones((len(q), len(k))) if dropout_mask is None else _f64(dropout_mask)
    dv = (attention_probabilities(q, k, added) * mask).T @ dout
    ds = attention_score_gradient(q, k, v, dout, dropout_mask, added)
    scale = 1.0 / math.sqrt(q.shape[1])
    return ds @ k * scale, ds.T @ q * scale, dv


def causal_attention(
    qkv: npt.ArrayLike,
    num_heads: int,
    dropout_mask: npt.ArrayLike | None = None,
    added: npt.ArrayLike | None = None,
) -> F64:
    """All heads: qkv (B, T, 3C) = [q | k | v], each of H heads of D channels → (B, T, C).

    `dropout_mask` and `added` are (B, H, T, T).
    """
    qkv = _f64(qkv)
    B, T, C3 = qkv.shape
    out = np.zeros((B, T, C3 // 3))
    for b in range(B):
        for h in range(num_heads):
            q, k, v = _head_columns(C3 // 3, num_heads, h)
            parts = (qkv[b][:, q], qkv[b][:, k], qkv[b][:, v])
            mask, more = _of_head(dropout_mask, b, h), _of_head(added, b, h)
            out[b][:, q] = attention_head(*parts, mask, more)
    return out


def causal_attention_backward(
    qkv: npt.ArrayLike,
    num_heads: int,
    dout: npt.ArrayLike,
    dropout_mask: npt.ArrayLike | None = None,
    added: npt.ArrayLike | None = None,
) -> F64:
    """Gradient dqkv (B, T, 3C) of `causal_attention`, for dout (B, T, C)."""
    qkv, dout = _f64(qkv), _f64(dout)
    B, _, C3 = qkv.shape
    dqkv = np.zeros_like(qkv)
    for b in range(B):
        for h in range(num_heads):
            q, k, v = _head_columns(C3 // 3, num_heads, h)
            dqkv[b][:, q], dqkv[b][:, k], dqkv[b][:, v] = attention_head_backward(
                qkv[b][:, q],
                qkv[b][:, k],
                qkv[b][:, v],
                dout[b][:, q],
                _of_head(dropout_mask, b, h),
                _of_head(added, b, h),
            )
    return dqkv


# --- crystalline attention: the scores of head h gain λ_h K(a, b), K = φ(a)·φ(b) ------------


def crystal_scores(features: npt.ArrayLike, tokens: Ints, lambdas: npt.ArrayLike) -> F64:
    """What is added to the scores (B, H, T, T): tokens (B, T), features (V, F), lambdas (H)."""
    phi = _f64(features)[tokens]
    similarity = phi @ phi.swapaxes(1, 2)
    return _f64(lambdas)[None, :, None, None] * similarity[:, None]


def crystal_lambda_gradient(
    qkv: npt.ArrayLike,
    dout: npt.ArrayLike,
    features: npt.ArrayLike,
    tokens: Ints,
    lambdas: npt.ArrayLike,
    dropout_mask: npt.ArrayLike | None = None,
) -> F64:
    """Gradient (H) of the lambdas: dλ_h = Σ ds·K over all pairs of query and key."""
    qkv, dout, lambdas = _f64(qkv), _f64(dout), _f64(lambdas)
    H, C = len(lambdas), dout.shape[2]
    added = crystal_scores(features, tokens, lambdas)
    similarity = crystal_scores(features, tokens, np.ones(H))
    grads = np.zeros(H)
    for b in range(len(qkv)):
        for h in range(H):
            q, k, v = _head_columns(C, H, h)
            ds = attention_score_gradient(
                qkv[b][:, q],
                qkv[b][:, k],
                qkv[b][:, v],
                dout[b][:, q],
                _of_head(dropout_mask, b, h),
                added[b, h],
            )
            grads[h] += (ds * similarity[b, h]).sum()
    return grads


def _of_head(value: npt.ArrayLike | None, b: int, h: int) -> F64 | None:
    """Return the matrix (T, T) of one head out of (B, H, T, T), if there is any."""
    return None if value is None else _f64(value)[b, h]


def _head_columns(channels: int, num_heads: int, head: int) -> tuple[slice, slice, slice]:
    """Columns of q, k and v of one head within a row [q | k | v]."""
    D = channels // num_heads
    start = head * D
    return (
        slice(start, start + D),
        slice(channels + start, channels + start + D),
        slice(2 * channels + start, 2 * channels + start + D),
    )


# --- embeddings ----------------------------------------------------------------------------


def embedding(table: npt.ArrayLike, tokens: Ints) -> F64:
    """Rows of table (V, C) at tokens (...) → (..., C)."""
    return _f64(table)[np.asarray(tokens)]


def embedding_backward(tokens: Ints, dout: npt.ArrayLike, rows: int) -> F64:
    """Scatter-add dout (..., C) into a zero table (rows, C), one token after the other."""
    tokens, dout = np.asarray(tokens), _f64(dout)
    dtable = np.zeros((rows, dout.shape[-1]))
    for token, row in zip(tokens.ravel(), dout.reshape(-1, dout.shape[-1]), strict=True):
        dtable[token] += row
    return dtable


# --- softmax and cross-entropy -------------------------------------------------------------


def softmax(scores: npt.ArrayLike) -> F64:
    """exp(s) / Σ exp(s) over the last axis, shifted by the maximum."""
    scores = _f64(scores)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(scores: npt.ArrayLike) -> F64:
    """s − log Σ exp(s) over the last axis, shifted by the maximum."""
    scores = _f64(scores)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy_rows(logits: npt.ArrayLike, targets: Ints) -> F64:
    """Nats of every target (...) under logits (..., V) → (...)."""
    log_p = log_softmax(logits)
    return -np.take_along_axis(log_p, np.asarray(targets)[..., None], axis=-1)[..., 0]


def cross_entropy(logits: npt.ArrayLike, targets: Ints, scale: float = 1.0) -> tuple[float, F64]:
    """Sum of nats over all rows, and the gradient of scale · sum: scale · (softmax − one-hot)."""
    logits, targets = _f64(logits), np.asarray(targets)
    one_hot = np.zeros_like(logits)
    np.put_along_axis(one_hot, targets[..., None], 1.0, axis=-1)
    return float(cross_entropy_rows(logits, targets).sum()), scale * (softmax(logits) - one_hot)


def soft_targets(ids: Ints, weights: npt.ArrayLike, epsilon: float) -> F64:
    """The target of every token (V, V): 1 − ε at itself and ε · weight at each neighbor (V, k).

    A token whose weights are all 0 keeps its one-hot target.
    """
    ids, weights = np.asarray(ids), _f64(weights)
    V = len(ids)
    soft = np.eye(V)
    for token in range(V):
        if weights[token].any():
            soft[token] *= 1.0 - epsilon
            for neighbor, weight in zip(ids[token], weights[token], strict=True):
                soft[token, neighbor] += epsilon * weight
    return soft


def soft_cross_entropy(
    logits: npt.ArrayLike, targets: npt.ArrayLike, scale: float = 1.0
) -> tuple[float, F64]:
    """Sum of −Σ q log p over all rows of distributions q (..., V), and scale · (softmax − q)."""
    logits, q = _f64(logits), _f64(targets)
    return -float((q * log_softmax(logits)).sum()), scale * (softmax(logits) - q)


def tied_head_cross_entropy(
    x: npt.ArrayLike, wte: npt.ArrayLike, targets: Ints, scale: float = 1.0
) -> tuple[float, F64, F64]:
    """The fused head: x (N, C) · wteᵀ (C, V) → loss sum, dx (N, C), dwte (V, C)."""
    loss, dlogits = cross_entropy(_f64(x) @ _f64(wte).T, targets, scale)
    return loss, dlogits @ _f64(wte), dlogits.T @ _f64(x)


# --- optimizers, one step ------------------------------------------------------------------


def adamw_step(
    param: npt.ArrayLike,
    grad: npt.ArrayLike,
    moment1: npt.ArrayLike,
    moment2: npt.ArrayLike,
    *,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[F64, F64, F64]:
    """One step of AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW documents it.

    `step` counts from 1.  Returns the new parameters and moments.
    """
    param, grad = _f64(param), _f64(grad)
    param = param - learning_rate * weight_decay * param
    moment1 = beta1 * _f64(moment1) + (1.0 - beta1) * grad
    moment2 = beta2 * _f64(moment2) + (1.0 - beta2) * grad**2
    mean = moment1 / (1.0 - beta1**step)
    variance = moment2 / (1.0 - beta2**step)
    return param - learning_rate * mean / (np.sqrt(variance) + eps), moment1, moment2


def sgd_momentum_step(
    param: npt.ArrayLike,
    grad: npt.ArrayLike,
    velocity: npt.ArrayLike,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float = 0.0,
) -> tuple[F64, F64]:
    """One step of SGD as torch.optim.SGD documents it (dampening 0, no Nesterov).

    The velocity starts at 0 and becomes momentum · velocity + grad.  Weight
    decay is decoupled from the gradient, unlike torch's, as in `adamw_step`.
    """
    param = _f64(param)
    param = param - learning_rate * weight_decay * param
    velocity = momentum * _f64(velocity) + _f64(grad)
    return param - learning_rate * velocity, velocity


def global_norm(gradients: Sequence[npt.ArrayLike]) -> float:
    """√ of the sum of squares over all arrays, exactly rounded sum."""
    return math.sqrt(math.fsum(float(g) ** 2 for array in gradients for g in _f64(array).ravel()))


def clip_factor(norm: float, max_norm: float) -> float:
    """What every gradient is multiplied by: min(1, max_norm / norm); max_norm 0 turns it off."""
    return 1.0 if max_norm == 0.0 or norm <= max_norm else max_norm / norm


# --- sums in a fixed order -----------------------------------------------------------------

Tree: TypeAlias = Any  # an index, or a pair of trees


def tree_sum(arrays: Sequence[npt.NDArray[Any]], tree: Tree) -> npt.NDArray[Any]:
    """Add arrays in the order of `tree`, nested pairs of indices, each index once.

    The arithmetic is that of the arrays' own type, so that float32 lanes give
    the very bits that the reduction must give.

    >>> tree_sum([np.float32([1]), np.float32([2]), np.float32([4])], ((0, 1), 2))
    array([7.], dtype=float32)
    """
    if isinstance(tree, tuple):
        left, right = tree
        return np.add(tree_sum(arrays, left), tree_sum(arrays, right))
    return np.array(arrays[tree])


def neighbor_tree(count: int) -> Tree:
    """Pair neighbors, level by level; an odd one at the end moves up unpaired.

    >>> neighbor_tree(5)
    (((0, 1), (2, 3)), 4)
    """
    level: list[Tree] = list(range(count))
    while len(level) > 1:
        pairs: list[Tree] = list(zip(level[0::2], level[1::2], strict=False))
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def grouped_tree(count: int, group: int) -> Tree:
    """Make a tree of neighbors within each `group`, and one of neighbors over those.

    >>> grouped_tree(8, 3)
    ((((0, 1), 2), ((3, 4), 5)), (6, 7))
    """

    def moved(tree: Tree, start: int) -> Tree:
        return tree + start if isinstance(tree, int) else tuple(moved(t, start) for t in tree)

    groups = [
        moved(neighbor_tree(min(group, count - start)), start) for start in range(0, count, group)
    ]

    def named(tree: Tree) -> Tree:
        return groups[tree] if isinstance(tree, int) else tuple(named(t) for t in tree)

    return named(neighbor_tree(len(groups)))


def halving_tree(count: int) -> Tree:
    """Add the upper half onto the lower half until one is left; the middle one waits.

    >>> halving_tree(5)
    (((0, 3), 2), (1, 4))
    """
    level: list[Tree] = list(range(count))
    while len(level) > 1:
        keep = (len(level) + 1) // 2
        level = [
            (level[i], level[i + keep]) if i + keep < len(level) else level[i] for i in range(keep)
        ]
    return level[0]


# --- elementary functions and their error --------------------------------------------------


def exp(x: npt.ArrayLike) -> F64:
    """e to the x; overflow gives infinity."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(_f64(x))


def log(x: npt.ArrayLike) -> F64:
    """Natural logarithm; log 0 is −infinity, of a negative number NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(_f64(x))


def tanh(x: npt.ArrayLike) -> F64:
    """Hyperbolic tangent."""
    return np.tanh(_f64(x))


def erf(x: npt.ArrayLike) -> F64:
    """Error function, from the C library one value at a time."""
    return _each(math.erf, x)


def ulp_error(got: npt.NDArray[np.float32], exact: npt.ArrayLike) -> F64:
    """|got − exact| in units in the last place of float32 at `exact`.

    Subnormal results are measured in the smallest subnormal.  Where the exact
    value rounds to ±infinity or is NaN, an equal result counts 0 and any other
    infinity.
    """
    exact = _f64(exact)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = exact.astype(np.float32)
        ordinary = np.isfinite(rounded)
        _, exponent = np.frexp(np.where(ordinary, exact, 1.0))
        exponent = np.where(exact == 0.0, -149, np.maximum(exponent - 24, -149))
        error = np.abs(got.astype(np.float64) - exact) / np.ldexp(1.0, exponent)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(ordinary & ~np.isnan(error), error, np.where(same, 0.0, np.inf))


def _each(function: Callable[[float], float], x: npt.ArrayLike) -> F64:
    x = _f64(x)
    return np.array([function(float(value)) for value in x.ravel()], np.float64).reshape(x.shape)


def _f64(x: npt.ArrayLike) -> F64:
    return np.asarray(x, dtype=np.float64)
