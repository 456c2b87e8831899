"""Real training on little text: specs, runs and what they wrote, for the tests of training."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

from crystalline._kernels import isa
from crystalline.data.prepare import PreparedData, crystal_of, prepare
from crystalline.train.config import TrainConfig
from crystalline.train.launcher import train
from crystalline.train.metrics import read_metrics
from crystalline.train.program import TrainingProgram
from crystalline.train.schedule import crystalline_epsilon, learning_rate
from crystalline.train.sizing import choose_model
from crystalline.train.spec import RunResult, RunSpec
from crystalline.train.stats import Snapshot
from crystalline.train.step import clip_factor
from tests.train.arenas import lone_arena
from tests.train.engine_runs import OUTSIDE

TIMES = ("tokens_per_second", "seconds")
SETTINGS: dict[str, Any] = {
    "tokenizer": "char", "embed_dim": 24, "num_layers": 2, "num_heads": 2, "seq_len": 24,
    "batch_size": 26, "max_steps": 50, "warmup_steps": 5, "learning_rate": 3e-3,
    "eval_interval": 20, "save_interval": 20, "log_interval": 1, "keep": 9, "dropout": 0.1,
}  # fmt: skip


def spec(data: PreparedData, run_dir: Path, *, workers: int = 3, permits: int = 2,
         resume_from: Path | None = None, jitter_s: float = 0.0, save_while_training: bool = False,
         **settings: Any) -> RunSpec:  # fmt: skip
    run_dir.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(**(SETTINGS | settings))
    crystal_path = None
    if config.uses_crystal and resume_from is None:
        crystal_path = run_dir / "crystal.json"
        crystal_of(data).save(crystal_path)
    return RunSpec(
        config=config,
        model=choose_model(config, vocab_size=data.vocab_size, train_tokens=data.train_tokens),
        token_path=data.token_path,
        tokenizer_path=data.tokenizer_path,
        run_dir=run_dir,
        val_tokens=data.val_tokens,
        val_bytes=data.val_bytes,
        tokens_per_epoch=data.train_tokens,
        workers=workers,
        permits=permits,
        resume_from=resume_from,
        crystal_path=crystal_path,
        jitter_s=jitter_s,
        save_while_training=save_while_training,
        precision="float32" if config.precision == "auto" else config.precision,
        isa=isa.level(),
    )


def run(spec: RunSpec, watch: list[Snapshot] | None = None) -> RunResult:
    seen = watch if watch is not None else []
    return train(spec, on_snapshot=seen.append, interval_s=0.02)


def bound(spec: RunSpec) -> TrainingProgram:
    """Return the program of a run at its beginning, in memory of this process alone."""
    program = TrainingProgram(dataclasses.replace(spec, permits=1))
    program.bind(lone_arena(program.regions()))
    program.initialize()
    for segment in range(program.segment_count):
        program.pack_segment(segment)
    return program


def serial_run(spec: RunSpec) -> str:
    """Train without engine, processes or phases; return the hash of the weights."""
    config, steps = spec.config, spec.max_steps
    program = bound(spec)
    segments = range(program.segment_count)
    interval = config.discovery_interval * config.eval_interval
    plan = spec.plan
    for step in range(steps):
        place = plan.place(step)
        epsilon = crystalline_epsilon(config, place, plan.length)
        if interval and step and step % interval == 0:
            program.discover(lambda: None)
        for lane in range(program.lane_count):
            program.compute_lane(lane, 0, step, epsilon)
        norm = math.sqrt(math.fsum([program.reduce_segment(segment) for segment in segments]))
        clip, lr = clip_factor(norm, config.grad_clip), learning_rate(config, place, plan.length)
        for segment in segments:
            program.update_segment(segment, 0, step, lr, clip)
    return program.weights_sha256()


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without times, events left out."""
    return [
        {key: value for key, value in line.items() if key not in TIMES}
        for line in read_metrics(run_dir / "metrics.jsonl")
        if "event" not in line
    ]


def events(run_dir: Path) -> list[dict[str, Any]]:
    """Return the events of metrics.jsonl without times, but for what was done from outside."""
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_metrics(run_dir / "metrics.jsonl")
        if line.get("event", OUTSIDE[0]) not in (*OUTSIDE, "diagnostics")
    ]


def prepare_text(folder: Path, text: str, kind: str, vocab_size: int = 300) -> PreparedData:
    """Return a text as data, with its cache in the folder, too."""
    (folder / "text.txt").write_text(text)
    return prepare(
        [folder / "text.txt"], kind=kind, vocab_size=vocab_size, val_fraction=0.1,
        cache_dir=folder / "cache",
    )  # fmt: skip


def inflected_text() -> str:
    """Return 9,000 words: stems, often with an a and rarely with an o, plain or with an ending.

    Five forms of the first kind are as rare as the second, as if they were words of their own.
    """
    draw = random.Random(8)

    def stems(count: int, vowel: str) -> list[str]:
        found: set[str] = set()
        while len(found) < count:
            parts = (*draw.choices("bcdfglmnprstw", k=2), vowel, *draw.choices("bdgklmnprt", k=2))
            found.add("".join(parts))
        return sorted(found)

    often, rarely = stems(14, "a"), stems(24, "o")
    endings = ("", "ing", "ed", "s")
    strangers = [stem + "ed" for stem in often[:5]]
    frequent = [stem + end for stem in often for end in endings if stem + end not in strangers]
    rare = [stem + end for stem in rarely for end in endings] + strangers
    return " ".join(draw.choice(frequent if draw.random() < 0.9 else rare) for _ in range(9000))
