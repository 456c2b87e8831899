"""The one parameter table.  Offsets, views, segments, checkpoints and exports derive from it.

All parameters live in one flat float32 buffer: the matrices first, then the
vectors, every tensor starting on a 64-byte boundary.  Names and shapes are
those of GPT-2 in transformers (a linear layer is [inputs, outputs]), so that a
checkpoint needs no renaming and no transposing.  What GPT-2 does not have comes
last, so that nothing else moves: the λ of crystalline attention, one per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crystalline.model.config import ModelConfig

ALIGN_FLOATS = 16  # a cache line
PANEL = 32  # columns of a packed panel; rows of a segment come in multiples of it
SEGMENT_FLOATS = 32768  # the least that a segment aims at
MOST_SEGMENTS = 1024  # about; more would keep no more cores busy, and each costs a claim

_WTE = "transformer.wte.weight"
_WPE = "transformer.wpe.weight"


@dataclass(frozen=True)
class Parameter:
    """One tensor in the flat buffer."""

    name: str
    shape: tuple[int, ...]
    offset: int  # in floats
    init: str  # "normal", "zeros" or "ones"
    std: float  # of the normal initialization
    decays: bool  # takes part in weight decay: matrices do, vectors do not

    @property
    def size(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)

    @property
    def group(self) -> str:
        """The diagnostic group: 'embeddings', 'attention', 'mlp' or 'norms'."""
        if ".attn." in self.name:
            return "attention"
        if ".mlp." in self.name:
            return "mlp"
        return "norms" if ".ln_" in self.name else "embeddings"


@dataclass(frozen=True)
class Segment:
    """A fixed slice of the flat buffer: the unit of reduction and of the optimizer.

    A segment of a matrix is `rows` whole rows from `row` on, `row` a multiple
    of 32, so that the packed panels of different segments never overlap.
    """

    start: int  # in floats
    stop: int
    tensor: int  # index into ParameterTable.parameters; -1 for a run of vectors
    row: int
    rows: int


@dataclass(frozen=True)
class ParameterTable:
    """All tensors of a model, in buffer order."""

    parameters: tuple[Parameter, ...]
    size: int  # floats in the flat buffer, alignment gaps included

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    @property
    def count(self) -> int:
        """Number of trainable floats (the gaps left out)."""
        return sum(p.size for p in self.parameters)

    def views(self, flat: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Return name → view of `flat`; nothing is copied."""
        return {
            p.name: flat[p.offset : p.offset + p.size].reshape(p.shape) for p in self.parameters
        }

    def segments(self) -> tuple[Segment, ...]:
        """Cut the buffer into segments; the cuts depend on the model only."""
        segments: list[Segment] = []
        aim = max(SEGMENT_FLOATS, self.size // MOST_SEGMENTS)
        vectors_start: int | None = None
        for index, p in enumerate(self.parameters):
            if len(p.shape) == 1:
                if vectors_start is None:
                    vectors_start = p.offset
                continue
            total, width = p.shape
            step = max(PANEL, aim // width // PANEL * PANEL)
            for row in range(0, total, step):
                rows = min(step, total - row)
                start = p.offset + row * width
                segments.append(Segment(start, start + rows * width, index, row, rows))
        if vectors_start is not None:
            for start in range(vectors_start, self.size, aim):
                stop = min(start + aim, self.size)
                segments.append(Segment(start, stop, -1, 0, 0))
        return tuple(segments)


@lru_cache(maxsize=32)
def parameter_table(config: ModelConfig) -> ParameterTable:
    """Return the table of a GPT-2 shaped model.

    >>> table = parameter_table(ModelConfig(65, 64, 4, 4, 128))
    >>> table["transformer.wte.weight"].shape, table.count
    ((65, 128), 809856)
    """
    C, V, T, L = config.embed_dim, config.vocab_size, config.seq_len, config.num_layers
    residual_std = 0.02 / math.sqrt(2 * L)
    rows: list[tuple[str, tuple[int, ...], str, float]] = [
        (_WTE, (V, C), "normal", 0.02),
        (_WPE, (T, C), "normal", 0.02),
    ]
    for layer in range(L):
        h = f"transformer.h.{layer}."
        rows += [
            (h + "attn.c_attn.weight", (C, 3 * C), "normal", 0.02),
            (h + "attn.c_proj.weight", (C, C), "normal", residual_std),
            (h + "mlp.c_fc.weight", (C, 4 * C), "normal", 0.02),
            (h + "mlp.c_proj.weight", (4 * C, C), "normal", residual_std),
        ]
    for layer in range(L):
        h = f"transformer.h.{layer}."
        rows += [
            (h + "ln_1.weight", (C,), "ones", 0.0),
            (h + "ln_1.bias", (C,), "zeros", 0.0),
            (h + "attn.c_attn.bias", (3 * C,), "zeros", 0.0),
            (h + "attn.c_proj.bias", (C,), "zeros", 0.0),
            (h + "ln_2.weight", (C,), "ones", 0.0),
            (h + "ln_2.bias", (C,), "zeros", 0.0),
            (h + "mlp.c_fc.bias", (4 * C,), "zeros", 0.0),
            (h + "mlp.c_proj.bias", (C,), "zeros", 0.0),
        ]
    rows += [
        ("transformer.ln_f.weight", (C,), "ones", 0.0),
        ("transformer.ln_f.bias", (C,), "zeros", 0.0),
    ]
    if config.attention == "crystalline":
        names = (f"transformer.h.{layer}.attn.crystal_lambda" for layer in range(L))
        rows += [(name, (config.num_heads,), "zeros", 0.0) for name in names]
    parameters = []
    offset = 0
    for name, shape, init, std in rows:
        parameters.append(Parameter(name, shape, offset, init, std, decays=len(shape) > 1))
        size = math.prod(shape)
        offset += -(-size // ALIGN_FLOATS) * ALIGN_FLOATS
    return ParameterTable(tuple(parameters), offset)


def initialize(
    config: ModelConfig,
    flat: npt.NDArray[np.float32],
    seed: int,
    *,
    embeddings: npt.NDArray[np.float32] | None = None,
    positions: str = "learned",
) -> None:
    """Fill `flat` with the initial parameters: a pure function of the arguments.

    Matrices are normal with standard deviation 0.02, those that write to the
    residual stream 0.02/√(2L) (Radford et al. 2019); biases 0, LayerNorm
    scales 1.  Each tensor has a random stream of its own, so adding a tensor
    changes no other.

    Two tensors can begin with structure instead, at the same 0.02 and without
    changing the others, which the seed still decides:

    * embeddings: float32[V, C] of rms 1, a row for every token, is where the
      token embeddings begin;
    * positions: "learned" for normal numbers, "twelvefold" for the table of
      `twelvefold_positions`.  Both are learned from there on.
    """
    table = parameter_table(config)
    if flat.shape != (table.size,):
        raise ValueError(f"flat has shape {flat.shape}, the model needs ({table.size},)")
    given: dict[str, npt.NDArray[np.float32]] = {}
    if embeddings is not None:
        shape = table[_WTE].shape
        if embeddings.shape != shape or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings are {embeddings.dtype}{list(embeddings.shape)}, "
                f"the model needs float32{list(shape)}"
            )
        given[_WTE] = embeddings
    if positions == "twelvefold":
        # Exact mathematics takes 0.1 s to load, and every worker loads this file.
        from crystalline.model.twelvefold import twelvefold_positions

        given[_WPE] = twelvefold_positions(config.seq_len, config.embed_dim)
    elif positions != "learned":
        raise ValueError(f"positions is {positions!r}, expected 'learned' or 'twelvefold'")
    flat[:] = 0.0
    for index, (p, view) in enumerate(
        zip(table.parameters, table.views(flat).values(), strict=True)
    ):
        if p.name in given:
            view[...] = p.std * given[p.name]
        elif p.init == "normal":
            generator = np.random.Generator(np.random.Philox(key=[seed, index]))
            view[...] = p.std * generator.standard_normal(p.shape, dtype=np.float32)
        elif p.init == "ones":
            view[...] = 1.0
