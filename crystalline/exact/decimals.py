"""Decimal strings of fixed-point numbers m · 2^-frac_bits, each way rounded once.

What BigFixedArray reads and prints; nothing here knows of arrays.
"""

from __future__ import annotations

import re

_DECIMAL = re.compile(r"\s*([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?\s*", re.ASCII)
_AT_ONCE = 4000  # digits: Python refuses to convert more than 4300


def from_decimal(text: str, frac_bits: int, width_bits: int) -> int:
    """Return a decimal string in units of 2^-frac_bits, to the nearest, ties to even.

    Numbers far beyond `width_bits` raise OverflowError before they are computed.

    >>> from_decimal("-1.25e1", 1, 64), from_decimal("0.25", 1, 64), from_decimal(".75", 1, 64)
    (-25, 0, 2)
    """
    found = _DECIMAL.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        shown = text if len(text) <= 60 else text[:40] + "..."
        raise ValueError(f"{shown!r} is no decimal number")
    digits = ((found[2] or "") + (found[3] or "")).lstrip("0")
    if not digits:
        return 0
    exponent = _exponent(found[4] or "0") - len(found[3] or "")
    if len(digits) + exponent > width_bits:  # 10^width_bits and beyond
        shown = text if len(text) <= 60 else text[:40] + "..."
        raise OverflowError(f"{shown} does not fit in {width_bits} bits")
    if len(digits) + exponent < -width_bits:  # far below half a unit
        return 0
    value = 0
    for start in range(0, len(digits), _AT_ONCE):
        part = digits[start : start + _AT_ONCE]
        value = value * 10 ** len(part) + int(part)
    numerator = value << frac_bits
    if exponent >= 0:
        result = numerator * int(10**exponent)
    else:
        result = _nearest(numerator, int(10**-exponent))
    return -result if found[1] == "-" else result


def _exponent(text: str) -> int:
    """Return an exponent, or where that has many digits, one that means the same."""
    magnitude = text.lstrip("+-").lstrip("0")
    value = int(magnitude or "0") if len(magnitude) <= 18 else 10**18
    return -value if text.startswith("-") else value


def to_decimal(mantissa: int, frac_bits: int, digits: int | None) -> str:
    """Return mantissa · 2^-frac_bits with so many digits after the point, ties to even.

    Without `digits`, as few as from_decimal needs to give back the same number, but one.

    >>> to_decimal(-5, 2, 3), to_decimal(-5, 2, None), to_decimal(5, 0, None)
    ('-1.250', '-1.2', '5')
    """
    magnitude = abs(mantissa)
    places = _fewest(magnitude, frac_bits) if digits is None else digits
    scaled = _nearest(magnitude * 10**places, 1 << frac_bits)
    whole, fraction = divmod(scaled, 10**places)
    sign = "-" if mantissa < 0 and scaled else ""
    after = f".{_text(fraction).rjust(places, '0')}" if places else ""
    return f"{sign}{_text(whole)}{after}"


def _fewest(magnitude: int, frac_bits: int) -> int:
    """Return the fewest digits after the point that are closer than half a unit; 1 at least."""
    if frac_bits == 0:
        return 0
    # 10^-high < 2^-frac_bits is enough; if some digits are close enough, so are more of them
    low, high = 1, -(-frac_bits * 30103 // 100000)
    while low < high:
        places = (low + high) // 2
        power = 10**places
        scaled = _nearest(magnitude * power, 1 << frac_bits)
        if 2 * abs((scaled << frac_bits) - magnitude * power) < power:
            high = places
        else:
            low = places + 1
    return low


def _text(value: int) -> str:
    parts = []
    while value >= 10**_AT_ONCE:
        value, low = divmod(value, 10**_AT_ONCE)
        parts.append(str(low).rjust(_AT_ONCE, "0"))
    return str(value) + "".join(reversed(parts))


def _nearest(numerator: int, denominator: int) -> int:
    """Return numerator / denominator, both nonnegative, to the nearest integer, ties to even."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + int(2 * rest > denominator or (2 * rest == denominator and quotient & 1))
