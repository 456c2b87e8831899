"""Rates of spheres from successive snapshots, against differences taken by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crystalline.train.stats import Snapshot, SphereStats
from crystalline.ui.activity import Activity, ActivityMeter
from tests.ui.fake_snapshots import fake_snapshot


def at(elapsed_s: float, step: int, **fields: float) -> Snapshot:
    sphere = replace(
        fake_snapshot(1, spheres=1).spheres[0],
        **{"tokens": 0, "compute_s": 0.0, "sync_s": 0.0, "idle_s": 0.0, **fields},
    )
    return replace(fake_snapshot(1), elapsed_s=elapsed_s, step=step, spheres=(sphere,))


def test_first_snapshot_is_measured_over_the_whole_life() -> None:
    meter = ActivityMeter()
    seen = meter.update(at(100, 10, tokens=600, compute_s=15.0, sync_s=3.0, idle_s=12.0))
    assert seen == {0: Activity(20.0, 0.5, 0.1, 0.4)}


def test_nothing_measured_yet() -> None:
    assert ActivityMeter().update(at(0, 0)) == {0: Activity()}


def test_later_snapshots_are_measured_against_an_earlier_one() -> None:
    meter = ActivityMeter()
    meter.update(at(100, 10, tokens=600, compute_s=15.0, sync_s=3.0, idle_s=12.0))
    seen = meter.update(at(104, 12, tokens=1000, compute_s=16.0, sync_s=5.0, idle_s=13.0))
    assert seen == {0: Activity(100.0, 0.25, 0.5, 0.25)}


def test_old_samples_are_forgotten() -> None:
    meter = ActivityMeter()
    # 10 tokens a second at first, 50 a second later: after a while only the 50 count.
    tokens = 0
    for second in range(60):
        tokens += 10 if second < 30 else 50
        seen = meter.update(at(second, second, tokens=tokens, compute_s=float(second)))
    assert seen[0].tokens_per_second == pytest.approx(50)
    assert len(meter._samples) < 25


def test_long_steps_are_measured_over_two_of_them() -> None:
    meter = ActivityMeter()
    # A step takes 60 s, its tokens are counted at its end; shown every second.
    rates = []
    for second in range(400):
        done = second // 60
        seen = meter.update(at(second, done, tokens=done * 600, idle_s=float(second)))
        rates.append(seen[0].tokens_per_second)
    assert all(rate is not None and 4 < rate < 11 for rate in rates[200:])


def test_a_replaced_sphere_starts_anew() -> None:
    meter = ActivityMeter()
    meter.update(at(100, 10, tokens=600, compute_s=15.0))
    seen = meter.update(at(104, 12, tokens=700, compute_s=2.0, pid=99))
    assert seen[0].tokens_per_second == 350.0


def test_a_new_sphere_beside_old_ones() -> None:
    meter = ActivityMeter()
    first = at(100, 10, tokens=600, compute_s=15.0)
    meter.update(first)
    new: SphereStats = replace(first.spheres[0], index=7, pid=5, tokens=30, compute_s=1.0)
    later = at(102, 11, tokens=700, compute_s=17.0)
    seen = meter.update(replace(later, spheres=(*later.spheres, new)))
    assert seen[7].tokens_per_second == 30.0
    assert seen[0].tokens_per_second == 50.0
