"""What changes from step to step, as pure functions of the step: above all the learning rate.

Steps and their number are those of the run as first planned.  Where its end was moved, a step
stands for the place that `train.plan.Plan.place` gives it, between two steps as a rule.

Warm-up follows nanoGPT: step k of w warm-up steps (k = 0 … w − 1) uses
lr · (k + 1) / (w + 1), so step 0 already moves and step w is the first at full rate.
After it, with r = (step − w) / (max_steps − w) going from 0 towards 1:

    cosine    final + (lr − final) · (1 + cos πr) / 2
    linear    final + (lr − final) · (1 − r)
    step      lr · factor^d with d drops so far: at 60 % and 85 % of all steps, or one every
              --step-decay-steps from the start
    constant  lr; so does none

`final` is `TrainConfig.final_lr`; the step schedule stays above --min-lr where one is
given.  Beyond the last step the rate stays where it ended.

The share of the targets that goes to similar tokens has a schedule of its own.
"""

from __future__ import annotations

import math

from crystalline.train.config import TrainConfig

STEP_DROPS = (0.60, 0.85)  # shares of the run at which the step schedule drops
MOST_DROPS = 100  # after which nothing is left: 1000 to that power is a number still


def effective_warmup(config: TrainConfig, max_steps: int) -> int:
    """Return the warm-up in steps: a tenth of the run where the wanted one would fill it all.

    >>> effective_warmup(TrainConfig(warmup_steps=100), 2000)
    100
    >>> effective_warmup(TrainConfig(warmup_steps=100), 50)
    5
    """
    return config.warmup_steps if config.warmup_steps < max_steps else max_steps // 10


def learning_rate(config: TrainConfig, step: float, max_steps: int) -> float:
    """Return the rate for the step that follows `step` finished ones, of `max_steps` in all.

    >>> config = TrainConfig(learning_rate=1e-3, min_lr=1e-4, warmup_steps=9)
    >>> [f"{learning_rate(config, step, 109):.2e}" for step in (0, 8, 9, 59, 109)]
    ['1.00e-04', '9.00e-04', '1.00e-03', '5.50e-04', '1.00e-04']
    """
    peak, final = config.learning_rate, config.final_lr
    warmup = effective_warmup(config, max_steps)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if config.lr_schedule in ("constant", "none"):
        return peak
    if config.lr_schedule == "step":
        drops = sum(step >= share * max_steps for share in STEP_DROPS)
        if config.step_decay_steps:
            drops = min(int(step // config.step_decay_steps), MOST_DROPS)
        # Divided, so that drops by 10 are exact where they can be.
        return max(peak / (1.0 / config.step_decay_factor) ** drops, config.min_lr or 0.0)
    ratio = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    if config.lr_schedule == "linear":
        return final + (peak - final) * (1.0 - ratio)
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * ratio))


def crystalline_epsilon(config: TrainConfig, step: float, max_steps: int) -> float:
    """Return the ε of the step that follows `step` finished ones, of `max_steps` in all.

    >>> config = TrainConfig(crystalline_epsilon=0.2, crystalline_schedule="linear")
    >>> [round(crystalline_epsilon(config, step, 80), 3) for step in (0, 20, 80, 90)]
    [0.2, 0.15, 0.0, 0.0]
    """
    if config.crystalline_schedule == "constant":
        return config.crystalline_epsilon
    return config.crystalline_epsilon * max(0.0, 1.0 - step / max_steps)
