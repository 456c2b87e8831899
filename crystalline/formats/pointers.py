"""`latest` and `best`: names in a run directory that mean one of its checkpoints.

We write them as relative links.  What copies a run makes other things of them, and
all of these are read:

    a link         relative, absolute, or to a run somewhere else
    a folder       a whole copy of the checkpoint (scp -r, cp -L, zip, downloads)
    a small file   that holds the relative path (git and zip on some systems; we too,
                   where the file system has no links)

The checkpoint of that name in the run's own `checkpoints/` is meant wherever there is
one, so a copied run does not go on in the run it was copied from.  When a run is opened
for training, its pointers become relative links again; a folder is removed only when
the checkpoint it is a copy of is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from pathlib import Path

from crystalline.atomic import sync_directory, temporary_beside, write_text
from crystalline.faults import point
from crystalline.formats.files import (
    BEST,
    CHECKPOINTS,
    LATEST,
    MANIFEST,
    STEP_NAME,
    is_there,
    step_name,
)
from crystalline.formats.manifest import read_manifest, verify
from crystalline.log import get_logger
from crystalline.untrusted.files import MANIFEST as MANIFEST_FILE
from crystalline.untrusted.files import POINTER

POINTERS = (LATEST, BEST)
ASIDE = ".old.tmp"  # ends the name of a checkpoint that steps aside for its successor

_log = get_logger("formats")


def pointer(run_dir: Path, name: str) -> Path | None:
    """Return the checkpoint that `run_dir/name` means, or None where it means none."""
    return meant_by(run_dir, run_dir / name)


def meant_by(run_dir: Path, place: Path) -> Path | None:
    """Return the checkpoint that a link, a folder or a small file of a run means, if any."""
    try:
        mode = place.lstat().st_mode
        if stat.S_ISDIR(mode):
            return _meant_by_folder(run_dir, place)
        if stat.S_ISLNK(mode):
            return _meant_by_text(run_dir, str(place.readlink()))
        if stat.S_ISREG(mode):
            text = os.fsdecode(POINTER.read_bytes(place)).strip()
            return _meant_by_text(run_dir, text)
    except (OSError, ValueError):
        pass
    return None


def set_pointer(run_dir: Path, name: str, checkpoint: Path) -> None:
    """Point `run_dir/name` ("latest" or "best") to a checkpoint of that run, atomically.

    A folder in its place is kept under another name, unless it is but a copy.
    Raises `OSError`.
    """
    place = run_dir / name
    _remove_empty(place)
    if _is_folder(place) and not _dissolve(run_dir, place):
        kept = _free_name(place)
        place.rename(kept)
        _log.warning("The folder %s is no copy of a checkpoint here; it is now %s.", place, kept)
    target = f"{CHECKPOINTS}/{checkpoint.name}"
    temporary = temporary_beside(place)
    try:
        point("pointer.link")
        temporary.symlink_to(target)
    except OSError:  # the file system has no links, or refuses any file, as the next line says
        write_text(place, f"{target}\n")
        return
    try:
        point("pointer.replace")
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(run_dir)


def restore_pointers(run_dir: Path) -> None:
    """Make relative links of what copying made of the pointers; for the owner of the run.

    What cannot be changed is told, and stays as readable as it was.
    """
    for name in POINTERS:
        place = run_dir / name
        try:
            _remove_empty(place)
            # A folder that is no copy stays until the pointer moves on.
            found = _dissolve(run_dir, place) if _is_folder(place) else pointer(run_dir, name)
            if found is None or found.parent != run_dir / CHECKPOINTS:
                continue
            if not place.is_symlink() or str(place.readlink()) != f"{CHECKPOINTS}/{found.name}":
                set_pointer(run_dir, name, found)
        except OSError as error:
            warn_of_pointer(run_dir, name, error)


def move_pointer(run_dir: Path, name: str, checkpoint: Path) -> None:
    """Do what `set_pointer` does; a pointer that cannot move is told, and nothing is lost."""
    try:
        set_pointer(run_dir, name, checkpoint)
    except OSError as error:
        warn_of_pointer(run_dir, name, error)


def warn_of_pointer(run_dir: Path, name: str, error: OSError) -> None:
    """Tell that a pointer stays where it is."""
    reason = error.strerror or str(error)
    _log.warning("%s cannot be changed (%s) and may point to another step.", run_dir / name, reason)


def replace_directory(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an old `target` steps aside and is then removed."""
    if not os.path.lexists(target):
        source.rename(target)
        return
    temporary = temporary_beside(target)
    aside = temporary.with_name(temporary.name.removesuffix(".tmp") + ASIDE)
    target.rename(aside)
    try:
        point("checkpoint.aside")
        source.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    point("checkpoint.replaced")
    if aside.is_symlink():
        aside.unlink()
    else:
        shutil.rmtree(aside)


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _remove_empty(place: Path) -> None:
    """Remove what some zip programs make of a link to a folder: an empty one."""
    if _is_folder(place):
        with contextlib.suppress(OSError):  # it is not empty
            place.rmdir()


def _meant_by_text(run_dir: Path, text: str) -> Path | None:
    name = re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    if found := _own(run_dir, name):
        return found
    place = run_dir / text
    if not name or not is_there(place / MANIFEST):
        return None
    real = Path(os.path.realpath(place))  # through further links: best -> latest
    return _own(run_dir, real.name) or place


def _own(run_dir: Path, name: str) -> Path | None:
    found = run_dir / CHECKPOINTS / name
    return found if STEP_NAME.fullmatch(name) and is_there(found / MANIFEST) else None


def _meant_by_folder(run_dir: Path, folder: Path) -> Path | None:
    """Return the checkpoint that a folder is a copy of, or else itself, if it is one."""
    if not is_there(folder / MANIFEST):
        return None
    own = _original(run_dir, folder)
    return own if own is not None and _same_manifest(own, folder) else folder


def _original(run_dir: Path, folder: Path) -> Path | None:
    """Return where the checkpoint that a folder is a copy of lies, or would lie."""
    try:
        step = read_manifest(folder).get("step")
    except (OSError, ValueError):
        return None
    return run_dir / CHECKPOINTS / step_name(step) if isinstance(step, int) else None


def _same_manifest(one: Path, other: Path) -> bool:
    try:
        contents = [MANIFEST_FILE.read_bytes(folder / MANIFEST) for folder in (one, other)]
    except OSError:
        return False
    return contents[0] == contents[1]


def _dissolve(run_dir: Path, folder: Path) -> Path | None:
    """Remove a folder that stands for a pointer, and return the checkpoint that it was a copy of.

    It takes the place of that checkpoint where it is missing or damaged.  Where something
    would be lost, the folder stays, and None is returned.  Raises `OSError`.
    """
    own = _original(run_dir, folder)
    if own is None:
        return None
    if not os.path.lexists(own):
        own.parent.mkdir(exist_ok=True)
        folder.rename(own)
        sync_directory(own.parent)
        return own
    if not _same_manifest(own, folder) or not _holds_nothing_else(folder) or verify(folder):
        return None
    fault = verify(own)
    if fault is not None and fault.denied:
        return None
    if fault is not None:
        replace_directory(folder, own)
        sync_directory(own.parent)
        return own
    doomed = temporary_beside(folder)  # a half-removed folder must not look like a checkpoint
    folder.rename(doomed)
    shutil.rmtree(doomed)
    return own


def _holds_nothing_else(folder: Path) -> bool:
    """Return whether a folder has the files of its manifest and no others."""
    return {entry.name for entry in folder.iterdir()} <= {MANIFEST, *read_manifest(folder)["files"]}


def _free_name(place: Path) -> Path:
    number = 1
    while os.path.lexists(found := place.with_name(f"{place.name}-kept-{number}")):
        number += 1
    return found
