"""Checkpoints: everything that a run needs to go on bit for bit, in Hugging Face's layout.

    RUN/checkpoints/step-00000500/
        config.json             GPT-2's keys, as transformers reads them
        tokenizer.json
        model.safetensors       float32, names and shapes of the parameter table
        optimizer.safetensors   the two moments, as m.NAME and v.NAME
        state.json              step, settings, and what else the engine hands over
        crystal.json            the numbers of the vocabulary, of runs that compute with them
        manifest.json           sha256 and size of each file above; written last
    RUN/latest, RUN/best        relative symbolic links to two of them

A checkpoint is written into a hidden directory beside its place, forced to disk
and renamed, so that a directory `step-…` is always whole.  Damage that comes
later is found by the manifest.  What the values of the state mean is left to
`train`; the run directory itself to `rundir`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from crystalline.atomic import sync_directory
from crystalline.data.crystal import CRYSTAL
from crystalline.errors import CheckpointError, SaveError
from crystalline.formats.catalog import (
    ASIDE,
    list_checkpoints,
    other_checkpoint,
    pointer,
    prune,
    require_directory,
    resolve,
    saved_at,
    set_pointer,
    tidy,
)
from crystalline.formats.documents import (
    CRYSTALLINE_TYPE,
    END_OF_TEXT,
    end_of_text_id,
    gpt2_config,
    json_text,
    read_config,
    read_json,
)
from crystalline.formats.files import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    FILES,
    FORMAT,
    LATEST,
    MANIFEST,
    MODEL,
    MODEL_FILES,
    OPTIMIZER,
    OPTIONAL_FILES,
    STATE,
    TOKENIZER,
    step_of,
)
from crystalline.formats.manifest import fingerprint, sync_file, verify
from crystalline.formats.tensors import Flat, read_flat, weights_sha256, write_tensors
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table

# This module is the door to the package: others take the names of its neighbors from here.
__all__ = [
    "BEST", "CHECKPOINTS", "CONFIG", "CRYSTALLINE_TYPE", "END_OF_TEXT", "FILES", "FORMAT",
    "LATEST", "MANIFEST", "MODEL", "MODEL_FILES", "OPTIMIZER", "STATE", "TOKENIZER",
    "Checkpoint", "CheckpointInfo", "LoadedModel", "Settings",
    "inspect_checkpoint", "list_checkpoints", "load_checkpoint", "load_model", "pointer", "prune",
    "resolve", "save_checkpoint", "set_pointer", "tidy", "verify", "weights_sha256",
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


@dataclass(frozen=True, eq=False)
class Checkpoint(CheckpointInfo):
    """All that a run needs to go on."""

    weights: Flat  # (table.size,)
    m: Flat  # (table.size,) first moment
    v: Flat  # (table.size,) second moment


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model to generate with."""

    config: ModelConfig
    weights: Flat  # (table.size,)
    tokenizer_path: Path
    metadata: dict[str, Any]  # state.json of our own checkpoints, otherwise empty
    path: Path
    crystal_path: Path | None = None  # crystal.json, where the model was trained with one


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
    best: bool = False,
) -> Path:
    """Write `run_dir/checkpoints/step-XXXXXXXX`, point `latest` to it, and return its path.

    With `best`, `best` points to it as well.

    `weights` and both `moments` are flat float32 buffers of the parameter table's
    size; `state` is what JSON can hold; `crystal` is the content of crystal.json.  A
    checkpoint of the same step is replaced.  Nothing is copied in memory.

    Raises:
        SaveError: the files could not be written; what was there before is intact.
        ValueError: a buffer has the wrong shape, or `state` holds NaN.
    """
    table = parameter_table(model_config)
    for name, flat in (("weights", weights), ("m", moments[0]), ("v", moments[1])):
        if flat.shape != (table.size,) or flat.dtype != np.float32:
            raise ValueError(
                f"{name} is {flat.dtype}{flat.shape}, the model needs float32({table.size},)"
            )
    state_text = json_text(
        {
            "format": FORMAT,
            "step": step,
            "model": model_config.to_dict(),
            "train": train_config.to_dict(),
            "state": dict(state),
        }
    )
    folder = run_dir / CHECKPOINTS
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tidy(run_dir)
        temporary.mkdir()
        try:
            shutil.copyfile(tokenizer_path, temporary / TOKENIZER)
            end_of_text = end_of_text_id(temporary / TOKENIZER)
            config_text = json_text(gpt2_config(model_config, end_of_text))
            (temporary / CONFIG).write_text(config_text, encoding="utf-8")
            (temporary / STATE).write_text(state_text, encoding="utf-8")
            write_tensors(temporary / MODEL, table.views(weights), {"format": "pt"})
            both = {
                f"{moment}.{name}": view
                for moment, flat in zip("mv", moments, strict=True)
                for name, view in table.views(flat).items()
            }
            write_tensors(temporary / OPTIMIZER, both, {})
            if crystal is not None:
                (temporary / CRYSTAL).write_text(crystal, encoding="utf-8")
            files = {}
            optional = [name for name in OPTIONAL_FILES if (temporary / name).exists()]
            for name in (*FILES, *optional):
                sync_file(temporary / name)
                size_bytes, digest = fingerprint(temporary / name)
                files[name] = {"size_bytes": size_bytes, "sha256": digest}
            manifest = {"format": FORMAT, "step": step, "saved_at": time.time(), "files": files}
            (temporary / MANIFEST).write_text(json_text(manifest), encoding="utf-8")
            sync_file(temporary / MANIFEST)
            sync_directory(temporary)
            _replace_directory(temporary, target)
            sync_directory(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        set_pointer(run_dir, LATEST, target)
        if best:
            set_pointer(run_dir, BEST, target)
    except OSError as error:
        _raise_save_error(run_dir, step, target, error)
    return target


def inspect_checkpoint(path: Path, *, verify: bool = True) -> CheckpointInfo:
    """Return what a checkpoint says about itself, without loading any tensor.

    With `verify`, every file is first compared with the manifest.

    Raises:
        CheckpointError: something is missing, damaged or does not fit together; the
            advice names the newest other checkpoint of the run that is undamaged.
    """
    require_directory(path)
    if not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"{path} is not a checkpoint that training can resume from ({MANIFEST} is missing)",
            advice=other_checkpoint(path),
        )
    if verify:
        verify_or_raise(path, FILES)
    config, document = read_config(path), read_json(path, STATE)
    for key, kind in (("step", int), ("model", dict), ("train", dict), ("state", dict)):
        if not isinstance(document.get(key), kind):
            raise CheckpointError(
                f"{path / STATE} has no usable value for '{key}'", advice=other_checkpoint(path)
            )
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{path / STATE} has format {document.get('format')}; this program reads {FORMAT}",
            advice="Use the version of crystalline that wrote it.",
        )
    if document["model"] != config.to_dict():
        raise CheckpointError(
            f"{path / CONFIG} describes another model than {STATE}",
            advice=other_checkpoint(path),
        )
    return CheckpointInfo(
        step=document["step"],
        model_config=config,
        train_config=document["train"],
        state=document["state"],
        tokenizer_path=path / TOKENIZER,
        path=path,
        crystal_path=_crystal_of(path),
    )


def load_checkpoint(path: Path, *, verify: bool = True) -> Checkpoint:
    """Read a checkpoint directory (see `resolve` for run directories).

    Raises `CheckpointError` as `inspect_checkpoint` does, and for tensors that do not fit.
    """
    info = inspect_checkpoint(path, verify=verify)
    table = parameter_table(info.model_config)
    return Checkpoint(
        **vars(info),
        weights=read_flat(path / MODEL, table, ""),
        m=read_flat(path / OPTIMIZER, table, "m."),
        v=read_flat(path / OPTIMIZER, table, "v."),
    )


def load_model(path: Path) -> LoadedModel:
    """Read the weights of a checkpoint, or of any GPT-2 folder in Hugging Face's layout.

    Tensor names may come without the prefix "transformer."; attention masks and a
    copy of the tied head are passed over; float16 and float64 become float32.
    Where there is a manifest, the files are compared with it.

    Raises:
        CheckpointError: no such folder, damage, or a model that is not GPT-2 as
            `crystalline.model` computes it.
    """
    require_directory(path)
    if (path / MANIFEST).is_file():
        verify_or_raise(path, MODEL_FILES)
    config = read_config(path)
    if not (path / MODEL).is_file():
        raise CheckpointError(
            f"{path} has no {MODEL}",
            advice="Save the model with save_pretrained(..., safe_serialization=True), unsharded.",
        )
    if not (path / TOKENIZER).is_file():
        raise CheckpointError(
            f"{path} has no {TOKENIZER}",
            advice="Save the tokenizer beside the model (a 'fast' tokenizer in transformers).",
        )
    weights = read_flat(path / MODEL, parameter_table(config), "")
    metadata = read_json(path, STATE) if (path / STATE).is_file() else {}
    return LoadedModel(config, weights, path / TOKENIZER, metadata, path, _crystal_of(path))


def _crystal_of(path: Path) -> Path | None:
    """Return the crystal.json of a checkpoint or a copied model folder, if it has one."""
    return path / CRYSTAL if (path / CRYSTAL).is_file() else None


def _replace_directory(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an old `target` steps aside and is then removed."""
    if not target.exists():
        source.rename(target)
        return
    aside = source.with_name(source.name.removesuffix(".tmp") + ASIDE)
    target.rename(aside)
    try:
        source.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _raise_save_error(run_dir: Path, step: int, target: Path, error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free some space." if full else "Check the directory."
    kept = [entry for entry in list_checkpoints(run_dir) if entry != target]
    if kept:
        advice += f" The checkpoint of step {step_of(max(kept, key=saved_at)):,} is intact."
    raise SaveError(
        f"the checkpoint of step {step:,} cannot be written to {target} ({reason})", advice=advice
    ) from error


def verify_or_raise(path: Path, names: Collection[str]) -> None:
    problem = verify(path, names)
    if problem:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {problem}", advice=other_checkpoint(path)
        )
