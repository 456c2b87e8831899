"""A model from anywhere: a run, a checkpoint, a folder in Hugging Face's layout, a GGUF file.

    source = open_source(Path("runs/NAME"))
    source.config; source.tokenizer()
    with source.weights() as tensor:
        tensor(parameter)                # float32, of the parameter's shape

Nothing but heads is read until a tensor is asked for, and each is read alone.  Adapters that a
run trained are added to the tensors of their base, so that nobody who reads knows of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.base import find_base
from crystalline.formats.checkpoint import (
    BEST,
    CONFIG,
    LATEST,
    ModelFolder,
    inspect_model,
    pointer,
    require_directory,
    resolve,
    save_model_folder,
)
from crystalline.formats.files import ADAPTER_CONFIG, BASE, STATE, is_there
from crystalline.formats.folder import NamedTensors, OnRead
from crystalline.formats.gguf import GgufModel, read_gguf
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import Parameter, parameter_table

Floats = npt.NDArray[np.float32]
Read = Callable[[Parameter], Floats]

GGUF_SUFFIX = ".gguf"


class ModelSource(ABC):
    """Where a model is, and what it is."""

    path: Path  # the folder or file
    config: ModelConfig
    choice: str = ""  # "best" or "latest": which of a run's checkpoints, where none was named
    crystal_path: Path | None = None  # crystal.json, where the model was trained with one
    tokens_sha256: str = ""  # of the text that a checkpoint of ours was trained on; see `Header`

    @property
    @abstractmethod
    def facts(self) -> TokenizerFacts:
        """What its files say of the tokenizer, the chat template included."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer.

        Raises:
            DataError: one that cannot be used.
            CheckpointError: one with more tokens than the model.
        """

    @abstractmethod
    def tokenizer_json(self) -> bytes:
        """Return the content of its tokenizer.json."""

    @abstractmethod
    def weights(self) -> AbstractContextManager[Read]:
        """Open its tensors; the result reads one.  Raises `CheckpointError`, also when read."""

    def flat(self) -> Floats:
        """Return all weights in the order of the parameter table; gaps are 0."""
        flat = np.empty(parameter_table(self.config).size, np.float32)
        self.fill(self.config, flat)
        return flat

    def fill(self, config: ModelConfig, flat: Floats) -> None:
        """Write the weights into the buffer of a model `config`, one tensor at a time; gaps are 0.

        That model may have a shorter table of positions: the first rows of ours.  What it has
        beyond ours, the λ of crystalline attention, begins at 0.

        Raises:
            CheckpointError: a tensor is missing or damaged, or `config` is of another shape.
        """
        table = parameter_table(config)
        views = table.views(flat)
        flat[:] = 0.0
        with self.weights() as read:
            for parameter in parameter_table(self.config).parameters:
                target = table.find(parameter.role, parameter.layer)
                tensor = self._cut(read(parameter), parameter, target)
                assert target is not None  # as `_cut` has found
                views[target.name][...] = tensor

    def keep_base(self, run_dir: Path, config: ModelConfig, on_read: OnRead | None = None) -> Path:
        """Write the weights as a model `config` into RUN/base, and return that folder.

        As in `fill`, its table of positions may be shorter.  `on_read` is told what is done.

        Raises:
            CheckpointError: a tensor is missing or damaged, or `config` is of another shape.
            SaveError: it cannot be written.
        """
        base = run_dir / BASE
        ours = parameter_table(self.config)
        with self.weights() as read:

            def cut(target: Parameter) -> Floats:
                parameter = ours.find(target.role, target.layer)
                if parameter is None:
                    raise self._changed(target)
                return self._cut(read(parameter), parameter, target)

            tensors = NamedTensors(cut, config, on_read)
            save_model_folder(base, config, tensors, self.tokenizer_json(), self.facts, signed=True)
        return base

    def _cut(self, tensor: Floats, parameter: Parameter, target: Parameter | None) -> Floats:
        """Return a tensor of ours as one of another model, which may have fewer positions."""
        if target is not None and parameter.role is Role.POSITIONS:
            tensor = tensor[: target.shape[0]]
        if target is None or target.shape != tensor.shape:
            raise self._changed(parameter)
        return tensor

    def _changed(self, parameter: Parameter) -> CheckpointError:
        return CheckpointError(
            f"{self.path} holds another model than it did before ({parameter.name})",
            advice="Start again when nothing writes to it.",
        )

    def _fitting(self, tokenizer: Tokenizer) -> Tokenizer:
        if tokenizer.vocab_size > self.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer of {self.path} has {tokenizer.vocab_size} tokens,"
                f" its model only {self.config.vocab_size}",
                advice="The files belong to different models; copy the folder again.",
            )
        return tokenizer


class _Folder(ModelSource):
    """A checkpoint, or a folder in Hugging Face's layout."""

    def __init__(self, folder: ModelFolder, choice: str) -> None:
        self.path, self.config, self.choice = folder.path, folder.config, choice
        self.crystal_path = folder.crystal_path
        self.tokens_sha256 = str(folder.metadata.get("state", {}).get("tokens_sha256", ""))
        self._folder = folder

    @property
    def facts(self) -> TokenizerFacts:
        return self._folder.facts

    def tokenizer(self) -> Tokenizer:
        return self._fitting(self._folder.tokenizer())

    def tokenizer_json(self) -> bytes:
        return self._folder.tokenizer_path.read_bytes()

    @contextmanager
    def weights(self) -> Iterator[Read]:
        with self._folder.open_weights() as files:
            yield files.tensor


class _Gguf(ModelSource):
    """A GGUF file."""

    def __init__(self, model: GgufModel) -> None:
        self.path, self.config = model.path, model.config
        self._model = model
        self._vocabulary = model.vocabulary()

    @property
    def facts(self) -> TokenizerFacts:
        special = self._vocabulary.special
        document = self._vocabulary.document
        texts = {id_: str(text) for text, id_ in document["model"]["vocab"].items()}
        texts |= {token["id"]: str(token["content"]) for token in document["added_tokens"]}
        named = {"bos_token": special.bos, "eos_token": special.eos,
                 "unk_token": special.unk, "pad_token": special.pad}  # fmt: skip
        return TokenizerFacts(
            end_ids=() if special.eos is None else (special.eos,),
            special={name: texts[id_] for name, id_ in named.items() if id_ in texts},
            chat_template=self._vocabulary.chat_template,
        )

    def tokenizer(self) -> Tokenizer:
        document = self._vocabulary.document
        return self._fitting(Tokenizer.from_content(document, self.path, self.facts))

    def tokenizer_json(self) -> bytes:
        return self.tokenizer().to_json().encode()

    @contextmanager
    def weights(self) -> Iterator[Read]:
        yield self._read

    def _read(self, parameter: Parameter) -> Floats:
        whole = np.empty(parameter.shape, np.float32)
        for part in parameter.parts:
            parameter.part_view(whole, part)[...] = self._model.tensor(part.name)
        return whole


def open_source(place: Path, checkpoint: str | None = None) -> ModelSource:
    """Return the model that `place` means.

    `place` is a run directory (its best checkpoint, or the newest where none is best yet), a
    checkpoint, any folder with config.json, tokenizer.json and weights, or a GGUF file.
    `checkpoint` picks one of a run: "latest", "best", "step-XXXXXXXX" or a path.

    Raises:
        CheckpointError: nothing there, damaged files, or a model that is not known here.
        UsageError: `checkpoint` for a `place` that is no run.
    """
    try:
        if place.suffix == GGUF_SUFFIX or place.is_file():
            if checkpoint is not None:
                raise _picks_from_a_run(place, checkpoint)
            return _Gguf(read_gguf(place))
        folder, choice = _folder(place, checkpoint)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise CheckpointError(
            f"{place} cannot be looked into ({error.strerror})", advice="Check the path."
        ) from None
    return _Folder(inspect_model(folder), choice)


def _is_model(place: Path) -> bool:
    return any((place / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))


def _require_whole(place: Path) -> None:
    """Raise `CheckpointError` for a folder of adapters that says nothing of their model."""
    described = any(is_there(place / name) for name in (CONFIG, STATE))  # ours name their base
    if is_there(place / ADAPTER_CONFIG) and not described and find_base(place) is None:
        raise CheckpointError(
            f"{place} holds adapters, and the model that they belong to is missing ({BASE})",
            advice="Name the run that trained them, or merge them into their model in PEFT "
            "(merge_and_unload) and name its folder.",
        )


def _folder(place: Path, checkpoint: str | None) -> tuple[Path, str]:
    """Return the folder with the model's files, and how it was chosen where it was not named."""
    _require_whole(place)
    if checkpoint is None:
        folder = resolve(place)
        named = _is_model(place)
        return folder, "" if named else BEST if folder == pointer(place, BEST) else LATEST
    require_directory(place)
    if _is_model(place):
        raise _picks_from_a_run(place, checkpoint)
    if Path(checkpoint).is_dir() and checkpoint not in ("latest", "best"):
        return resolve(Path(checkpoint)), ""
    return resolve(place, checkpoint), ""


def _picks_from_a_run(place: Path, checkpoint: str) -> UsageError:
    return UsageError(
        f"--checkpoint {checkpoint} picks from a run, and {place} is a single model",
        advice="Leave --checkpoint out, or name the run directory.",
    )
