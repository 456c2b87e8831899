"""Phase alignment against mpmath, its laws, and doubles against the exact form."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.pure import CrystallineEmbeddings, phase_alignment, phase_table
from tests.oracles import tokens as oracle

NUMBERS = st.integers(2, 2**64 - 1)


@given(NUMBERS, NUMBERS, st.integers(1, 6), st.sampled_from([53, 64, 192]))
def test_equals_the_mean_of_cosines(a: int, b: int, harmonics: int, prec_bits: int) -> None:
    found = phase_alignment(a, b, harmonics, prec_bits)
    with mpmath.workprec(prec_bits + 200):
        golden = oracle.golden_angle(a) - oracle.golden_angle(b)
        clock = 2 * mpmath.pi * (a % 12 - b % 12) / 12
        cosines = [
            mpmath.cos(h * angle) for h in range(1, harmonics + 1) for angle in (golden, clock)
        ]
        want = sum(cosines) / len(cosines)
        assert abs(int(found.mantissa) - want * mpmath.mpf(2) ** prec_bits) <= 1
    assert -1 <= found <= 1
    assert found == phase_alignment(b, a, harmonics, prec_bits)
    assert phase_alignment(a, a, harmonics, prec_bits) == 1


@pytest.mark.parametrize("harmonics", [1, 4, 7])
def test_doubles_are_near_the_exact_form(harmonics: int) -> None:
    tokens = CrystallineEmbeddings(2)
    numbers = [2, 3, 5, 7, 10, 15, 77, 2**61 - 1, 2**64 - 59, 10**15 + 37]
    tokens.add_tokens([None] * len(numbers), numbers)
    pairs = [[a, b] for a in range(len(numbers)) for b in range(len(numbers))]
    found, bound = tokens.phase_alignments(pairs, harmonics), (harmonics + 2) * 2.0**-51
    for (a, b), value in zip(pairs, found.tolist(), strict=True):
        assert -1 <= value <= 1
        assert value == pytest.approx(float(tokens.phase_alignment(a, b, harmonics)), abs=bound)
    square = found.reshape(len(numbers), -1)
    assert (square == square.T).all()
    assert (square.diagonal() == 1).all()


def test_table() -> None:
    table = phase_table(np.array([5, 12], np.uint64), 3)
    assert table.shape == (2, 12)
    golden, clock = table[0].reshape(2, 3, 2)
    angle = 5 * np.pi * (3 - np.sqrt(5))
    for h in (1, 2, 3):
        assert golden[h - 1] == pytest.approx([np.cos(h * angle), np.sin(h * angle)], abs=1e-14)
        turn = 2 * np.pi * 5 * h / 12
        assert clock[h - 1] == pytest.approx([np.cos(turn), np.sin(turn)], abs=1e-14)
    assert table[1, 6:].tolist() == [1, 0] * 3


def test_bad_harmonics() -> None:
    with pytest.raises(ValueError, match="harmonics is 0, expected 1 or more"):
        phase_alignment(2, 3, 0)
    with pytest.raises(ValueError, match="harmonics is -1"):
        phase_table(np.array([2], np.uint64), -1)
