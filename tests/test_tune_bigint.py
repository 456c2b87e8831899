"""The tool that measures thresholds: what it decides, what it writes, what it knows."""

from __future__ import annotations

import re

import pytest

from crystalline._kernels.bigint import tuning
from tools import tune_bigint
from tools.tune_bigint import NEVER, best_threshold, rewritten


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], 10),
        ([1.2, 1.1, 0.9, 0.8], 30),
        ([1.2, 0.9, 1.3, 0.8], 40),  # 20 would lose more at 30 than it gains
        ([1.2, 0.7, 1.1, 0.8], 20),
        ([1.2, 1.1, 1.1, 1.2], NEVER),
    ],
)
def test_threshold_that_loses_least(ratios: list[float], expected: int) -> None:
    assert best_threshold([10, 20, 30, 40], ratios) == expected


def test_table_is_rewritten_where_measured() -> None:
    table = tune_bigint.TABLE.read_text("utf-8")
    found = {"base": {"karatsuba": 7}, "avx512ifma": {"karatsuba": 12345, "toom3": 9}}
    text = rewritten(table, found, "a machine, 2026-11")
    assert "Measured on: a machine, 2026-11.\n" in text
    assert re.search(r"X\(karatsuba, 7, \d+, \d+, 12345\) *\\\n", text)
    assert re.search(r"X\(toom3, \d+, \d+, \d+, 9\) *\\\n", text)
    changed = [
        new
        for old, new in zip(table.splitlines(), text.splitlines(), strict=True)
        if old != new and "Measured on" not in old
    ]
    assert len(changed) == 2
    assert {len(line) for line in changed} <= {98}
    assert rewritten(text, {}, "x").count("12345") == 1


def test_every_measure_is_a_threshold() -> None:
    names = [measure.name for measure in tune_bigint.MEASURES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(tuning.values())


def test_a_measurement_ends_with_thresholds_as_they_were() -> None:
    before = tuning.values()
    found = tune_bigint.measure_here(["karatsuba"])
    assert 8 <= found["karatsuba"] <= NEVER
    assert tuning.values() == before


def test_unknown_thresholds_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tune_bigint.main(["--only", "carazuba"])
    assert caught.value.code == 2
    assert "carazuba" in capsys.readouterr().err
