"""The checkpoints of a run: listed, ordered, picked and pruned; `latest` and `best` among them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path

from crystalline.atomic import sync_directory
from crystalline.errors import CheckpointError
from crystalline.formats.files import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LATEST,
    MANIFEST,
    STEP_NAME,
    step_of,
)
from crystalline.formats.manifest import verify

ASIDE = ".old.tmp"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, lowest step first."""
    folder = run_dir / CHECKPOINTS
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if (match := STEP_NAME.fullmatch(entry.name)) and (entry / MANIFEST).is_file()
    ]
    return [entry for _, entry in sorted(found)]


def resolve(path: Path, which: str | None = None) -> Path:
    """Return the checkpoint directory that `path` means.

    `path` is a checkpoint (or a model folder), which is returned as it is, or a run
    directory; then `which` picks: "latest", "best", a name such as "step-00000500" or
    a number of steps.  By default the best one, or the latest where none was evaluated.

    Raises:
        CheckpointError: there is no such run or checkpoint.
    """
    require_directory(path)
    if (path / CONFIG).is_file():
        return path.resolve() if path.is_symlink() else path
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(
            f"{path} holds no checkpoint", advice="Give a run directory, or a model folder."
        )
    if which is None:
        return pointer(path, BEST) or _latest(path, checkpoints)
    if which == LATEST:
        return _latest(path, checkpoints)
    name = f"step-{int(which):08d}" if which.isascii() and which.isdigit() else which
    found = (
        pointer(path, BEST)
        if which == BEST
        else next((entry for entry in checkpoints if entry.name == name), None)
    )
    if found is None:
        steps = ", ".join(str(step_of(entry)) for entry in checkpoints)
        raise CheckpointError(
            f"{path} has no checkpoint '{which}'", advice=f"It has those of steps {steps}."
        )
    return found


def tidy(run_dir: Path) -> None:
    """Clear up after a save that was killed; only for the process that owns the run.

    A checkpoint that had stepped aside for its successor goes back to its place.
    Raises `OSError`.
    """
    folder = run_dir / CHECKPOINTS
    for aside in folder.glob(f".step-*{ASIDE}"):
        target = folder / aside.name[1:].partition(".")[0]
        if not target.exists():
            aside.rename(target)
    for entry in folder.glob(".step-*.tmp"):
        shutil.rmtree(entry)


def set_pointer(run_dir: Path, name: str, checkpoint: Path) -> None:
    """Point `run_dir/name` ("latest" or "best") to a checkpoint of that run, atomically.

    Raises `OSError`.
    """
    temporary = run_dir / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary.symlink_to(Path(CHECKPOINTS, checkpoint.name))
    try:
        os.replace(temporary, run_dir / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(run_dir)


def pointer(run_dir: Path, name: str) -> Path | None:
    """Return the complete checkpoint that `run_dir/name` points to, or None."""
    link = run_dir / name
    if not link.is_symlink():
        return None
    target = run_dir / CHECKPOINTS / link.readlink().name
    return target if (target / MANIFEST).is_file() else None


def prune(run_dir: Path, keep: int, protect: Collection[Path] = ()) -> list[Path]:
    """Remove all checkpoints but the `keep` saved last, the latest, the best and `protect`.

    Returns what was removed.  Raises `OSError`.
    """
    kept = {entry.name for entry in protect}
    kept |= {found.name for name in (LATEST, BEST) if (found := pointer(run_dir, name))}
    newest_first = sorted(list_checkpoints(run_dir), key=saved_at, reverse=True)
    removed = []
    for entry in newest_first[keep:]:
        if entry.name not in kept:
            # Renamed first: a half-removed directory must not look like a checkpoint.
            doomed = entry.with_name(f".{entry.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            entry.rename(doomed)
            shutil.rmtree(doomed)
            removed.append(entry)
    return removed


def other_checkpoint(damaged: Path) -> str:
    """Return the advice that names the newest undamaged checkpoint beside a damaged one."""
    here = damaged.resolve()
    if here.parent.name != CHECKPOINTS:
        return "Get the folder again from where it came."
    shown = damaged.parent if damaged.parent.name == CHECKPOINTS else here.parent
    others = [entry for entry in list_checkpoints(here.parent.parent) if entry.name != here.name]
    for entry in sorted(others, key=saved_at, reverse=True):
        if verify(entry) is None:
            return (
                f"The checkpoint of step {step_of(entry):,} is undamaged: "
                f"go on with --resume {shown / entry.name}."
            )
    return "The run has no undamaged checkpoint; start a new one."


def require_directory(path: Path) -> None:
    """Raise `CheckpointError` unless `path` is a directory."""
    if not path.exists():
        raise CheckpointError(
            f"there is no run or checkpoint at {path}", advice="Check the path for a typing error."
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a file",
            advice="Give the run directory, or the directory of one checkpoint.",
        )


def _latest(run_dir: Path, checkpoints: list[Path]) -> Path:
    """Return where `latest` points; a save cut off just before that is found by its time."""
    return pointer(run_dir, LATEST) or max(checkpoints, key=saved_at)


def saved_at(checkpoint: Path) -> tuple[float, int]:
    """Return the time of saving, by which a run that went back sorts rightly, and the step."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        return float(manifest["saved_at"]), step_of(checkpoint)
    except (OSError, ValueError, KeyError, TypeError):  # damaged: the oldest of all
        return 0.0, step_of(checkpoint)
