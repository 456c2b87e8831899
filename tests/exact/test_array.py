"""BigFixedArray: shapes, views, operands, memory that is shared, and what it refuses."""

from __future__ import annotations

import copy
import operator
import pickle
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.exact import BigFixed, BigFixedArray, BigInt
from crystalline.exact import _parts as parts
from tests.oracles.fixedarrays import limbs_of, operands


def array(
    seed: int, shape: tuple[int, ...], width_bits: int = 256, frac_bits: int = 192
) -> BigFixedArray:
    """Random numbers below 2^((width_bits - frac_bits) / 2), so that products fit."""
    top = (width_bits + frac_bits) // 2 - 8
    n = int(np.prod(shape))
    values = operands(seed, n, width_bits, lambda rng: rng.randrange(top - 8, top))
    limbs = limbs_of(values, width_bits // 64).reshape(*shape, width_bits // 64)
    return BigFixedArray.from_limbs(limbs, frac_bits)


def nearest(exact: Fraction, frac_bits: int = 192) -> Fraction:
    return Fraction(round(exact * (1 << frac_bits)), 1 << frac_bits)


def fractions(a: BigFixedArray) -> Any:
    return np.array(a.to_fractions(), object).reshape(a.shape)


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("left", "right"),
    [((5,), (5,)), ((3, 4), (4,)), ((2, 1, 3), (4, 1)), ((), (3,)), ((2, 2), ()), ((0,), (1,))],
)
def test_operators_broadcast(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    operation = OPERATIONS[name]
    a, b = array(1, left), array(2, right)
    got = operation(a, b)
    exact = operation(fractions(a), fractions(b))
    assert got.shape == np.broadcast_shapes(left, right)
    wanted = [nearest(x) for x in np.asarray(exact, object).reshape(-1)]
    assert fractions(got).reshape(-1).tolist() == wanted


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("number", [3, -1, 0.375, Fraction(-5, 4), Decimal("2.5"), np.float64(0.5)])
def test_numbers_on_both_sides(name: str, number: Any) -> None:
    operation, a = OPERATIONS[name], array(3, (9,))
    assert fractions(operation(a, number)).tolist() == [
        nearest(operation(x, Fraction(number))) for x in fractions(a)
    ]
    assert fractions(operation(number, a)).tolist() == [
        nearest(operation(Fraction(number), x)) for x in fractions(a)
    ]


def test_numbers_that_the_format_does_not_hold_are_refused() -> None:
    a = BigFixedArray.of([1], 64, 8)
    with pytest.raises(ValueError, match=r"0\.001 has more than 8 bits after the point"):
        a + 0.001
    with pytest.raises(ValueError, match="Fraction"):
        a[0] = Fraction(1, 3)
    with pytest.raises(OverflowError, match="does not fit in 64 bits with 8 after the point"):
        a + 2**55
    for stranger in ("1", None, np.ones(3), [1], 1j):
        with pytest.raises(TypeError):
            a + stranger
        with pytest.raises(TypeError):
            stranger * a
        assert (a == stranger) is False or isinstance(stranger, np.ndarray)
    assert a.of(0.001, 64, 8) == 0


def test_formats_must_agree() -> None:
    a, b = BigFixedArray(3), BigFixedArray(3, 256, 128)
    for call in (a.add, a.mul, a.dot, a.matmul, a.compare, lambda x: a.fma(a, x), a.__eq__):
        with pytest.raises(ValueError, match=r"192 after the point and 256 with 128; use rescaled"):
            call(b)
    with pytest.raises(ValueError, match="rescaled"):
        a.add(a, out=b)
    with pytest.raises(ValueError, match="rescaled"):
        BigFixedArray.concatenate([a, b])
    with pytest.raises(ValueError, match="broadcast"):
        a + BigFixedArray(4)


@pytest.mark.parametrize("width_bits", [0, -64, 100, 4160])
def test_widths(width_bits: int) -> None:
    with pytest.raises(ValueError, match=f"width_bits is {width_bits}"):
        BigFixedArray(3, width_bits, 0)


def test_absurd_sizes_are_refused_at_once() -> None:
    for shape in (2**60, (2**40, 2**40), 2**46):
        with pytest.raises(MemoryError):
            BigFixedArray(shape)
    with pytest.raises(ValueError, match="frac_bits is 256"):
        BigFixedArray(1, 256, 256)
    with pytest.raises(ValueError, match="lengths of 0 or more"):
        BigFixedArray((2, -1))
    with pytest.raises(TypeError):
        BigFixedArray(2.5)  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match="1e999999999999 does not fit"):
        BigFixedArray.of("1e999999999999")
    assert BigFixedArray.of("1e-999999999999") == 0


def test_the_first_element_that_does_not_fit_is_named() -> None:
    a = BigFixedArray.of(np.ones((4, 25)), 128, 64)
    a[2, 13] = a[3, 3] = 2**60
    with pytest.raises(
        OverflowError, match=r"element \(2, 13\) of the product does not fit in 128"
    ):
        a * a
    with pytest.raises(OverflowError, match=r"element 63 of the product"):
        a.ravel() * a.ravel()
    with pytest.raises(OverflowError, match=r"element \(2, 13\) of the sum"):
        a * 4 + a * 4
    with pytest.raises(OverflowError, match="the dot product of 100 elements"):
        a.ravel().dot(a.ravel())
    with pytest.raises(OverflowError, match=r"element \(2, 2\) of the matrix product"):
        a @ a.T
    least = BigFixedArray.of(["0", "-1e-9", str(-(2**63))], 128, 64)
    with pytest.raises(OverflowError, match="element 2 of the negative"):
        operator.neg(least)
    with pytest.raises(OverflowError, match="element 2 of the absolute value"):
        abs(least)
    with pytest.raises(OverflowError, match="element 1 of the quotient"):
        BigFixedArray.of([1, 1], 128, 64) / BigFixedArray.of([1, 2.0**-64], 128, 64)
    with pytest.raises(OverflowError, match=r"element \(1, 0\), 9{20}, does not fit"):
        BigFixedArray.of([[1], [int("9" * 20)]], 128, 64)
    with pytest.raises(OverflowError, match=r"element 1, 1e\+30, does not fit"):
        BigFixedArray.of(np.array([0, 1e30]), 128, 64)
    with pytest.raises(OverflowError, match="element 2 does not fit in 64 bits with 1 after"):
        least.rescaled(64, 1)


def test_division_by_zero_is_named() -> None:
    with pytest.raises(ZeroDivisionError, match=r"division by zero at element \(1, 0\)"):
        1 / BigFixedArray.of([[1, 2], [0, 0]])
    with pytest.raises(ZeroDivisionError, match="at element 0"):
        BigFixedArray(3) / 0
    assert (BigFixedArray(0) / 0).size == 0


@pytest.mark.parametrize("bad", [float("nan"), np.array([0.0, np.nan])])
def test_no_number(bad: Any) -> None:
    with pytest.raises(ValueError, match="NaN"):
        BigFixedArray.of(bad)
    with pytest.raises(OverflowError, match="inf"):
        BigFixedArray.of(float("-inf") if isinstance(bad, float) else np.array([np.inf]))


@pytest.mark.parametrize("text", ["", ".", "1.2.3", "0x10", "1e", "--1", "nan", "1 2", "١"])
def test_malformed_strings(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        BigFixedArray.of([text])


@pytest.mark.parametrize(("width_bits", "frac_bits"), [(64, 0), (128, 1), (256, 192), (512, 509)])
def test_strings_there_and_back(width_bits: int, frac_bits: int) -> None:
    limbs = limbs_of(operands(5, 60, width_bits), width_bits // 64)
    a = BigFixedArray.from_limbs(limbs, frac_bits)
    assert (BigFixedArray.of(a.to_strings(), width_bits, frac_bits) == a).all()
    for digits in (0, 3, 700):
        texts = a.to_strings(digits)
        scale = 10**digits
        wanted = [round(x * scale) for x in a.to_fractions()]
        assert [round(Fraction(text) * scale) for text in texts] == wanted
        assert all(len(text.partition(".")[2]) == digits for text in texts)


def test_strings_longer_than_python_converts() -> None:
    value = BigFixedArray.of("1." + "0" * 4990 + "1e2", 64, 4)
    assert value == 100
    assert BigFixedArray.of("9" * 4990 + "e-4980", 128, 0).to_ints() == 10**10
    wide = BigFixedArray.of([Fraction(1, 2**4095)], 4096, 4095)
    text = wide.to_strings(4600)[0]
    assert len(text) == 4602
    assert text[-3400:] == str(round(Fraction(10**4600, 2**4095))).rjust(3400, "0")[-3400:]


def test_values_of_every_kind() -> None:
    values = [
        1,
        True,
        0.5,
        Fraction(7, 4),
        Decimal("-1.25"),
        " 2.5e0 ",
        np.int16(-3),
        np.float32(4),
    ]
    a = BigFixedArray.of(values, 128, 8)
    assert a.to_fractions() == [1, 1, Fraction(1, 2), Fraction(7, 4), Fraction(-5, 4),
                                Fraction(5, 2), -3, 4]  # fmt: skip
    assert BigFixedArray.of(np.arange(6).reshape(2, 3)).to_ints() == [[0, 1, 2], [3, 4, 5]]
    assert BigFixedArray.of(np.float32([0.1]))[0].to_fractions() == Fraction(float(np.float32(0.1)))
    assert BigFixedArray.of(2.75).shape == ()
    assert BigFixedArray.of([[], []]).shape == (2, 0)
    assert BigFixedArray.of((-2.75, 2.75)).to_ints() == [-2, 2]
    assert a.mantissas()[:3] == [256, 256, 128]
    for bad in ([1, [2]], [[1], [2, 3]]):
        with pytest.raises(ValueError, match="unequal shapes"):
            BigFixedArray.of(bad)
    for bad_value in (None, 1j, {}, b"1"):
        with pytest.raises(TypeError):
            BigFixedArray.of([bad_value])


def test_exact_values_there_and_back() -> None:
    a = array(20, (3, 2))
    values = a.to_bigfixed()
    assert values[2][1].prec_bits == 192
    assert int(values[2][1].mantissa) == a.mantissas()[2][1]
    assert (BigFixedArray.of(values) == a).all()
    assert (a + BigFixed("0.5", 8)).to_fractions()[0][0] == a.to_fractions()[0][0] + Fraction(1, 2)
    assert (BigFixed(2, 0) * a == a * BigInt(2)).all()
    assert (BigInt(3) - a == 3 - a).all()
    assert BigFixedArray.of([BigInt(-7)]).to_ints() == [-7]
    with pytest.raises(ValueError, match="more than 192 bits"):
        a + BigFixed.from_mantissa(1, 200)


def test_views_and_copies() -> None:
    a = array(7, (6, 5))
    f = fractions(a)
    for key in (0, -1, slice(1, 4), (2, 3), (slice(None), 1), (..., 2), (slice(None, None, -2), 0)):
        assert fractions(a[key]).tolist() == np.asarray(f[key], object).tolist(), key
    mask = np.array([x > 0 for x in f.reshape(-1)]).reshape(6, 5)
    assert fractions(a[mask]).tolist() == f[mask].tolist()
    assert fractions(a[[0, 3, 0]]).tolist() == f[[0, 3, 0]].tolist()
    assert a[None].shape == (1, 6, 5)
    assert fractions(a.T * a.T).tolist() == [[nearest(x * x) for x in row] for row in f.T]
    assert fractions(a[::2, 1::2] + a[1::2, ::-2][:, :2]).tolist() == (
        (f[::2, 1::2] + f[1::2, ::-2][:, :2]).tolist()
    )
    view = a[2]
    view[1:3] = 7
    assert a[2, 1] == 7
    assert a[2, 2] == 7
    a[a > 1000] = 0
    assert not (a > 1000).any()
    other = a.copy()
    other[...] = 1
    assert not (a == 1).all()
    assert [x.shape for x in a][:2] == [(5,), (5,)]
    assert a.reshape(5, -1).shape == a.reshape((5, 6)).shape == (5, 6)
    assert a.transpose(1, 0).shape == a.T.shape == (5, 6)
    assert BigFixedArray((0, 3)).reshape(3, 0).shape == (3, 0)
    for key in ((0, 0, 0), (slice(None),) * 3, (..., 0, 0, 0), a):
        with pytest.raises((IndexError, TypeError)):
            a[key]
    for lengths in ((4, 4), (-1, 4), (-1, -1), (-2, -15)):
        with pytest.raises(ValueError, match="do not fill"):
            a.reshape(lengths)
    with pytest.raises(ValueError, match="no order"):
        a.transpose(0, 0)


def test_out_may_be_an_operand_or_overlap_one() -> None:
    a, b = array(8, (40,)), array(9, (40,))
    wanted = (a * b).mantissas()
    out = BigFixedArray(40)
    assert a.mul(b, out=out) is out
    assert out.mantissas() == wanted
    same = a.copy()
    same.mul(b, out=same)
    assert same.mantissas() == wanted
    both = a.copy()
    assert both.mul(both, out=both).mantissas() == (a * a).mantissas()
    shifted = a.copy()
    shifted[:-1].mul(b[1:], out=shifted[1:])
    assert shifted.mantissas() == [a.mantissas()[0], *(a[:-1] * b[1:]).mantissas()]
    first = a.copy()
    first.sub(first[0], out=first)
    assert first.mantissas() == (a - a[0]).mantissas()
    stepped = BigFixedArray(80)
    a.add(b, out=stepped[::2])
    assert stepped[::2].mantissas() == (a + b).mantissas()
    assert not stepped[1::2].limbs.any()
    square = array(10, (6, 6))
    wanted = (square @ square).mantissas()
    assert square.matmul(square, out=square).mantissas() == wanted
    with pytest.raises(ValueError, match="expected"):
        a.add(b, out=BigFixedArray(41))
    frozen = a.copy()
    frozen.limbs.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        a.add(b, out=frozen)
    assert (frozen == a).all()


@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
     ((2, 1, 3, 4), (5, 4, 2)), ((3, 0), (0, 2)), ((0, 3), (3, 2))],
)  # fmt: skip
def test_matrix_products(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = array(1, left), array(2, right)
    got = a @ b
    if 0 in left:
        wanted = np.full((left[0], right[1]), Fraction(0))
    else:
        wanted = np.matmul(fractions(a), fractions(b))
    assert got.shape == np.shape(wanted)
    flat = np.asarray(wanted, object).reshape(-1)
    assert fractions(got).reshape(-1).tolist() == [nearest(Fraction(x)) for x in flat]


def test_shapes_that_do_not_multiply() -> None:
    a = BigFixedArray((2, 3))
    for other in (BigFixedArray((2, 3)), BigFixedArray(2), BigFixedArray(())):
        with pytest.raises(ValueError, match=r"do not go together|without axes"):
            a @ other
    with pytest.raises(TypeError):
        a @ 2
    with pytest.raises(ValueError, match="single axis"):
        a.dot(a)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(a)


def test_sums_order_and_extremes() -> None:
    a = array(11, (5, 7))
    f = fractions(a)
    assert a.sum().to_fractions() == f.sum()
    for axis in (0, 1, -1):
        assert a.sum(axis=axis).to_fractions() == f.sum(axis=axis).tolist()
    assert BigFixedArray((3, 0)).sum(axis=1).to_ints() == [0, 0, 0]
    assert a.max().to_fractions() == f.max()
    assert a.min().to_fractions() == f.min()
    flat = a.ravel()
    assert flat[flat.argsort()].to_fractions() == sorted(f.reshape(-1))
    for operation in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        assert operation(a, a[2]).tolist() == operation(f, f[2]).tolist()
        assert operation(a, 3).tolist() == operation(f, 3).tolist()
        assert operation(3, a).tolist() == operation(3, f).tolist()
    with pytest.raises(ValueError, match="out of bounds"):
        a.sum(axis=2)
    with pytest.raises(OverflowError, match=r"sum 1 of 2 elements"):
        BigFixedArray.of([[1, 2**62], [1, 2**62]], 64, 0).sum(axis=0)


def test_memory_is_what_it_says() -> None:
    a = BigFixedArray.of([[1], [-1]], 192, 64)
    assert a.limbs.tolist() == [[[0, 1, 0]], [[0, 2**64 - 1, 2**64 - 1]]]
    a.limbs[0, 0, 0] = 1 << 63
    assert a[0, 0].to_fractions() == Fraction(3, 2)
    assert (a.width_bits, a.frac_bits, a.nbytes, a.ndim, a.size, len(a)) == (192, 64, 48, 2, 2, 2)
    assert repr(a[0]) == "BigFixedArray(shape=(1,), width_bits=192, frac_bits=64) [1.500000000000]"
    assert repr(BigFixedArray(0)).endswith("[]")
    assert repr(BigFixedArray((9, 9))).endswith(", ...")
    with pytest.raises(TypeError, match="no length"):
        len(a[0, 0])
    with pytest.raises(TypeError, match="uint64"):
        BigFixedArray.from_limbs(np.zeros((2, 4)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_pickles_and_copies() -> None:
    a = array(12, (4, 3), 384, 100)
    for other in (pickle.loads(pickle.dumps(a)), copy.copy(a), copy.deepcopy(a), +a):
        assert (other == a).all()
        assert (other.frac_bits, other.shape) == (100, (4, 3))
        other[0] = 0
        assert (a[0] != 0).any()
    joined = BigFixedArray.concatenate([a, a[:1]])
    assert joined.shape == (5, 3)
    assert BigFixedArray.concatenate([a, a], axis=-1).shape == (4, 6)
    with pytest.raises(ValueError, match="axis is 2"):
        BigFixedArray.concatenate([a, a], axis=2)
    with pytest.raises(ValueError, match="no arrays"):
        BigFixedArray.concatenate([])


def test_shared_memory() -> None:
    segment = shared_memory.SharedMemory(create=True, size=4096)
    try:
        a = BigFixedArray.from_buffer(segment.buf, (3, 5), offset=64)
        a[...] = 2
        a.mul(a, out=a)
        again = BigFixedArray.from_buffer(segment.buf, (3, 5), offset=64)
        assert (again == 4).all()
        assert not np.frombuffer(segment.buf, np.uint64, 8).any()
        with pytest.raises(ValueError, match=r"4096 bytes, shape \(200,\) of 256 bits at offset 0"):
            BigFixedArray.from_buffer(segment.buf, 200)
        with pytest.raises(ValueError, match="offset is 3"):
            BigFixedArray.from_buffer(segment.buf, 1, offset=3)
        del a, again
    finally:
        segment.close()
        segment.unlink()


def test_memory_maps(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    limbs = np.memmap(path, np.uint64, "w+", shape=(10, 4))
    a = BigFixedArray.from_limbs(limbs)
    a[:] = BigFixedArray.of(np.arange(10))
    limbs.flush()
    data = path.read_bytes()
    read = BigFixedArray.from_buffer(data)
    assert read.to_ints() == list(range(10))
    with pytest.raises(ValueError, match="read-only"):
        read.add(1, out=read)


def test_other_threads_run_meanwhile() -> None:
    """The lock is released: a thread of Python's counts on while one call computes."""
    a = array(13, (300_000,))
    a.fma(a, a)  # pages touched
    ticks: list[float] = []
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        begin = time.perf_counter()
        quotient = a / 3
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    assert sum(begin < tick < end for tick in ticks) >= 10
    assert (abs(quotient * 3 - a) <= BigFixedArray.of(2.0**-191)).all()


def test_two_threads_compute_the_same() -> None:
    a, b = array(14, (20_000,)), array(15, (20_000,))
    wanted = (a * b).limbs
    results: list[Any] = [None, None]

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = a * b

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((result.limbs == wanted).all() for result in results)


def test_sorting_more_than_numpy_does_at_once() -> None:
    """Runs are merged by the kernel; equal elements keep their order through every merge."""
    rng = np.random.default_rng(5)
    values = rng.integers(-50_000, 50_000, 400_003)
    a = BigFixedArray.of(values.astype(float), 128, 64)
    assert (a.argsort() == np.argsort(values, kind="stable")).all()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make large work of small arrays."""
    monkeypatch.setattr(parts, "PART", 5)


@pytest.mark.usefixtures("small_parts")
def test_copies_in_parts() -> None:
    a = array(21, (3, 4, 5), 128, 64)
    for view in (a, a.T, a[::-1, 1:3], a[:, None], a[:0], a[1]):
        copy_ = view.copy()
        assert (copy_.limbs == view.limbs).all()
        assert copy_.limbs.flags.c_contiguous
        assert not np.may_share_memory(copy_.limbs, a.limbs)
    for view in (a, a.T, a[:, ::2], a[:, :, :1], a[::-1]):
        flat = view.reshape(-1)
        assert (flat.limbs == view.limbs.reshape(-1, 2)).all()
        shares = np.may_share_memory(view.limbs.reshape(-1, 2), a.limbs)
        assert np.may_share_memory(flat.limbs, a.limbs) == shares
    for axis in (0, 1, -1):
        joined = BigFixedArray.concatenate([a, a[::-1]], axis)
        assert (joined.limbs == np.concatenate([a.limbs, a[::-1].limbs], axis % 3)).all()
    with pytest.raises(ValueError, match="dimensions"):
        BigFixedArray.concatenate([a, a[:, 1:]])
    assert (a.log() if (a > 0).all() else -a).shape == a.shape
    with pytest.raises(ZeroDivisionError, match=r"element \(2, 0, 0\)"):
        b = a.copy()
        b[2, 0, 0] = 0
        a / b
    with pytest.raises(ValueError, match="sqrt of element"):
        (-abs(a)).sqrt()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "key",
    [..., 0, (0, ..., 2), (slice(None), 1), [2, 0], np.array([True, False, True]), np.int64(1),
     (slice(0, 0),), (2, 3, 4), ((0, 2),)],
    ids=str,
)  # fmt: skip
def test_writes_in_parts(key: Any) -> None:
    """What lists, bools and arrays choose is no view, and left to NumPy."""
    a = array(22, (3, 4, 5), 128, 64)
    places = np.arange(a.size).reshape(a.shape)[key]
    source = array(23, (4, 5), 128, 64)
    for value in (source[0, 0], source[0, :1], source[:1, :1]):
        if value.ndim > places.ndim and places.ndim:
            continue
        expected = a.limbs.reshape(-1, 2).copy()
        expected[places] = value.limbs if places.ndim else value.limbs.reshape(2)
        a[key] = value
        assert (a.limbs.reshape(-1, 2) == expected).all()


@pytest.mark.usefixtures("small_parts")
def test_writes_of_what_overlaps() -> None:
    a = array(24, (6, 6), 128, 64)
    expected = a.limbs.transpose(1, 0, 2).copy()
    a[:] = a.T
    assert (a.limbs == expected).all()
    a[1:] = a[:-1].copy()
    with pytest.raises(ValueError, match="broadcast"):
        a[:, :5] = a


def test_messages_with_numbers_of_many_digits() -> None:
    with pytest.raises(OverflowError, match=r"element 0, some 2\^16609, does not fit"):
        BigFixedArray.of([10**5000])
    for text in ("1e" + "9" * 30, "1e+" + "9" * 5000):
        with pytest.raises(OverflowError, match="does not fit in 256 bits"):
            BigFixedArray.of([text])
    assert BigFixedArray.of(["1e-" + "9" * 5000, "0e" + "9" * 5000]).to_ints() == [0, 0]
