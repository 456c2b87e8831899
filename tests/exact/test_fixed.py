"""BigFixed as a value: operators against Fraction, roundings with ties, digits, identity."""

from __future__ import annotations

import copy
import decimal
import math
import operator
import pickle
import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.exact import BigFixed, BigInt, add, div, mul, sub

ROUNDINGS = ("nearest", "down", "up", "floor", "ceiling")
EDGES = [
    s * ((1 << k) + d) for k in (0, 1, 63, 64, 65, 128, 191) for d in (-1, 0, 1) for s in (1, -1)
]


def rounded(value: Fraction, rounding: str = "nearest") -> int:
    """The obvious twin: an integer next to the value."""
    low = math.floor(value)
    if rounding == "nearest":
        return round(value)  # Fraction's ties go to even
    if value == low:
        return low
    toward_low = {"floor": True, "ceiling": False, "down": value > 0, "up": value < 0}[rounding]
    return low if toward_low else low + 1


def grid(value: Fraction, prec_bits: int, rounding: str = "nearest") -> Fraction:
    return Fraction(rounded(value * 2**prec_bits, rounding), 2**prec_bits)


mantissas = st.one_of(st.sampled_from(EDGES), st.integers(-(2**300), 2**300), st.integers(-20, 20))
precisions = st.one_of(
    st.integers(0, 3), st.sampled_from([63, 64, 65, 127, 128]), st.integers(0, 300)
)
values = st.builds(BigFixed.from_mantissa, mantissas, precisions)
exacts = settings(derandomize=True, deadline=None, max_examples=300)


@exacts
@given(values, values)
def test_operators_are_those_of_fractions(x: BigFixed, y: BigFixed) -> None:
    a, b, p = x.as_fraction(), y.as_fraction(), max(x.prec_bits, y.prec_bits)
    for ours, exact in ((x + y, a + b), (x - y, a - b)):
        assert (ours.as_fraction(), ours.prec_bits) == (exact, p)
    assert (x * y).as_fraction() == grid(a * b, p)
    assert [x < y, x <= y, x == y, x != y, x > y, x >= y] == [
        a < b, a <= b, a == b, a != b, a > b, a >= b
    ]  # fmt: skip
    assert -x == -a
    assert abs(x) == abs(a)
    assert bool(x) == bool(a)
    if b:
        assert (x / y).as_fraction() == grid(a / b, p)
        quotient, remainder = divmod(x, y)
        assert (quotient, remainder) == divmod(a, b)
        assert (x // y, x % y) == (quotient, remainder)
        assert quotient.prec_bits == remainder.prec_bits == p


@exacts
@given(values, st.one_of(st.integers(-(2**70), 2**70), st.fractions(), st.floats(-1e9, 1e9)))
def test_other_numbers_count_for_what_they_are(x: BigFixed, other: Fraction | float) -> None:
    a, b, p = x.as_fraction(), Fraction(other), x.prec_bits
    pairs: list[tuple[BigFixed, Fraction]] = [
        (x + other, a + b),
        (other + x, a + b),
        (x - other, a - b),
        (other - x, b - a),
        (x * other, a * b),
        (other * x, a * b),
    ]
    if b:
        pairs.append((x / other, a / b))
    if a:
        pairs.append((other / x, b / a))
    for ours, exact in pairs:
        assert (ours.as_fraction(), ours.prec_bits) == (grid(exact, p), p)
    assert [x < other, x <= other, x == other, x > other] == [a < b, a <= b, a == b, a > b]
    assert (other == x) == (a == b)
    if isinstance(other, int):
        wrapped = BigInt(other)
        assert (x + wrapped, wrapped * x, x == wrapped) == (x + other, other * x, a == b)
        if other:
            assert divmod(x, other) == divmod(a, b)
        if a:
            assert divmod(other, x) == divmod(b, a)


@exacts
@given(values, values, st.integers(0, 200), st.sampled_from(ROUNDINGS))
def test_functions_round_as_asked(x: BigFixed, y: BigFixed, p: int, rounding: str) -> None:
    a, b = x.as_fraction(), y.as_fraction()
    assert add(x, y, p, rounding).as_fraction() == grid(a + b, p, rounding)
    assert sub(x, y, p, rounding).as_fraction() == grid(a - b, p, rounding)
    assert mul(x, y, p, rounding).as_fraction() == grid(a * b, p, rounding)
    if b:
        assert div(x, y, p, rounding).as_fraction() == grid(a / b, p, rounding)
    assert x.with_precision(p, rounding).as_fraction() == grid(a, p, rounding)
    assert BigFixed(x, p, rounding) == grid(a, p, rounding)
    assert BigFixed(a / 3, p, rounding) == grid(a / 3, p, rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_ties(rounding: str) -> None:
    for mantissa in range(-9, 10):
        for bits in (1, 2, 64, 65):
            # halves of a unit at the cut, and a hair beside them
            for hair in (-1, 0, 1):
                x = BigFixed.from_mantissa((mantissa << (bits + 2)) + hair, bits + 3)
                expected = rounded(x.as_fraction() * 1, rounding)
                assert x.with_precision(0, rounding) == expected, (mantissa, bits, hair)
    assert [round(BigFixed(v)) for v in (0.5, 1.5, 2.5, -0.5, -1.5)] == [0, 2, 2, 0, -2]


@exacts
@given(values)
def test_conversions(x: BigFixed) -> None:
    a = x.as_fraction()
    assert int(x) == math.trunc(a)
    assert math.trunc(x) == math.trunc(a)
    assert math.floor(x) == math.floor(a)
    assert math.ceil(x) == math.ceil(a)
    assert round(x) == round(a)
    assert float(x) == float(a)
    assert complex(x) == complex(float(a))
    assert hash(x) == hash(a)
    assert x.as_integer_ratio() == a.as_integer_ratio()
    assert x.is_integer() == (a.denominator == 1)
    assert BigFixed(a) == a
    for same in (eval(repr(x)), pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        assert (same, same.prec_bits) == (x, x.prec_bits)
    for digits in (0, 1, 7, 40):
        scaled = a * 10**digits
        assert Fraction(x.to_decimal(digits)) == Fraction(round(scaled), 10**digits)
        for rounding in ROUNDINGS:
            text = x.to_decimal(digits, rounding)
            assert Fraction(text) == Fraction(rounded(scaled, rounding), 10**digits)
            assert len(text.partition(".")[2]) == digits
    assert round(x, 3).as_fraction() == grid(round(a, 3), x.prec_bits)
    assert round(x, -2) == round(a, -2)


@exacts
@given(
    st.from_regex(r"[+-]?[0-9]{1,30}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.integers(0, 200),
    st.sampled_from(ROUNDINGS),
)
def test_strings_are_read_with_one_rounding(text: str, p: int, rounding: str) -> None:
    assert BigFixed(text, p, rounding).as_fraction() == grid(Fraction(text), p, rounding)


def test_strings_with_far_exponents() -> None:
    assert BigFixed("1e-999999999", 64) == 0
    assert BigFixed("1e-999999999", 64, "up") == Fraction(1, 2**64)
    assert BigFixed("-1e-999999999", 64, "floor") == -Fraction(1, 2**64)
    assert BigFixed("-1e-999999999", 64, "ceiling") == 0
    assert BigFixed("0e999999999", 64) == 0
    assert BigFixed("1_000.5", 1) == 1000.5
    assert BigFixed(" .5 ", 1) == 0.5


def test_formats_are_those_of_decimals() -> None:
    rng = random.Random(4)
    for _ in range(50):
        x = BigFixed.from_mantissa(rng.getrandbits(90) - 2**89, rng.randrange(100))
        with decimal.localcontext(prec=400):
            exact = decimal.Decimal(int(x.mantissa)) / decimal.Decimal(2) ** x.prec_bits
        for spec in (".3f", "e", ".20e", "g", "+.2f", "*>30.5f", ",.2f", ".1%"):
            assert format(x, spec) == format(exact, spec)
        assert format(x, "") == str(x)


def test_hashes_of_equal_numbers() -> None:
    for value in (
        0,
        1,
        -1,
        0.5,
        -0.75,
        2**61 - 1,
        2**61,
        -(2**61),
        12345.678,
        Fraction(-7, 2**200),
    ):
        for extra in (0, 1, 61, 300):
            exact = Fraction(value)
            x = BigFixed(value, exact.denominator.bit_length() - 1 + extra)
            assert x == value
            assert hash(x) == hash(value)
    assert len({BigFixed(2, 0), BigFixed(2, 64), 2, BigInt(2)}) == 1


def test_whole_powers_are_correctly_rounded() -> None:
    rng = random.Random(3)
    for _ in range(60):
        p = rng.choice([0, 1, 53, 64, 100])
        x = BigFixed.from_mantissa(rng.randrange(-(2 ** (p + 2)), 2 ** (p + 2)) | 1, p)
        k = rng.randrange(-12, 13)
        assert (x**k).as_fraction() == grid(x.as_fraction() ** k, p)
    assert 2 ** BigFixed(3, 8) == 8
    assert BigFixed(0, 8) ** 0 == 1


def test_shifts() -> None:
    x = BigFixed("-2.71828", 64)
    assert x << 70 == x.as_fraction() * 2**70
    for count in (0, 1, 5, 64, 66, 1000, 2**70):
        shifted = x.as_fraction() / 2 ** min(count, 5000)
        assert (x >> count).as_fraction() == grid(shifted, 64)


def test_what_is_compared_with_infinities_and_strangers() -> None:
    x = BigFixed("1e30", 8)
    assert x < math.inf
    assert x > -math.inf
    assert x != math.nan
    assert not x < math.nan
    assert x != "1e30"
    assert BigFixed(0.5) == decimal.Decimal("0.5")
    with pytest.raises(TypeError):
        x < "1"  # noqa: B015


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x / 0, ZeroDivisionError, "1.5 / 0"),
        (lambda x: x // BigFixed(0, 9), ZeroDivisionError, "1.5 // 0"),
        (lambda x: x % 0, ZeroDivisionError, "1.5"),
        (lambda x: 7 / (x - x), ZeroDivisionError, "7"),
        (lambda x: div(x, 0), ZeroDivisionError, "1.5"),
        (lambda x: x + "1", TypeError, "str"),
        (lambda x: x * None, TypeError, "NoneType"),
        (lambda x: x + 1j, TypeError, "complex"),
        (lambda x: add(x, Fraction(1, 3)), TypeError, "Fraction"),
        (lambda x: x << -1, ValueError, "-1"),
        (lambda x: x << 1.0, TypeError, "float"),
        (lambda x: x << 2**60, MemoryError, "bytes|bits"),
        (lambda x: pow(x, 2, 3), TypeError, "modulus"),
        (lambda x: x + math.inf, OverflowError, "Infinity"),
        (lambda x: x * math.nan, ValueError, "NaN"),
        (lambda _: BigFixed("1.2.3", 8), ValueError, "1.2.3"),
        (lambda _: BigFixed(".", 8), ValueError, r"'\.'"),
        (lambda _: BigFixed("9" * 200 + "x", 8), ValueError, r"9\.\.\."),
        (lambda _: BigFixed("1"), TypeError, "prec_bits"),
        (lambda _: BigFixed(Fraction(1, 3)), TypeError, "prec_bits"),
        (lambda _: BigFixed(1, -1), ValueError, "-1"),
        (lambda _: BigFixed(1, 2**41), OverflowError, str(2**41)),
        (lambda _: BigFixed(1, 2.0), TypeError, "float"),
        (lambda _: BigFixed(1, 2, "even"), ValueError, "even"),
        (lambda _: BigFixed([1], 2), TypeError, "list"),
        (lambda _: BigFixed(1, 2**39), MemoryError, "bytes"),
        (lambda _: float(BigFixed(1) << 2000), OverflowError, "too large"),
    ],
)
def test_bad_input(
    call: Callable[[BigFixed], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(BigFixed(1.5))


def test_values_do_not_change() -> None:
    x = BigFixed(1.5)
    with pytest.raises(AttributeError):
        x.prec_bits = 3  # type: ignore[misc]
    y = x
    y += 1
    assert (x, y) == (1.5, 2.5)
    assert operator.index(x.mantissa) == 3


def test_exponents_of_many_digits() -> None:
    for text in ("1e-" + "9" * 40, "1e-" + "9" * 5000, "-0e" + "9" * 5000, "0e-5"):
        assert BigFixed(text, 64) == 0
    assert BigFixed("-1e-" + "9" * 40, 8, "floor").mantissa == -1
    assert BigFixed("1e-" + "9" * 5000, 8, "up").mantissa == 1
    for text in ("1e" + "9" * 40, "1e+" + "9" * 5000):
        with pytest.raises(MemoryError):
            BigFixed(text, 64)
    assert BigFixed("1e" + "0" * 5000 + "2", 0) == 100


@pytest.mark.parametrize(
    "text", ["", ".", "+", "1__0", "_1", "1_", "1._0", "1.0_", "1e", "1e1.0", "e5", "1 2", "１"]
)
def test_texts_that_are_no_decimals(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        BigFixed(text, 8)


def test_long_texts() -> None:
    """Longer than a slice of the search for the end of the digits."""
    digits = "12345" * 250_000
    assert BigFixed(f"0.{digits}", 100) == BigFixed(f"0.{digits[:100]}", 100)
    assert BigFixed(f" -{digits}.5e-1249999 ", 4) == BigFixed("-1.25", 4)
    with pytest.raises(ValueError, match=r"not a decimal number: '0.1234.*\.\.\.'"):
        BigFixed(f"0.{digits}x", 100)


def test_rounding_to_places_beyond_the_number() -> None:
    x = BigFixed("-12.75", 8)
    for places in (5, 10**9, 10**50):
        assert round(x, places) == x
    for places in (-3, -(10**9), -(10**50)):
        assert round(x, places) == 0
    assert round(x, -1) == -10
    assert round(BigFixed(155.5), -2) == 200
    assert round(BigFixed(95), -2) == 100


def test_fractions_are_made_in_lowest_terms() -> None:
    """Without Fraction's search for a divisor, which is quadratic and deaf to Ctrl-C."""
    for mantissa in (0, 1, -6, 3 << 70, (1 << 200) + 4):
        x = BigFixed.from_mantissa(mantissa, 72)
        true = Fraction(mantissa, 1 << 72)
        assert (x.as_fraction().numerator, x.as_fraction().denominator) == true.as_integer_ratio()
        assert tuple(map(int, x.as_integer_ratio())) == true.as_integer_ratio()
        assert x.as_fraction() + Fraction(1, 3) == true + Fraction(1, 3)
