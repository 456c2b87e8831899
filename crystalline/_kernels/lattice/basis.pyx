"""Rows of large integers: the form in which every lattice kernel holds a basis.

An entry has as many limbs as its row needs, so rows of small entries are arrays of int64 and the
same code serves entries of 30 bits and of 10,000.  Row operations allocate only when a row grows
beyond every row before it.  What the rows mean (a lattice, its scale) is left to `exact.lattice`.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLongAndOverflow

from crystalline._kernels.bigint.limbs cimport NO_MEMORY, OK
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from "<math.h>" nogil:
    double frexp(double x, int* e) noexcept
    double fabs(double x) noexcept

cdef extern from *:
    int __builtin_clzll(unsigned long long x) noexcept nogil

cdef enum:
    POLL_ENTRIES = 4096  # entries of a row, as Python's objects, between two looks at the signals

# Packed rows larger than this are refused: 2^40 bytes.
cdef double MAX_BYTES = 1099511627776.0


cdef int rows_alloc(IntRows* m, int64_t d, int64_t n, int64_t capacity) noexcept nogil:
    cdef int64_t i
    m.d, m.n, m.capacity = d, n, capacity
    m.data = NULL
    m.row = <uint64_t**>malloc((d + 1) * sizeof(uint64_t*))
    m.width = <int64_t*>malloc((d + 1) * sizeof(int64_t))
    m.bits = <int64_t*>malloc((d + 1) * sizeof(int64_t))
    if 8.0 * d * n * capacity <= MAX_BYTES:
        m.data = <uint64_t*>calloc(d * n * capacity + 1, sizeof(uint64_t))
    if m.data == NULL or m.row == NULL or m.width == NULL or m.bits == NULL:
        rows_free(m)
        return NO_MEMORY
    for i in range(d):
        m.row[i] = m.data + i * n * capacity
        m.width[i] = 1
        m.bits[i] = 0
    return OK


cdef void rows_free(IntRows* m) noexcept nogil:
    free(m.data)
    free(m.row)
    free(m.width)
    free(m.bits)
    m.data = NULL
    m.row = NULL
    m.width = NULL
    m.bits = NULL


cdef int rows_reserve(IntRows* m, int64_t capacity) noexcept nogil:
    cdef int64_t i
    cdef uint64_t* data
    if capacity <= m.capacity:
        return OK
    if 8.0 * m.d * m.n * capacity > MAX_BYTES:
        return NO_MEMORY
    data = <uint64_t*>malloc((m.d * m.n * capacity + 1) * sizeof(uint64_t))
    if data == NULL:
        return NO_MEMORY
    for i in range(m.d):
        memcpy(data + i * m.n * capacity, m.row[i], m.n * m.width[i] * sizeof(uint64_t))
        m.row[i] = data + i * m.n * capacity
    free(m.data)
    m.data = data
    m.capacity = capacity
    return OK


cdef int row_repack(IntRows* m, int64_t i, int64_t width) noexcept nogil:
    cdef uint64_t* row = m.row[i]
    cdef uint64_t sign
    cdef int64_t c, k, old = m.width[i]
    if width < old:
        for c in range(m.n):
            memmove(row + c * width, row + c * old, width * sizeof(uint64_t))
    elif width > old:
        if width > m.capacity:
            return NO_MEMORY
        c = m.n - 1
        while c >= 0:
            sign = <uint64_t>(<int64_t>row[c * old + old - 1] >> 63)
            memmove(row + c * width, row + c * old, old * sizeof(uint64_t))
            for k in range(old, width):
                row[c * width + k] = sign
            c -= 1
    m.width[i] = width
    return OK


cdef int row_tighten(IntRows* m, int64_t i) noexcept nogil:
    cdef const uint64_t* row = m.row[i]
    cdef uint64_t sign, any_bits
    cdef int64_t c, k, width = m.width[i], top = -1
    if width == 1:
        m.bits[i] = exact_primitives().lattice.row_bits_64(<const int64_t*>row, m.n)
        return OK
    # the highest limb in which an entry differs from its sign, and its bits over all entries
    any_bits = 0
    for c in range(m.n):
        sign = <uint64_t>(<int64_t>row[c * width + width - 1] >> 63)
        k = width - 1
        while k >= 0 and k >= top and row[c * width + k] == sign:
            k -= 1
        if k > top:
            top = k
            any_bits = row[c * width + k] ^ sign
        elif k == top and k >= 0:
            any_bits |= row[c * width + k] ^ sign
    if top < 0:
        row_repack(m, i, 1)
        m.bits[i] = exact_primitives().lattice.row_bits_64(<const int64_t*>m.row[i], m.n)
        return OK
    m.bits[i] = 64 * top + 65 - __builtin_clzll(any_bits)
    k = m.bits[i] // 64 + 1
    if k < width:
        row_repack(m, i, k)
    return OK


cdef int64_t _bits_of(const Multiplier* x) noexcept nogil:
    cdef int e
    frexp(x.x, &e)
    return e + x.shift


cdef void _subtract(uint64_t* r, int64_t wr, const uint64_t* a, int64_t wa, int64_t n,
                    const Multiplier* multiplier) noexcept nogil:
    """r -= x 2^shift a for any multiplier."""
    cdef double x = multiplier.x
    cdef int64_t shift = multiplier.shift, q
    cdef uint64_t magnitude, high
    cdef bint add = x < 0
    cdef int e
    x = fabs(x)
    frexp(x, &e)
    while e > 53:  # a whole number of 53 bits, doubled
        x *= 0.5
        shift += 1
        e -= 1
    magnitude = <uint64_t>x
    q = shift // 64
    shift -= 64 * q
    high = magnitude >> (64 - shift) if shift else 0
    magnitude <<= shift
    if magnitude and q < wr:
        exact_primitives().lattice.row_submul(r, wr, a, wa, n, magnitude, add, q)
    if high and q + 1 < wr:
        exact_primitives().lattice.row_submul(r, wr, a, wa, n, high, add, q + 1)


cdef int row_subtract(IntRows* m, int64_t i, const Multiplier* x, int64_t count) noexcept nogil:
    return row_subtract_from(m, i, m, x, count)


cdef int row_subtract_from(IntRows* m, int64_t i, const IntRows* other, const Multiplier* x,
                           int64_t count) noexcept nogil:
    cdef int64_t k, bits = m.bits[i], term, width, growth = 1
    cdef bint narrow = m.width[i] == 1
    for k in range(count):
        term = other.bits[x[k].row] + _bits_of(x + k)
        if other.bits[x[k].row] and term > bits:
            bits = term
        if other.width[x[k].row] != 1:
            narrow = False
    while count >> (growth - 1):
        growth += 1
    bits += growth
    if bits < 64 and narrow:
        for k in range(count):
            exact_primitives().lattice.row_submul_64(
                <int64_t*>m.row[i], <const int64_t*>other.row[x[k].row], m.n,
                _whole(x + k)
            )
    else:
        width = bits // 64 + 1
        if rows_reserve(m, width) != OK:
            return NO_MEMORY
        if width > m.width[i]:
            row_repack(m, i, width)
        for k in range(count):
            _subtract(m.row[i], m.width[i], other.row[x[k].row], other.width[x[k].row], m.n, x + k)
    return row_tighten(m, i)


cdef int64_t _whole(const Multiplier* x) noexcept nogil:
    """x 2^shift where it is known to be below 2^63, or multiplies zeros."""
    cdef int e
    frexp(x.x, &e)
    if e + x.shift > 63:
        return 0
    return <int64_t>x.x << x.shift


cdef void row_move(IntRows* m, int64_t i, int64_t j) noexcept nogil:
    cdef uint64_t* row = m.row[i]
    cdef int64_t width = m.width[i], bits = m.bits[i], step = -1 if j < i else 1
    while i != j:
        m.row[i] = m.row[i + step]
        m.width[i] = m.width[i + step]
        m.bits[i] = m.bits[i + step]
        i += step
    m.row[j] = row
    m.width[j] = width
    m.bits[j] = bits


cdef int64_t rows_bits(const IntRows* m) noexcept nogil:
    cdef int64_t i, bits = 0
    for i in range(m.d):
        bits = max(bits, m.bits[i])
    return bits


cdef class IntMatrix:
    """A matrix of integers of any size, in packed rows: what a list of lists of int holds.

    `rows` is a sequence of d sequences of n ints each.  Raises TypeError for an entry that is no
    integer, ValueError for rows of unequal length.

    >>> IntMatrix([[1, -2], [3, 1 << 100]]).to_lists()
    [[1, -2], [3, 1267650600228229401496703205376]]
    """

    def __init__(self, list rows not None):
        cdef int64_t d = len(rows), n = len(rows[0]) if d else 0, i, c, width, capacity = 1
        cdef int overflow
        cdef const unsigned char* source
        cdef list row
        if self.rows.data != NULL:
            rows_free(&self.rows)
        widths = []
        for i in range(d):
            row = rows[i]
            if len(row) != n:
                raise ValueError(f"row {i} has {len(row)} entries, row 0 has {n}")
            width = 1
            for c, entry in enumerate(row):
                if c % POLL_ENTRIES == 0:
                    PyErr_CheckSignals()
                PyLong_AsLongLongAndOverflow(entry, &overflow)
                if overflow:
                    width = max(width, <int64_t>(<object>entry).bit_length() // 64 + 1)
            widths.append(width)
            capacity = max(capacity, width)
        if rows_alloc(&self.rows, d, n, capacity) != OK:
            raise MemoryError(f"no memory for {d} x {n} integers of {64 * capacity} bits")
        for i in range(d):
            row = rows[i]
            width = widths[i]
            self.rows.width[i] = width
            for c in range(n):
                if c % POLL_ENTRIES == 0:
                    PyErr_CheckSignals()
                if width == 1:
                    self.rows.row[i][c] = <uint64_t>PyLong_AsLongLongAndOverflow(row[c], &overflow)
                else:
                    entry = int(row[c]).to_bytes(8 * width, "little", signed=True)
                    source = entry
                    memcpy(self.rows.row[i] + c * width, source, 8 * width)
            row_tighten(&self.rows, i)

    def __dealloc__(self):
        rows_free(&self.rows)

    @property
    def shape(self):
        """Numbers of rows and of entries a row."""
        return self.rows.d, self.rows.n

    @property
    def bits(self):
        """A number of bits k with every entry below 2^k in magnitude.

        >>> IntMatrix([[1, -2], [3, 1 << 100]]).bits >= 101
        True
        """
        return rows_bits(&self.rows)

    def to_lists(self) -> list:
        """Return the entries as a list of d lists of n ints."""
        cdef int64_t i, c, width
        cdef list result = [], row
        cdef const uint64_t* data
        for i in range(self.rows.d):
            row = []
            width = self.rows.width[i]
            data = self.rows.row[i]
            for c in range(self.rows.n):
                if c % POLL_ENTRIES == 0:
                    PyErr_CheckSignals()
                if width == 1:
                    row.append(<int64_t>data[c])
                else:
                    raw = (<const unsigned char*>(data + c * width))[:8 * width]
                    row.append(int.from_bytes(raw, "little", signed=True))
            result.append(row)
        return result

    def copy(self) -> IntMatrix:
        """Return a copy that shares nothing with this matrix.

        >>> IntMatrix([[5, 6]]).copy().to_lists()
        [[5, 6]]
        """
        cdef IntMatrix result = IntMatrix.__new__(IntMatrix)
        cdef int64_t i, d = self.rows.d, n = self.rows.n
        if rows_alloc(&result.rows, d, n, self.rows.capacity) != OK:
            raise MemoryError(f"no memory for {d} x {n} integers of {self.bits} bits")
        for i in range(d):
            memcpy(result.rows.row[i], self.rows.row[i], n * self.rows.width[i] * 8)
            result.rows.width[i] = self.rows.width[i]
            result.rows.bits[i] = self.rows.bits[i]
        return result

    def subtract(self, int64_t i, list multipliers not None, IntMatrix other=None) -> None:
        """Subtract from row i the sum of x 2^shift times row j of `other`, or of this matrix.

        `multipliers`: (x, shift, j) with |x| <= 2^53 and 0 <= shift; exact, in place.  MemoryError
        leaves the row as it was.

        >>> m = IntMatrix([[7, 9], [1, 2]])
        >>> m.subtract(0, [(3, 1, 1)]); m.to_lists()
        [[1, -3], [1, 2]]
        """
        cdef IntMatrix source = self if other is None else other
        cdef int64_t count = len(multipliers), k
        if source.rows.n != self.rows.n:
            raise ValueError(f"rows of {source.rows.n} entries from rows of {self.rows.n}")
        if not 0 <= i < self.rows.d:
            raise IndexError(f"row {i} of {self.rows.d}")
        for x, shift, j in multipliers:
            if not (abs(x) <= 1 << 53 and 0 <= shift < 1 << 40 and 0 <= j < source.rows.d):
                raise ValueError(f"multiplier ({x}, {shift}, {j})")
            if source is self and j == i:
                raise ValueError(f"row {i} cannot be subtracted from itself")
        cdef Multiplier* x_of = <Multiplier*>malloc((count + 1) * sizeof(Multiplier))
        if x_of == NULL:
            raise MemoryError(f"no memory for {count} multipliers")
        for k in range(count):
            x_of[k].x, x_of[k].shift, x_of[k].row = multipliers[k]
        cdef int status = row_subtract_from(&self.rows, i, &source.rows, x_of, count)
        free(x_of)
        if status != OK:
            raise MemoryError(f"no memory for entries of row {i}, of {self.bits} bits and more")
