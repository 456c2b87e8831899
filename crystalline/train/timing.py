"""How many steps a run of --minutes has: planned from measured time, again and again, to its end.

The time is the run's own (`engine.clock`): from the start of training to the end of the last
evaluation and save, pauses left out.  The aim is to have done all that at `AIM` of it.  What
is still to come is foretold from what was measured:

    steps         the mean of those in the last quarter of the time that is left, so that a
                  change of speed is noticed early enough however late it comes
    evaluations   the newest one, in steps: where steps take longer, so do evaluations
    saves, root discoveries   the newest one, in seconds

The end is moved when the foretold one is off by more than a share of the time that is left
(`TOLERANCE`, or `FINE` of the whole time), and not again before a tenth of what was left then
is over.  So there are few pieces, at most `MOST_PIECES` in a session.  Behind the planned end
a run goes on where too much time is left, and before it a run ends that has no time for
another step.

Pure: it reads no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from crystalline.train.plan import Plan

AIM = 0.975  # of the time: where a run is to end
LEAST, MOST = 0.957, 0.993  # where it may end as well, if that is what is foretold
TOLERANCE = 0.06  # of the time left
FINE = 0.012  # of the time
GAP = 0.1  # of the time that was left when the end was moved: so long it stays
WINDOW = 0.25  # of the time left: the steps in it make the mean
EVERY = 0.001  # of the time: the shortest distance of two readings that are kept
SPIKE = 4.0  # mean steps: what a step takes more than that is counted once, and not foretold
FIRST_LOOK = 0.01  # of the time: steps before that are too few to go by
PROBE_FROM, PROBE_SHARE = 3, 0.01  # looks; of the time, for an evaluation not measured yet
LAST_STEPS = 3  # so near the end it may be moved after every step
MOST_PIECES = 64


@dataclass(frozen=True)
class Work:
    """What a run does beside its steps, and what that is thought to cost before it is measured."""

    eval_interval: int = 0  # steps between evaluations, 0: at the end only
    save_interval: int = 0
    discovery_interval: int = 0  # in steps
    evaluation_steps: float = 0.0  # an evaluation takes as long as so many steps; 0: there is none
    save_s: float = 0.0
    discovery_s: float = 0.0


class TimedPlan:
    """The plan of a run that has `budget_s` seconds, counted from now on."""

    def __init__(
        self,
        plan: Plan,
        budget_s: float,
        work: Work,
        *,
        step: int = 0,
        most_steps: int | None = None,
    ) -> None:
        """`step` steps are done; `most_steps` bounds the whole run however much time there is."""
        self.plan = plan
        if most_steps is not None and most_steps < plan.max_steps:
            self.plan = plan.moved(step, max(step, most_steps))
        self._budget_s = budget_s
        self._work = work
        self._first_step = step
        self._most_steps = most_steps
        self._evaluates = work.evaluation_steps > 0
        self._evaluation_steps = work.evaluation_steps
        self._measured = not self._evaluates  # what an evaluation takes
        self._save_s = self._last_save_s = work.save_s
        self._discovery_s = work.discovery_s
        self._evaluated_step = self._saved_step = step if step else -1
        self._other_s = 0.0  # spent so far on what is no step
        self._step_s = 0.0  # as of the newest look; 0: not known yet
        self._readings = deque([(step, 0.0)])  # steps, seconds spent on steps
        self._latest = (step, 0.0)  # the newest reading
        self._moved_s = 0.0  # when the end was moved last
        self._moves = 0
        self._looks = 0

    # What was measured.

    def evaluated(self, step: int, seconds: float) -> None:
        """Enter an evaluation after `step` steps."""
        self._other_s += seconds
        self._evaluated_step = step
        self._measured = True
        if self._step_s:
            self._evaluation_steps = seconds / self._step_s

    @property
    def wants_probe(self) -> bool:
        """Whether an evaluation is so dear that a part of one should be measured early."""
        if self._measured or self._looks < PROBE_FROM:
            return False
        return self._evaluation_steps * self._step_s > PROBE_SHARE * self._budget_s

    def probed(self, seconds: float, whole_s: float) -> None:
        """Enter that a part of an evaluation took `seconds`; a whole one will take `whole_s`."""
        self._other_s += seconds
        self._measured = True
        self._evaluation_steps = whole_s / self._step_s

    def saved(self, step: int, seconds: float, *, whole: bool = True) -> None:
        """Enter a save after `step` steps; `whole`: nothing of it is left to do while training.

        The last save of a run is whole, and what such a one takes is known from others alone.
        """
        self._other_s += seconds
        self._saved_step = step
        self._save_s = seconds
        if whole:
            self._last_save_s = seconds

    def discovered(self, seconds: float) -> None:
        """Enter a root discovery."""
        self._other_s += seconds
        self._discovery_s = seconds

    # What follows.

    def look(self, step: int, elapsed_s: float) -> bool:
        """Move the end if need be, `step` steps and `elapsed_s` seconds on; return whether it did.

        Where `plan.max_steps` is `step` after that, the run is over.
        """
        last, budget_s = self.plan.max_steps, self._budget_s
        self._looks += 1
        self._read(step, elapsed_s)
        if not self._step_s:
            return elapsed_s >= budget_s and self._move(step, step, elapsed_s)
        if step >= last:
            enough = self._end_s(step, step, elapsed_s) >= LEAST * budget_s
            if enough or self._moves >= MOST_PIECES - 2:
                return False
            return self._move(step, self._steps_in_time(step, elapsed_s), elapsed_s)
        if self._end_s(step, step + 1, elapsed_s) > budget_s:
            return self._move(step, step, elapsed_s)
        left_s = AIM * budget_s - elapsed_s
        rests = elapsed_s - self._moved_s < GAP * (AIM * budget_s - self._moved_s)
        rests = rests or self._moves >= MOST_PIECES - 2 * LAST_STEPS
        if elapsed_s < FIRST_LOOK * budget_s or (rests and last - step > LAST_STEPS):
            return False
        tolerance_s = max(FINE * budget_s, TOLERANCE * left_s)
        if abs(self._end_s(step, last, elapsed_s) - AIM * budget_s) <= tolerance_s:
            return False
        return self._move(step, self._steps_in_time(step, elapsed_s), elapsed_s)

    def _read(self, step: int, elapsed_s: float) -> None:
        """Take a reading, and find the mean step of the window."""
        taken, at_s = self._latest
        excess_s = elapsed_s - self._other_s - at_s - SPIKE * (step - taken) * self._step_s
        if self._step_s and excess_s > 0:  # somebody held up everything, once
            self._other_s += excess_s
        if elapsed_s - self._other_s < at_s:  # a suspension became known late
            self._other_s = elapsed_s - at_s
        spent_s = elapsed_s - self._other_s
        self._latest = (step, spent_s)
        readings = self._readings
        window_s = WINDOW * max(0.0, AIM * self._budget_s - elapsed_s)
        # The first step, which finds caches cold and pages untouched, counts while it is alone.
        while (
            len(readings) > 1
            and step - readings[1][0] >= 2
            and (readings[1][1] <= spent_s - window_s or readings[0][0] == self._first_step)
        ):
            readings.popleft()
        first, began_s = readings[0]
        if step > first:
            self._step_s = max(1e-9, (spent_s - began_s) / (step - first))
        if step > readings[-1][0] and spent_s - readings[-1][1] >= EVERY * self._budget_s:
            readings.append((step, spent_s))

    def _end_s(self, step: int, last: int, elapsed_s: float) -> float:
        """Return when a run of `last` steps is over, evaluated and saved."""
        work, evaluations = self._work, 0
        if self._evaluates:
            evaluations = _multiples(work.eval_interval, step, last)
            if work.eval_interval and not step % work.eval_interval:
                evaluations += self._evaluated_step != step and step > self._first_step
            if not work.eval_interval or last % work.eval_interval:
                evaluations += last > step or self._evaluated_step != step
        due = max(evaluations, _multiples(work.save_interval, step, last))
        due = max(due, last > step or self._saved_step != step)
        discoveries = _multiples(work.discovery_interval, step, last - 1)
        return (
            elapsed_s
            + (last - step + evaluations * self._evaluation_steps) * self._step_s
            + (due and (due - 1) * self._save_s + self._last_save_s)
            + discoveries * self._discovery_s
        )

    def _steps_in_time(self, step: int, elapsed_s: float) -> int:
        """Return the steps of the whole run with which it ends nearest to the aim."""
        low, high = step, step + 1
        aim_s, most_s = AIM * self._budget_s, MOST * self._budget_s
        while self._end_s(step, high, elapsed_s) <= aim_s:
            high = step + 2 * (high - step)
        while high - low > 1:  # the end of `low` steps is not behind the aim, that of `high` is
            middle = (low + high) // 2
            if self._end_s(step, middle, elapsed_s) <= aim_s:
                low = middle
            else:
                high = middle
        behind_s = self._end_s(step, high, elapsed_s)
        if behind_s <= most_s and behind_s - aim_s < aim_s - self._end_s(step, low, elapsed_s):
            low = high
        # Of few steps one more is much of what is left of the schedule.
        while low - step <= LAST_STEPS and self._end_s(step, low + 1, elapsed_s) <= most_s:
            low += 1
        return low if self._most_steps is None else max(step, min(low, self._most_steps))

    def _move(self, step: int, max_steps: int, elapsed_s: float) -> bool:
        if max_steps == self.plan.max_steps:
            return False
        self.plan = self.plan.moved(step, max_steps)
        self._moved_s = elapsed_s
        self._moves += 1
        return True


def _multiples(interval: int, after: int, until: int) -> int:
    """Return how many multiples of `interval` there are after one number and up to another.

    >>> _multiples(10, 10, 30), _multiples(10, 9, 30), _multiples(0, 0, 9)
    (2, 3, 0)
    """
    return max(0, until // interval - after // interval) if interval else 0
