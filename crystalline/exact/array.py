"""BigFixedArray: fixed-point numbers of a fixed width, any shape, in plain memory.

An array holds integers of `width_bits` bits in two's complement, each counting units of
2^-`frac_bits`, as limbs of 64 bits in one buffer: the heap's, a memory map's, or shared memory's.
Whole arrays are computed at once, without Python's lock.  Every result is rounded correctly, to
the nearest unit and to the even one of two, whatever the instructions that computed it; what does
not fit raises, and nothing ever wraps around.

Numbers of any precision, one at a time, are BigFixed's; this module converts from and to them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels.fixedarray import arithmetic, convert, division, functions, roots
from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts
from crystalline.exact.decimals import from_decimal, to_decimal
from crystalline.exact.fixed import BigFixed

MAX_WIDTH_BITS = 4096
_SORTED_AT_ONCE = 1 << 17  # elements that NumPy sorts in some ten milliseconds

_Limbs = npt.NDArray[np.uint64]
_Bools = npt.NDArray[np.bool_]


class BigFixedArray:
    """Numbers m · 2^-frac_bits with |m| < 2^(width_bits - 1), in two's complement; zeros at first.

    `shape` is a length or a tuple of lengths; `width_bits` a multiple of 64 up to 4,096;
    0 <= `frac_bits` < `width_bits`.

    Operators work element by element on arrays of one format (width and frac_bits) whose shapes
    broadcast, and on numbers that the format holds exactly.  The methods of the same names take
    `out`, which may be an operand.  After an exception, what `out` holds means nothing.

    Errors: OverflowError names the first element whose result does not fit, ZeroDivisionError and
    ValueError the first that has none; ValueError where formats or shapes do not go together.

    >>> x = BigFixedArray.of(["0.5", "-2", "1e-3"], width_bits=128, frac_bits=96)
    >>> (x * x + 1).to_floats()
    array([1.25    , 5.      , 1.000001])
    >>> x.shape, x.limbs.shape, x.limbs.dtype
    ((3,), (3, 2), dtype('uint64'))
    """

    __slots__ = ("_frac_bits", "_limbs")

    __array_ufunc__ = None  # NumPy's operators leave the work to ours
    __hash__ = None  # type: ignore[assignment]

    _frac_bits: int
    _limbs: _Limbs

    def __init__(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        width_bits: int = 256,
        frac_bits: int = 192,
    ) -> None:
        limbs, self._frac_bits = _format(width_bits, frac_bits)
        lengths = _shape(shape)
        if 8 * limbs * math.prod(lengths) >= 2**63:
            raise MemoryError(f"an array of shape {lengths} and {width_bits} bits a number")
        self._limbs = np.zeros((*lengths, limbs), np.uint64)

    # Other ways to begin

    @classmethod
    def from_limbs(cls, limbs: _Limbs, frac_bits: int = 192) -> BigFixedArray:
        """Return the array whose limbs these are: no copy, so both see what either writes.

        limbs: uint64 [*shape, limbs], least significant first.

        >>> BigFixedArray.from_limbs(np.array([[0, 3], [0, 2**64 - 1]], np.uint64), 64).to_strings()
        ['3.0', '-1.0']
        """
        if not isinstance(limbs, np.ndarray) or limbs.dtype != np.uint64:
            kind = getattr(limbs, "dtype", type(limbs).__name__)
            raise TypeError(f"limbs are {kind}, expected a NumPy array of uint64")
        if limbs.ndim == 0:
            raise ValueError("limbs have no axis, expected [*shape, limbs]")
        _, bits = _format(64 * limbs.shape[-1], frac_bits)
        return cls._of_limbs(limbs, bits)

    @classmethod
    def from_buffer(
        cls,
        buffer: Any,
        shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
        width_bits: int = 256,
        frac_bits: int = 192,
        offset: int = 0,
    ) -> BigFixedArray:
        """Return an array in a buffer that is there: a memory map, shared memory, a bytearray.

        No copy is made.  `offset` is where the array begins, in bytes, a multiple of 8; without a
        `shape` it has one axis, as long as the buffer allows.

        >>> memory = bytearray(64)
        >>> a = BigFixedArray.from_buffer(memory, width_bits=128, frac_bits=64)
        >>> a[1] = -1
        >>> a.shape, memory[24:32].hex()
        ((4,), 'ffffffffffffffff')
        """
        limbs, frac_bits = _format(width_bits, frac_bits)
        size = memoryview(buffer).nbytes
        if offset < 0 or offset % 8 or offset > size:
            raise ValueError(f"offset is {offset}, expected a multiple of 8 up to {size}")
        if shape is None:
            lengths: tuple[int, ...] = ((size - offset) // (8 * limbs),)
        else:
            lengths = _shape(shape)
        needed = offset + 8 * limbs * math.prod(lengths)
        if needed > size:
            raise ValueError(
                f"the buffer has {size} bytes, shape {lengths} of {width_bits} bits at offset "
                f"{offset} needs {needed}"
            )
        flat = np.frombuffer(buffer, np.uint64, limbs * math.prod(lengths), offset)
        return cls._of_limbs(flat.reshape(*lengths, limbs), frac_bits)

    @classmethod
    def of(cls, values: Any, width_bits: int = 256, frac_bits: int = 192) -> BigFixedArray:
        """Return an array of `values`, each rounded once to the nearest unit, ties to even.

        values: a NumPy array of numbers, a BigFixedArray, one number, or nested sequences of them.
        A number is an int, a float, a Fraction, a Decimal, a decimal string, a BigInt, a BigFixed,
        or whatever else has an `as_integer_ratio`.

        Errors: OverflowError for what does not fit, ValueError for NaN and malformed strings.

        >>> BigFixedArray.of([[1, "0.1"], [0.25, Fraction(1, 3)]], 128, 8).to_strings(3)
        [['1.000', '0.102'], ['0.250', '0.332']]
        """
        if isinstance(values, BigFixedArray):
            return values.rescaled(width_bits, frac_bits)
        result: BigFixedArray
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.itemsize <= 8:
            result = cls(values.shape, width_bits, frac_bits)
            doubles = parts.contiguous(values, np.float64).reshape(-1)
            at = convert.from_doubles(result._flat(), doubles, result._frac_bits)
            if at < doubles.size:
                place = _place(at, values.shape)
                if not np.isfinite(doubles[at]):
                    _refuse_double(float(doubles[at]), f"element {place} is ")
                raise OverflowError(f"element {place}, {doubles[at]}, {result._beyond()}")
            return result
        items = values if isinstance(values, np.ndarray) else _as_objects(values)
        result = cls(items.shape, width_bits, frac_bits)
        flat, size = result._flat(), 8 * result._limbs.shape[-1]
        for i, value in enumerate(_elements(items)):
            mantissa = _mantissa(value, result._frac_bits, result.width_bits)
            try:
                data = mantissa.to_bytes(size, "little", signed=True)
            except OverflowError:
                place = _place(i, items.shape)
                raise OverflowError(
                    f"element {place}, {_short(value)}, {result._beyond()}"
                ) from None
            flat[i] = np.frombuffer(data, np.uint64)
        return result

    @classmethod
    def concatenate(cls, arrays: Sequence[BigFixedArray], axis: int = 0) -> BigFixedArray:
        """Return arrays of one format joined along an axis, as NumPy joins them.

        >>> x = BigFixedArray.of([1, 2])
        >>> BigFixedArray.concatenate([x, -x]).to_ints()
        [1, 2, -1, -2]
        """
        if not arrays:
            raise ValueError("no arrays to concatenate")
        for other in arrays:
            arrays[0]._expect_format(other)
        ndim = arrays[0].ndim
        if not -ndim <= axis < ndim:
            raise ValueError(f"axis is {axis}, out of bounds for arrays of {ndim} dimensions")
        joined = parts.concatenated([other._limbs for other in arrays], axis % ndim)
        return cls._of_limbs(joined, arrays[0]._frac_bits)

    @classmethod
    def _of_limbs(cls, limbs: _Limbs, frac_bits: int) -> BigFixedArray:
        array = object.__new__(cls)
        array._limbs = limbs
        array._frac_bits = frac_bits
        return array

    # What it is

    @property
    def limbs(self) -> _Limbs:
        """The memory itself: uint64 [*shape, limbs], least significant first; writes show."""
        return self._limbs

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._limbs.shape[:-1]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all limbs."""
        return self._limbs.nbytes

    @property
    def width_bits(self) -> int:
        """The bits of an element, with its sign."""
        return 64 * int(self._limbs.shape[-1])

    @property
    def frac_bits(self) -> int:
        """The bits after the binary point."""
        return self._frac_bits

    @property
    def T(self) -> BigFixedArray:
        """The array with its axes reversed, a view."""
        return self.transpose()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[BigFixedArray]:
        for i in range(len(self)):
            yield self._like(self._limbs[i])

    def __repr__(self) -> str:
        head = f"BigFixedArray(shape={self.shape}, width_bits={self.width_bits}, "
        shown = self._like(self._limbs[tuple(slice(6) for _ in self.shape)])
        text = "[]"
        if shown.size:
            values = np.array(shown.to_strings(12), object)
            text = np.array2string(values, formatter={"all": str})
        more = ", ..." if shown.size < self.size else ""
        return f"{head}frac_bits={self._frac_bits}) {text}{more}"

    def __reduce__(self) -> tuple[Callable[..., BigFixedArray], tuple[_Limbs, int]]:
        return BigFixedArray.from_limbs, (self._limbs, self._frac_bits)

    def __copy__(self) -> BigFixedArray:
        return self.copy()

    def __deepcopy__(self, memo: object) -> BigFixedArray:
        return self.copy()

    def copy(self) -> BigFixedArray:
        """Return a copy in memory of its own."""
        return self._like(parts.copied(self._limbs))

    # Parts and shapes

    def __getitem__(self, key: Any) -> BigFixedArray:
        """Return a part, as NumPy does: a view for integers and slices, a copy for index arrays."""
        return self._like(self._limbs[self._key(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write numbers or an array of the same format into a part."""
        keys, source = self._key(key), self._operand(value)._limbs
        if self._limbs.size <= parts.PART or not all(map(_is_basic, keys)):
            self._limbs[keys] = source
            return
        place = self._limbs[keys]  # a view
        while source.ndim > place.ndim and len(source) == 1:
            source = source[0]
        source = np.broadcast_to(source, place.shape)
        parts.assign(place, parts.copied(source) if np.may_share_memory(place, source) else source)

    def _key(self, key: Any) -> tuple[Any, ...]:
        """Return the index of limbs that means `key`, keeping the axis of limbs out of reach."""
        keys = key if isinstance(key, tuple) else (key,)
        used = 0
        for item in keys:
            if item is Ellipsis or item is None:
                continue
            if isinstance(item, BigFixedArray):
                raise TypeError("an index is a BigFixedArray, expected integers, slices or bools")
            used += item.ndim if isinstance(item, np.ndarray) and item.dtype == bool else 1
        if used > self.ndim:
            raise IndexError(f"{used} indices for an array of {self.ndim} dimensions")
        has_ellipsis = any(item is Ellipsis for item in keys)
        return (*keys, slice(None)) if has_ellipsis else (*keys, Ellipsis)

    def reshape(self, *shape: Any) -> BigFixedArray:
        """Return the elements in another shape, a view where that can be; -1 stands for the rest.

        >>> BigFixedArray(6).reshape(2, -1).shape
        (2, 3)
        """
        lengths = shape[0] if len(shape) == 1 and not hasattr(shape[0], "__index__") else shape
        sizes = [operator.index(length) for length in lengths]
        if sizes.count(-1) == 1:  # NumPy cannot tell it from the limbs of an empty array
            rest = math.prod(s for s in sizes if s != -1)
            if rest == 0 or self.size % rest:
                raise ValueError(f"{self.size} elements do not fill shape {tuple(sizes)}")
            sizes[sizes.index(-1)] = self.size // rest
        if min(sizes, default=0) < 0 or math.prod(sizes) != self.size:
            raise ValueError(f"{self.size} elements do not fill shape {tuple(sizes)}")
        return self._like(parts.reshaped(self._limbs, (*sizes, self._limbs.shape[-1])))

    def ravel(self) -> BigFixedArray:
        """Return the elements along one axis, a view where that can be."""
        return self.reshape(self.size)

    def transpose(self, *axes: int) -> BigFixedArray:
        """Return the array with its axes in another order, reversed without `axes`; a view."""
        ndim = self.ndim
        order = axes or tuple(reversed(range(ndim)))
        if sorted(a % ndim if -ndim <= a < ndim else ndim for a in order) != list(range(ndim)):
            raise ValueError(f"axes {axes} are no order of {ndim} axes")
        return self._like(self._limbs.transpose(*(a % ndim for a in order), ndim))

    # Arithmetic

    def add(self, other: Any, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return self + other."""
        return self._elementwise(arithmetic.add, "the sum", (other,), out)

    def sub(self, other: Any, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return self - other."""
        return self._elementwise(arithmetic.subtract, "the difference", (other,), out)

    def neg(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return -self; the least number of the format has no negative."""
        zero = BigFixedArray((), self.width_bits, self._frac_bits)
        return self._elementwise(
            lambda r, a, z: arithmetic.subtract(r, z, a), "the negative", (zero,), out
        )

    def abs(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return |self|; the least number of the format has none."""
        return self._elementwise(arithmetic.absolute, "the absolute value", (), out)

    def mul(self, other: Any, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return self · other."""
        bits = self._frac_bits
        return self._elementwise(
            lambda r, a, b: arithmetic.multiply_add(r, a, b, None, bits),
            "the product",
            (other,),
            out,
        )

    def fma(self, other: Any, addend: Any, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return self · other + addend, rounded once.

        >>> x = BigFixedArray.of([0.75], 64, 2)  # in quarters
        >>> x.fma(0.5, 0.25).to_strings(2), (x * 0.5 + 0.25).to_strings(2)
        (['0.50'], ['0.75'])
        """
        bits = self._frac_bits
        return self._elementwise(
            lambda r, a, b, c: arithmetic.multiply_add(r, a, b, c, bits),
            "the product and sum",
            (other, addend),
            out,
        )

    def div(self, other: Any, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return self / other.

        >>> (BigFixedArray.of([1, -2], 128, 64) / 3).to_strings(6)
        ['0.333333', '-0.666667']
        """
        bits = self._frac_bits
        divisor = self._operand(other)
        zeros = divisor._zeros()
        shape = np.broadcast_shapes(self.shape, divisor.shape)
        if zeros.any() and math.prod(shape):
            at = int(np.argmax(np.broadcast_to(zeros, shape)))
            raise ZeroDivisionError(f"division by zero at element {_place(at, shape)}")
        return self._elementwise(
            lambda r, a, b: division.divide(r, a, b, bits), "the quotient", (divisor,), out
        )

    def sqrt(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the square root; ValueError names the first negative element.

        >>> BigFixedArray.of([2, 0.25]).sqrt().to_strings(20)
        ['1.41421356237309504880', '0.50000000000000000000']
        """
        self._expect_domain(self._negatives(), "sqrt", "0 or more")
        return self._function(roots.sqrt, "the square root", out)

    def exp(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return e to the power of self.

        >>> BigFixedArray.of([0, 1, -100]).exp().to_strings(30)
        ['1.000000000000000000000000000000', '2.718281828459045235360287471353',
         '0.000000000000000000000000000000']
        """
        return self._function(functions.exp, "the exponential", out)

    def log(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the natural logarithm; ValueError names the first element that is not above 0.

        >>> BigFixedArray.of([1, 10]).log().to_strings(30)
        ['0.000000000000000000000000000000', '2.302585092994045684017991454684']
        """
        bad = self._negatives() | self._zeros()
        self._expect_domain(bad, "log", "more than 0")
        return self._function(functions.log, "the logarithm", out)

    def sin(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the sine of angles in radians, of any size.

        >>> BigFixedArray.of([1, 10**18]).sin().to_strings(20)
        ['0.84147098480789650665', '-0.99296932074040507621']
        """
        return self._function(functions.sin, "the sine", out)

    def cos(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the cosine of angles in radians, of any size.

        >>> BigFixedArray.of([0, 1]).cos().to_strings(20)
        ['1.00000000000000000000', '0.54030230586813971740']
        """
        return self._function(functions.cos, "the cosine", out)

    def atan(self, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the angle in radians, between -pi/2 and pi/2, whose tangent self is.

        >>> (BigFixedArray.of([1]).atan() * 4).to_strings(30)
        ['3.141592653589793238462643383280']
        """
        return self._function(functions.atan, "the arc tangent", out)

    def dot(self, other: BigFixedArray) -> BigFixedArray:
        """Return Σ self · other over one axis, added up exactly and rounded once; no axes.

        >>> x = BigFixedArray.of([1, 2, 3])
        >>> int(x.dot(x))
        14
        """
        self._expect_format(other)
        if self.ndim != 1 or self.shape != other.shape:
            raise ValueError(
                f"shapes {self.shape} and {other.shape}, expected the same single axis; "
                "@ multiplies matrices"
            )
        result = BigFixedArray((), self.width_bits, self._frac_bits)
        fits = arithmetic.dot(result._limbs, self._flat(), other._flat(), self._frac_bits)
        if not fits:
            raise OverflowError(f"the dot product of {self.size} elements {self._beyond()}")
        return result

    def matmul(self, other: BigFixedArray, out: BigFixedArray | None = None) -> BigFixedArray:
        """Return the matrix product, as `@` does: each element exact, then rounded once.

        A single axis is a row on the left and a column on the right; axes before the last two
        broadcast.

        >>> a = BigFixedArray.of([[1, 2], [3, 4]])
        >>> (a @ a @ a[0]).to_ints()
        [27, 59]
        """
        self._expect_format(other)
        if not self.ndim or not other.ndim:
            raise ValueError("matmul of an array without axes; use * for numbers")
        a = self._limbs[None] if self.ndim == 1 else self._limbs
        b = other._limbs[:, None] if other.ndim == 1 else other._limbs
        if a.shape[-2] != b.shape[-3]:
            raise ValueError(
                f"shapes {self.shape} and {other.shape} do not go together: {a.shape[-2]} columns "
                f"and {b.shape[-3]} rows"
            )
        before = np.broadcast_shapes(a.shape[:-3], b.shape[:-3])
        matrix = (a.shape[-3], b.shape[-2])
        inner = matrix[self.ndim == 1 : 2 - (other.ndim == 1)]
        result = self._result((*before, *inner), out, (self, other))
        count = math.prod(before)
        limbs = result._limbs.reshape(count, *matrix, a.shape[-1])
        a = np.broadcast_to(a, (*before, *a.shape[-3:])).reshape(count, *a.shape[-3:])
        b = np.broadcast_to(b, (*before, *b.shape[-3:])).reshape(count, *b.shape[-3:])
        for i in range(count):
            at = arithmetic.matmul(
                limbs[i],
                parts.contiguous(a[i]),
                parts.contiguous(b[i]),
                self._frac_bits,
            )
            if at < math.prod(matrix):
                place = _place(i * math.prod(matrix) + at, result.shape)
                raise OverflowError(f"element {place} of the matrix product {self._beyond()}")
        return self._deliver(result, out)

    def sum(self, axis: int | None = None) -> BigFixedArray:
        """Return the sum of all elements, or along an axis; exact, so only the total must fit.

        >>> BigFixedArray.of([[1, 2], [3, 4]]).sum(axis=0).to_ints()
        [4, 6]
        """
        if axis is None:
            shape: tuple[int, ...] = ()
            rows = self._flat()[None]
        else:
            if not -self.ndim <= axis < self.ndim:
                raise ValueError(f"axis is {axis}, out of bounds for {self.ndim} dimensions")
            moved = np.moveaxis(self._limbs, axis % self.ndim, -2)
            shape = moved.shape[:-2]
            rows = parts.contiguous(moved).reshape(math.prod(shape), *moved.shape[-2:])
        result = BigFixedArray(shape, self.width_bits, self._frac_bits)
        at = arithmetic.sum_rows(result._flat(), rows)
        if at < result.size:
            which = f"sum {_place(at, shape)}" if shape else "the sum"
            raise OverflowError(f"{which} of {rows.shape[1]} elements {self._beyond()}")
        return result

    def __add__(self, other: Any) -> BigFixedArray:
        return self.add(other) if _takes(other) else NotImplemented

    def __radd__(self, other: Any) -> BigFixedArray:
        return self.add(other) if _takes(other) else NotImplemented

    def __sub__(self, other: Any) -> BigFixedArray:
        return self.sub(other) if _takes(other) else NotImplemented

    def __rsub__(self, other: Any) -> BigFixedArray:
        return self._operand(other).sub(self) if _takes(other) else NotImplemented

    def __mul__(self, other: Any) -> BigFixedArray:
        return self.mul(other) if _takes(other) else NotImplemented

    def __rmul__(self, other: Any) -> BigFixedArray:
        return self.mul(other) if _takes(other) else NotImplemented

    def __truediv__(self, other: Any) -> BigFixedArray:
        return self.div(other) if _takes(other) else NotImplemented

    def __rtruediv__(self, other: Any) -> BigFixedArray:
        return self._operand(other).div(self) if _takes(other) else NotImplemented

    def __matmul__(self, other: Any) -> BigFixedArray:
        return self.matmul(other) if isinstance(other, BigFixedArray) else NotImplemented

    def __neg__(self) -> BigFixedArray:
        return self.neg()

    def __pos__(self) -> BigFixedArray:
        return self.copy()

    def __abs__(self) -> BigFixedArray:
        return self.abs()

    # Order

    def compare(self, other: Any) -> npt.NDArray[np.int8]:
        """Return -1, 0 or 1 as an element is below, equal to or above the other's.

        >>> BigFixedArray.of([1, 2, 3]).compare(2).tolist()
        [-1, 0, 1]
        """
        right = self._operand(other)
        shape = np.broadcast_shapes(self.shape, right.shape)
        result = np.empty(math.prod(shape), np.int8)
        arithmetic.compare(result, self._rows(shape), right._rows(shape))
        return result.reshape(shape)

    def __eq__(self, other: object) -> _Bools:  # type: ignore[override]
        return self.compare(other) == 0 if _takes(other) else NotImplemented

    def __ne__(self, other: object) -> _Bools:  # type: ignore[override]
        return self.compare(other) != 0 if _takes(other) else NotImplemented

    def __lt__(self, other: Any) -> _Bools:
        return self.compare(other) < 0 if _takes(other) else NotImplemented

    def __le__(self, other: Any) -> _Bools:
        return self.compare(other) <= 0 if _takes(other) else NotImplemented

    def __gt__(self, other: Any) -> _Bools:
        return self.compare(other) > 0 if _takes(other) else NotImplemented

    def __ge__(self, other: Any) -> _Bools:
        return self.compare(other) >= 0 if _takes(other) else NotImplemented

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"the truth of {self.size} elements is ambiguous; compare them")
        return bool(self._limbs.any())

    def argmin(self) -> int:
        """Return the index of the first least element, counted through all axes."""
        return arithmetic.extreme(self._flat(), -1)

    def argmax(self) -> int:
        """Return the index of the first largest element, counted through all axes."""
        return arithmetic.extreme(self._flat(), 1)

    def min(self) -> BigFixedArray:
        """Return the least element, an array without axes."""
        return self._like(self._flat()[self.argmin()].copy())

    def max(self) -> BigFixedArray:
        """Return the largest element, an array without axes.

        >>> float(BigFixedArray.of([0.5, -3, 2]).max())
        2.0
        """
        return self._like(self._flat()[self.argmax()].copy())

    def argsort(self) -> npt.NDArray[np.intp]:
        """Return the indices that sort an array of one axis, equal elements in their order.

        >>> BigFixedArray.of([0.5, -3, 2]).argsort().tolist()
        [1, 0, 2]
        """
        if self.ndim != 1:
            raise ValueError(f"argsort of {self.ndim} dimensions, expected 1; ravel() it first")
        limbs = self._flat()
        order = np.empty(self.size, np.int64)
        for part in parts.slices(self.size, _SORTED_AT_ONCE):
            keys = limbs[part].copy()
            keys[:, -1] ^= np.uint64(2**63)
            order[part] = np.lexsort(keys.T) + part.start
        run = _SORTED_AT_ONCE
        other = np.empty_like(order) if run < self.size else order
        while run < self.size:
            arithmetic.merge(other, order, limbs, run)
            order, other = other, order
            run *= 2
        return order

    # Formats and other kinds of numbers

    def rescaled(self, width_bits: int, frac_bits: int) -> BigFixedArray:
        """Return the same numbers in another format, rounded where bits are lost.

        >>> BigFixedArray.of([2.5, 3.5]).rescaled(64, 0).to_ints()
        [2, 4]
        """
        result = BigFixedArray(self.shape, width_bits, frac_bits)
        shift = result._frac_bits - self._frac_bits
        at = arithmetic.rescale(result._flat(), self._flat(), shift)
        if at < result.size:
            raise OverflowError(f"element {_place(at, self.shape)} {result._beyond()}")
        return result

    def to_floats(self) -> npt.NDArray[np.float64]:
        """Return the nearest doubles, ties to even; OverflowError beyond the largest of them."""
        result = np.empty(self.size)
        at = convert.to_doubles(result, self._flat(), self._frac_bits)
        if at < result.size:
            raise OverflowError(f"element {_place(at, self.shape)} is too large for a double")
        return result.reshape(self.shape)

    def mantissas(self) -> Any:
        """Return the integers m of m · 2^-frac_bits, as nested lists; an int without axes.

        >>> BigFixedArray.of([1, -0.5], 64, 4).mantissas()
        [16, -8]
        """
        return self._nested(lambda m: m)

    def to_ints(self) -> Any:
        """Return the integer parts, rounded toward zero as int() does, as nested lists."""
        bits = self._frac_bits
        return self._nested(lambda m: m >> bits if m >= 0 else -(-m >> bits))

    def to_fractions(self) -> Any:
        """Return the exact values as fractions.Fraction, as nested lists."""
        unit = 1 << self._frac_bits
        return self._nested(lambda m: Fraction(m, unit))

    def to_bigfixed(self) -> Any:
        """Return the exact values as BigFixed with frac_bits bits, as nested lists.

        >>> BigFixedArray.of([0.5, -3]).to_bigfixed()[1].prec_bits
        192
        """
        bits = self._frac_bits
        return self._nested(lambda m: BigFixed.from_mantissa(m, bits))

    def to_strings(self, digits: int | None = None) -> Any:
        """Return decimal strings with so many digits after the point, ties to even; nested lists.

        Without `digits` there are as few as `of` needs to give back the same number.

        >>> BigFixedArray.of(["0.1", 3]).to_strings()
        ['0.1', '3.0']
        """
        if digits is not None and digits < 0:
            raise ValueError(f"digits is {digits}, expected 0 or more")
        bits = self._frac_bits
        return self._nested(lambda m: to_decimal(m, bits, digits))

    def __int__(self) -> int:
        return int(self._one().to_ints())

    def __float__(self) -> float:
        return float(self._one().to_floats())

    # Inside

    def _negatives(self) -> _Bools:
        rows = self._flat()
        return parts.evaluate(lambda a: a[:, -1] >> np.uint64(63), rows, bool).reshape(self.shape)

    def _zeros(self) -> _Bools:
        rows = self._flat()
        return parts.evaluate(lambda a: (a == 0).all(axis=-1), rows, bool).reshape(self.shape)

    def _expect_domain(self, bad: _Bools, name: str, expected: str) -> None:
        if bad.any():
            at = int(np.argmax(bad))
            value = self.ravel()[at].to_strings()
            raise ValueError(
                f"{name} of element {_place(at, self.shape)}, {_short(value)}: expected {expected}"
            )

    def _function(
        self, kernel: Callable[[_Limbs, _Limbs, int], int], what: str, out: BigFixedArray | None
    ) -> BigFixedArray:
        return self._elementwise(lambda r, a: kernel(r, a, self._frac_bits), what, (), out)

    def _like(self, limbs: _Limbs) -> BigFixedArray:
        return BigFixedArray._of_limbs(limbs, self._frac_bits)

    def _one(self) -> BigFixedArray:
        if self.size != 1:
            raise TypeError(f"{self.size} elements cannot be converted to one number")
        return self.reshape(())

    def _flat(self) -> _Limbs:
        """Return the limbs as [size, limbs], contiguous: a view where they lie so."""
        limbs = parts.contiguous(self._limbs)
        return limbs.reshape(self.size, limbs.shape[-1])

    def _rows(self, shape: tuple[int, ...]) -> _Limbs:
        """Return the limbs of all elements of the broadcast shape, or of the one that repeats."""
        if self.shape == shape or self.size == 1:
            return self._flat()
        return self._like(np.broadcast_to(self._limbs, (*shape, self._limbs.shape[-1])))._flat()

    def _nested(self, convert_one: Callable[[int], Any]) -> Any:
        size = 8 * self._limbs.shape[-1]
        data = self._flat().tobytes()
        values = np.empty(self.size, object)
        for i in range(self.size):
            mantissa = int.from_bytes(data[i * size : (i + 1) * size], "little", signed=True)
            values[i] = convert_one(mantissa)
        return values.reshape(self.shape).tolist()

    def _beyond(self) -> str:
        return f"does not fit in {self.width_bits} bits with {self._frac_bits} after the point"

    def _expect_format(self, other: Any) -> None:
        if not isinstance(other, BigFixedArray):
            raise TypeError(f"{_short(other)} is {type(other).__name__}, expected BigFixedArray")
        if (self.width_bits, self._frac_bits) != (other.width_bits, other._frac_bits):
            raise ValueError(
                f"formats differ: {self.width_bits} bits with {self._frac_bits} after the point "
                f"and {other.width_bits} with {other._frac_bits}; use rescaled() on one of them"
            )

    def _operand(self, other: Any) -> BigFixedArray:
        """Return an array of this format; a number must be one that the format holds exactly."""
        if isinstance(other, BigFixedArray):
            self._expect_format(other)
            return other
        if not _takes(other):
            raise TypeError(
                f"{type(other).__name__} does not go together with a BigFixedArray; "
                "BigFixedArray.of() converts and rounds"
            )
        value = BigFixedArray.of(other, self.width_bits, self._frac_bits)
        if not isinstance(other, int) and value.to_fractions() != _fraction(other):
            raise ValueError(
                f"{_short(other)} has more than {self._frac_bits} bits after the point; "
                "BigFixedArray.of() rounds it"
            )
        return value

    def _result(
        self,
        shape: tuple[int, ...],
        out: BigFixedArray | None,
        operands: Sequence[BigFixedArray],
    ) -> BigFixedArray:
        """Return where a kernel may write: `out` itself, or an array for _deliver to copy from."""
        if out is None:
            return self._like(np.empty((*shape, self._limbs.shape[-1]), np.uint64))
        self._expect_format(out)
        if out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, expected {shape}")
        if not out._limbs.flags.writeable:
            raise ValueError("out is read-only")
        apart = all(not np.may_share_memory(out._limbs, x._limbs) for x in operands)
        if apart and out._limbs.flags.c_contiguous:
            return out
        return self._like(np.empty((*shape, self._limbs.shape[-1]), np.uint64))

    @staticmethod
    def _deliver(result: BigFixedArray, out: BigFixedArray | None) -> BigFixedArray:
        if out is None or out is result:
            return result
        parts.assign(out._limbs, result._limbs)
        return out

    def _elementwise(
        self,
        kernel: Callable[..., int],
        what: str,
        others: tuple[Any, ...],
        out: BigFixedArray | None,
    ) -> BigFixedArray:
        operands = (self, *(self._operand(other) for other in others))
        shape = self.shape
        if any(x.shape != shape for x in operands):
            shape = np.broadcast_shapes(*(x.shape for x in operands))
        # An operand that is all of `out` is read before it is written, element by element.
        others_memory = [x for x in operands if out is None or not _same(x, out)]
        result = self._result(shape, out, others_memory)
        rows = [x._rows(shape) for x in operands]
        at = kernel(result._flat(), *rows)
        if at < result.size:
            raise OverflowError(f"element {_place(at, shape)} of {what} {self._beyond()}")
        return self._deliver(result, out)


def _same(x: BigFixedArray, out: BigFixedArray) -> bool:
    """Return whether two arrays are the same memory in the same order."""
    a, b = x._limbs, out._limbs
    return (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.shape == b.shape
        and a.flags.c_contiguous
        and b.flags.c_contiguous
    )


def _format(width_bits: int, frac_bits: int) -> tuple[int, int]:
    """Return limbs and frac_bits, checked."""
    width, frac = operator.index(width_bits), operator.index(frac_bits)
    if width % 64 or not 64 <= width <= MAX_WIDTH_BITS:
        raise ValueError(
            f"width_bits is {width}, expected a multiple of 64 from 64 to {MAX_WIDTH_BITS}; "
            "BigFixed has no widest number"
        )
    if not 0 <= frac < width:
        raise ValueError(f"frac_bits is {frac}, expected 0 to {width - 1}")
    return width // 64, frac


def _shape(shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    items = (shape,) if hasattr(shape, "__index__") else shape
    lengths = tuple(operator.index(length) for length in items)
    if min(lengths, default=0) < 0:
        raise ValueError(f"shape is {lengths}, expected lengths of 0 or more")
    return lengths


def _place(flat: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return the index of an element as one writes it: an int for one axis, else a tuple."""
    if len(shape) == 1:
        return flat
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**300:  # Python prints no more than 4,300 digits
        return arguments.short(value)
    text = f"{value}" if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def _is_basic(item: object) -> bool:
    """Return whether NumPy gives a view for an index of such items."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return True
    return hasattr(item, "__index__") and not isinstance(item, (bool, np.bool_, np.ndarray))


def _takes(value: object) -> bool:
    """Return whether operators take it: our arrays and numbers, but no other arrays."""
    if isinstance(value, BigFixedArray):
        return True
    return _is_number(value) and not isinstance(value, (str, np.ndarray))


def _is_number(value: object) -> bool:
    return hasattr(value, "as_integer_ratio") or hasattr(value, "__index__")


def _refuse_double(value: float, where: str = "") -> None:
    if math.isnan(value):
        raise ValueError(f"{where}NaN, which is no number")
    raise OverflowError(f"{where}{value}, which no format holds")


def _fraction(value: Any) -> Fraction:
    if hasattr(value, "__index__"):
        return Fraction(operator.index(value))
    return Fraction(*(int(part) for part in value.as_integer_ratio()))


def _mantissa(value: Any, frac_bits: int, width_bits: int) -> int:
    """Return a number in units of 2^-frac_bits, rounded to the nearest, ties to even."""
    if isinstance(value, str):
        return from_decimal(value, frac_bits, width_bits)
    if hasattr(value, "__index__"):
        return operator.index(value) << frac_bits
    if not hasattr(value, "as_integer_ratio"):
        raise TypeError(f"{_short(value)} is {type(value).__name__}, expected a number")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse_double(value)
    numerator, denominator = (int(part) for part in value.as_integer_ratio())
    return round(Fraction(numerator << frac_bits, denominator))


def _elements(items: npt.NDArray[Any]) -> Iterator[Any]:
    """Yield the elements as Python's objects, some thousand at a time."""
    flat = items.reshape(-1)
    for part in parts.slices(flat.size, 1 << 14):
        yield from flat[part].tolist()


def _as_objects(values: Any) -> npt.NDArray[np.object_]:
    """Return nested sequences as an array of objects; only lists and tuples nest."""

    def shape_of(item: Any) -> tuple[int, ...]:
        if not isinstance(item, (list, tuple)):
            return ()
        inner = {shape_of(part) for part in item}
        if len(inner) > 1:
            raise ValueError(f"nested sequences of unequal shapes {sorted(inner)}")
        return (len(item), *(inner.pop() if inner else ()))

    shape = shape_of(values)
    result = np.empty(shape, object)
    if not shape:
        result[()] = values
        return result

    def fill(at: tuple[int, ...], item: Any) -> None:
        if len(at) == len(shape):
            result[at] = item
            return
        for i, part in enumerate(item):
            fill((*at, i), part)

    fill((), values)
    return result
