"""What a person sees of a run: a live dashboard, or plain lines where there is no terminal.

The input is the immutable `crystalline.train.stats.Snapshot` and nothing else; the
output goes to stderr, because stdout belongs to results.  `rich` is imported only
when something is really drawn with it.
"""

from __future__ import annotations

from crystalline.ui.progress import DataProgress
from crystalline.ui.reporter import QuietReporter, Reporter, make_reporter
from crystalline.ui.terminal import restore as restore_terminal

__all__ = ["DataProgress", "QuietReporter", "Reporter", "make_reporter", "restore_terminal"]
