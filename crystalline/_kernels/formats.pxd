# The number formats of the level in use, for nogil callers, and what their layouts take.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport CL_FORMAT_float32, CL_PANEL, NumberFormat, primitives

# The row of a name; with K, of a format whose sums are right at that inner length.
cdef const NumberFormat* number_format(str name, int64_t K=*) except NULL
# The same, of a format that weights can be trained in: the others have no gradients.
cdef const NumberFormat* training_format(str name) except NULL


cdef inline const NumberFormat* float32() noexcept nogil:
    return primitives().formats[<int>CL_FORMAT_float32]


# Words of 32 bits of an operand's row that holds K elements, with the extra ones; and of a panel's
# column, which are as many where the format trains.
cdef inline int64_t words(const NumberFormat* f, int64_t K) noexcept nogil:
    cdef int64_t unit = f.unit if f.unit else f.elements * f.step
    return (K + unit - 1) // unit * f.step + f.extra


cdef inline int64_t panel_words(const NumberFormat* f, int64_t K) noexcept nogil:
    return (K + f.unit - 1) // f.unit * f.panel_step if f.unit else words(f, K)


# Columns rounded up to whole panels.
cdef inline int64_t padded(int64_t N) noexcept nogil:
    return (N + CL_PANEL - 1) // CL_PANEL * CL_PANEL


# Rows rounded up to whole groups, of which an operand has room.
cdef inline int64_t grouped(const NumberFormat* f, int64_t rows) noexcept nogil:
    return (rows + f.row_group - 1) // f.row_group * f.row_group


# Words of the operand of x [rows, K].
cdef inline int64_t operand_size(const NumberFormat* f, int64_t rows, int64_t K) noexcept nogil:
    return grouped(f, rows) * words(f, K)


# Words of a packed right-hand side [K, N].
cdef inline int64_t packed_words(const NumberFormat* f, int64_t K, int64_t N) noexcept nogil:
    return padded(N) * panel_words(f, K)


# Whether an operand is something else than the float32 matrix itself.
cdef inline bint converts(const NumberFormat* f) noexcept nogil:
    return f.to_operand != NULL


# Words of a turned operand of x [rows, K], 0 where it is the operand itself; and from one row of
# words to the next.
cdef inline int64_t turned_words(const NumberFormat* f, int64_t rows, int64_t K) noexcept nogil:
    return operand_size(f, K, rows) if f.turn_operand != NULL else 0


cdef inline int64_t turned_stride(const NumberFormat* f, int64_t rows, int64_t K) noexcept nogil:
    return words(f, rows) if f.turned_by_rows else K


# The values of one column of packed [K, N].
cdef inline void take_column(const NumberFormat* f, int64_t K, const float* packed, int64_t column,
                             float* out) noexcept nogil:
    f.take_column(K, packed + column // CL_PANEL * CL_PANEL * panel_words(f, K), column % CL_PANEL,
                  out)
