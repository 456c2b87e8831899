"""Progress of long preparations, such as reading and tokenizing a corpus.

A `DataProgress` is called with (stage, done, total).  On a terminal it draws one bar
a stage, elsewhere it writes a line now and then; a stage that takes less than a
second shows nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from crystalline.ui import format as fmt
from crystalline.ui import reporter, terminal
from crystalline.ui.plain import PlainReporter
from crystalline.untrusted import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from typing_extensions import Self

SILENT_S = 1.0
REFRESH_S = 0.25
LINE_S = 5.0

_SHOW_CURSOR, _HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


class DataProgress:
    """`with DataProgress() as progress: prepare(..., progress=progress)`."""

    def __init__(
        self,
        *,
        plain: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._bars = not plain and not quiet and reporter.can_draw(self._stream)
        self._lines = PlainReporter(self._stream)
        self._clock = clock
        self._stage: str | None = None
        self._started = 0.0
        self._next = 0.0
        self._shown = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._hold: terminal.Hold | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._hold is not None:
            self._hold.drop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` units of `stage` are finished; total 0 is unknown.

        Where nothing is known of a stage but that it lasts, both are 0.
        """
        if self._quiet:
            return
        now = self._clock()
        if stage != self._stage:
            self._stage, self._started, self._next = stage, now, now + SILENT_S
            self._shown, self._task = False, None
        finished = 0 < total <= done
        if now < self._next and not (finished and self._shown):
            return
        if self._bars:
            self._draw(stage, done, total)
            self._next = now + REFRESH_S
        else:
            self._write(stage, done, total, now - self._started)
            self._next = now + LINE_S
        self._shown = not finished

    def _draw(self, stage: str, done: int, total: int) -> None:
        if not terminal.ready(self._stream.fileno()):
            return
        if self._progress is None:
            self._progress = self._make_progress()
        if self._task is None:
            self._task = self._progress.add_task(one_line(stage), total=total or None)
        self._progress.update(self._task, completed=done, total=total or None)
        self._progress.refresh()

    def _make_progress(self) -> Progress:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        from crystalline.ui.dashboard import make_console

        fd = self._stream.fileno()
        self._hold = terminal.Hold(
            undo=lambda: terminal.write(fd, _SHOW_CURSOR),
            redo=lambda: terminal.write(fd, _HIDE_CURSOR),
        )
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            console=make_console(self._stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.start()
        return progress

    def _write(self, stage: str, done: int, total: int, passed_s: float) -> None:
        line = (
            f"{stage}: {fmt.count(done)}" if done else f"{stage}: {fmt.duration(passed_s)} so far"
        )
        if total:
            line = f"{stage}: {int(100 * min(done / total, 1))}%"
            if 0 < done < total:
                line += f", {fmt.duration(passed_s * (total - done) / done)} left"
        self._lines.message(line)
