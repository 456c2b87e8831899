"""Cross-entropy of a block of rows of logits, with the gradient written in their place.

A caller walks its rows in blocks that stay in L2 (product with the head, this,
two products with the gradient), so that logits of a whole batch never exist.

The crystalline loss is the cross-entropy against a soft target, in the same pass: for the token t
it is (1 - epsilon) onehot(t) + epsilon sum_j weights[t, j] onehot(ids[t, j]).  Which neighbors a
token has is the caller's affair (`crystalline.data.crystal.neighbors`).
"""

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport SoftTargets, primitives

cdef extern from *:
    void __builtin_prefetch(const void* address) noexcept nogil

cdef enum:
    AHEAD = 8  # rows of the tables fetched before they are looked at


cdef int _expect_rows(float[:, :] logits, const int32_t[::1] targets) except -1:
    cdef Py_ssize_t N = logits.shape[0], V = logits.shape[1], i
    expect_length("targets", targets.shape[0], N)
    for i in range(N):
        if not 0 <= targets[i] < V:
            raise ValueError(f"targets[{i}] is {targets[i]}, outside the vocabulary of {V}")
    if N > 0 and logits.strides[1] != sizeof(float) and V > 1:
        raise ValueError("the logits of a row must lie side by side")
    if N > 1 and (logits.strides[0] // <Py_ssize_t>sizeof(float) < V
                  or logits.strides[0] % <Py_ssize_t>sizeof(float)):
        raise ValueError(f"rows of {V} logits are {logits.strides[0]} bytes apart: they overlap")
    return 0


cdef int expect_epsilon(double epsilon) except -1:
    """Raise ValueError unless epsilon is from 0 to below 1."""
    if not 0.0 <= epsilon < 1.0:
        raise ValueError(f"epsilon is {epsilon}; it must be at least 0 and below 1")
    return 0


cdef int expect_neighbors(int64_t V, const int32_t[:, ::1] ids,
                          const float[:, ::1] weights) except -1:
    """Raise ValueError unless a table of neighbors has the shape for V tokens."""
    if ids is None or weights is None:
        raise TypeError("the neighbors' ids and weights must not be None")
    if ids.shape[0] != V or ids.shape[1] < 1:
        raise ValueError(
            f"the neighbors' ids are [{ids.shape[0]}, {ids.shape[1]}]: they must be [{V}, k] with "
            "k at least 1")
    if weights.shape[0] != V or weights.shape[1] != ids.shape[1]:
        raise ValueError(
            f"the neighbors' weights are [{weights.shape[0]}, {weights.shape[1]}], the ids "
            f"[{V}, {ids.shape[1]}]")
    return 0


cdef int expect_neighbors_of(int32_t token, const int32_t[:, ::1] ids,
                             const float[:, ::1] weights) except -1:
    """Raise ValueError unless the neighbors of one token are usable: see SoftTargets."""
    cdef Py_ssize_t j
    cdef double total = 0.0
    for j in range(ids.shape[1]):
        if not 0 <= ids[token, j] < ids.shape[0]:
            raise ValueError(
                f"neighbor {j} of token {token} is {ids[token, j]}, outside the vocabulary of "
                f"{ids.shape[0]}")
        if not weights[token, j] >= 0.0:  # NaN too
            raise ValueError(
                f"the weight of neighbor {j} of token {token} is {weights[token, j]}; it must be "
                "finite and at least 0")
        total += weights[token, j]
    if total != 0.0 and not fabs(total - 1.0) <= 1e-4:  # infinity too
        raise ValueError(
            f"the weights of the neighbors of token {token} sum to {total}, neither to 1 nor to 0")
    return 0


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
    cdef int64_t N = logits.shape[0], V = logits.shape[1]
    cdef int64_t ld = logits.strides[0] // <Py_ssize_t>sizeof(float)
    cdef double loss
    _expect_rows(logits, targets)
    if N == 0:
        return 0.0
    with nogil:
        loss = primitives().cross_entropy(N, V, &logits[0, 0], ld, &targets[0], scale, backward,
                                          NULL, NULL)
    return loss


def crystalline_cross_entropy(float[:, :] logits not None, const int32_t[::1] targets not None,
                              const int32_t[:, ::1] neighbor_ids not None,
                              const float[:, ::1] neighbor_weights not None, double epsilon,
                              float scale=1.0, bint backward=True) -> tuple[float, float]:
    """Return the plain loss of `cross_entropy`, and the cross-entropy against the soft targets.

    With `backward` the logits become scale · (softmax - soft target), the gradient of `scale` times
    the second.  With epsilon = 0 both are the plain loss, and all bits those of `cross_entropy`.

    logits, targets as in `cross_entropy`; neighbor_ids [V, k] int32 from 0 to V - 1,
    neighbor_weights [V, k] float32: IN.  The weights of a token sum to 1, or are all 0: the target
    stays plain then; only the targets' rows are looked at.  0 <= epsilon < 1.  A NaN or +inf among
    the logits makes both results non-finite, -inf at a target or, for the second, at a neighbor
    whose weight is not 0, too.

    >>> import numpy as np
    >>> logits = np.log(np.float32([[1, 2, 1]]))
    >>> ids, weights = np.int32([[1], [2], [0]]), np.ones((3, 1), np.float32)
    >>> plain, soft = crystalline_cross_entropy(logits, np.int32([1]), ids, weights, epsilon=0.25)
    >>> round(plain, 4), round(soft, 4), logits.round(4).tolist()  # -log 1/2, and 1/4 log 2 more
    (0.6931, 0.8664, [[0.25, -0.25, 0.0]])
    """
    cdef int64_t N = logits.shape[0], V = logits.shape[1], i
    cdef int64_t ld = logits.strides[0] // <Py_ssize_t>sizeof(float)
    cdef double loss, smoothed
    cdef SoftTargets soft
    _expect_rows(logits, targets)
    expect_epsilon(epsilon)
    if N == 0:
        return 0.0, 0.0
    expect_neighbors(V, neighbor_ids, neighbor_weights)
    for i in range(N):
        if i + AHEAD < N:
            __builtin_prefetch(&neighbor_ids[targets[i + AHEAD], 0])
            __builtin_prefetch(&neighbor_weights[targets[i + AHEAD], 0])
        expect_neighbors_of(targets[i], neighbor_ids, neighbor_weights)
    soft.k = neighbor_ids.shape[1]
    soft.ids, soft.weights = &neighbor_ids[0, 0], &neighbor_weights[0, 0]
    soft.epsilon = epsilon
    with nogil:
        loss = primitives().cross_entropy(N, V, &logits[0, 0], ld, &targets[0], scale, backward,
                                          &soft if epsilon > 0.0 else NULL, &smoothed)
    return loss, smoothed if epsilon > 0.0 else loss
