"""Counter-based random numbers: what an element gets depends on a key and its place only.

Who computes, in which order and in how many pieces therefore never changes a
bit, and nothing has to be stored to do a pass again.
"""

from libc.stdint cimport uint32_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport primitives

cdef extern from "mix64.h":
    uint64_t cl_mix64(uint64_t a, uint64_t b) noexcept nogil


cdef uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    return cl_mix64(a, b)


cdef uint32_t drop_threshold(double probability) except? 0:
    if not 0.0 <= probability < 1.0:
        raise ValueError(
            f"the dropout probability must be at least 0 and below 1, not {probability}"
        )
    return <uint32_t>min(probability * 4294967296.0 + 0.5, 4294967295.0)


def derive_key(*words) -> int:
    """Return a 64-bit key made of all words (each 0 <= word < 2^64) in their order.

    Starts from 0 and mixes one word after the other: key = mix(key, word), the
    same `mix` that random.pxd offers to compiled callers.

    >>> derive_key() == 0 and derive_key(1, 2) != derive_key(2, 1)
    True
    >>> f"{derive_key(1337, 0):016x}"
    '3fad023b9b8a9847'
    """
    cdef uint64_t key = 0
    for word in words:
        if not 0 <= word < 1 << 64:
            raise ValueError(f"a word of a key must be from 0 to 2^64 - 1, not {word}")
        key = cl_mix64(key, <uint64_t>word)
    return key


def dropout(const float[::1] x not None, float[::1] out not None, double probability, uint64_t key,
            uint64_t first=0) -> None:
    """out[i] = 0 with `probability`, otherwise x[i] / (1 - probability) (x: IN, out: OUT).

    Element i is number `first` + i of the sequence of `key`; pieces of a range
    give the same elements as the whole, at every instruction-set level.  The
    probability is rounded to a multiple of 2^-32 and must be below 1.  `out`
    may be `x`.

    >>> import numpy as np
    >>> x, out = np.ones(1000, np.float32), np.empty(1000, np.float32)
    >>> dropout(x, out, 0.25, derive_key(7)); print(np.unique(out).round(3))
    [0.    1.333]
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef uint32_t threshold = drop_threshold(probability)
    expect_length("out", out.shape[0], n)
    if n == 0:
        return
    cdef float scale = <float>(1.0 / (1.0 - probability))
    with nogil:
        primitives().dropout(n, &x[0], &out[0], key, first, threshold, scale)
