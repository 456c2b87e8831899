"""Judges the judges: each float64 twin against numbers worked out by hand, or differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.oracles import ops
from tests.oracles.ops import F64

Tensors = dict[str, F64]


def assert_gradients(
    function: Callable[..., F64], inputs: Tensors, gradients: Tensors, dout: F64
) -> None:
    """Every gradient agrees with central differences of Σ dout · function(**inputs)."""
    for name, gradient in gradients.items():
        assert gradient.shape == inputs[name].shape
        numeric = np.zeros_like(gradient)
        for index in np.ndindex(gradient.shape):
            values = []
            for distance in (1e-5, -1e-5):
                moved = inputs[name].copy()
                moved[index] += distance
                values.append(float((dout * function(**{**inputs, name: moved})).sum()))
            numeric[index] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def normal(*shape: int, seed: int = 0) -> F64:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def test_three_products_by_hand() -> None:
    x, w = [[1, 2, 3]], [[1, 10], [2, 20], [3, 30]]
    assert ops.linear(x, w).tolist() == [[14, 140]]
    assert ops.linear(x, w, [0.5, -1]).tolist() == [[14.5, 139]]
    assert ops.linear_input_gradient([[1, 2]], w).tolist() == [[21, 42, 63]]
    assert ops.linear_weight_gradient(x, [[1, 10]]).tolist() == [[1, 10], [2, 20], [3, 30]]
    assert ops.linear_bias_gradient([[1, 2], [10, 20]]).tolist() == [11, 22]


def test_linear_gradients() -> None:
    inputs = {"x": normal(4, 3), "w": normal(3, 5), "bias": normal(5)}
    dout = normal(4, 5, seed=1)
    gradients = {
        "x": ops.linear_input_gradient(dout, inputs["w"]),
        "w": ops.linear_weight_gradient(inputs["x"], dout),
        "bias": ops.linear_bias_gradient(dout),
    }
    assert_gradients(ops.linear, inputs, gradients, dout)


def test_layer_norm_by_hand() -> None:
    """(1, 3) has mean 2 and variance 1."""
    n = 1 / math.sqrt(1 + 1e-5)
    np.testing.assert_allclose(
        ops.layer_norm([[1, 3]], [2, 3], [10, 20]), [[10 - 2 * n, 20 + 3 * n]]
    )
    mean, rstd = ops.layer_norm_statistics([[1, 3], [0, 4]])
    np.testing.assert_allclose(mean, [2, 2])
    np.testing.assert_allclose(rstd, [n, 1 / math.sqrt(4 + 1e-5)])


def test_layer_norm_gradients() -> None:
    inputs = {"x": 2 + normal(2, 3, 7), "scale": normal(7), "shift": normal(7, seed=1)}
    dout = normal(2, 3, 7, seed=2)
    dx, dscale, dshift = ops.layer_norm_backward(inputs["x"], inputs["scale"], dout)
    gradients = {"x": dx, "scale": dscale, "shift": dshift}
    assert_gradients(ops.layer_norm, inputs, gradients, dout)


def test_gelu_by_hand() -> None:
    values = ops.gelu([0.0, 1.0, -1.0, 20.0, -20.0])
    np.testing.assert_allclose(
        values, [0, 0.8411919906082768, -0.15880800939172324, 20, 0], atol=1e-15
    )
    assert ops.gelu_backward([0.0], [3.0])[0] == 1.5
    x = normal(9)
    np.testing.assert_allclose(ops.gelu(x) - ops.gelu(-x), x, rtol=1e-14)


def test_gelu_gradient() -> None:
    x, dout = 3 * normal(40), normal(40, seed=1)
    assert_gradients(ops.gelu, {"x": x}, {"x": ops.gelu_backward(x, dout)}, dout)


def test_attention_by_hand() -> None:
    """Scores of the second query are (ln 3)·(0, 1)·√D/√D, so it takes 1/4 and 3/4."""
    D = 4
    q = np.zeros((2, D))
    k = np.zeros((2, D))
    q[1, 0], k[1, 0] = math.log(3.0), math.sqrt(D)
    v = np.array([[4.0, 0, 8, 1], [8.0, 4, 0, 1]])
    np.testing.assert_allclose(ops.attention_probabilities(q, k), [[1.0, 0.0], [0.25, 0.75]])
    np.testing.assert_allclose(ops.attention_head(q, k, v), [v[0], [7, 3, 2, 1]])
    mask = [[2, 2], [0, 2]]
    np.testing.assert_allclose(ops.attention_head(q, k, v, mask), [2 * v[0], 1.5 * v[1]])


def test_attention_of_the_last_rows_equals_the_full_one() -> None:
    q, k, v = normal(6, 3), normal(6, 3, seed=1), normal(6, 5, seed=2)
    full = ops.attention_head(q, k, v)
    for rows in (1, 2, 6):
        np.testing.assert_allclose(ops.attention_head(q[-rows:], k, v), full[-rows:], rtol=1e-14)


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("dropout", [False, True])
def test_attention_head_gradients(rows: int, dropout: bool) -> None:
    inputs = {"q": normal(rows, 3), "k": normal(5, 3, seed=1), "v": normal(5, 4, seed=2)}
    dout = normal(rows, 4, seed=3)
    mask = (normal(rows, 5, seed=4) > -0.5) / 0.7 if dropout else None
    gradients = ops.attention_head_backward(**inputs, dout=dout, dropout_mask=mask)

    def head(q: F64, k: F64, v: F64) -> F64:
        return ops.attention_head(q, k, v, mask)

    assert_gradients(head, inputs, dict(zip("qkv", gradients, strict=True)), dout)


@pytest.mark.parametrize("dropout", [False, True])
def test_all_heads_gradient(dropout: bool) -> None:
    qkv, dout = normal(2, 4, 18), normal(2, 4, 6, seed=1)
    mask = (normal(2, 3, 4, 4, seed=2) > -0.5) / 0.7 if dropout else None

    def attention(qkv: F64) -> F64:
        return ops.causal_attention(qkv, 3, mask)

    dqkv = ops.causal_attention_backward(qkv, 3, dout, mask)
    assert_gradients(attention, {"qkv": qkv}, {"qkv": dqkv}, dout)


def test_heads_take_their_own_columns() -> None:
    """With equal keys every head averages its own slice of v over the prefix."""
    qkv = normal(1, 3, 12)
    qkv[:, :, 4:8] = 0.0
    v = qkv[0, :, 8:]
    expected = [v[0], (v[0] + v[1]) / 2, (v[0] + v[1] + v[2]) / 3]
    np.testing.assert_allclose(ops.causal_attention(qkv, 2)[0], expected, rtol=1e-13)


def test_crystal_scores_by_hand() -> None:
    """λ times the products of the features of each pair, the query's token first."""
    features = [[1.0, 0.0], [2.0, 3.0], [0.0, -1.0]]
    scores = ops.crystal_scores(features, np.array([[1, 0], [2, 1]]), [1.0, -2.0])
    expected = np.array([[[13, 2], [2, 1]], [[1, -3], [-3, 13]]])
    assert scores.tolist() == [[k.tolist(), (-2 * k).tolist()] for k in expected]


def test_embedding_by_hand() -> None:
    table = [[1, 2], [3, 4], [5, 6]]
    tokens = np.array([[2, 0], [2, 2]])
    assert ops.embedding(table, tokens).tolist() == [[[5, 6], [1, 2]], [[5, 6], [5, 6]]]
    dout = [[[1, 10], [2, 20]], [[4, 40], [8, 80]]]
    assert ops.embedding_backward(tokens, dout, 4).tolist() == [[2, 20], [0, 0], [13, 130], [0, 0]]


def test_cross_entropy_by_hand() -> None:
    logits = [[0.0, math.log(3.0)], [5.0, 5.0]]
    loss, dlogits = ops.cross_entropy(logits, np.array([1, 0]), scale=2.0)
    assert loss == pytest.approx(math.log(4 / 3) + math.log(2))
    np.testing.assert_allclose(dlogits, [[0.5, -0.5], [-1.0, 1.0]], rtol=1e-14)


def test_cross_entropy_survives_large_logits() -> None:
    loss, dlogits = ops.cross_entropy([[1e4, 0.0, -1e4]], np.array([1]))
    assert loss == 1e4
    assert dlogits.tolist() == [[1, -1, 0]]


def test_soft_targets_by_hand() -> None:
    ids = np.array([[1, 2], [0, 2], [0, 1]])
    weights = [[0.75, 0.25], [0.0, 0.0], [1.0, 0.0]]
    np.testing.assert_allclose(
        ops.soft_targets(ids, weights, 0.2), [[0.8, 0.15, 0.05], [0, 1, 0], [0.2, 0, 0.8]]
    )


def test_soft_cross_entropy_by_hand() -> None:
    logits = [[0.0, math.log(3.0)]]
    loss, dlogits = ops.soft_cross_entropy(logits, [[0.5, 0.5]], scale=2.0)
    assert loss == pytest.approx(0.5 * math.log(4) + 0.5 * math.log(4 / 3))
    np.testing.assert_allclose(dlogits, [[-0.5, 0.5]], rtol=1e-14)


def test_soft_cross_entropy_gradient_and_hard_limit() -> None:
    logits, q = normal(3, 5), ops.softmax(normal(3, 5, seed=1))
    _, dlogits = ops.soft_cross_entropy(logits, q, scale=0.5)

    def loss(logits: F64) -> F64:
        return np.array(0.5 * ops.soft_cross_entropy(logits, q)[0])

    assert_gradients(loss, {"logits": logits}, {"logits": dlogits}, np.array(1.0))
    targets = np.array([4, 0, 2])
    hard, soft = (
        ops.cross_entropy(logits, targets),
        ops.soft_cross_entropy(logits, np.eye(5)[targets]),
    )
    assert soft[0] == pytest.approx(hard[0])
    np.testing.assert_allclose(soft[1], hard[1], atol=1e-15)


def test_tied_head_gradients() -> None:
    x, wte = normal(5, 3), normal(7, 3, seed=1)
    targets = np.array([0, 6, 2, 2, 1])
    loss, dx, dwte = ops.tied_head_cross_entropy(x, wte, targets, scale=0.5)

    def head(x: F64, wte: F64) -> F64:
        return np.array(0.5 * ops.cross_entropy_rows(x @ wte.T, targets).sum())

    assert loss == pytest.approx(2 * float(head(x, wte)))
    assert_gradients(head, {"x": x, "wte": wte}, {"x": dx, "wte": dwte}, np.array(1.0))


def test_tree_sum_keeps_the_order() -> None:
    """2²⁴ + 1 is not a float32: the order of the sum shows."""
    lanes = [np.array([x], np.float32) for x in (2.0**24, 1.0, 1.0)]
    assert ops.tree_sum(lanes, ((0, 1), 2))[0] == 2.0**24
    assert ops.tree_sum(lanes, (0, (1, 2)))[0] == 2.0**24 + 2
    assert ops.tree_sum(lanes, 1) is not lanes[1]


@pytest.mark.parametrize("make", [ops.neighbor_tree, ops.halving_tree])
def test_trees_hold_every_index_once(make: Callable[[int], ops.Tree]) -> None:
    for count in range(1, 40):
        lanes = [np.array([2**i], dtype=object) for i in range(count)]
        assert ops.tree_sum(lanes, make(count))[0] == 2**count - 1


def test_elementary_functions_at_known_points() -> None:
    np.testing.assert_allclose(ops.exp([0, 1, -1]), [1, math.e, 1 / math.e], rtol=1e-15)
    np.testing.assert_allclose(ops.log([1, math.e]), [0, 1], atol=1e-15)
    np.testing.assert_allclose(ops.tanh([0.5 * math.log(3)]), [0.5], rtol=1e-15)
    np.testing.assert_allclose(
        ops.erf([[0.5], [-1.0]]), [[0.5204998778130465], [-0.8427007929497149]], rtol=1e-15
    )
    assert ops.exp([800.0])[0] == np.inf
    assert ops.log([0.0])[0] == -np.inf
    assert np.isnan(ops.log([-1.0])[0])


def test_ulp_error() -> None:
    one = np.float32(1)
    below, above = np.nextafter(one, np.float32(0)), np.nextafter(one, np.float32(2))
    got = np.array([one, above, below, below, 0, 1e-45, np.inf, np.nan, 3e38, 1], np.float32)
    exact = [1.0, 1.0, 1.0, 1.0 - 1e-12, 0.0, 0.0, 1e40, np.nan, 1e40, np.nan]
    expected = [0, 1, 0.5, 1, 0, 1, 0, 0, np.inf, np.inf]
    np.testing.assert_allclose(ops.ulp_error(got, exact), expected, atol=1e-4)


def test_norm_and_clipping_by_hand() -> None:
    gradients: list[npt.ArrayLike] = [[3.0], [[0.0, 4.0], [12.0, 0.0]]]
    assert ops.global_norm(gradients) == 13.0
    assert ops.clip_factor(13.0, 1.0) == 1 / 13
    assert ops.clip_factor(13.0, 13.0) == 1.0
    assert ops.clip_factor(0.0, 1.0) == 1.0
    assert ops.clip_factor(13.0, 0.0) == 1.0
