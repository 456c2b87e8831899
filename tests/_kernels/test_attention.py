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


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("T", "H", "G", "D", "window"),
    [(1, 2, 1, 4, 0), (31, 4, 2, 9, 0), (70, 6, 1, 16, 7), (45, 3, 3, 11, 1), (130, 4, 2, 33, 64)],
)
def test_grouped_heads_and_windows(
    T: int, H: int, G: int, D: int, window: int, precision: str
) -> None:
    """Heads of q share k and v, and see the newest keys only: against loops in float64."""
    rng = np.random.default_rng(T)
    B, wide = 2, (H + 2 * G) * D
    qkv, dout = normal(rng, B * T, wide), normal(rng, B * T, H * D)
    out, dqkv = place(np.full((B * T, H * D), np.nan)), place(np.full((B * T, wide), np.nan))
    lse = np.zeros((B, H, T), np.float32)
    shape = {"precision": precision, "kv_heads": G, "window": window}
    attention.attention_forward(qkv, T, H, out, lse, **shape)
    attention.attention_backward(dout, qkv, out, lse, T, H, dqkv, **shape)
    assert guards_intact(qkv, dout, out, dqkv)
    # measured over the five levels: 2.7e-7 and 7.3e-3 forward, 9.7e-7 and 2.2e-2 backward
    near, near_back = {"float32": (6e-7, 2e-6), "bf16": (1.5e-2, 4.5e-2)}[precision]
    q, k, v = np.split(qkv.astype(np.float64), [H * D, (H + G) * D], axis=1)
    dq, dk, dv = (np.zeros_like(one) for one in (q, k, v))
    for b in range(B):
        rows = slice(b * T, b * T + T)
        for h in range(H):
            own, shared = slice(h * D, h * D + D), slice(h // (H // G) * D, (h // (H // G) + 1) * D)
            scores = q[rows, own] @ k[rows, shared].T / np.sqrt(D)
            age = np.arange(T)[:, None] - np.arange(T)
            scores[(age < 0) | ((age >= window) if window else False)] = -np.inf
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            want = p @ v[rows, shared]
            assert np.abs(out[rows, own] - want).max() <= near * max(1.0, np.abs(want).max())
            dp = dout[rows, own].astype(np.float64) @ v[rows, shared].T
            ds = p * (dp - (dp * p).sum(axis=1, keepdims=True)) / np.sqrt(D)
            dq[rows, own] += ds @ k[rows, shared]
            dk[rows, shared] += ds.T @ q[rows, own]
            dv[rows, shared] += p.T @ dout[rows, own].astype(np.float64)
    for got, want in zip(np.split(dqkv, [H * D, (H + G) * D], axis=1), (dq, dk, dv), strict=True):
        assert np.abs(got - want).max() <= near_back * max(1.0, np.abs(want).max())


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
    with pytest.raises(ValueError, match="3 heads of q and twice 2 of k"):
        attention.attention_forward(case.qkv, 5, 3, *case.forward(), kv_heads=2)
    with pytest.raises(ValueError, match="window is -1"):
        attention.attention_forward(case.qkv, 5, 3, *case.forward(), window=-1)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
