"""The ablation's arithmetic, on runs made up here; training itself has its own tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import ablation
from bench.ablation import PLAIN, Row, runs, summarize

BENCH = Path(ablation.__file__).parent
VARIANTS = {PLAIN: (), "slow": ("--slow",), "same": ("--same",)}
# bits per byte by (variant, seed): slow is better by 0.3, 0.2, 0.1; same is not, on the whole
BITS = {
    (): {1: 2.0, 2: 3.0, 3: 2.5},
    ("--slow",): {1: 1.7, 2: 2.8, 3: 2.4},
    ("--same",): {1: 2.1, 2: 2.9, 3: 2.5},
}
SECONDS = {(): 10.0, ("--slow",): 12.5, ("--same",): 10.25}
calls: list[tuple[Sequence[str], int, int]] = []


def train(corpus: str, tokenizer: str, options: Sequence[str], seed: int, steps: int) -> tuple[float, float]:  # fmt: skip  # noqa: E501
    assert (corpus, tokenizer) == ("texts/novel.txt", "char")
    calls.append((options, seed, steps))
    key = tuple(options)
    shorter = 0.25 if steps < 100 else 0.0  # fewer steps learn less
    return BITS[key][seed] + shorter, SECONDS[key] * steps / 100 * seed  # pairs, not sums, count


def all_rows() -> list[Row]:
    calls.clear()
    done: list[Row] = []
    found = list(
        runs({"novel": "texts/novel.txt"}, ["char"], [1, 2, 3], 100, VARIANTS, done, train)
    )
    assert found == done
    return done


def test_equal_seconds_takes_fewer_steps_of_a_slower_variant_only() -> None:
    all_rows()
    assert [steps for options, _, steps in calls if options == ("--slow",)] == [100] * 3 + [80] * 3
    assert [steps for options, _, steps in calls if options == ("--same",)] == [100] * 3
    assert [steps for options, _, steps in calls if options == ()] == [100] * 3


def test_runs_are_not_repeated() -> None:
    done = all_rows()
    calls.clear()
    assert not list(
        runs({"novel": "texts/novel.txt"}, ["char"], [1, 2, 3], 100, VARIANTS, done, train)
    )
    assert not calls


def test_differences_are_paired_by_seed() -> None:
    plain, slow, same = summarize(all_rows(), "steps")
    assert (plain.mean, plain.verdict) == (2.5, "")
    assert slow.mean == pytest.approx(2.3)
    assert slow.difference == pytest.approx(-0.2)
    assert slow.difference_se == pytest.approx(0.1 / math.sqrt(3))  # unpaired it would be 0.43
    assert slow.slowness == pytest.approx(1.25)
    assert slow.verdict == "helps"
    assert same.difference == pytest.approx(0.0)
    assert same.verdict == "no difference seen"


def test_equal_seconds_is_judged_by_the_runs_of_fewer_steps() -> None:
    _, slow, same = summarize(all_rows(), "seconds")
    assert slow.difference == pytest.approx(0.05)
    assert (slow.steps, same.steps) == (80, 100)
    assert slow.verdict == "no difference seen"


def test_the_report_says_it_plainly_and_keeps_what_stands_around_it(tmp_path: Path) -> None:
    rows = all_rows()
    text = ablation.report(rows)
    assert "| slow | helps / no difference seen (-0.2000 / +0.0500) |" in text
    assert "| slow | 2.3000 ± 0.3215 | -0.2000 ± 0.0577 | helps | 100 | 1.25 |" in text
    path = tmp_path / "A.md"
    path.write_text(
        "# Verdict\n\nby hand\n\n<!-- tables: begin -->\nold\n<!-- tables: end -->\nend\n"
    )
    ablation.write_between_marks(path, text)
    kept = path.read_text()
    assert kept.startswith("# Verdict\n\nby hand\n")
    assert kept.endswith("end\n")
    assert "old" not in kept
    assert text in kept


def test_raw_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    assert ablation.read_rows(path) == []
    row = Row("a", "bpe", "loss, primes", "steps", 1, 5, 2.5, 1.25)
    path.write_text(ablation.OPENING + ablation.line_of(row))
    assert ablation.read_rows(path) == [row]


def test_the_document_is_made_of_the_raw_rows() -> None:
    text = (BENCH / "ABLATION.md").read_text("utf-8")
    tables = ablation.report(ablation.read_rows(BENCH / "ablation.tsv"))
    assert text.partition(ablation.BEGIN)[2].partition(ablation.END)[0] == f"\n{tables}\n"
