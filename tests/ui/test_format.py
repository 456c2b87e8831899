"""Numbers for people: the widths that the table relies on, at every size of number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.ui import format as fmt

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_counts_fit_six_cells_up_to_exa_and_eight_beyond(value: float) -> None:
    assert len(fmt.count(value)) <= (5 if value < 999e18 else 8)


@given(finite)
def test_short_numbers_fit_nine_cells_with_their_sign(value: float) -> None:
    assert len(fmt.short(value)) <= 9


@given(st.floats(min_value=0, max_value=1e18))
def test_counts_lie_within_half_a_percent(value: float) -> None:
    text = fmt.count(value)
    unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}.get(text[-1], 1.0)
    read_back = float(text.rstrip("kMGTPE")) * unit
    assert read_back == pytest.approx(value, rel=0.0051, abs=0.051 if value < 10 else 0.51)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (59.9, "59 s"),
        (60, "1 m 00 s"),
        (3599, "59 m 59 s"),
        (3600, "1 h 00 m"),
        (86_399, "23 h 59 m"),
        (-3, "0 s"),
        (math.nan, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text
