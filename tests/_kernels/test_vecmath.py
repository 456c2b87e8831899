"""exp, log, tanh, erf: error bounds in ulp over all float32, edges, tails, alignment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import vecmath
from tests._kernels.buffers import SIZES, guards_intact, place, same_bits
from tests.oracles import ops

# As stated in primitives/vecmath.h.
ULP = {"exp": 1.1, "log": 1.0, "tanh": 1.5, "erf": 1.5}
# Where the code changes its mind.
THRESHOLDS = {
    "exp": [0.0, 0.34657359, -0.34657359, 88.0, 88.3762626, 88.72283, -87.0, -87.336548],
    "log": [1.0, 0.70710678, 1.41421356, 2.0, 1.17549435e-38, 3.0e-45, 3.0e38],
    "tanh": [0.625, -0.625, 9.0, 10.0, -10.0, 20.0, 1e-20],
    "erf": [0.95, -0.95, 3.9, 4.0, -4.0, 1e-20, 1e-39],
}
EXP_FLUSHES_BELOW = np.float32(-87.336548)


def _run(name: str, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty_like(x)
    getattr(vecmath, name)(x, out)
    return out


def _errors(name: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    exact: Callable[[npt.ArrayLike], npt.NDArray[np.float64]] = getattr(ops, name)
    out = _run(name, x)
    errors = ops.ulp_error(out, exact(x))
    if name == "exp":  # subnormal results are 0 by contract
        flushed = x < EXP_FLUSHES_BELOW
        assert not out[flushed].any()
        errors[flushed] = 0.0
    return errors


@pytest.mark.parametrize("name", ULP)
def test_error_over_all_floats(name: str) -> None:
    stride = 100_003 if name == "erf" else 4_001  # the oracle of erf is slow
    bits = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32)
    with np.errstate(invalid="ignore"):  # signaling NaN among them
        errors = _errors(name, bits.view(np.float32))
    assert errors.max() <= ULP[name]


@pytest.mark.parametrize("name", ULP)
def test_error_near_thresholds(name: str) -> None:
    for value in THRESHOLDS[name]:
        center = int(np.float32(value).view(np.uint32))
        bits = np.arange(max(center - 2000, 0), center + 2000, dtype=np.int64).astype(np.uint32)
        assert _errors(name, bits.view(np.float32)).max() <= ULP[name], value


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        (
            "exp",
            [0.0, -0.0, np.inf, -np.inf, 88.73, -87.34, 1e-45],
            [1, 1, np.inf, 0, np.inf, 0, 1],
        ),
        (
            "log",
            [1.0, 0.0, -0.0, np.inf, 2.0**-149],
            [0, -np.inf, -np.inf, np.inf, -149 * np.log(2)],
        ),
        ("tanh", [0.0, -0.0, np.inf, -np.inf, 1e-45], [0.0, -0.0, 1, -1, 1e-45]),
        ("erf", [0.0, -0.0, np.inf, -np.inf, 4.5], [0.0, -0.0, 1, -1, 1]),
    ],
)
def test_edges(name: str, x: list[float], expected: list[float]) -> None:
    assert same_bits(_run(name, x), np.float32(expected))


@pytest.mark.parametrize("name", ULP)
def test_nan_passes(name: str) -> None:
    assert np.isnan(_run(name, [np.nan, -np.nan] * 9)).all()


def test_log_of_negative_numbers_is_nan() -> None:
    assert np.isnan(_run("log", [-1.0, -1e-45, -np.inf])).all()


@pytest.mark.parametrize("name", ULP)
def test_every_size_and_alignment_gives_the_same_bits(name: str) -> None:
    values = np.abs(np.random.default_rng(1).standard_normal(70)).astype(np.float32)
    whole = _run(name, values)
    function = getattr(vecmath, name)
    for n in SIZES:
        for offset in (0, 1, 7):
            x, out = place(values[:n], offset), place(np.zeros(n), offset)
            function(x, out)
            assert same_bits(out, whole[:n])
            assert guards_intact(x, out)
            function(x, x)
            assert same_bits(x, whole[:n])


@pytest.mark.parametrize("name", ULP)
def test_lengths_that_differ(name: str) -> None:
    with pytest.raises(ValueError, match="out has 2 elements, expected 3"):
        getattr(vecmath, name)(np.zeros(3, np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        getattr(vecmath, name)(np.zeros(3), np.zeros(3, np.float32))


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
