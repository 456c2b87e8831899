"""What may be asked of a run: the one table that keys, callbacks, the socket and commands read.

A wish is a request with what belongs to it.  Written as a word it is what a key or a callback
returns: "pause", "workers=5", "workers+" (one more), "workers-" (one fewer).  As JSON, a line of
the run's socket: {"command": "workers", "argument": 5}.  What comes of it is decided where the run
is steered (`train.control`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MORE, FEWER = "+", "-"
LARGEST = 10**6  # number that is looked at


@dataclass(frozen=True)
class Request:
    """One row: something that a run can be asked to do."""

    name: str
    argument: str  # what it takes: the letter for a number, or nothing
    help: str
    done: str  # what is told when it was taken


REQUESTS = (
    Request("pause", "", "stay idle after the step in hand, until resume",
            "it will be idle after the step in hand, until resume"),
    Request("resume", "", "go on after pause",
            "it goes on"),
    Request("checkpoint", "", "write a checkpoint after the step in hand",
            "it will write a checkpoint after the step in hand"),
    Request("workers", "N", "go on with N worker processes",
            "it will go on with that many workers after the step in hand"),
    Request("stop", "", "finish the step in hand, write a checkpoint and end",
            "it will finish the step in hand, write a checkpoint and end"),
)  # fmt: skip
BY_NAME = {request.name: request for request in REQUESTS}


class NoRequestError(ValueError):
    """Words that ask for nothing in the table; the message is a clause."""


@dataclass(frozen=True)
class Wish:
    """A request, and its argument: a number, `MORE`, `FEWER`, or None where it takes none."""

    name: str
    argument: int | str | None = None

    def __post_init__(self) -> None:
        request = BY_NAME.get(self.name)
        if request is None:
            known = ", ".join(BY_NAME)
            raise NoRequestError(f"'{self.name[:40]}' is no request, the requests are {known}")
        if not request.argument:
            if self.argument is not None:
                raise NoRequestError(f"{self.name} takes no argument")
        elif self.argument is None:
            raise NoRequestError(f"{self.name} takes a number, and none was given")
        elif self.argument not in (MORE, FEWER) and not _is_number(self.argument):
            raise NoRequestError(f"{self.name} takes a whole number")

    @classmethod
    def of_word(cls, word: str) -> Wish:
        """Return what a word asks for.  Raises `NoRequestError`.

        >>> Wish.of_word("workers=5"), Wish.of_word("pause")
        (Wish(name='workers', argument=5), Wish(name='pause', argument=None))
        """
        name, equals, number = word.partition("=")
        if equals:
            return cls(name, int(number) if number.isdecimal() and len(number) < 10 else number)
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
        if not isinstance(argument, (int, str, type(None))):
            raise NoRequestError(f"{name[:40]} takes a whole number")
        return cls(name, argument)

    def to_json(self) -> dict[str, Any]:
        """Return the line that `of_json` reads."""
        return {
            "command": self.name,
            **({} if self.argument is None else {"argument": self.argument}),
        }

    def __str__(self) -> str:
        """Return the word that `of_word` reads."""
        if self.argument is None:
            return self.name
        return f"{self.name}{'' if self.argument in (MORE, FEWER) else '='}{self.argument}"


def _is_number(argument: object) -> bool:
    return type(argument) is int and 0 <= argument <= LARGEST
