"""Where a setting comes from: flag, else environment, else TOML file, else default.

    cllm-train --seq-len 64         a flag
    CLLM_SEQ_LEN=64 cllm-train      a variable: CLLM_ and the field's name in capitals
    seq_len = 64                    a line of the file that --config names

Works for any frozen dataclass whose fields are booleans, numbers, strings, paths, literals,
optional ones of these, or tuples of strings.  Parsing flags is left to `cli.run`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from crystalline.cli.run import parse_settings
from crystalline.errors import UsageError
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.records import VALUE_CHARS

PREFIX = "CLLM_"
# Variables with our prefix that are not settings of a command.
OTHER_VARIABLES = frozenset({"CLLM_CACHE"})

_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip

Settings = TypeVar("Settings")


@dataclass
class Layers:
    """Values by field, and where each came from; a later `update` wins."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def update(self, values: Mapping[str, Any], source: Mapping[str, str]) -> None:
        """Put `values` over what is there; `source` names the origin of each field."""
        self.values.update(values)
        self.sources.update({name: source[name] for name in values})


def toml_layer(
    settings: type[Any], path: Path, *, exclude: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (values, sources) from a TOML file; `exclude` names fields it must not set.

    Raises:
        UsageError: the file cannot be read, has an unknown key or a value of the wrong type.
    """
    from crystalline.formats.rundir import read_toml

    hints = _field_hints(settings, exclude)
    values = {}
    for key, value in read_toml(path).items():
        name = key.replace("-", "_")
        if name not in hints:
            raise UsageError(
                f"the settings file {path} has an unknown key '{shown(key)}'",
                advice=_suggestion(name, hints) or "The keys are the flags of the command, with _.",
            )
        try:
            values[name] = _from_toml(hints[name], value)
        except ValueError as error:
            raise UsageError(
                f"the settings file {path} has {shown(key)} = {shown(repr(value))}",
                advice=f"It must be {error}.",
            ) from None
    return values, dict.fromkeys(values, f"the settings file {path}")


def environment_layer(
    settings: type[Any],
    environ: Mapping[str, str],
    *,
    exclude: Collection[str] = (),
    tolerate: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (values, sources) from the variables CLLM_<FIELD>; empty ones count as unset.

    `tolerate` names fields of other commands, whose variables are left alone.

    Raises:
        UsageError: an unknown variable with our prefix, or a value of the wrong type.
    """
    hints = _field_hints(settings, exclude)
    # A tuple of strings has no obvious form in a variable.
    hints = {name: hint for name, hint in hints.items() if not _is_tuple(hint)}
    values, sources = {}, {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        name, text = variable.removeprefix(PREFIX).lower(), environ[variable]
        if name not in hints:
            if name in tolerate:
                continue
            raise UsageError(
                f"the environment variable {shown(variable)} is not a setting",
                advice=_suggestion(name, hints, lambda found: PREFIX + found.upper())
                or f"Unset it, or use {PREFIX} with the name of a flag.",
            )
        if not text:
            continue
        try:
            values[name] = _from_text(hints[name], text)
        except ValueError as error:
            raise UsageError(
                f"the environment variable {shown(variable)} is {shown(repr(text))}",
                advice=f"It must be {error}.",
            ) from None
        sources[name] = f"the environment variable {variable}"
    return values, sources


def parse_layered(
    settings: type[Settings],
    argv: list[str],
    layers: Layers,
    *,
    program: str,
    description: str,
) -> Settings:
    """Return `settings` from the flags in `argv` over `layers` over the defaults.

    Raises:
        UsageError: an impossible value; where it is not a flag's, the advice names its source.
    """
    # Checks across fields wait until the flags are in: this object goes to the parser only.
    base = object.__new__(settings)
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        object.__setattr__(base, item.name, layers.values.get(item.name, item.default))
    try:
        return parse_settings(
            settings, argv, program=program, description=description, default=base
        )
    except UsageError as error:
        given = {argument.partition("=")[0] for argument in argv}
        for name, source in layers.sources.items():
            flag = flag_of(name)
            if flag in error.message.split() and flag not in given:
                raise UsageError(
                    error.message, advice=f"{error.advice} The value comes from {source}."
                ) from None
        raise


def flag_value(argv: Iterable[str], flag: str) -> str | None:
    """Return the last value that `argv` gives for `flag`, before anything is parsed.

    >>> flag_value(["--config", "a.toml", "--config=b.toml"], "--config")
    'b.toml'
    """
    found = None
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") != flag:
            continue
        if equals:
            found = value
        elif index + 1 < len(arguments):
            found = arguments[index + 1]
    return found


def flag_of(name: str) -> str:
    """Return the flag of a field.

    >>> flag_of("seq_len")
    '--seq-len'
    """
    return "--" + name.replace("_", "-")


def checked_values(settings: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored values of some fields, each as a value of its field's type.

    None stays where a field may be None.  Raises `BadContent` for a value of another type.

    >>> @dataclass(frozen=True)
    ... class Example:
    ...     seed: int = 1
    ...     minutes: float | None = None
    >>> checked_values(Example, {"seed": 5, "minutes": 2})
    {'seed': 5, 'minutes': 2.0}
    >>> try:
    ...     checked_values(Example, {"seed": None})
    ... except BadContent as error:
    ...     print(error)
    'seed' is None, it must be a whole number
    """
    hints = typing.get_type_hints(settings)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if value is None and type(None) in typing.get_args(hints[name]):
            checked[name] = None
            continue
        try:
            checked[name] = _from_toml(_bare(hints[name]), value)
        except ValueError as error:
            raise BadContent(
                f"'{name}' is {shown(repr(value), VALUE_CHARS)}, it must be {error}"
            ) from None
    return checked


def field_names(settings: type[Any]) -> frozenset[str]:
    """Return the names of a dataclass's fields."""
    return frozenset(item.name for item in dataclasses.fields(settings))


def _field_hints(settings: type[Any], exclude: Collection[str]) -> dict[str, Any]:
    """Return field → type, without annotations and without None."""
    hints = typing.get_type_hints(settings)
    return {name: _bare(hints[name]) for name in field_names(settings) if name not in exclude}


def _bare(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return hint


def _is_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def _from_toml(hint: Any, value: Any) -> Any:
    """Return `value` as a field of type `hint`; a `ValueError` says what it must be."""
    if _is_tuple(hint):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ValueError("a list of strings")
    if typing.get_origin(hint) is Literal:
        if isinstance(value, str):
            return _choice(hint, value)
        raise ValueError(_choices(hint))
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise ValueError("true or false")
    if hint in (int, float):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if hint is float:
                return float(value)
            if isinstance(value, int):
                return value
        raise ValueError("a whole number" if hint is int else "a number")
    if isinstance(value, str):
        return hint(value)
    raise ValueError("a string, in quotation marks")


def _from_text(hint: Any, text: str) -> Any:
    """Return the text of a variable as a field of type `hint`, like `_from_toml`."""
    if typing.get_origin(hint) is Literal:
        return _choice(hint, text)
    if hint is bool:
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        raise ValueError("1 or 0")
    try:
        return hint(text)
    except ValueError:
        raise ValueError("a whole number" if hint is int else "a number") from None


def _choice(hint: Any, text: str) -> str:
    if text in typing.get_args(hint):
        return text
    raise ValueError(_choices(hint))


def _choices(hint: Any) -> str:
    *first, last = typing.get_args(hint)
    return f"{', '.join(first)} or {last}" if first else str(last)


def _suggestion(name: str, known: Iterable[str], spell: Any = str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {spell(close[0])}?" if close else ""
