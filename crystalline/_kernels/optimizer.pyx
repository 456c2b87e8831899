"""Optimizer steps over a slice of the flat buffers, and sums in a fixed order.

One pass over memory each, in place: weights, moments and gradients are float32.
A slice may be cut anywhere: elements do not see each other, so the pieces give
the bits of the whole.
"""

from libc.stdint cimport int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport CL_STORE, CL_STREAM, OptimizerStep, StoreMode, primitives


# From 4 MB on, what a pass over a whole array writes is out of the cache before it is read: a step
# goes over about ten arrays of that size, and large caches hold 32 MB.
cdef int64_t PAST_CACHE_FLOATS = 1 << 20


cdef StoreMode store_of(int64_t floats, const float* first) noexcept nogil:
    return CL_STREAM if floats >= PAST_CACHE_FLOATS and <size_t>first % 64 == 0 else CL_STORE


cdef double _correction(float beta, object step) except -1.0:
    if not 0.0 <= beta < 1.0:
        raise ValueError(f"a decay rate must be at least 0 and below 1, not {beta}")
    if step < 1:
        raise ValueError(f"steps are counted from 1, not {step}")
    return 1.0 / (1.0 - <double>beta ** <double>step)


def adamw(float[::1] w not None, float[::1] m not None, float[::1] v not None,
          const float[::1] g not None, *, step, float learning_rate, float beta1=0.9,
          float beta2=0.999, float epsilon=1e-8, float weight_decay=0.0, float clip=1.0) -> None:
    """One step of AdamW (Loshchilov and Hutter 2019), with decoupled decay as in PyTorch.

        g = clip · g
        m = beta1 · m + (1 - beta1) · g
        v = beta2 · v + (1 - beta2) · g²
        w = w - learning_rate · weight_decay · w
              - learning_rate · m / (1 - beta1^step) / (√(v / (1 - beta2^step)) + epsilon)

    w, m, v [n]: INOUT; g [n]: IN; `step` counts from 1; `clip` is the factor that every gradient
    is multiplied by, not a norm.

    >>> import numpy as np
    >>> w, m, v = np.float32([1, 1]), np.zeros(2, np.float32), np.zeros(2, np.float32)
    >>> adamw(w, m, v, np.float32([3, -5]), step=1, learning_rate=0.1); print(w.round(4))
    [0.9 1.1]
    """
    cdef Py_ssize_t n = w.shape[0]
    cdef OptimizerStep s
    expect_length("m", m.shape[0], n)
    expect_length("v", v.shape[0], n)
    expect_length("g", g.shape[0], n)
    s.lr, s.beta1, s.beta2, s.epsilon = learning_rate, beta1, beta2, epsilon
    s.weight_decay, s.clip = weight_decay, clip
    s.correction1, s.correction2 = _correction(beta1, step), _correction(beta2, step)
    if n == 0:
        return
    with nogil:
        primitives().adamw(n, &w[0], &m[0], &v[0], &g[0], &s)


def sgd(float[::1] w not None, float[::1] m not None, const float[::1] g not None, *,
        float learning_rate, float momentum=0.0, float weight_decay=0.0, float clip=1.0) -> None:
    """One step of SGD with momentum (dampening 0, no Nesterov) and decoupled decay.

        m = momentum · m + clip · g
        w = w - learning_rate · (m + weight_decay · w)

    w, m [n]: INOUT; g [n]: IN.

    >>> import numpy as np
    >>> w, m = np.float32([1]), np.float32([2])
    >>> sgd(w, m, np.float32([4]), learning_rate=0.25, momentum=0.5); w.tolist(), m.tolist()
    ([-0.25], [5.0])
    """
    cdef Py_ssize_t n = w.shape[0]
    cdef OptimizerStep s
    expect_length("m", m.shape[0], n)
    expect_length("g", g.shape[0], n)
    s.lr, s.beta1, s.beta2, s.epsilon = learning_rate, momentum, 0.0, 0.0
    s.weight_decay, s.clip = weight_decay, clip
    s.correction1, s.correction2 = 1.0, 1.0
    if n == 0:
        return
    with nogil:
        primitives().sgd(n, &w[0], &m[0], &g[0], &s)


def tree_sum(const float[:, :] lanes not None, float[::1] out not None, int group=12) -> float:
    """out = the sum over lanes in one fixed tree; return Σ out² in float64.

    Neighbors are added, (0, 1), (2, 3), ..., then their sums in the same way until one is left;
    an odd one at the end moves up.  So first within each `group` lanes, from 1 to 12, then over
    the groups.  Float32 addition is not associative: the tree, not the order of arrival, decides
    the bits.

    lanes [lanes >= 1, n], possibly with gaps between lanes: IN; out [n]: OUT, may be lane 0.

    >>> import numpy as np
    >>> out = np.empty(2, np.float32)
    >>> tree_sum(np.float32([[1, 2], [3, 4], [5, -6]]), out), out.tolist()
    (81.0, [9.0, 0.0])
    """
    cdef Py_ssize_t count = lanes.shape[0], n = lanes.shape[1]
    cdef double squares
    if count < 1:
        raise ValueError("there must be at least one lane")
    if not 1 <= group <= 12:
        raise ValueError(f"a group has 1 to 12 lanes, not {group}")
    expect_length("out", out.shape[0], n)
    if n == 0:
        return 0.0
    if n > 1 and lanes.strides[1] != sizeof(float):
        raise ValueError("the numbers of a lane must lie side by side")
    if lanes.strides[0] % <Py_ssize_t>sizeof(float):
        raise ValueError(f"lanes are {lanes.strides[0]} bytes apart, expected a multiple of 4")
    with nogil:
        squares = primitives().tree_sum(n, count, group, &lanes[0, 0],
                                        lanes.strides[0] // <Py_ssize_t>sizeof(float), &out[0],
                                        store_of(n, &out[0]))
    return squares


def sum_squares(const float[::1] x not None) -> float:
    """Return Σ x² of x [n] in float64, in an order fixed by n and the instruction-set level.

    >>> import numpy as np
    >>> sum_squares(np.float32([3, 4]))
    25.0
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef double squares
    if n == 0:
        return 0.0
    with nogil:
        squares = primitives().sum_squares(n, &x[0])
    return squares
