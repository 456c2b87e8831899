"""Where a setting comes from: flag, else environment, else TOML file, else default.

    cllm-train --seq-len 64         a flag
    CLLM_SEQ_LEN=64 cllm-train      a variable: CLLM_ and the field's name in capitals
    seq_len = 64                    a line of the file that --config names

Which fields that works for, and the files, are told in `runs.layers`.  Parsing flags is left
to `cli.run`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeVar

from crystalline.cli.run import parse_settings
from crystalline.errors import UsageError
from crystalline.runs.layers import Layers, choice, field_hints, flag_of, is_tuple, suggestion
from crystalline.train.config import LENGTHS
from crystalline.untrusted import shown

PREFIX = "CLLM_"
# Variables with our prefix that are not settings of a command.
OTHER_VARIABLES = frozenset({"CLLM_CACHE"})

_WORDS = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip

Settings = TypeVar("Settings")


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
    hints = field_hints(settings, exclude)
    # A tuple of strings has no obvious form in a variable.
    hints = {name: hint for name, hint in hints.items() if not is_tuple(hint)}
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
                advice=suggestion(name, hints, lambda found: PREFIX + found.upper())
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


def given_lengths(argv: list[str]) -> set[str]:
    """Return which settings of length the flags give.

    >>> sorted(given_lengths(["text", "--minutes=3", "--epochs", "2"]))
    ['epochs', 'minutes']
    """
    return {name for name in LENGTHS if flag_value(argv, flag_of(name)) is not None}


def given_flags(argv: list[str], names: Collection[str]) -> set[str]:
    """Return which of some fields the flags give.

    >>> sorted(given_flags(["--seq-len=8", "--no-tie-embeddings"], ["seq_len", "tie_embeddings"]))
    ['seq_len', 'tie_embeddings']
    """
    spelled = {argument.partition("=")[0].replace("_", "-") for argument in argv}
    return {name for name in names if spelled & {flag_of(name), flag_of(f"no_{name}")}}


def _from_text(hint: Any, text: str) -> Any:
    """Return the text of a variable as a field of type `hint`, like `converted`."""
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
