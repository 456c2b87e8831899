"""Checkpoints with names: links beside them, by which they are found and kept from pruning.

    RUN/checkpoints/before-change -> step-00000120

As with the pointers (see `pointers`), what copies a run makes other things of them, and all of
these are read: a link, a small file that holds the name of the checkpoint, a folder that is a whole
copy.  A name is 1 to 64 letters, digits and signs - _ . and looks like nothing else in a run: it
begins with a letter or a digit, is no number, no "step-…", and not "latest" or "best".
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from crystalline.atomic import sync_directory, temporary_beside, write_text
from crystalline.errors import SaveError, UsageError
from crystalline.formats.files import CHECKPOINTS, step_of
from crystalline.formats.pointers import POINTERS, meant_by

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MOST_NAMES = 1000  # that are looked at: a folder may hold anything


def named_checkpoints(run_dir: Path) -> dict[str, Path]:
    """Return what the names of a run mean, by name in order; those that mean nothing are left out.

    A folder means the checkpoint that it is a copy of, where that is there, or else itself.
    """
    try:
        names = sorted(
            entry.name for entry in os.scandir(run_dir / CHECKPOINTS) if _is_name(entry.name)
        )
    except OSError:
        return {}
    found = {name: meant_by(run_dir, run_dir / CHECKPOINTS / name) for name in names[:_MOST_NAMES]}
    return {name: place for name, place in found.items() if place is not None}


def require_name(run_dir: Path, name: str, checkpoint_step: int | None = None) -> None:
    """Raise `UsageError` for a name that no checkpoint of a run can be given now.

    One that the checkpoint of `checkpoint_step` has already may be given to it again.
    """
    if not _is_name(name):
        raise UsageError(
            f"a checkpoint cannot be named '{name}'",
            advice="A name has 1 to 64 letters, digits and signs - _ . and begins with a letter; "
            "latest, best, step-… and numbers mean checkpoints already.",
        )
    taken = named_checkpoints(run_dir).get(name)
    if taken is not None and taken.name.startswith("step-") and step_of(taken) == checkpoint_step:
        return
    if os.path.lexists(run_dir / CHECKPOINTS / name):
        whose = "" if taken is None else f" by {taken.name}"
        raise UsageError(f"the name {name} is taken{whose}", advice="Choose another.")


def name_checkpoint(run_dir: Path, name: str, checkpoint: Path) -> None:
    """Give a checkpoint of a run a name.

    Raises:
        UsageError: the name cannot be, or is taken.
        SaveError: it cannot be written.
    """
    require_name(run_dir, name, step_of(checkpoint))
    place = run_dir / CHECKPOINTS / name
    temporary = temporary_beside(place)
    try:
        try:
            temporary.symlink_to(checkpoint.name)
        except OSError:  # the file system has no links, or refuses any file, as the next line says
            write_text(place, f"{checkpoint.name}\n")
            return
        os.replace(temporary, place)
        sync_directory(place.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SaveError(
            f"the checkpoint {checkpoint} cannot be named {name} ({error.strerror})",
            advice="The checkpoint itself is whole.",
        ) from error


def _is_name(name: str) -> bool:
    if name in POINTERS or name.isdecimal() or name.startswith("step-"):
        return False
    return _NAME.fullmatch(name) is not None
