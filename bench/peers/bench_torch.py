"""Ours against PyTorch on the same cores, alternating in one run; medians of pairs.

    pip install torch==2.13.0          # by hand, a CPU build; in no dependency list of ours
    python -m bench.peers.bench_torch --workloads tiny,small --rounds 3 --seconds 8
    python -m bench.peers.bench_torch --variants 'float32-*,*-tuned' --json peers.json

PyTorch may live in an environment of its own: BENCH_TORCH_PYTHON names its interpreter.

A variant is PRECISION-MODE-LIBRARY: float32 or bf16 (autocast), eager or compile
(`torch.compile`), stock or tuned.  *stock* is what `pip install` gives.  *tuned* is stock with

* its matrix library on its fast path: MKL takes AVX-512 on CPUs of its own maker only, AVX2
  elsewhere.  A preloaded library of one function, `mkl_serv_intel_cpu_true`, which returns 1,
  lifts that (needs a C compiler; proposed in pytorch/builder#1245).  MKL_DEBUG_CPU_TYPE,
  MKL_ENABLE_INSTRUCTIONS and MKL_CBWR change nothing in MKL 2024.2, which PyTorch 2.13 contains;
  `torch.set_float32_matmul_precision("medium")` leads to oneDNN, which is faster than stock but
  slower than this, and would round to bf16 where the CPU has AMX;
* glibc's malloc keeping memory between steps instead of returning it to the kernel.

Ours and PyTorch are timed after warm-up.  Before a variant is timed it starts from our initial
weights and its loss and gradient norm on a batch must equal ours; four steps on that batch must
lower the loss.  In a round, runs of ours at
both precisions stand before, between and after the variants; a pair is the mean of our runs next
to a group of variants over a variant of that group.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.peak import peak_flops
from bench.workloads import WORKLOADS, Workload, run, steady_rate, steps_for
from crystalline._kernels import formats, isa
from crystalline.machine.cores import usable_cores
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer

SCRIPT = Path(__file__).with_name("torch_gpt.py")
VARIABLE = "BENCH_TORCH_PYTHON"
PRECISIONS = ("float32", "bf16")
TOLERANCE = {"float32": 1e-4, "bf16": 2e-2}  # relative, of first loss and gradient norm
TOKENS, SEED = 1_000_000, 1337
SPHERES = 12
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
# What would make stock another thing, or ours.
UNWANTED = ("LD_PRELOAD", "MKL_", "ONEDNN_", "DNNL_", "OMP_", "GOMP_", "KMP_", "MALLOC_", "TORCH",
            "GLIBC_TUNABLES", "PYTHONPATH")  # fmt: skip


class PeerError(Exception):
    """PyTorch is missing, or computes something else; the message is all a reader needs."""


@dataclass(frozen=True)
class Variant:
    """One way to run the peer."""

    precision: str  # "float32" or "bf16"
    mode: str  # "eager" or "compile"
    library: str  # "stock" or "tuned"

    @property
    def name(self) -> str:
        """PRECISION-MODE-LIBRARY."""
        return f"{self.precision}-{self.mode}-{self.library}"


VARIANTS = [
    Variant(precision, mode, library)
    for precision in PRECISIONS
    for mode in ("eager", "compile")
    for library in ("stock", "tuned")
]


@dataclass(frozen=True)
class Round:
    """One round: rates in tokens per second, peaks in FLOP/s by precision.

    `ours[i]` are our runs by precision; the variants of group i lie between `ours[i]` and
    `ours[i + 1]`.
    """

    ours: list[dict[str, float]]
    peers: list[dict[str, float]]
    peaks: dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the rounds."""

    name: str
    tokens_per_second: float
    share: float  # of the measured peak of its precision
    ours_over_it: dict[str, float]  # by our precision; empty for ours


def choose(patterns: str) -> list[Variant]:
    """Return the variants that match any of the comma-separated patterns.

    >>> [variant.name for variant in choose("float32-*-tuned")]
    ['float32-eager-tuned', 'float32-compile-tuned']
    """
    chosen = []
    for pattern in patterns.split(","):
        found = [v for v in VARIANTS if fnmatch.fnmatchcase(v.name, pattern.strip())]
        if not found:
            names = ", ".join(v.name for v in VARIANTS)
            raise PeerError(f"no variant matches {pattern!r}; there are {names}")
        chosen += found
    return [v for v in VARIANTS if v in chosen]


def environment(base: Mapping[str, str], variant: Variant, folder: Path) -> dict[str, str]:
    """Return the environment for a variant; `folder` holds the preloaded library and caches."""
    env = {key: value for key, value in base.items() if not key.startswith(UNWANTED)}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    if variant.library == "tuned":
        env |= KEEP_MEMORY | {"LD_PRELOAD": str(folder / "fast_path.so")}
    return env


def summarize(rounds: Sequence[Round], flops_per_token: float) -> list[Row]:
    """Return ours and the variants with their medians over the rounds."""
    rows = []
    for precision in rounds[0].ours[0]:
        per_round = [
            (statistics.mean(runs[precision] for runs in r.ours), r.peaks[precision])
            for r in rounds
        ]
        rate = statistics.median(rate for rate, _ in per_round)
        share = statistics.median(rate * flops_per_token / peak for rate, peak in per_round)
        rows.append(Row(f"ours {precision}", rate, share, {}))
    for group, names in enumerate(rounds[0].peers):
        for name in names:
            precision = name.partition("-")[0]
            rates = [r.peers[group][name] for r in rounds]
            shares = [
                rate * flops_per_token / r.peaks[precision]
                for rate, r in zip(rates, rounds, strict=True)
            ]
            ratios = {
                mine: statistics.median(
                    (r.ours[group][mine] + r.ours[group + 1][mine]) / 2 / rate
                    for rate, r in zip(rates, rounds, strict=True)
                )
                for mine in rounds[0].ours[0]
            }
            rows.append(Row(name, statistics.median(rates), statistics.median(shares), ratios))
    return rows


def table(workload: str, rows: Sequence[Row]) -> str:
    """Return a workload's rows as Markdown, the best peer of each precision in bold."""
    mine = [row.name.partition(" ")[2] for row in rows if not row.ours_over_it]
    best = {
        max((row for row in rows if row.name.startswith(p + "-")),
            key=lambda row: row.tokens_per_second, default=rows[0]).name
        for p in PRECISIONS
    }  # fmt: skip
    lines = [
        f"| {workload} | tokens/s | share of peak |"
        + "".join(f" ours {precision} / it |" for precision in mine),
        "|---|---|---|" + "---|" * len(mine),
    ]
    for row in rows:
        name = row.name if not row.ours_over_it else f"PyTorch {row.name}"
        if row.ours_over_it and row.name in best:
            name = f"**{name}**"
        ratios = "".join(
            f" {row.ours_over_it[p]:.2f} |" if row.ours_over_it else " |" for p in mine
        )
        lines.append(f"| {name} | {row.tokens_per_second:,.0f} | {row.share:.1%} |{ratios}")
    return "\n".join(lines)


def check(variant: Variant, result: Mapping[str, Any], loss: float, norm: float) -> None:
    """Raise PeerError unless the peer computes what we do: `loss` and `norm` are ours."""
    for what, got, want in (
        ("first loss", result["first_loss"], loss),
        ("first gradient norm", result["first_norm"], norm),
    ):
        if not abs(got - want) <= TOLERANCE[variant.precision] * want:
            raise PeerError(f"{variant.name}: the {what} is {got:.6f}, ours is {want:.6f}")
    if not result["last_loss"] < result["first_loss"] - 0.01:
        raise PeerError(
            f"{variant.name} does not learn: its loss on one batch went from "
            f"{result['first_loss']:.4f} to {result['last_loss']:.4f}"
        )


def interpreter() -> tuple[str, str]:
    """Return the Python that has PyTorch, and the version of PyTorch."""
    python = os.environ.get(VARIABLE, sys.executable)
    code = "import torch; print(torch.__version__)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    except OSError as error:
        raise PeerError(f"{VARIABLE} is {python}, which does not start: {error}") from error
    if done.returncode:
        raise PeerError(
            f"PyTorch cannot be imported by {python}. Install it by hand "
            f"(pip install torch==2.13.0) or name an interpreter that has it in {VARIABLE}."
        )
    return python, done.stdout.strip()


def build_fast_path(folder: Path) -> None:
    """Compile the library that puts MKL on its fast path."""
    source, compiler = folder / "fast_path.c", shutil.which("cc")
    if compiler is None:
        raise PeerError("the tuned variants need a C compiler called cc; leave them out by "
                        "--variants '*-stock', or install gcc")  # fmt: skip
    source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
    library = folder / "fast_path.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)


def write_start(shape: Workload, folder: Path) -> tuple[float, float]:
    """Write initial weights and tokens for the peer; return our loss and gradient norm of them."""
    folder.mkdir()
    parameters = parameter_table(shape.model)
    weights = np.empty(parameters.size, np.float32)
    initialize(shape.model, weights, SEED)
    for name, view in parameters.views(weights).items():
        np.save(folder / f"{name}.npy", view)
    tokens = np.random.default_rng(1).integers(0, shape.V, TOKENS).astype(np.int32)
    np.save(folder / "tokens.npy", tokens)
    starts = np.arange(shape.B) * shape.T
    windows = tokens[starts[:, None] + np.arange(shape.T + 1)]
    grads = np.zeros(parameters.size, np.float32)
    targets = shape.B * shape.T
    loss = Transformer.allocate(shape.model, weights).compute(windows, grads, scale=1 / targets)
    return loss / targets, float(np.linalg.norm(grads.astype(np.float64)))


def run_ours(name: str, folder: Path, seconds: float, peak: float, precision: str) -> float:
    """Return our tokens per second over `seconds` or more of training on all cores."""
    steps = steps_for(name, seconds, peak, SPHERES)
    return steady_rate(run(name, folder, steps=steps, workers=SPHERES, precision=precision))


def run_peer(python: str, variant: Variant, shape: Workload, folder: Path, start: Path,
             seconds: float) -> dict[str, Any]:  # fmt: skip
    """Time a variant in a process of its own."""
    job = asdict(shape) | {
        "folder": str(start),
        "precision": variant.precision,
        "compiled": variant.mode == "compile",
        "threads": usable_cores(),
        "seconds": seconds,
    }
    done = subprocess.run(
        [python, str(SCRIPT), json.dumps(job)],
        env=environment(os.environ, variant, folder),
        capture_output=True,
        text=True,
        timeout=900 + 20 * seconds,
    )
    if done.returncode:
        raise PeerError(f"{variant.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(name: str, variants: Sequence[Variant], rounds: int, seconds: float, python: str,
            folder: Path) -> list[Round]:  # fmt: skip
    """Run ours and the variants in turn; the first round's compilations are cached for the rest."""
    shape, cores = WORKLOADS[name], usable_cores()
    mine = PRECISIONS if formats.is_native("bf16") else PRECISIONS[:1]
    start = folder / f"{name}-start"
    loss, norm = write_start(shape, start)
    groups = [[v for v in variants if v.precision == p] for p in PRECISIONS]
    groups = [group for group in groups if group]

    def peaks() -> dict[str, float]:
        return {p: peak_flops(cores, 0.3, p if p in mine else "float32") for p in PRECISIONS}

    def ours(peak: Mapping[str, float]) -> dict[str, float]:
        return {p: run_ours(name, folder, seconds, peak[p], p) for p in mine}

    done = []
    for number in range(rounds):
        before = peaks()
        our_runs, peer_runs = [ours(before)], []
        for group in groups:
            rates = {}
            for variant in group:
                result = run_peer(python, variant, shape, folder, start, seconds)
                check(variant, result, loss, norm)
                rates[variant.name] = result["tokens_per_second"]
                say(f"{name} round {number + 1}: {variant.name} {rates[variant.name]:,.0f}")
            peer_runs.append(rates)
            our_runs.append(ours(before))
            say(
                f"{name} round {number + 1}: ours "
                + str({p: round(x) for p, x in our_runs[-1].items()})
            )
        after = peaks()
        mean = {p: (before[p] + after[p]) / 2 for p in before}
        done.append(Round(our_runs, peer_runs, mean))
    shutil.rmtree(start)
    return done


def say(text: str) -> None:
    """Print a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print a table per workload."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers.bench_torch",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ",".join(WORKLOADS)
    parser.add_argument("--workloads", default=known, help=f"of {known}")
    parser.add_argument("--variants", default="*", help="patterns of PRECISION-MODE-LIBRARY")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run, about")
    parser.add_argument("--json", type=Path, help="also write every rate of every round here")
    options = parser.parse_args(arguments)
    names = options.workloads.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown or options.rounds < 1:
        parser.error(f"no workload {unknown}" if unknown else "--rounds must be at least 1")
    try:
        variants = choose(options.variants)
        python, version = interpreter()
        with tempfile.TemporaryDirectory(prefix="bench-torch-") as temporary:
            folder = Path(temporary)
            if any(v.library == "tuned" for v in variants):
                build_fast_path(folder)
            print(
                f"PyTorch {version}, {usable_cores()} threads; ours at level {isa.level()}, "
                f"{SPHERES} spheres; medians of {options.rounds} rounds, runs of "
                f"{options.seconds:g} s."
            )
            kept = {}
            for name in names:
                rounds = compare(name, variants, options.rounds, options.seconds, python, folder)
                report(name, rounds)
                kept[name] = [asdict(r) for r in rounds]
                if options.json:
                    options.json.write_text(json.dumps(kept, indent=1))
    except PeerError as error:
        say(f"bench_torch: {error}")
        return 1
    return 0


def report(name: str, rounds: Sequence[Round]) -> None:
    """Print the table of a workload, with the peaks that its shares refer to."""
    peaks = [
        f"{statistics.median(r.peaks[p] for r in rounds) / 1e9:.0f} GFLOP/s {p}"
        for p in rounds[0].peaks
    ]
    print(f"\nPeak: {', '.join(peaks)}.\n")
    print(table(name, summarize(rounds, WORKLOADS[name].flops_per_token)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
