"""Integers by Python's format specifications: sign, fill, width, grouping, every type of int's."""

from __future__ import annotations

import locale
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalline.exact.integer import BigInt

_SPEC = re.compile(
    r"(?:(?P<fill>.)?(?P<align>[<>=^]))?(?P<sign>[-+ ])?z?(?P<prefix>\#)?(?P<zero>0)?"
    r"(?P<width>\d+)?(?P<separator>[,_])?(?:\.\d+)?(?P<type>.)?",
    re.DOTALL,
)
_BASES = {"b": 2, "o": 8, "x": 16, "X": 16}


def format_integer(value: BigInt, spec: str) -> str:
    """Return the number as `format` would write the same int.

    Raises ValueError, with int's message, for a specification that int does not have.

    >>> from crystalline.exact import BigInt
    >>> format_integer(BigInt(-1234567), "+,d"), format_integer(BigInt(255), "#010_x")
    ('-1,234,567', '0x000_00ff')
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        format(0, spec)  # raises
        raise ValueError(f"Invalid format specifier {spec!r} for an integer")
    kind = match["type"] or "d"
    if kind in "eEfFgG%":
        return format(float(value), spec)
    if kind == "c":
        return format(int(value), spec)
    start, end = match.span("width")
    format(0, spec[:start] + spec[end:])  # raises for what does not go together
    width = int(match["width"] or 0)
    if width > sys.maxsize:
        raise ValueError(f"Too many decimal digits in format string: {spec!r}")
    digits = abs(value).digits(_BASES.get(kind, 10))
    if kind == "X":
        digits = digits.upper()
    sign = "-" if value < 0 else "" if match["sign"] in (None, "-") else match["sign"]
    if match["prefix"] and kind in _BASES:
        sign += "0" + kind
    fill, align = match["fill"] or " ", match["align"] or ">"
    if match["zero"] and match["fill"] is None:
        fill, align = "0", match["align"] or "="
    separator, sizes = _grouping(kind, match["separator"])
    if separator:
        padded = width - len(sign) if fill == "0" and align == "=" else 0
        digits = _grouped(digits, separator, sizes, padded)
    padding = fill * (width - len(sign) - len(digits))
    if align == "=":
        return sign + padding + digits
    if align == "<":
        return sign + digits + padding
    if align == "^":
        left = len(padding) // 2
        return padding[:left] + sign + digits + padding[left:]
    return padding + sign + digits


def _grouping(kind: str, separator: str | None) -> tuple[str, list[int]]:
    """The separator and the sizes of groups from the right, as `localeconv` gives them."""
    if kind == "n":
        conventions = locale.localeconv()
        sizes = conventions["grouping"]
        assert isinstance(sizes, list)
        return str(conventions["thousands_sep"]) if sizes else "", sizes
    return separator or "", [4 if kind in _BASES else 3, 0]


def _sizes(sizes: list[int]) -> Iterator[int]:
    """Sizes of groups from the right: 0 repeats the one before, CHAR_MAX takes all that is left."""
    size = 0
    for size_or_mark in sizes:
        if size_or_mark == locale.CHAR_MAX:
            return
        if size_or_mark == 0:
            break
        size = size_or_mark
        yield size
    while True:
        yield size


def _grouped(digits: str, separator: str, sizes: list[int], width: int) -> str:
    """Digits in groups, with zeros in front until they fill the width, never a lone separator."""
    groups = []
    end = len(digits)
    for size in _sizes(sizes):
        size = min(max(end, width, 1), size)
        groups.append(digits[max(0, end - size) : end].rjust(size, "0"))
        end = max(0, end - size)
        width -= size
        if end == 0 and width <= 0:
            break
        width -= len(separator)
    else:
        groups.append(digits[:end].rjust(max(width, 1), "0"))
    return separator.join(reversed(groups))
