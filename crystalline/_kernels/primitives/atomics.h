/* Atomic words, futexes and a few system calls that Python's standard library lacks.
 *
 * Linux on x86-64 and aarch64 only: words are little-endian, so the futex of a 64-bit
 * word is its low half.  Everything is sequentially consistent unless its name says
 * otherwise; the protocol that needs it is drawn in crystalline/ipc/__init__.py.
 */
#ifndef CRYSTALLINE_ATOMICS_H
#define CRYSTALLINE_ATOMICS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the futex of a 64-bit word is taken to be its low half"
#endif

static inline int64_t word_load(const int64_t *w) { return __atomic_load_n(w, __ATOMIC_SEQ_CST); }

static inline int64_t word_load_relaxed(const int64_t *w) {
    return __atomic_load_n(w, __ATOMIC_RELAXED);
}

static inline void word_store(int64_t *w, int64_t value) {
    __atomic_store_n(w, value, __ATOMIC_SEQ_CST);
}

static inline void word_store_relaxed(int64_t *w, int64_t value) {
    __atomic_store_n(w, value, __ATOMIC_RELAXED);
}

/* Returns whether `w` held `expected` and now holds `value`. */
static inline int word_compare_exchange(int64_t *w, int64_t expected, int64_t value) {
    return __atomic_compare_exchange_n(w, &expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline int64_t word_fetch_add(int64_t *w, int64_t amount) {
    return __atomic_fetch_add(w, amount, __ATOMIC_SEQ_CST);
}

static inline int64_t monotonic_ns_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* Sleep while the low half of `w` equals that of `expected`.  Returns 0 when woken (or by
 * chance), EAGAIN when the word differed, ETIMEDOUT, EINTR. */
static inline int word_futex_wait(int64_t *w, int64_t expected, int64_t timeout_ns) {
    struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    long rc = syscall(SYS_futex, (uint32_t *)w, FUTEX_WAIT, (uint32_t)expected, &t, NULL, 0);
    return rc == 0 ? 0 : errno;
}

/* Wake at most `count` sleepers, the one that has slept longest first; returns how many. */
static inline long word_futex_wake(int64_t *w, int count) {
    return syscall(SYS_futex, (uint32_t *)w, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Spin until `w` differs from `value` (returns 1) or `max_ns` have passed (returns 0).  The
 * processor is offered to others every few microseconds: the one waited for may need it. */
static inline int word_spin_until_not_equal(const int64_t *w, int64_t value, int64_t max_ns) {
    const int64_t end = monotonic_ns_now() + max_ns;
    for (;;) {
        for (int i = 0; i < 32; i++) {
            if (word_load(w) != value) return 1;
            cpu_pause();
        }
        if (monotonic_ns_now() >= end) return word_load(w) != value;
        sched_yield();
    }
}

/* Index of the first word of [start, stop) below `bound`, or -1. */
static inline int64_t words_first_below(const int64_t *w, int64_t start, int64_t stop,
                                        int64_t bound) {
    for (int64_t i = start; i < stop; i++)
        if (word_load(w + i) < bound) return i;
    return -1;
}

/* Set to `value` the first word of start, start + stride, … < stop that is below `bound`;
 * returns its index, or -1 when there is none. */
static inline int64_t words_claim_below(int64_t *w, int64_t start, int64_t stop, int64_t stride,
                                        int64_t bound, int64_t value) {
    for (int64_t i = start; i < stop; i += stride) {
        int64_t seen = word_load(w + i);
        while (seen < bound) {
            if (__atomic_compare_exchange_n(w + i, &seen, value, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
                return i;
        }
    }
    return -1;
}

#endif
