"""Passes over rows of activations: LayerNorm, GELU, sums and embeddings, each with its gradient.

N rows (B·T) of C channels; the gradient of `x` is `dx`.  Arrays are float32 and
C-contiguous, outputs are allocated by the caller, and every function releases
the GIL.  Compiled callers use the primitives themselves; these are the checked
doors.
"""

from libc.stdint cimport int32_t, int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport primitives


cdef int _expect_rows(str name, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t N,
                      Py_ssize_t C) except -1:
    if rows != N or columns != C:
        raise ValueError(f"{name} is [{rows}, {columns}], expected [{N}, {C}]")
    return 0


cdef int _expect_ids(const int32_t[::1] ids, Py_ssize_t V) except -1:
    cdef Py_ssize_t i
    for i in range(ids.shape[0]):
        if not 0 <= ids[i] < V:
            raise ValueError(f"ids[{i}] is {ids[i]}, outside the vocabulary of {V}")
    return 0


cdef int _expect_places(Py_ssize_t T, Py_ssize_t places) except -1:
    if not 1 <= T <= places:
        raise ValueError(f"the sequence length is {T}, expected 1 to {places} (the rows of wpe)")
    return 0


def layernorm_forward(const float[:, ::1] x not None, const float[::1] gamma not None,
                      const float[::1] beta not None, float[:, ::1] out not None,
                      float[::1] mean not None, float[::1] rstd not None,
                      float epsilon=1e-5) -> None:
    """out = (x - mean) · rstd · gamma + beta for every row (Ba et al. 2016).

    mean is the row's mean and rstd = 1 / √(variance + epsilon), with the variance
    taken about the mean and divided by C.

    x [N, C], gamma [C], beta [C]: IN; out [N, C], mean [N], rstd [N]: OUT; `out` may be `x`.

    >>> import numpy as np
    >>> x, out = np.float32([[1, 3], [5, 5]]), np.empty((2, 2), np.float32)
    >>> mean, rstd = np.empty(2, np.float32), np.empty(2, np.float32)
    >>> layernorm_forward(x, np.float32([1, 2]), np.float32([0, 1]), out, mean, rstd)
    >>> out.round(3).tolist(), mean.tolist()
    ([[-1.0, 3.0], [0.0, 1.0]], [2.0, 5.0])
    """
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1]
    expect_length("gamma", gamma.shape[0], C)
    expect_length("beta", beta.shape[0], C)
    _expect_rows("out", out.shape[0], out.shape[1], N, C)
    expect_length("mean", mean.shape[0], N)
    expect_length("rstd", rstd.shape[0], N)
    if N == 0 or C == 0:
        return
    with nogil:
        primitives().layernorm(N, C, &x[0, 0], &gamma[0], &beta[0], epsilon, &out[0, 0], &mean[0],
                               &rstd[0])


def layernorm_backward(const float[:, ::1] dy not None, const float[:, ::1] x not None,
                       const float[::1] gamma not None, const float[::1] mean not None,
                       const float[::1] rstd not None, float[:, ::1] dx not None,
                       float[::1] dgamma not None, float[::1] dbeta not None,
                       bint accumulate=False) -> None:
    """Gradients of `layernorm_forward` for dy = d loss / d out.

    With n = (x - mean) · rstd and g = dy · gamma:
    dx = rstd · (g - mean(g) - n · mean(g · n)); dgamma += Σ dy · n; dbeta += Σ dy, summed row
    after row.  `accumulate` adds to dx what it holds, as a residual stream needs.

    dy, x [N, C], gamma [C], mean [N], rstd [N]: IN; dx [N, C]: OUT (INOUT with `accumulate`);
    dgamma [C], dbeta [C]: INOUT; `dx` may be `dy`.

    >>> import numpy as np
    >>> x, dy = np.float32([[1, 3, 8]]), np.float32([[1, 0, 0]])
    >>> out, dx, one = np.empty_like(x), np.empty_like(x), np.ones(3, np.float32)
    >>> mean, rstd, dgamma, dbeta = np.zeros(1, "f4"), np.zeros(1, "f4"), one * 0, one * 0
    >>> layernorm_forward(x, one, one, out, mean, rstd)
    >>> layernorm_backward(dy, x, one, mean, rstd, dx, dgamma, dbeta)
    >>> abs(float(dx.sum())) < 1e-6, dbeta.tolist()
    (True, [1.0, 0.0, 0.0])
    """
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1]
    _expect_rows("dy", dy.shape[0], dy.shape[1], N, C)
    _expect_rows("dx", dx.shape[0], dx.shape[1], N, C)
    expect_length("gamma", gamma.shape[0], C)
    expect_length("mean", mean.shape[0], N)
    expect_length("rstd", rstd.shape[0], N)
    expect_length("dgamma", dgamma.shape[0], C)
    expect_length("dbeta", dbeta.shape[0], C)
    if N == 0 or C == 0:
        return
    with nogil:
        primitives().layernorm_backward(N, C, &dy[0, 0], &x[0, 0], &gamma[0], &mean[0], &rstd[0],
                                        &dx[0, 0], accumulate, &dgamma[0], &dbeta[0])


def gelu_forward(const float[::1] x not None, float[::1] out not None) -> None:
    """out = 0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), the form GPT-2 was trained with.

    x [n]: IN; out [n]: OUT, may be `x`.

    >>> import numpy as np
    >>> x, out = np.float32([-1, 0, 1]), np.empty(3, np.float32)
    >>> gelu_forward(x, out); print(out.round(4))
    [-0.1588  0.      0.8412]
    """
    cdef Py_ssize_t n = x.shape[0]
    expect_length("out", out.shape[0], n)
    if n == 0:
        return
    with nogil:
        primitives().gelu(n, &x[0], &out[0])


def gelu_backward(const float[::1] x not None, const float[::1] dy not None,
                  float[::1] dx not None) -> None:
    """dx = dy · d gelu(x) / dx, for the input x of the forward pass.

    x, dy [n]: IN; dx [n]: OUT, may be `dy`.

    >>> import numpy as np
    >>> x, dy, dx = np.float32([-20, 0, 20]), np.float32([3, 3, 3]), np.empty(3, np.float32)
    >>> gelu_backward(x, dy, dx); dx.round(4).tolist()
    [-0.0, 1.5, 3.0]
    """
    cdef Py_ssize_t n = x.shape[0]
    expect_length("dy", dy.shape[0], n)
    expect_length("dx", dx.shape[0], n)
    if n == 0:
        return
    with nogil:
        primitives().gelu_backward(n, &x[0], &dy[0], &dx[0])


def add(const float[::1] a not None, const float[::1] b not None, float[::1] out not None) -> None:
    """out = a + b; a, b [n]: IN; out [n]: OUT, may be either.

    >>> import numpy as np
    >>> out = np.empty(2, np.float32)
    >>> add(np.float32([1, 2]), np.float32([10, 20]), out); out.tolist()
    [11.0, 22.0]
    """
    cdef Py_ssize_t n = a.shape[0]
    expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    if n == 0:
        return
    with nogil:
        primitives().add(n, &a[0], &b[0], &out[0])


def embed_gather(const int32_t[::1] ids not None, const float[:, ::1] wte not None,
                 const float[:, ::1] wpe not None, float[:, ::1] out not None, int64_t T) -> None:
    """out[i] = wte[ids[i]] + wpe[i mod T]: token plus position, for sequences of T tokens.

    ids [N] int32, wte [V, C], wpe [places, C] with places >= T: IN; out [N, C]: OUT.

    >>> import numpy as np
    >>> wte, wpe = np.float32([[1], [2], [3]]), np.float32([[10], [20]])
    >>> out = np.empty((4, 1), np.float32)
    >>> embed_gather(np.int32([2, 0, 0, 1]), wte, wpe, out, T=2); out.ravel().tolist()
    [13.0, 21.0, 11.0, 22.0]
    """
    cdef Py_ssize_t N = ids.shape[0], C = wte.shape[1]
    _expect_rows("out", out.shape[0], out.shape[1], N, C)
    _expect_rows("wpe", wpe.shape[0], wpe.shape[1], wpe.shape[0], C)
    _expect_places(T, wpe.shape[0])
    _expect_ids(ids, wte.shape[0])
    if N == 0 or C == 0:
        return
    with nogil:
        primitives().embed(N, T, C, &ids[0], &wte[0, 0], &wpe[0, 0], &out[0, 0])


def embed_scatter_add(const int32_t[::1] ids not None, const float[:, ::1] dx not None,
                      float[:, ::1] dwte not None, float[:, ::1] dwpe not None, int64_t T) -> None:
    """dwte[ids[i]] += dx[i] and dwpe[i mod T] += dx[i]: the gradient of `embed_gather`.

    The sums are taken row after row.  ids [N] int32, dx [N, C]: IN; dwte [V, C] and
    dwpe [places, C] with places >= T: INOUT.

    >>> import numpy as np
    >>> dwte, dwpe = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
    >>> embed_scatter_add(np.int32([2, 0, 0]), np.float32([[1], [2], [4]]), dwte, dwpe, T=2)
    >>> dwte.ravel().tolist(), dwpe.ravel().tolist()
    ([6.0, 0.0, 1.0], [5.0, 2.0])
    """
    cdef Py_ssize_t N = ids.shape[0], C = dwte.shape[1]
    _expect_rows("dx", dx.shape[0], dx.shape[1], N, C)
    _expect_rows("dwpe", dwpe.shape[0], dwpe.shape[1], dwpe.shape[0], C)
    _expect_places(T, dwpe.shape[0])
    _expect_ids(ids, dwte.shape[0])
    if N == 0 or C == 0:
        return
    with nogil:
        primitives().embed_backward(N, T, C, &ids[0], &dx[0, 0], &dwte[0, 0], &dwpe[0, 0])
