"""Reading a model from a GGUF file: its shape, its tokenizer, its tensors one by one.

    model = read_gguf("model.gguf")
    model.config                             # its shape
    model.tensor("model.norm.weight")        # float32, named and turned as Hugging Face's files
    model.blocks("lm_head.weight")           # the same as the file has it: rows of Q4_0, …
    model.vocabulary()                       # tokenizer.json, special tokens, chat template

Opening reads the head and no tensor; that every tensor of the model is there, in its shape and
within the file, is known from then on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystalline.errors import CheckpointError, DataError
from crystalline.formats.gguf.blocks import BlockType, Bytes, Floats
from crystalline.formats.gguf.container import Container, ForeignType, TensorInfo
from crystalline.formats.gguf.names import HEAD, ROPE_FACTORS, TOKENS, Stored, stored_tensors
from crystalline.formats.gguf.shape import read_shape
from crystalline.formats.gguf.vocabulary import Vocabulary, read_vocabulary
from crystalline.model.config import ModelConfig
from crystalline.untrusted import BadContent, shown

_BROKEN = "Fetch or make the file again."
_FOREIGN = (
    "Make one of a type that is read here, from the original model: f32, f16, bf16, q8_0 or q4_0 "
    "(llama-quantize --allow-requantize MODEL.gguf NEW.gguf Q8_0 makes one of this)."
)


@dataclass(frozen=True)
class Blocks:
    """A matrix as a GGUF file has it.

    `rows` are uint8[outputs, row_bytes], read-only where they are the file's own: a row holds the
    inputs of one output, in blocks of `kind`.  GPT-2's linear layers too, which Hugging Face's
    files turn.  The order of the rows is Hugging Face's.
    """

    kind: BlockType
    columns: int
    rows: Bytes


class GgufModel:
    """A model in a GGUF file that is mapped, not read."""

    def __init__(self, container: Container) -> None:
        """Look for everything that the model needs.  Raises `BadContent`."""
        shape = read_shape(container)
        self.path: Path = container.path
        self.config: ModelConfig = shape.config
        self.name: str = shape.name
        self._container = container
        self._stored = {one.file_name: one for one in stored_tensors(self.config)}
        self._require_tensors()

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names in Hugging Face's files, in the order of the flat buffer."""
        return tuple(self._stored)

    def tensor(self, name: str) -> Floats:
        """Return a tensor as float32, as Hugging Face's files have it (perhaps a turned view).

        Raises `CheckpointError` where it holds numbers that are not finite, `KeyError` for a name
        that the model does not have.
        """
        stored = self._stored[name]
        info = self._info(stored)
        values = info.kind.dequantize(self._container.rows(info))
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"the tensor '{stored.name}' in {self.path} is not finite", advice=_BROKEN
            )
        tensor: Floats = stored.from_stored(values.reshape(info.shape))
        return tensor

    def tensors(self) -> Iterator[tuple[str, Floats]]:
        """Yield every tensor, one at a time.  Raises `CheckpointError` as `tensor` does."""
        for name in self._stored:
            yield name, self.tensor(name)

    def kind(self, name: str) -> BlockType:
        """Return the number format of a tensor in the file."""
        return self._info(self._stored[name]).kind

    def blocks(self, name: str) -> Blocks:
        """Return a tensor as the file has it.  Its scales are not looked at."""
        stored = self._stored[name]
        info = self._info(stored)
        rows = stored.rows_from_stored(self._container.rows(info))
        return Blocks(info.kind, info.shape[-1], rows)

    def vocabulary(self) -> Vocabulary:
        """Return the tokenizer.

        Raises `DataError` for a kind that is not known here or cannot be used.
        """
        try:
            return read_vocabulary(self._container, self.config.vocab_size)
        except BadContent as error:
            raise DataError(
                f"the tokenizer in {self.path} cannot be used: {error}",
                advice="Use the Hugging Face folder of the model.",
            ) from None

    def _info(self, stored: Stored) -> TensorInfo:
        return self._container.tensors[stored.name]

    def _require_tensors(self) -> None:
        there = self._container.tensors
        for stored in self._stored.values():
            info = there.get(stored.name)
            if info is None:
                raise BadContent(f"it has no tensor '{stored.name}'")
            if info.shape != stored.shape:
                raise BadContent(
                    f"its tensor '{stored.name}' has the shape {shown(str(info.shape), 60)}, "
                    f"its values ask for {stored.shape}"
                )
        further = set(there) - {stored.name for stored in self._stored.values()} - {ROPE_FACTORS}
        if HEAD in further and self._head_is_tied():
            further.remove(HEAD)
        if further:
            raise BadContent(
                f"it has a tensor '{shown(min(further), 80)}', which is not known here"
            )

    def _head_is_tied(self) -> bool:
        """Return whether a head that is there repeats the token embeddings."""
        head, tokens = self._container.tensors[HEAD], self._container.tensors[TOKENS]
        if (head.kind, head.shape) != (tokens.kind, tokens.shape):
            return False
        return np.array_equal(self._container.rows(head), self._container.rows(tokens))


def read_gguf(path: str | os.PathLike[str]) -> GgufModel:
    """Open a GGUF file.

    Raises `CheckpointError` for one that cannot be read, is damaged, or holds a model or a number
    format that is not known here.
    """
    try:
        return GgufModel(Container(path))
    except ForeignType as error:
        raise CheckpointError(f"{path} cannot be used: {error}", advice=_FOREIGN) from None
    except BadContent as error:
        raise CheckpointError(f"{path} cannot be used: {error}", advice=_BROKEN) from None
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror})",
            advice="Check its permissions." if denied else "Name a GGUF file.",
        ) from None
