"""Rows of marks: sums over all, a ring of the newest, nothing while it is off."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from crystalline._kernels.marks import KINDS, PASSES, MarkRow, row_words
from crystalline.engine import recording
from crystalline.engine.recording import (
    FIRST_PHASE,
    Recording,
    kind_names,
    phase_kind,
    waiting_kind,
)


def test_a_ring_keeps_the_newest_and_sums_are_over_all() -> None:
    found = Recording(3)
    found.switch(True)
    row = found.row(1)
    ring = (found._rows.shape[1] - row_words(0)) // 3
    for number in range(ring + 5):
        row.span(10 * number, 10 * number + 3, number % 2 + 4, number)
    one = found.read(1)
    assert one.written == ring + 5
    assert one.marks[:, 0].tolist() == [10 * n for n in range(5, ring + 5)]
    assert one.marks[0].tolist() == [50, 53, 5 << 8 | 5]
    assert one.sums[4:6].tolist() == [[3 * (ring + 6) // 2, (ring + 6) // 2]] * 1 + [
        [3 * ((ring + 5) // 2), (ring + 5) // 2]
    ]
    assert found.read(0).written == 0


def test_nothing_is_recorded_while_it_is_off() -> None:
    found = Recording(1)
    row = found.row(0)
    row.span(1, 2, 0, 0)
    found.switch(True)
    row.span(1, 2, 0, 0)
    found.switch(False)
    row.span(1, 2, 0, 0)
    assert found.read(0).written == 1


def test_a_fork_writes_what_its_parent_reads() -> None:
    found = Recording(2)
    found.switch(True)
    pid = os.fork()
    if not pid:
        found.row(1).span(5, 9, 3, 2)
        os._exit(0)
    os.waitpid(pid, 0)
    assert found.read(1).marks.tolist() == [[5, 9, 2 << 8 | 3]]


@pytest.mark.parametrize("rows", [1, 12, 64, 200])
def test_the_memory_is_bounded(rows: int) -> None:
    size = Recording(rows)._rows.nbytes
    assert size <= max(recording.RING_BYTES, rows * 8 * row_words(recording.LEAST_RING)) * 1.2


def test_a_row_must_be_one() -> None:
    on = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="a row of marks has 300 words"):
        MarkRow(np.zeros(300, np.int64), on)
    with pytest.raises(ValueError, match="no kind 64"):
        MarkRow(np.zeros(row_words(2), np.int64), on).span(0, 1, KINDS, 0)


def test_every_kind_has_a_name() -> None:
    phases = [f"phase {number}" for number in range(1, 16)]
    names = kind_names(phases)
    assert len(names) <= KINDS
    assert names[: len(PASSES)] == PASSES
    assert [names[phase_kind(n)] for n in (1, 15)] == ["phase 1", "phase 15"]
    assert names[waiting_kind(2, 15)] == "end of phase 2"
    assert phase_kind(1) == FIRST_PHASE


def test_a_mark_costs_next_to_nothing() -> None:
    """What is checked is the order: a microsecond would be felt, a tenth of it is not."""
    found = Recording(1)
    found.switch(True)
    row = found.row(0)
    best = min(_seconds(row) for _ in range(5))
    assert best / 10_000 < 2e-6  # with Python's call


def _seconds(row: MarkRow) -> float:
    began = time.perf_counter()
    for _ in range(10_000):
        row.span(1, 2, 3, 4)
    return time.perf_counter() - began
