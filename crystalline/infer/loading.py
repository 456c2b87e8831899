"""Opening a trained model to write with: see `formats.sources` for where it may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal import CRYSTAL
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.formats.sources import ModelSource, open_source
from crystalline.infer.protocol import Decoder
from crystalline.infer.scheduler import Scheduler
from crystalline.machine.memory import give_back


@dataclass(frozen=True)
class Model:
    """A model that is ready to generate."""

    path: Path  # the folder or file that it came from
    decoder: Decoder
    tokenizer: Tokenizer
    choice: str = ""  # "best" or "latest": which of a run's checkpoints, where none was named
    precision: str = "float32"  # number format of the weights
    cache: str = "bf16"  # of keys and values
    threads: int = 1  # that compute together

    @cached_property
    def scheduler(self) -> Scheduler:
        """The one that owns the decoder."""
        return Scheduler(self.decoder)


def open_model(
    place: Path,
    *,
    checkpoint: str | None = None,
    slots: int = 1,
    precision: str = "float32",
    cache: str = "bf16",
    threads: int = 0,
) -> Model:
    """Load what `place` names, with room for `slots` texts at a time (see `open_source`).

    Weights are packed in the number format `precision`, tensor by tensor, so that they are in
    memory once; keys and values are kept in that of `cache`.  `threads` compute together; 0 is one
    for each core that may be used.

    Raises:
        CheckpointError: nothing there, damaged files, a tokenizer with more
            tokens than the model, or crystalline attention without crystal.json.
        UsageError: `checkpoint` for a `place` that is no run.
    """
    from crystalline.model.decode import Decoder as CompiledDecoder

    source = open_source(place, checkpoint)
    tokenizer, features = source.tokenizer(), _features(source)
    with source.weights() as read:
        decoder = CompiledDecoder(
            source.config, read, slots=slots, precision=precision, cache=cache,
            threads=threads,
            features=features,
        )  # fmt: skip
    give_back()  # what tensors took on their way
    return Model(source.path, decoder, tokenizer, source.choice, precision, cache, decoder.threads)


def _features(source: ModelSource) -> npt.NDArray[np.float32] | None:
    """Return what crystalline attention knows of the tokens [V, 16]; None for standard."""
    if source.config.attention == "standard":
        return None
    if source.crystal_path is None:
        raise CheckpointError(
            f"{source.path} has crystalline attention and no {CRYSTAL}",
            advice=f"Copy {CRYSTAL} from the run's checkpoint, where it lies beside config.json.",
        )
    from crystalline.data.crystal.features import token_features
    from crystalline.data.crystal.tokens import Crystal

    try:
        crystal = Crystal.load(source.crystal_path)
    except DataError as error:
        raise CheckpointError(error.message, advice="Copy the folder again.") from None
    if crystal.vocab_size != source.config.vocab_size:
        raise CheckpointError(
            f"{source.crystal_path} describes {crystal.vocab_size} tokens,"
            f" its model has {source.config.vocab_size}",
            advice="The files belong to different models; copy the folder again.",
        )
    return token_features(crystal)
