"""Where a training step spends its time: a model from measured kernel speeds, checked by running.

    python -m bench.cost_model                       # measure, predict, 64 cores, 64 hosts
    python -m bench.cost_model --check               # and compare with real steps
    python -m bench.cost_model --save speeds.json    # then: --speeds speeds.json, elsewhere

A step is six stretches of time that follow one another:

    compute    a lane's work through the kernels that do it, each at its measured speed, summed over
               the lanes and divided by the cores
    waiting    what the last core needs longer than that: lanes are whole, cores are many
    reduce     (buffers + 1) x 4 N bytes: every lane buffer is read, their sum written
    update     28 N bytes of weights, gradient and moments, and the packed forms written
    hand-over  the engine itself, measured on a program that does nothing: per step, per unit
    network    with several hosts, an all-reduce of the gradient: each host sends and receives
               2 (h - 1) / h x 4 N bytes in 2 log2(h) messages

A tree of spheres costs what its leaves wait for each other longer: it is the same step with the
hand-over measured on a tree of 157 nodes (Node Zero, 12 controls, 144 leaves).

Speeds are per core with all cores at work, so what they share is in them.  For more cores than
were measured, memory is the given --memory, and claims are taken to cost what they cost here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bench.peak import peak_flops
from bench.workloads import WORKLOADS, Workload, run, steady_rate, steps_for
from crystalline._kernels import attention, crossentropy, formats, matmul, optimizer, rows
from crystalline._kernels.marks import MarkRow
from crystalline._kernels.memory import aligned_empty
from crystalline.engine.shape import Depth, most_leaves
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.positions import POSITIONS
from crystalline.machine.cores import usable_cores
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import CHUNK_ROWS, Transformer
from crystalline.train.config import TrainConfig
from crystalline.train.launcher import train
from crystalline.train.program import lanes_per_unit
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Diagnosis
from crystalline.train.sums import Merge, direct_sums

BLOCK_ROWS = 128  # rows that pass through a layer's products together
BUFFER_FLOATS = 8_000_000  # of the largest arrays that memory is measured on
BUFFERS = 4
LITTLE, MUCH = 8, 808  # segments of the empty program
LEAVES = POSITIONS**2  # of a tree of two levels: 157 nodes with its controls and Node Zero


@dataclass(frozen=True)
class Speeds:
    """What one core does while all are busy, for one shape and precision."""

    peak: float  # FLOP/s
    matmul: float  # FLOP/s, forward and input gradient
    weight_gradient: float  # FLOP/s, packing included
    attention: float  # FLOP/s, forward
    attention_backward: float  # FLOP/s
    pass_bytes: float  # bytes/s of GELU and LayerNorm in the cache
    logits_bytes: float  # bytes/s of cross-entropy
    memory: float  # bytes/s of the lanes' sum, on one core while the others rest
    all_memory: float  # bytes/s of the same, all cores together


@dataclass(frozen=True)
class Engine:
    """What the step protocol costs."""

    step_s: float
    unit_s: float  # claiming and finishing a unit of work, on the core that does it


@dataclass(frozen=True)
class Machine:
    """Equal hosts."""

    cores: int
    memory: float  # bytes/s of a host
    hosts: int = 1
    network: float = 1.25e9  # bytes/s of a host, each way
    latency_s: float = 30e-6


@dataclass(frozen=True)
class Work:
    """What a token costs, forward and backward."""

    matmul: float  # FLOPs
    weight_gradient: float  # FLOPs
    attention: float  # FLOPs
    attention_backward: float  # FLOPs
    pass_bytes: float
    logits_bytes: float


@dataclass(frozen=True)
class StepTime:
    """The stretches of a step, in seconds."""

    compute: float
    waiting: float
    reduce: float
    update: float
    hand_over: float
    network: float

    @property
    def total(self) -> float:
        """The whole step."""
        return math.fsum(astuple(self))


def work_per_token(shape: Workload, precision: str) -> Work:
    """Return a token's FLOPs and bytes; attention counts the half that is computed."""
    L, C, T, V = shape.L, shape.C, shape.T, shape.V
    weights = 12 * L * C * C + V * C
    scores = 2.0 * L * T * C  # FLOPs of q k^T and p v below the diagonal
    # Per layer, in units of 4 C bytes: LayerNorm 2 x 2, GELU 2 x 4; backward 2 x 4, and 3 x 4.
    passes = 4.0 * C * (L * (4 + 8 + 8 + 12) + 6)
    if precision == "bf16":
        # Operands rounded to pairs (4 bytes in, 2 out): forward 7 C, backward 9 C; and 7 C more
        # paired along the rows (2 in, 2 out).
        passes += L * C * (6.0 * (7 + 9) + 4.0 * 7)
    return Work(
        matmul=4.0 * weights,
        weight_gradient=2.0 * weights,
        attention=scores,
        attention_backward=2.5 * scores,
        pass_bytes=passes,
        logits_bytes=8.0 * V,
    )


def token_seconds(work: Work, speeds: Speeds) -> float:
    """Return the seconds that one core spends on a token."""
    return math.fsum(
        getattr(work, field.name) / getattr(speeds, field.name) for field in fields(work)
    )


def lane_sequences(sequences: int, lanes: int) -> list[int]:
    """Return how many sequences each lane holds: sequence i belongs to lane i mod lanes.

    >>> lane_sequences(32, 12)
    [3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]
    """
    lanes = min(lanes, sequences)
    return [len(range(lane, sequences, lanes)) for lane in range(lanes)]


def auto_lanes(cores: int, sequences: int) -> int:
    """Return the lanes that --lanes auto takes: twelves up to the cores, at most the sequences.

    >>> auto_lanes(2, 24), auto_lanes(64, 1000), auto_lanes(64, 30)
    (12, 72, 24)
    """
    return POSITIONS * max(1, min(-(-cores // POSITIONS), sequences // POSITIONS))


def makespan(costs: Sequence[float], cores: int) -> float:
    """Return when the last core is done, if each takes the next unit as soon as it is free.

    >>> makespan([3.0, 3.0, 2.0], 2), makespan([1.0] * 12, 8)
    (5.0, 2.0)
    """
    busy = [0.0] * cores
    for cost in costs:
        first = min(range(cores), key=busy.__getitem__)
        busy[first] += cost
    return max(busy)


def all_reduce_seconds(size_bytes: float, machine: Machine) -> float:
    """Return the time of a reduce-scatter and an all-gather between the hosts."""
    hosts = machine.hosts
    if hosts == 1:
        return 0.0
    sent = 2 * (hosts - 1) / hosts * size_bytes
    return sent / machine.network + 2 * math.ceil(math.log2(hosts)) * machine.latency_s


def predict(shape: Workload, precision: str, speeds: Speeds, engine: Engine, machine: Machine,
            lanes: int = POSITIONS) -> StepTime:  # fmt: skip
    """Return the times of a step in which each host trains on a batch of `shape.B` sequences."""
    table = parameter_table(shape.model)
    size_bytes = 4.0 * table.size
    cores = machine.cores
    held = lane_sequences(shape.B, lanes)
    most_rows = Transformer.side_rows(shape.model)
    together = lanes_per_unit(len(held), cores, held[0] * shape.T, most_rows)
    memory = min(machine.memory, cores * speeds.memory)
    # A lane's gradient goes out to memory, and comes back for the second lane of a buffer.
    at_once = min(cores, -(-len(held) // together))
    store_s = size_bytes * at_once / memory
    lane_s = [n * shape.T * token_seconds(work_per_token(shape, precision), speeds) for n in held]
    units = [
        math.fsum(lane_s[i : i + together]) + (2 * together - 1) * store_s
        for i in range(0, len(lane_s), together)
    ]
    ideal = math.fsum(units) / cores
    packed_bytes = size_bytes if precision == "bf16" else 2 * size_bytes
    claims = len(units) + 2 * len(table.segments())
    return StepTime(
        compute=ideal,
        waiting=makespan(units, cores) - ideal,
        reduce=(len(units) + 1) * size_bytes / memory,
        update=(7 * size_bytes + packed_bytes) / memory,
        hand_over=engine.step_s + engine.unit_s * claims / cores,
        network=all_reduce_seconds(size_bytes, machine),
    )


# Measuring


def rate_of(make: Callable[[], Callable[[], object]], amount: float, seconds: float,
            threads: int) -> float:  # fmt: skip
    """Return amount per second of a call, summed over threads with data of their own.

    `make` returns the call; kernels run without the GIL.  Each thread gives the median of its
    calls.
    """
    ready = threading.Barrier(threads)
    medians: list[float] = []

    def work() -> None:
        call = make()
        call()
        ready.wait()
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < 3 or time.perf_counter() < end:
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        medians.append(float(np.median(taken)))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(amount / median for median in medians)


def measure_speeds(shape: Workload, precision: str, seconds: float, cores: int) -> Speeds:
    """Time each kernel on the rows that a lane of this workload gives it."""
    C, T, H = shape.C, shape.T, shape.H
    held = -(-shape.B // POSITIONS) * T
    R = max(T, min(held, CHUNK_ROWS // T * T))
    block, V = min(R, BLOCK_ROWS), min(shape.V, 8192)

    def random(*size: int) -> np.ndarray:
        array = aligned_empty(size)
        array[...] = np.random.default_rng(1).standard_normal(size, dtype=np.float32)
        return array

    def product() -> Callable[[], object]:
        a, packed = random(block, C), aligned_empty((matmul.packed_size(C, 4 * C, precision),))
        out = aligned_empty((block, 4 * C))
        matmul.pack_matrix(random(C, 4 * C), packed, precision=precision)
        operand = aligned_empty(matmul.operand_shape(block, C, precision))
        matmul.to_operand(a, operand, precision)
        return lambda: matmul.matmul(operand, packed, out, precision=precision, inner=C)

    def weight_gradient() -> Callable[[], object]:
        x, dy, out = random(R, C), random(R, 4 * C), aligned_empty((C, 4 * C))
        packed = aligned_empty((matmul.packed_size(R, 4 * C, precision),))
        operand = aligned_empty(matmul.operand_shape(R, C, precision))
        turned = aligned_empty(matmul.turned_shape(R, C, precision))
        matmul.to_operand(x, operand, precision)
        matmul.turn_operand(operand, R, C, turned, precision)

        def call() -> None:
            matmul.pack_matrix(dy, packed, precision=precision)
            matmul.matmul_transposed(turned, packed, out, precision=precision, inner=R)

        return call

    def forward() -> Callable[[], object]:
        qkv, out, lse = random(R, 3 * C), aligned_empty((R, C)), aligned_empty((R // T, H, T))
        return lambda: attention.attention_forward(qkv, T, H, out, lse, precision=precision)

    def backward() -> Callable[[], object]:
        qkv, out, lse = random(R, 3 * C), aligned_empty((R, C)), aligned_empty((R // T, H, T))
        dout, dqkv = random(R, C), aligned_empty((R, 3 * C))
        attention.attention_forward(qkv, T, H, out, lse, precision=precision)
        return lambda: attention.attention_backward(
            dout, qkv, out, lse, T, H, dqkv, precision=precision
        )

    def passes() -> Callable[[], object]:
        x, wide, wide_out, out = (random(block, n) for n in (C, 4 * C, 4 * C, C))
        gamma, beta = random(C), random(C)
        mean, rstd = aligned_empty((block,)), aligned_empty((block,))

        def call() -> None:
            rows.layernorm_forward(x, gamma, beta, out, mean, rstd)
            rows.gelu_forward(wide.reshape(-1), wide_out.reshape(-1))
            rows.gelu_backward(wide.reshape(-1), wide_out.reshape(-1), wide_out.reshape(-1))

        return call

    def entropy() -> Callable[[], object]:
        logits, targets = random(64, V), np.arange(64, dtype=np.int32)
        return lambda: crossentropy.cross_entropy(logits, targets, 1.0, True)

    n = min(parameter_table(shape.model).size, BUFFER_FLOATS)

    def lanes_sum() -> Callable[[], object]:
        lanes, out = random(BUFFERS, n), aligned_empty((n,))
        return lambda: optimizer.tree_sum(lanes, out)

    scores = 2.0 * R * T * C
    moved = 4.0 * (BUFFERS + 1) * n

    def each(make: Callable[[], Callable[[], object]], amount: float) -> float:
        return rate_of(make, amount, seconds, cores) / cores

    return Speeds(
        peak=peak_flops(cores, 0.1, precision) / cores,
        matmul=each(product, 8.0 * block * C * C),
        weight_gradient=each(weight_gradient, 8.0 * R * C * C),
        attention=each(forward, scores),
        attention_backward=each(backward, 2.5 * scores),
        pass_bytes=each(passes, 4.0 * block * C * (2 + 8 + 12)),
        logits_bytes=each(entropy, 8.0 * 64 * V),
        memory=rate_of(lanes_sum, moved, seconds, 1),
        all_memory=rate_of(lanes_sum, moved, seconds, cores),
    )


class EmptyProgram:
    """A program whose units do nothing: what is left of a step is the engine."""

    lane_count, heavy_lanes, sums = POSITIONS, 0, direct_sums(POSITIONS, 1)
    eval_units, eval_tokens, tokens_per_step, copies = 0, 0, POSITIONS, False

    def __init__(self, spec: RunSpec) -> None:
        self.segment_count: int = spec.program_options["segments"]
        self.run_dir = spec.run_dir

    def regions(self) -> list[Region]:
        """Return a region that nobody uses."""
        return [Region("nothing", "float32", (16,))]

    def bind(self, arena: Arena) -> None:
        """Take nothing."""

    def initialize(self) -> None:
        """Fill nothing."""

    def load(self, checkpoint: Path) -> NoReturn:
        """Refuse: nobody resumes this."""
        raise ValueError(f"{checkpoint}: an empty program is never resumed")

    def find(self, name: str) -> NoReturn:
        """Refuse: nobody goes back."""
        raise ValueError(f"{name}: an empty program has no checkpoints")

    def named(self) -> dict[str, int]:
        """Return nothing: it has no checkpoints."""
        return {}

    def name(self, checkpoint: Path, name: str) -> None:
        """Name nothing."""

    def mark_latest(self, checkpoint: Path) -> None:
        """Mark nothing."""

    def copy_segment(self, segment: int) -> None:
        """Copy nothing."""

    def save(self, state: dict[str, Any], config: TrainConfig, *, copied: bool = False) -> Path:  # noqa: ARG002
        """Write nothing."""
        return self.run_dir

    def mark_best(self, checkpoint: Path) -> None:
        """Mark nothing."""

    def lost_file(self) -> str | None:
        return None

    def weights_sha256(self) -> str:
        """Return the hash of no weights."""
        return hashlib.sha256().hexdigest()

    def record(self, marks: MarkRow) -> None:
        """It has no passes to mark."""

    def diagnose_segment(self, segment: int, step: int, lr: float) -> None:
        """There is nothing to measure."""

    def diagnosis(self, step: int) -> Diagnosis:
        """Return that there is nothing."""
        return Diagnosis(step, (), ())

    def examine(self, *_: Any) -> None:
        """Losses are finite always."""

    def culprit(self, step: int) -> None:  # noqa: ARG002
        """Return that there is none."""
        return

    def sequences_in(self, lane: int) -> int:  # noqa: ARG002
        """Return that a lane has one."""
        return 1

    def extremes(self) -> tuple[float, float]:
        """Return those of no gradient."""
        return 0.0, 0.0

    def discover(self, commit: Callable[[], None]) -> None:
        """Discover nothing."""

    def compute_lane(
        self,
        lane: int,  # noqa: ARG002
        permit: int,  # noqa: ARG002
        step: int,  # noqa: ARG002
        epsilon: float,  # noqa: ARG002
    ) -> tuple[float, int, float, float]:
        """Compute nothing."""
        return 1.0, 1, 0.0, 1.0

    def merge(self, merge: Merge, permit: int, step: int) -> None:
        """Merge nothing."""

    def recover_merge(self, merge: Merge, permit: int, step: int) -> None:
        """Recover nothing."""

    def reduce_segment(self, segment: int) -> float:  # noqa: ARG002
        """Reduce nothing."""
        return 1.0

    def update_segment(self, segment: int, permit: int, step: int, lr: float, clip: float) -> None:
        """Update nothing."""

    def recover(self, permit: int, segment: int, step: int) -> None:
        """Recover nothing."""

    def pack_segment(self, segment: int) -> None:
        """Pack nothing."""

    def evaluate_unit(self, unit: int, permit: int) -> tuple[float, int]:  # noqa: ARG002
        """Evaluate nothing."""
        return 1.0, 1


def build_empty(spec: RunSpec) -> EmptyProgram:
    """Return the program that `RunSpec.program` names."""
    return EmptyProgram(spec)


def measure_engine(folder: Path, cores: int, steps: int = 2000, leaves: int = POSITIONS) -> Engine:
    """Run the engine with nothing to do, with few units and with many; a tree above 63 leaves."""

    def step_seconds(segments: int) -> float:
        run_dir = folder / f"empty-{segments}-{leaves}"
        run_dir.mkdir()
        spec = RunSpec(
            config=TrainConfig(max_steps=steps, eval_interval=0, save_interval=0, grad_clip=0.0),
            model=ModelConfig(2, 1, 1, 1, 1),
            token_path=run_dir / "none",
            tokenizer_path=run_dir / "none",
            run_dir=run_dir,
            val_tokens=0,
            val_bytes=0,
            tokens_per_epoch=POSITIONS,
            workers=leaves,
            depth=depth_of(leaves),
            permits=cores,
            program="bench.cost_model:build_empty",
            program_options={"segments": segments},
        )
        return POSITIONS / train(spec, on_snapshot=lambda _: None).tokens_per_second

    return engine_from(step_seconds(LITTLE), step_seconds(MUCH), cores)


def depth_of(leaves: int) -> Depth:
    """Return the levels of a tree of so many leaves."""
    return "1" if leaves <= most_leaves("1") else "2"


def engine_from(little_s: float, much_s: float, cores: int) -> Engine:
    """Return the engine's costs from the times of steps with LITTLE and with MUCH segments."""
    unit_s = max(0.0, (much_s - little_s) * cores / (2 * (MUCH - LITTLE)))
    return Engine(max(0.0, little_s - unit_s * (POSITIONS + 2 * LITTLE) / cores), unit_s)


# Reporting


def line(name: str, step: StepTime, tokens: float, share: float, note: str = "") -> str:
    """Return a row of a table: shares of the step, its length, tokens/s, share of peak."""
    parts = "".join(f" {part / step.total:.1%} |" for part in astuple(step))
    return (f"| {name} |{parts} {step.total * 1e3:,.2f} ms | {tokens / step.total:,.0f} |"
            f" {share:.1%} |{note}")  # fmt: skip


def header(first: str, *more: str) -> str:
    """Return the head of such a table."""
    names = [first, *(field.name.replace("_", "-") for field in fields(StepTime)), "step",
             "tokens/s", "share of peak", *more]  # fmt: skip
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, predict, print; with --check, compare."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.cost_model", description=description, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    native = [name for name in formats.names() if formats.is_native(name) and formats.trains(name)]
    parser.add_argument("--precisions", default=",".join(native))
    parser.add_argument("--speeds", type=Path, help="take the speeds from this file")
    parser.add_argument("--save", type=Path, help="write the speeds to this file")
    parser.add_argument("--check", action="store_true", help="train, and compare")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each training of --check")
    parser.add_argument("--cores", type=int, default=64, help="of the larger host")
    parser.add_argument("--memory", type=float, default=300.0, help="of the larger host, GB/s")
    parser.add_argument("--hosts", type=int, default=64, help="each like this machine")
    parser.add_argument("--network", type=float, default=10.0, help="of each host, Gbit/s")
    parser.add_argument("--latency", type=float, default=30.0, help="of a message, microseconds")
    options = parser.parse_args(arguments)
    names, precisions = options.workloads.split(","), options.precisions.split(",")
    if unknown := set(names) - set(WORKLOADS):
        parser.error(f"no workload {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="bench-cost-") as temporary:
        folder = Path(temporary)
        if options.speeds:
            kept = json.loads(options.speeds.read_text())
        else:
            cores = usable_cores()
            kept = {
                "cores": cores,
                "engine": asdict(measure_engine(folder, cores)),
                "tree": asdict(measure_engine(folder, cores, leaves=LEAVES)),
                "speeds": {
                    f"{name} {p}": asdict(measure_speeds(WORKLOADS[name], p, 0.05, cores))
                    for name in names
                    for p in precisions
                },
            }
        if options.save:
            options.save.write_text(json.dumps(kept, indent=1) + "\n")
        engine = Engine(**kept["engine"])
        speeds = {key: Speeds(**values) for key, values in kept["speeds"].items()}
        print(
            f"Engine: {engine.step_s * 1e6:.0f} µs a step and {engine.unit_s * 1e6:.2f} µs a unit."
        )
        seconds = options.seconds if options.check else None
        print_here(names, precisions, speeds, engine, kept["cores"], folder, seconds)
        if "tree" in kept:  # of files of before: no
            tree = Engine(**kept["tree"])
            print(
                f"\nA tree of {1 + POSITIONS + LEAVES}: {tree.step_s * 1e6:.0f} µs a step and "
                f"{tree.unit_s * 1e6:.2f} µs a unit."
            )
            print_here(names, precisions, speeds, tree, kept["cores"], folder, seconds, LEAVES)
    large = Machine(options.cores, options.memory * 1e9)
    auto = auto_lanes(options.cores, 3 * options.cores)
    for lanes in (POSITIONS, options.cores // POSITIONS * POSITIONS, auto, 3 * options.cores):
        if lanes % POSITIONS == 0 and lanes:
            print(f"\n{options.cores} cores, {options.memory:g} GB/s, {lanes} lanes, a batch "
                  f"{lanes / POSITIONS:g} times as large:\n")  # fmt: skip
            print_there(names, precisions, speeds, engine, large, lanes)
    network, latency_s = options.network / 8 * 1e9, options.latency * 1e-6
    print(f"\n{options.hosts} hosts like this one, {options.network:g} Gbit/s, "
          f"{options.latency:g} µs, a batch each:\n")  # fmt: skip
    hosts = Machine(kept["cores"], 0.0, options.hosts, network, latency_s)
    print_there(names, precisions, speeds, engine, hosts, POSITIONS)
    return 0


def print_here(
    names: Sequence[str], precisions: Sequence[str], speeds: dict[str, Speeds],
    engine: Engine, cores: int, folder: Path, seconds: float | None, leaves: int = POSITIONS,
) -> None:  # fmt: skip
    """Print the steps of this machine, beside measured ones when `seconds` of them are wanted."""
    more = ("measured", "predicted / measured") if seconds else ()
    print(f"\n{cores} cores, {POSITIONS} lanes, {leaves} leaves:\n\n{header('here', *more)}")
    for name in names:
        shape = WORKLOADS[name]
        tokens = shape.B * shape.T
        for precision in precisions:
            speed = speeds[f"{name} {precision}"]
            step = predict(shape, precision, speed, engine, Machine(cores, speed.all_memory))
            note = ""
            if seconds:
                count = steps_for(name, seconds, cores * speed.peak, leaves)
                seen = run(
                    name, folder, steps=count, workers=leaves, precision=precision,
                    depth=depth_of(leaves),
                )  # fmt: skip
                measured_s = tokens / steady_rate(seen)
                note = f" {measured_s * 1e3:,.2f} ms | {step.total / measured_s:.2f} |"
            share = tokens * shape.flops_per_token / step.total / (cores * speed.peak)
            print(line(f"{name} {precision}", step, tokens, share, note), flush=True)


def print_there(names: Sequence[str], precisions: Sequence[str], speeds: dict[str, Speeds],
                engine: Engine, machine: Machine, lanes: int) -> None:  # fmt: skip
    """Print the steps of another machine, and where each of them spends its time."""
    print(header("there"))
    told = []
    for name in names:
        shape = replace(WORKLOADS[name], B=WORKLOADS[name].B * lanes // POSITIONS)
        tokens = shape.B * shape.T * machine.hosts
        for precision in precisions:
            speed = speeds[f"{name} {precision}"]
            there = machine if machine.memory else replace(machine, memory=speed.all_memory)
            step = predict(shape, precision, speed, engine, there, lanes)
            peak = machine.hosts * machine.cores * speed.peak
            share = tokens * shape.flops_per_token / step.total / peak
            print(line(f"{name} {precision}", step, tokens, share))
            told.append(f"* {name} {precision}: {where(step)}")
    print("\n" + "\n".join(told))


def where(step: StepTime) -> str:
    """Say where a step spends its time, most of it first, what is below a twentieth left out.

    >>> where(StepTime(0.5, 0.0, 0.01, 0.04, 0.0, 0.45))
    '50 % compute, 45 % network'
    """
    parts = [(getattr(step, f.name) / step.total, f.name.replace("_", "-")) for f in fields(step)]
    return ", ".join(
        f"{s:.0%} {name}".replace("%", " %") for s, name in sorted(parts)[::-1] if s >= 0.05
    )


if __name__ == "__main__":
    sys.exit(main())
