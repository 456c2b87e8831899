"""How far a run has come: its steps, and what they become when the run gets longer or shorter.

A plan is a list of pieces "from step s on, the run has N steps in all":

    0:660                  660 steps, as planned at the start
    0:660,120:580          after step 120 the end was moved to step 580

Progress r goes from 0 to 1.  Within a piece it is linear in the steps, and where the next
begins it is where the last one has brought it:

    r = r0 + (1 - r0) * (step - s) / (N - s)

so whatever follows r (learning rate, epsilon of the crystalline loss) never jumps, and is
through with its schedule at the last step, however often the end was moved.  Behind the end r
stays 1.  A run that comes to its end and is made longer therefore goes on at r = 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from crystalline.errors import UsageError
from crystalline.untrusted import shown

_PIECE = re.compile(r"(\d{1,15}):(\d{1,15})", re.ASCII)


@dataclass(frozen=True)
class Plan:
    """The pieces of a run, each as (first step, steps of the whole run as planned there)."""

    pieces: tuple[tuple[int, int], ...]

    @classmethod
    def of_steps(cls, max_steps: int) -> Plan:
        """Return the plan of a run whose end was never moved."""
        return cls(((0, max_steps),))

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Return the plan that `str` wrote.

        >>> Plan.parse("0:660, 120:580").pieces
        ((0, 660), (120, 580))

        Raises:
            UsageError: it is no plan.
        """
        advice = "A plan is made of pieces FROM_STEP:STEPS_IN_ALL, such as 0:660,120:580."
        found = [_PIECE.fullmatch(part.strip()) for part in text.split(",")]
        pieces = tuple((int(m[1]), int(m[2])) for m in found if m)
        if len(pieces) < len(found):
            raise UsageError(f"--plan is '{shown(text)}'", advice=advice)
        if pieces[0][0] != 0 or pieces[0][1] < 1:
            raise UsageError(
                f"--plan begins with {pieces[0][0]}:{pieces[0][1]}",
                advice="Its first piece begins at step 0 and has at least one step.",
            )
        for (first, last), (following, end) in pairwise(pieces):
            if not first < following <= min(last, end):
                raise UsageError(
                    f"--plan has the piece {following}:{end} after {first}:{last}",
                    advice="A piece begins after the one before it and no later than that ends, "
                    "and it does not end before it begins.",
                )
        return cls(pieces)

    def __str__(self) -> str:
        return ",".join(f"{first}:{last}" for first, last in self.pieces)

    @property
    def max_steps(self) -> int:
        """Steps of the whole run, as planned last."""
        return self.pieces[-1][1]

    @property
    def length(self) -> int:
        """Steps of the run as first planned: the scale of `place`."""
        return self.pieces[0][1]

    def moved(self, step: int, max_steps: int) -> Plan:
        """Return the plan whose end is moved to `max_steps` after `step` finished steps.

        >>> str(Plan.of_steps(660).moved(120, 580))
        '0:660,120:580'
        >>> str(Plan.of_steps(660).moved(0, 580))
        '0:580'
        """
        if max_steps == self.max_steps:
            return self
        kept = tuple(piece for piece in self.pieces if piece[0] < step)
        return Plan((*kept, (step, max_steps)))

    def place(self, step: int) -> float:
        """Return the step of the run as first planned that is as far along as `step` is.

        r is `place(step) / length`; in the first piece it is `step` itself, and no rounding.

        >>> plan = Plan.parse("0:100,50:75")
        >>> [plan.place(step) for step in (49, 50, 60, 75, 80)]
        [49, 50.0, 70.0, 100.0, 100.0]
        """
        if len(self.pieces) == 1 or step < self.pieces[1][0]:
            return step
        length = self.length
        place: float = 0
        for (first, last), following in zip(self.pieces, (*self.pieces[1:], None), strict=True):
            until = step if following is None else min(step, following[0])
            if until >= last:
                place = length
            elif until > first:
                place = length - (length - place) * ((last - until) / (last - first))
            if until == step:
                break
        return float(place)


def stored_plan(config: Mapping[str, Any]) -> Plan:
    """Return the plan of the settings that a checkpoint keeps.

    >>> str(stored_plan({"plan": None, "max_steps": 660}))
    '0:660'
    """
    if config["plan"] is not None:
        return Plan.parse(config["plan"])
    return Plan.of_steps(config["max_steps"])
