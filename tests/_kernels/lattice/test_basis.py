"""Row operations on packed integers against Python's, around every change of width."""

from __future__ import annotations

import random

import pytest

from crystalline._kernels.lattice.basis import IntMatrix

BITS = (1, 20, 31, 53, 61, 62, 63, 64, 65, 100, 126, 127, 128, 129, 191, 192, 193, 300)


def edge(rng: random.Random) -> int:
    bits = rng.choice(BITS)
    value = rng.choice([rng.getrandbits(bits), 1 << bits, (1 << bits) - 1, (1 << bits) + 1, 0])
    return rng.choice([value, -value])


def test_row_operations() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        d, n = rng.randrange(2, 6), rng.randrange(1, 12)
        rows = [[edge(rng) for _ in range(n)] for _ in range(d)]
        if rng.random() < 0.5:  # all of one size, so that the sum is what grows
            bits = rng.choice(BITS)
            rows = [[rng.choice([1, -1]) * ((1 << bits) - 1) for _ in range(n)] for _ in range(d)]
        matrix = IntMatrix(rows)
        multipliers = [
            (
                rng.choice([1, -1, 2, -3, (1 << 53) - 1, -(1 << 53), rng.getrandbits(40)]),
                rng.choice([0, 0, 0, 1, 10, 11, 63, 64, 75, 130]),
                rng.randrange(1, d),
            )
            for _ in range(rng.randrange(0, 9))
        ]
        matrix.subtract(0, multipliers)
        expected = [
            rows[0][c] - sum((x << shift) * rows[j][c] for x, shift, j in multipliers)
            for c in range(n)
        ]
        assert matrix.to_lists() == [expected, *rows[1:]]
        matrix.subtract(0, [(-x, shift, j) for x, shift, j in multipliers])
        assert matrix.to_lists() == rows


@pytest.mark.parametrize("bits", [20, *range(57, 66), *range(121, 130)])
def test_sums_that_outgrow_their_width(bits: int) -> None:
    for count in range(1, 20):
        matrix = IntMatrix([[(1 << bits) - 1, -(1 << bits)], [-(1 << bits), (1 << bits) - 1]])
        matrix.subtract(0, [(1, 0, 1)] * count)
        top = (1 << bits) - 1 + (count << bits)
        assert matrix.to_lists()[0] == [top, -(1 << bits) - count * ((1 << bits) - 1)]


def test_rows_of_another_matrix() -> None:
    matrix = IntMatrix([[5, 6], [7, 8]])
    matrix.subtract(1, [(2, 0, 0), (1, 70, 1)], IntMatrix([[1, -1], [0, 1]]))
    assert matrix.to_lists() == [[5, 6], [5, 10 - (1 << 70)]]


def test_bad_operations() -> None:
    matrix = IntMatrix([[1, 2], [3, 4]])
    with pytest.raises(IndexError, match="row 2 of 2"):
        matrix.subtract(2, [])
    for multiplier in ((1 << 54, 0, 1), (1, -1, 1), (1, 0, 2)):
        with pytest.raises(ValueError, match=str(multiplier[0])):
            matrix.subtract(0, [multiplier])
    with pytest.raises(ValueError, match="itself"):
        matrix.subtract(0, [(1, 0, 0)])
    with pytest.raises(ValueError, match="rows of 1 entries from rows of 2"):
        matrix.subtract(0, [], IntMatrix([[1]]))
    with pytest.raises(MemoryError, match="row 0"):
        matrix.subtract(0, [(1, 1 << 39, 1)])
    assert matrix.to_lists() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="row 1 has 1 entries, row 0 has 2"):
        IntMatrix([[1, 2], [3]])
