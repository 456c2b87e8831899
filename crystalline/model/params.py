"""The one parameter table.  Offsets, views, segments, checkpoints and exports derive from it.

All parameters live in one flat float32 buffer: the matrices first, then the vectors, every tensor
starting on a 64-byte boundary.  Which tensors there are is the architecture's to say, and how they
are called and cut in files (see `architectures`).  What no architecture of others has comes last,
so that nothing else moves: the λ of crystalline attention, one per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig

ALIGN_FLOATS = 16  # a cache line
PANEL = 32  # columns of a packed panel; rows of a segment come in multiples of it
SEGMENT_FLOATS = 32768  # the least that a segment aims at
MOST_SEGMENTS = 1024  # about; more would keep no more cores busy, and each costs a claim
INIT_STD = 0.02  # of matrices (Radford et al. 2019)

# The tensors of the buffer in order: once, in every layer, once.
_MATRICES = (Role.TOKENS, Role.POSITIONS, Role.HEAD)
_LAYER_MATRICES = (Role.QKV, Role.OUT, Role.UP, Role.DOWN)
_LAYER_VECTORS = (
    Role.NORM1, Role.NORM1_BIAS, Role.QKV_BIAS, Role.OUT_BIAS, Role.Q_NORM, Role.K_NORM,
    Role.NORM2, Role.NORM2_BIAS, Role.UP_BIAS, Role.DOWN_BIAS,
)  # fmt: skip
_VECTORS = (Role.FINAL_NORM, Role.FINAL_NORM_BIAS)

_GROUPS = {
    Role.TOKENS: "embeddings", Role.POSITIONS: "positions", Role.HEAD: "embeddings",
    Role.QKV: "attention", Role.OUT: "attention", Role.QKV_BIAS: "attention",
    Role.OUT_BIAS: "attention", Role.Q_NORM: "attention", Role.K_NORM: "attention",
    Role.LAMBDA: "attention",
    Role.UP: "mlp", Role.DOWN: "mlp", Role.UP_BIAS: "mlp", Role.DOWN_BIAS: "mlp",
    Role.NORM1: "norms", Role.NORM1_BIAS: "norms", Role.NORM2: "norms", Role.NORM2_BIAS: "norms",
    Role.FINAL_NORM: "norms", Role.FINAL_NORM_BIAS: "norms",
}  # fmt: skip

_ONES = (Role.NORM1, Role.NORM2, Role.Q_NORM, Role.K_NORM, Role.FINAL_NORM)
_TO_RESIDUAL = (Role.OUT, Role.DOWN)  # matrices that write to the residual stream

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """How some columns of a tensor stand in files."""

    name: str  # of the tensor there
    start: int  # its columns in memory
    stop: int
    transposed: bool  # there


@dataclass(frozen=True)
class Parameter:
    """One tensor in the flat buffer."""

    name: str
    role: Role
    layer: int  # -1: of the model
    shape: tuple[int, ...]
    offset: int  # in floats
    init: str  # "normal", "zeros" or "ones"
    std: float  # of the normal initialization
    parts: tuple[Part, ...]  # in files, in order of their columns

    @property
    def size(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)

    @property
    def decays(self) -> bool:
        """Whether it takes part in weight decay: matrices do, vectors do not."""
        return len(self.shape) > 1

    @property
    def group(self) -> str:
        """The diagnostic group: 'embeddings', 'positions', 'attention', 'mlp' or 'norms'."""
        return _GROUPS[self.role]

    def part_shape(self, part: Part) -> tuple[int, ...]:
        """Return the shape that a part has in files."""
        shape = (*self.shape[:-1], part.stop - part.start)
        return shape[::-1] if part.transposed else shape

    def part_view(self, whole: Floats, part: Part) -> Floats:
        """Return a part of the tensor as files have it: a view of `whole`, which has its shape."""
        view = whole[..., part.start : part.stop]
        return view.T if part.transposed else view


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

    def find(self, role: Role, layer: int = -1) -> Parameter | None:
        """Return the tensor of a role, in a layer or of the model; None where there is none."""
        found = (p for p in self.parameters if p.role is role and p.layer == layer)
        return next(found, None)

    @property
    def count(self) -> int:
        """Number of trainable floats (the gaps left out)."""
        return sum(p.size for p in self.parameters)

    def views(self, flat: Floats) -> dict[str, Floats]:
        """Return name → view of `flat`; nothing is copied."""
        return {
            p.name: flat[p.offset : p.offset + p.size].reshape(p.shape) for p in self.parameters
        }

    def file_views(self, flat: Floats) -> dict[str, Floats]:
        """Return name in files → view of `flat`, with the shape that it has in files."""
        views = self.views(flat)
        return {part.name: p.part_view(views[p.name], part) for p, part in self.file_parts()}

    def file_parts(self) -> Iterator[tuple[Parameter, Part]]:
        """Yield what stands in files, in buffer order: a tensor, and a part of it."""
        for parameter in self.parameters:
            for part in parameter.parts:
                yield parameter, part

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
    """Return the table of a model.

    >>> table = parameter_table(ModelConfig(65, 64, 4, 4, 128))
    >>> table["transformer.wte.weight"].shape, table.count
    ((65, 128), 809856)
    >>> llama = ModelConfig(65, 64, 4, 4, 128, architecture="llama", num_kv_heads=2)
    >>> [part.name[15:] for part in parameter_table(llama).find(Role.QKV, 0).parts]
    ['self_attn.q_proj.weight', 'self_attn.k_proj.weight', 'self_attn.v_proj.weight']
    """
    tensors = config.row.tensors
    layers = range(config.num_layers)
    order = [(role, -1) for role in _MATRICES if role is not Role.HEAD or not config.is_tied]
    order += [(role, layer) for layer in layers for role in _LAYER_MATRICES]
    order += [(role, layer) for layer in layers for role in _LAYER_VECTORS]
    order += [(role, -1) for role in _VECTORS]
    if config.attention == "crystalline":
        order += [(Role.LAMBDA, layer) for layer in layers]
    parameters = []
    for role, layer in order:
        if role not in tensors:
            continue
        names = tensors[role]
        shape = _SHAPES[role](config)
        files = [name.format(layer=layer) for name in names.file_names]
        ends = _ends(config, role, shape, len(files))
        parts = tuple(
            Part(name, start, stop, names.transposed)
            for name, start, stop in zip(files, (0, *ends), ends, strict=False)
        )
        init = "normal" if len(shape) > 1 else "ones" if role in _ONES else "zeros"
        std = INIT_STD / math.sqrt(2 * config.num_layers) if role in _TO_RESIDUAL else INIT_STD
        parameters.append(
            Parameter(
                names.name.format(layer=layer), role, layer, shape, 0, init,
                std if init == "normal" else 0.0, parts,
            )
        )  # fmt: skip
    return laid_out(parameters)


def laid_out(parameters: Iterable[Parameter]) -> ParameterTable:
    """Return tensors one after the other in a flat buffer, each from a cache line on."""
    placed = []
    offset = 0
    for parameter in parameters:
        placed.append(replace(parameter, offset=offset))
        offset += -(-parameter.size // ALIGN_FLOATS) * ALIGN_FLOATS
    return ParameterTable(tuple(placed), offset)


def _query_width(config: ModelConfig) -> int:
    return config.num_heads * config.head_dim


def _qkv_width(config: ModelConfig) -> int:
    return (config.num_heads + 2 * config.kv_heads) * config.head_dim


def _up_width(config: ModelConfig) -> int:
    return (2 if config.row.has_gate else 1) * config.mlp_width


_SHAPES: dict[Role, Callable[[ModelConfig], tuple[int, ...]]] = {
    Role.TOKENS: lambda c: (c.vocab_size, c.embed_dim),
    Role.POSITIONS: lambda c: (c.seq_len, c.embed_dim),
    Role.HEAD: lambda c: (c.vocab_size, c.embed_dim),
    Role.FINAL_NORM: lambda c: (c.embed_dim,),
    Role.FINAL_NORM_BIAS: lambda c: (c.embed_dim,),
    Role.QKV: lambda c: (c.embed_dim, _qkv_width(c)),
    Role.OUT: lambda c: (_query_width(c), c.embed_dim),
    Role.UP: lambda c: (c.embed_dim, _up_width(c)),
    Role.DOWN: lambda c: (c.mlp_width, c.embed_dim),
    Role.NORM1: lambda c: (c.embed_dim,),
    Role.NORM1_BIAS: lambda c: (c.embed_dim,),
    Role.QKV_BIAS: lambda c: (_qkv_width(c),),
    Role.OUT_BIAS: lambda c: (c.embed_dim,),
    Role.Q_NORM: lambda c: (c.head_dim,),
    Role.K_NORM: lambda c: (c.head_dim,),
    Role.NORM2: lambda c: (c.embed_dim,),
    Role.NORM2_BIAS: lambda c: (c.embed_dim,),
    Role.UP_BIAS: lambda c: (_up_width(c),),
    Role.DOWN_BIAS: lambda c: (c.embed_dim,),
    Role.LAMBDA: lambda c: (c.num_heads,),
}


def _ends(config: ModelConfig, role: Role, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return where the columns of each of `count` parts end."""
    if count == 1:
        return (shape[-1],)
    if role in (Role.QKV, Role.QKV_BIAS):
        queries, keys = _query_width(config), config.kv_heads * config.head_dim
        return queries, queries + keys, queries + 2 * keys
    return tuple(shape[-1] // count * (part + 1) for part in range(count))


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
    residual stream 0.02/√(2L) (Radford et al. 2019); biases 0, the norms'
    scales 1.  Each tensor has a random stream of its own, so adding a tensor
    changes no other.

    Two tensors can begin with structure instead, at the same 0.02 and without
    changing the others, which the seed still decides:

    * embeddings: float32[V, C] of rms 1, a row for every token, is where the
      token embeddings begin;
    * positions: "learned" for normal numbers, "twelvefold" for the table of
      `twelvefold_positions`.  Both are learned from there on; a model with
      rotary positions has neither.
    """
    table = parameter_table(config)
    if flat.shape != (table.size,):
        raise ValueError(f"flat has shape {flat.shape}, the model needs ({table.size},)")
    given: dict[Role, Floats] = {}
    if embeddings is not None:
        shape = (config.vocab_size, config.embed_dim)
        if embeddings.shape != shape or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings are {embeddings.dtype}{list(embeddings.shape)}, "
                f"the model needs float32{list(shape)}"
            )
        given[Role.TOKENS] = embeddings
    if positions == "twelvefold" and table.find(Role.POSITIONS) is not None:
        # Exact mathematics takes 0.1 s to load, and every worker loads this file.
        from crystalline.model.twelvefold import twelvefold_positions

        given[Role.POSITIONS] = twelvefold_positions(config.seq_len, config.embed_dim)
    elif positions not in ("learned", "twelvefold"):
        raise ValueError(f"positions is {positions!r}, expected 'learned' or 'twelvefold'")
    fill(table, flat, seed, given)


def fill(
    table: ParameterTable, flat: Floats, seed: int, given: Mapping[Role, Floats] | None = None
) -> None:
    """Fill the buffer of a table as its tensors begin; `given` of a role stands in for numbers."""
    flat[:] = 0.0
    views = table.views(flat).values()
    for index, (p, view) in enumerate(zip(table.parameters, views, strict=True)):
        if given and p.role in given:
            view[...] = p.std * given[p.role]
        elif p.init == "normal":
            generator = np.random.Generator(np.random.Philox(key=[seed, index]))
            view[...] = p.std * generator.standard_normal(p.shape, dtype=np.float32)
        elif p.init == "ones":
            view[...] = 1.0
