"""How long a run is: what --max-steps, --epochs, --minutes and --plan come to, new and resumed.

A run goes by steps, or by time; then its plan is fitted to the time while it goes on
(`train.timing`), and the settings keep the plan as it stands.  A plan that is given is carried
out, whatever the clock says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystalline.errors import UsageError
from crystalline.runs.layers import Layers
from crystalline.train.config import LENGTHS, TrainConfig
from crystalline.train.plan import Plan, stored_plan

if TYPE_CHECKING:
    from crystalline.formats.checkpoint import CheckpointInfo


@dataclass(frozen=True)
class Length:
    """Settings with the plan of the run, and what its time allows."""

    config: TrainConfig
    seconds: float | None = None  # that the plan is to be fitted to
    most_steps: int | None = None  # that it is to have at most


def make_way(layers: Layers, given: Collection[str]) -> None:
    """Take out of `layers` what a length in the layer above makes void.

    A plan stands for itself.  Any other length makes a plan void, and the number of steps that
    it led to.
    """
    lengths = set(given) & set(LENGTHS)
    void: tuple[str, ...] = ()
    if "plan" in lengths:
        void = LENGTHS
    elif lengths and layers.values.get("plan") is not None:
        void = ("plan", "max_steps")
    for name in void:
        layers.values.pop(name, None)
        layers.sources.pop(name, None)


def steps_of(config: TrainConfig) -> TrainConfig:
    """Return the settings of a run whose plan is given: by steps, and without a clock."""
    if config.plan is None:
        return config
    plan = Plan.parse(config.plan)
    return dataclasses.replace(config, plan=str(plan), max_steps=plan.max_steps, minutes=None)


def new_length(
    config: TrainConfig, train_tokens: int, speed: Callable[[TrainConfig], float]
) -> Length:
    """Return the length of a new run; `speed` measures steps a second, if that matters."""
    from crystalline.train.sizing import resolve_steps

    if config.plan is not None:
        return Length(config)
    if config.minutes is None:
        return Length(dataclasses.replace(config, max_steps=resolve_steps(config, train_tokens)))
    most = _most_steps(config, train_tokens)
    plan = Plan.of_steps(resolve_steps(config, train_tokens, speed(config)))
    return Length(config.planned(plan, spelled=True), 60 * config.minutes, most)


def resumed_length(
    config: TrainConfig,
    stored: Mapping[str, Any],
    explicit: Collection[str],
    info: CheckpointInfo,
    train_tokens: int,
    speed: Callable[[TrainConfig], float],
) -> Length:
    """Return the length of a run that goes on at a checkpoint.

    `config` has the lengths that whoever resumes it gives, and no others; `stored` those of the
    checkpoint.  `explicit` names those that are given in so many words, not by a file or the
    environment: minutes are then from now on, also as many as before.  Lengths that are given
    decide from here on; without any the run goes on as it was planned, in the time that it has
    left.

    Raises:
        UsageError: it is shorter than what is done, or the rest of it would change nothing.
    """
    before = stored_plan(stored)
    given = {
        name: value
        for name in LENGTHS
        if (value := getattr(config, name)) is not None
        and (value != stored[name] or (name in explicit and name == "minutes"))
    }
    if "plan" in given and str(Plan.parse(given["plan"])) != str(before):
        raise UsageError(
            f"--plan {given['plan']} differs from the {before} of the run {info.path}",
            advice="Leave it out and use --max-steps, or start a new run.",
        )
    given.pop("plan", None)
    config = dataclasses.replace(
        config,
        plan=None,
        max_steps=given.get("max_steps"),
        epochs=given.get("epochs"),
        minutes=given.get("minutes"),
    )
    if not given:
        minutes = stored["minutes"]
        config = dataclasses.replace(config, epochs=stored["epochs"], minutes=minutes)
        if minutes is None:
            return Length(config.planned(before, spelled=stored["plan"] is not None))
        left = info.state.get("seconds_left", 60 * minutes - info.state.get("seconds", 0.0))
        most = info.state.get("most_steps")
        return Length(config.planned(before, spelled=True), max(0.0, left), most)
    if config.minutes is None:
        length = Length(config, None, _most_steps(config, train_tokens))
        steps = length.most_steps
        assert steps is not None
    else:
        seconds = 60 * config.minutes
        length = Length(config, seconds, _most_steps(config, train_tokens))
        steps = info.step + max(1, int(seconds * speed(config)))
        if length.most_steps is not None:
            steps = min(steps, length.most_steps)
    if steps < info.step:
        raise UsageError(
            f"the run has done {info.step:,} steps, more than the {steps} wanted",
            advice=f"Use --max-steps {info.step + 1} or more.",
        )
    plan = before.moved(info.step, steps)
    _refuse_idle_steps(config, plan, info.step)
    timed = length.seconds is not None
    return dataclasses.replace(length, config=config.planned(plan, spelled=timed))


def _most_steps(config: TrainConfig, train_tokens: int) -> int | None:
    """Return the steps that --max-steps, or else --epochs, allow."""
    if config.max_steps is not None or config.epochs is None:
        return config.max_steps
    return max(1, math.ceil(config.epochs * train_tokens / config.tokens_per_step))


def _refuse_idle_steps(config: TrainConfig, plan: Plan, step: int) -> None:
    from crystalline.train.schedule import learning_rate

    if plan.max_steps > step and not learning_rate(config, plan.place(step), plan.length):
        raise UsageError(
            f"the learning rate has come down to 0 at step {step:,}: more steps change nothing",
            advice="Resume an earlier checkpoint of the run, or start a new run with a --min-lr.",
        )
