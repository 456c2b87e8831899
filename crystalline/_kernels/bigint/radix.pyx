"""Limb vectors as digits in the bases 2 to 62, and back.

Bases that are powers of two: bit by bit, linear.  Others by divide and conquer over the powers
big^(t 2^j), where big is the largest power of the base below 2^64 and t a leaf's size (Brent and
Zimmermann, "Modern Computer Arithmetic", 1.7): from digits by products; to digits by quotients,
with the reciprocals of the large powers computed once.  A leaf is written from the top, as the
integer parts of (v + 1/2) / big^t multiplied by big again and again: a product a chunk of digits
instead of a quotient.
"""
from libc.math cimport ceil, log2
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from crystalline._kernels.bigint.div cimport limbs_divide, limbs_divide_by, limbs_reciprocal
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (NO_MEMORY, OK, limbs_add_1, limbs_copy,
                                                limbs_normalize, limbs_zero)
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.bigint.tuning cimport thresholds
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    static const char cl_lower[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    static const char cl_mixed[] =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char cl_pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445"
        "46474849505152535455565758596061626364656667686970717273747576777879808182838485868788899091"
        "9293949596979899";
    static const char *cl_alphabet(int base) { return base <= 36 ? cl_lower : cl_mixed; }
    /* digits[count] = value in base */
    static void cl_write_chunk(char *digits, int count, uint64_t value, int base) {
      const char *alphabet = cl_alphabet(base);
      if (base == 10) {
        for (; count >= 2; count -= 2, value /= 100)
          memcpy(digits + count - 2, cl_pairs + 2 * (value % 100), 2);
        if (count) digits[0] = '0' + value;
        return;
      }
      while (count-- > 0) {
        digits[count] = alphabet[value % (unsigned)base];
        value /= (unsigned)base;
      }
    }
    /* The value of a character as a digit, 255 when it is none. */
    static unsigned char cl_digit_values[2][256];
    static void cl_fill_digit_values(void) {
      memset(cl_digit_values, 255, sizeof cl_digit_values);
      for (int i = 0; i < 62; i++) {
        cl_digit_values[1][(unsigned char)cl_mixed[i]] = i;
        if (i < 36) {
          cl_digit_values[0][(unsigned char)cl_mixed[i]] = i;
          cl_digit_values[0][(unsigned char)cl_lower[i]] = i;
        }
      }
    }
    /* The index of the first of digits[count] that is no digit of base; count when all are. */
    static int64_t cl_bad_digit(const char *digits, int64_t count, int base) {
      const unsigned char *values = cl_digit_values[base > 36];
      for (int64_t i = 0; i < count; i++)
        if (values[(unsigned char)digits[i]] >= base) return i;
      return count;
    }
    static uint64_t cl_read_chunk(const char *digits, int64_t count, int base) {
      const unsigned char *values = cl_digit_values[base > 36];
      uint64_t value = 0;
      for (int64_t i = 0; i < count; i++)
        value = value * (unsigned)base + values[(unsigned char)digits[i]];
      return value;
    }
    """
    const char* cl_alphabet(int base) noexcept nogil
    const unsigned char cl_digit_values[2][256]
    void cl_write_chunk(char* digits, int count, uint64_t value, int base) noexcept nogil
    void cl_fill_digit_values() noexcept nogil
    int64_t cl_bad_digit(const char* digits, int64_t count, int base) noexcept nogil
    uint64_t cl_read_chunk(const char* digits, int64_t count, int base) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil

cl_fill_digit_values()

cdef enum:
    MAX_LEVELS = 60
    SLICE = 1 << 17  # digits between two looks at the signals

# One power of the tree: big^(t 2^j).
cdef struct Power:
    int64_t n
    uint64_t* limbs  # [n], as it is (from digits) or shifted to set its top bit (to digits)
    uint64_t* reciprocal  # [n] of the shifted limbs, or NULL
    int shift

cdef struct Tree:
    int base
    int digits  # of a chunk
    uint64_t big  # base^digits
    int64_t leaf  # chunks of a leaf
    int levels
    Power powers[MAX_LEVELS]


# Sizes


cdef int64_t digits_room(int64_t bits, int base) noexcept nogil:
    # The quotient is at most 2^-50 of itself off.
    return <int64_t>ceil(bits / log2(base) * (1 + 1e-15)) + 1


cdef int64_t limbs_room(int64_t count, int base) noexcept nogil:
    return <int64_t>(count * log2(base) * (1 + 1e-15) / 64) + 2


cdef int _bits_of_base(int base) noexcept nogil:
    """k where base = 2^k, 0 where it is no power of two."""
    cdef int k = 1
    while (1 << k) < base:
        k += 1
    return k if (1 << k) == base else 0


# The tree of powers


cdef void _tree_free(Tree* tree) noexcept nogil:
    cdef int j
    for j in range(tree.levels):
        free(tree.powers[j].limbs)
        free(tree.powers[j].reciprocal)


cdef void _tree_start(Tree* tree, int base, int64_t digits, int64_t leaf) noexcept nogil:
    """Choose levels and the leaf, at most `leaf` chunks, so that the tree holds the digits."""
    tree.base = base
    tree.big = base
    tree.digits = 1
    while tree.big <= <uint64_t>-1 // <uint64_t>base:
        tree.big *= <uint64_t>base
        tree.digits += 1
    tree.leaf = (digits + tree.digits - 1) // tree.digits
    tree.levels = 0
    while tree.leaf > leaf:
        tree.leaf = (tree.leaf + 1) >> 1
        tree.levels += 1


cdef int _tree_grow(Tree* tree) noexcept nogil:
    """Compute the powers big^(leaf 2^j) for j < levels."""
    cdef int levels = tree.levels
    cdef int j
    cdef int64_t n
    cdef int status
    cdef Power* power
    cdef uint64_t carry
    tree.levels = 0
    for j in range(levels):
        power = &tree.powers[j]
        n = 2 * tree.powers[j - 1].n if j else tree.leaf
        power.shift = 0
        power.reciprocal = NULL
        power.limbs = <uint64_t*>malloc(n * sizeof(uint64_t))
        if power.limbs == NULL:
            return NO_MEMORY
        tree.levels = j + 1
        if j:
            status = limbs_sqr(power.limbs, tree.powers[j - 1].limbs, n >> 1)
            if status != OK:
                return status
            power.n = limbs_normalize(power.limbs, n)
        else:
            power.limbs[0] = 1
            power.n = 1
            for _ in range(n):
                carry = exact_primitives().limbs.mul_1(power.limbs, power.limbs, power.n, tree.big)
                if carry:
                    power.limbs[power.n] = carry
                    power.n += 1
        status = poll()
        if status != OK:
            return status
    return OK


cdef int _tree_prepare_quotients(Tree* tree) noexcept nogil:
    """Shift the powers to set their top bits and compute the reciprocals of large ones."""
    cdef int j, status
    cdef Power* power
    for j in range(tree.levels):
        power = &tree.powers[j]
        power.shift = __builtin_clzll(power.limbs[power.n - 1])
        if power.shift:
            exact_primitives().limbs.lshift(power.limbs, power.limbs, power.n, power.shift)
        if power.n < thresholds().to_digits_reciprocal or power.n < 2:
            continue
        power.reciprocal = <uint64_t*>malloc(power.n * sizeof(uint64_t))
        if power.reciprocal == NULL:
            return NO_MEMORY
        status = limbs_reciprocal(power.reciprocal, power.limbs, power.n)
        if status != OK:
            return status
    return OK


# To digits


cdef int _write_leaf(char* digits, uint64_t* v, int64_t n, const Tree* tree) noexcept nogil:
    """The leaf * tree.digits digits of v[n] < big^leaf; v is destroyed."""
    cdef int64_t t = tree.leaf
    cdef int64_t i
    cdef int count = tree.digits
    n = limbs_normalize(v, n)
    if n <= 8:  # too short to pay for what follows
        i = t
        while i > 0:
            i -= 1
            if n == 0:
                memset(digits, c'0', (i + 1) * count)
                return OK
            cl_write_chunk(digits + i * count, count,
                           exact_primitives().division.divrem_1(v, v, n, tree.big), tree.base)
            n = limbs_normalize(v, n)
        return OK
    # f = floor((v + 1/2) B^(t + 1) / big^t): every chunk is the integer part of f times big.  What
    # is lost with the low limb at each step is less than 1 / B of what a unit of v makes.
    cdef const Power* power = &tree.powers[0]
    cdef int64_t un = power.n + t + 1
    cdef uint64_t* u = <uint64_t*>malloc((un + t + 1) * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    cdef uint64_t* f = u + un
    cdef uint64_t top
    limbs_zero(u, un)
    u[t] = <uint64_t>1 << 63
    limbs_copy(u + t + 1, v, n)
    if power.shift:
        exact_primitives().limbs.lshift(u + t, u + t, un - t, power.shift)
    cdef int status = limbs_divide(f, &top, u, un, power.limbs, power.n)
    if status == OK:
        for i in range(t):
            cl_write_chunk(digits + i * count, count,
                           exact_primitives().limbs.mul_1(f + i, f + i, t + 1 - i, tree.big),
                           tree.base)
    free(u)
    return status


cdef int _write_node(char* digits, uint64_t* v, const Tree* tree, int level) noexcept nogil:
    """The digits of v < big^(leaf 2^level).

    v [2 n] where n is the size of the power below; at level 0 the size of the leaf's.  Destroyed.
    """
    if level == 0:
        return _write_leaf(digits, v, tree.powers[0].n, tree)
    cdef const Power* power = &tree.powers[level - 1]
    cdef int64_t n = power.n
    cdef int64_t width = 2 * tree.powers[level - 2].n if level > 1 else n  # of the halves, >= n
    cdef int64_t half = tree.digits * tree.leaf << (level - 1)
    cdef uint64_t top
    cdef int status = poll()
    if status != OK:
        return status
    cdef uint64_t* q = <uint64_t*>malloc(width * sizeof(uint64_t))
    if q == NULL:
        return NO_MEMORY
    if power.shift:
        exact_primitives().limbs.lshift(v, v, 2 * n, power.shift)
    if power.reciprocal != NULL:
        status = limbs_divide_by(q, &top, v, 2 * n, power.limbs, n, power.reciprocal, n)
    else:
        status = limbs_divide(q, &top, v, 2 * n, power.limbs, n)
    if status == OK:
        limbs_zero(q + n, width - n)
        status = _write_node(digits, q, tree, level - 1)
    free(q)
    if status == OK:
        if power.shift:
            exact_primitives().limbs.rshift(v, v, n, power.shift)
        limbs_zero(v + n, width - n)
        status = _write_node(digits + half, v, tree, level - 1)
    return status


cdef int _write_by_tree(char* digits, int64_t* count, const uint64_t* a, int64_t n,
                        int base) noexcept nogil:
    cdef Tree tree
    _tree_start(&tree, base, digits_room(64 * n, base), max(thresholds().to_digits, 2))
    cdef int levels = tree.levels
    cdef int64_t width, total = tree.digits * tree.leaf << levels
    cdef int64_t zeros = 0
    cdef uint64_t* v = NULL
    cdef char* padded = NULL
    tree.levels = max(levels, 1)  # a leaf needs the first power too
    cdef int status = _tree_grow(&tree)
    if status == OK:
        status = _tree_prepare_quotients(&tree)
    if status == OK:
        width = max(2 * tree.powers[levels - 1].n if levels else tree.powers[0].n, n)
        v = <uint64_t*>malloc(width * sizeof(uint64_t))
        padded = <char*>malloc(total)
        if v == NULL or padded == NULL:
            status = NO_MEMORY
    if status == OK:
        limbs_copy(v, a, n)
        limbs_zero(v + n, width - n)
        status = _write_node(padded, v, &tree, levels)
    if status == OK:
        while zeros + 1 < total and padded[zeros] == c'0':
            zeros += 1
        count[0] = total - zeros
        memcpy(digits, padded + zeros, count[0])
    free(padded)
    free(v)
    _tree_free(&tree)
    return status


cdef int limbs_to_digits(char* digits, int64_t* count, const uint64_t* a, int64_t n,
                         int base) noexcept nogil:
    cdef int k = _bits_of_base(base)
    cdef int64_t i, bit, limb, bits, end
    cdef uint64_t digit
    cdef int status
    cdef const char* alphabet = cl_alphabet(base)
    n = limbs_normalize(a, n)
    if n == 0:
        digits[0] = c'0'
        count[0] = 1
        return OK
    if k == 0:
        return _write_by_tree(digits, count, a, n, base)
    bits = 64 * n - __builtin_clzll(a[n - 1])
    count[0] = (bits + k - 1) // k
    i = 0
    while i < count[0]:
        end = min(count[0], i + SLICE)
        while i < end:
            bit = (count[0] - 1 - i) * k
            limb = bit >> 6
            digit = a[limb] >> (bit & 63)
            if (bit & 63) + k > 64 and limb + 1 < n:
                digit |= a[limb + 1] << (64 - (bit & 63))
            digits[i] = alphabet[digit & <uint64_t>(base - 1)]
            i += 1
        if i < count[0]:
            status = poll()
            if status != OK:
                return status
    return OK


# From digits


cdef int64_t _read_chunks(uint64_t* r, const char* digits, int64_t count,
                          const Tree* tree) noexcept nogil:
    """r = digits[count], a leaf's or fewer, without leading zero limbs; returns their number."""
    cdef int64_t n = 0, at = 0
    cdef int64_t size = count % tree.digits
    cdef uint64_t carry
    if size == 0:
        size = tree.digits
    while at < count:
        carry = cl_read_chunk(digits + at, size, tree.base)
        if n:
            carry = (exact_primitives().limbs.mul_1(r, r, n, tree.big)
                     + limbs_add_1(r, r, n, carry))
        if carry:
            r[n] = carry
            n += 1
        at += size
        size = tree.digits
    return n


cdef int _read_node(uint64_t* r, int64_t* rn, const char* digits, int64_t count, const Tree* tree,
                    int level) noexcept nogil:
    """r[rn] = digits[count], count <= leaf * tree.digits * 2^level; room for limbs_room."""
    cdef int64_t low_count, high_n = 0, low_n = 0
    cdef const Power* power
    cdef uint64_t* halves
    cdef uint64_t* low
    cdef int status
    while level > 0 and count <= tree.digits * tree.leaf << (level - 1):
        level -= 1
    if level == 0:
        rn[0] = _read_chunks(r, digits, count, tree)
        return OK
    power = &tree.powers[level - 1]
    low_count = tree.digits * tree.leaf << (level - 1)
    status = poll()
    if status != OK:
        return status
    halves = <uint64_t*>malloc((limbs_room(count - low_count, tree.base)
                                + limbs_room(low_count, tree.base)) * sizeof(uint64_t))
    if halves == NULL:
        return NO_MEMORY
    low = halves + limbs_room(count - low_count, tree.base)
    status = _read_node(halves, &high_n, digits, count - low_count, tree, level - 1)
    if status == OK:
        status = _read_node(low, &low_n, digits + count - low_count, low_count, tree, level - 1)
    if status == OK and high_n == 0:
        limbs_copy(r, low, low_n)
        rn[0] = low_n
    elif status == OK:
        # the low half is below the power, so the sum is no longer than the product
        if high_n >= power.n:
            status = limbs_mul(r, halves, high_n, power.limbs, power.n)
        else:
            status = limbs_mul(r, power.limbs, power.n, halves, high_n)
        if status == OK and low_n:
            limbs_add_1(r + low_n, r + low_n, high_n + power.n - low_n,
                        exact_primitives().limbs.add_n(r, r, low, low_n))
        rn[0] = limbs_normalize(r, high_n + power.n)
    free(halves)
    return status


cdef int limbs_from_digits(uint64_t* r, int64_t* rn, const char* digits, int64_t count,
                           int base) noexcept nogil:
    cdef int k = _bits_of_base(base)
    cdef int64_t i = 0, bit, n, end
    cdef uint64_t digit
    cdef Tree tree
    cdef int status
    while i < count:
        end = min(count, i + SLICE)
        i += cl_bad_digit(digits + i, end - i, base)
        if i < end:
            rn[0] = i
            return BAD_DIGIT
        if i < count:
            status = poll()
            if status != OK:
                return status
    while count > 0 and digits[0] == c'0':
        digits += 1
        count -= 1
    if k:
        n = (count * k + 63) // 64
        limbs_zero(r, n)
        i = 0
        while i < count:
            end = min(count, i + SLICE)
            while i < end:
                digit = cl_digit_values[base > 36][<unsigned char>digits[count - 1 - i]]
                bit = i * k
                r[bit >> 6] |= digit << (bit & 63)
                if (bit & 63) + k > 64 and (bit >> 6) + 1 < n:
                    r[(bit >> 6) + 1] = digit >> (64 - (bit & 63))
                i += 1
            if i < count:
                status = poll()
                if status != OK:
                    return status
        rn[0] = limbs_normalize(r, n)
        return OK
    _tree_start(&tree, base, count, max(thresholds().from_digits, 2))
    status = _tree_grow(&tree)
    if status == OK:
        status = _read_node(r, rn, digits, count, &tree, tree.levels)
    _tree_free(&tree)
    return status


# The doors of the tests


def to_digits(const uint64_t[::1] a not None, int base) -> bytes:
    """Return the limbs of a number, least significant first, as ASCII digits in a base.

    >>> import numpy as np
    >>> to_digits(np.uint64([0, 1]), 10)
    b'18446744073709551616'
    """
    _expect_base(base)
    cdef int64_t n = a.shape[0], count
    cdef int status
    cdef bytes digits = bytes(digits_room(64 * n, base) + 1)
    cdef char* out = digits
    with nogil:
        status = limbs_to_digits(out, &count, &a[0], n, base)
    check(status)
    return digits[:count]


def from_digits(uint64_t[::1] r not None, bytes digits not None, int base) -> int:
    """Fill r with the number that ASCII digits are in a base; return how many limbs it takes.

    r: OUT, least significant first, room for `room_for_digits`.

    >>> import numpy as np
    >>> r = np.empty(room_for_digits(20, 10), np.uint64)
    >>> n = from_digits(r, b"18446744073709551616", 10); print(r[:n])
    [0 1]
    """
    _expect_base(base)
    cdef int64_t count = len(digits), n
    cdef int status
    cdef const char* source = digits
    if r.shape[0] < limbs_room(count, base):
        raise ValueError(f"r has {r.shape[0]} elements, {limbs_room(count, base)} are needed")
    with nogil:
        status = limbs_from_digits(&r[0], &n, source, count, base)
    if status == BAD_DIGIT:
        raise ValueError(f"{digits[n:n + 1]!r} at {n} is no digit in base {base}")
    check(status)
    return n


def room_for_digits(int64_t count, int base) -> int:
    """Return how many limbs `from_digits` needs for `count` digits in a base.

    >>> room_for_digits(1000, 10)
    53
    """
    _expect_base(base)
    return limbs_room(count, base)


cdef int _expect_base(int base) except -1:
    if not 2 <= base <= 62:
        raise ValueError(f"base {base} is not from 2 to 62")
    return 0
