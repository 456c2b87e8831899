"""Which window of a corpus a sequence number stands for.

`crystalline.data.windows` tells the rules.  Every sphere draws the windows of each of its lanes
anew: that takes no memory, where a table drawn ahead would be one per sphere.
"""

from libc.stdint cimport int64_t, uint64_t

cdef extern from "mix64.h":
    uint64_t cl_finish64(uint64_t z) noexcept nogil

cdef enum:
    ROUNDS = 6
    PHASE = ROUNDS  # hash stream of the phase, after those of the Feistel rounds


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """Return the output of SplitMix64 (Steele, Lea, Flood 2014) at a state."""
    return cl_finish64(x + <uint64_t>0x9E3779B97F4A7C15)


cdef inline uint64_t stream(uint64_t key, uint64_t number) noexcept nogil:
    """Return the `number`-th hash that belongs to a key."""
    return mix(key + mix(number))


cdef uint64_t permute(uint64_t x, uint64_t size, uint64_t key) noexcept nogil:
    """Map x in [0, size) to its image under the permutation that the key selects.

    A Feistel network permutes the smallest 4^b that holds `size`; an image outside is
    fed back in until it falls inside (cycle walking), which again is a permutation.
    """
    cdef int half = 1, i
    cdef uint64_t mask, left, right, swapped
    while size > <uint64_t>1 << 2 * half:
        half += 1
    mask = (<uint64_t>1 << half) - 1
    while True:
        left, right = x >> half, x & mask
        for i in range(ROUNDS):
            swapped = left ^ (mix(right ^ stream(key, i)) & mask)
            left, right = right, swapped
        x = left << half | right
        if x < size:
            return x


def draw_starts(int64_t[::1] out not None, uint64_t n_windows, uint64_t slack, uint64_t seq_len,
                uint64_t seed, uint64_t first, uint64_t stride=1) -> None:
    """Write where the sequences `first`, `first` + `stride`, … begin (out: OUT).

    An epoch has `n_windows` windows of `seq_len` tokens, and `slack` tokens more than they take.

    >>> import numpy as np
    >>> out = np.empty(2, np.int64)
    >>> draw_starts(out, 2, 3, 3, seed=7, first=0); out.tolist()
    [0, 3]
    """
    cdef Py_ssize_t i
    cdef uint64_t number, key
    if n_windows < 1 or max(n_windows, slack) > <uint64_t>1 << 62:
        raise ValueError(f"an epoch of {n_windows} windows and {slack} tokens more")
    with nogil:
        for i in range(out.shape[0]):
            number = first + <uint64_t>i * stride
            key = mix(number // n_windows + mix(seed))
            out[i] = stream(key, PHASE) % (slack + 1) + permute(
                number % n_windows, n_windows, key
            ) * seq_len
