"""Every kernel: checked against NumPy float64, then timed, then set against the peak.

    python3 tools/dev.py bench bench/bench_kernels.py
    python3 tools/dev.py bench bench/bench_kernels.py -k crystalline
    CRYSTALLINE_ISA=avx2 python3 tools/dev.py bench bench/bench_kernels.py

The table at the end gives GFLOP/s and the share of this core's measured peak, in bf16 and int8 that
of their own products, for what computes, GB/s for what moves memory.  Shapes are those of *small*:
256 rows, 384 channels, 6 heads; products of 1 row are those of decoding.  Products *from memory*
and *added in memory* take turns over 64 MB of panels or sums, which no cache holds.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.peak import peak_flops
from bench.workloads import WORKLOADS
from crystalline._kernels import attention, crossentropy, isa, matmul, optimizer, rows
from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import Attention
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer

ROWS, C, H, V = 256, 384, 6, 30_000
NEIGHBORS = 16
generator = np.random.default_rng(1)


def random(*shape: int) -> np.ndarray:
    array = aligned_empty(shape)
    array[...] = generator.standard_normal(shape, dtype=np.float32)
    return array


def empty(*shape: int) -> np.ndarray:
    return aligned_empty(shape)


def close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


Kernel = Callable[[], Any]
# name -> function that checks the kernel and returns (call, FLOPs, bytes)
KERNELS: dict[str, Callable[[], tuple[Kernel, float, float]]] = {}


def kernel(function: Callable[[], tuple[Kernel, float, float]]) -> None:
    KERNELS[function.__name__] = function


IN_MEMORY = 64e6  # bytes that no cache holds


PRECISIONS = ("float32", "bf16")
FOR_INFERENCE = (*PRECISIONS, "int8")


def rounded(x: np.ndarray, precision: str, axis: int = 1) -> np.ndarray:
    """What a product's operand is taken for, in float64; K is its axis `axis`."""
    if precision == "float32":
        return x.astype(np.float64)
    if precision == "int8":
        largest = np.abs(x).max(axis, keepdims=True)
        return np.rint(x * (np.float32(127) / largest)) * (largest / 127).astype(np.float64)
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def operand(x: np.ndarray, precision: str) -> np.ndarray:
    out = empty(*matmul.operand_shape(*x.shape, precision))
    matmul.to_operand(x, out, precision)
    return out


def product(
    M: int, K: int, N: int, precision: str, from_memory: bool = False
) -> tuple[Kernel, float, float]:
    a, b, out = random(M, K), random(K, N), empty(M, N)
    size = matmul.packed_size(K, N, precision)
    packs = empty(1 + from_memory * round(IN_MEMORY / (4 * size)), size)
    for packed in packs:
        matmul.pack_matrix(b, packed, precision=precision)
    left = operand(a, precision)
    turn = itertools.cycle(packs)

    def call() -> None:
        matmul.matmul(left, next(turn), out, precision=precision, inner=K)

    call()
    close(out, rounded(a, precision) @ rounded(b, precision, axis=0))
    return call, 2.0 * M * K * N, 0.0


def product_transposed(
    M: int, K: int, N: int, precision: str, from_memory: bool = False
) -> tuple[Kernel, float, float]:
    a, b = random(M, K), random(M, N)
    outs = empty(1 + from_memory * round(IN_MEMORY / (4 * K * N)), K, N)
    packed = empty(matmul.packed_size(M, N, precision))
    left = empty(*matmul.turned_shape(M, K, precision))
    matmul.turn_operand(operand(a, precision), M, K, left, precision)
    turn = itertools.cycle(outs)

    def call() -> None:
        matmul.pack_matrix(b, packed, precision=precision)
        matmul.matmul_transposed(
            left, packed, next(turn), accumulate=from_memory, precision=precision, inner=M
        )

    outs[...] = 0.0
    call()
    close(outs[0], rounded(a, precision).T @ rounded(b, precision))
    return call, 2.0 * M * K * N, 0.0


def in_precisions(
    precisions: tuple[str, ...], name: str, function: Callable[..., Any], *arguments: Any
) -> None:
    for precision in precisions:
        label = name if precision == "float32" else f"{name} {precision}"
        KERNELS[label] = lambda precision=precision: function(*arguments, precision)


def both_precisions(name: str, function: Callable[..., Any], *arguments: Any) -> None:
    in_precisions(PRECISIONS, name, function, *arguments)


for shape in [(ROWS, C, 3 * C), (ROWS, C, C), (ROWS, C, 4 * C), (ROWS, 4 * C, C), (64, 128, 512)]:
    label = "x".join(map(str, shape))
    in_precisions(FOR_INFERENCE, f"matmul {label}", product, *shape)
    both_precisions(f"matmul_transposed {label} with packing", product_transposed, *shape)
for shape in [(1024, 768, 3072), (1, C, 4 * C), (1, 768, 3072)]:
    in_precisions(FOR_INFERENCE, f"matmul {'x'.join(map(str, shape))}", product, *shape)
for shape in [(128, C, 4 * C), (ROWS, C, V), (1, C, 4 * C)]:
    in_precisions(
        FOR_INFERENCE,
        f"matmul {'x'.join(map(str, shape))} from memory",
        lambda *a: product(*a, from_memory=True),
        *shape,
    )
for shape in [(ROWS, C, 4 * C), (64, 128, 512)]:
    label = "x".join(map(str, shape))
    both_precisions(
        f"matmul_transposed {label} with packing, added in memory",
        lambda *a: product_transposed(*a, from_memory=True),
        *shape,
    )


def causal(qkv: np.ndarray, added: np.ndarray | float = 0.0) -> np.ndarray:
    q, k, v = (part.reshape(ROWS, H, -1).swapaxes(0, 1) for part in np.split(qkv, 3, axis=1))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(C // H) + added
    scores = np.where(np.tri(ROWS, dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    return ((p / p.sum(axis=2, keepdims=True)) @ v).swapaxes(0, 1).reshape(ROWS, C)


ATTENTION_FLOPS = 2.0 * ROWS * ROWS * C  # q k^T and p v, the half below the diagonal


def attention_forward(precision: str) -> tuple[Kernel, float, float]:
    qkv, out, lse = random(ROWS, 3 * C), empty(ROWS, C), empty(1, H, ROWS)
    attention.attention_forward(qkv, ROWS, H, out, lse, precision=precision)
    close(out, causal(rounded(qkv, precision)), 2.0**-7 if precision == "bf16" else 1e-5)
    return (
        lambda: attention.attention_forward(qkv, ROWS, H, out, lse, precision=precision),
        ATTENTION_FLOPS,
        0.0,
    )


def attention_backward(precision: str) -> tuple[Kernel, float, float]:
    qkv, out, lse, dout = random(ROWS, 3 * C), empty(ROWS, C), empty(1, H, ROWS), random(ROWS, C)
    dqkv = empty(ROWS, 3 * C)
    attention.attention_forward(qkv, ROWS, H, out, lse, precision=precision)

    def call() -> None:
        attention.attention_backward(dout, qkv, out, lse, ROWS, H, dqkv, precision=precision)

    call()
    direction = generator.standard_normal(qkv.shape)
    step = 1e-5
    wide = rounded(qkv, precision)
    slope = ((causal(wide + step * direction) - causal(wide - step * direction)) * dout).sum()
    tolerance = 2.0**-7 if precision == "bf16" else 1e-4
    assert abs((dqkv * direction).sum() - slope / (2 * step)) < tolerance * np.linalg.norm(dqkv)
    return call, 2.5 * ATTENTION_FLOPS, 0.0


both_precisions("attention_forward", attention_forward)
both_precisions("attention_backward", attention_backward)
FEATURES = attention.FEATURES
EXTRA_FLOPS = 1.0 * H * ROWS * ROWS * FEATURES  # one product with the features, below the diagonal


def tokens() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arguments of crystalline attention, and what it adds to the scores [H, ROWS, ROWS]."""
    ids = generator.integers(0, 1000, ROWS).astype(np.int32)
    features, lambdas = random(1000, FEATURES), random(H)
    phi = features[ids].astype(np.float64)
    crystal = {"features": features, "ids": ids, "lambdas": lambdas}
    return crystal, lambdas[:, None, None] * (phi @ phi.T)


@kernel
def crystalline_attention_forward() -> tuple[Kernel, float, float]:
    qkv, out, lse = random(ROWS, 3 * C), empty(ROWS, C), empty(1, H, ROWS)
    crystal, added = tokens()

    def call() -> None:
        attention.attention_forward(qkv, ROWS, H, out, lse, **crystal)

    call()
    close(out, causal(qkv.astype(np.float64), added))
    return call, ATTENTION_FLOPS + EXTRA_FLOPS, 0.0


@kernel
def crystalline_attention_backward() -> tuple[Kernel, float, float]:
    qkv, out, lse, dout = random(ROWS, 3 * C), empty(ROWS, C), empty(1, H, ROWS), random(ROWS, C)
    dqkv, dlambdas = empty(ROWS, 3 * C), np.zeros(H, np.float32)
    crystal, added = tokens()
    attention.attention_forward(qkv, ROWS, H, out, lse, **crystal)

    def call() -> None:
        attention.attention_backward(dout, qkv, out, lse, ROWS, H, dqkv, **crystal,
                                     dlambdas=dlambdas)  # fmt: skip

    call()
    per_lambda = added / crystal["lambdas"][:, None, None]
    wide, step = qkv.astype(np.float64), 1e-5
    for head in range(H):
        move = step * (np.arange(H) == head)[:, None, None] * per_lambda
        slope = ((causal(wide, added + move) - causal(wide, added - move)) * dout).sum()
        assert abs(dlambdas[head] - slope / (2 * step)) < 1e-4 * np.linalg.norm(dlambdas)
    return call, 2.5 * ATTENTION_FLOPS + 2.0 * EXTRA_FLOPS, 0.0


@kernel
def layernorm_forward() -> tuple[Kernel, float, float]:
    x, gamma, beta, out = random(ROWS, C), random(C), random(C), empty(ROWS, C)
    mean, rstd = empty(ROWS), empty(ROWS)

    def call() -> None:
        rows.layernorm_forward(x, gamma, beta, out, mean, rstd)

    call()
    wide = x.astype(np.float64)
    normal = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    close(out, normal * gamma + beta)
    return call, 0.0, 8.0 * x.size


@kernel
def gelu_forward() -> tuple[Kernel, float, float]:
    x, out = random(ROWS * 4 * C), empty(ROWS * 4 * C)
    rows.gelu_forward(x, out)
    wide = x.astype(np.float64)
    close(out, 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))))
    return lambda: rows.gelu_forward(x, out), 0.0, 8.0 * x.size


@kernel
def gelu_backward() -> tuple[Kernel, float, float]:
    x, dy, dx = random(ROWS * 4 * C), random(ROWS * 4 * C), empty(ROWS * 4 * C)
    rows.gelu_backward(x, dy, dx)
    wide, step = x.astype(np.float64), 1e-6

    def gelu(z: np.ndarray) -> np.ndarray:
        return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    close(dx, dy * (gelu(wide + step) - gelu(wide - step)) / (2 * step))
    return lambda: rows.gelu_backward(x, dy, dx), 0.0, 12.0 * x.size


@kernel
def cross_entropy() -> tuple[Kernel, float, float]:
    logits, targets = random(64, V), generator.integers(0, V, 64).astype(np.int32)
    work = logits.copy()
    loss = crossentropy.cross_entropy(work, targets, 1.0, True)
    wide = logits.astype(np.float64)
    lse = np.log(np.exp(wide).sum(1))
    assert abs(loss - (lse - wide[np.arange(64), targets]).sum()) < 1e-4 * loss
    return lambda: crossentropy.cross_entropy(work, targets, 1.0, True), 0.0, 8.0 * work.size


def soft_targets() -> tuple[np.ndarray, np.ndarray]:
    ids = generator.integers(0, V, (V, NEIGHBORS)).astype(np.int32)
    weights = generator.random((V, NEIGHBORS))
    return ids, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def rows_of_targets(sets: int) -> itertools.cycle:
    """Other tokens at each call, so that their neighbors are not in the cache already."""
    return itertools.cycle(generator.integers(0, V, (sets, 64)).astype(np.int32))


@kernel
def crystalline_cross_entropy() -> tuple[Kernel, float, float]:
    logits, targets, (ids, weights) = random(64, V), rows_of_targets(100), soft_targets()
    work, row, at = logits.copy(), np.arange(64), next(targets)
    loss, smoothed = crossentropy.crystalline_cross_entropy(work, at, ids, weights, 0.1)
    wide = logits.astype(np.float64)
    lse = np.log(np.exp(wide).sum(1))
    near = (weights[at] * wide[row[:, None], ids[at]]).sum(1)
    assert abs(loss - (lse - wide[row, at]).sum()) < 1e-4 * loss
    assert abs(smoothed - (lse - 0.9 * wide[row, at] - 0.1 * near).sum()) < 1e-4 * smoothed

    def call() -> None:
        crossentropy.crystalline_cross_entropy(work, next(targets), ids, weights, 0.1)

    return call, 0.0, 8.0 * work.size


@kernel
def adamw_in_memory() -> tuple[Kernel, float, float]:
    w, m, v, g = (random(8_000_000) for _ in range(4))
    v **= 2
    settings = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "step": 3}
    sample = slice(0, 1000)
    w0, m0, v0 = (x[sample].astype(np.float64) for x in (w, m, v))
    optimizer.adamw(w, m, v, g, **settings)
    m1, v1 = 0.9 * m0 + 0.1 * g[sample], 0.99 * v0 + 0.01 * g[sample].astype(np.float64) ** 2
    ratio = m1 / (1 - 0.9**3) / (np.sqrt(v1 / (1 - 0.99**3)) + 1e-8)
    close(w[sample], w0 * (1 - 1e-4) - 1e-3 * ratio)
    return lambda: optimizer.adamw(w, m, v, g, **settings), 0.0, 28.0 * w.size


@kernel
def tree_sum_of_12_lanes() -> tuple[Kernel, float, float]:
    lanes, out = random(12, 2_000_000), empty(2_000_000)
    optimizer.tree_sum(lanes, out)
    close(out, lanes.astype(np.float64).sum(0))
    return lambda: optimizer.tree_sum(lanes, out), 0.0, 4.0 * 13 * out.size


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tiny", "small", "compact"])
def test_what_crystalline_attention_costs(name: str, precision: str, benchmark: Any) -> None:
    """A lane's forward and backward against standard attention's, in turn in one process."""
    shape = WORKLOADS[name]
    sequences = max(1, round(shape.B / 12))
    batch = generator.integers(0, shape.V, (sequences, shape.T + 1)).astype(np.int32)

    def lane(kind: Attention) -> Callable[[], float]:
        config = replace(shape.model, attention=kind)
        table = parameter_table(config)
        weights, grads = empty(table.size), empty(table.size)
        initialize(config, weights, seed=1)
        features = None
        if kind == "crystalline":
            features = random(shape.V, FEATURES) / 4
            for layer in range(shape.L):
                table.views(weights)[f"transformer.h.{layer}.attn.crystal_lambda"][:] = 0.5
        model = Transformer.allocate(config, weights, precision=precision, features=features)

        def seconds() -> float:
            start = time.thread_time()  # what else the machine does, counts less
            for _ in range(repeats):
                model.compute(batch, grads, scale=1.0)
            return time.thread_time() - start

        return seconds

    repeats = 1
    standard, crystalline = lane("standard"), lane("crystalline")
    crystalline()
    repeats = max(1, round(0.03 / standard()))
    ratios = []

    def round_() -> None:
        before = standard()
        mine = crystalline()
        ratios.append(2 * mine / (before + standard()))

    benchmark.pedantic(round_, rounds=41, iterations=1, warmup_rounds=1)
    benchmark.extra_info["isa"] = isa.level()
    benchmark.extra_info["crystalline / standard"] = round(statistics.median(ratios), 3)


def test_what_the_crystalline_loss_costs(benchmark: Any) -> None:
    """Soft targets of 16 neighbors against plain ones, in turn in one process: at most 5 % more."""
    work, targets, (ids, weights) = random(64, V), rows_of_targets(100), soft_targets()

    def plain(at: np.ndarray) -> None:
        crossentropy.cross_entropy(work, at)

    def soft(at: np.ndarray) -> None:
        crossentropy.crystalline_cross_entropy(work, at, ids, weights, 0.1)

    def seconds(call: Callable[[np.ndarray], None]) -> float:
        at = next(targets)
        start = time.thread_time()
        call(at)
        return time.thread_time() - start

    ratios = []

    def round_() -> None:
        for _ in range(10):
            before = seconds(plain)
            mine = seconds(soft)
            ratios.append(2 * mine / (before + seconds(plain)))

    benchmark.pedantic(round_, rounds=41, iterations=1, warmup_rounds=1)
    benchmark.extra_info["isa"] = isa.level()
    benchmark.extra_info["crystalline / standard"] = round(statistics.median(ratios), 3)
    assert statistics.median(ratios) <= 1.05


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name: str, benchmark: Any) -> None:
    call, flops, size_bytes = KERNELS[name]()
    precision = next((p for p in FOR_INFERENCE if name.endswith(f" {p}")), "float32")
    before = peak_flops(seconds=0.02, precision=precision)
    benchmark.pedantic(call, rounds=15, iterations=3, warmup_rounds=2)
    peak = max(before, peak_flops(seconds=0.02, precision=precision))
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["isa"] = isa.level()
    if flops:
        benchmark.extra_info["GFLOP/s"] = round(flops / seconds / 1e9, 1)
        benchmark.extra_info["share of peak"] = round(flops / seconds / peak, 3)
    else:
        benchmark.extra_info["GB/s"] = round(size_bytes / seconds / 1e9, 1)
