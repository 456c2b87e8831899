"""Adapters as PEFT has them in files, and a model with them merged in.

    adapter_config.json        their rank and alpha, and which modules of the model have one
    adapter_model.safetensors  A and B of every matrix, as torch's linear layers have them

PEFT opens the folder beside its base.  Queries, keys and values have one A in memory and a copy
each in the file; copies that differ are refused, and so is whatever in the settings would make
adapters compute something else than x A B alpha / r.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from crystalline.errors import CheckpointError
from crystalline.formats.catalog import damage
from crystalline.formats.documents import json_document, read_document
from crystalline.formats.files import ADAPTER_CONFIG, ADAPTER_MODEL
from crystalline.formats.tensorfile import TensorFile, write_tensors
from crystalline.formats.tensors import Flat, ModelFiles, require_room, require_shape
from crystalline.model.adapters import (
    AdapterConfig,
    adapter_table,
    adapters,
    largest_rank,
    merge,
)
from crystalline.model.config import ModelConfig
from crystalline.model.params import Parameter
from crystalline.untrusted import shown
from crystalline.untrusted.files import ADAPTER_CONFIG as ADAPTER_CONFIG_FILE

# Settings of PEFT's that change what adapters compute, or of what; they must be absent or off.
_MUST_BE_OFF = (
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "corda_config", "eva_config",
    "exclude_modules", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_bias", "modules_to_save", "rank_pattern", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_dora", "use_qalora", "use_rslora",
)  # fmt: skip


def write_adapter(
    folder: Path, config: ModelConfig, adapter: AdapterConfig, flat: Flat, base: str
) -> None:
    """Write the files of adapters, of the buffer `flat`, into a folder that is there.

    `base` is where PEFT is to look for the model.  Raises `OSError`.
    """
    document = adapter_document(config, adapter, base)
    (folder / ADAPTER_CONFIG).write_text(json_document(document), encoding="utf-8")
    views = adapter_table(config, adapter).file_views(flat)
    write_tensors(folder / ADAPTER_MODEL, views, {"format": "pt"})


def adapter_document(config: ModelConfig, adapter: AdapterConfig, base: str) -> dict[str, Any]:
    """Return adapter_config.json; `base` is where PEFT is to look for the model."""
    alpha = int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": _fan_in_fan_out(config),
        "target_modules": sorted(_modules(config)),
    }


def read_adapter_config(folder: Path, config: ModelConfig) -> AdapterConfig:
    """Return what a folder says of its adapters of a model.

    Raises `CheckpointError`, also for adapters that are not computed here.
    """
    path = folder / ADAPTER_CONFIG
    document = read_document(folder, ADAPTER_CONFIG_FILE)
    if document["peft_type"] != "LORA":
        raise _refused(path, "peft_type", document["peft_type"])
    if document.get("bias", "none") != "none":
        raise _refused(path, "bias", document["bias"])
    for key in _MUST_BE_OFF:
        if document.get(key):
            raise _refused(path, key, document[key])
    if document.get("fan_in_fan_out", False) != _fan_in_fan_out(config):
        raise _refused(path, "fan_in_fan_out", document.get("fan_in_fan_out"))
    found, wanted = set(document["target_modules"]), _modules(config)
    if found != wanted:
        raise damage(
            folder,
            f"{path} has adapters of {_listed(found)}; those of this model are of "
            f"{_listed(wanted)}",
        )
    if document["r"] > largest_rank(config):
        raise damage(
            folder,
            f"{path} has adapters of rank {document['r']:,}, and the smallest side of the model's "
            f"matrices is {largest_rank(config):,}",
        )
    return AdapterConfig(document["r"], float(document["lora_alpha"]))


def read_adapter(folder: Path, config: ModelConfig, adapter: AdapterConfig) -> Flat:
    """Return a folder's adapters as one flat buffer of their table; gaps are 0.

    Raises `CheckpointError` for tensors that are missing or do not fit, for copies of A that
    differ, and for numbers that are not finite.
    """
    table = adapter_table(config, adapter)
    path = folder / ADAPTER_MODEL
    with TensorFile(path) as file:
        require_room([file], table, ADAPTER_CONFIG)
        wanted = {part.name: (p, part) for p, part in table.file_parts()}
        for stored in file.tensors:
            if stored not in wanted:
                raise damage(folder, f"{path} holds an unknown tensor '{shown(stored)}'")
        for name, where in wanted.items():
            if name not in file.tensors:
                raise damage(folder, f"{path} has no tensor '{name}'")
            file.require_floats(name)
            require_shape(path, name, file.tensors[name].shape, where, ADAPTER_CONFIG)
        flat = np.zeros(table.size, np.float32)
        views = table.views(flat)
        for parameter in table.parameters:
            filled: set[int] = set()  # where the columns of parts begin
            for part in parameter.parts:
                view = parameter.part_view(views[parameter.name], part)
                row = 0
                for block in file.blocks(part.name):
                    rows = view[row : row + len(block)]
                    if part.start not in filled:
                        rows[...] = block
                    elif not np.array_equal(rows, block):
                        raise damage(
                            folder,
                            f"the tensors '{parameter.parts[0].name}' and '{part.name}' in {path} "
                            "differ, and must be one",
                        )
                    row += len(block)
                filled.add(part.start)
    return flat


class AdaptedFiles(ModelFiles):
    """The weights of a base with adapters merged in; see `ModelFiles`.

    What `blocks` yields is the base's.
    """

    def __init__(
        self, base: Path, config: ModelConfig, adapter: AdapterConfig, folder: Path
    ) -> None:
        self._adapter, self._source = adapter, folder
        self._learned = read_adapter(folder, config, adapter)
        self._adapters = {one.matrix.name: one for one in adapters(config, adapter)}
        super().__init__(base, config)

    def tensor(self, parameter: Parameter, out: Flat | None = None) -> Flat:
        """Return one tensor of the parameter table, with its adapter added if it has one.

        Raises `CheckpointError` where their sum is not finite.
        """
        result = super().tensor(parameter, out)
        one = self._adapters.get(parameter.name)
        if one is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                merge(one, self._adapter, self._learned, result)
            if not np.isfinite(result).all():
                raise damage(
                    self._source,
                    f"the adapter of {parameter.name} in {self._source / ADAPTER_MODEL} makes "
                    "weights that are not finite",
                )
        return result


def _modules(config: ModelConfig) -> frozenset[str]:
    """Return what PEFT calls the modules that have an adapter: by the end of their names."""
    matrices = [one.matrix for one in adapters(config, AdapterConfig(1, 1.0))]
    parts = [part for matrix in matrices for part in matrix.parts]
    return frozenset(part.name.removesuffix(".weight").rpartition(".")[2] for part in parts)


def _fan_in_fan_out(config: ModelConfig) -> bool:
    """Return whether the matrices are [inputs, outputs] in files, as GPT-2's are."""
    matrix = adapters(config, AdapterConfig(1, 1.0))[0].matrix
    return not matrix.parts[0].transposed


def _refused(path: Path, key: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{path} has '{key}' {shown(repr(value), 60)}, adapters that are not computed here",
        advice="Merge them into their model in PEFT (merge_and_unload), and name its folder.",
    )


def _listed(names: Collection[str]) -> str:
    return shown(", ".join(sorted(names)), 200)
