"""Cross-entropy of a block of rows of logits, with the gradient written in their place.

A caller walks its rows in blocks that stay in L2 (product with the head, this,
two products with the gradient), so that logits of a whole batch never exist.
"""

from libc.stdint cimport int32_t, int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport primitives


def cross_entropy(float[:, :] logits not None, const int32_t[::1] targets not None,
                  float scale=1.0, bint backward=True) -> float:
    """Return Σ over rows of -log softmax(logits)[target], in nats.

    With `backward` the logits become d (scale · loss) / d logits = scale · (softmax - onehot).

    logits [N, V] float32, rows may be further apart than V: IN, INOUT with `backward`;
    targets [N] int32 from 0 to V - 1: IN.  A NaN or +inf among the logits, or -inf at a target,
    makes the result non-finite.

    >>> import numpy as np
    >>> logits = np.log(np.float32([[1, 2, 1]]))
    >>> round(cross_entropy(logits, np.int32([1]), scale=2.0), 4), logits.round(4).tolist()
    (0.6931, [[0.5, -1.0, 0.5]])
    """
    cdef Py_ssize_t N = logits.shape[0], V = logits.shape[1], i
    cdef int64_t ld = logits.strides[0] // <Py_ssize_t>sizeof(float)
    cdef double loss
    expect_length("targets", targets.shape[0], N)
    for i in range(N):
        if not 0 <= targets[i] < V:
            raise ValueError(f"targets[{i}] is {targets[i]}, outside the vocabulary of {V}")
    if N == 0:
        return 0.0
    if logits.strides[1] != sizeof(float) and V > 1:
        raise ValueError("the logits of a row must lie side by side")
    if N > 1 and (ld < V or logits.strides[0] % <Py_ssize_t>sizeof(float)):
        raise ValueError(f"rows of {V} logits are {logits.strides[0]} bytes apart: they overlap")
    with nogil:
        loss = primitives().cross_entropy(N, V, &logits[0, 0], ld, &targets[0], scale, backward)
    return loss
