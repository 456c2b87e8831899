"""Plans: progress against exact fractions, never a jump, always to the end."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import UsageError
from crystalline.train.config import TrainConfig
from crystalline.train.plan import Plan
from crystalline.train.schedule import crystalline_epsilon, effective_warmup, learning_rate


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    plan = Plan.of_steps(draw(st.integers(1, 300)))
    step = 0
    for _ in range(draw(st.integers(0, 6))):
        step = draw(st.integers(step + 1, max(step + 1, plan.max_steps)))
        if step > plan.max_steps:
            break
        plan = plan.moved(step, draw(st.integers(step, step + 300)))
    return plan


def exact_progress(plan: Plan, step: int) -> Fraction:
    """r by its definition, piece by piece."""
    r = Fraction(0)
    starts = [first for first, _ in plan.pieces] + [None]
    for (first, last), following in zip(plan.pieces, starts[1:], strict=True):
        until = step if following is None or step < following else following
        if until >= last:
            r = Fraction(1)
        elif until > first:
            r += (1 - r) * Fraction(until - first, last - first)
        if until == step:
            return r
    return r


@given(plan=plans(), step=st.integers(0, 700))
def test_place_is_progress_times_length(plan: Plan, step: int) -> None:
    if len(plan.pieces) == 1:
        assert plan.place(step) == step
        return
    expected = exact_progress(plan, step) * plan.length
    if step >= plan.pieces[1][0]:
        assert plan.place(step) == pytest.approx(float(expected), rel=1e-12, abs=1e-9)
        assert 0 <= plan.place(step) <= plan.length
    else:
        assert plan.place(step) == step


@given(plan=plans())
def test_text_and_back(plan: Plan) -> None:
    assert Plan.parse(str(plan)) == plan
    assert Plan.parse(str(plan).replace(",", " , ")) == plan


@given(plan=plans())
def test_progress_never_jumps_and_comes_to_its_end(plan: Plan) -> None:
    places = [plan.place(step) for step in range(plan.max_steps + 3)]
    assert all(a <= b for a, b in pairwise(places))
    first, last = plan.pieces[-1]
    assert places[last] == plan.length or first == last  # ended where it was
    for (first, _), (following, last) in pairwise(plan.pieces):
        before = Plan(tuple(piece for piece in plan.pieces if piece[0] < following))
        assert plan.place(following) == pytest.approx(min(before.place(following), plan.length))
        assert first < following <= last


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
def test_an_extended_run_does_not_warm_up_again(schedule: str) -> None:
    """A run of 50 steps with 5 of warm-up, made four times as long after 20."""
    config = TrainConfig(learning_rate=1.0, min_lr=0.1, lr_schedule=schedule)  # type: ignore[arg-type]
    assert effective_warmup(config, 50) == 5
    plan = Plan.of_steps(50).moved(20, 200)
    rates = [learning_rate(config, plan.place(step), plan.length) for step in range(201)]
    short = [learning_rate(config, step, 50) for step in range(51)]
    assert rates[:21] == pytest.approx(short[:21], rel=1e-12)
    assert all(a >= b for a, b in pairwise(rates[5:]))
    assert rates[200] == pytest.approx(short[50])
    if schedule in ("cosine", "linear"):
        assert all(abs(a - b) < 0.05 for a, b in pairwise(rates[5:]))


def test_behind_its_end_a_schedule_stays_where_it_came_to() -> None:
    config = TrainConfig(learning_rate=1.0, crystalline_epsilon=0.2, crystalline_schedule="linear")
    plan = Plan.of_steps(50).moved(50, 200)
    rates = {learning_rate(config, plan.place(step), plan.length) for step in range(50, 200)}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx(0.1)
    assert {crystalline_epsilon(config, plan.place(s), plan.length) for s in range(50, 99)} == {0.0}


def test_a_shortened_run_comes_to_its_end() -> None:
    config = TrainConfig(learning_rate=1.0, lr_schedule="linear", warmup_steps=0, min_lr=0.0)
    plan = Plan.of_steps(100).moved(50, 60)
    rates = [learning_rate(config, plan.place(step), plan.length) for step in (49, 50, 55, 60)]
    assert rates == pytest.approx([0.51, 0.5, 0.25, 0.0])
    at_once = Plan.of_steps(100).moved(50, 50)
    assert (at_once.max_steps, at_once.place(50)) == (50, 50)
    assert str(at_once.moved(50, 80)) == "0:100,50:80"  # and can go on from there


@pytest.mark.parametrize(
    "text",
    ["", "5", "0:0", "1:3", "0:5,,", "0:5,0:6", "0:5,7:9", "0:5,3:2", "0:5,3", "0:-5", "0:1e3",
     "a:b", "0:5;3:9", "0:²"],
)  # fmt: skip
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(plan=text)
    assert "--plan" in caught.value.message
    assert caught.value.advice


def test_a_plan_and_another_number_of_steps_do_not_go_together() -> None:
    assert TrainConfig(plan="0:9,4:7", max_steps=7).plan == "0:9,4:7"
    with pytest.raises(UsageError, match="ends at step 7, and --max-steps is 9"):
        TrainConfig(plan="0:9,4:7", max_steps=9)
