"""The number formats of products, by name: "float32", "bf16", "int8" and what else the table has.

A format is a row of the table in `primitives/formats.h`: how weights are packed and activations
become operands, what multiplies them, whether the level has an instruction for it.  All that
computes takes a format's row and asks nothing else.
"""

import time

from libc.stdint cimport int64_t, uintptr_t

from crystalline._kernels.isa cimport CL_FORMATS, NumberFormat, primitives

cdef enum:
    MOST_ADOPTED = 8
    ROUNDS = 20000  # of a peak's stream between two looks at the clock

cdef const NumberFormat* _adopted[MOST_ADOPTED]
cdef int _adopted_count = 0


cdef const NumberFormat* number_format(str name, int64_t K=0) except NULL:
    cdef const NumberFormat* f = _row(name)
    if f == NULL:
        raise ValueError(f"precision is {name!r}, expected one of {', '.join(names())}")
    if f.longest and K > f.longest:
        raise ValueError(
            f"the inner length is {K}, the longest that {name} can sum is {f.longest}")
    return f


cdef const NumberFormat* training_format(str name) except NULL:
    cdef const NumberFormat* f = number_format(name)
    if f.product_ta == NULL:
        able = ", ".join(one for one in names() if trains(one))
        raise ValueError(
            f"precision is {name!r}, which multiplies but has no gradients; "
            f"expected one of {able}")
    return f


cdef const NumberFormat* _row(str name):
    cdef int i
    for i in range(CL_FORMATS):
        if (<bytes>primitives().formats[i].name).decode() == name:
            return primitives().formats[i]
    for i in range(_adopted_count):
        if (<bytes>_adopted[i].name).decode() == name:
            return _adopted[i]
    return NULL


def names() -> tuple[str, ...]:
    """Return the names of the formats, float32 first.

    >>> names()[:3]
    ('float32', 'bf16', 'int8')
    """
    cdef int i
    own = [(<bytes>primitives().formats[i].name).decode() for i in range(CL_FORMATS)]
    return (*own, *((<bytes>_adopted[i].name).decode() for i in range(_adopted_count)))


def is_native(str name) -> bool:
    """Return whether the level in use multiplies in this format by an instruction of its own.

    Where it does not, its products are right but no faster than float32 ones.

    >>> is_native("float32")
    True
    """
    return number_format(name).native != 0


def trains(str name) -> bool:
    """Return whether weights can be trained in this format: whether it has gradients.

    >>> trains("float32"), trains("int8")
    (True, False)
    """
    return number_format(name).product_ta != NULL


def flops_per_second(str name, double seconds=0.2) -> float:
    """Measure this core's peak in a format: multiply-adds on registers only, FLOP/s.

    Takes about `seconds`; the best of the slices, since a peak is what the core can do.
    """
    cdef const NumberFormat* f = number_format(name)
    cdef float sink = 0.5
    cdef double best = 0.0, start, elapsed
    cdef double end = time.perf_counter() + seconds
    cdef int64_t flops
    while True:
        start = time.perf_counter()
        with nogil:
            flops = f.peak(ROUNDS, &sink)
        elapsed = time.perf_counter() - start
        best = max(best, flops / elapsed)
        if time.perf_counter() >= end:
            return best


def keeps_operands(str name) -> bool:
    """Return whether what lives from one product to the next is kept in the format itself.

    >>> keeps_operands("float32")
    False
    """
    return number_format(name).keeps != NULL


def adopt(uintptr_t address) -> None:
    """Take the row of a format from outside: a `NumberFormat` that lives as long as the process.

    For trying a format out before it is in the table; the caller vouches for the address.
    """
    global _adopted_count
    cdef const NumberFormat* f = <const NumberFormat*>address
    if (<bytes>f.name).decode() in names():
        raise ValueError(f"there is a format {(<bytes>f.name).decode()!r} already")
    if (f.elements < 1 or f.step < 1 or f.extra < 0 or f.extra % f.step or f.row_group < 1
            or f.pass_words < f.step or f.left_words < 1 or not 1 <= f.block_rows <= 32
            or not f.block_rows <= f.query_rows <= 128):
        raise ValueError(f"the format {(<bytes>f.name).decode()!r} has no layout")
    if _adopted_count == MOST_ADOPTED:
        raise ValueError(f"{MOST_ADOPTED} formats have been adopted: that is the most")
    _adopted[_adopted_count] = f
    _adopted_count += 1
