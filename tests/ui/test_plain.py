"""Plain lines: when they come, and what they may contain."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from crystalline.train.stats import EvalPoint, Snapshot
from crystalline.ui.plain import PlainReporter, progress_line
from tests.ui.fake_snapshots import (
    empty_snapshot,
    extreme_snapshot,
    fake_diagnosis,
    fake_snapshot,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def snapshot_at(step: int, **fields: object) -> Snapshot:
    quiet = replace(fake_snapshot(120), message=None, eval_history=(), diagnosis=None)
    return replace(quiet, step=step, **fields)  # type: ignore[arg-type]


def written(feed: Callable[[PlainReporter, Clock], None]) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    with PlainReporter(stream, clock=clock) as reporter:
        feed(reporter, clock)
    return stream.getvalue().splitlines()


def steps_of(lines: list[str]) -> list[int]:
    return [int(line.split()[1].split("/")[0]) for line in lines]


def test_a_line_every_two_seconds() -> None:
    def feed(reporter: PlainReporter, clock: Clock) -> None:
        for step in range(101):
            reporter.show(snapshot_at(step))
            clock.now += 0.1

    # Step 1 at once, then whenever two seconds have passed, and the last one at the end.
    assert steps_of(written(feed)) == [1, 21, 41, 61, 81, 100]


def test_diagnostics_follow_a_line_of_progress_now_and_then() -> None:
    def feed(reporter: PlainReporter, clock: Clock) -> None:
        for step in range(1, 800):
            reporter.show(snapshot_at(step, diagnosis=fake_diagnosis(step // 50 * 50 or 1)))
            clock.now += 0.1

    lines = written(feed)
    told = [(lines[i - 1], line) for i, line in enumerate(lines) if line.startswith("diagnostics")]
    assert [line.split(":")[0] for _, line in told] == [
        "diagnostics 1", "diagnostics 300", "diagnostics 600",
    ]  # fmt: skip
    assert all(before.startswith("step") for before, _ in told)
    assert "weights embeddings 0.0204 positions 0.0102" in told[0][1]
    assert "gradients embeddings 1.3e-04 (max 5.2e-03, 2% zero)" in told[0][1]


def test_no_line_while_the_step_stands_still() -> None:
    def feed(reporter: PlainReporter, clock: Clock) -> None:
        for _ in range(10):
            reporter.show(snapshot_at(5))
            clock.now += 10

    assert len(written(feed)) == 1


def test_evaluations_and_the_last_step_come_at_once() -> None:
    def feed(reporter: PlainReporter, _clock: Clock) -> None:
        history: tuple[EvalPoint, ...] = ()
        for step in range(1, 51):
            if step in (17, 30):
                history += (EvalPoint(step, 2.5, 3.6),)
            reporter.show(snapshot_at(step, eval_history=history, max_steps=50))

    assert steps_of(written(feed)) == [1, 17, 30, 50]


def test_the_end_is_not_told_twice() -> None:
    def feed(reporter: PlainReporter, _clock: Clock) -> None:
        reporter.show(snapshot_at(50, max_steps=50))
        reporter.show(snapshot_at(50, max_steps=50, state="finished"))

    assert len(written(feed)) == 1


def test_pause_is_told() -> None:
    def feed(reporter: PlainReporter, _clock: Clock) -> None:
        for state in ("training", "paused", "paused", "training"):
            reporter.show(snapshot_at(5, state=state))

    lines = written(feed)
    assert [line.endswith("  paused") for line in lines] == [False, True, False]


def test_each_message_once() -> None:
    def feed(reporter: PlainReporter, _clock: Clock) -> None:
        for message in (None, "one", "one", "two", "two"):
            reporter.show(snapshot_at(0, message=message))
        reporter.message("three")
        reporter.error("four")

    assert written(feed) == ["one", "two", "three", "four"]


def test_columns() -> None:
    snapshot = replace(
        fake_snapshot(120),
        loss=2.4567,
        val_loss=2.5012,
        learning_rate=9.9e-4,
        tokens_per_second=38_100.0,
        eta_s=62.0,
    )
    assert progress_line(snapshot) == (
        "step 120/2000  loss 2.4567  val 2.5012  lr 9.9e-04  38.1k tok/s  eta 1m02s"
    )
    assert progress_line(empty_snapshot()) == (
        "step 0/2000  loss -  val -  lr 0.0e+00  - tok/s  eta -  starting"
    )


def test_only_printable_ascii() -> None:
    def feed(reporter: PlainReporter, _clock: Clock) -> None:
        reporter.show(extreme_snapshot())
        reporter.message("größe \x1b[31m red \udcff \r\n 名前")

    lines = written(feed)
    assert len(lines) == 4  # message, progress, diagnostics, message
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
    assert "loss nan  val inf" in lines[1]


def test_a_closed_pipe_does_not_stop_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with PlainReporter(Closed()) as reporter:
        reporter.show(snapshot_at(1))
        reporter.message("nobody reads this")
        assert reporter.poll() == []


def test_what_lasts_is_told_every_ten_seconds() -> None:
    """An evaluation of a minute between two steps; the pause after it is told once only."""

    def feed(reporter: PlainReporter, clock: Clock) -> None:
        reporter.show(snapshot_at(5))
        for second in range(1, 61):
            clock.now += 1
            reporter.show(
                snapshot_at(
                    5, state="evaluating", state_s=float(second), work_total=1_200_000,
                    work_done=20_000 * second,
                )
            )  # fmt: skip
        for second in range(60):
            clock.now += 1
            reporter.show(snapshot_at(5, state="paused", state_s=float(second)))
        for second in range(1, 16):
            clock.now += 1
            reporter.show(snapshot_at(5, state="training", state_s=float(second)))

    lines = written(feed)
    assert [line for line in lines if line.startswith("evaluating")] == [
        f"evaluating: {int(100 * second / 60)} % of 1.20M tokens, eta {60 - second}s"
        for second in range(10, 60, 10)
    ] + ["evaluating: 100 % of 1.20M tokens, eta 0s"]
    assert sum(line.endswith("paused") for line in lines) == 1
    assert lines[-1] == "step 6/2000: for 11s so far"  # ten after the line that it goes on
    assert len(lines) == 1 + 6 + 1 + 1 + 1


def test_a_long_start_is_told() -> None:
    def feed(reporter: PlainReporter, clock: Clock) -> None:
        for second in range(25):
            reporter.show(replace(empty_snapshot(), state_s=float(second)))
            clock.now += 1

    assert written(feed) == ["starting: for 10s so far", "starting: for 20s so far"]


def test_quick_work_is_not_told() -> None:
    def feed(reporter: PlainReporter, clock: Clock) -> None:
        for second in range(100):
            reporter.show(snapshot_at(5, state="saving", state_s=second % 9))
            clock.now += 1

    assert len(written(feed)) == 1
