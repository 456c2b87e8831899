"""The buffers of a transformer's pass: form, rows and columns of each, and what follows from them.

An operand is the left-hand side of a product: float32 itself, or what the number format makes of
it.  A kept matrix is float32 or the format's operand (see `_kernels/kept.pxd`).
"""

from libc.stdint cimport int64_t

from crystalline._kernels cimport attention
from crystalline._kernels.formats cimport (
    converts, grouped, operand_size, packed_words, turned_words,
)
from crystalline._kernels.kept cimport kept_size
from crystalline.model.layers.table cimport Sizes

cdef enum:
    STRIP_ROWS = 16                   # rows that become an operand right after they are computed
    LOGITS_FLOATS = 16 * 1024 * 1024  # the head's block of logits: 64 MiB


cdef inline int64_t up(int64_t n) noexcept nogil:
    return (n + 15) // 16 * 16


cdef int64_t most_head_rows(int64_t V) noexcept nogil:
    return max(<int64_t>32, LOGITS_FLOATS // V)


cdef int64_t head_rows(const Sizes* z, int64_t R) noexcept nogil:
    # Blocks of equal size within the buffer, whole groups.
    cdef int64_t most = most_head_rows(z.V)
    cdef int64_t blocks = (R + most - 1) // most
    return grouped(z.f, (R + blocks - 1) // blocks)


cdef int64_t dlogits_at(const Sizes* z, int64_t rows) noexcept nogil:
    cdef int64_t size = operand_size(z.f, rows, z.V)
    return rows * z.V if size > rows * z.V or z.f.row_group > 1 else 0


cdef inline void place(Buffers* b, Buffer which, int64_t size, int64_t* end) noexcept nogil:
    b.at[<int>which] = end[0]
    end[0] += up(size)


cdef Buffers buffers(const Sizes* z, int64_t R, float* base) noexcept nogil:
    cdef Buffers b
    cdef int64_t end = 0, H = z.heads.H, G = z.heads.G, D = z.heads.D
    cdef int64_t block = z.f.pass_rows, wide = max(z.U, z.QKV)
    cdef int64_t rows = grouped(z.f, min(R, most_head_rows(z.V)))  # of logits
    cdef int64_t low = operand_size(z.f, R, z.rank) if z.rank else 0
    cdef int64_t low_packed = packed_words(z.f, R, z.rank) if z.rank else 0
    cdef bint in_place = not converts(z.f)  # an operand is the float32 matrix
    b.base = base
    # of a layer
    place(&b, X, R * z.C, &end)
    place(&b, NORM1, operand_size(z.f, R, z.C), &end)
    place(&b, MEAN1, R, &end)
    place(&b, RSTD1, R, &end)
    place(&b, QKV, kept_size(z.f, R, z.QKV), &end)
    place(&b, RAW, R * (H + G) * D if z.normalizes_heads else 0, &end)  # q and k before their norm
    place(&b, RAW_RSTD, R * (H + G) if z.normalizes_heads else 0, &end)
    place(&b, LSE, R * H, &end)
    place(&b, ATT, kept_size(z.f, R, z.W), &end)
    place(&b, MID, R * z.C, &end)
    place(&b, NORM2, operand_size(z.f, R, z.C), &end)
    place(&b, MEAN2, R, &end)
    place(&b, RSTD2, R, &end)
    place(&b, UP, kept_size(z.f, R, z.U), &end)
    place(&b, ACT, operand_size(z.f, R, z.F), &end)
    place(&b, LOW_QKV, low, &end)
    place(&b, LOW_OUT, low, &end)
    place(&b, LOW_UP, low, &end)
    place(&b, LOW_DOWN, low, &end)
    if in_place or z.f.keeps != NULL:  # what is kept is the operand
        b.at[<int>ATT_IN] = b.at[<int>ATT]
    else:
        place(&b, ATT_IN, operand_size(z.f, R, z.W), &end)
    b.layer = end
    end = z.L * b.layer + up(R * z.C)  # after X of the layer beyond the last
    # shared
    place(&b, FINAL, R * z.C, &end)
    place(&b, MEAN_F, R, &end)
    place(&b, RSTD_F, R, &end)
    if in_place:
        b.at[<int>FINAL_IN] = b.at[<int>FINAL]
    else:
        place(&b, FINAL_IN, operand_size(z.f, R, z.C), &end)
    place(&b, DX, R * z.C, &end)  # gradient of the residual stream
    place(&b, DATT, max(R * z.C, kept_size(z.f, R, z.W)), &end)  # first of the final norm
    place(&b, DQKV, kept_size(z.f, R, z.QKV), &end)
    place(&b, DY_PACKED, packed_words(z.f, R, z.C), &end)
    place(&b, WIDE_PACKED, packed_words(z.f, R, wide), &end)
    place(&b, LOW_DY_PACKED, low_packed, &end)
    place(&b, LOW_WIDE_PACKED, low_packed, &end)
    place(&b, NARROW, block * z.C, &end)
    place(&b, WIDE, max(kept_size(z.f, block, z.U) if fuses_mlp(z) else block * z.U,
                        STRIP_ROWS * z.F), &end)
    # What rotation, gates and adapters need in float32: q, k and v; an MLP's input; the gradient
    # behind it, or behind attention.
    place(&b, STRIP, (0 if keeps_qkv(z) and fuses_mlp(z) else block * max(z.QKV, z.U + z.F)), &end)
    place(&b, OPERAND, operand_size(z.f, block, max(wide, z.C)), &end)
    place(&b, TURNED, turned_words(z.f, R, max(max(max(z.F, z.W), z.C), z.rank)), &end)
    place(&b, LOW, block * z.rank, &end)
    place(&b, LOW_OPERAND, operand_size(z.f, block, z.rank) if z.rank else 0, &end)
    place(&b, LOGITS, max(rows * z.V, dlogits_at(z, rows)
                          + (0 if in_place else operand_size(z.f, rows, z.V))
                          + turned_words(z.f, rows, z.V)), &end)
    place(&b, SCRATCH, attention.scratch_floats(z.T, D, z.crystalline, z.f), &end)
    b.size = end
    b.marks = NULL
    return b
