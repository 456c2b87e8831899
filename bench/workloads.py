"""The shapes that every benchmark uses, and a run of each on random tokens."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystalline._kernels import isa
from crystalline.data.prepare import prepare
from crystalline.data.tokenfile import Split, write_token_file
from crystalline.engine.shape import Depth
from crystalline.engine.sphere import turn_ns
from crystalline.machine.cores import usable_cores
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train.config import TrainConfig
from crystalline.train.launcher import train
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Snapshot


@dataclass(frozen=True)
class Workload:
    """A model and its batch: L layers, H heads, C channels, T positions, B sequences, V tokens."""

    L: int
    H: int
    C: int
    T: int
    B: int
    V: int

    @property
    def model(self) -> ModelConfig:
        """The model's configuration."""
        return ModelConfig(self.V, self.T, self.L, self.H, self.C)

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of forward and backward: 6 N + 12 L C T, N without the positions' table.

        The second term counts the whole score matrix, as is the custom; causal attention
        computes half of it.
        """
        table = parameter_table(self.model)
        used = table.count - table["transformer.wpe.weight"].size
        return 6.0 * used + 12.0 * self.L * self.C * self.T


WORKLOADS = {
    "tiny": Workload(4, 4, 128, 64, 12, 65),
    "small": Workload(6, 6, 384, 256, 12, 65),
    "compact": Workload(6, 8, 256, 128, 32, 788),
    "production": Workload(6, 12, 384, 128, 32, 30_000),
    "gpt2": Workload(12, 12, 768, 256, 4, 50_257),
    "gpt2x12": Workload(12, 12, 768, 256, 12, 50_257),
}
TRAIN_TOKENS, VAL_TOKENS = 1_000_000, 20_000
WATCH_S = 0.05  # between two looks at a run
LEAST_STEPS = 12  # of a run that is timed
USUAL_SHARE = 0.65  # of the peak, to guess how long a step takes
ARENA_BYTES = 48  # a parameter, about: weights, moments, sums of lanes, panels, workspaces


def run(
    name: str,
    folder: Path,
    *,
    steps: int,
    workers: int,
    precision: str = "float32",
    depth: Depth = "1",
) -> list[Snapshot]:
    """Train a workload on random tokens for `steps` steps; nothing is evaluated or saved before.

    Its token file stays in `folder` for the next one; what else it wrote is removed.
    Returns a snapshot for every WATCH_S.
    """
    shape = WORKLOADS[name]
    tokens = folder / f"{name}.tokens"
    if not tokens.exists():
        draw = np.random.default_rng(1).integers(0, shape.V, TRAIN_TOKENS + VAL_TOKENS)
        write_token_file(
            tokens,
            Split([draw[:TRAIN_TOKENS]], lambda: TRAIN_TOKENS),
            Split([draw[TRAIN_TOKENS:]], lambda: VAL_TOKENS),
            vocab_size=shape.V,
            documents=1,
            tokenizer_sha256="0" * 64,
        )
    config = TrainConfig(
        embed_dim=shape.C, num_layers=shape.L, num_heads=shape.H, seq_len=shape.T,
        batch_size=shape.B, max_steps=steps, eval_interval=0, save_interval=0,
    )  # fmt: skip
    text = folder / "text.txt"
    text.write_text("any tokenizer will do " * 100)
    tokenizer = prepare([text], kind="byte", vocab_size=300, val_fraction=0.1, cache_dir=folder)
    run_dir = folder / f"{name}-{workers}-{len(list(folder.iterdir()))}"
    run_dir.mkdir()
    spec = RunSpec(
        config=config,
        model=shape.model,
        token_path=tokens,
        tokenizer_path=tokenizer.tokenizer_path,
        run_dir=run_dir,
        val_tokens=VAL_TOKENS,
        val_bytes=VAL_TOKENS,
        tokens_per_epoch=TRAIN_TOKENS,
        workers=workers,
        depth=depth,
        precision=precision,
        isa=isa.level(),
        flops_per_token=shape.flops_per_token,
    )
    snapshots: list[Snapshot] = []
    train(spec, on_snapshot=snapshots.append, interval_s=WATCH_S)
    shutil.rmtree(run_dir)
    return snapshots


def steps_for(name: str, seconds: float, peak: float, workers: int = 12) -> int:
    """Return the steps that take about `seconds` on cores of `peak` FLOP/s in all, or more.

    Half of them last until every sphere has had a turn, which makes the other half steady.
    """
    shape = WORKLOADS[name]
    step_s = shape.flops_per_token * shape.B * shape.T / (USUAL_SHARE * peak)
    turn_s = turn_ns(workers, ARENA_BYTES * parameter_table(shape.model).count) / 1e9
    turns = workers / usable_cores()
    return LEAST_STEPS + round(max(seconds, 2 * turns * max(turn_s, step_s)) / step_s)


def steady_rate(snapshots: Sequence[Snapshot]) -> float:
    """Return tokens per second over the second half of a run's steps.

    Raises ValueError where fewer than two steps are left.
    """
    first, end = _second_half(snapshots)
    return (end.tokens - first.tokens) / (end.elapsed_s - first.elapsed_s)


def barrier_share(snapshots: Sequence[Snapshot]) -> float:
    """Return which part of the permits' time went to no unit of work, over the same half.

    It is what barriers, hand-overs, Node Zero between two steps and changes of turn cost.  A lane
    that is under way at either end counts there where it is finished.

    Raises ValueError where fewer than two steps are left.
    """
    first, end = _second_half(snapshots)
    work_s = sum(s.compute_s + s.sync_s - s.wait_s for s in end.spheres)
    work_s -= sum(s.compute_s + s.sync_s - s.wait_s for s in first.spheres)
    return 1.0 - work_s / (min(end.permits, end.workers) * (end.elapsed_s - first.elapsed_s))


def _second_half(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, Snapshot]:
    """Return the first and last ends of steps of a run's second half that were seen.

    In the first half each sphere that gets a permit for the first time builds its page tables,
    which a run of hours does not notice and one of ten seconds does.
    """
    last = snapshots[-1].step if snapshots else 0
    steps = [
        now
        for before, now in itertools.pairwise(snapshots)
        if now.step > before.step and 2 * now.step >= last
    ]
    if len(steps) < 2:
        raise ValueError(f"the run ended at step {last}: give it more")
    return steps[0], steps[-1]
