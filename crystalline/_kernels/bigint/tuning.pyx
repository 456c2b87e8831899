"""The thresholds in force: the row of `tuning.h` for the level in use, or what a test forces.

Every threshold is a size, in limbs unless `tuning.h` says otherwise, from which an algorithm is
taken.  Results never depend on them.
"""
from contextlib import contextmanager

from libc.stdint cimport int64_t

from crystalline._kernels import exact_isa

cdef extern from *:
    """
    #include "tuning.h"
    #define CL_ROW_BASE(name, base, avx2, avx512, avx512ifma) base,
    #define CL_ROW_AVX2(name, base, avx2, avx512, avx512ifma) avx2,
    #define CL_ROW_AVX512(name, base, avx2, avx512, avx512ifma) avx512,
    #define CL_ROW_IFMA(name, base, avx2, avx512, avx512ifma) avx512ifma,
    #define CL_NAME(name, base, avx2, avx512, avx512ifma) #name,
    static const Thresholds cl_tuned[] = {{CL_THRESHOLDS(CL_ROW_BASE)},
                                          {CL_THRESHOLDS(CL_ROW_AVX2)},
                                          {CL_THRESHOLDS(CL_ROW_AVX512)},
                                          {CL_THRESHOLDS(CL_ROW_IFMA)}};
    static const char *const cl_threshold_names[] = {CL_THRESHOLDS(CL_NAME)};
    enum { CL_THRESHOLD_COUNT = sizeof(Thresholds) / sizeof(int64_t) };
    """
    const Thresholds cl_tuned[]
    const char* const cl_threshold_names[]
    const int CL_THRESHOLD_COUNT

cdef Thresholds _in_force


cdef const Thresholds* thresholds() noexcept nogil:
    return &_in_force


def values() -> dict[str, int]:
    """Return the thresholds in force by name.

    >>> values()["karatsuba"] > 1
    True
    """
    cdef const int64_t* members = <const int64_t*>&_in_force
    return {cl_threshold_names[i].decode(): members[i] for i in range(CL_THRESHOLD_COUNT)}


def forced(**sizes):
    """Set thresholds by name for the length of a `with` block, in the whole process.

    For tests and for the tool that measures; not while other threads compute.  A name that
    `tuning.h` does not have is a TypeError, a size below 1 a ValueError.

    >>> with forced(karatsuba=4, toom3=9):
    ...     values()["karatsuba"]
    4
    """
    names = list(values())
    for name, size in sizes.items():
        if name not in names:
            raise TypeError(f"no threshold is named {name!r}; there are {', '.join(names)}")
        if size < 1:
            raise ValueError(f"threshold {name} is {size}, below 1")
    return _replaced({names.index(name): size for name, size in sizes.items()})


@contextmanager
def _replaced(sizes):
    cdef int64_t* members = <int64_t*>&_in_force
    cdef Thresholds kept = _in_force
    try:
        for index, size in sizes.items():
            members[<int64_t>index] = size
        yield
    finally:
        (<Thresholds*>members)[0] = kept


_in_force = cl_tuned[exact_isa.LEVELS.index(exact_isa.level())]
