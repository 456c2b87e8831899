"""The head: logits, cross-entropy, and the gradients of both, block by block of rows.

Only a block of the logits exists at a time; their gradient takes their place.  The head's matrix
[C, V] stands as [V, C] in the flat buffer, as the token embeddings do, which it may be.
"""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from crystalline._kernels.formats cimport converts, operand_size, words
from crystalline._kernels.isa cimport (
    CL_ADD, CL_STORE, NumberFormat, SoftTargets, StoreMode, primitives,
)
from crystalline._kernels.matmul cimport multiply, multiply_ta, pack
from crystalline.model.layers.buffers cimport (
    DATT, DY_PACKED, FINAL, FINAL_IN, LOGITS, Buffers, dlogits_at, head_rows, shared,
)
from crystalline.model.layers.linear cimport input_gradient
from crystalline.model.layers.table cimport Matrix, Sizes


cdef void head_logits(const Sizes* z, const Matrix* head, int64_t rows, const float* operand,
                      float* logits__rv) noexcept nogil:
    multiply(z.f, rows, z.V, z.C, operand, words(z.f, z.C), head.packed, logits__rv, z.V, NULL,
             NULL, CL_STORE)


cdef double rows_loss(int64_t rows, int64_t V, float* logits, const int32_t* targets, float scale,
                      bint backward, const SoftTargets* soft,
                      double* smoothed) noexcept nogil:
    # Runs of rows with a target go to the primitive; without any exception that is one call.
    cdef int64_t first = 0, last
    cdef double loss = 0.0, part = 0.0, total = 0.0
    while first < rows:
        last = first + 1
        while last < rows and (targets[last] < 0) == (targets[first] < 0):
            last += 1
        if targets[first] >= 0:
            loss += primitives().cross_entropy(last - first, V, logits + first * V, V,
                                               targets + first, scale, backward, soft, &part)
            total += part
        elif backward:
            memset(logits + first * V, 0, (last - first) * V * sizeof(float))
        first = last
    smoothed[0] = total
    return loss


cdef double head_loss(const Sizes* z, const Matrix* head, int64_t R, const int32_t* targets,
                      float scale, bint backward, float* grads, StoreMode store,
                      const SoftTargets* soft, double* smoothed, const Buffers* b) noexcept nogil:
    cdef const NumberFormat* f = z.f
    cdef int64_t C = z.C, V = z.V, block = head_rows(z, R), row = 0, n, wc = words(f, C)
    cdef float* logits = shared(b, LOGITS)
    cdef float* dlogits
    cdef double loss = 0.0, part = 0.0
    if soft != NULL:
        smoothed[0] = 0.0
    while row < R:
        n = min(block, R - row)
        head_logits(z, head, n, shared(b, FINAL_IN) + row * wc, logits)
        loss += rows_loss(n, V, logits, targets + row, scale, backward, soft, &part)
        if soft != NULL:
            smoothed[0] += part
        if backward:
            dlogits = logits
            if converts(f):
                dlogits += dlogits_at(z, n)
                f.to_operand(n, V, logits, V, dlogits)
            input_gradient(f, n, head, dlogits, shared(b, DATT) + row * C)
        if backward and grads != NULL:
            if converts(f):
                f.turn_operand(n, V, dlogits, dlogits + operand_size(f, n, V))
                dlogits += operand_size(f, n, V)
            pack(f, n, C, shared(b, FINAL) + row * C, C, shared(b, DY_PACKED), NULL)
            multiply_ta(f, V, C, n, dlogits, shared(b, DY_PACKED), grads, C, store)
        store = CL_ADD
        row += n
    return loss
