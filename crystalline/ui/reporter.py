"""Chooses who reports: the dashboard, plain lines, or nobody."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from crystalline.train.stats import Snapshot
from crystalline.ui import terminal
from crystalline.ui.plain import PlainReporter, ascii_only

if TYPE_CHECKING:
    from typing_extensions import Self

MIN_WIDTH, MIN_HEIGHT = 60, 15  # a smaller terminal gets plain lines


class Reporter(Protocol):
    """A context manager that is shown every snapshot and may return wishes of the user."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot; call it as often as you like."""

    def message(self, text: str) -> None:
        """Tell the user `text` now."""

    def error(self, text: str) -> None:
        """Tell the user `text` even when nothing else is to be said."""

    def poll(self) -> list[str]:
        """Return wishes since the last call, as words of `engine.requests`; never waits.

        "pause" means to go on where the run is paused.
        """


class QuietReporter:
    """Writes errors and nothing else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def error(self, text: str) -> None:
        """Write `text` on a line of its own."""
        self._stream.write(ascii_only(text) + "\n")

    def poll(self) -> list[str]:
        """Return no actions."""
        return []


def make_reporter(
    *,
    plain: bool = False,
    quiet: bool = False,
    elsewhere: bool = False,
    stream: TextIO | None = None,
) -> Reporter:
    """Return the reporter for `stream` (default: stderr).

    `quiet` takes precedence over `plain`; the dashboard is chosen only where
    `can_draw(stream)`, with its keys where stdin is a terminal too.  `elsewhere` says that the
    run is another process's.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        return QuietReporter(stream)
    if plain or not can_draw(stream):
        return PlainReporter(stream)
    from crystalline.ui.dashboard import Dashboard
    from crystalline.ui.keys import Keys

    return Dashboard(stream, keys=Keys(), elsewhere=elsewhere)


def can_draw(stream: TextIO) -> bool:
    """Whether `stream` is a capable terminal of at least 60 x 15 and we are in its foreground."""
    if not terminal.is_terminal(stream) or not terminal.in_foreground(stream.fileno()):
        return False
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return False
    if not (stream.encoding or "").lower().replace("-", "").startswith("utf8"):
        return False  # the chart's dots cannot be written
    columns, rows = terminal.size(stream)
    return columns >= MIN_WIDTH and rows >= MIN_HEIGHT
