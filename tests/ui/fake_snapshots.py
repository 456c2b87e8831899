"""A made-up run for tests and for looking at the dashboard: no engine behind it.

`python -m tests.ui.fake_snapshots [SPHERES]` plays it on this terminal; keys work.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from crystalline.train.stats import EvalPoint, Snapshot, SphereStats

STATES = ("compute", "compute", "waiting", "idle", "reduce", "update")


def fake_sphere(index: int, step: int, spheres: int, state: str) -> SphereStats:
    """A sphere after `step` steps of 12 lanes of 64 tokens, 47 ms each."""
    lanes = step * 12 // spheres + index % 3
    return SphereStats(
        index=index,
        position=index % 12,
        level=1 if index < 12 else 2,
        parent=-1 if index < 12 else index % 12,
        pid=40_000 + index,
        state=state,
        lanes_done=lanes,
        steals=index * step // 40,
        segments_done=step * 7 // spheres,
        tokens=lanes * 64,
        compute_s=lanes * 0.0067,
        sync_s=step * 0.0009 + index * 0.01,
        wait_s=step * 0.0002,
        idle_s=step * (0.0461 - 0.0067 * 12 / spheres),
        grad_norm=0.3 + 0.1 * math.sin(index + step),
        memory_bytes=23_500_000 + 310_000 * index,
        respawns=1 if index == 3 else 0,
    )


def fake_snapshot(step: int = 1200, *, spheres: int = 12, max_steps: int = 2000) -> Snapshot:
    """The run at `step`: characters of Shakespeare, 810 k parameters."""
    noise = random.Random(step // 7)
    states = [noise.choice(STATES[2:]) for _ in range(spheres)]
    for busy in noise.sample(range(spheres), min(2, spheres)):
        states[busy] = "compute"
    if spheres > 5:
        states[3] = "starting" if step % 50 < 25 else states[3]

    def loss(at: int) -> float:
        return 1.5 + 2.6 * math.exp(-at / 130) + 0.35 * math.exp(-at / 900)

    curve = tuple(
        (at, loss(at) + 0.06 * random.Random(at).uniform(-1, 1))
        for at in range(1, step + 1, max(1, step // 500))
    )
    evaluations = tuple(
        EvalPoint(at, 1.04 * loss(at) + 0.02, (1.04 * loss(at) + 0.02) / math.log(2))
        for at in range(0, step + 1, 125)
    )
    newest = evaluations[-1] if evaluations else None
    return Snapshot(
        run_dir="runs/tinyshakespeare",
        state="finished" if step >= max_steps else "training",
        step=step,
        max_steps=max_steps,
        epoch=step * 768 * 12 / 12 / 1_003_854,
        elapsed_s=step * 0.047,
        eta_s=(max_steps - step) * 0.047,
        loss=curve[-1][1] if curve else None,
        val_loss=newest.loss if newest else None,
        best_val_loss=newest.loss if newest else None,
        val_bits_per_byte=newest.bits_per_byte if newest else None,
        learning_rate=1e-4 + 4.5e-4 * (1 + math.cos(math.pi * step / max_steps)),
        grad_norm=1.2 + 0.3 * math.sin(step),
        clip_factor=1 / (1.2 + 0.3 * math.sin(step)),
        tokens=step * 768,
        tokens_per_second=16_340.0,
        flops_per_token=5.12e6,
        peak_share=0.714,
        dropped_steps=0,
        workers=spheres,
        permits=2,
        lanes=12,
        parameters=809_856,
        precision="float32",
        isa="avx512",
        last_checkpoint=(
            f"runs/tinyshakespeare/checkpoints/step-{step // 500 * 500:08}" if step >= 500 else None
        ),
        message="sphere 3 died (killed by signal 9) and was replaced" if step > 60 else None,
        loss_history=curve,
        eval_history=evaluations,
        parameter_groups=(
            ("embedding", 0.0204, 1.3e-4),
            ("positions", 0.0102, 9.7e-5),
            ("attention", 0.0311, 4.1e-4),
            ("mlp", 0.0287, 3.6e-4),
            ("norms", 0.9911, 2.2e-4),
            ("biases", 0.0093, 1.1e-4),
        ),
        spheres=tuple(fake_sphere(i, step, spheres, states[i]) for i in range(spheres)),
    )


def extreme_snapshot(spheres: int = 12) -> Snapshot:
    """Every value as awkward as it can be."""
    nan, inf = math.nan, math.inf
    base = fake_snapshot(800, spheres=spheres)
    awkward = tuple(
        replace(
            s,
            state=("dead", "retired", "starting", "unheard-of-state")[s.index % 4],
            lanes_done=10**15,
            tokens=10**18,
            steals=10**12,
            compute_s=1e12,
            sync_s=0.0,
            wait_s=0.0,
            idle_s=0.0,
            grad_norm=(nan, inf, 1e300, 0.0)[s.index % 4],
            memory_bytes=10**14,
            respawns=10**6,
        )
        for s in base.spheres
    )
    return replace(
        base,
        run_dir="/véry/long/路径/" + "長い名前" * 60 + "\x1b[31m\n" + "\udcff" + "/run-名前",
        step=987_654_321_012,
        max_steps=10**12,
        epoch=1e12,
        elapsed_s=1e10,
        eta_s=None,
        loss=nan,
        val_loss=inf,
        best_val_loss=None,
        val_bits_per_byte=1e30,
        learning_rate=1e-300,
        grad_norm=1e300,
        clip_factor=1e-300,
        tokens=10**20,
        tokens_per_second=1e15,
        flops_per_token=1e15,
        peak_share=12.5,
        dropped_steps=10**9,
        health="DEGRADED",
        health_reasons=("a reason\nof several lines \x1b]0;title\x07 " + "and long " * 60,) * 9,
        workers=10**6,
        lanes=10**9,
        parameters=10**15,
        precision="a precision with a very long name",
        isa="an instruction set with a long name",
        last_checkpoint="checkpoints/" + "x" * 300,
        message="a message\nof several lines \x1b]0;title\x07 " + "and long " * 60,
        loss_history=((1, 4.0), (2, nan), (3, inf), (4, 1e300), (5, -1e300)),
        eval_history=(EvalPoint(1, nan, nan), EvalPoint(4, 1e299, 1e299)),
        parameter_groups=tuple((f"größe-{i}-" + "名" * 30, 1e300, nan) for i in range(40)),
        spheres=awkward,
    )


def empty_snapshot() -> Snapshot:
    """Before the first step: nothing is known."""
    return replace(
        fake_snapshot(1),
        state="starting",
        step=0,
        epoch=0.0,
        elapsed_s=0.0,
        eta_s=None,
        loss=None,
        val_loss=None,
        best_val_loss=None,
        val_bits_per_byte=None,
        learning_rate=0.0,
        grad_norm=None,
        clip_factor=1.0,
        tokens=0,
        tokens_per_second=0.0,
        peak_share=None,
        last_checkpoint=None,
        message=None,
        loss_history=(),
        eval_history=(),
        parameter_groups=(),
        spheres=(),
    )


def fake_run(*, spheres: int = 12, first: int = 1, last: int = 2000) -> Iterator[Snapshot]:
    """The run step by step."""
    for step in range(first, last + 1):
        yield fake_snapshot(step, spheres=spheres, max_steps=last)


def play() -> None:
    """Show the run at about its pace; q ends it."""
    import sys
    import time

    from crystalline.ui import make_reporter

    spheres = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with make_reporter() as reporter:
        for snapshot in fake_run(spheres=spheres):
            reporter.show(snapshot)
            for action in reporter.poll():
                reporter.message(f"key: {action}")
                if action == "stop":
                    return
            time.sleep(0.047)


if __name__ == "__main__":
    play()
