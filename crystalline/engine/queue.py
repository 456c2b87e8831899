"""Requests on their way to Node Zero, and its answers on their way back: a ring in the arena.

The launcher alone puts requests in, Node Zero alone takes them out, in order, and answers each.
A place holds who asked and when, the wish as a word, and the answer:

    ASKED (a word of control)   requests put in so far; the launcher's
    ANSWERED (of state)         requests answered so far; Node Zero's
    requests int64 (16, 136)    request number n is in place n mod 16

A place is written before its word says so, and used again when its request was answered.  A stop
needs no place: its word is seen in the middle of phases, too, and by a signal handler's hand.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.engine.board import (
    ANSWERED,
    ASKED,
    REQUEST_HEAD,
    REQUEST_PLACES,
    REQUEST_TEXT_BYTES,
    Board,
)
from crystalline.untrusted import one_line

NOTE = "!"  # begins what is no request, but the launcher's word of something that happened

_PID, _UID, _TIME_NS, _OK = range(4)  # of a place's head


@dataclass(frozen=True)
class Asked:
    """A request that has come, as it lies in the queue."""

    number: int
    text: str
    pid: int  # of the process that asked
    uid: int  # of its user
    asked_at: float  # seconds since 1970

    @property
    def note(self) -> tuple[str, dict[str, Any]] | None:
        """The event that is to be recorded, and what belongs to it; None: it is a request."""
        if not self.text.startswith(NOTE):
            return None
        event, values = json.loads(self.text.removeprefix(NOTE))
        return event, values


@dataclass(frozen=True)
class Answer:
    """What came of a request: done, or refused with a reason."""

    ok: bool
    told: str  # what was done, or why not; a clause, or nothing
    advice: str = ""  # a sentence


class RequestQueue:
    """Both ends of the ring; each process uses its own."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._heads = board.requests[:, :REQUEST_HEAD]
        words = REQUEST_TEXT_BYTES // 8
        texts = board.requests[:, REQUEST_HEAD:].view(np.uint8)
        self._wishes, self._answers = texts[:, : words * 8], texts[:, words * 8 :]

    # The launcher's end.

    def put(self, text: str, pid: int, uid: int) -> int | None:
        """Put a request in and ring; return its number, or None where all places are taken."""
        number = self._board.control.load(ASKED)
        if number - self._board.state.load(ANSWERED) >= REQUEST_PLACES:
            return None
        place = number % REQUEST_PLACES
        self._heads[place] = 0
        self._heads[place, [_PID, _UID, _TIME_NS]] = (pid, uid, time.time_ns())
        _write(self._wishes[place], text)
        self._board.control.store(ASKED, number + 1)
        self._board.barrier.ring_node()
        return number

    def put_note(self, event: str, values: dict[str, Any]) -> bool:
        """Let something be recorded that nobody asked for; False where all places are taken."""
        text = NOTE + json.dumps([event, values])
        return self.put(text, os.getpid(), os.getuid()) is not None

    @property
    def answered(self) -> int:
        """How many requests were answered so far: those of the last 16 can be read."""
        return self._board.state.load(ANSWERED)

    def answer_to(self, number: int) -> Answer:
        """Return the answer to an answered request whose place was not used again."""
        place = number % REQUEST_PLACES
        told, _, advice = _read(self._answers[place]).partition("\n")
        return Answer(bool(self._heads[place, _OK]), told, advice)

    # Node Zero's end.

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for its answer."""
        return self._board.control.load(ASKED) != self._board.state.load(ANSWERED)

    def next(self) -> Asked | None:
        """Return the oldest request that waits; `answer` comes before the next."""
        if not self.is_waiting:
            return None
        number = self._board.state.load(ANSWERED)
        place = number % REQUEST_PLACES
        pid, uid, time_ns = self._heads[place, [_PID, _UID, _TIME_NS]].tolist()
        return Asked(number, _read(self._wishes[place]), pid, uid, time_ns / 1e9)

    def answer(self, asked: Asked, answer: Answer) -> None:
        """Answer the request that `next` returned."""
        place = asked.number % REQUEST_PLACES
        self._heads[place, _OK] = answer.ok
        _write(self._answers[place], f"{one_line(answer.told)}\n{one_line(answer.advice)}")
        self._board.state.store(ANSWERED, asked.number + 1)


def _write(place: npt.NDArray[np.uint8], text: str) -> None:
    """Write text; what is too long loses its end."""
    raw = text.encode()[: len(place)].decode(errors="ignore").encode()
    place[:] = np.frombuffer(raw.ljust(len(place), b"\0"), np.uint8)


def _read(place: npt.NDArray[np.uint8]) -> str:
    return bytes(place).rstrip(b"\0").decode("utf-8", "replace")
