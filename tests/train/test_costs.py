"""What passes cost, against the totals of docs/passes.md and the usual count of operations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crystalline._kernels.marks import PASSES
from crystalline.model.config import ModelConfig
from crystalline.train.costs import Form, layer_floats, pass_costs
from crystalline.train.sizing import flops_per_token

PAGE = Path(__file__).resolve().parents[2] / "docs" / "passes.md"
MODEL = ModelConfig(65, 256, 6, 6, 384)
FORWARD = ("norms", "q, k, v", "attention", "out", "fc", "proj")


def number(text: str) -> float:
    whole = text.rstrip("½")
    return float(whole or 0) + (0.5 if text.endswith("½") else 0.0)


def totals() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(forward, backward), each as reads and writes: float32, bf16, bf16 on tiles."""
    page = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| \*\*(forward|backward)\*\* \| (.+)$", page, re.MULTILINE)
    assert [name for name, _ in rows] == ["forward", "backward"] * 2
    (first, back), (tiles, tiles_back) = (
        [re.findall(r"[\d½]+", cells) for _, cells in rows[at : at + 2]] for at in (0, 2)
    )
    plain = [(number(f[0]), number(f[2])) for f in (first, back)]
    bf16 = [(number(f[1]), number(f[3])) for f in (first, back)]
    amx = [(number(f[0]), number(f[1])) for f in (tiles, tiles_back)]
    return [(a, b) for a, b in (plain, bf16, amx)]


@pytest.mark.parametrize(
    ("precision", "isa", "column"), [("float32", "amx", 0), ("bf16", "avx2", 1), ("bf16", "amx", 2)]
)
def test_the_passes_of_a_layer_move_what_the_page_says(
    precision: str, isa: str, column: int
) -> None:
    found = layer_floats(MODEL, Form.of(precision, isa))
    assert set(found) <= set(PASSES)
    for wanted, names in zip(
        totals()[column], (FORWARD, tuple(found.keys() - set(FORWARD))), strict=True
    ):
        for at in (0, 1):
            assert sum(found[name][at] for name in names) == wanted[at] * MODEL.embed_dim


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        ModelConfig(
            96, 64, 3, 4, 64, architecture="llama", num_kv_heads=2, mlp_dim=100,
            tie_embeddings=False,
        ),
    ],
)  # fmt: skip
def test_the_operations_are_those_of_a_token(model: ModelConfig) -> None:
    """6N + 12 LWT, less half of attention's, which is causal, and more for what is made again."""
    costs = pass_costs(model, "float32", "avx2")
    attention = model.num_layers * model.num_heads * model.head_dim * model.seq_len
    found = sum(cost.flops for cost in costs.values())
    wanted = flops_per_token(model) - 12.0 * attention + 7.0 * attention
    assert found == pytest.approx(wanted, rel=0.01)  # vectors are no products
    apart = model.architecture == "llama"  # GELU is a part of the products
    idle = {name for name, cost in costs.items() if not cost.moved_bytes}
    assert idle == (set() if apart else {"activation", "activation backward"})
