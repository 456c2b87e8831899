"""The tensors of a model folder and of a checkpoint: found, checked, and put into memory.

`ModelFiles` is a model's weights as they lie in one file or in shards: nothing is read but what
is asked for.  `read_flat` fills a flat buffer from them, `read_moments` one of the two moments of
a checkpoint, which stand in optimizer.safetensors under the names of the parameter table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.closing import Closing
from crystalline.errors import CheckpointError
from crystalline.formats.catalog import damage
from crystalline.formats.documents import read_document
from crystalline.formats.files import CONFIG, MODEL, MODEL_INDEX, PICKLED, is_there
from crystalline.formats.tensorfile import TensorFile
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import Parameter, ParameterTable, Part, parameter_table
from crystalline.untrusted import shown
from crystalline.untrusted.files import WEIGHTS_INDEX

Flat = npt.NDArray[np.float32]

_LEAST_BYTES = 2  # of a parameter: float16 and bfloat16


@dataclass(frozen=True)
class _Place:
    """Where a tensor of the model stands."""

    file: TensorFile
    name: str  # there


class ModelFiles(Closing):
    """The weights of a model folder.  Use it as a context manager, or `close` it.

    Names, shapes and types are checked when it is opened; that numbers are finite, when they are
    read.  What is read are new arrays: a file that changes or shrinks harms nobody later.

    Raises `CheckpointError` where weights are missing, or do not fit `config`.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder = folder
        self.config = config
        self.table = parameter_table(config)
        self._stack = ExitStack()
        self._places: dict[str, _Place] = {}
        self._head: _Place | None = None  # of a model whose head is tied
        try:
            files = [self._stack.enter_context(TensorFile(path)) for path in _files_of(folder)]
            self._find(files)
            self._check_head()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def tensor(self, parameter: Parameter, out: Flat | None = None) -> Flat:
        """Return one tensor of the parameter table, of its shape ([inputs, outputs]).

        `out` is filled, where it is given; no more than some MB are taken beside it.
        """
        result = np.empty(parameter.shape, np.float32) if out is None else out
        for part in parameter.parts:
            view = parameter.part_view(result, part)
            row = 0
            for block in self.blocks(part.name):
                view[row : row + len(block)] = block
                row += len(block)
        return result

    def blocks(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[Flat]:
        """Yield the rows `start` to `stop` of a part as it stands in files, float32, in blocks.

        `name` is the full name there (`Part.name`), whether or not this folder has its prefix.
        """
        place = self._places[name]
        return place.file.blocks(place.name, start, stop)

    def flat(self) -> Flat:
        """Return all tensors as one flat buffer; its gaps are 0."""
        flat = np.zeros(self.table.size, np.float32)
        views = self.table.views(flat)
        for parameter in self.table.parameters:
            self.tensor(parameter, views[parameter.name])
        return flat

    def _find(self, files: list[TensorFile]) -> None:
        """Find every tensor's place; the first that is unknown, wrong or missing is told."""
        require_room(files, self.table)
        how = self.config.row.huggingface
        wanted = {part.name: (p, part) for p, part in self.table.file_parts()}
        buffers = re.compile(how.buffers or r"(?!)")
        heads = {name for name in _head_names(self.config) if name not in wanted}
        for file in files:
            for stored, entry in file.tensors.items():
                if buffers.fullmatch(stored.removeprefix(how.prefix)):
                    continue
                file.require_floats(stored)
                name = stored if stored in wanted or stored in heads else how.prefix + stored
                if name in heads:
                    self._head = _Place(file, stored)
                    continue
                if name not in wanted:
                    raise damage(
                        self.folder, f"{file.path} holds an unknown tensor '{shown(stored)}'"
                    )
                require_shape(file.path, stored, entry.shape, wanted[name])
                if name in self._places:
                    raise damage(self.folder, f"{file.path} holds '{shown(stored)}' again")
                self._places[name] = _Place(file, stored)
        for name in wanted:
            if name not in self._places:
                raise damage(self.folder, f"{files[0].path} has no tensor '{name}'")

    def _check_head(self) -> None:
        """Raise `CheckpointError` where a head is stored that differs from the embeddings."""
        if self._head is None:
            return
        tokens = self.table.find(Role.TOKENS)
        assert tokens is not None
        head, embeddings = self._head, self._places[tokens.parts[0].name]
        same = head.file.tensors[head.name].shape == tokens.shape and all(
            np.array_equal(one, other)
            for one, other in zip(
                head.file.blocks(head.name), embeddings.file.blocks(embeddings.name), strict=True
            )
        )
        if not same:
            raise CheckpointError(
                f"{head.file.path} has an output head of its own",
                advice='Set "tie_word_embeddings" to false in config.json, if the head is meant.'
                if Role.HEAD in self.config.row.tensors
                else "Use a model whose head is tied.",
            )


def _head_names(config: ModelConfig) -> tuple[str, ...]:
    """Return what an output head is called in files, also where the architecture has none."""
    tensor = config.row.tensors.get(Role.HEAD)
    return tensor.file_names if tensor else ("lm_head.weight",)


def _files_of(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights.

    Shards are named by an index, which may say nothing but names of files beside it.
    """
    if is_there(folder / MODEL):
        return [folder / MODEL]
    if is_there(folder / MODEL_INDEX):
        places = read_document(folder, WEIGHTS_INDEX)["weight_map"]
        missing = [name for name in sorted(set(places.values())) if not is_there(folder / name)]
        if missing:
            raise damage(folder, f"{folder} has no {shown(missing[0])}, which {MODEL_INDEX} names")
        return [folder / name for name in sorted(set(places.values()))]
    found = next((name for name in PICKLED if is_there(folder / name)), None)
    if found is not None:
        raise CheckpointError(
            f"{folder} has its weights in {found}, a program that is run when it is read",
            advice="Open the model in transformers and save it again with"
            " save_pretrained(..., safe_serialization=True).",
        )
    raise CheckpointError(
        f"{folder} has no {MODEL}",
        advice="Save the model with save_pretrained(..., safe_serialization=True).",
    )


def require_room(files: list[TensorFile], table: ParameterTable, source: str = CONFIG) -> None:
    """Raise `CheckpointError` for files that cannot hold so many parameters.

    Before memory is taken for them: `source`, the file that describes them, may promise any number.
    """
    size_bytes = sum(file.size_bytes for file in files)
    if size_bytes < _LEAST_BYTES * table.count:
        path = files[0].path
        raise damage(
            path.parent,
            f"{path} has {size_bytes:,} bytes, too few for the {table.count:,} parameters that "
            f"{source} describes"
            if len(files) == 1
            else f"the {len(files)} files of {path.parent} have {size_bytes:,} bytes, too few for"
            f" the {table.count:,} parameters that {source} describes",
        )


def require_shape(
    path: Path,
    stored: str,
    found: tuple[int, ...],
    where: tuple[Parameter, Part],
    source: str = CONFIG,
) -> None:
    """Raise `CheckpointError` for a tensor of another shape than the file `source` asks for."""
    parameter, part = where
    asked = parameter.part_shape(part)
    if found != asked:
        raise damage(
            path.parent,
            f"the tensor '{shown(stored)}' in {path} has shape {shown(str(found), 60)}, "
            f"{source} asks for {asked}",
        )


def read_flat(folder: Path, config: ModelConfig) -> Flat:
    """Return the weights of a model folder as one flat buffer; gaps are 0."""
    with ModelFiles(folder, config) as files:
        return files.flat()


def read_moments(path: Path, table: ParameterTable, prefix: str) -> Flat:
    """Return the tensors whose names begin with `prefix` as one flat buffer; gaps are 0."""
    with TensorFile(path) as file:
        require_room([file], table)
        known = {parameter.name for parameter in table.parameters}
        for stored in file.tensors:
            if stored.startswith(prefix):
                file.require_floats(stored)
                if stored[len(prefix) :] not in known:
                    raise damage(path.parent, f"{path} holds an unknown tensor '{shown(stored)}'")
        flat = np.zeros(table.size, np.float32)
        for parameter, view in zip(table.parameters, table.views(flat).values(), strict=True):
            stored = prefix + parameter.name
            if stored not in file.tensors:
                raise damage(path.parent, f"{path} has no tensor '{stored}'")
            whole = Part(stored, 0, parameter.shape[-1], False)
            require_shape(path, stored, file.tensors[stored].shape, (parameter, whole))
            row = 0
            for block in file.blocks(stored):
                view[row : row + len(block)] = block
                row += len(block)
        return flat


def weights_sha256(weights: Flat, table: ParameterTable) -> str:
    """Return the hash of all tensors in table order, names included, alignment gaps left out."""
    digest = hashlib.sha256()
    for name, view in table.views(weights).items():
        digest.update(name.encode() + b"\0")
        digest.update(view.tobytes())
    return digest.hexdigest()
