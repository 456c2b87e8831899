"""Python keywords as settings: converted by their fields' types, and errors in Python's spelling.

    RunSettings(**keywords({"seq_len": 64}, RunSettings))

The names are the fields of the very dataclasses whose flags the commands have; none is listed
again here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import numbers
import os
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from crystalline.errors import CrystallineError, UsageError
from crystalline.runs.layers import choice, field_hints, field_names, is_tuple, suggestion
from crystalline.untrusted import shown
from crystalline.untrusted.records import VALUE_CHARS

Function = TypeVar("Function", bound=Callable[..., Any])

_FLAG = re.compile(r"(?<![\w/.'\"-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![\w/.-]*/)")


def keywords(
    given: Mapping[str, object],
    *settings: type[Any],
    exclude: Collection[str] = (),
    elsewhere: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return `given` as values of the fields of `settings`, one dataclass or several.

    `elsewhere` names keywords that are none here, each with the advice to give.

    Raises:
        UsageError: an unknown name, or a value of another type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Example:
    ...     seed: int = 1
    ...     minutes: float | None = None
    >>> keywords({"minutes": 2}, Example)
    {'minutes': 2.0}
    >>> try:
    ...     keywords({"sed": 2}, Example)
    ... except UsageError as error:
    ...     print(error)
    'sed' is not a setting. Did you mean seed?
    """
    types: dict[str, Any] = {}
    hints: dict[str, Any] = {}
    for kind in settings:
        types |= typing.get_type_hints(kind)
        hints |= field_hints(kind, exclude)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in hints:
            raise UsageError(
                f"'{shown(name)}' is not a setting",
                advice=(elsewhere or {}).get(name)
                or suggestion(name, hints)
                or "The settings are the flags of the command, with _ for -.",
            )
        if value is None and type(None) in typing.get_args(types[name]):
            values[name] = None
            continue
        try:
            values[name] = from_python(hints[name], value)
        except ValueError as error:
            raise UsageError(
                f"{name} is {shown(repr(value), VALUE_CHARS)}", advice=f"It must be {error}."
            ) from None
    return values


def from_python(hint: Any, value: Any) -> Any:
    """Return a Python value as a field of type `hint`; a `ValueError` says what it must be.

    Numbers may be NumPy's, paths anything that `os.fspath` takes.

    >>> from pathlib import Path
    >>> from_python(str, Path("runs/a")), from_python(tuple[str, ...], "one.txt")
    ('runs/a', ('one.txt',))
    """
    if is_tuple(hint):
        if isinstance(value, (str, bytes, os.PathLike)):
            return (_text(value),)
        if isinstance(value, Mapping):
            raise ValueError("a string or several")
        try:
            return tuple(_text(item) for item in value)
        except TypeError:
            raise ValueError("a string or several") from None
    if typing.get_origin(hint) is Literal:
        # No string is among the choices when it is none.
        return choice(hint, value if isinstance(value, str) else "")
    if hint is bool:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        raise ValueError("True or False")
    if hint in (int, float) and isinstance(value, bool):  # which Python counts among the numbers
        raise ValueError("a number, not True or False")
    if hint is int:
        if isinstance(value, numbers.Integral):
            return int(value)
        raise ValueError("a whole number")
    if hint is float:
        if isinstance(value, numbers.Real):
            with contextlib.suppress(OverflowError):
                return float(value)
        raise ValueError("a number")
    return hint(_text(value))


def _text(value: object) -> str:
    if isinstance(value, (str, bytes, os.PathLike)):
        return os.fsdecode(value)
    raise ValueError("a string or a path")


def takes(*settings: type[Any], exclude: Collection[str] = ()) -> Callable[[Function], Function]:
    """Decorate a function whose `**settings` are the fields of dataclasses: help shows them."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=field.type,
            )
            for kind in settings
            for field in dataclasses.fields(kind)
            if field.name not in exclude and field.default is not dataclasses.MISSING
        ]
        signature = signature.replace(parameters=[*own, *fields])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


@contextlib.contextmanager
def python_spelling(*settings: type[Any], others: Collection[str] = ()) -> Iterator[None]:
    """Put errors that leave the block into Python's words: `--seq-len` is `seq_len`.

    Only names of fields of `settings`, and `others`, are spelled so; paths stay as they are.
    """
    known = frozenset(others).union(*map(field_names, settings))
    try:
        yield
    except CrystallineError as error:
        error.message = _spelled(error.message, known)
        error.advice = _spelled(error.advice, known)
        error.args = (error.message,)
        raise


def _spelled(text: str, known: Collection[str]) -> str:
    """Return text with its flags as keywords.

    >>> _spelled("--seq-len is 0, in a/--seq-len/b --beam", {"seq_len"})
    'seq_len is 0, in a/--seq-len/b --beam'
    """

    def keyword(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return name if name in known else found[0]

    return _FLAG.sub(keyword, text)
