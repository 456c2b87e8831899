# BigInt for other modules: its layout and how to make one.
#
# A value is one block of memory: the object, then its limbs, least significant first.  Values are
# immutable once bigint_finish has returned them.  All of this needs the GIL; the limbs of a
# finished value may be read without it while a reference is held.
from libc.stdint cimport int64_t, uint64_t


cdef class BigInt:
    cdef Py_ssize_t size  # the sign is the number's; its magnitude is the normalized limb count
    cdef uint64_t* limbs


cdef inline Py_ssize_t limb_count(BigInt x) noexcept nogil:
    return -x.size if x.size < 0 else x.size


# An unfinished value with room for n limbs (MemoryError where that is absurd); write the limbs,
# then return bigint_finish(x, limbs written, sign), which drops leading zeros.
cdef BigInt bigint_new(Py_ssize_t n)
cdef BigInt bigint_finish(BigInt x, Py_ssize_t n, bint negative)
# A copy of limbs[n], which need not be normalized.
cdef BigInt bigint_from_limbs(const uint64_t* limbs, Py_ssize_t n, bint negative)
cdef BigInt bigint_from_int64(int64_t value)
cdef BigInt bigint_from_int(object value)  # value is an int
cdef BigInt bigint_from_double(double value)  # truncated; value is finite
# BigInt, int or what has __index__; TypeError otherwise.
cdef BigInt as_bigint(object x)
cdef object bigint_to_int(BigInt x)
