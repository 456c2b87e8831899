"""Requests as Node Zero takes them: one by one, between steps, each answered and recorded.

Who does what is asked is named in a table of handlers: the node's own (`engine.node`), and the
program's, for what only it can do.  A handler does it and tells what came of it in a clause, or
raises `RefusedError` before it has changed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from crystalline.engine.deaths import Happened
from crystalline.engine.queue import Answer, Asked, RequestQueue
from crystalline.engine.requests import BY_NAME, NoRequestError, Wish


class RefusedError(Exception):
    """A request that is not done; the message says why, `advice` what can be done about it."""

    def __init__(self, reason: str, *, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


Handler = Callable[[Wish], str]


class Obeying:
    """Takes requests out of the queue, has them done, and answers."""

    def __init__(
        self, queue: RequestQueue, handlers: Mapping[str, Handler], happened: Happened
    ) -> None:
        """`happened` is told of every request, as the event "request"."""
        self._queue = queue
        self._handlers = dict(handlers)
        self._happened = happened

    def add(self, handlers: Mapping[str, Handler]) -> None:
        """Let more requests be done."""
        self._handlers |= handlers

    @property
    def is_wanted(self) -> bool:
        """Whether a request waits."""
        return self._queue.is_waiting

    def obey(self) -> None:
        """Do what is asked, in order, until nothing waits."""
        while (asked := self._queue.next()) is not None:
            if not self._note(asked):
                self._answer(asked, self._outcome(asked))

    def finish(self, commands: Collection[str], reason: str) -> None:
        """Answer what still waits when the run ends: do `commands`, and refuse all others."""
        while (asked := self._queue.next()) is not None:
            if self._note(asked):
                continue
            can_be = asked.text.partition("=")[0] in commands
            self._answer(asked, self._outcome(asked) if can_be else Answer(False, reason))

    def _note(self, asked: Asked) -> bool:
        """Record what is no request; return whether that is so."""
        note = asked.note
        if note is not None:
            event, values = note
            self._happened(event, **values)
            self._queue.answer(asked, Answer(True, ""))
        return note is not None

    def _outcome(self, asked: Asked) -> Answer:
        try:
            wish = Wish.of_word(asked.text)
            handler = self._handlers.get(wish.name)
            if handler is None:
                return Answer(False, f"this program knows no {wish.name}")
            return Answer(True, handler(wish))
        except NoRequestError as error:
            return Answer(False, str(error))
        except RefusedError as error:
            return Answer(False, str(error), error.advice)

    def _answer(self, asked: Asked, answer: Answer) -> None:
        name, _, argument = asked.text.partition("=")
        if name not in BY_NAME:  # "workers+"
            name, argument = asked.text[:-1], asked.text[-1:]
        self._happened(
            "request",
            command=name,
            argument=argument or None,
            pid=asked.pid,
            uid=asked.uid,
            asked_at=asked.asked_at,
            ok=answer.ok,
            told=answer.told,
        )
        self._queue.answer(asked, answer)
