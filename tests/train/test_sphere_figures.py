"""What a run tells of its spheres: counts that must add up, and what a death leaves in them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from crystalline.train.stats import Snapshot
from tests.train.engine_runs import run

STEPS, SEGMENTS, LANES = 20, 7, 12  # of the fake program


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    seen: list[Snapshot] = []
    run(
        tmp_path_factory.mktemp("run"), seen.append, steps=STEPS, workers=12, permits=2,
        log_interval=1,
    )  # fmt: skip
    return seen[-1]


def test_counts_of_spheres_add_up(last: Snapshot) -> None:
    spheres = last.spheres
    assert sum(s.lanes_done for s in spheres) == STEPS * LANES
    assert all(sum(s.lanes_by_group) == s.lanes_done for s in spheres)
    assert all(s.sequences == 2 * s.lanes_done for s in spheres)
    assert sum(s.segments_updated for s in spheres) == STEPS * SEGMENTS
    assert sum(s.stolen for s in spheres) == sum(s.steals for s in spheres)
    assert all(s.grad_largest >= s.grad_smallest > 0 for s in spheres if s.lanes_done)
    assert all(s.peak_memory_bytes >= s.memory_bytes for s in spheres)
    assert all(s.retries == s.errors == s.respawns == 0 for s in spheres)


def test_the_work_is_spread_evenly_over_the_positions(last: Snapshot) -> None:
    assert last.work_by_group == pytest.approx([1 / 12] * 12)
    assert last.work_entropy == pytest.approx(3.585, abs=1e-3)
    assert last.balance is not None
    assert 1.0 <= last.balance <= 12.0


def test_a_death_in_a_unit_is_counted(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    killed: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        busy = [s for s in snapshot.spheres if s.state == "compute" and s.lanes_done]
        if busy and not killed:
            killed.append(busy[0].index)
            os.kill(busy[0].pid, signal.SIGKILL)

    run(tmp_path, watch, steps=6, workers=2, options={"naps": {"compute": 0.02}})
    (index,) = killed
    sphere = next(s for s in seen[-1].spheres if s.index == index)
    assert (sphere.respawns, sphere.errors) == (1, 0)
    assert sphere.retries <= 1
    assert max(s.quiet_s for s in seen[-1].spheres) < 30.0
