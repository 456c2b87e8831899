"""The values of settings in layers: a later one wins, and each knows where it came from.

Works for any frozen dataclass whose fields are booleans, numbers, strings, paths, literals,
optional ones of these, or tuples of strings.  Here are the values that files hold, in TOML, INI
or a checkpoint; flags and the environment are the commands' (`cli.settings`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

from crystalline.errors import UsageError
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.records import VALUE_CHARS

AUTOMATIC = frozenset({"lanes"})  # whole numbers that may be given as 'auto', which is 0
# Sections that a settings file may have, to put its lines in order.
SECTIONS = frozenset({"model", "training", "optimizer", "scheduler", "checkpointing"})
# What settings are called elsewhere, in a section or ("") anywhere.
ALIASES = {
    ("", "embedding_dim"): "embed_dim",
    ("", "sequence_length"): "seq_len",
    ("", "num_epochs"): "epochs",
    ("", "gradient_clip"): "grad_clip",
    ("model", "type"): "architecture",
    ("optimizer", "type"): "optimizer",
    ("scheduler", "type"): "lr_schedule",
}

_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip


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
    settings: type[Any],
    path: Path,
    *,
    exclude: Collection[str] = (),
    tolerate: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (values, sources) from a settings file; `exclude` names fields it must not set.

    It is TOML, or INI where its name ends as one's does.  Settings may stand in sections, whose
    names say nothing, and under the names that they have elsewhere (`ALIASES`).
    `tolerate` names settings of others, which are left alone.

    Raises:
        UsageError: the file cannot be read, has an unknown key or a value of the wrong type.
    """
    from crystalline.formats.ini import SUFFIXES, read_ini
    from crystalline.formats.toml import read_toml

    is_ini = path.suffix.lower() in SUFFIXES
    convert: Callable[[Any, Any], Any] = from_text if is_ini else converted
    hints = field_hints(settings, exclude)
    values: dict[str, Any] = {}
    for section, key, value in _flat(read_ini(path) if is_ini else read_toml(path)):
        name = key.replace("-", "_")
        if name not in hints:
            name = ALIASES.get((section, name), ALIASES.get(("", name), name))
        if name in tolerate:
            continue
        if name not in hints:
            raise UsageError(
                f"the settings file {path} has an unknown key '{shown(key)}'",
                advice=suggestion(name, hints) or "The keys are the flags of the command, with _.",
            )
        if name in values:
            raise UsageError(
                f"the settings file {path} gives {name} twice, the second time as '{shown(key)}'",
                advice="Leave one of them out.",
            )
        if is_ini and not value:  # as an empty variable is
            continue
        try:
            values[name] = convert(hints[name], numbered(name, value))
        except ValueError as error:
            raise UsageError(
                f"the settings file {path} has {shown(key)} = {shown(repr(value))}",
                advice=f"It must be {error}.",
            ) from None
    return values, dict.fromkeys(values, f"the settings file {path}")


def _flat(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, value) of a settings file; the section is "" outside of all."""
    for key, value in document.items():
        if key.lower() in SECTIONS and isinstance(value, Mapping):
            yield from ((key.lower(), name, inner) for name, inner in value.items())
        else:
            yield "", key, value


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
            checked[name] = converted(_bare(hints[name]), value)
        except ValueError as error:
            raise BadContent(
                f"'{name}' is {shown(repr(value), VALUE_CHARS)}, it must be {error}"
            ) from None
    return checked


def field_names(settings: type[Any]) -> frozenset[str]:
    """Return the names of a dataclass's fields."""
    return frozenset(item.name for item in dataclasses.fields(settings))


def field_hints(settings: type[Any], exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return field → type, without annotations and without None."""
    hints = typing.get_type_hints(settings)
    return {name: _bare(hints[name]) for name in field_names(settings) if name not in exclude}


def _bare(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return hint


def is_tuple(hint: Any) -> bool:
    """Return whether a field of this type holds several values."""
    return typing.get_origin(hint) is tuple


def numbered(name: str, value: Any) -> Any:
    """Return the number that stands for 'auto' where a field takes that, else `value`.

    >>> numbered("lanes", "auto"), numbered("seed", "auto"), numbered("lanes", "24")
    (0, 'auto', '24')
    """
    return 0 if name in AUTOMATIC and value == "auto" else value


def converted(hint: Any, value: Any) -> Any:
    """Return `value` as a field of type `hint`; a `ValueError` says what it must be."""
    if is_tuple(hint):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ValueError("a list of strings")
    if typing.get_origin(hint) is Literal:
        if isinstance(value, str):
            return choice(hint, value)
        raise ValueError(_choices(hint))
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise ValueError("true or false")
    if hint in (int, float):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if hint is float:
                with contextlib.suppress(OverflowError):  # a whole number of hundreds of digits
                    return float(value)
            elif isinstance(value, int):
                return value
        raise ValueError("a whole number" if hint is int else "a number")
    if isinstance(value, str):
        return hint(value)
    raise ValueError("a string, in quotation marks")


def from_text(hint: Any, text: str) -> Any:
    """Return the text of a variable or of an INI file as a field of type `hint`, as `converted`.

    >>> from_text(bool, "off"), from_text(float, "1e-3"), from_text(tuple[str, ...], "a\\nb c")
    (False, 0.001, ('a', 'b c'))
    """
    if is_tuple(hint):
        return tuple(filter(None, text.split("\n")))
    if typing.get_origin(hint) is Literal:
        return choice(hint, text)
    if hint is bool:
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        raise ValueError("1 or 0")
    try:
        return hint(text)
    except ValueError:
        raise ValueError("a whole number" if hint is int else "a number") from None


def choice(hint: Any, text: str) -> str:
    """Return `text` if it is among the literals of a type; else a `ValueError` names them."""
    if text in typing.get_args(hint):
        return text
    raise ValueError(_choices(hint))


def _choices(hint: Any) -> str:
    *first, last = typing.get_args(hint)
    return f"{', '.join(first)} or {last}" if first else str(last)


def suggestion(name: str, known: Iterable[str], spell: Any = str) -> str:
    """Return a question that offers the nearest name in its spelling; "" where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {spell(close[0])}?" if close else ""
