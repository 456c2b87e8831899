"""A model's folder in Hugging Face's layout, written: for others, and as a part of a checkpoint.

config.json             as transformers reads it; see `config_json`
tokenizer.json
tokenizer_config.json   how transformers is to read tokenizer.json; the chat template
model.safetensors       names and shapes as transformers has them
crystal.json            the numbers of the vocabulary, of models that compute with them
manifest.json           size and sha256 of each file above, where it is asked for
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.atomic import sync_directory, temporary_beside
from crystalline.data.crystal import CRYSTAL
from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts
from crystalline.errors import SaveError, remedy
from crystalline.faults import point
from crystalline.formats.config_json import config_document
from crystalline.formats.documents import (
    end_of_text,
    json_document,
    token_id,
    tokenizer_document,
)
from crystalline.formats.files import CONFIG, MODEL, MODEL_FILES, TOKENIZER, TOKENIZER_CONFIG
from crystalline.formats.manifest import sync_file, write_manifest
from crystalline.formats.tensorfile import TensorType, write_tensors
from crystalline.formats.tokenizer_config import tokenizer_config
from crystalline.model.config import ModelConfig
from crystalline.model.params import Parameter, parameter_table

Floats = npt.NDArray[np.float32]

_DTYPES: dict[TensorType, str] = {"f32": "float32", "bf16": "bfloat16"}


OnRead = Callable[[int, int], object]
"""Called with what is done, and all there is to do: numbers that were read."""


class NamedTensors(Mapping[str, Floats]):
    """A model's tensors as files have them, by name; each is read when it is asked for.

    `read` returns one parameter, which is kept for the next of its parts.
    """

    def __init__(
        self,
        read: Callable[[Parameter], Floats],
        config: ModelConfig,
        on_read: OnRead | None = None,
    ) -> None:
        table = parameter_table(config)
        self._parts = {part.name: (p, part) for p, part in table.file_parts()}
        self._read = read
        self._held: tuple[Parameter, Floats] | None = None
        self._on_read = on_read
        self._done, self._total = 0, table.count

    def __getitem__(self, name: str) -> Floats:
        parameter, part = self._parts[name]
        if self._held is None or self._held[0] is not parameter:
            self._held = None  # before the next is read
            self._held = (parameter, self._read(parameter))
        view = parameter.part_view(self._held[1], part)
        self._done = min(self._done + view.size, self._total)
        if self._on_read is not None:
            self._on_read(self._done, self._total)
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def save_model_folder(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Floats],
    tokenizer: bytes,
    facts: TokenizerFacts = NO_FACTS,
    *,
    type: TensorType = "f32",  # noqa: A002 - as users say it
    crystal: str | None = None,
    signed: bool = False,
) -> None:
    """Write a folder that transformers, llama.cpp's converter and this program open.

    `tensors` has the names and shapes of files: `parameter_table(config).file_views(flat)`, or
    `NamedTensors` of another model, which are read one by one.  `tokenizer` is the content
    of tokenizer.json, `crystal` that of crystal.json.  The folder is there whole or not at all;
    when it is `signed`, a manifest tells damage that comes later.

    Raises:
        SaveError: there is something at `path` already, or it cannot be written.
        CheckpointError: `tokenizer` is no tokenizer.
        ValueError: `tensors` are not those of `config`.
    """
    temporary = temporary_beside(path)
    try:
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise SaveError(
                f"{path} is there already", advice="Name a new folder, or remove this one."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            write_model(temporary, config, tensors, tokenizer, facts, type=type, crystal=crystal)
            for entry in temporary.iterdir():
                sync_file(entry)
            if signed:
                write_manifest(temporary, MODEL_FILES, step=0)
            sync_directory(temporary)
            temporary.rename(path)  # over an empty folder, too
            sync_directory(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise SaveError(
            f"the model cannot be written to {path} ({error.strerror or error})",
            advice=remedy(error),
        ) from error


def write_model(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Floats],
    tokenizer: bytes,
    facts: TokenizerFacts = NO_FACTS,
    *,
    type: TensorType = "f32",  # noqa: A002 - as users say it
    crystal: str | None = None,
) -> None:
    """Write the files of a model into a folder that is there; see `save_model_folder`.

    Raises `OSError`.
    """
    shapes = _require_tensors(config, tensors)
    write_description(folder, config, tokenizer, facts, type)
    write_tensors(folder / MODEL, tensors, {"format": "pt"}, type, shapes)
    if crystal is not None:
        (folder / CRYSTAL).write_text(crystal, encoding="utf-8")


def write_description(
    folder: Path,
    config: ModelConfig,
    tokenizer: bytes,
    facts: TokenizerFacts = NO_FACTS,
    type: TensorType = "f32",  # noqa: A002 - as users say it
) -> None:
    """Write what a folder says of its model beside the weights.  Raises `OSError`."""
    document = tokenizer_document(tokenizer, folder / TOKENIZER)
    separator = end_of_text(document)
    separator_id = token_id(document, separator)
    ends = facts.end_ids or (() if separator_id is None else (separator_id,))
    told = tokenizer_config(document, separator, config.seq_len, facts)
    begin = token_id(document, facts.special.get("bos_token"))
    about = config_document(config, ends, begin, _DTYPES[type])
    point("checkpoint.describe")
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / TOKENIZER_CONFIG).write_text(json_document(told), encoding="utf-8")
    (folder / CONFIG).write_text(json_document(about), encoding="utf-8")


def _require_tensors(
    config: ModelConfig, tensors: Mapping[str, Floats]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors by their names.  Raises `ValueError` for other names."""
    wanted = {part.name: p.part_shape(part) for p, part in parameter_table(config).file_parts()}
    if set(wanted) != set(tensors):
        raise ValueError(f"tensors are not the model's: {sorted(set(wanted) ^ set(tensors))[:5]}")
    return wanted
