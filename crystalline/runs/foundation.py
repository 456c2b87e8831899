"""The model that a run begins from (--init-from): its shape, its tokenizer, where its weights are.

Shape and tokenizer are the model's; settings that say otherwise are refused, those that say
nothing take the model's.  What may differ is the context: a table of learned positions can be
cut, and rotary positions have none.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crystalline.data.tokenizer import GivenTokenizer
from crystalline.errors import UsageError
from crystalline.formats.sources import ModelSource, open_source
from crystalline.log import get_logger
from crystalline.model.adapters import AdapterConfig, largest_rank
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.runs.layers import flag_of
from crystalline.runs.settings import RunSettings
from crystalline.train.config import TokenizerKind, TrainConfig

_log = get_logger("runs")

# What each setting of the shape is in a model, and what a value of the setting means for it.
_Value = Callable[[ModelConfig], Any]
_SHAPE: dict[str, _Value] = {
    "architecture": lambda m: m.architecture,
    "embed_dim": lambda m: m.embed_dim,
    "num_layers": lambda m: m.num_layers,
    "num_heads": lambda m: m.num_heads,
    "num_kv_heads": lambda m: m.kv_heads,
    "head_size": lambda m: m.head_dim,
    "mlp_dim": lambda m: m.mlp_width,
    "rope_theta": lambda m: m.theta,
    "sliding_window": lambda m: m.sliding_window,
    "tie_embeddings": lambda m: m.is_tied,
    "vocab_size": lambda m: m.vocab_size,
}
_RULES = ("num_kv_heads", "head_size", "mlp_dim", "rope_theta")  # 0 is the architecture's rule


@dataclass(frozen=True)
class Foundation:
    """A model that was found, of which nothing but the head has been read."""

    source: ModelSource
    tokenizer: GivenTokenizer

    @classmethod
    def open(cls, place: str) -> Foundation:
        """Find the model of --init-from.

        Raises:
            CheckpointError, DataError: nothing there, damage, or a model that is not known here.
        """
        source = open_source(Path(place))
        vocabulary = source.config.vocab_size
        given = GivenTokenizer(source.tokenizer(), source.tokenizer_json(), vocabulary)
        return cls(source, given)

    def settle(self, settings: RunSettings, given: Collection[str]) -> RunSettings:
        """Return `settings` with the shape of the model; `given` names those that somebody gave.

        Raises:
            UsageError: one that was given contradicts the model.
        """
        model = self.source.config
        for name in _SHAPE:
            if name in given:
                self._require(settings, name)
        attention = model.attention if "attention" not in given else settings.attention
        if attention == "standard" != model.attention:
            raise self._contradiction("attention", "standard", model.attention)
        adapter = self._adapter(settings)
        own = self.tokenizer.tokenizer.kind
        kind = cast(TokenizerKind, "bpe" if own == "spm" else own)  # SentencePiece's BPE
        if "tokenizer" in given and settings.tokenizer != kind:
            raise self._contradiction("tokenizer", settings.tokenizer, kind)
        shape = {name: value(model) for name, value in _SHAPE.items() if name not in _RULES}
        return dataclasses.replace(
            settings,
            **shape,
            **{name: getattr(model, name) for name in _RULES},
            tokenizer=kind,
            attention=attention,
            seq_len=self._context(settings, "seq_len" in given),
            init_from=os.path.abspath(str(settings.init_from)),  # noqa: PTH100 - links stay
            lora_alpha=None if adapter is None else adapter.alpha,
        )

    def model(self, config: TrainConfig) -> ModelConfig:
        """Return the shape of the run's model: the source's, with the settings' context."""
        return dataclasses.replace(
            self.source.config,
            seq_len=config.seq_len,
            dropout=config.dropout,
            attention=config.attention,
        )

    def _adapter(self, settings: RunSettings) -> AdapterConfig | None:
        """Return the adapters that are asked for; raise `UsageError` where the model takes none."""
        model, adapter = self.source.config, settings.adapter
        if adapter is None:
            return None
        if model.attention != "standard":
            raise UsageError(
                f"the model {self.source.path} has crystalline attention, whose λ adapters do not "
                "reach",
                advice="Leave --lora-rank out: that trains all its weights.",
            )
        most = largest_rank(model)
        if adapter.rank > most:
            raise UsageError(
                f"--lora-rank {adapter.rank:,} is above the smallest side of the matrices of "
                f"{self.source.path}, {most:,}",
                advice=f"Use at most {most:,}; 8 to 64 are usual.",
            )
        return adapter

    def _context(self, settings: RunSettings, is_given: bool) -> int:
        most = self.source.config.seq_len
        if settings.seq_len <= most:
            return settings.seq_len
        if not is_given:
            return most
        if parameter_table(self.source.config).find(Role.POSITIONS) is not None:
            raise UsageError(
                f"--seq-len {settings.seq_len} is longer than the {most} positions that "
                f"{self.source.path} has learned",
                advice=f"Use --seq-len {most} or less.",
            )
        _log.warning(
            "--seq-len %d is longer than the context of %d that %s was made for; what lies beyond "
            "is learned from this text only.", settings.seq_len, most, self.source.path,
        )  # fmt: skip
        return settings.seq_len

    def _require(self, settings: RunSettings, name: str) -> None:
        """Raise `UsageError` where a setting that was given says other than the model."""
        model, value = self.source.config, getattr(settings, name)
        has = _SHAPE[name](model)
        allowed = {has}
        if name in _RULES and not value:
            value = _SHAPE[name](dataclasses.replace(model, **{name: type(value)(0)}))
        elif name == "vocab_size":  # the model's may be padded
            allowed.add(self.tokenizer.tokenizer.vocab_size)
        if value is not None and value not in allowed:
            raise self._contradiction(name, value, has)

    def _contradiction(self, name: str, value: Any, has: Any) -> UsageError:
        return UsageError(
            f"{flag_of(name)} {value} contradicts the model {self.source.path}, which has {has}",
            advice="Leave it out: --init-from keeps the model's shape and tokenizer.",
        )
