"""Numbers, times and texts written for people; None is a dash, never a blank or a zero."""

from __future__ import annotations

import math
from typing import Any

from crystalline.untrusted import one_line

DASH = "–"

_UNITS = ("", "k", "M", "G", "T", "P", "E")


def count(value: float | None) -> str:
    """Three significant digits and a decimal unit.

    >>> [count(n) for n in (0, 7, 999, 999.6, 12_345, 809_999, 999_600, 1.24e9)]
    ['0', '7', '999', '1.00k', '12.3k', '810k', '1.00M', '1.24G']
    >>> count(3.25), count(None), count(float("nan"))
    ('3.2', '–', 'nan')
    """
    if value is None:
        return DASH
    if not math.isfinite(value):
        return str(float(value))
    if value < 0:
        return "-" + count(-value)
    if value < 10 and value != int(value):
        return f"{value:.1f}"
    if value < 999.5:
        return f"{value:.0f}"
    exponent = 0
    while value >= 999.5 and exponent < len(_UNITS) - 1:
        value /= 1000
        exponent += 1
    if value >= 999.5:
        return f"{value * 1000**exponent:.1e}"
    return f"{value:.{_decimals(value)}f}{_UNITS[exponent]}"


def _decimals(size: float) -> int:
    """Decimals that leave three significant digits of a size from 0.01 to 999.5."""
    return sum(size < bound for bound in (0.09995, 0.9995, 9.995, 99.95))


def grouped(value: int) -> str:
    """A whole number in groups of three, or shortened when it is longer than a step count.

    >>> grouped(1200), grouped(123_456_789), grouped(12_345_678_901)
    ('1,200', '123,456,789', '12.3G')
    """
    return f"{value:,}" if abs(value) < 10**9 else count(value)


def loss(value: float | None) -> str:
    """A loss in nats or bits, to four decimals while it is of a usual size.

    >>> loss(1.65432), loss(123.456), loss(1e30), loss(None), loss(float("nan"))
    ('1.6543', '123.5', '1.0e+30', '–', 'nan')
    """
    if value is None:
        return DASH
    if not math.isfinite(value):
        return str(float(value))
    if abs(value) < 100:
        return f"{value:.4f}"
    return f"{value:.1f}" if abs(value) < 10_000 else f"{value:.1e}"


def short(value: float | None) -> str:
    """Three significant digits in at most eight characters, for norms and magnitudes.

    >>> [short(x) for x in (0.0, 0.0311, 0.42, 12.34, 999.6, 1e-5, 4e120)]
    ['0', '0.0311', '0.420', '12.3', '1.0e+03', '1.0e-05', '4.0e+120']
    >>> short(None), short(float("inf"))
    ('–', 'inf')
    """
    if value is None:
        return DASH
    if not math.isfinite(value):
        return str(float(value))
    size = abs(value)
    if size == 0:
        return "0"
    if not 0.01 <= size < 999.5:
        return f"{value:.1e}"
    digits = (
        4
        if size < 0.09995
        else 3
        if size < 0.9995
        else 2
        if size < 9.995
        else 1
        if size < 99.95
        else 0
    )
    return f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share as a whole percentage.

    >>> percent(0.714), percent(1), percent(None), percent(float("nan"))
    ('71%', '100%', '–', 'nan')
    """
    if share is None:
        return DASH
    return f"{share * 100:.0f}%" if math.isfinite(share) else str(float(share))


def plain(value: int | None) -> str:
    """A number as it is.

    >>> plain(12345), plain(None)
    ('12345', '–')
    """
    return DASH if value is None else str(value)


def line(text: Any) -> str:
    """A text on one line, without control characters."""
    return one_line(text)


def rate(value: float | None) -> str:
    """A learning rate.

    >>> rate(0.0004), rate(0.0)
    ('4.00e-04', '0')
    """
    if value is None:
        return DASH
    return f"{value:.2e}" if value else "0"


def factor(value: float | None) -> str:
    """What something is multiplied by, where that makes it smaller.

    >>> factor(0.25), factor(1.0)
    ('×0.250', 'none')
    """
    if value is None:
        return DASH
    return f"×{short(value)}" if value < 1 else "none"


def megabytes(size_bytes: int) -> str:
    """A size in decimal units.

    >>> megabytes(31_400_000), megabytes(2_340_000_000)
    ('31 MB', '2.3 GB')
    """
    if size_bytes < 999_500_000:
        return f"{size_bytes / 1e6:.0f} MB"
    if size_bytes < 999_500_000_000:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e12:.1f} TB"


def duration(seconds: float | None) -> str:
    """A time in its two largest units.

    >>> [duration(s) for s in (0.4, 12, 62, 3725, 100_000)]
    ['0 s', '12 s', '1 m 02 s', '1 h 02 m', '1 d 03 h']
    >>> duration(None), duration(float("inf"))
    ('–', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return DASH
    total = max(0, int(seconds))
    minutes, s = divmod(total, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{grouped(days)} d {h:02} h"
    if hours:
        return f"{h} h {m:02} m"
    return f"{m} m {s:02} s" if minutes else f"{s} s"
