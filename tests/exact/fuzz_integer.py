"""Random operations of BigInt against Python's int.

    python -m tests.exact.fuzz_integer --operations 1000000 --seed 1

Sizes spread from nothing to beyond the crossovers of the schoolbook, Karatsuba, Toom-Cook and
transform products, small ones being the most frequent; bits are random, sparse, all ones or the
neighbors of powers of two.  Prints what it did; the first mismatch raises AssertionError with
the operands.
"""

from __future__ import annotations

import argparse
import math
import operator
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from crystalline.exact import BigInt

# Bits: most operations are small, one in 2,000 crosses into transforms.
_SIZES = [(0.3, 64), (0.65, 256), (0.9, 1_500), (0.99, 6_000), (0.9995, 40_000), (1.0, 300_000)]


def number(random_: random.Random, largest: int = sys.maxsize) -> int:
    """A number of either sign from the mix of sizes and patterns."""
    which = random_.random()
    bits = random_.randrange(min(largest, next(top for share, top in _SIZES if which <= share)) + 1)
    pattern = random_.randrange(4)
    if pattern == 0:
        x = (1 << bits) + random_.randrange(-2, 3)
    elif pattern == 1:  # runs of ones and zeros
        x = 0
        for _ in range(random_.randrange(1, 6)):
            x ^= (1 << random_.randrange(bits + 1)) - 1
    else:
        x = random_.getrandbits(bits)
    return -x if random_.random() < 0.5 else x


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "floordiv", "mod", "truediv", "and_", "or_", "xor"),
        *("lt", "le", "eq", "ne", "gt", "ge"),
    )
} | {"divmod": divmod}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "abs": abs,
    "invert": operator.invert,
    "bool": bool,
    "hash": hash,
    "float": float,
    "index": operator.index,
    "bit_length": lambda x: x.bit_length(),
    "bit_count": lambda x: x.bit_count(),
    "hex": hex,
    "square": lambda x: x * x,
}


def _outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ArithmeticError, ValueError) as error:
        return type(error)


def _sides(random_: random.Random, a: int, b: int) -> tuple[Any, Any]:
    """The operands as BigInts, or one of them as the int."""
    which = random_.randrange(4)
    return (a if which == 1 else BigInt(a)), (b if which == 2 else BigInt(b))


def _binary(random_: random.Random) -> tuple[str, Any, Any]:
    name = random_.choice(list(_OPERATORS))
    a, b = number(random_), number(random_)
    if random_.random() < 0.1:
        b = a + random_.randrange(-1, 2)
    x, y = _sides(random_, a, b)
    return (
        f"{name}({a:#x}, {b:#x})",
        _outcome(_OPERATORS[name], x, y),
        _outcome(_OPERATORS[name], a, b),
    )


def _unary(random_: random.Random) -> tuple[str, Any, Any]:
    name = random_.choice(list(_UNARY))
    a = number(random_)
    return f"{name}({a:#x})", _outcome(_UNARY[name], BigInt(a)), _outcome(_UNARY[name], a)


def _shift(random_: random.Random) -> tuple[str, Any, Any]:
    name = random_.choice(["lshift", "rshift"])
    a, count = number(random_), random_.randrange(-2, 400)
    f = getattr(operator, name)
    return f"{name}({a:#x}, {count})", _outcome(f, BigInt(a), count), _outcome(f, a, count)


def _double(random_: random.Random) -> tuple[str, Any, Any]:
    name = random_.choice(["lt", "le", "eq", "ne", "gt", "ge", "add", "mul", "truediv"])
    a = number(random_, 1_100)
    b = random_.choice([math.ldexp(random_.random(), random_.randrange(-5, 1_024)), 0.5, -0.0])
    if a.bit_length() < 1_024 and random_.random() < 0.3:
        b = float(a)
    f = _OPERATORS[name]
    return f"{name}({a:#x}, {b})", _outcome(f, BigInt(a), b), _outcome(f, a, b)


def _power(random_: random.Random) -> tuple[str, Any, Any]:
    a, exponent = number(random_, 300), random_.randrange(-3, 40)
    if random_.random() < 0.5:
        x = _outcome(pow, BigInt(a), exponent)
        return f"pow({a:#x}, {exponent:#x})", x, _outcome(pow, a, exponent)
    modulus, exponent = number(random_, 500), number(random_, 200)
    x = _outcome(pow, BigInt(a), exponent, modulus)
    return f"pow({a:#x}, {exponent:#x}, {modulus:#x})", x, _outcome(pow, a, exponent, modulus)


def _text(random_: random.Random) -> tuple[str, Any, Any]:
    a = number(random_, 10_000)
    kind = random_.choice(["d", "x", "o", "b", "#x", ",d", "_x", "+030,d", "base"])
    if kind == "base":
        base = random_.randrange(2, 37)
        return f"base {base} of {a:#x}", BigInt(BigInt(a).digits(base), base), a
    text = format(BigInt(a), kind)
    if kind == "d":
        return f"decimal {a:#x}", BigInt(text), int(text)
    return f"format({a:#x}, {kind!r})", text, format(a, kind)


def _bytes(random_: random.Random) -> tuple[str, Any, Any]:
    a, order = number(random_), random_.choice(["little", "big"])
    # CPython writes -1 into no bytes at all, which nothing can read back
    length = max(1, (a.bit_length() + 7) // 8 + random_.randrange(-1, 3))
    signed = random_.random() < 0.6
    x = _outcome(lambda: BigInt(a).to_bytes(length, order, signed=signed))
    expected = _outcome(lambda: a.to_bytes(length, order, signed=signed))
    if x == expected and isinstance(x, bytes):
        x, expected = BigInt.from_bytes(x, order, signed=signed), a
    return f"bytes of {a:#x}, {length}, {order}, {signed}", x, expected


_KINDS = [
    (_binary, 60),
    (_unary, 12),
    (_shift, 8),
    (_double, 8),
    (_power, 4),
    (_text, 4),
    (_bytes, 4),
]


def fuzz(operations: int, seed: int) -> Counter[str]:
    """Run so many operations; returns how many of each kind."""
    random_ = random.Random(seed)
    kinds, weights = zip(*_KINDS, strict=True)
    done: Counter[str] = Counter()
    for kind in random_.choices(kinds, weights, k=operations):
        name, found, expected = kind(random_)
        assert found == expected, f"{name}: {found!r} instead of {expected!r}"
        assert (
            type(found) is not int
            or name.split("(")[0] in ("hash", "index")
            or (name.startswith("bit_"))
        ), f"{name}: an int came out"
        done[kind.__name__.strip("_")] += 1
    return done


def main() -> int:
    """Fuzz with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.set_int_max_str_digits(0)
    start = time.monotonic()
    done = fuzz(arguments.operations, arguments.seed)
    took_s = time.monotonic() - start
    print(f"seed {arguments.seed}: no mismatch in {took_s:.0f} s of", dict(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
