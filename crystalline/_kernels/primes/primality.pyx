"""Primality of 64-bit integers, proven, one at a time and over arrays.

A number is tried by the primes below 100, then by the strong test to base 2 (four numbers side
by side in a batch), then by the strong Lucas test: together the test of Baillie, Pomerance,
Selfridge and Wagstaff, which no composite below 2^64 passes (primitives/primes_modular.h).
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.primes.interrupt cimport check_signals

cdef extern from "primes_modular.h":
    int CL_TRIALS
    int cl_is_prime_64(uint64_t n) noexcept nogil
    int cl_has_small_divisor(uint64_t n, int count) noexcept nogil
    int cl_strong_lucas(uint64_t n) noexcept nogil
    unsigned cl_strong_base_2_four(const uint64_t* n) noexcept nogil

cdef enum:
    CHUNK = 1 << 14  # numbers between two looks at the signals


cdef bint is_prime_64(uint64_t n) noexcept nogil:
    return cl_is_prime_64(n)


cdef void _test_four(const uint64_t* n, const int64_t* places, unsigned char* out,
                     int64_t count) noexcept nogil:
    """Finish `count` <= 4 numbers that have no divisor below 100; the rest repeat the first."""
    cdef unsigned passed = cl_strong_base_2_four(n)
    cdef int64_t i
    for i in range(count):
        out[places[i]] = (passed >> i & 1) and cl_strong_lucas(n[i])


cdef void _test_chunk(const uint64_t* n, unsigned char* out, int64_t size) noexcept nogil:
    cdef uint64_t waiting[4]
    cdef int64_t places[4]
    cdef int64_t i, count = 0
    for i in range(size):
        if n[i] < 97 * 97:
            out[i] = cl_is_prime_64(n[i])
        elif not n[i] & 1 or cl_has_small_divisor(n[i], 8) or cl_has_small_divisor(n[i], CL_TRIALS):
            out[i] = 0
        else:
            waiting[count], places[count] = n[i], i
            count += 1
            if count == 4:
                _test_four(waiting, places, out, 4)
                count = 0
    if count:
        for i in range(count, 4):
            waiting[i] = waiting[0]
        _test_four(waiting, places, out, count)


def is_prime(uint64_t n) -> bool:
    """Return whether n < 2^64 is prime.

    >>> is_prime(2**64 - 59), is_prime(2**64 - 57)
    (True, False)
    """
    return cl_is_prime_64(n) != 0


def are_prime(const uint64_t[::1] n not None, unsigned char[::1] out not None) -> None:
    """out[i] = 1 where n[i] is prime, otherwise 0 (n: IN, out: OUT).

    >>> import numpy as np
    >>> out = np.empty(4, np.uint8)
    >>> are_prime(np.array([0, 2, 561, 65537], np.uint64), out); print(out)
    [0 1 0 1]
    """
    cdef int64_t size = n.shape[0], done = 0
    expect_length("out", out.shape[0], size)
    with nogil:
        while done < size:
            _test_chunk(&n[done], &out[done], min(size - done, <int64_t>CHUNK))
            done += CHUNK
            if done < size:
                check_signals()


def next_prime(uint64_t n) -> int:
    """Return the smallest prime above n, or 0 when it is above 2^64.

    >>> next_prime(0), next_prime(89), next_prime(2**64 - 59)
    (2, 97, 0)
    """
    with nogil:
        if n < 2:
            n = 2
        else:
            n += 1 + (n & 1)  # the next odd number; at the end this wraps to 0 or 1
            while n > 1 and not cl_is_prime_64(n):
                n += 2
            if n == 1:
                n = 0
    return n


def previous_prime(uint64_t n) -> int:
    """Return the largest prime below n, or 0 when there is none.

    >>> previous_prime(3), previous_prime(97), previous_prime(2)
    (2, 89, 0)
    """
    if n <= 3:
        return 2 if n == 3 else 0
    with nogil:
        n -= 1 + (n & 1)
        while not cl_is_prime_64(n):
            n -= 2
    return n
