"""Runs of the engine with the fake program, in this process and as a command.

    python -m tests.train.engine_runs RUN_DIR KEYWORDS_AS_JSON

trains, prints a line "running" when the first snapshot arrives and the result as
JSON, and exits as the commands of the package do.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crystalline.cli.run import run_command
from crystalline.engine.shape import Depth
from crystalline.model.config import ModelConfig
from crystalline.train.config import TrainConfig
from crystalline.train.launcher import train
from crystalline.train.metrics import read_metrics
from crystalline.train.schedule import crystalline_epsilon, learning_rate
from crystalline.train.spec import RunResult, RunSpec
from crystalline.train.stats import Snapshot
from tests.train.arenas import lone_arena
from tests.train.fake_program import FakeProgram

PROGRAM = "tests.train.fake_program:build"


def make_spec(
    run_dir: Path,
    *,
    steps: int | None = 30,
    workers: int = 3,
    permits: int = 2,
    options: dict[str, Any] | None = None,
    resume_from: str | None = None,
    jitter_s: float = 0.0,
    hang_s: float = 10.0,
    max_seconds: float | None = None,
    most_steps: int | None = None,
    save_while_training: bool = False,
    save_hang_s: float = 600.0,
    depth: Depth = "1",
    held: bool = False,
    health_interval_s: float = 3600.0,
    share_cores: bool = False,
    pin: Any = "no",
    **config: Any,
) -> RunSpec:
    settings: dict[str, Any] = {
        "eval_interval": 10,
        "save_interval": 0,
        "log_interval": 5,
        "grad_clip": 2.0,
        "learning_rate": 0.01,
        "warmup_steps": 4,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    return RunSpec(
        config=TrainConfig(max_steps=steps, **{**settings, **config}),
        model=ModelConfig(11, 8, 1, 1, 4),
        token_path=run_dir / "tokens",
        tokenizer_path=run_dir / "tokenizer.json",
        run_dir=run_dir,
        val_tokens=90,
        val_bytes=200,
        tokens_per_epoch=1000,
        workers=workers,
        permits=permits,
        resume_from=Path(resume_from) if resume_from else None,
        jitter_s=jitter_s,
        hang_s=hang_s,
        max_seconds=max_seconds,
        most_steps=most_steps,
        save_while_training=save_while_training,
        save_hang_s=save_hang_s,
        depth=depth,
        held=held,
        health_interval_s=health_interval_s,
        share_cores=share_cores,
        pin=pin,
        program=PROGRAM,
        program_options=options or {},
    )


def run(
    run_dir: Path,
    watch: Callable[[Snapshot], None] = lambda _: None,
    actions: Callable[[], list[str]] = list,
    interval_s: float = 0.01,
    **keywords: Any,
) -> RunResult:
    return train(
        make_spec(run_dir, **keywords),
        on_snapshot=watch,
        poll_actions=actions,
        interval_s=interval_s,
    )


# What was done to a run, and no part of what it computes; see test_events.py.
OUTSIDE = (
    "sphere_replaced", "control_lost", "spawned", "collapsed", "paused", "resumed", "workers",
    "request", "restored", "health",
)  # fmt: skip


def timeless_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the metrics without times."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")}
        for line in lines
        if line.get("event") not in OUTSIDE
    ]


def serial_run(spec: RunSpec) -> tuple[FakeProgram, list[float]]:
    """Train without engine, processes or phases: what the engine must come to."""
    spec = dataclasses.replace(spec, permits=1)
    program = FakeProgram(spec)
    program.bind(lone_arena(program.regions()))
    program.initialize()
    segments = range(program.segment_count)
    for segment in segments:
        program.pack_segment(segment)
    losses = []
    interval = spec.config.discovery_interval * spec.config.eval_interval
    plan = spec.plan
    for step in range(spec.max_steps):
        place = plan.place(step)
        epsilon = crystalline_epsilon(spec.config, place, plan.length)
        if interval and step and step % interval == 0:
            program.discover(lambda: None)
        results = [
            program.compute_lane(lane, 0, step, epsilon) for lane in range(program.lane_count)
        ]
        losses.append(sum(r[0] for r in results) / sum(r[1] for r in results))
        norm = math.sqrt(math.fsum([program.reduce_segment(s) for s in segments]))
        if math.isfinite(norm):
            clip = min(1.0, spec.config.grad_clip / norm)
            lr = learning_rate(spec.config, place, plan.length)
            for segment in reversed(segments):
                program.update_segment(segment, 0, step, lr, clip)
    return program, losses


def _main(argv: list[str]) -> int:
    keywords = json.loads(argv[1])
    announced = []

    def watch(snapshot: Snapshot) -> None:
        if not announced and snapshot.step > 2:
            announced.append(True)
            pids = [sphere.pid for sphere in snapshot.spheres]
            print("running", json.dumps(pids), flush=True)

    result = run(Path(argv[0]), watch, **keywords)
    print(json.dumps(dataclasses.asdict(result)), flush=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(run_command("engine", _main))
