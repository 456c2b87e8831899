"""metrics.jsonl: what a run measured, one JSON object a line, appended and never rewritten.

    {"step": 10, "loss": 4.1, "lr": 1e-3, "grad_norm": 0.9, "tokens": 30720,
     "tokens_per_second": 15000.0, "seconds": 2.1}                a logged step
    {"step": 250, "val_loss": 2.9, "val_bits_per_byte": 1.7, "val_tokens": 57600}
                                                                  an evaluation
    {"event": "dropped_step", "step": 31, …}                      anything else

A run with smoothed targets adds "crystalline_loss", the loss against them, to its steps;
"loss" is the plain one in every run.

Which figures a line has, and under which keys, is in their table, `train.figures`.  A line reaches
the file whole or not at all.  NaN and infinities become
null.  What is worth a line, and when, is left to Node Zero.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crystalline.atomic import json_text, replace_shared
from crystalline.closing import Closing
from crystalline.errors import SaveError
from crystalline.formats.files import METRICS
from crystalline.log import get_logger
from crystalline.train.figures import lines_of
from crystalline.untrusted import BadContent, open_ours
from crystalline.untrusted.files import METRICS as METRICS_FILE

LONGEST_LINE = 1 << 20  # bytes

_BLOCK_BYTES = 1 << 20

_log = get_logger("train")


class MetricsLog(Closing):
    """Appends to the metrics of a run that is at `step`; a context manager, or call `close`.

    Lines about later steps are dropped first, and so is a last line that a crash cut
    off: the run is going to write them again.  Later a line that cannot be written, on
    a full disk for instance, is left out with a warning; training goes on.

    Raises `SaveError` when the file cannot be opened.
    """

    def __init__(self, run_dir: Path, step: int = 0) -> None:
        self.path = run_dir / METRICS
        self._failing = False
        self._fd = -1
        try:
            replace_shared(self.path)
            self._fd = open_ours(self.path, append=True)
            os.ftruncate(self._fd, _end_of_step(self.path, step))
        except OSError as error:
            self.close()
            raise SaveError(
                f"{self.path} cannot be written ({error.strerror})",
                advice="Check the permissions of the run directory.",
            ) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def cut(self, step: int) -> None:
        """Drop the lines about steps after `step`: the run went back, and writes them again."""
        os.ftruncate(self._fd, _end_of_step(self.path, step))

    def flush(self) -> None:
        """Force the lines to disk."""
        os.fsync(self._fd)

    def enter(self, kind: str, figures: Mapping[str, Any]) -> None:
        """Log a line of a kind, "step" or "evaluation": what `train.figures` has for it.

        The first key is always the step.
        """
        line = {"step": figures["step"]}
        for name, place in lines_of(kind):
            value = figures.get(name) if place.optional else figures[name]
            if value is not None or not place.optional:
                line[place.key or name] = value
        self._append(line)

    def event(self, event: str, step: int, **values: Any) -> None:
        """Log something that happened, such as "resumed" or "sphere_replaced"."""
        self._append({"event": event, "step": step, **values})

    def _append(self, line: dict[str, Any]) -> None:
        finite = {key: _finite(value) for key, value in line.items()}
        data = (json_text(finite) + "\n").encode()
        before = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            os.ftruncate(self._fd, before)  # never a line cut off before the next one
            if not self._failing:
                _log.warning("%s cannot be written (%s).", self.path, error.strerror)
            self._failing = True
        else:
            self._failing = False


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, oldest first; a torn last line is left out.

    Raises `OSError`, and `ValueError` when a whole line is none that is written here.
    """
    return list(metrics_lines(path))


def metrics_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what `read_metrics` returns, without holding it in memory."""
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            yield METRICS_FILE.of(line)
        except BadContent as error:
            raise BadContent(f"line {number} of {path} is damaged: {error}") from None


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines without their ends; what follows the last end is left out."""
    rest = b""
    with METRICS_FILE.open(path) as file:
        while block := file.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > LONGEST_LINE:  # none of ours
                return


def _end_of_step(path: Path, step: int) -> int:
    """Return where the lines up to `step` end, in bytes."""
    end = 0
    for line in _whole_lines(path):
        try:
            found = METRICS_FILE.of(line)["step"]
        except BadContent:  # nothing after it can be trusted
            break
        if found > step:
            break
        end += len(line) + 1
    return end


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
