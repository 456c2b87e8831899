"""The attention kernels against float64 twins: forward, backward and the row of a KV cache.

Standard attention is judged through the model as well; crystalline attention, where scores gain
λ_h φ(a)·φ(b), has its λ, its features and its gradients put to the test here one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import attention, formats
from tests._kernels.buffers import F32, guards_intact, normal, place, same_bits
from tests._kernels.test_bf16 import value
from tests.oracles import ops

V, F = 23, attention.FEATURES
TOLERANCE = 3e-6  # of the largest entry of a result

# B, T, H, D: tiles of 28 queries and panels of 32 columns, just met and just missed; H odd
SHAPES = [
    (1, 1, 1, 1),
    (2, 5, 3, 7),
    (1, 28, 1, 32),
    (3, 29, 3, 33),
    (2, 57, 5, 16),
    (1, 97, 3, 64),
]


@dataclass
class Case:
    """Inputs with guards around them; `lambdas` differ from head to head in sign and size."""

    B: int
    T: int
    H: int
    D: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.T)
        rows, C = self.B * self.T, self.H * self.D
        self.qkv, self.dout = normal(rng, rows, 3 * C), normal(rng, rows, C)
        self.features = place(rng.standard_normal((V, F)) * 0.3)
        self.ids = rng.integers(0, V, rows).astype(np.int32)
        self.lambdas = place(np.linspace(-2.0, 1.5, self.H))

    def crystal(self) -> dict[str, npt.NDArray[np.generic]]:
        return {"features": self.features, "ids": self.ids, "lambdas": self.lambdas}

    def forward(self, **extra: object) -> tuple[F32, F32]:
        out, lse = place(np.full(self.dout.shape, 7)), place(np.full((self.B, self.H, self.T), 7))
        attention.attention_forward(self.qkv, self.T, self.H, out, lse, **extra)  # type: ignore[arg-type]
        assert guards_intact(self.qkv, self.features, self.lambdas, out, lse)
        return out, lse

    def backward(self, out: F32, lse: F32, **extra: object) -> F32:
        dqkv = place(np.full(self.qkv.shape, np.nan))
        attention.attention_backward(  # type: ignore[call-overload]
            self.dout, self.qkv, out, lse, self.T, self.H, dqkv, **extra
        )
        assert guards_intact(self.dout, self.qkv, out, lse, dqkv)
        return dqkv

    def cube(self, x: F32) -> npt.NDArray[np.float64]:
        return x.astype(np.float64).reshape(self.B, self.T, -1)

    def added(self) -> npt.NDArray[np.float64]:
        tokens = self.ids.reshape(self.B, self.T)
        return ops.crystal_scores(self.features, tokens, self.lambdas)


def assert_near(got: F32, want: npt.NDArray[np.float64]) -> None:
    assert np.abs(got - want.reshape(got.shape)).max() <= TOLERANCE * max(np.abs(want).max(), 1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_crystalline_attention_and_its_gradients(shape: tuple[int, int, int, int]) -> None:
    case = Case(*shape)
    out, lse = case.forward(**case.crystal())
    assert_near(out, ops.causal_attention(case.cube(case.qkv), case.H, None, case.added()))
    held = normal(np.random.default_rng(1), case.H)
    dlambdas = place(held)
    dqkv = case.backward(out, lse, **case.crystal(), dlambdas=dlambdas)
    assert guards_intact(dlambdas)
    qkv, dout = case.cube(case.qkv), case.cube(case.dout)
    want = ops.causal_attention_backward(qkv, case.H, dout, None, case.added())
    assert_near(dqkv, want)
    tokens = case.ids.reshape(case.B, case.T)
    want = ops.crystal_lambda_gradient(qkv, dout, case.features, tokens, case.lambdas)
    assert np.all((np.abs(want) > 1e-3) == (case.T > 1))
    assert_near(dlambdas, held + want)
    assert same_bits(case.backward(out, lse, **case.crystal()), dqkv)  # λ's gradient left out


@pytest.mark.parametrize("shape", SHAPES)
def test_standard_attention_and_its_gradients(shape: tuple[int, int, int, int]) -> None:
    case = Case(*shape)
    out, lse = case.forward()
    assert_near(out, ops.causal_attention(case.cube(case.qkv), case.H))
    want = ops.causal_attention_backward(case.cube(case.qkv), case.H, case.cube(case.dout))
    assert_near(case.backward(out, lse), want)


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_rounds_the_operands_of_products_only(shape: tuple[int, int, int, int]) -> None:
    """Against the float64 twin of rounded q, k, v and dout, p and ds add half an ulp, 2^-8, a term.

    Gradients go through ds and through delta, the sum of dout · out, and out has the rounding of p:
    with |ds| at most s = p (|dout| |v| + its mean over the keys) / √D, that is 2 · 2^-8 s a term.
    Where the format keeps operands, every result and the out that delta takes round once more.
    """
    case = Case(*shape)
    B, T, H, D = shape
    out, lse = case.forward(precision="bf16")
    dqkv = case.backward(out, lse, precision="bf16")
    qkv, dout = case.cube(value(case.qkv)), case.cube(value(case.dout))

    def heads(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return x.reshape(B, T, H, D).swapaxes(1, 2)

    q, k, v = (heads(part) for part in np.split(qkv, 3, axis=2))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(D)
    scores[..., np.triu(np.ones((T, T), bool), 1)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    q, k, v, do = np.abs(q), np.abs(k), np.abs(v), np.abs(heads(dout))
    reach = do @ v.swapaxes(2, 3)
    more = int(formats.keeps_operands("bf16"))
    s = p * (reach + (1 + more) * (p * reach).sum(-1, keepdims=True)) / np.sqrt(D)

    wanted = ops.causal_attention_backward(qkv, H, dout)
    rows = [(out, ops.causal_attention(qkv, H), p @ v)]
    bounds = 2 * s @ k, 2 * s.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ do
    rows += zip(np.split(dqkv, 3, axis=1), np.split(wanted, 3, axis=2), bounds, strict=True)
    for got, want, bound in rows:
        error = np.abs(heads(case.cube(got) - want))
        bound = bound + more * np.abs(heads(case.cube(want)))
        assert np.all(error <= 2.0**-8 * bound + 10 * TOLERANCE * bound.max())
    plain, _ = case.forward()
    assert not same_bits(out, plain)


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_with_dropout_and_crystal(shape: tuple[int, int, int, int]) -> None:
    """A dropped key counts for nothing, and the similarities are added in float32."""
    case = Case(*shape)
    drop = {"dropout": 0.4, "key": 5, "first_sequence": 3}
    for extra in (drop, case.crystal(), drop | case.crystal()):
        out, lse = case.forward(**extra, precision="bf16")
        near, near_lse = case.forward(**extra)
        dqkv, dnear = (
            case.backward(out, lse, **extra, precision="bf16"),
            case.backward(near, near_lse, **extra),
        )
        for got, want in ((out, near), (lse, near_lse), (dqkv, dnear)):
            assert np.linalg.norm(got - want) <= 0.03 * np.linalg.norm(want) + 1e-30
        assert case.T < 28 or not same_bits(out, near)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_lambda_zero_has_the_bits_of_standard_attention(
    shape: tuple[int, int, int, int], zero: float, dropout: float
) -> None:
    case = Case(*shape)
    case.lambdas[:] = zero
    case.features[:] = 1e30
    case.qkv[::3, : case.H * case.D] = -0.0  # scores of 0, of either sign
    drop = {"dropout": dropout, "key": 5, "first_sequence": 3}
    plain, plain_lse = case.forward(**drop)
    out, lse = case.forward(**case.crystal(), **drop)
    assert same_bits(out, plain)
    assert same_bits(lse, plain_lse)
    dlambdas = np.zeros(case.H, np.float32)
    dqkv = case.backward(out, lse, **case.crystal(), dlambdas=dlambdas, **drop)
    assert same_bits(dqkv, case.backward(plain, plain_lse, **drop))


def test_one_head_without_lambda_beside_others() -> None:
    case = Case(2, 31, 3, 9)
    plain, _ = case.forward()
    case.lambdas[1] = 0.0
    out, _ = case.forward(**case.crystal())
    for head, same in enumerate([False, True, False]):
        columns = slice(9 * head, 9 * head + 9)
        assert np.array_equal(out[:, columns], plain[:, columns]) == same


@pytest.mark.parametrize("crystalline", [False, True])
@pytest.mark.parametrize("n", [1, 2, 15, 33, 70])
def test_the_row_of_a_cache(n: int, crystalline: bool) -> None:
    H, D, rng = 3, 11, np.random.default_rng(n)
    q, keys, values = normal(rng, H * D), normal(rng, n, H * D), normal(rng, n, H * D)
    similarities, lambdas = normal(rng, n), place([1.25, 0.0, -2.0])
    out = place(np.full(H * D, np.nan))
    extra = {"similarities": similarities, "lambdas": lambdas} if crystalline else {}
    attention.attention_row(q, keys, values, H, out, **extra)
    assert guards_intact(q, keys, values, similarities, lambdas, out)
    for head in range(H):
        part = slice(head * D, head * D + D)
        added = lambdas[head] * similarities.astype(np.float64)[None] if crystalline else None
        want = ops.attention_head(q[None, part], keys[:, part], values[:, part], None, added)
        assert_near(out[part], want)


def test_what_does_not_fit_is_refused() -> None:
    case = Case(2, 5, 3, 7)
    for name, bad, words in (
        ("features", np.zeros((V, F - 1), np.float32), r"features has shape \(23, 15\)"),
        ("features", np.zeros((case.ids.max(), F), np.float32), "outside the table"),
        ("ids", case.ids[1:], r"ids has shape \(9,\), expected \(10,\)"),
        ("ids", np.full_like(case.ids, -1), "token -1 is outside"),
        ("lambdas", case.lambdas[:2].copy(), r"lambdas has shape \(2,\)"),
        ("lambdas", None, "come together"),
        ("features", None, "come together"),
    ):
        with pytest.raises(ValueError, match=words):
            case.forward(**(case.crystal() | {name: bad}))
    out, lse = case.forward(**case.crystal())
    with pytest.raises(ValueError, match=r"dlambdas has shape \(4,\)"):
        case.backward(out, lse, **case.crystal(), dlambdas=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="there are no features: there are no lambdas to learn"):
        case.backward(*case.forward(), dlambdas=np.zeros(3, np.float32))
    q, keys = np.zeros(6, np.float32), np.zeros((2, 6), np.float32)
    with pytest.raises(ValueError, match="come together"):
        attention.attention_row(q, keys, keys, 3, q.copy(), similarities=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"similarities has shape \(3,\)"):
        attention.attention_row(
            q, keys, keys, 3, q.copy(), np.zeros(3, np.float32), np.zeros(3, np.float32)
        )


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
