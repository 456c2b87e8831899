"""What may be asked of a run: the one table that keys, callbacks, the socket and commands read.

A wish is a request with what belongs to it.  Written as a word it is what a key or a callback
returns, and what the queue of requests holds (`engine.queue`): "pause", "workers=5", "workers+"
(one more), "workers-" (one fewer), "spawn=3,4".  As JSON, a line of the run's socket:
{"command": "workers", "argument": 5}.  What comes of it is decided in Node Zero, between steps
(`engine.obeying`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MORE, FEWER = "+", "-"
LARGEST = 10**6  # number that is looked at
LEAST_FACTOR, MOST_FACTOR = 1e-4, 1e4  # of the learning rate
LONGEST_NAME = 64

_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_NAME}}}", re.ASCII)

Argument = int | float | str | tuple[int, ...] | None


class NoRequestError(ValueError):
    """Words that ask for nothing in the table; the message is a clause."""


def _is_number(argument: object) -> bool:
    return type(argument) is int and 0 <= argument <= LARGEST


def _is_number_or_change(argument: object) -> bool:
    return argument in (MORE, FEWER) or _is_number(argument)


def _is_two_numbers(argument: object) -> bool:
    return isinstance(argument, tuple) and len(argument) == 2 and all(map(_is_number, argument))


def _is_factor(argument: object) -> bool:
    if isinstance(argument, bool) or not isinstance(argument, (int, float)):
        return False
    return math.isfinite(argument) and LEAST_FACTOR <= argument <= MOST_FACTOR


def _is_name(argument: object) -> bool:
    return isinstance(argument, str) and _NAME.fullmatch(argument) is not None


def _number_of(text: str) -> int | str:
    """Return a number; other text as it is, to be refused."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _factor_of(text: str) -> float | str:
    try:
        return float(text) if len(text) < 30 else text
    except ValueError:
        return text


def _numbers_of(text: str) -> Any:
    return tuple(map(_number_of, text.split(",")[:3]))


@dataclass(frozen=True)
class Kind:
    """What sort of argument a request takes."""

    letters: str  # for help
    words: str  # the same in a sentence
    fits: Callable[[object], bool]
    of_text: Callable[[str], Any] = str
    optional: bool = False


NOTHING = Kind("", "no argument", lambda argument: argument is None, optional=True)
NUMBER = Kind("N", "a whole number", _is_number_or_change, _number_of)
ROW = Kind("ROW", "a whole number", _is_number, _number_of)
ROW_AND_COUNT = Kind("ROW N", "two whole numbers", _is_two_numbers, _numbers_of)
_LETTERS = f"1 to {LONGEST_NAME} letters, digits and signs - _ ."
NAME = Kind("[NAME]", f"a name of {_LETTERS}", _is_name, optional=True)
CHECKPOINT = Kind("CKPT", "a step, or a name of a checkpoint", _is_name)
FACTOR = Kind(
    "F", f"a number from {LEAST_FACTOR:g} to {MOST_FACTOR:,.0f}", _is_factor, _factor_of
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One row: something that a run can be asked to do."""

    name: str
    kind: Kind
    help: str
    done: str  # what is told when it was taken
    # Whether the run may refuse it when its turn comes, so that who asks waits for the outcome.
    waits: bool = False


REQUESTS = (
    Request("start", NOTHING, "begin to train, where the run was started with --hold",
            "it begins to train"),
    Request("pause", NOTHING, "stay idle after the step in hand, until resume",
            "it will be idle after the step in hand, until resume"),
    Request("resume", NOTHING, "go on after pause",
            "it goes on"),
    Request("checkpoint", NAME, "write a checkpoint after the step in hand; with a NAME it is kept "
            "for good",
            "it will write a checkpoint after the step in hand", waits=True),
    Request("restore", CHECKPOINT, "go back to a checkpoint of this run, by its step or its name, "
            "and go on from there",
            "it will go back after the step in hand", waits=True),
    Request("lr-factor", FACTOR, "multiply the learning rate of the schedule by F from the next "
            "step on; 1 is the schedule itself",
            "it will go on with that learning rate after the step in hand", waits=True),
    Request("workers", NUMBER, "go on with N worker processes",
            "it will go on with that many workers after the step in hand"),
    Request("rebalance", NOTHING, "measure the worker processes, and give slow ones less to begin "
            "with",
            "it will share out the symmetry positions anew after the step in hand", waits=True),
    Request("spawn", ROW_AND_COUNT, "let worker process ROW become the control of N new ones",
            "it will start them after the step in hand", waits=True),
    Request("terminate", ROW, "end worker process ROW, or the children of a control; others "
            "take over the work",
            "it will end it after the step in hand", waits=True),
    Request("stop", NOTHING, "finish the step in hand, write a checkpoint and end",
            "it will finish the step in hand, write a checkpoint and end"),
)  # fmt: skip
BY_NAME = {request.name: request for request in REQUESTS}


@dataclass(frozen=True)
class Wish:
    """A request, and its argument, which is of the request's kind; None where it takes none."""

    name: str
    argument: Argument = None

    def __post_init__(self) -> None:
        request = BY_NAME.get(self.name)
        if request is None:
            known = ", ".join(BY_NAME)
            raise NoRequestError(f"'{self.name[:40]}' is no request, the requests are {known}")
        kind = request.kind
        if self.argument is None:
            if not kind.optional:
                raise NoRequestError(f"{self.name} takes {kind.words}, and none was given")
        elif not kind.fits(self.argument):
            raise NoRequestError(f"{self.name} takes {kind.words}")

    @classmethod
    def of_word(cls, word: str) -> Wish:
        """Return what a word asks for.  Raises `NoRequestError`.

        >>> Wish.of_word("workers=5"), Wish.of_word("pause")
        (Wish(name='workers', argument=5), Wish(name='pause', argument=None))
        """
        name, equals, text = word.partition("=")
        if equals:
            kind = BY_NAME[name].kind if name in BY_NAME else NOTHING
            return cls(name, kind.of_text(text))
        if word[-1:] in (MORE, FEWER):
            return cls(word[:-1], word[-1:])
        return cls(word)

    @classmethod
    def of_json(cls, line: dict[str, Any]) -> Wish:
        """Return what a line of the socket asks for.  Raises `NoRequestError`.

        >>> Wish.of_json({"command": "workers", "argument": "+"})
        Wish(name='workers', argument='+')
        """
        name, argument = line.get("command"), line.get("argument")
        if not isinstance(name, str):
            raise NoRequestError("a request is an object with a 'command'")
        if isinstance(argument, list):
            argument = tuple(argument[:3])
        elif isinstance(argument, dict):
            raise NoRequestError(f"the argument of {name[:40]} is an object")
        return cls(name, argument)

    def to_json(self) -> dict[str, Any]:
        """Return the line that `of_json` reads."""
        argument = list(self.argument) if isinstance(self.argument, tuple) else self.argument
        return {"command": self.name, **({} if argument is None else {"argument": argument})}

    def __str__(self) -> str:
        """Return the word that `of_word` reads."""
        if self.argument is None:
            return self.name
        if self.argument in (MORE, FEWER) and BY_NAME[self.name].kind is NUMBER:
            return f"{self.name}{self.argument}"
        if isinstance(self.argument, tuple):
            return f"{self.name}={','.join(map(str, self.argument))}"
        return f"{self.name}={self.argument}"
