"""Opening a trained model: a run directory, a checkpoint, or a folder from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal import CRYSTAL
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.formats.checkpoint import (
    BEST,
    LATEST,
    LoadedModel,
    load_model,
    pointer,
    require_directory,
    resolve,
)
from crystalline.infer.protocol import Decoder
from crystalline.infer.scheduler import Scheduler


@dataclass(frozen=True)
class Model:
    """A model that is ready to generate."""

    path: Path  # the folder its files came from
    decoder: Decoder
    tokenizer: Tokenizer
    choice: str = ""  # "best" or "latest": which of a run's checkpoints, where none was named

    @cached_property
    def scheduler(self) -> Scheduler:
        """The one that owns the decoder."""
        return Scheduler(self.decoder)


def open_model(place: Path, *, checkpoint: str | None = None, slots: int = 1) -> Model:
    """Load what `place` names, with a KV cache for `slots` sequences.

    `place` is a run directory (its best checkpoint, or the newest where none is
    best yet), a checkpoint, or any folder with config.json, tokenizer.json and
    model.safetensors.  `checkpoint` picks one of a run: "latest", "best",
    "step-XXXXXXXX" or a path.

    Raises:
        CheckpointError: nothing there, damaged files, a tokenizer with more
            tokens than the model, or crystalline attention without crystal.json.
        UsageError: `checkpoint` for a `place` that is no run.
    """
    from crystalline.model.decode import Decoder as CompiledDecoder

    try:
        folder, choice = _folder(place, checkpoint)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise CheckpointError(
            f"{place} cannot be looked into ({error.strerror})", advice="Check the path."
        ) from None
    loaded = load_model(folder)
    tokenizer = loaded.tokenizer()
    if tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer of {folder} has {tokenizer.vocab_size} tokens,"
            f" its model only {loaded.config.vocab_size}",
            advice="The files belong to different models; copy the folder again.",
        )
    decoder = CompiledDecoder(
        loaded.config, loaded.weights, slots=slots, features=_features(loaded)
    )
    return Model(folder, decoder, tokenizer, choice)


def _features(loaded: LoadedModel) -> npt.NDArray[np.float32] | None:
    """Return what crystalline attention knows of the tokens [V, 16]; None for standard."""
    if loaded.config.attention == "standard":
        return None
    if loaded.crystal_path is None:
        raise CheckpointError(
            f"{loaded.path} has crystalline attention and no {CRYSTAL}",
            advice=f"Copy {CRYSTAL} from the run's checkpoint, where it lies beside config.json.",
        )
    from crystalline.data.crystal.features import token_features
    from crystalline.data.crystal.tokens import Crystal

    try:
        crystal = Crystal.load(loaded.crystal_path)
    except DataError as error:
        raise CheckpointError(error.message, advice="Copy the folder again.") from None
    if crystal.vocab_size != loaded.config.vocab_size:
        raise CheckpointError(
            f"{loaded.crystal_path} describes {crystal.vocab_size} tokens,"
            f" its model has {loaded.config.vocab_size}",
            advice="The files belong to different models; copy the folder again.",
        )
    return token_features(crystal)


def _folder(place: Path, checkpoint: str | None) -> tuple[Path, str]:
    """Return the folder with the model's files, and how it was chosen where it was not named."""
    if checkpoint is None:
        folder = resolve(place)
        named = (place / "config.json").is_file()
        return folder, "" if named else BEST if folder == pointer(place, BEST) else LATEST
    require_directory(place)
    if (place / "config.json").is_file():
        raise UsageError(
            f"--checkpoint {checkpoint} picks from a run, and {place} is a single model",
            advice="Leave --checkpoint out, or name the run directory.",
        )
    if Path(checkpoint).is_dir() and checkpoint not in ("latest", "best"):
        return resolve(Path(checkpoint)), ""
    return resolve(place, checkpoint), ""
