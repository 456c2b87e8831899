"""Small runs of random models, for tests that open, export or measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crystalline.data.tokenizer import Tokenizer
from crystalline.formats.checkpoint import save_checkpoint
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.train.config import TrainConfig

TEXT = "the quick brown fox jumps over a lazy dog, and again; "
SHAPE: dict[str, Any] = {"seq_len": 16, "num_layers": 2, "num_heads": 2, "embed_dim": 64}


def make_run(
    place: Path,
    architecture: str = "gpt2",
    *,
    tokenizer: Tokenizer | None = None,
    steps: tuple[int, ...] = (5,),
    best: int | None = 5,
    factor: float = 4.0,
    state: dict[str, Any] | None = None,
    crystal: str | None = None,
    **shape: Any,
) -> Path:
    """Make a run of random models, of which each step has its own; return its directory.

    The weights are `factor` times those of a new run: far from even, so that mistakes show.
    """
    place.mkdir(parents=True)
    tokenizer = Tokenizer.train("bpe", [TEXT, TEXT], 280) if tokenizer is None else tokenizer
    tokenizer.save(place / "tokenizer.json")
    config = ModelConfig(tokenizer.vocab_size, **{**SHAPE, "architecture": architecture, **shape})
    table = parameter_table(config)
    for step in steps:
        weights = np.zeros(table.size, np.float32)
        initialize(config, weights, seed=step)
        weights *= factor
        save_checkpoint(
            place,
            step=step,
            model_config=config,
            train_config=TrainConfig(),
            weights=weights,
            moments=(np.zeros_like(weights), np.zeros_like(weights)),
            tokenizer_path=place / "tokenizer.json",
            state=state or {},
            best=step == best,
            crystal=crystal,
        )
    return place
