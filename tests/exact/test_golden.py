"""Golden-angle directions against mpmath at a higher precision."""

from __future__ import annotations

import mpmath
import pytest

from crystalline import exact


@pytest.mark.parametrize("prec_bits", [1, 53, 64, 200, 1000])
@pytest.mark.parametrize("n", [0, 1, 2, 12, 987, 10**6 + 3, -5, 2**64 + 1, 10**60])
def test_within_one_unit(n: int, prec_bits: int) -> None:
    with mpmath.workprec(prec_bits + 400):
        angle = n * 2 * mpmath.pi / mpmath.phi**2
        for got, want in zip(
            exact.golden_direction(n, prec_bits),
            (mpmath.cos(angle), mpmath.sin(angle)),
            strict=True,
        ):
            assert got.prec_bits == prec_bits
            assert abs(int(got.mantissa) - want * mpmath.mpf(2) ** prec_bits) <= 1


def test_bad_input() -> None:
    with pytest.raises(TypeError, match=r"n must be an integer, not 0\.5"):
        exact.golden_direction(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prec_bits must be at least 1, not 0"):
        exact.golden_direction(3, 0)
