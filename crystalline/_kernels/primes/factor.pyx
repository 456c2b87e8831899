"""Prime factors of 64-bit integers, one at a time and over arrays.

Trial division by the primes below 256, then Brent's form of Pollard's rho or elliptic curves on
machine words (primitives/primes_factor.h).  Every factor that is given is proven prime.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.primes.interrupt cimport check_signals

cdef extern from "primes_factor.h":
    int CL_MOST_PRIMES
    ctypedef struct Factors64:
        uint64_t* prime
        uint8_t* exponent
        int count
    void cl_fill_trial_primes() noexcept nogil
    void cl_factor_64(Factors64* f, uint64_t n) noexcept nogil

cl_fill_trial_primes()


def factor(uint64_t n) -> list:
    """Return the prime factors of n > 0 as (prime, exponent), ascending.

    >>> factor(2**5 * 3 * 1000003), factor(1)
    ([(2, 5), (3, 1), (1000003, 1)], [])
    """
    cdef Factors64 f
    cdef int i
    if n == 0:
        raise ValueError("0 has no factorization")
    with nogil:
        cl_factor_64(&f, n)
    return [(f.prime[i], f.exponent[i]) for i in range(f.count)]


def factor_array(const uint64_t[::1] n not None, uint64_t[:, ::1] primes not None,
                 uint8_t[:, ::1] exponents not None, uint8_t[::1] counts not None) -> int:
    """The prime factors of n[i] > 0: primes[i, :counts[i]] ascending and their exponents (OUT).

    primes and exponents are (n, 15): no 64-bit number has more different primes.  The rest of
    the rows is zero.  Returns -1, or the first i with n[i] = 0, where it stops.

    >>> import numpy as np
    >>> p, e, c = np.empty((2, 15), np.uint64), np.empty((2, 15), np.uint8), np.empty(2, np.uint8)
    >>> factor_array(np.array([12, 7], np.uint64), p, e, c); print(p[:, :2], e[:, :2], c)
    -1
    [[2 3]
     [7 0]] [[2 1]
     [1 0]] [2 1]
    """
    cdef int64_t size = n.shape[0], i, bad = -1
    cdef Factors64 f
    cdef int j
    expect_length("primes", primes.shape[0], size)
    expect_length("a row of primes", primes.shape[1], CL_MOST_PRIMES)
    expect_length("exponents", exponents.shape[0], size)
    expect_length("a row of exponents", exponents.shape[1], CL_MOST_PRIMES)
    expect_length("counts", counts.shape[0], size)
    with nogil:
        for i in range(size):
            if n[i] == 0:
                bad = i
                break
            cl_factor_64(&f, n[i])
            for j in range(CL_MOST_PRIMES):
                primes[i, j] = f.prime[j] if j < f.count else 0
                exponents[i, j] = f.exponent[j] if j < f.count else 0
            counts[i] = <uint8_t>f.count
            if i & 15 == 15:
                check_signals()
    return bad


def signatures(const uint64_t[::1] n not None, uint8_t[:, ::1] out not None) -> int:
    """out[i] = the exponents of n[i] > 0 in descending order, then zeros ((n, 15): OUT).

    Returns -1, or the first i with n[i] = 0, where it stops.

    >>> import numpy as np
    >>> out = np.empty((2, 15), np.uint8)
    >>> signatures(np.array([12, 30], np.uint64), out); print(out[:, :4])
    -1
    [[2 1 0 0]
     [1 1 1 0]]
    """
    cdef int64_t size = n.shape[0], i, bad = -1
    cdef Factors64 f
    cdef int j, k
    cdef uint8_t exponent
    expect_length("out", out.shape[0], size)
    expect_length("a row of out", out.shape[1], CL_MOST_PRIMES)
    with nogil:
        for i in range(size):
            if n[i] == 0:
                bad = i
                break
            cl_factor_64(&f, n[i])
            for j in range(f.count):
                exponent = f.exponent[j]
                k = j
                while k > 0 and out[i, k - 1] < exponent:
                    out[i, k] = out[i, k - 1]
                    k -= 1
                out[i, k] = exponent
            for j in range(f.count, CL_MOST_PRIMES):
                out[i, j] = 0
            if i & 15 == 15:
                check_signals()
    return bad
