"""How far a run has come, as a checkpoint keeps it: checked before a run goes on from there."""

from __future__ import annotations

from typing import Any

from crystalline.untrusted import BadContent
from crystalline.untrusted.files import PROGRESS


def checked_progress(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a training run, whose fields are as they can be.

    Raises `BadContent` for a field of another type or range, and for steps that cannot have
    happened before the step of the checkpoint.

    >>> try:
    ...     checked_progress({"step": -1})
    ... except BadContent as error:
    ...     print(error)
    'step' is -1, it must be a whole number of 0 to 1,000,000,000,000
    """
    found = PROGRESS.check(state)
    step = found["step"]
    for name in ("evaluated_step", "dropped_steps"):
        if found[name] > step:
            raise BadContent(f"'{name}' is {found[name]:,}, of a run of {step:,} steps")
    dropped = found["recently_dropped"]
    if dropped != sorted(set(dropped)) or (dropped and not 0 < dropped[0] <= dropped[-1] <= step):
        raise BadContent(f"'recently_dropped' are no steps of the {step:,} that were done")
    return found
