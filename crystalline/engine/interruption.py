"""Long work in Node Zero that a wish can end: a timer looks, and raises wherever the work is."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from crystalline.handlers import handling


@contextlib.contextmanager
def interruptible(look: Callable[[], None], interval_s: float) -> Iterator[Callable[[], None]]:
    """Call `look` every `interval_s` while the block runs, from the signal SIGALRM.

    `look` may raise, and the block is then left from wherever it is: until it calls the function
    that it is given it must not change anything but what is its own.  That function looks once
    more; after it nothing interrupts.  Main thread only.

    >>> def stop():
    ...     raise TimeoutError
    >>> try:
    ...     with interruptible(stop, 0.01):
    ...         while True:
    ...             pass
    ... except TimeoutError:
    ...     print("left")
    left
    """
    armed = True

    def on_alarm(*_: object) -> None:
        if armed:
            look()

    def commit() -> None:
        nonlocal armed
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        look()

    with handling({signal.SIGALRM: on_alarm}):
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)
                yield commit
            finally:
                armed = False
        finally:  # also where the alarm rang in the line above
            signal.setitimer(signal.ITIMER_REAL, 0)
