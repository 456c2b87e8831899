"""Which instructions the kernels use: chosen once, at import, from the features of the CPU.

The levels are those of `machine.levels`; one is available where the CPU has its features and the
operating system allows it.  The environment variable CRYSTALLINE_ISA forces a level; one that this
machine lacks is an error, never a silent fallback.
"""

import os

from crystalline.errors import UnsupportedError
from crystalline.machine import cpu, levels

cdef extern from *:
    """
    #include "primitives.h"
    #define CL_ADDRESS(level) &cl_primitives_##level,
    static const Primitives *const cl_tables[] = {CL_LEVELS(CL_ADDRESS) 0};
    #undef CL_ADDRESS
    """
    const Primitives* cl_tables[]

LEVELS = tuple(level.name for level in levels.LEVELS)
ENVIRONMENT_VARIABLE = "CRYSTALLINE_ISA"

cdef const Primitives* _table


cdef const Primitives* primitives() noexcept nogil:
    return _table


cdef const Primitives* table_named(str name) except NULL:
    cdef int i = 0
    while cl_tables[i] != NULL:
        if (<bytes>cl_tables[i].name).decode() == name:
            return cl_tables[i]
        i += 1
    raise LookupError(f"the build has no level {name!r}")


cdef bint is_allowed(str name) except -1:
    begin = table_named(name).hooks.begin_process
    return begin == NULL or begin()


def available_levels() -> tuple[str, ...]:
    """Return the levels this machine can run, lowest first.

    >>> available_levels()[0]
    'base'
    """
    return _AVAILABLE


def level() -> str:
    """Return the level in use.

    >>> level() in available_levels()
    True
    """
    return (<bytes>_table.name).decode()


def forced_level() -> str | None:
    """Return the level that CRYSTALLINE_ISA asks for, None when it leaves the choice open."""
    return os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() or None


def _choose():
    global _table
    wanted = forced_level()
    if wanted and wanted not in _AVAILABLE:
        raise UnsupportedError(
            f"{ENVIRONMENT_VARIABLE} is {wanted!r}, which this machine does not have",
            advice=f"Use one of: {', '.join(_AVAILABLE)}, or unset it.",
        )
    *_, highest = _AVAILABLE
    _table = table_named(wanted or highest)


_AVAILABLE = tuple(
    level.name for level in levels.available(levels.LEVELS, cpu.FEATURES) if is_allowed(level.name)
)
_choose()
