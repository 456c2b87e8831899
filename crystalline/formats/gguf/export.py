"""Writing a model as a GGUF file that llama.cpp runs: streamed, one tensor in memory at a time.

The head is written first, since formats and sizes follow from the shape of the model; tensors
then go to their places in whatever order they come.  The file has its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from crystalline import __version__
from crystalline.atomic import atomic_write
from crystalline.errors import SaveError, UsageError, remedy
from crystalline.formats.gguf.blocks import F32, WRITABLE, BlockError, BlockType
from crystalline.formats.gguf.container import Header, Place, Value
from crystalline.formats.gguf.names import ROPE_FACTORS, Stored, stored_tensors
from crystalline.formats.gguf.shape import rope_factors, shape_values
from crystalline.formats.gguf.vocabulary import SpecialTokens, tokenizer_values
from crystalline.model.config import ModelConfig
from crystalline.untrusted import shown

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
Progress = Callable[[int, int], None]  # bytes written, bytes in all

_QUANTIZATION_VERSION = 2  # of llama.cpp's blocks


def write_gguf(
    path: str | os.PathLike[str],
    config: ModelConfig,
    tensors: Iterable[tuple[str, npt.NDArray[Any]]],
    *,
    type: GgufType = "f32",  # noqa: A002 - the word of `cllm export --type`
    tokenizer: str | os.PathLike[str] | bytes,
    special: SpecialTokens | None = None,
    chat_template: str | None = None,
    name: str = "",
    progress: Progress | None = None,
) -> dict[str, str]:
    """Write a model; return the number format of each tensor, by its name in the file.

    `tensors` are names in Hugging Face's files with arrays as they have them, in any order, each
    once (`table.file_views(flat).items()` are such).  `type` is the format of the matrices:
    vectors and position tables stay float32; with "q4_0" the head, or the token embeddings
    that serve as one, get "q8_0"; matrices whose rows are no multiple of 32 numbers get "f16".
    `tokenizer` is the path or the content of a tokenizer.json; `special` and `chat_template` are
    what files beside it say (see `tokenizer_values` for what holds without them).

    Raises:
        UsageError: a type that there is not; a shape or numbers that GGUF or the type cannot hold.
        DataError: a tokenizer that cannot be read, or that GGUF cannot hold.
        SaveError: the file could not be written; what had its name is as it was.
        ValueError: the tensors are not those of `config`.
    """
    if type not in WRITABLE:
        raise UsageError(
            f"the type {shown(repr(type), 40)} cannot be written",
            advice=f"It must be one of {', '.join(get_args(GgufType))}.",
        )
    stored, header = _header(config, WRITABLE[type], {
        "general.architecture": ("text", config.architecture),
        **({"general.name": ("text", name)} if name else {}),
        "general.file_type": ("u32", WRITABLE[type].file_type),
        "general.quantization_version": ("u32", _QUANTIZATION_VERSION),
        **shape_values(config),
        **tokenizer_values(
            tokenizer if isinstance(tokenizer, bytes) else Path(tokenizer),
            config.vocab_size,
            special=special,
            chat_template=chat_template,
        ),
        "crystalline.version": ("text", __version__),
    })  # fmt: skip
    target = Path(path)
    try:
        with atomic_write(target) as file:
            file.write(header.head)
            file.truncate(header.size_bytes)
            _Writer(file, header, progress).write_all(stored, tensors, config)
    except OSError as error:
        raise SaveError(
            f"{target} cannot be written ({error.strerror})", advice=remedy(error)
        ) from None
    return {name: place.kind.name for name, place in header.places.items()}


def _header(
    config: ModelConfig, kind: BlockType, values: dict[str, Value]
) -> tuple[dict[str, Stored], Header]:
    stored = stored_tensors(config)
    heads = [(one.name, one.shape, one.kind(kind, is_tied=config.is_tied)) for one in stored]
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        heads.append((ROPE_FACTORS, (config.head_dim // 2,), F32))
    return {one.file_name: one for one in stored}, Header(values, heads)


class _Writer:
    """Puts tensors into their places."""

    def __init__(self, file: BinaryIO, header: Header, progress: Progress | None) -> None:
        self._file = file
        self._header = header
        self._progress = progress
        self._done_bytes = len(header.head)

    def write_all(
        self,
        stored: dict[str, Stored],
        tensors: Iterable[tuple[str, npt.NDArray[Any]]],
        config: ModelConfig,
    ) -> None:
        missing = dict(stored)
        for name, tensor in tensors:
            one = missing.pop(name, None)
            if one is None or tensor.shape != one.file_shape:
                raise ValueError(f"the tensor {name} {tensor.shape} is not one of the model's")
            self._write(one.name, one.to_stored(np.asarray(tensor, np.float32)))
        if missing:
            raise ValueError(f"the tensor {min(missing)} is missing")
        if ROPE_FACTORS in self._header.places:
            assert config.rope_scaling is not None
            self._write(
                ROPE_FACTORS, rope_factors(config.rope_scaling, config.theta, config.head_dim)
            )

    def _write(self, name: str, tensor: npt.NDArray[np.float32]) -> None:
        place: Place = self._header.places[name]
        rows = tensor.reshape(-1, tensor.shape[-1])
        try:
            data = place.kind.quantize(rows)
        except BlockError as error:
            raise UsageError(
                f"the tensor {name} cannot be written as {place.kind.name}: {error}",
                advice="Choose --type f32 or bf16." if np.isfinite(tensor).all() else "",
            ) from None
        self._file.seek(place.start)
        self._file.write(data.data)
        self._done_bytes += place.size_bytes
        if self._progress is not None:
            self._progress(self._done_bytes, self._header.size_bytes)
