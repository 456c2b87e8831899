"""Does each crystalline part help?  Every part against plain, at equal steps and equal seconds.

    python -m bench.ablation shakespeare.txt dickens/                  # writes bench/ABLATION.md
    python -m bench.ablation my.txt --tokenizers bpe --seeds 3 --steps 300 --output mine.md

For each corpus and tokenizer, and for each seed, plain and every variant are trained one after
the other with the same settings.  The measure is the cross-entropy over the held-out text, in bits
per byte of text, at the last step: plain cross-entropy, whatever a variant was trained on.

* **Equal steps**: the same number of steps, hence the same tokens.
* **Equal seconds**: the steps that the variant does in plain's time; its slowness is the median,
  over all corpora, tokenizers and seeds, of its training seconds over plain's.  Where that is not
  more than 3 % above 1, which is what times vary by, the rows of equal steps stand.

Differences are paired by seed.  A part *helps* (or *hurts*) where the mean difference is at least
twice its standard error.  Every run is a row of the raw file, from which the tables can be made
again (--tables-only); runs that it holds already are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from bench.startup import COMMAND

BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"
SAME_SPEED = 0.03  # what medians of times vary by
SEEDS = (1337, 1, 2, 3, 4, 5, 6, 7, 8, 9)

PLAIN = "plain"
MORPHOLOGY = ("--crystalline-epsilon", "0.1", "--crystalline-similarity", "morphology",
              "--crystalline-schedule", "linear")  # fmt: skip
VARIANTS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "loss, primes": ("--crystalline-epsilon", "0.1"),
    "loss, primes, decaying": ("--crystalline-epsilon", "0.1", "--crystalline-schedule", "linear"),
    "loss, morphology, decaying": MORPHOLOGY,
    "lattice embeddings": ("--init", "lattice"),
    "twelve-fold positions": ("--positions", "twelvefold"),
    "crystalline attention": ("--attention", "crystalline"),
    "root discovery (with loss, morphology, decaying)": (*MORPHOLOGY, "--discovery-interval", "1"),
    "all": (*MORPHOLOGY, "--init", "lattice", "--positions", "twelvefold", "--attention",
            "crystalline", "--discovery-interval", "1"),
}  # fmt: skip

MODEL = ("--num-layers", "4", "--num-heads", "4", "--embed-dim", "128", "--seq-len", "64",
         "--batch-size", "12", "--learning-rate", "1e-3", "--warmup-steps", "50",
         "--save-interval", "0", "--vocab-size", "2000")  # fmt: skip
PLAIN_OPTIONS = {"--init": "normal", "--positions": "learned"}  # where a variant says nothing
EVALUATIONS = 2  # in a run; root discovery follows the first
HELD_OUT_BYTES = 110_000  # of text, at most; and a tenth of the corpus at most


@dataclass(frozen=True)
class Row:
    """One training run."""

    corpus: str
    tokenizer: str
    variant: str
    mode: str  # "steps" or "seconds"
    seed: int
    steps: int
    bits: float  # validation cross-entropy, bits per byte
    seconds: float  # of training

    @property
    def place(self) -> tuple[str, str, int]:
        """What a run shares with the runs of plain that it is compared with."""
        return self.corpus, self.tokenizer, self.seed

    @property
    def key(self) -> tuple[str, str, str, str, int, int]:
        """What makes a run another run."""
        return self.corpus, self.tokenizer, self.variant, self.mode, self.seed, self.steps


OPENING = (
    "# Every run of the ablation, which bench/ablation.py makes its tables from.\n# "
    + "\t".join(field.name for field in fields(Row))
    + "\n"
)


@dataclass(frozen=True)
class Summary:
    """A variant over its seeds, in bits per byte; `se` are standard errors of the means."""

    variant: str
    mean: float
    se: float
    difference: float  # from plain of the same seed; negative is better
    difference_se: float
    slowness: float  # median of training seconds over plain's
    steps: int

    @property
    def verdict(self) -> str:
        """'helps', 'hurts' or 'no difference seen'."""
        if self.variant == PLAIN or abs(self.difference) < 2 * self.difference_se:
            return "" if self.variant == PLAIN else "no difference seen"
        return "helps" if self.difference < 0 else "hurts"


Train = Callable[[str, str, Sequence[str], int, int], tuple[float, float]]
"""(corpus path, tokenizer, options, seed, steps) -> (bits per byte, seconds of training)."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error; the error of a single value is unknown (inf).

    >>> mean_and_error([1.0, 2.0, 3.0])
    (2.0, 0.5773502691896258)
    """
    if len(values) < 2:
        return values[0], math.inf
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def slowness(rows: Sequence[Row], variant: str) -> float:
    """Return the median over all of a variant's seconds over plain's, at equal steps."""
    plain = {row.place: row for row in rows if row.variant == PLAIN and row.mode == "steps"}
    pairs = [
        row.seconds / plain[row.place].seconds
        for row in rows
        if row.variant == variant and row.mode == "steps" and row.place in plain
    ]
    return statistics.median(pairs)


def summarize(rows: Sequence[Row], mode: str) -> list[Summary]:
    """Return plain and the variants of one corpus and tokenizer, over the seeds that both have."""
    plain = {row.seed: row for row in rows if row.variant == PLAIN and row.mode == "steps"}
    found = []
    for variant in dict.fromkeys(row.variant for row in rows):
        of = {m: [r for r in rows if r.variant == variant and r.mode == m] for m in (mode, "steps")}
        mine = [row for row in of[mode] or of["steps"] if row.seed in plain]
        mean, error = mean_and_error([row.bits for row in mine])
        difference, difference_error = mean_and_error([r.bits - plain[r.seed].bits for r in mine])
        ratio = slowness(rows, variant)
        found.append(
            Summary(variant, mean, error, difference, difference_error, ratio, mine[0].steps)
        )
    return found


def steps_in_the_same_time(steps: int, ratio: float) -> int:
    """Return the steps that a variant `ratio` times as slow as plain does in plain's time.

    >>> steps_in_the_same_time(600, 1.2), steps_in_the_same_time(600, 0.995)
    (500, 600)
    """
    return steps if ratio <= 1 + SAME_SPEED else max(1, round(steps / ratio))


def runs(
    corpora: Mapping[str, str],
    tokenizers: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    variants: Mapping[str, tuple[str, ...]],
    done: list[Row],
    train: Train,
) -> Iterator[Row]:
    """Train what `done` does not hold yet, and yield each run as it ends (`done` takes it too)."""
    have = {row.key for row in done}

    def one(corpus: str, tokenizer: str, variant: str, mode: str, seed: int,
            count: int) -> Iterator[Row]:  # fmt: skip
        if (corpus, tokenizer, variant, mode, seed, count) in have:
            return
        bits, seconds = train(corpora[corpus], tokenizer, variants[variant], seed, count)
        row = Row(corpus, tokenizer, variant, mode, seed, count, bits, seconds)
        done.append(row)
        yield row

    places = list(itertools.product(corpora, tokenizers))
    for (corpus, tokenizer), seed, variant in itertools.product(places, seeds, variants):
        yield from one(corpus, tokenizer, variant, "steps", seed, steps)
    slower = {
        variant: steps_in_the_same_time(steps, slowness(done, variant))
        for variant in variants
        if variant != PLAIN
    }
    for (corpus, tokenizer), (variant, count) in itertools.product(places, slower.items()):
        if count != steps:
            for seed in seeds:
                yield from one(corpus, tokenizer, variant, "seconds", seed, count)


def table(summaries: Sequence[Summary]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| variant | bits per byte | difference from plain | | steps | time / plain's |",
        "|---|---|---|---|---|---|",
    ]
    for s in summaries:
        difference = "" if s.variant == PLAIN else f"{s.difference:+.4f} ± {s.difference_se:.4f}"
        lines.append(
            f"| {s.variant} | {s.mean:.4f} ± {s.se:.4f} | {difference} | {s.verdict} "
            f"| {s.steps:,} | {s.slowness:.2f} |"
        )
    return "\n".join(lines)


def verdicts(rows: Sequence[Row]) -> str:
    """Return a table of all verdicts: a line per variant, a column per corpus and tokenizer."""
    places = list(dict.fromkeys((row.corpus, row.tokenizer) for row in rows))
    lines = [
        "| variant |" + "".join(f" {corpus}, {tokenizer} |" for corpus, tokenizer in places),
        "|---|" + "---|" * len(places),
    ]
    cells: dict[str, list[str]] = {}
    for place in places:
        here = [row for row in rows if (row.corpus, row.tokenizer) == place]
        steps, seconds = summarize(here, "steps"), summarize(here, "seconds")
        for equal_steps, equal_seconds in zip(steps, seconds, strict=True):
            both = dict.fromkeys((equal_steps.verdict, equal_seconds.verdict))
            words = " / ".join(both)
            cells.setdefault(equal_steps.variant, []).append(
                f"{words} ({equal_steps.difference:+.4f} / {equal_seconds.difference:+.4f})"
            )
    lines += [
        f"| {variant} | " + " | ".join(found) + " |"
        for variant, found in cells.items()
        if variant != PLAIN
    ]
    return "\n".join(lines)


def command_of(rows: Sequence[Row]) -> str:
    """Return the command that makes these rows, the corpora by their names.

    >>> command_of([Row("novel", "bpe", "plain", "steps", 1, 500, 2.5, 9.0)])
    'python -m bench.ablation novel --tokenizers bpe --seeds 1 --steps 500'
    """
    equal = [row for row in rows if row.mode == "steps"]
    corpora, tokenizers, seeds, steps = (
        list(dict.fromkeys(column))
        for column in zip(*((r.corpus, r.tokenizer, r.seed, r.steps) for r in equal), strict=True)
    )
    return (
        f"python -m bench.ablation {' '.join(corpora)} --tokenizers {','.join(tokenizers)} "
        f"--seeds {len(seeds)} --steps {steps[0]}"
    )


def report(rows: Sequence[Row]) -> str:
    """Return the tables of a document; its conclusions are written by hand around them."""
    how = (
        f"`{command_of(rows)}` (a model of 4 layers, 4 heads and 128 channels, context 64, "
        "batch 12; bits per byte of held-out text, mean ± standard error over the seeds; "
        "differences are paired by seed)."
    )
    parts = [how, "At equal steps / at equal seconds:", verdicts(rows)]
    for corpus, tokenizer in dict.fromkeys((row.corpus, row.tokenizer) for row in rows):
        here = [row for row in rows if (row.corpus, row.tokenizer) == (corpus, tokenizer)]
        parts.append(f"### {corpus}, {tokenizer}")
        parts.append("Equal steps:\n\n" + table(summarize(here, "steps")))
        parts.append("Equal seconds:\n\n" + table(summarize(here, "seconds")))
    return "\n\n".join(parts) + "\n"


def read_rows(path: Path) -> list[Row]:
    """Return the runs of a raw file; none where there is no file."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    kinds = (str, str, str, str, int, int, float, float)
    return [
        Row(*(kind(cell) for kind, cell in zip(kinds, line.split("\t"), strict=True)))
        for line in lines
    ]


def line_of(row: Row) -> str:
    """Return a run as a line of the raw file."""
    return "\t".join(str(cell) for cell in astuple(row)) + "\n"


def size_bytes(corpus: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    if corpus.is_file():
        return corpus.stat().st_size
    return sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())


def train_with_command(folder: Path) -> Train:
    """Return a function that trains by `cllm-train` in a process of its own."""

    def train(corpus: str, tokenizer: str, options: Sequence[str], seed: int,
              steps: int) -> tuple[float, float]:  # fmt: skip
        rest = [
            x for flag in PLAIN_OPTIONS if flag not in options for x in (flag, PLAIN_OPTIONS[flag])
        ]
        held_out = min(0.1, HELD_OUT_BYTES / size_bytes(Path(corpus)))
        command = [
            sys.executable, "-c", COMMAND, corpus, "--tokenizer", tokenizer,
            "--val-fraction", f"{held_out:.4f}",
            *MODEL, "--max-steps", str(steps), "--eval-interval", str(max(1, steps // EVALUATIONS)),
            "--seed", str(seed), "--quiet", "--json",
            "--checkpoint-dir", str(folder / f"run-{time.monotonic_ns()}"), *rest, *options,
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
        if ended.returncode:
            raise SystemExit(f"ablation: a run failed ({' '.join(command)}):\n{ended.stderr}")
        result = json.loads(ended.stdout)
        return result["val_bits_per_byte"], result["seconds"]

    return train


def write_between_marks(path: Path, text: str) -> None:
    """Put `text` between the marks of a document, or make the document."""
    old = path.read_text("utf-8") if path.exists() else f"# Ablation\n\n{BEGIN}{END}"
    before, _, rest = old.partition(BEGIN)
    path.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.partition(END)[2], "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the tables."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.ablation",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpora", nargs="*", help="files or folders of text, each a corpus")
    parser.add_argument("--tokenizers", default="char,bpe", help="of bpe,char,word,byte")
    parser.add_argument("--seeds", type=int, default=5, help=f"1 to {len(SEEDS)}")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--variants", help="names, separated by ';'; default: all")
    parser.add_argument("--raw", type=Path, default=Path("bench/ablation.tsv"))
    parser.add_argument("--output", type=Path, default=Path("bench/ABLATION.md"))
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    if not 1 <= options.seeds <= len(SEEDS):
        parser.error(f"--seeds is {options.seeds}: use 1 to {len(SEEDS)}")
    chosen = dict(VARIANTS)
    if options.variants:
        names = options.variants.split(";")
        if unknown := set(names) - set(VARIANTS):
            parser.error(f"no variant {unknown}; there are {'; '.join(VARIANTS)}")
        chosen = {name: VARIANTS[name] for name in (PLAIN, *names)}
    rows = read_rows(options.raw)
    corpora = {Path(corpus).stem: corpus for corpus in options.corpora}
    if not options.tables_only:
        tokenizers = options.tokenizers.split(",")
        total = len(corpora) * len(tokenizers) * options.seeds * len(chosen)
        began, count = time.monotonic(), 0
        with (
            tempfile.TemporaryDirectory(prefix="ablation-") as folder,
            options.raw.open("a", encoding="utf-8") as raw,
        ):
            if not raw.tell():
                raw.write(OPENING)
            train = train_with_command(Path(folder))
            seeds = SEEDS[: options.seeds]
            for row in runs(corpora, tokenizers, seeds, options.steps, chosen, rows, train):
                raw.write(line_of(row))
                raw.flush()
                count += 1
                minutes = (time.monotonic() - began) / 60
                print(
                    f"{count} runs ({total} at equal steps), {minutes:.1f} min: {row.corpus} "
                    f"{row.tokenizer} {row.variant} ({row.mode}) {row.bits:.4f}",
                    file=sys.stderr,
                )
    if not rows:
        parser.error("there is nothing to report: name a corpus")
    write_between_marks(options.output, report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
