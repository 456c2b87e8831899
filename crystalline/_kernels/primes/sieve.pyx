"""Primes of an interval: counted and as arrays; a segmented wheel sieve below 2^64.

Three ranges of sieving primes.  Up to 163: patterns, put together a cache line at a time.  Up to
2^20: each prime keeps the place of its next multiple; the smaller ones work within a first-level
cache, the others within a second-level one.  Beyond, for intervals above 2^40: the primes are
made as they are needed and cross a long buffer each, so memory stays bounded; or, where the
interval is short beside the square root of its end, the survivors are tested instead.

The sieve keeps the residues prime to 30; those modulo 12 (the clock of `crystalline.exact.clock`)
follow from the numbers.
"""
import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.primes.interrupt cimport check_signals
from crystalline._kernels.primes.primality cimport is_prime_64

cdef extern from "primes_cross.h":
    int CL_GROUPS
    int CL_LAST_PRESIEVED
    const uint8_t cl_wheel[8]
    const uint8_t cl_wheel_index[30]
    int64_t cl_pattern_size(int group) noexcept nogil
    void cl_make_pattern(uint8_t* s, int group) noexcept nogil
    void cl_cross_off(uint8_t* s, int64_t n, SievePrime* primes, int64_t count,
                      int c) noexcept nogil
    void cl_cross_sparse(uint8_t* s, uint64_t n, uint64_t p, uint64_t at, unsigned j) noexcept nogil
    uint64_t cl_first_multiple(uint64_t p, uint64_t first, unsigned* number) noexcept nogil

cdef extern from "primes_modular.h":
    uint64_t cl_root_64(uint64_t n) noexcept nogil

cdef extern from *:
    int __builtin_ctz(unsigned x) noexcept nogil

cdef enum:
    GROUPS = 15
    L1_BYTES = 1 << 15
    L2_BYTES = 1 << 19
    LONG_BYTES = 1 << 24  # a buffer that primes beyond BASE_LIMIT cross
    NEST_BYTES = 1 << 16  # of the sieve that makes those primes
    SMALL_LIMIT = 1 << 16
    BASE_LIMIT = 1 << 20

# Nanoseconds, for choosing: a prime against a long buffer, a number of a tested interval.
cdef double PRIME_COST = 9.0
cdef double NUMBER_COST = 12.0

cdef uint8_t* _patterns[GROUPS]


def _make_patterns():
    cdef int group
    cdef uint8_t* pattern
    for group in range(GROUPS):
        pattern = <uint8_t*>malloc(cl_pattern_size(group))
        if pattern == NULL:
            raise MemoryError("no memory for the patterns of the prime sieve")
        cl_make_pattern(pattern, group)
        _patterns[group] = pattern


cdef inline int _need_patterns() except -1:
    # Set last to first: once the last is there, all are.
    if _patterns[GROUPS - 1] == NULL:
        _make_patterns()
    return 0


cdef void _presieve(uint8_t* s, int64_t n, uint64_t first) noexcept nogil:
    """s[n] = the patterns of all groups together, for bytes first..first + n - 1."""
    cdef int64_t at[GROUPS]
    cdef int64_t size[GROUPS]
    cdef int64_t done = 0, run
    cdef int g
    for g in range(GROUPS):
        size[g] = cl_pattern_size(g)
        at[g] = <int64_t>(first % <uint64_t>size[g])
    while done < n:
        run = n - done
        for g in range(GROUPS):
            run = min(run, size[g] - at[g])
        exact_primitives().primes.and_3(s + done, _patterns[0] + at[0], _patterns[1] + at[1],
                                        _patterns[2] + at[2], run)
        for g in range(3, GROUPS, 2):
            exact_primitives().primes.and_3(s + done, s + done, _patterns[g] + at[g],
                                            _patterns[g + 1] + at[g + 1], run)
        done += run
        for g in range(GROUPS):
            at[g] += run
            if at[g] == size[g]:
                at[g] = 0


cdef int64_t _base_primes(Sieve* s, uint64_t limit) except -1 nogil:
    """Fill s.base with the primes beyond the pre-sieved ones up to limit."""
    cdef int64_t half = <int64_t>(limit + 1) // 2, i, j, p, count = 0
    cdef uint8_t* odd = <uint8_t*>malloc(half + 1)  # odd[i]: whether 2 i + 1 is composite
    s.base = <uint32_t*>malloc((half + 1) * sizeof(uint32_t))
    if odd == NULL or s.base == NULL:
        free(odd)
        with gil:
            raise MemoryError(f"no memory for the primes up to {limit}")
    memset(odd, 0, half + 1)
    i = 1
    while 2 * i * (i + 1) < half:
        if not odd[i]:
            p = 2 * i + 1
            j = 2 * i * (i + 1)
            while j < half:
                odd[j] = 1
                j += p
        i += 1
    for i in range(CL_LAST_PRESIEVED // 2 + 1, half):
        s.base[count] = <uint32_t>(2 * i + 1)
        count += not odd[i]
    free(odd)
    s.base_count = count
    return 0


cdef int sieve_open(Sieve* s, uint64_t low, uint64_t high, int64_t capacity=0) except -1 nogil:
    """Begin a sieve of [low, high]; bits gets `capacity` bytes, or what suits the interval."""
    cdef int64_t i, c
    cdef int64_t counts[2][8]
    cdef SievePrime* next_list
    cdef double full
    memset(s, 0, sizeof(Sieve))
    s.low, s.high, s.root = low, high, cl_root_64(high)
    s.next_byte, s.last_byte = low // 30, high // 30
    cdef uint64_t wanted = s.last_byte - s.next_byte + 1
    if low > high:
        s.next_byte, s.last_byte, wanted = 1, 0, 0
    if s.root > BASE_LIMIT:
        full = PRIME_COST * <double>s.root / 15 * <double>((wanted + LONG_BYTES - 1) // LONG_BYTES)
        s.tests = NUMBER_COST * 30 * <double>wanted < full
    if capacity == 0:
        capacity = LONG_BYTES if s.root > BASE_LIMIT and not s.tests else L2_BYTES
    if <uint64_t>capacity > wanted:
        capacity = <int64_t>wanted
    s.capacity = capacity
    s.bits = <uint8_t*>malloc(capacity + 64)
    if s.bits == NULL:
        with gil:
            raise MemoryError(f"no memory for a sieve buffer of {capacity} bytes")
    _base_primes(s, min(s.root, <uint64_t>BASE_LIMIT))
    memset(counts, 0, sizeof(counts))
    for i in range(s.base_count):
        counts[s.base[i] >= SMALL_LIMIT][cl_wheel_index[s.base[i] % 30]] += 1
    s.storage = <SievePrime*>malloc((s.base_count + 1) * sizeof(SievePrime))
    if s.storage == NULL:
        with gil:
            raise MemoryError(f"no memory for {s.base_count} sieving primes")
    next_list = s.storage
    for c in range(8):
        s.small[c] = next_list
        next_list += counts[0][c]
        s.medium[c] = next_list
        next_list += counts[1][c]
    return 0


cdef void sieve_close(Sieve* s) noexcept nogil:
    free(s.bits)
    free(s.base)
    free(s.storage)
    memset(s, 0, sizeof(Sieve))


cdef void _add_primes(Sieve* s, uint64_t end_byte) noexcept nogil:
    """Let the primes whose squares lie before end_byte begin at s.first."""
    cdef uint64_t p
    cdef unsigned number
    cdef SievePrime* entry
    cdef int c
    while s.base_used < s.base_count:
        p = s.base[s.base_used]
        if p * p // 30 >= end_byte:
            return
        s.base_used += 1
        c = cl_wheel_index[p % 30]
        if p < SMALL_LIMIT:
            entry = s.small[c] + s.small_count[c]
            s.small_count[c] += 1
        else:
            entry = s.medium[c] + s.medium_count[c]
            s.medium_count[c] += 1
        entry.q = <uint32_t>(p // 30)
        entry.at = <uint32_t>(cl_first_multiple(p, s.first, &number) << 3)
        entry.at |= number


cdef void _sieve_stretch(Sieve* s, uint8_t* bits, int64_t n, uint64_t first) noexcept nogil:
    """Sieve n bytes, at most L2_BYTES, by the primes up to BASE_LIMIT."""
    cdef int64_t done = 0, part
    cdef int c
    while done < n:
        part = min(n - done, <int64_t>L1_BYTES)
        _presieve(bits + done, part, first + <uint64_t>done)
        for c in range(8):
            cl_cross_off(bits + done, part, s.small[c], s.small_count[c], c)
        done += part
    for c in range(8):
        cl_cross_off(bits, n, s.medium[c], s.medium_count[c], c)


cdef int _sieve_long(Sieve* s) except -1 nogil:
    """Cross the multiples of the primes above BASE_LIMIT off the whole buffer."""
    cdef uint64_t last = s.root  # the last byte may reach beyond 2^64
    if s.next_byte <= s.last_byte:
        last = cl_root_64(s.next_byte * 30)
    cdef Sieve nest
    cdef uint32_t* primes = NULL
    cdef int64_t count, i
    cdef uint64_t at
    cdef unsigned number
    memset(&nest, 0, sizeof(Sieve))
    try:
        sieve_open(&nest, BASE_LIMIT, last, NEST_BYTES)
        primes = <uint32_t*>malloc((8 * NEST_BYTES + 8) * sizeof(uint32_t))
        if primes == NULL:
            with gil:
                raise MemoryError("no memory for the sieving primes of one stretch")
        while sieve_next(&nest):
            count = exact_primitives().primes.numbers_32(primes, nest.bits, nest.size, nest.first)
            for i in range(count):
                at = cl_first_multiple(primes[i], s.first, &number)
                if at < <uint64_t>s.size:
                    cl_cross_sparse(s.bits, <uint64_t>s.size, primes[i], at, number)
                if i & 0x3FF == 0x3FF:
                    check_signals()
    finally:
        free(primes)
        sieve_close(&nest)
    return 0


cdef int _test_survivors(Sieve* s) except -1 nogil:
    cdef int64_t i
    cdef unsigned byte, bit
    cdef uint64_t n
    for i in range(s.size):
        byte = s.bits[i]
        while byte:
            bit = __builtin_ctz(byte)
            byte &= byte - 1
            n = (s.first + <uint64_t>i) * 30 + cl_wheel[bit]
            if not is_prime_64(n):
                s.bits[i] &= ~(1 << bit)
        if i & 0x3FFF == 0x3FFF:
            check_signals()
    return 0


cdef void _trim(Sieve* s) noexcept nogil:
    """Put the pre-sieved primes back; clear 1 and what lies outside of the interval."""
    cdef int64_t i, bit
    cdef uint64_t n
    for i in range(6):
        if <uint64_t>i < s.first or <uint64_t>i >= s.first + <uint64_t>s.size:
            continue
        for bit in range(8):
            n = <uint64_t>i * 30 + cl_wheel[bit]
            if 7 <= n <= <uint64_t>CL_LAST_PRESIEVED and is_prime_64(n):
                s.bits[<uint64_t>i - s.first] |= 1 << bit
            elif n == 1:
                s.bits[0] &= 254
    for bit in range(8):
        if s.low // 30 == s.first and s.first * 30 + cl_wheel[bit] < s.low:
            s.bits[0] &= ~(1 << bit)
        if s.high // 30 == s.first + <uint64_t>s.size - 1 and cl_wheel[bit] > s.high % 30:
            s.bits[s.size - 1] &= ~(1 << bit)


cdef int sieve_next(Sieve* s) except -1 nogil:
    """Sieve the next stretch; 1 when there was one, 0 at the end."""
    cdef int64_t done = 0, part
    if s.next_byte > s.last_byte:
        return 0
    s.first = s.next_byte
    s.size = <int64_t>min(<uint64_t>s.capacity, s.last_byte - s.first + 1)
    s.next_byte += <uint64_t>s.size
    _add_primes(s, s.next_byte)
    while done < s.size:
        part = min(s.size - done, <int64_t>L2_BYTES)
        _sieve_stretch(s, s.bits + done, part, s.first + <uint64_t>done)
        done += part
        check_signals()
    if s.tests:
        _trim(s)
        _test_survivors(s)
    else:
        if s.root > BASE_LIMIT:
            _sieve_long(s)
        _trim(s)
    check_signals()
    return 1


cdef inline int _among_2_3_5(uint64_t low, uint64_t high, uint64_t* found) noexcept nogil:
    """Those of 2, 3, 5 that lie in [low, high]; returns how many."""
    cdef int count = 0
    cdef uint64_t p = 2
    while p <= 5:
        if p != 4 and low <= p <= high:
            found[count] = p
            count += 1
        p += 1
    return count


def count(uint64_t low, uint64_t high) -> int:
    """Return the number of primes p with low <= p <= high.

    >>> count(0, 100), count(2, 2), count(90, 96), count(10, 5)
    (25, 1, 0, 0)
    """
    cdef Sieve s
    cdef uint64_t first_three[3]
    cdef int64_t total
    _need_patterns()
    memset(&s, 0, sizeof(Sieve))
    with nogil:
        total = _among_2_3_5(low, high, first_three)
        try:
            sieve_open(&s, low, high)
            while sieve_next(&s):
                total += exact_primitives().primes.popcount(s.bits, s.size)
        finally:
            sieve_close(&s)
    return total


def array(uint64_t low, uint64_t high, Py_ssize_t expected, bint narrow=False):
    """Return the primes p with low <= p <= high as a uint64 array, or uint32 where `narrow`.

    `expected` is how many there may be: room for that many is taken at once, and more as needed.
    `narrow` asks for high < 2^32.

    >>> array(20, 45, 4)
    array([23, 29, 31, 37, 41, 43], dtype=uint64)
    """
    cdef Sieve s
    cdef uint64_t first_three[3]
    cdef int64_t found, total = 0, room = expected + 16
    cdef int i
    cdef uint64_t[::1] wide
    cdef uint32_t[::1] short
    if narrow and high >> 32:
        raise ValueError(f"primes up to {high} do not fit into 32 bits")
    _need_patterns()
    memset(&s, 0, sizeof(Sieve))
    out = np.empty(room, dtype=np.uint32 if narrow else np.uint64)
    total = _among_2_3_5(low, high, first_three)
    for i in range(<int>total):
        out[i] = first_three[i]
    try:
        with nogil:
            sieve_open(&s, low, high)
        while True:
            with nogil:
                if not sieve_next(&s):
                    break
                found = exact_primitives().primes.popcount(s.bits, s.size)
            if total + found + 8 > room:
                room = total + found + 8 + (total >> 3)
                out.resize(room, refcheck=False)
            if narrow:
                short = out
                with nogil:
                    exact_primitives().primes.numbers_32(&short[total], s.bits, s.size, s.first)
                short = None
            else:
                wide = out
                with nogil:
                    exact_primitives().primes.numbers_64(&wide[total], s.bits, s.size, s.first)
                wide = None
            total += found
    finally:
        sieve_close(&s)
    out.resize(total, refcheck=False)
    return out
