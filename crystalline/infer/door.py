"""A door to a scheduler for other threads: one thread serves, any number of others ask.

    door = Door(scheduler)
    Thread(target=door.serve).start()     # from now on only this thread uses the scheduler
    for piece in door.ask(job): ...       # in any thread, also several at a time
    door.close()

All that passes between them are messages in queues: work to take in or to forget, and pieces
of text back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from crystalline.errors import CrystallineError, EngineError
from crystalline.infer.scheduler import Job, Scheduler, Work

_Answers = SimpleQueue[str | CrystallineError | None]  # pieces; at the end an error or None


class Door:
    """Takes work from any thread to the scheduler, and pieces of text back."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._inbox: SimpleQueue[tuple[Work, _Answers | None] | None] = SimpleQueue()
        self._listeners: dict[Work, _Answers] = {}
        self._is_closed = False

    def ask(self, work: Work) -> Iterator[str]:
        """Yield the pieces of a job's text until it is done; whoever stops early cancels it.

        Raises:
            CrystallineError: what stopped the work, or that nobody serves any more.
        """
        answers: _Answers = SimpleQueue()
        self._inbox.put((work, answers))
        if self._is_closed:  # the server may have looked into its inbox for the last time
            answers.put(_closed())
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, CrystallineError):
                    raise answer
                yield answer
        finally:
            self._inbox.put((work, None))

    def close(self) -> None:
        """Let `serve` return; whoever still asks is told."""
        self._inbox.put(None)

    def serve(self) -> None:
        """Make passes while there is work, and wait for more, until the door is closed."""
        try:
            while self._take_in():
                for work in self._scheduler.step():
                    self._answer(work)
        finally:
            self._is_closed = True
            for work in list(self._listeners):
                self._forget(work, _closed())
            with suppress(Empty):
                while True:
                    message = self._inbox.get(block=False)
                    if message is not None and message[1] is not None:
                        message[1].put(_closed())

    def _take_in(self) -> bool:
        """Take in what has been asked, and wait for it while there is nothing to do."""
        while True:
            try:
                message = self._inbox.get(block=self._scheduler.is_idle)
            except Empty:
                return True
            if message is None:
                return False
            work, answers = message
            if answers is None:
                self._forget(work, None)
                continue
            self._listeners[work] = answers
            try:
                self._scheduler.submit(work)
            except ValueError as error:  # it is too wide: the asker's mistake, not the server's
                self._forget(work, CrystallineError(str(error)))

    def _answer(self, work: Work) -> None:
        answers = self._listeners.get(work)
        if answers is None:
            return
        if isinstance(work, Job):
            while work.pieces:
                answers.put(work.pieces.popleft())
        if work.done:
            self._forget(work, work.error)

    def _forget(self, work: Work, error: CrystallineError | None) -> None:
        self._scheduler.cancel(work)
        answers = self._listeners.pop(work, None)
        if answers is not None:
            answers.put(error)


def _closed() -> EngineError:
    return EngineError("nobody works on texts any more", advice="Start the server again.")
