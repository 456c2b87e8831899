"""The plan of a timed run on machines made up: slow, fast, changing, held up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crystalline.train.plan import Plan
from crystalline.train.timing import MOST_PIECES, TimedPlan, Work

BUDGET_S = 100.0


@dataclass
class Machine:
    """A run without an engine: its clock goes on by what its work takes at that moment."""

    step_s: float
    evaluation_steps: float = 0.0
    save_s: float = 0.05
    eval_interval: int = 0
    save_interval: int = 500
    first_guess: float = 1.0  # of the speed, over what it is at first
    evaluation_guess: float = 1.0
    most_steps: int | None = None
    slowness: Callable[[float], float] = lambda _: 1.0  # at a moment
    spikes: list[tuple[float, float]] = field(default_factory=list)  # (moment, seconds)
    now_s: float = 0.0
    probed: int = 0

    def work(self, seconds: float) -> float:
        began_s = self.now_s
        parts = 4
        for _ in range(parts):
            self.now_s += seconds / parts * self.slowness(self.now_s)
        while self.spikes and self.spikes[0][0] <= self.now_s:
            self.now_s += self.spikes.pop(0)[1]
        return self.now_s - began_s

    def run(self, budget_s: float = BUDGET_S) -> tuple[Plan, int]:
        planned = max(1, int(self.first_guess * budget_s / self.step_s))
        work = Work(
            eval_interval=self.eval_interval,
            save_interval=self.save_interval,
            evaluation_steps=self.evaluation_steps * self.evaluation_guess,
            save_s=0.05,
        )
        timing = TimedPlan(Plan.of_steps(planned), budget_s, work, most_steps=self.most_steps)
        step, saved, evaluated = 0, -1, -1
        while True:
            timing.look(step, self.now_s)
            if timing.wants_probe:
                self.probed += 1
                part_s = self.work(self.evaluation_steps * self.step_s / 20)
                timing.probed(part_s, 20 * part_s)
                timing.look(step, self.now_s)
            last = step >= timing.plan.max_steps
            due = step > 0 and self.eval_interval and not step % self.eval_interval
            saves = last or due or (step > 0 and not step % self.save_interval)
            if saves and saved != step:
                timing.saved(step, self.work(self.save_s))
                saved = step
            if self.evaluation_steps and (last or due) and evaluated != step:
                timing.evaluated(step, self.work(self.evaluation_steps * self.step_s))
                evaluated = step
            if last:
                timing.look(step, self.now_s)
                if step >= timing.plan.max_steps:
                    return timing.plan, step
                continue
            self.work(self.step_s)
            step += 1


def assert_well_spent(machine: Machine, plan: Plan, step: int) -> None:
    assert 0.95 * BUDGET_S <= machine.now_s <= BUDGET_S
    assert step == plan.max_steps
    assert len(plan.pieces) <= MOST_PIECES
    assert plan.place(step) == plan.length
    assert 1 - plan.place(step - 1) / plan.length < 0.1  # the last step is near the end


@settings(max_examples=60)
@given(
    step_s=st.floats(0.02, 0.25),
    factor=st.sampled_from([3.0, 1 / 3, 1.0]),
    at=st.floats(0.0, 0.97),
    guess=st.sampled_from([1.0, 3.0, 1 / 3]),
    interval=st.sampled_from([0, 10, 250]),
    evaluation=st.floats(0.0, 8.0),
    noise=st.sampled_from([0.0, 0.3]),
)
@example(0.05, 3.0, 0.95, 1.0, 250, 4.0, 0.0)
@example(0.05, 1 / 3, 0.96, 3.0, 0, 4.0, 0.0)
def test_a_threefold_change_of_speed(
    step_s: float,
    factor: float,
    at: float,
    guess: float,
    interval: int,
    evaluation: float,
    noise: float,
) -> None:
    draw = random.Random(1)
    machine = Machine(
        step_s,
        evaluation_steps=min(evaluation, 0.02 * BUDGET_S / step_s),
        eval_interval=interval,
        first_guess=guess,
        slowness=lambda now_s: (
            (factor if now_s > at * BUDGET_S else 1.0) * (1 + noise * draw.uniform(-1, 1))
        ),
    )
    assert_well_spent(machine, *machine.run())


@settings(max_examples=30)
@given(
    moments=st.lists(st.floats(1.0, 90.0), max_size=4),
    seconds=st.floats(0.1, 4.0),
)
def test_what_holds_everything_up_is_not_foretold(moments: list[float], seconds: float) -> None:
    machine = Machine(0.05, spikes=[(moment, seconds) for moment in sorted(moments)])
    plan, step = machine.run()
    assert_well_spent(machine, plan, step)
    assert len(plan.pieces) <= 3 + 4 * len(moments)


@pytest.mark.parametrize("guess", [0.3, 1.0, 3.0])
def test_a_dear_evaluation_is_measured_early(guess: float) -> None:
    """A tenth of the time, and not made before the end; the guess may be far off."""
    machine = Machine(0.1, evaluation_steps=100.0, evaluation_guess=guess)
    plan, step = machine.run()
    assert machine.probed == 1
    assert_well_spent(machine, plan, step)


def test_a_steady_machine_needs_few_pieces() -> None:
    machine = Machine(0.05, evaluation_steps=3.0, eval_interval=250, first_guess=0.97)
    plan, step = machine.run()
    assert_well_spent(machine, plan, step)
    assert len(plan.pieces) <= 2


def test_a_bound_on_steps_ends_it_early() -> None:
    machine = Machine(0.05, most_steps=300)
    plan, step = machine.run()
    assert step == plan.max_steps == 300
    slow = Machine(1.0, most_steps=300)
    assert_well_spent(slow, *slow.run())


def test_steps_longer_than_the_time_end_with_the_first() -> None:
    machine = Machine(250.0)
    plan, step = machine.run()
    assert (step, plan.max_steps) == (1, 1)


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    """A suspension of ten seconds becomes known two steps after it."""
    timing = TimedPlan(Plan.of_steps(1000), BUDGET_S, Work())
    for step in range(1, 500):
        timing.look(step, 0.1 * step + (10.0 if step in (300, 301) else 0.0))
    assert 900 < timing.plan.max_steps < 1000


def test_no_time_left_is_the_end() -> None:
    timing = TimedPlan(Plan.of_steps(100), 0.0, Work(), step=40)
    assert timing.look(40, 0.0)
    assert str(timing.plan) == "0:100,40:40"
