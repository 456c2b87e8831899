"""Checkpoints: everything that a run needs to go on bit for bit, in Hugging Face's layout.

    RUN/checkpoints/step-00000500/
        config.json             the architecture's keys, as transformers reads them; not of adapters
        tokenizer.json
        tokenizer_config.json   how transformers is to read tokenizer.json
        model.safetensors       float32, names and shapes as transformers has them
        optimizer.safetensors   the two moments, as m.NAME and v.NAME of what is trained
        state.json              step, settings, and what else the engine hands over
        crystal.json            the numbers of the vocabulary, of runs that compute with them
        adapter_config.json     in place of the model's weights, of runs that train adapters beside
        adapter_model.safetensors   a model that lies in RUN/base; see `adapter` and `base`
        manifest.json           sha256 and size of each file above; written last
    RUN/latest, RUN/best        relative symbolic links to two of them; see `pointers`
    RUN/checkpoints/NAME        ... and to those that were given names; see `kept`

A checkpoint is written into a hidden directory beside its place, forced to disk
and renamed, so that a directory `step-…` is always whole.  Damage that comes
later is found by the manifest.  What the values of the state mean is left to
`train`; the run directory itself to `rundir`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from crystalline.atomic import sync_directory, temporary_beside
from crystalline.data.crystal import CRYSTAL
from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts
from crystalline.errors import CheckpointError, SaveError
from crystalline.faults import point
from crystalline.formats.adapter import (
    AdaptedFiles,
    read_adapter,
    read_adapter_config,
    write_adapter,
)
from crystalline.formats.base import base_sha256, require_base
from crystalline.formats.catalog import (
    PERMISSIONS,
    damage,
    latest_checkpoint,
    list_checkpoints,
    locate,
    newest_first,
    prune,
    require_directory,
    require_readable,
    resolve,
    stamp,
    tidy,
)
from crystalline.formats.config_json import canonical, read_config
from crystalline.formats.documents import json_document, read_document
from crystalline.formats.files import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    BASE,
    BEST,
    CHECKPOINTS,
    CONFIG,
    FILES,
    FORMAT,
    LATEST,
    MANIFEST,
    MODEL,
    MODEL_FILES,
    MODEL_INDEX,
    OPTIMIZER,
    STATE,
    TO_GO_ON,
    TOKENIZER,
    is_there,
    step_name,
    step_of,
)
from crystalline.formats.folder import save_model_folder, write_description, write_model
from crystalline.formats.kept import step_aside
from crystalline.formats.manifest import read_manifest, verify, write_manifest
from crystalline.formats.pointers import move_pointer, pointer, replace_directory, set_pointer
from crystalline.formats.tensorfile import write_tensors
from crystalline.formats.tensors import (
    Flat,
    ModelFiles,
    read_flat,
    read_moments,
    weights_sha256,
)
from crystalline.formats.tokenizer_config import read_facts
from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.config import ModelConfig
from crystalline.model.params import ParameterTable, parameter_table
from crystalline.untrusted import shown
from crystalline.untrusted.files import STATE as STATE_FILE
from crystalline.untrusted.files import TOKENIZER as TOKENIZER_FILE

# This module is the door to the package: others take the names of its neighbors from here.
__all__ = [
    "BEST", "CHECKPOINTS", "CONFIG", "FILES", "FORMAT",
    "LATEST", "MANIFEST", "MODEL", "MODEL_FILES", "OPTIMIZER", "STATE", "TOKENIZER",
    "Checkpoint", "CheckpointInfo", "LoadedModel", "ModelFolder", "Settings", "facts_of",
    "inspect_checkpoint", "inspect_model", "is_there", "latest_checkpoint", "list_checkpoints",
    "load_checkpoint", "load_model", "locate", "move_pointer", "newest_first", "pointer", "prune",
    "require_directory", "require_readable", "resolve", "save_checkpoint", "save_model_folder",
    "set_pointer", "tidy", "trained_sha256", "verify", "weights_sha256",
]  # fmt: skip


class Settings(Protocol):
    """Settings that are stored whole: `TrainConfig`, of which this layer knows no more."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for files."""
        ...


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself."""

    step: int  # optimizer steps done
    model_config: ModelConfig
    train_config: dict[str, Any]  # the fields of TrainConfig
    state: dict[str, Any]
    tokenizer_path: Path
    path: Path
    crystal_path: Path | None  # where the run computes with the numbers of its vocabulary
    adapter: AdapterConfig | None  # of a run that trains adapters
    base: Path | None  # the folder of the model that they belong to

    @property
    def trained(self) -> ParameterTable:
        """The table of what the run trains."""
        return _trained(self.model_config, self.adapter)


@dataclass(frozen=True, eq=False)
class Checkpoint(CheckpointInfo):
    """All that a run needs to go on."""

    weights: Flat  # (trained.size,)
    m: Flat  # (trained.size,) first moment
    v: Flat  # (trained.size,) second moment


@dataclass(frozen=True)
class ModelFolder:
    """A model to generate with, or to go on from: what its folder says, no tensor read."""

    config: ModelConfig
    tokenizer_path: Path
    facts: TokenizerFacts  # what its files say about the tokenizer
    metadata: dict[str, Any]  # state.json of our own checkpoints, otherwise empty
    path: Path
    crystal_path: Path | None  # crystal.json, where the model was trained with one
    adapter: AdapterConfig | None = None  # of adapters, which are merged in as tensors are read
    base: Path | None = None  # the folder of the model that they belong to

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer.  Raises `DataError` where there is none that can be used."""
        return Tokenizer.load(self.tokenizer_path, self.facts)

    def open_weights(self) -> ModelFiles:
        """Open its tensors, to be read one by one.  Raises `CheckpointError`."""
        if self.adapter is not None and self.base is not None:
            return AdaptedFiles(self.base, self.config, self.adapter, self.path)
        return ModelFiles(self.path, self.config)


@dataclass(frozen=True, eq=False)
class LoadedModel(ModelFolder):
    """A model with its weights."""

    weights: Flat = field(kw_only=True)  # (table.size,)


def save_checkpoint(
    run_dir: Path,
    *,
    step: int,
    model_config: ModelConfig,
    train_config: Settings,
    weights: Flat,
    moments: tuple[Flat, Flat],
    tokenizer_path: Path,
    state: Mapping[str, Any],
    crystal: str | None = None,
    facts: TokenizerFacts = NO_FACTS,
    adapter: AdapterConfig | None = None,
    best: bool = False,
) -> Path:
    """Write `run_dir/checkpoints/step-XXXXXXXX`, point `latest` to it, and return its path.

    With `best`, `best` points to it as well.  A pointer that cannot be moved is a warning:
    the checkpoint is whole without it.

    `weights` and both `moments` are flat float32 buffers of the parameter table's size; with
    `adapter`, of `adapter_table(model_config, adapter)`, and belong to the model in `run_dir/base`.
    `state` is what JSON can hold; `crystal` is the content of crystal.json; `facts` is what the
    model that the run began from says of its tokenizer.  A checkpoint of the same step is replaced.
    No more than some MB of the tensors are copied in memory.

    Raises:
        SaveError: the files could not be written; what was there before is intact.
        ValueError: a buffer has the wrong shape, or `state` holds NaN.
    """
    table = _trained(model_config, adapter)
    for name, flat in (("weights", weights), ("m", moments[0]), ("v", moments[1])):
        if flat.shape != (table.size,) or flat.dtype != np.float32:
            raise ValueError(
                f"{name} is {flat.dtype}{flat.shape}, the model needs float32({table.size},)"
            )
    folder = run_dir / CHECKPOINTS
    target = folder / step_name(step)
    document = {
        "format": FORMAT,
        "step": step,
        "model": canonical(model_config).to_dict(),
        "train": train_config.to_dict(),
        "state": dict(state),
    }
    if adapter is not None:
        document |= {"adapter": adapter.to_dict(), "base_sha256": _sha256_of_base(run_dir, step)}
    state_text = json_document(document)
    temporary = temporary_beside(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tidy(run_dir)
        point("checkpoint.begin")
        temporary.mkdir()
        try:
            tokenizer = TOKENIZER_FILE.read_bytes(tokenizer_path)
            if adapter is None:
                views = table.file_views(weights)
                write_model(temporary, model_config, views, tokenizer, facts, crystal=crystal)
            else:
                write_description(temporary, model_config, tokenizer, facts)
                (temporary / CONFIG).unlink()  # transformers would take it for a whole model
                # PEFT knows no paths from the checkpoint on: this one holds while the run stays.
                base = os.path.abspath(run_dir / BASE)  # noqa: PTH100 - links stay
                write_adapter(temporary, model_config, adapter, weights, base)
            point("checkpoint.state")
            (temporary / STATE).write_text(state_text, encoding="utf-8")
            both = {
                f"{moment}.{name}": view
                for moment, flat in zip("mv", moments, strict=True)
                for name, view in table.views(flat).items()
            }
            write_tensors(temporary / OPTIMIZER, both)
            model_files = MODEL_FILES if adapter is None else ADAPTER_FILES
            write_manifest(temporary, (*model_files, *TO_GO_ON), step=step, **stamp(run_dir))
            step_aside(run_dir, target)
            point("checkpoint.rename")
            replace_directory(temporary, target)
            sync_directory(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        _raise_save_error(run_dir, step, target, error)
    point("checkpoint.named")
    move_pointer(run_dir, LATEST, target)
    if best:
        move_pointer(run_dir, BEST, target)
    return target


def inspect_checkpoint(path: Path, *, verify: bool = True) -> CheckpointInfo:
    """Return what a checkpoint says about itself, without loading any tensor.

    With `verify`, every file is first compared with the manifest.

    Raises:
        CheckpointError: something is missing, damaged or does not fit together; the
            advice names the newest other checkpoint of the run that is undamaged.
    """
    require_directory(path)
    if not is_there(path / MANIFEST):
        raise damage(
            path,
            f"{path} is not a checkpoint that training can resume from ({MANIFEST} is missing)",
        )
    if verify:
        _verify_or_raise(path)
    document = read_document(path, STATE_FILE)
    config, adapter, base = _description_of(path, document, verify=verify)
    if document["format"] != FORMAT:
        raise CheckpointError(
            f"{path / STATE} has format {document['format']}; this program reads {FORMAT}",
            advice="Use the version of crystalline that wrote it.",
        )
    _require_one_step(path, document)
    if document["model"] != config.to_dict():
        raise damage(path, f"{path / CONFIG} describes another model than {STATE}")
    return CheckpointInfo(
        step=document["step"],
        model_config=config,
        train_config=document["train"],
        state=document["state"],
        tokenizer_path=path / TOKENIZER,
        path=path,
        crystal_path=_crystal_of(path),
        adapter=adapter,
        base=base,
    )


def _require_one_step(path: Path, document: dict[str, Any]) -> None:
    """Raise `CheckpointError` unless manifest and state speak of the same step."""
    told = {"its outer step": document["step"]}
    with contextlib.suppress(OSError, ValueError):  # told by `verify`
        told["the manifest's step"] = read_manifest(path)["step"]
    if "step" in document["state"]:
        told["its inner step"] = document["state"]["step"]
    if len(set(map(repr, told.values()))) > 1:
        steps = ", ".join(f"{name} is {shown(repr(step), 40)}" for name, step in told.items())
        raise damage(path, f"{path / STATE} cannot be used: {steps}")


def load_checkpoint(path: Path, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint directory (see `resolve` for run directories).

    Raises `CheckpointError` as `inspect_checkpoint` does, and for tensors that do not fit.
    """
    info = inspect_checkpoint(path, verify=verify)
    return Checkpoint(
        **vars(info),
        weights=_read_trained(info),
        m=read_moments(path / OPTIMIZER, info.trained, "m."),
        v=read_moments(path / OPTIMIZER, info.trained, "v."),
    )


def trained_sha256(path: Path) -> str:
    """Return the hash of what the run of a checkpoint trains: its weights, or its adapters.

    Raises `CheckpointError` as `load_checkpoint` does.
    """
    info = inspect_checkpoint(path)
    return weights_sha256(_read_trained(info), info.trained)


def inspect_model(path: Path) -> ModelFolder:
    """Return what a checkpoint, or any folder in Hugging Face's layout, says about its model.

    The architectures are those of `crystalline.model.architectures`.  Where there is a manifest,
    the files are compared with it.

    Raises:
        CheckpointError: no such folder, damage, or a model that is not computed here.
    """
    require_directory(path)
    if is_there(path / MANIFEST):
        _verify_or_raise(path, to_go_on=False)
    metadata = read_document(path, STATE_FILE) if is_there(path / STATE) else {}
    config, adapter, base = _description_of(path, metadata)
    if not is_there(path / TOKENIZER):
        raise CheckpointError(
            f"{path} has no {TOKENIZER}",
            advice="Save the tokenizer beside the model (a 'fast' tokenizer in transformers).",
        )
    crystal = _crystal_of(path)
    for file in (path / TOKENIZER, crystal):  # read by others, who know nothing of folders
        if file is not None:
            require_readable(file)
    facts = facts_of(path, base)
    return ModelFolder(config, path / TOKENIZER, facts, metadata, path, crystal, adapter, base)


def load_model(path: Path) -> LoadedModel:
    """Read a model with its weights; see `inspect_model`.

    Weights may be in one file or in shards, and tensor names without the prefix of their
    architecture; attention masks, tables of rotary positions and a copy of the tied head are
    passed over; float16, bfloat16 and float64 become float32.

    Raises `CheckpointError` as `inspect_model` does, and for tensors that do not fit.
    """
    folder = inspect_model(path)
    with folder.open_weights() as files:
        return LoadedModel(**vars(folder), weights=files.flat())


def _trained(config: ModelConfig, adapter: AdapterConfig | None) -> ParameterTable:
    return parameter_table(config) if adapter is None else adapter_table(config, adapter)


def _read_trained(info: CheckpointInfo) -> Flat:
    if info.adapter is None:
        return read_flat(info.path, info.model_config)
    return read_adapter(info.path, info.model_config, info.adapter)


def facts_of(path: Path, base: Path | None) -> TokenizerFacts:
    """Return what a folder says of its tokenizer, and of ends of texts what its base does."""
    facts = read_facts(path)
    if base is None or facts.end_ids:
        return facts
    return dataclasses.replace(facts, end_ids=read_facts(base).end_ids)


def _description_of(
    path: Path, document: Mapping[str, Any], *, verify: bool = True
) -> tuple[ModelConfig, AdapterConfig | None, Path | None]:
    """Return the model of a folder, and, of adapters in place of weights, these and their base.

    The base describes the model then; older versions wrote it beside the adapters, too.
    `document` is the folder's state.json.  Raises `CheckpointError`, also for adapters without
    their base.
    """
    is_adapted = is_there(path / ADAPTER_CONFIG) and not any(
        is_there(path / name) for name in (MODEL, MODEL_INDEX)
    )
    if not is_adapted:
        if "adapter" in document:
            raise damage(path, f"{path / STATE} tells of adapters, and {ADAPTER_CONFIG} is missing")
        return read_config(path), None, None
    told = read_config(path) if is_there(path / CONFIG) else None
    base = require_base(path, told, document.get("base_sha256"), checked=verify)
    config = read_config(base)
    adapter = read_adapter_config(path, config)
    if document.get("adapter", adapter.to_dict()) != adapter.to_dict():
        raise damage(path, f"{path / ADAPTER_CONFIG} describes other adapters than {STATE}")
    return config, adapter, base


def _sha256_of_base(run_dir: Path, step: int) -> str:
    try:
        return base_sha256(run_dir)
    except (OSError, ValueError):
        raise SaveError(
            f"the checkpoint of step {step:,} cannot be written: {run_dir / BASE}, the model that "
            "its adapters belong to, is missing or damaged",
            advice=f"Put the folder {BASE} back, and resume the run.",
        ) from None


def _crystal_of(path: Path) -> Path | None:
    """Return the crystal.json of a checkpoint or a copied model folder, if it has one."""
    return path / CRYSTAL if is_there(path / CRYSTAL) else None


def _raise_save_error(run_dir: Path, step: int, target: Path, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free some space." if full else "Check the directory."
    with contextlib.suppress(CheckpointError):  # the directory itself may be the trouble
        kept = [entry for entry in newest_first(run_dir) if entry != target]
        if kept:
            advice += f" The checkpoint of step {step_of(kept[0]):,} is intact."
    raise SaveError(
        f"the checkpoint of step {step:,} cannot be written to {target} ({reason})", advice=advice
    ) from error


def _verify_or_raise(path: Path, *, to_go_on: bool = True) -> None:
    fault = verify(path, to_go_on=to_go_on)
    if fault is None:
        return
    if fault.denied:
        raise CheckpointError(f"{path}/{fault}", advice=PERMISSIONS)
    raise damage(path, f"the checkpoint {path} is damaged: {fault}")
