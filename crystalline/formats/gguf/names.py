"""The tensors of a model as GGUF files have them: names, orientation, order of rows, format.

llama.cpp keeps every linear layer as [outputs, inputs] and reads its rows.  Against Hugging Face's
files (whose names the parameter table gives) two things differ:

* GPT-2's linear layers, which are [inputs, outputs] there, are turned;
* the rows of Llama's queries and keys stand in another order.  Hugging Face rotates channel i of a
  head with channel i + D/2, llama.cpp's Llama channel 2 i with 2 i + 1.  Its Qwen3 does as Hugging
  Face does, and its rows stay.

Which format a tensor gets is llama-quantize's rule: vectors and position tables stay float32; a
head (the token embeddings, where they serve as one) gets no fewer than 8 bits; a row that is no
whole number of blocks becomes f16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from crystalline.formats.gguf.blocks import F16, F32, Q4_0, Q8_0, BlockType
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table

ROPE_FACTORS = "rope_freqs.weight"  # float32[D / 2]: what each pair's angle is divided by
HEAD = "output.weight"
TOKENS = "token_embd.weight"

_LINEAR = (Role.QKV, Role.OUT, Role.UP, Role.DOWN)
# One name for each part of a tensor in Hugging Face's files, in their order.
_NAMES: dict[Role, tuple[tuple[str, ...], ...]] = {
    Role.TOKENS: ((TOKENS,),),
    Role.POSITIONS: (("position_embd.weight",),),
    Role.HEAD: ((HEAD,),),
    Role.FINAL_NORM: (("output_norm.weight",),),
    Role.FINAL_NORM_BIAS: (("output_norm.bias",),),
    Role.QKV: (("attn_qkv.weight",), ("attn_q.weight", "attn_k.weight", "attn_v.weight")),
    Role.QKV_BIAS: (("attn_qkv.bias",), ("attn_q.bias", "attn_k.bias", "attn_v.bias")),
    Role.OUT: (("attn_output.weight",),),
    Role.OUT_BIAS: (("attn_output.bias",),),
    Role.Q_NORM: (("attn_q_norm.weight",),),
    Role.K_NORM: (("attn_k_norm.weight",),),
    Role.UP: (("ffn_up.weight",), ("ffn_gate.weight", "ffn_up.weight")),
    Role.UP_BIAS: (("ffn_up.bias",), ("ffn_gate.bias", "ffn_up.bias")),
    Role.DOWN: (("ffn_down.weight",),),
    Role.DOWN_BIAS: (("ffn_down.bias",),),
    Role.NORM1: (("attn_norm.weight",),),
    Role.NORM1_BIAS: (("attn_norm.bias",),),
    Role.NORM2: (("ffn_norm.weight",),),
    Role.NORM2_BIAS: (("ffn_norm.bias",),),
}
_INTERLEAVES = ("llama",)  # architectures whose queries and keys have llama.cpp's order of rows


@dataclass(frozen=True)
class Stored:
    """One tensor: what it is called here and there, and how it stands there."""

    name: str  # in GGUF files
    file_name: str  # in Hugging Face's files
    file_shape: tuple[int, ...]
    role: Role
    turned: bool  # against Hugging Face's files
    heads: int  # whose rows are interleaved; 0: they stay

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in GGUF files, the innermost dimension last."""
        return self.file_shape[::-1] if self.turned else self.file_shape

    def to_stored(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a tensor of Hugging Face's files as it stands in GGUF files."""
        if self.turned:
            tensor = tensor.T
        return interleaved(tensor, self.heads) if self.heads else tensor

    def from_stored(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a tensor of GGUF files as it stands in Hugging Face's."""
        rows = self.rows_from_stored(tensor)
        return rows.T if self.turned else rows

    def rows_from_stored(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return rows, numbers or blocks of them, in Hugging Face's order; nothing is turned."""
        return parted(rows, self.heads) if self.heads else rows

    def kind(self, wished: BlockType, *, is_tied: bool) -> BlockType:
        """Return the format that the tensor gets in a file of the format `wished`."""
        if len(self.file_shape) < 2 or self.role is Role.POSITIONS:
            return F32
        if self.shape[-1] % wished.numbers:
            return F16
        serves_as_head = self.role is Role.HEAD or (self.role is Role.TOKENS and is_tied)
        return Q8_0 if serves_as_head and wished is Q4_0 else wished


def stored_tensors(config: ModelConfig) -> list[Stored]:
    """Return the tensors of a model with standard attention, in the order of the flat buffer."""
    found = []
    for parameter, part in parameter_table(config).file_parts():
        names = next(n for n in _NAMES[parameter.role] if len(n) == len(parameter.parts))
        which = parameter.parts.index(part)
        prefix = "" if parameter.layer < 0 else f"blk.{parameter.layer}."
        heads = 0
        if config.architecture in _INTERLEAVES and parameter.role is Role.QKV and which < 2:
            heads = (config.num_heads, config.kv_heads)[which]
        found.append(
            Stored(
                name=prefix + names[which],
                file_name=part.name,
                file_shape=parameter.part_shape(part),
                role=parameter.role,
                turned=parameter.role in _LINEAR and not part.transposed,
                heads=heads,
            )
        )
    return found


def interleaved(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Return the rows of each head in the order 0, D/2, 1, D/2 + 1, …

    >>> import numpy as np
    >>> interleaved(np.arange(8), 2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def parted(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Undo `interleaved`.

    >>> import numpy as np
    >>> parted(interleaved(np.arange(24), 3), 3).tolist() == list(range(24))
    True
    """
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
