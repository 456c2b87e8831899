"""What BigInt promises beside arithmetic: errors, conversions, formats, copies, threads, memory."""

from __future__ import annotations

import copy
import fractions
import gc
import math
import numbers
import pickle
import random
import threading
from collections.abc import Callable
from typing import Any

import gmpy2
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.exact import BigInt
from tests.exact.fuzz_integer import fuzz, number

ints = st.one_of(
    st.integers(),
    st.integers(-(1 << 2000), 1 << 2000),
    st.builds(
        lambda k, d, s: s * ((1 << k) + d),
        st.integers(0, 1300),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    ),
)
profile = settings(derandomize=True, deadline=None, max_examples=200)
SPECS = [
    f"{fill}{sign}{prefix}{zero}{width}{separator}{kind}"
    for fill in ("", "*^", "<", "x=")
    for sign in ("", "+", " ")
    for prefix in ("", "#")
    for zero in ("", "0")
    for width in ("", "9", "40")
    for separator in ("", ",", "_")
    for kind in ("", "d", "b", "o", "x", "X", "n", "e", "g", "%", "y")
]


def raises(function: Callable[..., Any], *arguments: Any) -> type[Exception] | Any:
    try:
        return function(*arguments)
    except (ArithmeticError, ValueError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("value", [0, 5, -1, 255, -1234567, 10**30 + 7, -(1 << 200)])
def test_every_format_specification(value: int) -> None:
    odd = ["c", ".3f", ".0e", ",.2f", "\u00e9>20d", "<<10", "z=9d", "  +5", "5.1d", "9" * 30]
    for spec in SPECS + odd:
        assert raises(format, BigInt(value), spec) == raises(format, value, spec), (value, spec)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: BigInt(77) // 0, ZeroDivisionError, "77"),
    (lambda: BigInt(77) % 0, ZeroDivisionError, "77"),
    (lambda: 77 / BigInt(0), ZeroDivisionError, "77"),
    (lambda: divmod(BigInt(77), BigInt(0)), ZeroDivisionError, "77"),
    (lambda: BigInt(0) ** -3, ZeroDivisionError, "-3"),
    (lambda: pow(BigInt(6), 5, 0), ValueError, r"6 \*\* 5"),
    (lambda: pow(BigInt(6), -1, 9), ValueError, "6 modulo 9"),
    (lambda: pow(6, -1, BigInt(9)), ValueError, "6 modulo 9"),
    (lambda: BigInt(1) << -5, ValueError, "-5"),
    (lambda: BigInt(1) >> -5, ValueError, "-5"),
    (lambda: BigInt(1) << (1 << 60), MemoryError, "1 << 1152921504606846976"),
    (lambda: BigInt(1) << (1 << 45), MemoryError, "1 << 35184372088832"),
    (lambda: BigInt(3) << (1 << 80), OverflowError, "1208925819614629174706176"),
    (lambda: BigInt(3) ** (1 << 60), MemoryError, "1152921504606846976"),
    (lambda: BigInt(3) ** (1 << 90), MemoryError, "1237940039285380274899124224"),
    (lambda: BigInt(2) ** (1 << 45), MemoryError, "35184372088832"),
    (lambda: float(BigInt(10) ** 400), OverflowError, "1329 bits"),
    (lambda: BigInt(10) ** 400 / 3, OverflowError, "1329 bits"),
    (lambda: BigInt(10) ** 400 * 1.5, OverflowError, "1329 bits"),
    (lambda: BigInt("12x"), ValueError, "12x"),
    (lambda: BigInt(b"12x", 11), ValueError, "base 11.*12x"),
    (lambda: BigInt("1", 37), ValueError, "37"),
    (lambda: BigInt(5, 10), TypeError, "5"),
    (lambda: BigInt(base=10), TypeError, "missing"),
    (lambda: BigInt(float("nan")), ValueError, "nan"),
    (lambda: BigInt(float("-inf")), OverflowError, "-inf"),
    (lambda: BigInt([]), TypeError, "list"),
    (lambda: BigInt(1) + "1", TypeError, "str"),
    (lambda: BigInt(1) & 1.0, TypeError, "float"),
    (lambda: BigInt(1) < "1", TypeError, "str"),
    (lambda: BigInt(-5).to_bytes(2), OverflowError, "-5"),
    (lambda: BigInt(300).to_bytes(1), OverflowError, "300"),
    (lambda: BigInt(3).to_bytes(-1), ValueError, "-1"),
    (lambda: BigInt(3).to_bytes(1, "middle"), ValueError, "middle"),
    (lambda: BigInt.from_bytes(5), TypeError, "5"),
    (lambda: BigInt.from_bytes("5"), TypeError, "5"),
    (lambda: BigInt(3).digits(1), ValueError, "1"),
    (lambda: round(BigInt(3), "x"), TypeError, "str"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_names_the_value(case: int) -> None:
    function, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        function()


@profile
@given(ints, ints, ints)
def test_ring_and_division_laws(a: int, b: int, c: int) -> None:
    x, y, z = BigInt(a), BigInt(b), BigInt(c)
    assert x * (y + z) == x * y + x * z == a * (b + c)
    assert (x & y) + (x | y) == x + y
    assert x ^ y == (x | y) - (x & y)
    if b:
        q, r = divmod(x, y)
        assert q * y + r == a
        assert 0 <= r < y or y < r <= 0
        assert (int(q), int(r)) == gmpy2.f_divmod(a, b)
        assert x / y == a / b if abs(a) < 2**900 else True


@profile
@given(ints, st.integers(2, 36))
def test_text_and_bytes_round_trips(a: int, base: int) -> None:
    x = BigInt(a)
    assert x.digits(base) == gmpy2.mpz(a).digits(base)
    assert BigInt(x.digits(base), base) == a
    assert BigInt(f"  {a:_} ") == a
    assert BigInt(hex(a), 0) == BigInt(hex(a).upper(), 16) == a
    assert str(x) == str(a)
    assert repr(x) == f"BigInt({a})"
    assert BigInt.from_bytes(x.to_bytes(300, "big", signed=True), "big", signed=True) == a


@profile
@given(ints, st.floats(allow_nan=False) | st.builds(float, st.integers(-(1 << 1000), 1 << 1000)))
def test_comparison_with_doubles_is_exact(a: int, b: float) -> None:
    x = BigInt(a)
    for y in (b, fractions.Fraction(1, 3), complex(b)):
        assert (x == y) == (a == y)
    assert (x < b, x <= b, x > b, x >= b, b < x) == (a < b, a <= b, a > b, a >= b, b < a)


def test_literals_are_those_of_int() -> None:
    texts = ["", " ", "+", "0x", "_1", "1_", "1__2", "0_0", "0b102", "0B_1", "0o8", "08", "00"]
    texts += ["-0", "- 1", "--1", "\u0661\u0662", "\u2007 7\u2003", "1\x00", "\x1c5", "5\x85"]
    texts += ["\u00bd", "z", "1e3", "0x_", "0x1_F", "\t9\n", "0_x1", "+0b1", "-0XfF"]
    for text in texts:
        for base in (0, 2, 8, 10, 16, 36):
            ours, theirs = raises(BigInt, text, base), raises(int, text, base)
            assert ours == theirs, (text, base)


def test_conversions() -> None:
    big = 3**700
    x = BigInt(-big)
    assert (int(x), x.__index__(), math.floor(x), math.trunc(x), round(x)) == (-big,) * 5
    assert complex(BigInt(7)) == 7
    assert (x.real, x.imag, x.numerator, x.denominator) == (-big, 0, -big, 1)
    assert (x.as_integer_ratio(), x.conjugate(), x.is_integer()) == ((-big, 1), -big, True)
    assert isinstance(x, numbers.Integral)
    assert fractions.Fraction(x, 3) == fractions.Fraction(-big, 3)
    assert [10, 20, 30][BigInt(1)] == 20
    assert {big: 1}[BigInt(big)] == 1
    assert BigInt(True) == 1
    assert BigInt(-7.9) == -7
    assert BigInt(fractions.Fraction(22, 7)) == 3
    assert BigInt(bytearray(b" 12 ")) == 12
    assert f"{BigInt(5):c}" == "\x05"


@pytest.mark.parametrize("name", ["pickle", "copy", "deepcopy"])
def test_copies_are_equal(name: str) -> None:
    for value in (0, -1, 2**64, -(5**999)):
        x = BigInt(value)
        found = {
            "pickle": lambda x=x: pickle.loads(pickle.dumps(x)),
            "copy": lambda x=x: copy.copy(x),
            "deepcopy": lambda x=x: copy.deepcopy([x])[0],
        }[name]()
        assert type(found) is BigInt
        assert found == value


def test_limbs_are_seen_without_a_copy() -> None:
    x = BigInt(-(2**64) * 7 - 5)
    view = np.asarray(x.view_limbs())
    assert view.dtype == np.uint64
    assert view.tolist() == [5, 7]
    assert not view.flags.writeable
    assert view.ctypes.data == np.asarray(x.view_limbs()).ctypes.data
    del x
    assert view.tolist() == [5, 7]  # the view keeps the number
    assert np.asarray(BigInt(0).view_limbs()).shape == (0,)


def test_numpy_sees_values() -> None:
    pair = np.array([BigInt(1), BigInt(2**70)], dtype=object)
    assert pair.shape == (2,)
    assert (pair * 3).tolist() == [3, 3 * 2**70]
    assert BigInt(3) + np.int64(5) == np.int64(5) + BigInt(3) == 8


def test_subclasses_are_refused() -> None:
    with pytest.raises(TypeError, match="BigInt"):
        type("Sub", (BigInt,), {})


def test_threads_compute_apart() -> None:
    numbers_ = [number(random.Random(seed)) | 1 << 90_000 for seed in range(6)]
    expected = [a * a % (a >> 40_000 | 1) for a in numbers_]
    wrong: list[int] = []

    def work(start: int) -> None:
        for i in range(12):
            k = (start + i) % len(numbers_)
            x = BigInt(numbers_[k])
            if x * x % (x >> 40_000 | 1) != expected[k]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


LEAKS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "- to small": lambda x, _y: (x + 1) - x,
    "*": lambda x, y: x * y,
    "divmod": lambda x, y: divmod(x * y, y),
    "/": lambda x, y: x / y,
    "bits": lambda x, y: (x & -y) | (x ^ y),
    "shift": lambda x, _y: x << 99 >> 98,
    "pow": lambda x, y: pow(x, 3, y),
    "int": lambda x, _y: BigInt(int(x)) + 12345678901234567890,
    "text": lambda x, _y: BigInt(str(x)),
    "format": lambda x, _y: format(x >> 1_000, ",d"),
    "bytes": lambda x, _y: BigInt.from_bytes(x.to_bytes(400, "little"), "little"),
    "view": lambda x, _y: x.view_limbs(),
    "error": lambda x, _y: raises(lambda: x % 0),
    "compare": lambda x, y: (x < y, x == 1.5, hash(x), x == int(y)),
}


@pytest.mark.parametrize("name", LEAKS)
def test_nothing_leaks(name: str) -> None:
    function, process = LEAKS[name], psutil.Process()
    x, y = BigInt(7**400), BigInt(11**310)  # 17 and 18 limbs: kept blocks and others

    def run(count: int) -> None:
        for _ in range(count):
            function(x, y)

    run(2_000)
    gc.collect()
    before = process.memory_info().rss
    run(10_000)
    assert process.memory_info().rss - before < 1 << 19  # 10,000 blocks of 100 bytes are 1 MB


def test_fuzz() -> None:
    done = fuzz(8_000, seed=5)
    assert min(done.values()) > 100
