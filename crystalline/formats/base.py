"""The model that a run's adapters belong to, kept once in the run: RUN/base/.

A folder in Hugging Face's layout with a manifest, written before the first step.  Every checkpoint
of the run says the sha256 of its weights, so that adapters are never put on another model.  It is
looked for where the checkpoint lies: in its run, or beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from crystalline.errors import CheckpointError
from crystalline.formats.catalog import PERMISSIONS
from crystalline.formats.config_json import read_config
from crystalline.formats.files import BASE, CHECKPOINTS, MANIFEST, MODEL, is_there
from crystalline.formats.manifest import read_manifest, verify
from crystalline.model.config import ModelConfig


def base_sha256(run_dir: Path) -> str:
    """Return the hash of the weights of a run's base, as its manifest has it.

    Raises `OSError`, and `ValueError` for a manifest that is damaged.
    """
    listed = read_manifest(run_dir / BASE)["files"]
    if MODEL not in listed:
        raise ValueError(f"{MANIFEST} has no {MODEL}")
    return str(listed[MODEL]["sha256"])


def find_base(checkpoint: Path) -> Path | None:
    """Return the base of a checkpoint's adapters, None where there is none to be found."""
    try:
        places = [checkpoint, Path(os.path.abspath(checkpoint)), checkpoint.resolve()]  # noqa: PTH100
    except (OSError, RuntimeError):  # a link to itself
        places = [checkpoint]
    for place in places:
        in_run = [place.parent.parent] if place.parent.name == CHECKPOINTS else []
        for folder in (*in_run, place.parent):
            if is_there(folder / BASE / MANIFEST) or is_there(folder / BASE / MODEL):
                return folder / BASE
    return None


def require_base(
    checkpoint: Path, config: ModelConfig | None, sha256: str | None, *, checked: bool = True
) -> Path:
    """Return the base of a checkpoint's adapters; its files are compared with its manifest.

    `config` is the model of the checkpoint, where that says it, `sha256` what it says of the base's
    weights.  Without `checked` the files' content is not looked at.

    Raises:
        CheckpointError: it is missing, damaged, or another model.
    """
    base = find_base(checkpoint)
    if base is None:
        run = checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None
        place = f"the folder {BASE} of their run" if run is None else str(run / BASE)
        raise CheckpointError(
            f"{checkpoint} holds adapters, and the model that they belong to is missing ({place})",
            advice=f"Name the run that trained them, or copy its folder {BASE} beside them.",
        )
    fault = verify(base, to_go_on=False) if checked else None
    if fault is not None:
        raise CheckpointError(
            f"the model of the adapters in {checkpoint} is damaged: {base}/{fault}",
            advice=PERMISSIONS
            if fault.denied
            else f"Copy the folder {BASE} again from where it is whole.",
        )
    try:
        found = base_sha256(base.parent)
    except (OSError, ValueError):
        found = ""
    if not found or found != sha256 or config not in (None, read_config(base)):
        raise CheckpointError(
            f"{base} is another model than the one that the adapters in {checkpoint} belong to",
            advice=f"Copy the folder {BASE} of their own run to its place.",
        )
    return base
