"""What each sphere did lately, from successive snapshots: rates and shares of time.

A snapshot holds totals since a sphere started.  `ActivityMeter` compares it with one
from a few seconds and at least two steps ago; a sphere that was replaced meanwhile,
or that has no earlier snapshot, is measured over its whole life.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from crystalline.train.stats import Activity, Snapshot, SphereStats

__all__ = ["Activity", "ActivityMeter"]

WINDOW_S = 10.0
WINDOW_STEPS = 2


@dataclass(frozen=True)
class _Sample:
    elapsed_s: float
    step: int
    spheres: dict[int, SphereStats]


class ActivityMeter:
    """Keeps as many earlier samples as it needs, one a step at most."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def update(self, snapshot: Snapshot) -> dict[int, Activity]:
        """Return the activity of every sphere in `snapshot`, by index."""
        samples = self._samples
        if samples and snapshot.elapsed_s < samples[-1].elapsed_s:
            samples.clear()  # another session
        while len(samples) > 1 and _old_enough(samples[1], snapshot):
            samples.popleft()
        before = samples[0] if samples else _Sample(snapshot.elapsed_s, snapshot.step, {})
        activity = {
            s.index: _measure(before.spheres.get(s.index), s, snapshot.elapsed_s - before.elapsed_s)
            for s in snapshot.spheres
        }
        if not samples or (
            snapshot.step > samples[-1].step
            and snapshot.elapsed_s >= samples[-1].elapsed_s + WINDOW_S / 20
        ):
            spheres = {s.index: s for s in snapshot.spheres}
            samples.append(_Sample(snapshot.elapsed_s, snapshot.step, spheres))
        return activity


def _old_enough(sample: _Sample, snapshot: Snapshot) -> bool:
    return (
        snapshot.elapsed_s - sample.elapsed_s >= WINDOW_S
        and snapshot.step - sample.step >= WINDOW_STEPS
    )


def _measure(before: SphereStats | None, now: SphereStats, passed_s: float) -> Activity:
    if before is None or before.pid != now.pid or now.tokens < before.tokens or passed_s <= 0:
        tokens, compute, sync, idle = now.tokens, now.compute_s, now.sync_s, now.idle_s
        passed_s = compute + sync + idle
    else:
        tokens = now.tokens - before.tokens
        compute = now.compute_s - before.compute_s
        sync = now.sync_s - before.sync_s
        idle = now.idle_s - before.idle_s
    total = compute + sync + idle
    if not passed_s > 0:
        return Activity()
    if not total > 0:
        return Activity(tokens_per_second=tokens / passed_s)
    return Activity(tokens / passed_s, compute / total, sync / total, idle / total)
