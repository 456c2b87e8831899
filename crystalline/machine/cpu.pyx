"""The features of this CPU that the operating system lets programs use, found once, at import.

Only features that a level of `machine.levels` asks for are looked for.  They are asked for one by
one and never guessed from the maker's or family's number.
"""

cdef extern from *:
    """
    #include "levels.h"
    /* XGETBV, the operating system's word, is part of each answer. */
    static const char *cl_next_feature(int *at) {
    #if defined(__x86_64__)
      int i = 0;
      __builtin_cpu_init();
    #define CL_ASK(name) if (i++ >= *at && __builtin_cpu_supports(name)) return *at = i, name;
      CL_CPU_FEATURES(CL_ASK)
    #undef CL_ASK
    #endif
      return 0;
    }
    """
    const char* cl_next_feature(int* at) noexcept


def _find():
    cdef int at = 0
    cdef const char* name = cl_next_feature(&at)
    found = []
    while name != NULL:
        found.append((<bytes>name).decode())
        name = cl_next_feature(&at)
    return frozenset(found)


FEATURES = _find()
