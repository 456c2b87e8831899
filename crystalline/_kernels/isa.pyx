"""Which instructions the kernels use: chosen once, at import, from the features of the CPU.

The levels are those of `machine.levels`; one is available where the CPU has its features and the
operating system allows it.  The environment variable CRYSTALLINE_ISA forces a level; one that this
machine lacks is an error, never a silent fallback.

A build for tests makes the matrix tiles of plain C (see setup.py).  Their level is then there on
machines without tiles too, much slower, and only where it is asked for.
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
    #if defined(CL_PLAIN_TILES)
    #define CL_TILES_ARE_PLAIN 1
    #else
    #define CL_TILES_ARE_PLAIN 0
    #endif
    """
    const Primitives* cl_tables[]
    bint CL_TILES_ARE_PLAIN

LEVELS = tuple(level.name for level in levels.LEVELS)
ENVIRONMENT_VARIABLE = "CRYSTALLINE_ISA"
PLAIN_TILES = bool(CL_TILES_ARE_PLAIN)  # whether this is the build for tests

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
    *_, highest = _named(_REAL)
    _table = table_named(wanted or highest)


def _named(features):
    """Return the names of the levels for these features that the operating system allows."""
    found = levels.available(levels.LEVELS, features)
    return tuple(level.name for level in found if is_allowed(level.name))


_TILES = frozenset(levels.TILES)
_REAL = cpu.FEATURES - _TILES if PLAIN_TILES else cpu.FEATURES
_AVAILABLE = _named(cpu.FEATURES | _TILES if PLAIN_TILES else cpu.FEATURES)
_choose()
