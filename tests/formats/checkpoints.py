"""Small checkpoints for the tests of this folder: buffers, a tokenizer, `save`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from crystalline.formats import checkpoint as cp
from crystalline.model.config import ModelConfig
from crystalline.model.params import ParameterTable, parameter_table
from crystalline.train.config import TrainConfig

CONFIG = ModelConfig(vocab_size=11, seq_len=5, num_layers=2, num_heads=3, embed_dim=9, dropout=0.1)
TABLE = parameter_table(CONFIG)
TRAIN = TrainConfig(seed=5, lr_schedule="linear", minutes=2.5)
STATE = {"tokens": 1234, "best_val_loss": None, "dropped": [3, 7], "corpus": "Zürich"}


def flats(seed: int, config: ModelConfig = CONFIG) -> list[np.ndarray]:
    """Three unequal buffers of a model's table; see `filled`."""
    return filled(parameter_table(config), seed)


def filled(table: ParameterTable, seed: int) -> list[np.ndarray]:
    """Three unequal buffers; the alignment gaps hold 0 as they do in a run."""
    random = np.random.default_rng(seed)
    result = []
    for _ in range(3):
        flat = np.zeros(table.size, np.float32)
        for view in table.views(flat).values():
            view[...] = random.standard_normal(view.shape)
        result.append(flat)
    return result


def tokenizer(folder: Path) -> Path:
    """Write what passes for a tokenizer.json."""
    path = folder / "some-tokenizer.json"
    added = [{"id": 4, "content": "<pad>"}, {"id": 7, "content": "<|endoftext|>"}]
    path.write_text(json.dumps({"version": "1.0", "added_tokens": added}))
    return path


def save(run: Path, step: int, seed: int | None = None, **changes) -> Path:
    """Write a checkpoint whose buffers follow from `seed` (default: the step)."""
    run.mkdir(exist_ok=True, parents=True)
    weights, m, v = flats(step if seed is None else seed)
    arguments = {
        "step": step,
        "model_config": CONFIG,
        "train_config": TRAIN,
        "weights": weights,
        "moments": (m, v),
        "tokenizer_path": tokenizer(run),
        "state": STATE,
        **changes,
    }
    return cp.save_checkpoint(run, **arguments)


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())
