"""Which instructions the kernels use: detected from CPU features and chosen once, at import.

The environment variable CRYSTALLINE_ISA forces a level; a level this machine
lacks is an error, never a silent fallback.
"""

import os
import time

from crystalline.errors import UnsupportedError

cdef extern from *:
    """
    #include "primitives.h"
    /* Features are asked for one by one, with the operating system's support included. */
    static int cl_has_avx2(void) {
    #if defined(__x86_64__)
      __builtin_cpu_init();
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
             __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("lzcnt");
    #else
      return 0;
    #endif
    }
    static int cl_has_avx512(void) {
    #if defined(__x86_64__)
      return cl_has_avx2() && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("adx");
    #else
      return 0;
    #endif
    }
    static int cl_has_avx512bf16(void) {
    #if defined(__x86_64__)
      return cl_has_avx512() && __builtin_cpu_supports("avx512bf16");
    #else
      return 0;
    #endif
    }
    static const Primitives *cl_table(int level) {
    #if defined(__x86_64__)
      if (level == 3) return &cl_primitives_avx512bf16;
      if (level == 2) return &cl_primitives_avx512;
      if (level == 1) return &cl_primitives_avx2;
    #endif
      return &cl_primitives_base;
    }
    """
    bint cl_has_avx2() noexcept
    bint cl_has_avx512() noexcept
    bint cl_has_avx512bf16() noexcept
    const Primitives* cl_table(int level) noexcept

LEVELS = ("base", "avx2", "avx512", "avx512bf16")
ENVIRONMENT_VARIABLE = "CRYSTALLINE_ISA"

cdef const Primitives* _table


cdef const Primitives* primitives() noexcept nogil:
    return _table


def available_levels() -> tuple[str, ...]:
    """Return the levels this machine can run, lowest first.

    >>> available_levels()[0]
    'base'
    """
    levels = ["base"]
    if cl_has_avx2():
        levels.append("avx2")
    if cl_has_avx512():
        levels.append("avx512")
    if cl_has_avx512bf16():
        levels.append("avx512bf16")
    return tuple(levels)


def level() -> str:
    """Return the level in use.

    >>> level() in available_levels()
    True
    """
    return (<bytes>_table.name).decode()


def has_bf16() -> bool:
    """Return whether the level in use multiplies bfloat16 in one instruction.

    Where it does not, bf16 products are right but no faster than float32 ones.
    """
    return level() == "avx512bf16"


ctypedef int64_t (*Stream)(int64_t rounds, float* sink) noexcept nogil


cdef double best_rate(Stream stream, double seconds):
    cdef float sink = 0.5
    cdef double best = 0.0, start, elapsed
    cdef double end = time.perf_counter() + seconds
    cdef int64_t flops
    while True:
        start = time.perf_counter()
        with nogil:
            flops = stream(20000, &sink)
        elapsed = time.perf_counter() - start
        best = max(best, flops / elapsed)
        if time.perf_counter() >= end:
            return best


def fma_flops_per_second(double seconds=0.2) -> float:
    """Measure this core's float32 peak: fused multiply-adds on registers only, FLOP/s.

    Takes about `seconds`; the best of the slices, since a peak is what the core can do.
    """
    return best_rate(_table.fma_peak, seconds)


def bf16_flops_per_second(double seconds=0.2) -> float:
    """Measure this core's bf16 peak in the same way, FLOP/s."""
    return best_rate(_table.bf16_peak, seconds)


def forced_level() -> str | None:
    """Return the level that CRYSTALLINE_ISA asks for, None when it leaves the choice open."""
    return os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() or None


def _choose():
    global _table
    available = available_levels()
    wanted = forced_level()
    if wanted and wanted not in available:
        raise UnsupportedError(
            f"{ENVIRONMENT_VARIABLE} is {wanted!r}, which this machine does not have",
            advice=f"Use one of: {', '.join(available)}, or unset it.",
        )
    _table = cl_table(LEVELS.index(wanted or max(available, key=LEVELS.index)))


_choose()
