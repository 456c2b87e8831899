"""Babai's nearest plane for many targets: floats guide, integers subtract, a bound decides.

For an orthonormal frame q_j of the b*_j and a residual v, the coefficient <v, q_j> / |b*_j| is
known up to a proved error; a residual whose coefficients are all proved to be within (-1/2, 1/2) is
the one that the algorithm of L. Babai (Combinatorica 6, 1986) ends with in exact arithmetic.
Residuals too close to a face of the cell for that are marked, for the caller to decide exactly.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport INTERRUPTED, NO_MEMORY, OK
from crystalline._kernels.lattice.basis cimport (
    IntMatrix,
    IntRows,
    Multiplier,
    row_subtract_from,
    rows_alloc,
)
from crystalline._kernels.lattice.gso cimport (
    axpy,
    entries_of,
    gram_row,
    gso_factor,
    gso_size,
    padded,
    scaled,
)
from crystalline._kernels.lattice.lll cimport set_multiplier

# Passes over a target; each brings it nearer by some 50 bits, or it is left undecided.
cdef int64_t MOST_PASSES = 400
# Multiply-adds between two looks at the signals.
cdef int64_t SLICE = 4000000


cdef class PlaneSolver:
    """Nearest planes of one basis, whose rows are linearly independent.

    `error` is the proved bound of the floats' relative error, infinite where double proves nothing:
    then every target is left undecided.

    >>> from crystalline._kernels.lattice.basis import IntMatrix
    >>> solver = PlaneSolver(IntMatrix([[5, 0], [1, 4]]))
    >>> residuals, coordinates, proved = solver.solve(IntMatrix([[13, -3], [5, 2]]))
    >>> residuals.to_lists(), coordinates.to_lists(), list(proved)
    ([[-1, 1], [0, 2]], [[3, -1], [1, 0]], [1, 0])
    """

    cdef IntMatrix basis
    cdef IntMatrix unit
    cdef double* a
    cdef double phi
    cdef double kappa  # |<v, q_j> - computed| <= kappa |v|

    def __init__(self, IntMatrix basis not None):
        cdef int64_t d = basis.rows.d, n = basis.rows.n, ld = padded(d), i, j
        cdef double total, largest = 0
        cdef const double* vt
        if self.a != NULL:
            raise ValueError("a solver is made once")
        self.basis = basis
        self.unit = IntMatrix([[int(i == j) for j in range(d)] for i in range(d)])
        self.a = <double*>malloc((gso_size(d, n) + 3 * ld + padded(n)) * sizeof(double))
        if self.a == NULL:
            raise MemoryError(f"no memory for {gso_size(d, n)} floating numbers")
        with nogil:
            self.phi = gso_factor(&basis.rows, 0, self.a)
        if self.phi < 0:
            check(INTERRUPTED)
        with nogil:
            # rows of W are off by a multiple of the norms that they are sums of (see gso)
            vt = self.a + d * ld + ld + ld * ld
            for i in range(d):
                total = 0
                for j in range(i + 1):
                    total += (vt[i * ld + j] if vt[i * ld + j] > 0 else -vt[i * ld + j])
                largest = max(largest, total)
        # vectors are scaled to entries below 1, so none is longer than the root of n
        self.kappa = 1.01 * self.phi + (
            2 * d + 2 * n + 32
        ) * 1.2e-16 * (1.01 + largest * sqrt(<double>n))

    def __dealloc__(self):
        free(self.a)

    @property
    def error(self):
        """The proved bound of the relative error of the triangular factor."""
        return self.phi

    def solve(self, IntMatrix targets not None) -> tuple:
        """Return (residuals, coordinates, proved) of the rows of `targets`.

        target = residual + coordinates · basis, exactly, in every row; proved[i] is 1 where
        residual i is proved to be in the open cell |<v, b*_j>| < |b*_j|^2 / 2.
        """
        cdef int64_t count = targets.rows.d, d = self.basis.rows.d, i = 0
        cdef int64_t cost = 4 * d * (d + targets.rows.n), done
        cdef int status = OK
        if targets.rows.n != self.basis.rows.n:
            raise ValueError(
                f"targets have {targets.rows.n} entries, the basis has {self.basis.rows.n}"
            )
        cdef IntMatrix residuals = targets.copy()
        cdef IntMatrix coordinates = IntMatrix.__new__(IntMatrix)
        if rows_alloc(&coordinates.rows, count, d, 1) != OK:
            raise MemoryError(f"no memory for {count} x {d} coordinates")
        cdef bytearray proved = bytearray(count)
        cdef unsigned char* flags = proved
        cdef Multiplier* x = <Multiplier*>malloc((d + 1) * sizeof(Multiplier))
        if x == NULL:
            raise MemoryError(f"no memory for {d} multipliers")
        try:
            while i < count and status >= OK:
                with nogil:
                    done = 0
                    while i < count and done < SLICE and status >= OK:
                        status = self._solve(&residuals.rows, &coordinates.rows, i, x)
                        flags[i] = status == 1
                        done += cost
                        i += 1
                if status == INTERRUPTED:
                    check(status)
                PyErr_CheckSignals()
        finally:
            free(x)
        if status == NO_MEMORY:
            raise MemoryError(f"no memory for residuals of {residuals.bits} bits an entry")
        return residuals, coordinates, bytes(proved)

    cdef int _solve(self, IntRows* v, IntRows* coordinates, int64_t i,
                    Multiplier* x) noexcept nogil:
        """1: proved, 0: undecided, NO_MEMORY, INTERRUPTED."""
        cdef const IntRows* b = &self.basis.rows
        cdef int64_t d = b.d, n = b.n, ld = padded(d), j, c, k, count, e, _pass
        cdef const double* low = self.a + d * ld + ld + 2 * ld * ld
        cdef const double* wt = low + ld * ld + ld * padded(n) + padded(n) * ld
        cdef double* z = self.a + gso_size(d, n)
        cdef double* row = z + 2 * ld
        cdef double m, bound, total, side
        if not self.kappa < 0.01:
            return 0
        for _pass in range(MOST_PASSES):
            if poll() != OK:
                return INTERRUPTED
            e = v.bits[i]
            entries_of(v, i, row, e)
            gram_row(z, wt, ld, row, n, d)
            total = 0
            for c in range(n):
                total += row[c] * row[c]
            count = 0
            j = d - 1
            while j >= 0:
                m = z[j] / low[j * ld + j]
                side = scaled(0.5, b.bits[j] - e)
                if m > side or m < -side:
                    set_multiplier(x + count, m, e - b.bits[j])
                    if x[count].x != 0:
                        x[count].row = j
                        axpy(z, low + j * ld, j + 1,
                             scaled(x[count].x, x[count].shift + b.bits[j] - e))
                        count += 1
                j -= 1
            if count == 0:
                bound = self.kappa * sqrt(total) * 1.000001
                for j in range(d):
                    m = z[j] if z[j] > 0 else -z[j]
                    side = scaled(0.5, b.bits[j] - e) * low[j * ld + j] * (1 - self.phi)
                    if not (m + bound) * 1.000001 < side:
                        return 0
                return 1
            if row_subtract_from(v, i, b, x, count) != OK:
                return NO_MEMORY
            for k in range(count):
                x[k].x = -x[k].x
            if row_subtract_from(coordinates, i, &self.unit.rows, x, count) != OK:
                return NO_MEMORY
        return 0
