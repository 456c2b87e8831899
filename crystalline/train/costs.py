"""What the passes of a lane cost: operations, and bytes that they read and write.

The bytes are those of docs/passes.md, where each row is told; here they are functions of a model's
sizes, of any architecture.  They count what a pass asks for, from whatever cache it comes.

Letters: C channels, W width of all heads, G width of keys or values, U channels that an MLP's first
product makes and F that it ends with, V vocabulary, T sequence, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalline._kernels.marks import PASSES
from crystalline.model.config import ModelConfig
from crystalline.model.transformer import CHUNK_ROWS

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Of one pass over all layers, for one token."""

    flops: float
    read_bytes: float
    written_bytes: float

    @property
    def moved_bytes(self) -> float:
        """Bytes that are read or written."""
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class Form:
    """How a number format keeps things: the columns of docs/passes.md."""

    operand: float  # floats of a product's operand for one number
    converts: bool  # whether operands are made by passes of their own
    keeps: bool  # whether what products leave is kept as operands, too

    @classmethod
    def of(cls, precision: str, isa: str) -> Form:
        """Return that of a precision at a level of instructions.

        >>> Form.of("float32", "avx2"), Form.of("bf16", "amx").keeps
        (Form(operand=1.0, converts=False, keeps=False), True)
        """
        if precision == "float32":
            return cls(1.0, False, False)
        keeps = isa.startswith("amx")
        return cls(0.5, not keeps, keeps)


def pass_costs(model: ModelConfig, precision: str, isa: str) -> dict[str, Cost]:
    """Return the costs of each of `PASSES`."""
    form = Form.of(precision, isa)
    layer, flops, ends = layer_floats(model, form), _layer_flops(model), _ends(model, form)
    found = {}
    for name in PASSES:
        inside = _cost(model.num_layers, flops.get(name, 0.0), *layer.get(name, (0.0, 0.0)))
        found[name] = ends.get(name, inside)
    return found


def _cost(times: float, flops: float, read: float, written: float) -> Cost:
    return Cost(times * flops, times * FLOAT_BYTES * read, times * FLOAT_BYTES * written)


def layer_floats(model: ModelConfig, form: Form) -> dict[str, tuple[float, float]]:
    """Return the floats that the passes of one layer read and write for one token.

    Weight gradients write theirs once for the rows of a chunk, which is left out here.
    """
    o = form.operand
    k = o if form.keeps else 1.0  # what products leave
    pairs = 1.0 if form.converts else 0.0  # another pass that makes operands
    turned = 1.0 if form.converts or form.keeps else 0.0  # operands paired along the rows
    C, W, G, U, F = _sizes(model)
    Q = W + 2 * G
    found = {
        "norms": (2 * C, 2 * o * C),
        "q, k, v": (o * C, k * Q),
        "attention": (2 * k * G + k * W + (0.0 if form.keeps else 2 * o * G), 2 * o * G + k * W),
        "out": (o * W + C + pairs * W, C + pairs * o * W),
        "fc": (o * C, U),
        "activation": (U, o * F),
        "proj": (o * F + C, C),
        "proj backward": (o * C, F),
        "activation backward": (F + U, U),
        "fc backward": (o * U, C),
        "norms backward": (6 * C, 2 * C),
        "proj gradient": (o * (F + C) + turned * o * F, turned * o * F),
        "fc gradient": (o * (C + U) + turned * o * C, turned * o * C),
        "out backward": (o * C, k * W),
        "out gradient": (o * (C + W) + turned * o * W, turned * o * W),
        "attention backward": (2 * k * (Q + W), (o + k) * Q),
        "q, k, v backward": (o * Q, C),
        "q, k, v gradient": (o * (C + Q) + turned * o * C, turned * o * C),
    }
    if model.row.mlp == "gelu":  # it is a part of the products beside it
        for name, activation in (("fc", "activation"), ("proj backward", "activation backward")):
            first, second = found[name], found.pop(activation)
            found[name] = (first[0] + second[0], first[1] + second[1])
        if form.keeps:  # ... of their sums, while they are in registers
            found["fc"] = (o * C, o * (U + F))
            found["proj backward"] = (o * (C + U), o * U)
    if form.keeps:  # gradients of what is kept are operands already
        found["packing"] = (4 * C + o * (U + Q), 2 * C + o * (U + Q))
    else:
        packed = 2 * C + U + Q
        found["packing"] = ((1 + pairs) * packed, (1 + pairs) * o * packed)
    return found


def _layer_flops(model: ModelConfig) -> dict[str, float]:
    """Return the operations of one layer's products for one token, of causal attention."""
    C, W, G, U, F = _sizes(model)
    Q = W + 2 * G
    window = model.sliding_window or model.seq_len
    keys = min(window, model.seq_len) / 2 if window >= model.seq_len else window
    found = {"attention": 4.0 * W * keys, "attention backward": 10.0 * W * keys}
    for name, size in (("q, k, v", C * Q), ("out", W * C), ("fc", C * U), ("proj", F * C)):
        for kind in ("", " backward", " gradient"):
            found[name + kind] = 2.0 * size
    return found


def _ends(model: ModelConfig, form: Form) -> dict[str, Cost]:
    """Return the costs of what is no part of a layer."""
    C, V, o = model.embed_dim, model.vocab_size, form.operand
    places = 2 if model.row.positions == "learned" else 1
    gradient = V * C / max(CHUNK_ROWS, model.seq_len)  # written once a chunk
    return {
        "embed": _cost(1, 0.0, places * C, C),
        # Logits, their gradient in place, and two products with it.
        "head and loss": _cost(1, 6.0 * C * V, 2 * o * C + 4 * V, C + 2 * V + gradient),
        "embed backward": _cost(1, 0.0, (1 + places) * C, places * C),
    }


def _sizes(model: ModelConfig) -> tuple[int, int, int, int, int]:
    """Return C, W, G, U and F of a model."""
    width = model.mlp_width
    return (
        model.embed_dim,
        model.num_heads * model.head_dim,
        model.kv_heads * model.head_dim,
        2 * width if model.row.mlp == "swiglu" else width,
        width,
    )
