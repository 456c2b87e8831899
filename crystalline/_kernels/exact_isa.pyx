"""Which instructions the exact kernels use: chosen once, at import, as in `isa`.

CRYSTALLINE_ISA speaks for both: a level that exists here too is forced here too.  Any other one,
and no value, leave the choice to the features of the CPU, so that the 52-bit multiply-adds (IFMA)
are used where there are some.
"""

from crystalline._kernels import isa
from crystalline.machine import cpu, levels

cdef extern from *:
    """
    #include "exact.h"
    #define CL_ADDRESS(level) &cl_exact_##level,
    static const ExactPrimitives *const cl_exact_tables[] = {CL_EXACT_LEVELS(CL_ADDRESS) 0};
    #undef CL_ADDRESS
    """
    const ExactPrimitives* cl_exact_tables[]

LEVELS = tuple(level.name for level in levels.EXACT_LEVELS)

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
    available = [level.name for level in levels.available(levels.EXACT_LEVELS, cpu.FEATURES)]
    *_, highest = available
    forced = isa.forced_level()
    _table = cl_exact_tables[LEVELS.index(forced if forced in available else highest)]


_choose()
