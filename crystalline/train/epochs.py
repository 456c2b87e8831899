"""Where a run's passes over its training split end: a pure function of the step.

Windows are drawn anew in every step, so a pass is as many tokens as the split has, not each once.
"""

from __future__ import annotations

from crystalline.ipc.positions import POSITIONS


def epochs_done(step: int, tokens_per_step: int, tokens_per_epoch: int) -> int:
    """Return how many passes are over after `step` steps.

    >>> [epochs_done(step, 30, 100) for step in range(8)]
    [0, 0, 0, 0, 1, 1, 1, 2]
    """
    return step * tokens_per_step // tokens_per_epoch if tokens_per_epoch else 0


def first_step(epoch: int, tokens_per_step: int, tokens_per_epoch: int) -> int:
    """Return how many steps end before or with the end of the pass before pass number `epoch`.

    >>> [first_step(epoch, 30, 100) for epoch in (1, 2, 3)]
    [0, 4, 7]
    """
    return -(-(epoch - 1) * tokens_per_epoch // tokens_per_step)


def lanes_by_position(lanes: int, first: int, last: int) -> list[int]:
    """Return how many lanes of each symmetry position the steps from one on up to another have.

    >>> lanes_by_position(14, 10, 15)
    [10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
    """
    return [
        (last - first) * len(range(position, lanes, POSITIONS)) for position in range(POSITIONS)
    ]


def ends_epochs(step: int, count: int, tokens_per_step: int, tokens_per_epoch: int) -> bool:
    """Return whether a `count`-th pass ends with step number `step`.

    >>> [step for step in range(1, 15) if ends_epochs(step, 2, 30, 100)]
    [7, 14]
    """
    before, after = (
        epochs_done(number, tokens_per_step, tokens_per_epoch) // count
        for number in (step - 1, step)
    )
    return after > before
