"""LLL on many kinds of bases: the same lattice, reduced exactly, as short as others make it."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import flint
import numpy as np
import pytest
from fpylll import LLL, IntegerMatrix
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline._kernels.lattice import gso
from crystalline._kernels.lattice import lll as kernel
from crystalline.exact.lattice import LatticeBasis, lll
from crystalline.exact.lattice.integral import integral_lll
from tests.oracles import lattice as oracle

DELTA, ETA = Fraction(0.99), Fraction(0.51)
ROOT = Path(__file__).resolve().parents[3]


def check(rows: oracle.Rows, delta: float = 0.99, eta: float = 0.51, **options: bool) -> None:
    reduction = lll(rows, delta, eta, transformation=True, **options)
    lattice = oracle.hermite(rows)
    assert reduction.dependencies == len(rows) - len(lattice)
    if not lattice:
        assert reduction.reduced is None
    else:
        assert oracle.hermite(reduction.basis.rows) == lattice
        assert len(reduction.basis) == len(lattice)
        assert oracle.is_reduced(reduction.basis.rows, Fraction(delta), Fraction(eta))
    reduction.certificate().verify()


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_family(family: str) -> None:
    check(oracle.FAMILIES[family](random.Random(family)))


@pytest.mark.parametrize("family", ["q-ary 20, 30 bits", "wide 7x15, 64 bits", "tall 9x4, 20 bits"])
@pytest.mark.parametrize(
    ("delta", "eta"),
    [(0.3, 0.5), (0.75, 0.5), (0.999, 0.5001), (0.5, 0.7), (0.999999, 0.51), (1 - 2**-53, 0.51)],
)
def test_parameters(family: str, delta: float, eta: float) -> None:
    check(oracle.FAMILIES[family](random.Random(family)), delta, eta)


def test_ties_of_size_reduction_are_decided_exactly() -> None:
    check([[2, 0, 0], [1, 2, 0], [1, 1, 2]], 0.75, 0.5)
    assert lll([[2, 0], [1, 2]], 0.75, 0.5).proof == "exact"
    assert lll([[2, 0], [1, 2]], 0.75, 0.51).proof == "double"


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_quad_alone(family: str) -> None:
    rows = oracle.FAMILIES[family](random.Random(family))
    work = LatticeBasis(rows).matrix.copy()
    kernel.reduce(work, 0.9902, 0.505, None, False, "quad")
    assert oracle.hermite(work.to_lists()) == oracle.hermite(rows)
    if gso.is_reduced(work, 0.99, 0.51, "quad"):
        kept = [row for row in work.to_lists() if any(row)]
        assert oracle.is_reduced(kept, DELTA, ETA)
    else:
        assert "graded" in family or "nearly" in family


@pytest.mark.parametrize("family", [f for f in oracle.FAMILIES if "10,000" not in f])
def test_integers_alone(family: str) -> None:
    rows = oracle.FAMILIES[family](random.Random(family))
    if len(rows) > 20 or "2,000" in family:
        rows = [[x >> 60 for x in row[:10]] for row in rows[:10]]
    unit = [[int(i == j) for j in range(len(rows))] for i in range(len(rows))]
    reduced, u = integral_lll(rows, unit, DELTA, ETA)
    kept = [row for row in reduced if any(row)]
    assert oracle.hermite(kept or [[0]]) == oracle.hermite(rows)
    assert not kept or oracle.is_reduced(kept, DELTA, ETA)
    assert u is not None
    assert flint.fmpz_mat(u) * flint.fmpz_mat(rows) == flint.fmpz_mat(reduced)


@pytest.mark.parametrize("kind", ["uniform", "knapsack"])
def test_as_short_as_the_textbook_makes_it(kind: str) -> None:
    rng = random.Random(3)
    rows = oracle.uniform(rng, 8, 8, 30) if kind == "uniform" else oracle.knapsack(rng, 7, 40)
    ours = lll(rows).basis.rows
    theirs = oracle.lll(rows)
    first = [math.sqrt(oracle.inner(b[0], b[0])) for b in (ours, theirs)]
    assert 0.7 <= first[0] / first[1] <= 1.4


@pytest.mark.parametrize("family", ["q-ary 20, 30 bits", "knapsack 15, 128 bits", "ntru 2 x 11"])
def test_as_short_as_peers_make_it(family: str) -> None:
    ratios: list[float] = []
    for seed in range(5):
        rows = oracle.FAMILIES[family](random.Random(seed))
        ours = lll(rows).basis.rows[0]
        peer = IntegerMatrix.from_matrix(rows)
        LLL.reduction(peer)
        other = [int(x) for x in flint.fmpz_mat(rows).lll().tolist()[0]]
        least = min(sum(int(x) ** 2 for x in peer[0]), sum(x * x for x in other))
        ratios.append(math.sqrt(sum(x * x for x in ours) / least))
    assert sum(ratios) / len(ratios) < 1.15


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(
                st.one_of(
                    st.integers(-3, 3),
                    st.integers(-(2**70), 2**70),
                    st.sampled_from([2**62, 2**63 - 1, 2**63, -(2**63), 2**64, -(2**127), 2**128]),
                ),
                min_size=n,
                max_size=n,
            ),
            min_size=1,
            max_size=6,
        )
    )
)
def test_any_small_matrix(rows: oracle.Rows) -> None:
    check(rows)


def test_deep_insertion_is_reduced_and_shorter() -> None:
    lengths = []
    for seed in range(4):
        rows = oracle.qary(random.Random(seed), 30, 30)
        check(rows, deep=True)
        both = [lll(rows, deep=option).basis.rows[0] for option in (False, True)]
        lengths.append([math.sqrt(sum(x * x for x in row)) for row in both])
    plain, deep = map(sum, zip(*lengths, strict=True))
    assert deep < plain


def test_reduced_basis_stays_as_it_is() -> None:
    rows = lll(oracle.qary(random.Random(5), 24, 30)).basis
    again = lll(rows, 0.9, 0.52)
    assert again.basis == rows
    assert again.basis is not rows


def test_argument_is_untouched_and_results_repeat() -> None:
    basis = LatticeBasis(oracle.knapsack(random.Random(1), 12, 90))
    before = basis.matrix.to_lists()
    first, second = lll(basis), lll(basis, transformation=True)
    assert first.basis == second.basis
    assert basis.matrix.to_lists() == before
    assert first.transformation is None
    assert second.transformation is not None


def test_dependencies_are_the_first_rows_of_the_transformation() -> None:
    rows = [[1, 2, 3], [2, 4, 6], [0, 1, 1], [1, 3, 4]]
    reduction = lll(rows, transformation=True)
    assert reduction.dependencies == 2
    assert reduction.transformation is not None
    for line in reduction.transformation[:2]:
        assert [sum(x * row[c] for x, row in zip(line, rows, strict=True)) for c in range(3)] == [
            0,
            0,
            0,
        ]
    with pytest.raises(ValueError, match="2 of the 4 rows"):
        lll(rows, singular="error")


def test_numpy_and_rational_bases() -> None:
    rows = np.array([[1, 0, 331], [0, 1, 303], [0, 0, 1000]])
    expected = lll(rows.tolist()).basis
    assert lll(rows).basis == expected
    scaled = lll(LatticeBasis(rows, denominator=7)).basis
    assert scaled.denominator == 7
    assert scaled.rows == expected.rows


@pytest.mark.parametrize(
    ("delta", "eta", "value"),
    [
        (0.25, 0.5, "0\\.25"),
        (1, 0.51, "1"),
        (float("nan"), 0.51, "nan"),
        (0.99, 0.49, "0.49"),
        (0.3, 0.6, "0.6"),
        (0.99, float("inf"), "inf"),
    ],
)
def test_bad_parameters(delta: float, eta: float, value: str) -> None:
    with pytest.raises(ValueError, match=value):
        lll([[1]], delta, eta)


def test_strange_parameters() -> None:
    with pytest.raises(TypeError, match=r"'0\.9'"):
        lll([[1]], "0.9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'maybe'"):
        lll([[1]], singular="maybe")


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], ValueError, "at least one row"),
        ([[]], ValueError, "at least one entry"),
        ([[1, 2], [3]], ValueError, "row 1 of the basis has 1 entries, row 0 has 2"),
        ([[1, 2], [3, 4.5]], TypeError, r"\[1\]\[1\].*4\.5"),
        (np.eye(2), TypeError, r"\[0\]\[0\].*float64"),
        ([[1, "2"]], TypeError, "'2'"),
        (["12"], TypeError, "'12'"),
        ([3], TypeError, "row 0 of the basis is 3"),
        ([[1, None]], TypeError, "None"),
        ([[Fraction(1, 2)]], TypeError, "Fraction"),
    ],
)
def test_bad_bases(rows: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lll(rows)


LONG = """
import random, sys
from crystalline.exact.lattice import LatticeBasis, lll
rng = random.Random(1)
unit = [[int(i == j) for j in range(60)] for i in range(60)]
basis = LatticeBasis([[rng.getrandbits(20000), *row] for row in unit])
before = basis.matrix.to_lists()
print("ready", flush=True)
try:
    lll(basis)
except KeyboardInterrupt:
    sys.exit(7 if basis.matrix.to_lists() == before else 8)
"""


def test_interrupt_is_heard_and_leaves_the_basis() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, env=os.environ, cwd=ROOT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.4)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 7
        finally:
            process.kill()


LEVELS: list[Callable[[random.Random], oracle.Rows]] = [
    lambda rng: oracle.qary(rng, 21, 30),
    lambda rng: oracle.uniform(rng, 9, 11, 100),
    lambda rng: oracle.knapsack(rng, 10, 200),
]


@pytest.mark.parametrize("level", ["base", "avx2", "avx512"])
def test_every_level_gives_the_same_bits(level: str) -> None:
    from crystalline._kernels import isa

    if level not in isa.available_levels():
        pytest.skip(f"this CPU has no {level}")
    code = (
        "import random\n"
        "from crystalline.exact.lattice import lll\n"
        "from tests.exact.lattice.test_lll import LEVELS\n"
        "print([lll(make(random.Random(4))).basis.rows for make in LEVELS])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CRYSTALLINE_ISA": level},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[lll(make(random.Random(4))).basis.rows for make in LEVELS]}\n"
