"""Greatest common divisors, their cofactors, inverses and Jacobi symbols of limb vectors.

Lehmer's algorithm by the two top limbs (primitives/euclid.h); above a crossover the half-gcd of
Moller, "On Schonhage's algorithm and subquadratic integer GCD computation", Math. Comp. 77
(2008).  Both turn a pair (a; b) into a smaller one by (a; b) = M (a'; b') with M a product of
matrices (1 q; 0 1) and (1 0; q 1): its determinant is 1, so gcd(a', b') = gcd(a, b), and the
second row of M, kept on the way where cofactors are wanted, gives a' = m11 a - m01 b and
b' = m00 b - m10 a modulo b.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.div cimport limbs_divrem, limbs_rem
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (NO_MEMORY, OK, limbs_add, limbs_compare,
                                                limbs_copy, limbs_copy_long, limbs_normalize,
                                                limbs_sub, limbs_sub_1, limbs_zero,
                                                limbs_zero_long)
from crystalline._kernels.bigint.mul cimport limbs_mul
from crystalline._kernels.bigint.tuning cimport thresholds
from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport JacobiState, exact_primitives

cdef extern from *:
    int __builtin_clzll(unsigned long long x) noexcept nogil
    int __builtin_ctzll(unsigned long long x) noexcept nogil

cdef enum:
    STUCK = 1  # a status: no step can be made
    SMALL = 128  # limbs that are had on the stack

# m0 m1 / m2 m3, entries of n limbs in room for `room`.
cdef struct Matrix:
    int64_t n
    int64_t room
    uint64_t* m[4]

# The second row of M, (x y), of n limbs; x is NULL where no cofactors are wanted.
cdef struct Row:
    int64_t n
    uint64_t* x
    uint64_t* y


cdef int _mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
              int64_t bn) noexcept nogil:
    """r[an + bn] = a[an] * b[bn] in either order of sizes; zero limbs are zero."""
    if an == 0 or bn == 0:
        limbs_zero(r, an + bn)
        return OK
    if an >= bn:
        return limbs_mul(r, a, an, b, bn)
    return limbs_mul(r, b, bn, a, an)


# Matrices


cdef int _matrix_init(Matrix* matrix, int64_t room) noexcept nogil:
    """The identity."""
    cdef int i
    matrix.m[0] = <uint64_t*>malloc(4 * room * sizeof(uint64_t))
    if matrix.m[0] == NULL:
        return NO_MEMORY
    matrix.room = room
    matrix.n = 1
    for i in range(4):
        matrix.m[i] = matrix.m[0] + i * room
        matrix.m[i][0] = i == 0 or i == 3
    return OK


cdef int _add_multiple(uint64_t* x, uint64_t* y, int64_t* n, const uint64_t* q, int64_t qn,
                       uint64_t* scratch) noexcept nogil:
    """x[n] += q[qn] y[n]: both become as long as the longer; scratch [n + qn + 1]."""
    cdef int64_t size = limbs_normalize(y, n[0])
    cdef int status = _mul(scratch, q, qn, y, size)
    if status != OK:
        return status
    size = limbs_normalize(scratch, size + qn)
    if size < n[0]:
        limbs_zero(scratch + size, n[0] - size)
        size = n[0]
    limbs_zero(y + n[0], size - n[0])
    scratch[size] = limbs_add(scratch, scratch, size, x, n[0])
    if scratch[size]:
        y[size] = 0
        size += 1
    limbs_copy(x, scratch, size)
    n[0] = size
    return OK


cdef int _matrix_mul(Matrix* a, const Matrix* b) noexcept nogil:
    """a = a b."""
    cdef int64_t n = a.n + b.n
    cdef uint64_t* product = <uint64_t*>malloc((5 * (n + 1)) * sizeof(uint64_t))
    if product == NULL:
        return NO_MEMORY
    cdef uint64_t* other = product + 4 * (n + 1)
    cdef uint64_t* r
    cdef int status = OK
    cdef int64_t size = 1
    cdef int i
    for i in range(4):  # row i >> 1 of a by column i & 1 of b
        r = product + i * (n + 1)
        if status == OK:
            status = _mul(r, a.m[i & 2], a.n, b.m[i & 1], b.n)
        if status == OK:
            status = _mul(other, a.m[(i & 2) + 1], a.n, b.m[2 + (i & 1)], b.n)
        if status == OK:
            r[n] = exact_primitives().limbs.add_n(r, r, other, n)
            size = max(size, limbs_normalize(r, n + 1))
    if status == OK:
        a.n = size
        for i in range(4):
            limbs_copy(a.m[i], product + i * (n + 1), size)
    free(product)
    return status


cdef int _adjust(const Matrix* matrix, uint64_t* a, uint64_t* b, int64_t p,
                 int64_t* n) noexcept nogil:
    """(a; b) = M^-1 (a; b) where the limbs from p on, n - p of them, are already so."""
    cdef int64_t size = p + matrix.n
    cdef int64_t high = n[0] - p
    cdef uint64_t* t = <uint64_t*>malloc((4 * size) * sizeof(uint64_t))
    if t == NULL:
        return NO_MEMORY
    cdef uint64_t* u = t + size
    cdef uint64_t* v = u + size
    cdef uint64_t* w = v + size
    cdef uint64_t a_top, b_top
    cdef int status = _mul(t, matrix.m[3], matrix.n, a, p)
    if status == OK:
        status = _mul(u, matrix.m[1], matrix.n, b, p)
    if status == OK:
        status = _mul(v, matrix.m[0], matrix.n, b, p)
    if status == OK:
        status = _mul(w, matrix.m[2], matrix.n, a, p)
    if status == OK:
        # matrix.n <= high: entries are smaller than the numbers that are left
        limbs_copy(a, t, p)
        limbs_copy(b, v, p)
        a_top = limbs_add(a + p, a + p, high, t + p, matrix.n)
        b_top = limbs_add(b + p, b + p, high, v + p, matrix.n)
        a_top -= limbs_sub(a, a, n[0], u, size)
        b_top -= limbs_sub(b, b, n[0], w, size)
        if a_top | b_top:
            a[n[0]] = a_top
            b[n[0]] = b_top
            n[0] += 1
        n[0] = max(limbs_normalize(a, n[0]), limbs_normalize(b, n[0]))
    free(t)
    return status


# One step


cdef bint _reduce_top(uint64_t* m, const uint64_t* a, const uint64_t* b, int64_t n, bint shifted,
                      JacobiState* state) noexcept nogil:
    """Lehmer's matrix from the two top limbs of a[n] and b[n], shifted up as far as they go."""
    cdef int shift = __builtin_clzll(a[n - 1] | b[n - 1]) if shifted and n > 2 else 0
    if shift == 0:
        return exact_primitives().euclid.reduce_2(m, a[n - 1], a[n - 2], b[n - 1], b[n - 2], state)
    cdef int back = 64 - shift
    return exact_primitives().euclid.reduce_2(
        m, a[n - 1] << shift | a[n - 2] >> back, a[n - 2] << shift | a[n - 3] >> back,
        b[n - 1] << shift | b[n - 2] >> back, b[n - 2] << shift | b[n - 3] >> back, state)


cdef int64_t _equalize(uint64_t** rows, int64_t an, int64_t bn) noexcept nogil:
    """Bring rows of an and bn limbs, (rows[0] rows[1]) and (rows[2] rows[3]), to the same size."""
    cdef int64_t n = max(an, bn)
    cdef int i
    for i in range(2):
        limbs_zero(rows[i] + an, n - an)
        limbs_zero(rows[2 + i] + bn, n - bn)
    return n


cdef int64_t _size(const uint64_t* a, const uint64_t* b, int64_t n) noexcept nogil:
    while n > 0 and (a[n - 1] | b[n - 1]) == 0:
        n -= 1
    return n


# Half-gcd


cdef int _half_divide(uint64_t* a, uint64_t* b, int64_t* n, int64_t s, Matrix* matrix,
                      int column) noexcept nogil:
    """a -= q b for a >= b, with the largest q that leaves more than s limbs.

    q times the other column of M is added to `column`, 1 when a is the first number.
    """
    cdef int64_t an = limbs_normalize(a, n[0]), bn = limbs_normalize(b, n[0])
    cdef int64_t qn = an - bn + 1
    cdef uint64_t* q = <uint64_t*>malloc((qn + bn + matrix.room + qn + 1) * sizeof(uint64_t))
    if q == NULL:
        return NO_MEMORY
    cdef uint64_t* r = q + qn
    cdef uint64_t* scratch = r + bn
    cdef uint64_t carry = 0
    cdef int64_t upper, lower
    cdef int status = limbs_divrem(q, r, a, an, b, bn)
    if status == OK:
        qn = limbs_normalize(q, qn)
        if limbs_normalize(r, bn) <= s:  # q - 1 leaves r + b
            if qn == 1 and q[0] == 1:
                status = STUCK
            else:
                limbs_sub_1(q, q, qn, 1)
                qn = limbs_normalize(q, qn)
                carry = exact_primitives().limbs.add_n(r, r, b, bn)
    if status == OK:
        limbs_copy(a, r, bn)
        limbs_zero(a + bn, an - bn)
        if carry:
            a[bn] = 1
        n[0] = _size(a, b, n[0])
        upper = matrix.n
        lower = matrix.n
        status = _add_multiple(matrix.m[column], matrix.m[1 - column], &upper, q, qn, scratch)
        if status == OK:
            status = _add_multiple(matrix.m[2 + column], matrix.m[3 - column], &lower, q, qn,
                                   scratch)
        if status == OK:
            matrix.n = _equalize(matrix.m, upper, lower)
    free(q)
    return status


cdef int _half_step(uint64_t* a, uint64_t* b, int64_t* n, int64_t s,
                    Matrix* matrix) noexcept nogil:
    """One of Lehmer's steps or one division, STUCK where a number would not keep s + 1 limbs.

    Lehmer's leaves at least 2 B / 2^shift in units of B^(n - 2), so it is shifted for n > s + 1.
    """
    cdef uint64_t m[4]
    cdef int64_t upper, lower
    if _reduce_top(m, a, b, n[0], n[0] > s + 1, NULL):
        exact_primitives().euclid.apply_inverse(a, b, n[0], m)
        n[0] = _size(a, b, n[0])
        upper = exact_primitives().euclid.apply_row(matrix.m[0], matrix.m[1], matrix.n, m)
        lower = exact_primitives().euclid.apply_row(matrix.m[2], matrix.m[3], matrix.n, m)
        matrix.n = _equalize(matrix.m, upper, lower)
        return OK
    if limbs_compare(a, b, n[0]) >= 0:
        return _half_divide(a, b, n, s, matrix, 1)
    return _half_divide(b, a, n, s, matrix, 0)


cdef int _half_gcd(Matrix* matrix, uint64_t* a, uint64_t* b, int64_t* size) noexcept nogil:
    """Reduce a[n] and b[n] while both keep more than s = n / 2 + 1 limbs.

    `matrix`, the identity with room for n - s + 2 limbs, becomes M of (a; b) = M (a'; b'); *size
    becomes the limbs of the larger.  STUCK where M stays the identity.
    """
    cdef int64_t n = size[0]
    cdef int64_t s = (n >> 1) + 1
    cdef int64_t three_quarters = (3 * n) // 4 + 1
    cdef int64_t p, high
    cdef Matrix second
    cdef bint moved = False
    cdef int status = OK
    if limbs_normalize(a, n) <= s or limbs_normalize(b, n) <= s:
        return STUCK
    if n >= thresholds().hgcd and n >= 10:
        status = poll()
        if status != OK:
            return status
        p = n >> 1
        high = n - p
        status = _half_gcd(matrix, a + p, b + p, &high)
        if status == OK:
            moved = True
            n = p + high
            status = _adjust(matrix, a, b, p, &n)
        elif status == STUCK:
            status = OK
        while n > three_quarters and status == OK:
            status = _half_step(a, b, &n, s, matrix)
            moved = moved or status == OK
        if status == OK and n > s + 2:
            p = 2 * s - n + 1
            high = n - p
            status = _matrix_init(&second, (high >> 1) + 3)
            if status == OK:
                status = _half_gcd(&second, a + p, b + p, &high)
                if status == OK:
                    moved = True
                    n = p + high
                    status = _adjust(&second, a, b, p, &n)
                    if status == OK:
                        status = _matrix_mul(matrix, &second)
                elif status == STUCK:
                    status = OK
                free(second.m[0])
    while status == OK:
        status = _half_step(a, b, &n, s, matrix)
        moved = moved or status == OK
    size[0] = n
    return OK if status == STUCK and moved else status


# The whole way


cdef int _row_times(Row* row, const Matrix* matrix) noexcept nogil:
    """(x y) = (x y) M."""
    cdef int64_t n = row.n + matrix.n
    cdef uint64_t* r = <uint64_t*>malloc(3 * (n + 1) * sizeof(uint64_t))
    if r == NULL:
        return NO_MEMORY
    cdef uint64_t* other = r + 2 * (n + 1)
    cdef int status = OK
    cdef int64_t size = 1
    cdef int i
    for i in range(2):
        if status == OK:
            status = _mul(r + i * (n + 1), row.x, row.n, matrix.m[i], matrix.n)
        if status == OK:
            status = _mul(other, row.y, row.n, matrix.m[2 + i], matrix.n)
        if status == OK:
            r[i * (n + 1) + n] = exact_primitives().limbs.add_n(
                r + i * (n + 1), r + i * (n + 1), other, n)
            size = max(size, limbs_normalize(r + i * (n + 1), n + 1))
    if status == OK:
        limbs_copy(row.x, r, size)
        limbs_copy(row.y, r + n + 1, size)
        row.n = size
    free(r)
    return status


cdef int _divide_step(uint64_t* a, uint64_t* b, int64_t n, uint64_t* x, uint64_t* y,
                      int64_t* row_n, JacobiState* state, int which) noexcept nogil:
    """a -= q b for a[n] >= b[n] > 0; y += q x in the row, where x is not NULL.

    a is number `which` of `state`, where that is not NULL.
    """
    cdef int64_t an = limbs_normalize(a, n), bn = limbs_normalize(b, n)
    cdef int64_t qn = an - bn + 1
    cdef uint64_t* q
    cdef int status
    if x == NULL and state == NULL:
        status = limbs_rem(a, a, an, b, bn)
        limbs_zero(a + bn, an - bn)
        return status
    q = <uint64_t*>malloc((2 * qn + bn + row_n[0] + 1) * sizeof(uint64_t))
    if q == NULL:
        return NO_MEMORY
    status = limbs_divrem(q, q + qn, a, an, b, bn)
    if status == OK:
        limbs_copy(a, q + qn, bn)
        limbs_zero(a + bn, an - bn)
        if state != NULL:
            exact_primitives().euclid.jacobi_step(state, which, q[0])
        if x != NULL:
            status = _add_multiple(y, x, row_n, q, limbs_normalize(q, qn), q + qn + bn)
    free(q)
    return status


cdef int _reduce_half(uint64_t* a, uint64_t* b, int64_t* n, Row* row) noexcept nogil:
    """One half-gcd of the top third, or half where a row follows; STUCK where it does not help."""
    cdef int64_t p = (2 * n[0]) // 3 if row.x == NULL else n[0] >> 1
    cdef int64_t high = n[0] - p
    cdef Matrix matrix
    cdef int status = _matrix_init(&matrix, (high >> 1) + 3)
    if status != OK:
        return status
    status = _half_gcd(&matrix, a + p, b + p, &high)
    if status == OK:
        n[0] = p + high
        status = _adjust(&matrix, a, b, p, n)
        if status == OK and row.x != NULL:
            status = _row_times(row, &matrix)
    free(matrix.m[0])
    return status


cdef int _euclid(uint64_t* a, uint64_t* b, int64_t n, Row* row,
                 JacobiState* state) noexcept nogil:
    """Reduce a[n] and b[n] until one of them is 0; the other is the gcd.

    The row follows where row.x is not NULL, and `state` where it is not NULL.
    """
    cdef uint64_t m[4]
    cdef int status = OK
    while status == OK:
        n = _size(a, b, n)
        if limbs_normalize(a, n) == 0 or limbs_normalize(b, n) == 0:
            return OK
        if n <= 2:
            if n == 1:
                a[1] = 0
                b[1] = 0
            if row.x == NULL and state == NULL:
                exact_primitives().euclid.gcd_2(a, b)
                limbs_zero(b, 2)
                return OK
            if n == 2 and exact_primitives().euclid.reduce_2(m, a[1], a[0], b[1], b[0], state):
                exact_primitives().euclid.apply_inverse(a, b, 2, m)
                if row.x != NULL:
                    row.n = exact_primitives().euclid.apply_row(row.x, row.y, row.n, m)
                continue
            if exact_primitives().euclid.finish_2(m, a, b, state):
                if row.x != NULL:
                    row.n = exact_primitives().euclid.apply_row(row.x, row.y, row.n, m)
                continue
        else:
            status = poll()
            if status != OK:
                return status
            if state == NULL and n >= thresholds().gcd_hgcd and n >= 32:
                status = _reduce_half(a, b, &n, row)
                if status != STUCK:
                    continue
                status = OK
            elif _reduce_top(m, a, b, n, True, state):
                exact_primitives().euclid.apply_inverse(a, b, n, m)
                if row.x != NULL:
                    row.n = exact_primitives().euclid.apply_row(row.x, row.y, row.n, m)
                continue
        if limbs_compare(a, b, n) >= 0:
            status = _divide_step(a, b, n, row.x, row.y, &row.n, state, 0)
        else:
            status = _divide_step(b, a, n, row.y, row.x, &row.n, state, 1)
    return status


cdef int _pad(uint64_t* x, uint64_t* y, int64_t n, const uint64_t* a, int64_t an,
              const uint64_t* b, int64_t bn) noexcept nogil:
    """x[n] = a[an], y[n] = b[bn]."""
    cdef int status
    if n <= SMALL:
        limbs_copy(x, a, an)
        limbs_zero(x + an, n - an)
        limbs_copy(y, b, bn)
        limbs_zero(y + bn, n - bn)
        return OK
    status = limbs_copy_long(x, a, an)
    if status == OK:
        status = limbs_zero_long(x + an, n - an)
    if status == OK:
        status = limbs_copy_long(y, b, bn)
    if status == OK:
        status = limbs_zero_long(y + bn, n - bn)
    return status


cdef int limbs_gcd(uint64_t* g, int64_t* gn, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    cdef int64_t n = max(an, bn)
    cdef uint64_t[SMALL] local
    cdef uint64_t* start = local
    if 2 * (n + 2) > SMALL:
        start = <uint64_t*>malloc(2 * (n + 2) * sizeof(uint64_t))
        if start == NULL:
            return NO_MEMORY
    cdef uint64_t* x = start
    cdef uint64_t* y = x + n + 2
    cdef Row row
    row.x = NULL
    row.y = NULL
    row.n = 0
    cdef int status = _pad(x, y, n, a, an, b, bn)
    if status == OK:
        status = _euclid(x, y, n, &row, NULL)
    if status == OK:
        gn[0] = limbs_normalize(x, n)
        if gn[0] == 0:
            gn[0] = limbs_normalize(y, n)
            x, y = y, x
        limbs_copy(g, x, gn[0])
    if start != local:
        free(start)
    return status


cdef int _cofactor(uint64_t* s, int64_t* sn, const Row* row, bint first) noexcept nogil:
    """s of g = s a modulo b with the least |s|, the positive one of two, from the last row.

    When the first number is the gcd, s is y or y - x and x = b / g; else -x or y - x, y = b / g.
    Uses the row's other entry as scratch.
    """
    cdef int64_t n = row.n
    exact_primitives().limbs.sub_n(row.x if first else row.y, row.x if first else row.y,
                                   row.y if first else row.x, n)
    # now y and -x are the candidates either way
    if limbs_compare(row.y, row.x, n) <= 0:
        sn[0] = limbs_normalize(row.y, n)
        limbs_copy(s, row.y, sn[0])
    else:
        sn[0] = limbs_normalize(row.x, n)
        limbs_copy(s, row.x, sn[0])
        sn[0] = -sn[0]
    return OK


cdef int _other_cofactor(uint64_t* t, int64_t* tn, const uint64_t* g, int64_t gn,
                         const uint64_t* s, int64_t sn, const uint64_t* a, int64_t an,
                         const uint64_t* b, int64_t bn) noexcept nogil:
    """t = (g - s a) / b, which is exact."""
    cdef int64_t n = max(an + (sn if sn > 0 else -sn), gn)
    cdef uint64_t* product
    cdef uint64_t* q
    cdef int status
    if sn == 0:
        t[0] = 1  # g = b
        tn[0] = 1
        return OK
    product = <uint64_t*>malloc((2 * (n + 1) + bn) * sizeof(uint64_t))
    if product == NULL:
        return NO_MEMORY
    q = product + n + 1
    status = _mul(product, a, an, s, sn if sn > 0 else -sn)
    if status == OK:
        product[n] = 0
        if sn > 0:
            limbs_sub(product, product, n, g, gn)
        else:
            product[n] = limbs_add(product, product, n, g, gn)
        n = limbs_normalize(product, n + 1)
        tn[0] = 0
        if n >= bn:
            status = limbs_divrem(q, q + n - bn + 1, product, n, b, bn)
            tn[0] = limbs_normalize(q, n - bn + 1)
            limbs_copy(t, q, tn[0])
        if sn > 0:
            tn[0] = -tn[0]
    free(product)
    return status


cdef int limbs_gcdext(uint64_t* g, int64_t* gn, uint64_t* s, int64_t* sn, uint64_t* t, int64_t* tn,
                      const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn) noexcept nogil:
    cdef int64_t n = max(an, bn)
    cdef uint64_t* x
    cdef uint64_t* y
    cdef Row row
    cdef int64_t size
    cdef int status
    cdef bint first
    if an == 0 or bn == 0:
        limbs_copy(g, a if bn == 0 else b, n)
        gn[0] = n
        if s != NULL:
            s[0] = 1
            sn[0] = bn == 0 and an > 0
        if t != NULL:
            t[0] = 1
            tn[0] = an == 0 and bn > 0
        return OK
    # the row's entries are at most b / g, and its sums one limb longer; s is kept beside them
    cdef uint64_t[SMALL] local
    x = local
    if 2 * (n + 2) + 3 * (bn + 3) > SMALL:
        x = <uint64_t*>malloc((2 * (n + 2) + 3 * (bn + 3)) * sizeof(uint64_t))
        if x == NULL:
            return NO_MEMORY
    y = x + n + 2
    row.x = y + n + 2
    row.y = row.x + bn + 3
    cdef uint64_t* cofactor = row.y + bn + 3
    row.n = 1
    row.x[0] = 0
    row.y[0] = 1
    status = _pad(x, y, n, a, an, b, bn)
    if status == OK:
        status = _euclid(x, y, n, &row, NULL)
    if status == OK:
        gn[0] = limbs_normalize(x, min(an, bn))
        first = gn[0] > 0
        if not first:
            gn[0] = limbs_normalize(y, min(an, bn))
        limbs_copy(g, x if first else y, gn[0])
        _cofactor(cofactor, &size, &row, first)
        if t != NULL:
            status = _other_cofactor(t, tn, g, gn[0], cofactor, size, a, an, b, bn)
        if s != NULL:
            sn[0] = size
            limbs_copy(s, cofactor, size if size > 0 else -size)
    if x != local:
        free(x)
    return status


cdef int limbs_invert(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* m,
                      int64_t mn) noexcept nogil:
    if mn == 1 and m[0] == 1:
        r[0] = 0
        return OK
    cdef uint64_t* x = <uint64_t*>malloc((3 * mn + 1) * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    cdef uint64_t* g = x + mn
    cdef uint64_t* s = g + mn
    cdef int64_t gn, sn
    cdef int status = OK
    if an >= mn:
        status = limbs_rem(x, a, an, m, mn)
        an = limbs_normalize(x, mn)
    else:
        limbs_copy(x, a, an)
    if status == OK:
        status = limbs_gcdext(g, &gn, s, &sn, NULL, NULL, x, an, m, mn)
    if status == OK and not (gn == 1 and g[0] == 1):
        status = NO_INVERSE
    if status == OK and sn > 0:
        limbs_copy(r, s, sn)
        limbs_zero(r + sn, mn - sn)
    elif status == OK:
        limbs_sub(r, m, mn, s, -sn)
    free(x)
    return status


cdef int limbs_jacobi(int* symbol, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil:
    cdef int64_t n = max(an, bn)
    cdef uint64_t[SMALL] local
    cdef uint64_t* start = local
    if 2 * (n + 2) > SMALL:
        start = <uint64_t*>malloc(2 * (n + 2) * sizeof(uint64_t))
        if start == NULL:
            return NO_MEMORY
    cdef uint64_t* x = start
    cdef uint64_t* y = x + n + 2
    cdef Row row
    cdef JacobiState state
    row.x = NULL
    row.y = NULL
    row.n = 0
    cdef int status = _pad(x, y, n, a, an, b, bn)
    state.low[0] = x[0] & 7
    state.low[1] = y[0] & 7
    state.denominator = 1
    state.negative = 0
    if status == OK:
        status = _euclid(x, y, n, &row, &state)
    if status == OK:
        # (0 / 1) = 1, and 0 where the gcd is more than 1
        if limbs_normalize(x, bn) == 0:
            x, y = y, x
        symbol[0] = 0
        if limbs_normalize(x, bn) == 1 and x[0] == 1:
            symbol[0] = -1 if state.negative else 1
    if start != local:
        free(start)
    return status


# The doors of the tests


def gcd(uint64_t[::1] g not None, const uint64_t[::1] a not None,
        const uint64_t[::1] b not None) -> int:
    """Fill g with gcd(a, b), limb vectors without leading zeros; return how many limbs it takes.

    g [max(an, bn)]: OUT; a [an], b [bn]: IN, least significant first.

    >>> import numpy as np
    >>> g = np.empty(1, np.uint64); gcd(g, np.uint64([12]), np.uint64([18])), g
    (1, array([6], dtype=uint64))
    """
    cdef int64_t an = _normalized("a", a), bn = _normalized("b", b), n
    expect_length("g", g.shape[0], max(an, bn))
    cdef int status
    with nogil:
        status = limbs_gcd(&g[0], &n, &a[0], an, &b[0], bn)
    check(status)
    return n


def gcdext(uint64_t[::1] g not None, uint64_t[::1] s not None, uint64_t[::1] t not None,
           const uint64_t[::1] a not None, const uint64_t[::1] b not None) -> tuple[int, int, int]:
    """Fill g = gcd(a, b) = s a + t b; return the sizes of g, s and t, with the signs of s and t.

    g [max(an, bn)], s [bn + 1], t [an + 1]: OUT; a [an], b [bn]: IN, without leading zeros.

    >>> import numpy as np
    >>> g, s, t = (np.empty(n, np.uint64) for n in (1, 2, 2))
    >>> gcdext(g, s, t, np.uint64([12]), np.uint64([18])), s[:1], t[:1]
    ((1, -1, 1), array([1], dtype=uint64), array([1], dtype=uint64))
    """
    cdef int64_t an = _normalized("a", a), bn = _normalized("b", b), n, sn, tn
    expect_length("g", g.shape[0], max(an, bn))
    expect_length("s", s.shape[0], bn + 1)
    expect_length("t", t.shape[0], an + 1)
    cdef int status
    with nogil:
        status = limbs_gcdext(&g[0], &n, &s[0], &sn, &t[0], &tn, &a[0], an, &b[0], bn)
    check(status)
    return n, sn, tn


def invert(uint64_t[::1] r not None, const uint64_t[::1] a not None,
           const uint64_t[::1] m not None) -> None:
    """r = 1 / a modulo m, limb vectors without leading zeros; else ZeroDivisionError.

    r [mn]: OUT; a [an], m [mn > 0]: IN.

    >>> import numpy as np
    >>> r = np.empty(1, np.uint64); invert(r, np.uint64([3]), np.uint64([7])); print(r)
    [5]
    """
    cdef int64_t an = _normalized("a", a), mn = _normalized("m", m)
    if mn == 0:
        raise ZeroDivisionError("inverse modulo 0")
    expect_length("r", r.shape[0], mn)
    cdef int status
    with nogil:
        status = limbs_invert(&r[0], &a[0], an, &m[0], mn)
    if status == NO_INVERSE:
        raise ZeroDivisionError("a and m have a common divisor")
    check(status)


def jacobi(const uint64_t[::1] a not None, const uint64_t[::1] b not None) -> int:
    """Return the Jacobi symbol (a / b) of limb vectors without leading zeros, b odd.

    >>> import numpy as np
    >>> jacobi(np.uint64([2]), np.uint64([15])), jacobi(np.uint64([5]), np.uint64([15]))
    (1, 0)
    """
    cdef int64_t an = _normalized("a", a), bn = _normalized("b", b)
    if bn == 0 or b[0] & 1 == 0:
        raise ValueError("the lower number of a Jacobi symbol is even")
    cdef int status, symbol
    with nogil:
        status = limbs_jacobi(&symbol, &a[0], an, &b[0], bn)
    check(status)
    return symbol


cdef int64_t _normalized(str name, const uint64_t[::1] a) except -1:
    cdef int64_t n = a.shape[0]
    if n and a[n - 1] == 0:
        raise ValueError(f"{name}'s {n} limbs are not normalized")
    return n
