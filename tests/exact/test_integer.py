"""BigInt against Python's int: boundary values x every operator x both sides x int and BigInt."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import pytest

from crystalline.exact import BigInt

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "divmod": divmod,
    "/": operator.truediv,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}
EDGES = [30, 53, 60, 63, 64, 65, 128, 192, 1024, 1088, 1152, 3000]
MAGNITUDES = sorted({0, 1, 2, 3, 10} | {(1 << k) + d for k in EDGES for d in (-1, 0, 1)})
VALUES = [sign * m for m in MAGNITUDES for sign in (1, -1)]


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the type of the exception."""
    try:
        return function(*arguments)
    except (ArithmeticError, ValueError, TypeError, MemoryError) as error:
        return type(error)


def typed(value: Any) -> Any:
    """The value with BigInt and int told from everything else."""
    if isinstance(value, tuple):
        return tuple(typed(item) for item in value)
    if type(value) is float:
        return value.hex()  # tells -0.0 from 0.0
    return ("integer", int(value)) if type(value) in (int, BigInt) else (type(value), value)


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators_on_boundary_values(name: str) -> None:
    f = BINARY[name]
    for a, b in itertools.product(VALUES, repeat=2):
        expected = typed(outcome(f, a, b))
        for x, y in ((BigInt(a), BigInt(b)), (BigInt(a), b), (a, BigInt(b))):
            found = outcome(f, x, y)
            assert typed(found) == expected, (name, x, y)
            assert type(found) is not int
