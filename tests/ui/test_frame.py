"""The dashboard on consoles of many sizes: nothing overflows, nothing is left out."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from crystalline.train.stats import RUN_STATES, SPHERE_STATES, EvalPoint, Snapshot
from crystalline.ui.activity import ActivityMeter
from crystalline.ui.dashboard import Picture, make_console
from crystalline.ui.frame import draw_frame
from tests.ui.fake_snapshots import empty_snapshot, extreme_snapshot, fake_snapshot

SIZES = [(80, 24), (200, 50), (60, 15), (100, 30), (120, 40)]
SPHERES = [1, 2, 12, 24, 63]


def lines_of(
    snapshot: Snapshot, width: int, height: int, *, earlier: Snapshot | None = None, **options: bool
) -> list[str]:
    """What a console of this size shows, as text."""
    console = Console(
        file=io.StringIO(), record=True, width=width, height=height, legacy_windows=False
    )
    meter = ActivityMeter()
    if earlier is not None:
        meter.update(earlier)
    messages = () if snapshot.message is None else (snapshot.message,)
    console.print(Picture(snapshot, meter.update(snapshot), messages, **options), end="")
    return console.export_text(styles=False).split("\n")


def table_rows(lines: list[str]) -> dict[int, str]:
    """The rows of spheres by index, from every panel of the table."""
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["#"])
    panels = lines[header].count("#")
    rows = {}
    for line in lines[header + 1 :]:
        for panel in line.split("│") if panels > 1 else [line]:
            match = re.match(r" +(\d+) ", panel)
            if match:
                rows[int(match[1])] = panel
    return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spheres", SPHERES)
@pytest.mark.parametrize("make", [fake_snapshot, extreme_snapshot])
def test_fills_the_console_exactly(size: tuple[int, int], spheres: int, make: object) -> None:
    width, height = size
    snapshot = make(spheres=spheres)  # type: ignore[operator]
    lines = lines_of(snapshot, width, height, earlier=fake_snapshot(700, spheres=spheres))
    assert len(lines) == height
    assert [cell_len(line) for line in lines] == [width] * height
    assert not any(c in line for line in lines for c in "\x1b\r\t\x07")


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
@pytest.mark.parametrize("options", [{}, {"show_help": True}, {"keys": True}])
def test_fills_the_console_before_the_first_step(
    size: tuple[int, int], options: dict[str, bool]
) -> None:
    lines = lines_of(empty_snapshot(), *size, **options)
    assert [cell_len(line) for line in lines] == [size[0]] * size[1]


@given(st.integers(1, 220), st.integers(1, 60), st.sampled_from([0, 1, 5, 12, 40, 63]))
def test_any_size_is_filled_exactly(width: int, height: int, spheres: int) -> None:
    snapshot = fake_snapshot(70, spheres=max(spheres, 1))
    if not spheres:
        snapshot = empty_snapshot()
    activity = ActivityMeter().update(snapshot)
    rows = draw_frame(snapshot, activity, width=width, height=height, messages=("名前 " * 60,))
    assert [sum(cell_len(text) for text, _ in row) for row in rows] == [width] * height


@pytest.mark.parametrize(
    ("size", "spheres"),
    [((80, 24), 12), ((200, 50), 12), ((200, 50), 63), ((80, 24), 24), ((60, 15), 3)],
)
def test_every_sphere_has_its_row(size: tuple[int, int], spheres: int) -> None:
    snapshot = fake_snapshot(1000, spheres=spheres)
    rows = table_rows(lines_of(snapshot, *size))
    assert sorted(rows) == list(range(spheres))
    for sphere in snapshot.spheres:
        assert re.search(rf"\b{sphere.state}\b", rows[sphere.index])


def test_all_columns_at_80_and_at_200() -> None:
    for width, height in ((80, 24), (200, 50)):
        lines = lines_of(fake_snapshot(1000), width, height)
        header = next(line for line in lines if line.split()[:1] == ["#"])
        assert header.split()[:13] == (
            [
                "#",
                "pos",
                "lvl",
                "state",
                "batches",
                "tok/s",
                "comp",
                "sync",
                "idle",
                "|grad|",
                "steals",
                "memory",
                "died",
            ]
        )


def test_values_of_a_row() -> None:
    before, now = fake_snapshot(100), fake_snapshot(1000)
    sphere = replace(
        now.spheres[4],
        state="reduce",
        level=2,
        lanes_done=45_600,
        tokens=before.spheres[4].tokens + 90_000,
        compute_s=before.spheres[4].compute_s + 6.0,
        sync_s=before.spheres[4].sync_s + 3.0,
        idle_s=before.spheres[4].idle_s + 1.0,
        grad_norm=0.25,
        steals=17,
        memory_bytes=42_000_000,
        respawns=2,
    )
    before = replace(before, elapsed_s=5.0)
    now = replace(now, elapsed_s=15.0, spheres=(sphere,))
    rows = table_rows(lines_of(now, 80, 24, earlier=before))
    assert rows[4].split() == (
        [
            "4",
            "4",
            "2",
            "reduce",
            "45.6k",
            "9.00k",
            "60%",
            "30%",
            "10%",
            "0.250",
            "17",
            "42",
            "MB",
            "2",
        ]
    )


def test_too_many_spheres_are_summed_up() -> None:
    snapshot = fake_snapshot(1000, spheres=63)
    spheres = tuple(
        replace(
            s,
            state="waiting" if s.index % 9 else "compute",
            tokens=10_000 + s.index if s.index >= 53 else 10,
            steals=10,
            memory_bytes=20_000_000,
            lanes_done=100,
        )
        for s in snapshot.spheres
    )
    lines = lines_of(replace(snapshot, spheres=spheres), 80, 24)
    rows = table_rows(lines)
    assert sorted(rows) == list(range(53, 63))  # the busiest ten
    assert any("… 53 more: 6 computing, 47 waiting" in line for line in lines)
    total = next(line for line in lines if line.split()[:1] == ["all"])
    assert total.split()[:4] == ["all", "7", "busy", "6.30k"]
    assert total.split()[-4:] == ["630", "1.3", "GB", "1"]


def test_the_dead_are_counted_first() -> None:
    snapshot = fake_snapshot(1000, spheres=63)
    spheres = tuple(replace(s, state="dead" if s.index > 60 else "idle") for s in snapshot.spheres)
    spheres = tuple(replace(s, tokens=1000 - s.index) for s in spheres)
    lines = lines_of(replace(snapshot, spheres=spheres), 80, 24)
    assert any("… 53 more: 2 dead, 51 idle" in line for line in lines)


def test_header_and_figures() -> None:
    snapshot = replace(
        fake_snapshot(1200),
        elapsed_s=3725.0,
        eta_s=62.0,
        epoch=3.21,
        loss=1.65432,
        val_loss=1.7211,
        best_val_loss=1.7102,
        val_bits_per_byte=2.4831,
        learning_rate=8.3e-4,
        grad_norm=1.39,
        clip_factor=0.721,
        tokens_per_second=12_345.0,
        peak_share=0.714,
        dropped_steps=3,
    )
    text = "\n".join(lines_of(snapshot, 80, 24, keys=True))
    for part in (
        "runs/tinyshakespeare",
        "TRAINING",
        "step 1,200/2,000 60% ━",
        "epoch 3.21  elapsed 1 h 02 m  ETA 1 m 02 s",
        "⠤⠤ loss   o validation",
        "p pause  c checkpoint  + - workers  q stop  ? help",
        "saved step-00001000",
        "sphere 3 died (killed by signal 9) and was replaced",
        "810k parameters, float32, avx512",
        "12 workers, 2 permits, 12 lanes",
    ):
        assert part in text
    words = " ".join(text.split())
    for part in (
        "loss 1.6543 val loss 1.7211",
        "bits/byte 2.4831 best val 1.7102",
        "grad norm 1.39 clip ×0.721",
        "lr 8.30e-04 dropped 3",
        "tokens/s 12.3k of peak 71%",
    ):
        # Chart and figures share a line: the figures end it.
        assert re.search(re.escape(part), words), part


@pytest.mark.parametrize("size", SIZES)
def test_the_crystalline_loss_stands_below_the_plain_one(size: tuple[int, int]) -> None:
    plain = fake_snapshot(1000)
    assert "crystal  " not in "\n".join(lines_of(plain, *size))
    lines = lines_of(replace(plain, loss=1.25, crystalline_loss=1.5), *size)
    (above,) = (n for n, line in enumerate(lines) if "1.2500" in line)
    assert re.search(r"crystal +1\.5000", lines[above + 1])


def test_unknown_values_are_dashes() -> None:
    words = " ".join(" ".join(lines_of(empty_snapshot(), 80, 24)).split())
    assert "loss – val loss –" in words
    assert "bits/byte – best val –" in words
    assert "grad norm – clip none" in words
    assert "of peak –" in words
    assert "ETA –" in words
    assert "not saved yet" in words
    assert "no loss yet" in words


def test_parameter_groups_where_there_is_room() -> None:
    snapshot = fake_snapshot(1000)
    assert "attention" not in "\n".join(lines_of(snapshot, 80, 24))
    for size in ((80, 44), (200, 50)):
        text = "\n".join(lines_of(snapshot, *size))
        assert re.search(r"attention +0\.0311 +4\.1e-04", text)
    many = replace(snapshot, parameter_groups=tuple((f"group {i}", 1.0, 1.0) for i in range(50)))
    text = "\n".join(lines_of(many, 200, 50))
    shown = len(re.findall(r"group \d+", text))
    assert f"… {50 - shown} more" in text


def test_nan_is_named() -> None:
    assert "nan" in "\n".join(lines_of(extreme_snapshot(), 80, 24))


def test_validation_marks_follow_the_losses() -> None:
    snapshot = replace(
        fake_snapshot(100),
        loss_history=((0, 4.0), (100, 2.0)),
        eval_history=(EvalPoint(0, 4.0, 5.0), EvalPoint(100, 2.0, 3.0)),
    )
    lines = lines_of(snapshot, 80, 24)
    assert re.match(r" 4\.00┤o", lines[2])
    assert re.match(r" 2\.00┤.*o  ", lines[7])


def test_the_first_fall_does_not_flatten_the_rest() -> None:
    history = tuple((x, 100.0 if x == 0 else 2.0 - x / 1000) for x in range(0, 1000, 10))
    lines = lines_of(replace(fake_snapshot(1000), loss_history=history, eval_history=()), 80, 24)
    assert re.match(r" 2?1?\.\d\d┤", lines[2])
    spike = (*history[:-10], (960, 50.0), *history[-10:])
    lines = lines_of(replace(fake_snapshot(1000), loss_history=spike, eval_history=()), 80, 24)
    assert "17.4" in lines[2]  # a later rise is news; (50 + 1.05 + 1.04) / 3


def test_help_explains_every_key() -> None:
    text = "\n".join(lines_of(fake_snapshot(1000), 80, 24, show_help=True))
    for word in ("pause", "checkpoint", "worker", "stop", "computing", "symmetry"):
        assert word in text
    assert "…" not in text


def test_pause_key_changes_its_meaning() -> None:
    paused = replace(fake_snapshot(1000), state="paused")
    lines = lines_of(paused, 80, 24, keys=True)
    assert "PAUSED" in lines[0]
    assert "p go on" in lines[-1]


@pytest.mark.parametrize("state", RUN_STATES)
def test_every_state_of_the_run_is_written(state: str) -> None:
    assert state.upper() in lines_of(replace(fake_snapshot(9), state=state), 60, 15)[0]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_wrong_has_a_line_of_its_own(size: tuple[int, int]) -> None:
    snapshot = fake_snapshot()
    calm = lines_of(snapshot, *size)
    reasons = ("sphere 3 is dead", "memory is 93 % full\x1b[1m")
    lines = lines_of(replace(snapshot, health="DEGRADED", health_reasons=reasons), *size)
    assert len(lines) == len(calm)
    assert lines[2].startswith(" DEGRADED  sphere 3 is dead; memory is 93 % full?[1m")
    assert lines[:2] == calm[:2]
    assert "DEGRADED" not in "".join(calm)
    assert table_rows(lines).keys() <= table_rows(calm).keys()


def test_states_differ_without_color() -> None:
    first = fake_snapshot(1000, spheres=1).spheres[0]
    spheres = tuple(replace(first, index=i, state=state) for i, state in enumerate(SPHERE_STATES))
    for size in ((80, 24), (60, 24)):
        rows = table_rows(lines_of(replace(fake_snapshot(1000), spheres=spheres), *size))
        for i, state in enumerate(SPHERE_STATES):
            assert f" {state} " in rows[i]


def test_no_color_gives_no_ansi(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def written() -> str:
        stream = Terminal()
        snapshot = fake_snapshot(1000)
        make_console(stream).print(Picture(snapshot, ActivityMeter().update(snapshot)))
        return stream.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written()
    assert "TRAINING" in written()


def test_infinite_losses_do_not_reach_the_axis() -> None:
    history = tuple((x, math.inf if x == 50 else 3.0 - x / 100) for x in range(100))
    lines = lines_of(replace(fake_snapshot(100), loss_history=history, eval_history=()), 80, 24)
    assert "inf" not in "".join(lines)


def test_the_title_tells_how_far_an_evaluation_is() -> None:
    def title(**fields: Any) -> str:
        rows = draw_frame(replace(fake_snapshot(800), **fields), {}, width=100, height=30)
        return "".join(text for text, _ in rows[0])

    evaluating = {"state": "evaluating", "work_done": 300, "work_total": 1200}
    assert title(**evaluating, state_s=4.0).rstrip().endswith("EVALUATING 25%")
    assert title(**evaluating, state_s=20.0).rstrip().endswith("EVALUATING 25% 1 m 00 s left")
    assert title(state="saving", state_s=75.0).rstrip().endswith("SAVING 1 m 15 s")
    assert title(state="training", state_s=75.0).rstrip().endswith("TRAINING")
