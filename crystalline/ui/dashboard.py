"""The live dashboard: `frame` decides what is on it, this file puts it on the terminal.

It takes the alternate screen for as long as it is entered and gives it back on every
way out (see `terminal`).  What is written to `sys.stderr` meanwhile, and every
message, is kept and written below the prompt when the dashboard closes.
"""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from crystalline.train.stats import Snapshot
from crystalline.ui import terminal
from crystalline.ui.activity import Activity, ActivityMeter
from crystalline.ui.frame import STYLES, draw_frame
from crystalline.ui.keys import HELP, TREE
from crystalline.ui.plain import ascii_only, progress_line

if TYPE_CHECKING:
    from typing_extensions import Self

    from crystalline.ui.keys import Keys

REFRESH_S = 0.25  # at most four refreshes a second
CPU_SHARE = 0.02  # drawing takes at most this share of one core ...
SLOWEST_S = 1.0  # ... unless that made it slower than this
KEPT_MESSAGES = 200

_ENTER = b"\x1b[?1049h\x1b[?25l"  # alternate screen, no cursor
_LEAVE = b"\x1b[?1049l\x1b[?25h"
_STYLES = {name: Style.parse(style) for name, style in STYLES.items()}


class Picture:
    """One frame as something that rich can print; it fills the width and height it is given."""

    def __init__(
        self,
        snapshot: Snapshot,
        activity: dict[int, Activity],
        messages: tuple[str, ...] = (),
        *,
        keys: bool = False,
        show_help: bool = False,
        show_tree: bool = False,
        elsewhere: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._activity = activity
        self._messages = messages
        self._keys = keys
        self._show_help = show_help
        self._show_tree = show_tree
        self._elsewhere = elsewhere

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = draw_frame(
            self._snapshot,
            self._activity,
            width=options.max_width,
            height=options.height or console.height,
            messages=self._messages,
            keys=self._keys,
            show_help=self._show_help,
            show_tree=self._show_tree,
            elsewhere=self._elsewhere,
        )
        for i, row in enumerate(rows):
            if i:
                yield Segment.line()
            for text, style in row:
                yield Segment(text, _STYLES[style])


class Dashboard:
    """Shows the newest snapshot on a terminal, and passes on the keys pressed there.

    `keys` is entered and left together with the dashboard; without it, `poll` returns
    no actions.  Nothing is drawn while the process is in the background.  `elsewhere` says that
    the run is another process's: its last key leaves the view.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        keys: Keys | None = None,
        elsewhere: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._fd = self._stream.fileno()
        self._keys = keys
        self._elsewhere = elsewhere
        self._clock = clock
        self._console = make_console(self._stream)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._hold: terminal.Hold | None = None
        self._old_stderr: TextIO | None = None
        self._meter = ActivityMeter()
        self._activity: dict[int, Activity] = {}
        self._snapshot: Snapshot | None = None
        self._messages: deque[str] = deque(maxlen=KEPT_MESSAGES)
        self._show_help = False
        self._show_tree = False
        self._next_draw = 0.0
        self._lost = False

    def __enter__(self) -> Self:
        self._hold = terminal.Hold(
            undo=lambda: terminal.write(self._fd, _LEAVE),
            redo=lambda: terminal.write(self._fd, _ENTER),
        )
        try:
            self._live.start()
            if self._keys is not None:
                self._keys.__enter__()
        except BaseException:
            self._hold.release()
            raise
        self._old_stderr, sys.stderr = sys.stderr, _MessageStream(self)
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(sys.stderr, _MessageStream):
            sys.stderr.finish()
            sys.stderr = self._old_stderr
        if self._keys is not None:
            self._keys.close()
        if self._hold is not None and self._hold.drop():
            self._close()

    def show(self, snapshot: Snapshot) -> None:
        """Take `snapshot` as the newest, and draw it unless the last drawing was just now."""
        before = self._snapshot
        if snapshot.message is not None and (not before or snapshot.message != before.message):
            self._messages.append(snapshot.message)
        self._snapshot = snapshot
        self._activity = self._meter.update(snapshot)
        if self._clock() >= self._next_draw or (before and snapshot.state != before.state):
            self._draw()

    def message(self, text: str) -> None:
        """Show `text` as the newest message; it is written out once more at the end."""
        self._messages.append(text)

    def error(self, text: str) -> None:
        """Show `text` as the newest message."""
        self.message(text)

    def poll(self) -> list[str]:
        """Return the actions asked for by key since the last call; what only shows is done here."""
        if self._keys is None:
            return []
        actions = self._keys.poll()
        if any(action in (HELP, TREE) for action in actions):
            self._show_help ^= bool(actions.count(HELP) % 2)
            self._show_tree ^= bool(actions.count(TREE) % 2)
            self._draw()
        return [action for action in actions if action not in (HELP, TREE)]

    def _draw(self) -> None:
        if self._snapshot is None or self._hold is None or self._lost:
            return
        if not terminal.ready(self._fd):
            return
        started = time.thread_time()
        picture = Picture(
            self._snapshot,
            self._activity,
            tuple(self._messages)[-3:],
            keys=self._keys is not None and self._keys.active,
            show_help=self._show_help,
            show_tree=self._show_tree,
            elsewhere=self._elsewhere,
        )
        try:
            self._live.update(picture, refresh=True)
        except OSError:  # the terminal is gone; the run goes on
            self._lost = True
        cost_s = time.thread_time() - started
        self._next_draw = self._clock() + min(max(REFRESH_S, cost_s / CPU_SHARE), SLOWEST_S)

    def _close(self) -> None:
        """Leave the alternate screen; keep on the normal one what is worth keeping."""
        try:
            self._live.stop()
            for text in self._messages:
                self._stream.write(ascii_only(text) + "\n")
            if self._snapshot is not None and self._snapshot.step:
                self._stream.write(progress_line(self._snapshot) + "\n")
            self._stream.flush()
        except OSError:  # the terminal is gone
            self._lost = True


def make_console(stream: TextIO) -> Console:
    """Return rich's console on `stream`: no color where NO_COLOR is set."""
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if console.no_color:
        console = Console(
            file=stream, highlight=False, emoji=False, markup=False, color_system=None
        )
    return console


class _MessageStream(io.TextIOBase):
    """Stands in for `sys.stderr` while the dashboard has the terminal: lines become messages."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.strip():
                self._dashboard.message(line)
        return len(text)

    def finish(self) -> None:
        """Pass on a last line that was never ended."""
        self.write("\n")

    def fileno(self) -> int:
        return self._dashboard._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True
