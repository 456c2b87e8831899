"""Runs that train adapters, made up: a base, and checkpoints beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crystalline.formats import checkpoint as cp
from crystalline.formats.checkpoint import save_model_folder
from crystalline.formats.files import BASE
from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train.config import TrainConfig
from tests.formats.checkpoints import STATE, filled, flats, tokenizer

ADAPTER = AdapterConfig(rank=3, alpha=7.5)  # a scale that is neither 1 nor 2
SHAPES = {
    "gpt2": ModelConfig(11, 5, 2, 3, 12),
    "llama": ModelConfig(11, 5, 2, 4, 16, architecture="llama", num_kv_heads=2, mlp_dim=20),
    "qwen3": ModelConfig(
        11, 5, 1, 4, 16, architecture="qwen3", num_kv_heads=1, head_size=6, tie_embeddings=False
    ),
}
TRAIN = TrainConfig(init_from="/a/model", lora_rank=3, lora_alpha=7.5, max_steps=50)


def learned(config: ModelConfig, seed: int, adapter: AdapterConfig = ADAPTER) -> list[np.ndarray]:
    """Adapters and their two moments, all unequal."""
    return filled(adapter_table(config, adapter), seed)


def make_base(run: Path, config: ModelConfig, seed: int = 99) -> Path:
    """Write RUN/base without the code that keeps one."""
    run.mkdir(parents=True, exist_ok=True)
    views = parameter_table(config).file_views(flats(seed, config)[0])
    content = tokenizer(run).read_bytes()
    save_model_folder(run / BASE, config, views, content, signed=True)
    return run / BASE


def save(run: Path, step: int, config: ModelConfig, **changes: Any) -> Path:
    """Write a checkpoint of adapters that follow from the step; the base where it is missing."""
    if not (run / BASE).exists():
        make_base(run, config)
    weights, m, v = learned(config, step)
    arguments = {
        "step": step,
        "model_config": config,
        "train_config": TRAIN,
        "weights": weights,
        "moments": (m, v),
        "tokenizer_path": tokenizer(run),
        "state": STATE,
        "adapter": ADAPTER,
        **changes,
    }
    return cp.save_checkpoint(run, **arguments)
