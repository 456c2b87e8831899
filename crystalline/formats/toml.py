r"""Settings files: TOML that holds any name a file can have.

TOML's strings are Unicode, and a name on disk is bytes.  Python keeps bytes that are not
UTF-8 as lone surrogates (U+DC80 to U+DCFF), which TOML forbids.  Here they are written as
a NUL, which no name can hold, and the four digits of the surrogate:

    data = ["caf\u0000dce9.txt"]       the Latin-1 name b"caf\xe9.txt"

A NUL that is followed by what would read like this is written as NUL and 0000.  Every
other string is plain TOML, so that any program reads what we write, and we what any
program or person writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystalline.errors import UsageError
from crystalline.untrusted import BadContent, parse_toml, printable
from crystalline.untrusted.files import RUN_CONFIG

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CODE = "0000|d[89a-f][0-9a-f]{2}"
_NO_TOML = re.compile(f"[\ud800-\udfff]|\\x00(?={_CODE})")
_WRITTEN = re.compile(f"\\x00({_CODE})")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, the inverse of `to_toml`.

    Raises `UsageError` when it is missing, not TOML, or may not be read.
    """
    try:
        document: dict[str, Any] = _from_toml(parse_toml(RUN_CONFIG.read_bytes(path)))
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise UsageError(
            f"the settings file {path} cannot be read ({error.strerror})",
            advice="Check its permissions." if denied else "Check the path.",
        ) from None
    except BadContent as error:
        raise UsageError(
            f"the settings file {path} cannot be used: {error}",
            advice="Lines look like: learning_rate = 0.001.",
        ) from None
    return document


def to_toml(values: Mapping[str, Any], *, comment: str = "") -> str:
    """Return flat settings as TOML; None, which TOML has no word for, is left out.

    What `comment` has that neither TOML nor a terminal takes is shown as an escape.
    Raises `TypeError` for anything but booleans, numbers, strings and lists of them.

    >>> print(to_toml({"seed": 5, "data": ["a b"], "min_lr": None}, comment="Hello."), end="")
    # Hello.
    seed = 5
    data = ["a b"]
    """
    lines = [f"# {line}".rstrip() for line in printable(comment).split("\n") if comment]
    lines += [
        f"{key if _BARE_KEY.fullmatch(key) else _toml_string(key)} = {_toml_value(value)}"
        for key, value in values.items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # TOML wants a dot or an exponent, and knows inf and nan as Python writes them.
        return repr(value)
    if isinstance(value, (str, Path)):
        return _toml_string(str(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a settings file")


def _toml_string(text: str) -> str:
    text = _NO_TOML.sub(lambda match: f"\x00{ord(match[0]):04x}", text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def _from_toml(value: Any) -> Any:
    """Return a value of a settings file with the names that `_toml_string` wrote."""
    if isinstance(value, str):
        return _WRITTEN.sub(lambda match: chr(int(match[1], 16)), value)
    if isinstance(value, list):
        return [_from_toml(item) for item in value]
    if isinstance(value, dict):
        return {_from_toml(key): _from_toml(item) for key, item in value.items()}
    return value
