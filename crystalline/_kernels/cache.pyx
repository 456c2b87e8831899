"""Causal attention over kept keys and values, for generation: one new token or a long prompt.

    s = q k^T / sqrt(D) (+ lambda_h K);  p = softmax over the keys that a query sees;  out = p v

Keys and values are kept once per sequence and layer, laid out for the kernels
(`primitives/cache.h`), as bfloat16 or float32; queries, weights and sums are float32.  Several
heads of queries may share one of keys (Ainslie et al. 2023, grouped queries).  A query sees all
positions up to its own, or the last `window` of them.

A row of queries meets its keys in blocks that begin at fixed positions, and joins what they give in
order (Milakov and Gimelshein 2018, online softmax).  So the bits of a row depend on its query and
the keys that it sees, on nothing else: not on how a prompt was cut into calls, on what other rows
are in the call, or on which thread computes what.

The work is cut into units: 96 rows (a position and a head each) on one head of keys.  Where that
leaves cores without work, as with one token over many keys of few heads, the keys are cut into
spans too, and a second stage joins them, block by block in the same order: the bits stay.
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from crystalline._kernels.atomics cimport word_fetch_add
from crystalline._kernels.isa cimport CL_CACHE_BLOCK, CL_PANEL, CacheHead, CacheRow, primitives
from crystalline._kernels.team cimport Team, TeamThreads, team_barrier, team_run

cdef enum:
    UNIT_ROWS = 96  # whole register tiles of every level
    LINE = 16       # words of a cache line

BLOCK = CL_CACHE_BLOCK  # positions of a block


cdef inline int64_t up(int64_t n, int64_t to) noexcept nogil:
    return (n + to - 1) // to * to


# Words of one head's keys, of a row of its values, and of all its values.
cdef inline int64_t keys_words(int64_t T, int64_t D, bint narrow) noexcept nogil:
    return up(T, CL_PANEL) * ((D + 1) // 2 if narrow else D)


cdef inline int64_t values_stride(int64_t D) noexcept nogil:
    return up(D, 4)


cdef inline int64_t values_words(int64_t T, int64_t D, bint narrow) noexcept nogil:
    return up(((T + 1) // 2 if narrow else T) * values_stride(D), LINE)


cdef int64_t key_value_words(int64_t T, int64_t G, int64_t D, bint narrow) noexcept nogil:
    # The vectors of a last row of values may reach a line beyond it.
    return G * (keys_words(T, D, narrow) + values_words(T, D, narrow)) + LINE


cdef CacheHead kept_head(const KeyValues* kept, int64_t g) noexcept nogil:
    cdef CacheHead head
    cdef int64_t keys = keys_words(kept.T, kept.D, kept.narrow)
    cdef int64_t values = values_words(kept.T, kept.D, kept.narrow)
    head.narrow = kept.narrow
    head.D = kept.D
    head.stride = values_stride(kept.D)
    head.keys = kept.words + g * keys
    head.values = kept.words + kept.G * keys + g * values
    return head


cdef void append(const KeyValues* kept, int64_t first, int64_t n, const float* k, const float* v,
                 int64_t ld, int64_t g, int64_t heads) noexcept nogil:
    cdef CacheHead head
    cdef int64_t i
    for i in range(g, g + heads):
        head = kept_head(kept, i)
        primitives().cache_append(&head, first, n, k + i * kept.D, v + i * kept.D, ld)


cdef void copy_kept(const KeyValues* source, const KeyValues* to, int64_t length) noexcept nogil:
    cdef int64_t g, keys = keys_words(length, source.D, source.narrow)
    cdef int64_t values = values_words(length, source.D, source.narrow)
    cdef CacheHead a, b
    for g in range(source.G):
        a, b = kept_head(source, g), kept_head(to, g)
        memcpy(b.keys, a.keys, keys * sizeof(float))
        memcpy(b.values, a.values, values * sizeof(float))


# The row r of a head of keys is position r // group, with head r % group of the group.
cdef inline int64_t group_of(const Queries* queries) noexcept nogil:
    return queries.H // queries.kept.G


cdef inline int64_t first_seen(const Queries* queries, int64_t position) noexcept nogil:
    if queries.window == 0 or position < queries.window:
        return 0
    return position - queries.window + 1


cdef inline int64_t row_stride(int64_t D) noexcept nogil:
    return up(D, LINE)


cdef inline int64_t record_floats(int64_t D) noexcept nogil:
    return row_stride(D) + LINE  # values, then top and sum


# The blocks that any row sees: the first, and how many.
cdef inline int64_t first_block(const Queries* queries) noexcept nogil:
    return first_seen(queries, queries.first) // CL_CACHE_BLOCK


cdef inline int64_t block_count(const Queries* queries) noexcept nogil:
    return (queries.first + queries.n - 1) // CL_CACHE_BLOCK + 1 - first_block(queries)


cdef int64_t partial_floats(const Queries* queries) noexcept nogil:
    return queries.n * queries.H * block_count(queries) * record_floats(queries.kept.D)


cdef int64_t attend_units(const Queries* queries) noexcept nogil:
    cdef int64_t rows = queries.n * group_of(queries)
    return (rows + UNIT_ROWS - 1) // UNIT_ROWS * queries.kept.G * queries.spans


cdef int64_t attend_scratch(int64_t D) noexcept nogil:
    return 3 * UNIT_ROWS * row_stride(D)


cdef void attend(const Queries* queries, int64_t unit, float* scratch) noexcept nogil:
    cdef const KeyValues* kept = queries.kept
    cdef int64_t D = kept.D, H = queries.H, group = group_of(queries), ld = row_stride(D)
    cdef int64_t span = unit % queries.spans, g = unit // queries.spans % kept.G
    cdef int64_t r = unit // queries.spans // kept.G * UNIT_ROWS
    cdef int64_t rows = min(<int64_t>UNIT_ROWS, queries.n * group - r)
    cdef CacheHead head = kept_head(kept, g)
    cdef CacheRow row[UNIT_ROWS]
    cdef float top[UNIT_ROWS]
    cdef float total[UNIT_ROWS]
    cdef float* q = scratch
    cdef float* part = q + UNIT_ROWS * ld
    cdef float* joined = part + UNIT_ROWS * ld
    cdef float scale = <float>(1.0 / sqrt(<double>D))
    cdef float* record
    cdef int64_t i, at, h, block, start, low, high, begin, blocks
    for i in range(rows):
        at, h = (r + i) // group, g * group + (r + i) % group
        memcpy(q + i * ld, queries.q + at * queries.ldq + h * D, D * sizeof(float))
        row[i].begin = first_seen(queries, queries.first + at)
        row[i].end = queries.first + at + 1
        row[i].scale = scale
        row[i].strength = 0.0
        row[i].similar = NULL
        if queries.similar != NULL:
            row[i].strength = queries.lambdas[h]
            row[i].similar = queries.similar + at * queries.ld_similar
        top[i] = -INFINITY
        total[i] = 0.0
    if queries.spans == 1:
        memset(joined, 0, rows * ld * sizeof(float))
    begin = row[0].begin // CL_CACHE_BLOCK
    blocks = (row[rows - 1].end - 1) // CL_CACHE_BLOCK + 1 - begin
    low = 0
    high = 0
    for block in range(begin + blocks * span // queries.spans,
                       begin + blocks * (span + 1) // queries.spans):
        start = block * CL_CACHE_BLOCK
        while row[low].end <= start:
            low += 1
        while high < rows and row[high].begin < start + CL_CACHE_BLOCK:
            high += 1
        primitives().cache_block(&head, start, high - low, row + low, q + low * ld, part + low * ld,
                                 ld)
        for i in range(low, high):
            if queries.spans == 1:
                primitives().cache_merge(D, row + i, part + i * ld, top + i, total + i,
                                         joined + i * ld)
                continue
            at, h = (r + i) // group, g * group + (r + i) % group
            record = queries.partials + record_floats(D) * (
                (at * H + h) * block_count(queries) + block - first_block(queries))
            memcpy(record, part + i * ld, D * sizeof(float))
            record[ld], record[ld + 1] = row[i].top, row[i].sum
    if queries.spans == 1:
        for i in range(rows):
            at, h = (r + i) // group, g * group + (r + i) % group
            primitives().cache_finish(D, total[i], joined + i * ld,
                                      queries.out + at * queries.ldo + h * D)


cdef void join_spans(const Queries* queries, int64_t unit, float* scratch) noexcept nogil:
    cdef int64_t D = queries.kept.D, H = queries.H, at = unit // H, ld = row_stride(D), block
    cdef int64_t position = queries.first + at
    cdef CacheRow part
    cdef float top = -INFINITY
    cdef float total = 0.0
    cdef float* record
    memset(scratch, 0, D * sizeof(float))
    for block in range(first_seen(queries, position) // CL_CACHE_BLOCK,
                       position // CL_CACHE_BLOCK + 1):
        record = queries.partials + record_floats(D) * (
            unit * block_count(queries) + block - first_block(queries))
        part.top, part.sum = record[ld], record[ld + 1]
        primitives().cache_merge(D, &part, record, &top, &total, scratch)
    primitives().cache_finish(D, total, scratch,
                              queries.out + at * queries.ldo + unit % H * D)


# What the members of a team share of one `Cache.attend`.
cdef struct Shared:
    TeamThreads* threads
    const Queries* queries
    int64_t* next           # units that are left, and rows to be joined that are left
    float* scratch          # of each member


cdef void attend_together(int member, int members, void* argument) noexcept nogil:
    cdef Shared* shared = <Shared*>argument
    cdef float* scratch = shared.scratch + member * attend_scratch(shared.queries.kept.D)
    cdef int64_t unit
    while True:
        unit = word_fetch_add(shared.next, -1) - 1
        if unit < 0:
            break
        attend(shared.queries, unit, scratch)
    if shared.queries.spans == 1:
        return
    team_barrier(shared.threads)
    while True:
        unit = word_fetch_add(shared.next + 1, -1) - 1
        if unit < 0:
            break
        join_spans(shared.queries, unit, scratch)


cdef class Cache:
    """Room for the keys and values of one sequence in one layer, and attention over them.

    Parameters
    ----------
    T : positions at most
    G : heads of keys and values
    D : channels of a head
    precision : "bf16" (half the memory, and half the time where reading it is what takes the time)
        or "float32", of what is kept

    >>> import numpy as np
    >>> cache = Cache(4, 1, 2)
    >>> cache.append(np.float32([[1, 0], [0, 1]]), np.float32([[3, 5], [3, 7]]), 0)
    >>> cache.attend(np.float32([[9, -9]]), 0).tolist()     # of the first position: its own value
    [[3.0, 5.0]]
    """

    cdef readonly int64_t T, G, D
    cdef readonly str precision
    cdef float[::1] _words
    cdef KeyValues _kept

    def __init__(self, int64_t T, int64_t G, int64_t D, str precision="bf16"):
        if T < 1 or G < 1 or D < 1:
            raise ValueError(f"there is no room in {T} positions of {G} heads of {D} channels")
        if precision not in ("bf16", "float32"):
            raise ValueError(f"precision is {precision!r}, expected bf16 or float32")
        self.T, self.G, self.D, self.precision = T, G, D, precision
        narrow = precision == "bf16"
        words = aligned_empty((key_value_words(T, G, D, narrow),))
        words.fill(0)
        self._words = words
        self._kept = KeyValues(T=T, G=G, D=D, narrow=narrow, words=&self._words[0])

    @property
    def size_bytes(self) -> int:
        """Bytes that the keys and values take."""
        return self._words.shape[0] * sizeof(float)

    def append(self, const float[:, :] k not None, const float[:, :] v not None,
               int64_t first) -> None:
        """Keep k and v [n, G * D] as the positions first .. first + n - 1, over what was there.

        Rows may be strided, alike in both; the elements of a row lie side by side.
        """
        cdef int64_t n = k.shape[0], ld = _stride("k", k)
        _shape("k", k, n, self.G * self.D)
        _shape("v", v, n, self.G * self.D)
        if _stride("v", v) != ld and n > 1:
            raise ValueError("k and v have rows that lie differently far apart")
        self._check_positions(first, n)
        with nogil:
            append(&self._kept, first, n, &k[0, 0], &v[0, 0], ld, 0, self.G)

    def attend(self, const float[:, :] q not None, int64_t first, *, int64_t window=0,
               const float[:, :] similar=None, const float[::1] lambdas=None, int64_t spans=1,
               Team team=None):
        """Return [n, H * D]: what q [n, H * D] at positions first .. first + n - 1 reads.

        Every position before first + n must be kept.  Of a `window`, a query sees its own position
        and the window - 1 before it.  `similar` [n, first + n] times lambdas [H] is added to the
        scores.  `spans` cuts the keys, and a `team` shares the work: neither changes a bit.
        """
        cdef int64_t n = q.shape[0], C = q.shape[1], H = C // self.D, members = 1
        if C == 0 or C % (self.G * self.D):
            raise ValueError(
                f"q has {C} columns, expected a multiple of {self.G} heads of {self.D}")
        self._check_positions(first, n)
        if window < 0 or spans < 1:
            raise ValueError(f"window is {window} and spans {spans}, expected 0 and 1 at least")
        if (similar is None) != (lambdas is None):
            raise ValueError("similar and lambdas come together")
        cdef Queries queries
        memset(&queries, 0, sizeof(queries))
        queries.kept = &self._kept
        queries.n, queries.first, queries.H, queries.window = n, first, H, window
        queries.spans = spans
        queries.q, queries.ldq = &q[0, 0], _stride("q", q)
        if similar is not None:
            _shape("similar", similar, n, first + n)
            if lambdas.shape[0] != H:
                raise ValueError(f"lambdas has {lambdas.shape[0]} elements, expected {H}")
            queries.similar, queries.ld_similar = &similar[0, 0], _stride("similar", similar)
            queries.lambdas = &lambdas[0]
        if team is not None:
            members = team.threads
        cdef float[::1] scratch = aligned_empty((members * attend_scratch(self.D),))
        cdef float[::1] partials = aligned_empty((partial_floats(&queries) if spans > 1 else 1,))
        queries.partials = &partials[0]
        out = np.empty((n, C), dtype=np.float32)
        cdef float[:, ::1] view = out
        queries.out, queries.ldo = &view[0, 0], C
        cdef int64_t[2] left
        cdef Shared shared
        left[0], left[1] = attend_units(&queries), n * H
        shared.queries, shared.next, shared.scratch = &queries, left, &scratch[0]
        shared.threads = NULL
        if team is None:
            with nogil:
                attend_together(0, 1, &shared)
        else:
            shared.threads = team.members
            team_run(team, attend_together, &shared)
        return out

    def copy_from(self, Cache source not None, int64_t length) -> None:
        """Take over the first `length` positions of another cache of the same shape."""
        if (source.G, source.D, source.precision) != (self.G, self.D, self.precision):
            raise ValueError("the caches have different shapes or precisions")
        if not 0 <= length <= min(self.T, source.T):
            raise ValueError(f"length is {length}, of {source.T} and {self.T} positions")
        with nogil:
            copy_kept(&source._kept, &self._kept, length)

    cdef int _check_positions(self, int64_t first, int64_t n) except -1:
        if n < 1 or first < 0 or first + n > self.T:
            raise ValueError(
                f"{n} positions from {first} on, of a cache with room for {self.T}")
        return 0


cdef int _shape(str name, const float[:, :] x, int64_t rows, int64_t columns) except -1:
    if x.shape[0] != rows or x.shape[1] != columns:
        raise ValueError(
            f"{name} has shape {(x.shape[0], x.shape[1])}, expected {(rows, columns)}")
    return 0


cdef int64_t _stride(str name, const float[:, :] x) except -1:
    cdef int64_t stride = x.strides[0]
    if x.shape[1] > 1 and x.strides[1] != <Py_ssize_t>sizeof(float):
        raise ValueError(f"the elements of a row of {name} do not lie side by side")
    if stride < 0 or stride % <int64_t>sizeof(float):
        raise ValueError(f"the rows of {name} lie {stride} bytes apart")
    return stride // <int64_t>sizeof(float)
