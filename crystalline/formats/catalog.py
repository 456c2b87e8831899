"""The checkpoints of a run: listed, put in order, picked and pruned.

Which of them is newest is counted, not timed: every manifest says which save of the run
it is, and a run that went back to an earlier step goes on counting.  What it left behind
then shows: it has a higher step than something that was saved later.  Clocks are set back;
counts are not.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from crystalline.atomic import is_temporary, remove, temporary_beside
from crystalline.errors import CheckpointError
from crystalline.faults import point
from crystalline.formats.files import (
    ADAPTER_CONFIG,
    BEST,
    CHECKPOINTS,
    CONFIG,
    LATEST,
    MANIFEST,
    RUNS,
    SETTINGS,
    STEP_NAME,
    is_there,
    step_name,
    step_of,
)
from crystalline.formats.kept import named_checkpoints
from crystalline.formats.manifest import read_manifest, verify
from crystalline.formats.pointers import ASIDE, POINTERS, pointer
from crystalline.log import get_logger
from crystalline.untrusted import open_regular, real_directory

PERMISSIONS = "Check its permissions."

_TICK_S = 0.001  # between two saves of which the clock says that the second was first

_log = get_logger("formats")


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, lowest step first.

    Raises `CheckpointError` when they are there and we may not look.
    """
    folder = run_dir / CHECKPOINTS
    try:
        found = [
            (int(match[1]), entry)
            for entry in folder.iterdir()
            if (match := STEP_NAME.fullmatch(entry.name)) and is_there(entry / MANIFEST)
        ]
    except PermissionError as error:
        raise unreadable(folder, error) from None
    except OSError:
        return []
    return [entry for _, entry in sorted(found)]


def newest_first(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run: those that led to the last save, and then those
    of branches that the run left by going back; in each part the one saved last first.

    Older versions did not count their saves.  What they wrote comes after all that is counted,
    by step; what lies beyond `latest` is taken for a branch that was left.
    """
    latest = pointer(run_dir, LATEST)
    reached = step_of(latest) if latest and STEP_NAME.fullmatch(latest.name) else math.inf

    def order(checkpoint: Path) -> tuple[int, bool, int]:
        step = step_of(checkpoint)
        return _save_number(checkpoint), step <= reached, step

    lowest: float = math.inf  # step of what was saved later
    on_the_way: list[Path] = []
    left: list[Path] = []
    for checkpoint in sorted(list_checkpoints(run_dir), key=order, reverse=True):
        (on_the_way if step_of(checkpoint) < lowest else left).append(checkpoint)
        lowest = min(lowest, step_of(checkpoint))
    return on_the_way + left


def all_checkpoints(run_dir: Path) -> list[Path]:
    """Return what `newest_first` does, and then what else the pointers mean."""
    found = newest_first(run_dir)
    return found + [
        other
        for name in POINTERS
        if (other := pointer(run_dir, name)) is not None and other not in found
    ]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """Return where the run is: what `latest` means, else the checkpoint saved last."""
    found = pointer(run_dir, LATEST)
    return found or next(iter(all_checkpoints(run_dir)), None)


def resolve(path: Path, which: str | None = None) -> Path:
    """Return the checkpoint directory that `path` means.

    `path` is a checkpoint (or a model folder), which is returned as it is, or a run
    directory; then `which` picks: "latest", "best", a name such as "step-00000500" or one that
    it was given, or a number of steps.  By default the best one, or the latest where none was
    evaluated.

    Raises:
        CheckpointError: there is no such run or checkpoint.
    """
    if path.name in POINTERS and (meant := pointer(path.parent, path.name)):
        return meant
    require_directory(path)
    if is_there(path / CONFIG) or is_there(path / ADAPTER_CONFIG):
        # What else a checkpoint belongs to lies in its run, also where it is itself elsewhere.
        is_pointer = path.is_symlink() and not STEP_NAME.fullmatch(path.name)
        return path.resolve() if is_pointer else path
    checkpoints = all_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(
            f"{path} holds no checkpoint", advice="Give a run directory, or a model folder."
        )
    if which is None:
        return pointer(path, BEST) or _instead_of_best(path)
    if which == LATEST:
        return pointer(path, LATEST) or checkpoints[0]
    is_step = which.isascii() and which.isdigit() and len(which) < 20
    name = step_name(int(which)) if is_step else which
    named = named_checkpoints(path)
    found = (
        pointer(path, BEST)
        if which == BEST
        else next(
            (entry for entry in checkpoints if step_name(checkpoint_step(entry)) == name), None
        )
    )
    found = found or named.get(which)
    if found is None:
        steps = ", ".join(map(str, sorted({checkpoint_step(entry) for entry in checkpoints})))
        names = f", and those named {', '.join(named)}" if named else ""
        raise CheckpointError(
            f"{path} has no checkpoint '{which}'", advice=f"It has those of steps {steps}{names}."
        )
    return found


def require_directory(path: Path) -> None:
    """Raise `CheckpointError` unless `path` is a directory that we may look into."""
    try:
        path.stat()
        if path.is_dir():
            os.stat(os.path.join(path, "."))  # noqa: PTH116, PTH118 (pathlib drops the dot)
            return
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (OSError, ValueError):
        raise CheckpointError(
            f"there is no run or checkpoint at {path}", advice="Check the path for a typing error."
        ) from None
    if path.name in POINTERS:
        raise CheckpointError(
            f"{path} points to no checkpoint", advice=f"Give the run directory {path.parent}."
        )
    raise CheckpointError(
        f"{path} is a file",
        advice="Give the run directory, or the directory of one checkpoint.",
    )


def require_readable(path: Path) -> None:
    """Raise `CheckpointError` for a file that we may not read; others are left to its reader."""
    try:
        open_regular(path).close()
    except PermissionError as error:
        raise unreadable(path, error) from None
    except OSError:
        pass


def locate(path: Path) -> tuple[Path, str] | None:
    """Return the run that a checkpoint, or a pointer, lies in and its name there; None outside.

    The run is named as the path is.
    """
    try:
        places = (path, Path(os.path.abspath(path)), path.resolve())  # noqa: PTH100
    except (OSError, ValueError, RuntimeError):  # no name that a file can have, a link to itself
        return None
    for place in places:
        if place.parent.name == CHECKPOINTS:
            return place.parent.parent, place.name
        run_dir = place.parent
        if place.name in POINTERS and any(is_there(run_dir / n) for n in (CHECKPOINTS, SETTINGS)):
            return run_dir, place.name
    return None


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return the error for what we may not read: not known to be damaged."""
    return CheckpointError(f"{path} cannot be read ({error.strerror})", advice=PERMISSIONS)


def damage(checkpoint: Path, message: str) -> CheckpointError:
    """Return the error for a checkpoint that is damaged, with another one of the run, if any."""
    found = locate(checkpoint)
    if found is None:
        return CheckpointError(message, advice="Get the folder again from where it came.")
    here = checkpoint.resolve()
    for entry in all_checkpoints(found[0]):
        if entry.resolve() != here and verify(entry) is None:
            advice = f"The checkpoint of step {checkpoint_step(entry):,} is undamaged: {entry}."
            return CheckpointError(message, advice=advice, undamaged=entry)
    return CheckpointError(message, advice="The run has no undamaged checkpoint.")


def stamp(run_dir: Path) -> dict[str, Any]:
    """Return what tells when a checkpoint that is going to be written was saved.

    `save` counts the saves of the run.  `saved_at` is the time, in seconds since 1970; but
    where the clock was set back it is a little later than all earlier saves of this run, and
    of the others below `runs`, so that among these it still tells which came last.
    """
    manifests = [_manifest(entry) for entry in list_checkpoints(run_dir)]
    count = max((_whole(m.get("save")) for m in manifests), default=0)
    if run_dir.parent.name == RUNS.name:
        with contextlib.suppress(OSError):
            manifests += [
                _manifest(found)
                for other in run_dir.parent.iterdir()
                if (found := pointer(other, LATEST)) is not None
            ]
    earlier = max((_seconds(m) for m in manifests), default=0.0)
    return {"save": count + 1, "saved_at": max(time.time(), earlier + _TICK_S)}


def saved_at(checkpoint: Path) -> float:
    """Return the `saved_at` of a manifest; 0 where it does not tell."""
    return _seconds(_manifest(checkpoint))


def tidy(run_dir: Path) -> None:
    """Clear up after a save that was killed; only for the process that owns the run.

    A checkpoint that had stepped aside for its successor goes back to its place.
    Raises `OSError`.
    """
    folder = run_dir / CHECKPOINTS
    if not real_directory(folder):
        return
    for aside in folder.glob(f".step-*{ASIDE}"):
        name = aside.name[1:].partition(".")[0]
        if not STEP_NAME.fullmatch(name):
            continue
        if os.path.lexists(folder / name):
            remove(aside)
        else:
            aside.rename(folder / name)
    for entry in folder.iterdir():
        if is_temporary(entry):  # whoever wrote it has lost the lock
            remove(entry)


def prune(run_dir: Path, keep: int, protect: Collection[Path] = ()) -> list[Path]:
    """Remove all checkpoints but the `keep` newest, the latest, the best, named ones and `protect`.

    Returns what was removed.  Raises `OSError`.
    """
    kept = {entry.name for entry in protect}
    kept |= {found.name for name in POINTERS if (found := pointer(run_dir, name))}
    kept |= {found.name for found in named_checkpoints(run_dir).values()}
    removed = []
    for entry in newest_first(run_dir)[keep:]:
        if entry.name in kept:
            continue
        if entry.is_symlink():  # to a disk with more room: what it leads to is not ours
            entry.unlink()
        else:
            # Renamed first: a half-removed directory must not look like a checkpoint.
            doomed = temporary_beside(entry)
            point("prune.rename")
            entry.rename(doomed)
            point("prune.remove")
            shutil.rmtree(doomed)
        removed.append(entry)
    return removed


def _instead_of_best(run_dir: Path) -> Path:
    """Return the latest checkpoint; that `best` is there and means nothing is told."""
    found = latest_checkpoint(run_dir)
    assert found is not None
    if os.path.lexists(run_dir / BEST):
        _log.warning("%s points to no checkpoint; %s is taken.", run_dir / BEST, found)
    return found


def checkpoint_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint, which may be a folder `best`."""
    if STEP_NAME.fullmatch(checkpoint.name):
        return step_of(checkpoint)
    return _whole(_manifest(checkpoint).get("step"))


def _save_number(checkpoint: Path) -> int:
    return _whole(_manifest(checkpoint).get("save"))


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """Return a manifest; an empty one where it is damaged or may not be read."""
    try:
        return read_manifest(checkpoint)
    except (OSError, ValueError):
        return {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _seconds(manifest: dict[str, Any]) -> float:
    value = manifest.get("saved_at")
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
