"""JSON and TOML from outside, with bounds on depth, on numbers and on the number of values.

The standard library's parsers take what they are given: a thousand brackets exhaust the
stack, a number of 5,000 digits or an `Infinity` raises or passes somewhere later.  Here all of
it is one `BadContent` with a clause.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_DEPTH = 64  # of brackets; a tokenizer.json of the hub has 7
MAX_DIGITS = 20  # of a whole number: more than 2^63 has

_FEW_BYTES = 40  # of a number, shown in a message


class BadContent(ValueError):
    """Content that cannot be what it should be; `str(error)` is a clause."""


def parse_json(
    data: bytes | str, *, max_depth: int = MAX_DEPTH, max_digits: int = MAX_DIGITS
) -> Any:
    """Return the value of a JSON text in UTF-8, finite numbers only.

    Raises `BadContent`.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> try:
    ...     parse_json("[" * 100_000)
    ... except BadContent as error:
    ...     print(error)
    it is nested too deeply
    """
    with _in_words():
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_int=lambda digits: _whole(digits, max_digits),
            parse_float=_real,
            parse_constant=_refuse_constant,
        )
    check_depth(value, max_depth)
    return value


def parse_toml(data: bytes) -> dict[str, Any]:
    """Return the table of a TOML text.  Raises `BadContent`.

    >>> parse_toml(b"seed = 5")
    {'seed': 5}
    """
    with _in_words():
        table = tomllib.loads(data.decode("utf-8-sig"), parse_float=_real)
    check_depth(table, MAX_DEPTH)
    return table


def check_depth(value: Any, most: int) -> None:
    """Raise `BadContent` where lists and tables are nested more than `most` deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise BadContent("it is nested too deeply")


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turn whatever the parsers raise into `BadContent`."""
    try:
        yield
    except BadContent:
        raise
    except UnicodeDecodeError as error:
        raise BadContent(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BadContent("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadContent(
            f"it is not valid JSON (line {error.lineno}, column {error.colno})"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise BadContent(f"it is not valid TOML: {error}") from None
    except ValueError:  # the digits of TOML's whole numbers, or a date
        raise BadContent("it is not valid TOML: a number is out of range") from None


def _whole(digits: str, most: int) -> int:
    if len(digits) > most:
        raise BadContent(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits.replace("_", ""))
    if math.isnan(value) or math.isinf(value):
        raise BadContent(f"it holds the number {digits[:_FEW_BYTES]}, which is not finite")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadContent(f"it holds {name}, which JSON has not")
