"""Stop strings in a stream of text: found across pieces, and never let through."""

from __future__ import annotations

from collections.abc import Sequence

from crystalline.errors import UsageError


class StopFilter:
    """Passes text on until one of the `stops` is complete.

    What may be the beginning of a stop string is held back until it is known.
    The stop that is complete first ends the text, the longer one when two end
    together; how the text is cut into pieces makes no difference.

    >>> stops = StopFilter(["END"])
    >>> [stops.push(piece) for piece in ("one E", "ND", " two")], stops.stopped
    (['one ', '', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        check_stops(stops)
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        self.found = ""  # the stop that ended the text

    def push(self, text: str) -> str:
        """Take more text; return what may be shown now."""
        if self.stopped:
            return ""
        held = self._held + text
        found = [
            (start + len(stop), start, stop)
            for stop in self._stops
            if (start := held.find(stop)) >= 0
        ]
        if found:
            self.stopped = True
            self._held = ""
            _, start, self.found = min(found)
            return held[:start]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return the text still held back, when no more will come."""
        held, self._held = self._held, ""
        return held


def check_stops(stops: Sequence[str]) -> None:
    """Raise `UsageError` for a stop that no text can contain, or every text does."""
    for stop in stops:
        if not stop:
            raise UsageError("--stop is empty", advice="Give the text to stop at.")
        try:
            stop.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--stop is not valid Unicode at character {error.start + 1}",
                advice="Give it in UTF-8.",
            ) from None


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`.

    >>> _overlap("a<<", "<<<"), _overlap("abc", "x")
    (2, 0)
    """
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
