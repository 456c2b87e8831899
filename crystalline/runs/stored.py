"""Settings and progress of a run as its checkpoint keeps them, checked before anybody uses them.

state.json may come from somebody else: a setting of another type, or one that contradicts the
model beside it, is told as damage, before any data is prepared or memory taken.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.catalog import damage
from crystalline.formats.checkpoint import STATE, CheckpointInfo
from crystalline.model.adapters import AdapterConfig
from crystalline.runs.layers import checked_values, field_names
from crystalline.train.config import TrainConfig
from crystalline.train.progress import checked_progress
from crystalline.untrusted import BadContent, shown

# Settings that say again what config.json says, by the name they have there.
_OF_THE_MODEL = ("embed_dim", "num_layers", "num_heads", "seq_len", "dropout", "attention")


def stored_config(info: CheckpointInfo) -> dict[str, Any]:
    """Return the settings of training that a checkpoint keeps, by field of `TrainConfig`.

    One that did not exist yet when it was written has its default.

    Raises:
        CheckpointError: an unknown setting, or values that cannot be a run's.
    """
    unknown = sorted(set(info.train_config) - field_names(TrainConfig))
    if unknown:
        raise CheckpointError(
            f"the checkpoint {info.path} has a setting '{shown(unknown[0])}', unknown to this "
            "program",
            advice="Use the version of crystalline that wrote it.",
        )
    try:
        values = checked_values(TrainConfig, info.train_config)
        stored: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
        stored |= {"eval_tokens": 0} | values  # all were evaluated
        adapter = TrainConfig(**stored).adapter
        if adapter != info.adapter:
            raise BadContent(
                f"its settings ask for {_words(adapter)}, it has {_words(info.adapter)}"
            )
        if stored["plan"] is None and stored["max_steps"] is None:
            raise BadContent("it has neither 'plan' nor 'max_steps'")
        for name in _OF_THE_MODEL:
            there = getattr(info.model_config, name)
            if values.get(name, there) not in (there, None):
                raise BadContent(f"'{name}' is {values[name]}, its model has {there}")
        checked_progress(info.state)
    except (BadContent, UsageError) as error:
        clause = error.message if isinstance(error, UsageError) else str(error)
        raise damage(info.path, f"{info.path / STATE} cannot be used: {clause}") from None
    return stored


def _words(adapter: AdapterConfig | None) -> str:
    """Return adapters in words.

    >>> _words(AdapterConfig(8, 16.0)), _words(None)
    ('adapters of rank 8 and alpha 16', 'no adapters')
    """
    if adapter is None:
        return "no adapters"
    return f"adapters of rank {adapter.rank} and alpha {adapter.alpha:g}"
