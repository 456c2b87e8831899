#!/usr/bin/env python3
"""Draw the dashboard into an SVG file, as for the README.

    python3 tools/picture.py docs/dashboard.svg [SNAPSHOT.json] [--size 100x36]

SNAPSHOT.json is a recorded `Snapshot` (`json.dump(dataclasses.asdict(snapshot), file)`), or a
list of those of the last ten seconds, oldest first: what each sphere did lately is measured
between them.  Without it the made-up run of the tests is drawn.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.terminal_theme import TerminalTheme  # noqa: E402

from crystalline.train.stats import EvalPoint, Snapshot, SphereStats  # noqa: E402
from crystalline.ui.activity import ActivityMeter  # noqa: E402
from crystalline.ui.dashboard import Picture  # noqa: E402

THEME = TerminalTheme(
    (22, 24, 29),
    (214, 218, 224),
    [
        (60, 64, 72),
        (229, 112, 108),
        (126, 196, 126),
        (226, 190, 110),
        (110, 160, 230),
        (190, 140, 220),
        (104, 190, 200),
        (214, 218, 224),
    ],
)


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="the SVG file to write")
    parser.add_argument("snapshot", type=Path, nargs="?", help="a recorded snapshot (JSON)")
    parser.add_argument("--size", default="100x36", help="columns x rows (default: %(default)s)")
    arguments = parser.parse_args()
    width, height = (int(part) for part in arguments.size.split("x"))
    if arguments.snapshot is None:
        from tests.ui.fake_snapshots import fake_snapshot

        snapshots = [fake_snapshot(1200)]
    else:
        recorded = json.loads(arguments.snapshot.read_text())
        recorded = recorded if isinstance(recorded, list) else [recorded]
        snapshots = [snapshot_from(fields) for fields in recorded]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(draw(snapshots, width, height), encoding="utf-8")


def snapshot_from(fields: dict[str, Any]) -> Snapshot:
    """Turn the plain values of a snapshot back into one."""
    lists: dict[str, Any] = {
        "spheres": tuple(SphereStats(**sphere) for sphere in fields["spheres"]),
        "eval_history": tuple(EvalPoint(**point) for point in fields["eval_history"]),
        "loss_history": tuple((step, loss) for step, loss in fields["loss_history"]),
        "parameter_groups": tuple((name, w, g) for name, w, g in fields["parameter_groups"]),
    }
    return dataclasses.replace(Snapshot(**fields), **lists)


def draw(snapshots: Sequence[Snapshot], width: int, height: int) -> str:
    """Return the dashboard at the last of `snapshots` as an SVG document."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    snapshot = snapshots[-1]
    messages = () if snapshot.message is None else (snapshot.message,)
    meter = ActivityMeter()
    activity = [meter.update(each) for each in snapshots][-1]
    console.print(Picture(snapshot, activity, messages, keys=True), end="")
    return console.export_svg(title="cllm-train", theme=THEME, unique_id="dashboard")


if __name__ == "__main__":
    main()
