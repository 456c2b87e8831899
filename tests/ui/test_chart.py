"""The chart against dots worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from crystalline.ui.chart import MARK, draw_chart

# Dots of a braille cell, by (dot row, dot column), from the Unicode standard.
BITS = {
    (0, 0): 0x01,
    (1, 0): 0x02,
    (2, 0): 0x04,
    (3, 0): 0x40,
    (0, 1): 0x08,
    (1, 1): 0x10,
    (2, 1): 0x20,
    (3, 1): 0x80,
}


def cell(*dots: tuple[int, int]) -> str:
    return chr(0x2800 + sum(BITS[dot] for dot in dots))


def test_rising_line_in_two_cells() -> None:
    # 2 cells are 4 x 4 dots; the points lie in the corners, so column c is 3 - c high.
    chart = draw_chart([(0, 1.0), (3, 4.0)], width=7, height=2)
    assert chart.label_width == 5
    assert chart.rows[0][5:] == cell((3, 0), (2, 1)) + cell((1, 0), (0, 1))
    assert chart.rows[0][:5] == "4.00┤"
    assert chart.rows[1] == "     3".rjust(7)


def test_a_fall_fills_the_column_between() -> None:
    # 2 x 2 cells; from the top left to the bottom in the next column of dots, then flat.
    chart = draw_chart([(0, 8.0), (1, 1.0), (3, 1.0)], width=7, height=3)
    assert [row[5:] for row in chart.rows[:2]] == [
        cell((0, 0), (1, 1), (2, 1), (3, 1)) + " ",
        cell((0, 1), (1, 1), (2, 1), (3, 1)) + cell((3, 0), (3, 1)),
    ]


def test_points_of_one_column_are_averaged() -> None:
    # Columns of dots are 100 wide: the points at 0 and 1 share one, mean 5 of 0..10.
    noisy = draw_chart([(0, 0.0), (1, 10.0), (300, 0.0), (300, 10.0)], width=8, height=2)
    steady = draw_chart([(0, 5.0), (300, 5.0)], [(0, math.nan)], width=8, height=2)
    row = noisy.rows[0][noisy.label_width :]
    assert row == cell((2, 0), (2, 1)) * len(row)  # 5/10 * 3 dots = 1.5, rounded to 2
    assert set(steady.rows[0][steady.label_width :]) == {cell((1, 0), (1, 1))}


def test_a_value_that_is_not_finite_interrupts_the_curve() -> None:
    chart = draw_chart([(0, 1.0), (1, 2.0), (2, math.nan), (6, 2.0), (7, 1.0)], width=9, height=2)
    assert chart.label_width == 5
    assert chart.rows[0][5:] == cell((3, 0), (0, 1), (1, 1), (2, 1)) + "  " + cell(
        (0, 0), (3, 1), (1, 1), (2, 1)
    )


def test_marks_are_drawn_over_the_curve() -> None:
    chart = draw_chart([(0, 1.0), (10, 1.0)], [(0, 3.0), (10, 1.0)], width=25, height=4)
    body = [row[chart.label_width :] for row in chart.rows[:3]]
    assert body[0].index(MARK) == 0
    assert body[0].count(MARK) == 1
    assert MARK not in body[1]
    assert body[2].index(MARK) == len(body[2]) - 1


def test_axis_numbers_stand_at_their_heights() -> None:
    chart = draw_chart([(0, 0.0), (2000, 10.0)], width=40, height=12, legend="the legend")
    assert [row[: chart.label_width] for row in chart.rows] == [
        "10.0┤",
        *["    │"] * 4,
        "5.00┤",
        *["    │"] * 4,
        "   0┤",
        "     ",
    ]
    axis = chart.rows[-1][5:]
    assert axis.startswith("0 ")
    assert axis.endswith(" 2,000")
    assert "the legend" in axis


def test_nothing_to_draw_is_blank() -> None:
    assert draw_chart([], width=9, height=3).rows == (" " * 9,) * 3
    assert draw_chart([(1, math.nan)], width=9, height=3).rows == (" " * 9,) * 3
    assert draw_chart([(1, 2.0)], width=9, height=0).rows == ()


def test_a_single_point_is_visible() -> None:
    chart = draw_chart([(7, 2.5)], width=12, height=4)
    assert sum(0x2800 < ord(c) < 0x2900 for row in chart.rows for c in row) == 1


points = st.lists(
    st.tuples(st.integers(0, 10**12), st.floats(allow_nan=True, allow_infinity=True)), max_size=30
).map(sorted)


@given(points, points, st.integers(0, 60), st.integers(0, 12))
@example([(0, 9e307), (0, 9.1e307)], [], 11, 2)  # their sum overflows
@example([], [(0, -1.79e308), (0, 3e305)], 11, 2)  # so does their difference
def test_every_line_has_the_width_asked_for(
    curve: list[tuple[int, float]], marks: list[tuple[int, float]], width: int, height: int
) -> None:
    chart = draw_chart(curve, marks, width=width, height=height, legend="⠤⠤ loss")
    assert [cell_len(row) for row in chart.rows] == [width] * height


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_scale_does_not_change_the_shape(scale: float) -> None:
    def shape(factor: float) -> list[str]:
        curve = [(x, (x - 5) ** 2 * factor) for x in range(11)]
        chart = draw_chart(curve, width=30, height=6)
        # The same number of cells for the plot whatever the labels take.
        plot = 30 - chart.label_width
        chart = draw_chart(curve, width=30 + 20 - plot, height=6)
        return [row[chart.label_width :] for row in chart.rows[:-1]]

    assert shape(scale) == shape(1.0)
