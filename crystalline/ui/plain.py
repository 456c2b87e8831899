"""Progress as plain lines: no terminal needed, ASCII only, easy to grep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from crystalline.train.stats import OVER, Diagnosis, Snapshot
from crystalline.ui import format as fmt
from crystalline.untrusted import one_line

if TYPE_CHECKING:
    from typing_extensions import Self


def progress_line(snapshot: Snapshot) -> str:
    """The figures of one moment in columns that never change their order.

    >>> from dataclasses import replace
    >>> s = Snapshot(
    ...     run_dir="runs/x", state="training", step=120, max_steps=2000, epoch=1.5,
    ...     elapsed_s=4, eta_s=62, loss=2.45671, val_loss=2.50117, best_val_loss=2.5,
    ...     val_bits_per_byte=3.6, learning_rate=9.9e-4, grad_norm=0.5, clip_factor=1.0,
    ...     tokens=92160, tokens_per_second=38_100, flops_per_token=5e6, peak_share=None,
    ...     dropped_steps=0, workers=12, permits=2, lanes=12, parameters=810_000,
    ...     precision="float32", isa="avx2", last_checkpoint=None, message=None)
    >>> progress_line(s)
    'step 120/2000  loss 2.4567  val 2.5012  lr 9.9e-04  38.1k tok/s  eta 1m02s'
    >>> progress_line(replace(s, state="paused", val_loss=None, dropped_steps=3))
    'step 120/2000  loss 2.4567  val -  lr 9.9e-04  38.1k tok/s  eta 1m02s  dropped 3  paused'
    >>> progress_line(replace(s, state="finished", crystalline_loss=2.81))
    'step 120/2000  loss 2.4567  crystal 2.8100  val 2.5012  lr 9.9e-04  38.1k tok/s  finished'
    """
    parts = [
        f"step {snapshot.step}/{snapshot.max_steps}",
        f"loss {fmt.loss(snapshot.loss)}",
    ]
    if snapshot.crystalline_loss is not None:
        parts.append(f"crystal {fmt.loss(snapshot.crystalline_loss)}")
    parts += [
        f"val {fmt.loss(snapshot.val_loss)}",
        f"lr {snapshot.learning_rate:.1e}",
        f"{fmt.count(snapshot.tokens_per_second or None)} tok/s",
    ]
    if snapshot.state not in OVER:
        parts.append(f"eta {fmt.duration(snapshot.eta_s).replace(' ', '')}")
    if snapshot.dropped_steps:
        parts.append(f"dropped {snapshot.dropped_steps}")
    if snapshot.state not in ("training", "evaluating", "discovering", "saving"):
        parts.append(snapshot.state)
    return ascii_only("  ".join(parts).replace(fmt.DASH, "-"))


def activity_line(snapshot: Snapshot) -> str:
    """What a run does that lasts, and how far it is with it; None of its figures move meanwhile.

    >>> from dataclasses import replace
    >>> s = Snapshot(
    ...     run_dir="runs/x", state="evaluating", step=120, max_steps=2000, epoch=1.5,
    ...     elapsed_s=4, eta_s=62, loss=2.45671, val_loss=2.50117, best_val_loss=2.5,
    ...     val_bits_per_byte=3.6, learning_rate=9.9e-4, grad_norm=0.5, clip_factor=1.0,
    ...     tokens=92160, tokens_per_second=38_100, flops_per_token=5e6, peak_share=None,
    ...     dropped_steps=0, workers=12, permits=2, lanes=12, parameters=810_000,
    ...     precision="float32", isa="avx2", last_checkpoint=None, message=None,
    ...     state_s=137.6, work_done=504_000, work_total=1_200_000)
    >>> activity_line(s)
    'evaluating: 42 % of 1.20M tokens, eta 3m10s'
    >>> activity_line(replace(s, state="saving", work_total=0))
    'saving: for 2m17s so far'
    >>> activity_line(replace(s, state="training", state_s=31, work_total=0))
    'step 121/2000: for 31s so far'
    """
    share = snapshot.work_share
    what = snapshot.state
    if what == "training":
        what = f"step {snapshot.step + 1}/{max(snapshot.step + 1, snapshot.max_steps)}"
    if share is None:
        return ascii_only(f"{what}: for {_time(snapshot.state_s)} so far")
    line = f"{what}: {int(100 * share)} % of {fmt.count(snapshot.work_total)} tokens"
    if snapshot.work_eta_s is not None:
        line += f", eta {_time(snapshot.work_eta_s)}"
    return ascii_only(line)


def diagnostics_line(found: Diagnosis) -> str:
    """What weights and gradients look like, by group.

    >>> from crystalline.train.stats import Sizes
    >>> sizes = Sizes("attention", 0.0088, 0.1, 3.4e-4, 2e-4, 1.2e-2, 0.02, 0.001)
    >>> diagnostics_line(Diagnosis(50, (sizes,), ()))
    'diagnostics 50: weights attention 8.8e-03; gradients attention 3.4e-04 (max 0.0120, 2% zero)'
    """
    weights = " ".join(f"{one.name} {fmt.short(one.weight_rms)}" for one in found.groups)
    gradients = ", ".join(
        f"{one.name} {fmt.short(one.gradient_rms)} (max {fmt.short(one.gradient_max)}, "
        f"{fmt.percent(one.gradient_zeros)} zero)"
        for one in found.groups
    )
    return ascii_only(f"diagnostics {found.step}: weights {weights}; gradients {gradients}")


def _time(seconds: float | None) -> str:
    return fmt.duration(seconds).replace(" ", "").replace(fmt.DASH, "-")


def ascii_only(text: str) -> str:
    r"""One line of ASCII without control characters; other characters as \x, \u escapes.

    >>> print(ascii_only("café\x1b[1m"))
    caf\xe9?[1m
    """
    return one_line(text).encode("ascii", "backslashreplace").decode("ascii")


LASTING_S = 10.0
DIAGNOSTICS_S = 30.0  # between lines of diagnostics, at least


class PlainReporter:
    """Writes a line at most every `interval_s` seconds, and only when the step has moved.

    The first step, each evaluation, a change between running and paused, the last
    step and every new message get their line at once.  Whatever keeps the step from moving
    for `LASTING_S` is told as often.  When `stream` can no longer
    be written to, the run goes on without lines.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._interval_s = interval_s
        self._clock = clock
        self._written: Snapshot | None = None
        self._written_at = 0.0
        self._latest: Snapshot | None = None
        self._diagnosed: int | None = None  # the step of the newest line of diagnostics
        self._diagnosed_at = -DIAGNOSTICS_S
        self._told_at = clock()  # anything, or that nothing lasts
        self._message: str | None = None
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        latest, written = self._latest, self._written
        if not latest or not latest.step or latest.state == "starting":
            return
        if not written or latest.step != written.step:
            self._write_progress(latest)

    def show(self, snapshot: Snapshot) -> None:
        """Write the line of `snapshot` if one is due."""
        if snapshot.message is not None and snapshot.message != self._message:
            self.message(snapshot.message)
        self._message = snapshot.message
        self._latest = snapshot
        if self._due(snapshot):
            self._write_progress(snapshot)
        elif snapshot.state == "paused" or snapshot.state in OVER:
            self._told_at = self._clock()
        elif snapshot.state_s >= LASTING_S and self._clock() - self._told_at >= LASTING_S:
            self._write(activity_line(snapshot))

    def message(self, text: str) -> None:
        """Write `text` on a line of its own."""
        self._write(ascii_only(text))

    def error(self, text: str) -> None:
        """Write `text` on a line of its own."""
        self.message(text)

    def poll(self) -> list[str]:
        """Return no actions: lines have no keys."""
        return []

    def _due(self, now: Snapshot) -> bool:
        last = self._written
        if now.step < 1 or now.state == "starting":
            return False
        if last is None:
            return True
        if (now.state == "paused") != (last.state == "paused"):
            return True
        if now.eval_history[-1:] != last.eval_history[-1:]:
            return True
        if now.step == last.step:
            return False
        final = now.step >= now.max_steps or now.state in OVER
        return final or self._clock() - self._written_at >= self._interval_s

    def _write_progress(self, snapshot: Snapshot) -> None:
        self._written = snapshot
        self._written_at = self._clock()
        self._write(progress_line(snapshot))
        found, now = snapshot.diagnosis, self._clock()
        if (
            found is not None
            and found.step != self._diagnosed
            and (self._diagnosed is None or now - self._diagnosed_at >= DIAGNOSTICS_S)
        ):
            self._diagnosed, self._diagnosed_at = found.step, now
            self._write(diagnostics_line(found))

    def _write(self, line: str) -> None:
        self._told_at = self._clock()
        if self._lost:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # pipe closed, disk full, terminal gone, stream closed
            self._lost = True
