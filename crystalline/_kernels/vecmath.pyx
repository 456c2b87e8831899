"""exp, log, tanh and erf over arrays without libm: the same bits whatever the C library.

The error bounds, in units of the last place, are stated in primitives/vecmath.h.
x [n] float32: IN; out [n]: OUT, may be `x`.
"""

from libc.stdint cimport int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport primitives

ctypedef void (*Elementwise)(int64_t, const float*, float*) noexcept nogil


cdef int _apply(Elementwise function, const float[::1] x, float[::1] out) except -1:
    cdef Py_ssize_t n = x.shape[0]
    expect_length("out", out.shape[0], n)
    if n:
        with nogil:
            function(n, &x[0], &out[0])
    return 0


def exp(const float[::1] x not None, float[::1] out not None) -> None:
    """out = e^x; 0 where the result would be subnormal, inf above 88.7228.

    >>> import numpy as np
    >>> out = np.empty(3, np.float32); exp(np.float32([0, 1, -1000]), out); print(out.round(4))
    [1.     2.7183 0.    ]
    """
    _apply(primitives().vec_exp, x, out)


def log(const float[::1] x not None, float[::1] out not None) -> None:
    """out = the natural logarithm of x; -inf at 0, NaN below.

    >>> import numpy as np
    >>> out = np.empty(3, np.float32); log(np.float32([1, 10, 0]), out); print(out.round(4))
    [0.     2.3026   -inf]
    """
    _apply(primitives().vec_log, x, out)


def tanh(const float[::1] x not None, float[::1] out not None) -> None:
    """out = the hyperbolic tangent of x.

    >>> import numpy as np
    >>> out = np.empty(3, np.float32); tanh(np.float32([0, -1, 50]), out); print(out.round(4))
    [ 0.     -0.7616  1.    ]
    """
    _apply(primitives().vec_tanh, x, out)


def erf(const float[::1] x not None, float[::1] out not None) -> None:
    """out = 2/√π · ∫ exp(-t²) dt from 0 to x.

    >>> import numpy as np
    >>> out = np.empty(3, np.float32); erf(np.float32([0, -1, 9]), out); print(out.round(4))
    [ 0.     -0.8427  1.    ]
    """
    _apply(primitives().vec_erf, x, out)
