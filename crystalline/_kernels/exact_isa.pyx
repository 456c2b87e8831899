"""Which instructions the exact kernels use: chosen once, at import, as in `isa`.

CRYSTALLINE_ISA speaks for both: base, avx2 and avx512 force the level of that name here too;
avx512bf16, and no value, allow the 52-bit multiply-adds (IFMA) where the CPU has them, which is
a level of its own since neither feature implies the other.
"""

from crystalline._kernels import isa

cdef extern from *:
    """
    #include "exact.h"
    static int cl_has_ifma(void) {
    #if defined(__x86_64__)
      __builtin_cpu_init();
      return __builtin_cpu_supports("avx512ifma") != 0;
    #else
      return 0;
    #endif
    }
    static const ExactPrimitives *cl_exact_table(int level) {
    #if defined(__x86_64__)
      if (level == 3) return &cl_exact_avx512ifma;
      if (level == 2) return &cl_exact_avx512;
      if (level == 1) return &cl_exact_avx2;
    #endif
      return &cl_exact_base;
    }
    """
    bint cl_has_ifma() noexcept
    const ExactPrimitives* cl_exact_table(int level) noexcept

LEVELS = ("base", "avx2", "avx512", "avx512ifma")

cdef const ExactPrimitives* _table


cdef const ExactPrimitives* exact_primitives() noexcept nogil:
    return _table


def level() -> str:
    """Return the level of the exact primitives in use.

    >>> level() in LEVELS
    True
    """
    return (<bytes>_table.name).decode()


def _choose():
    global _table
    wanted = LEVELS.index(isa.level().removesuffix("bf16"))
    if wanted == 2 and isa.forced_level() != "avx512" and cl_has_ifma():
        wanted = 3
    _table = cl_exact_table(wanted)


_choose()
