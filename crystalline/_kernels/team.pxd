# A team of threads for nogil callers: see team.pyx.

cdef extern from "team.h" nogil:
    ctypedef struct TeamThreads:
        int members
    # What every member does in a run; members counts them all.
    ctypedef void (*TeamWork)(int member, int members, void* argument) noexcept nogil
    # Waits, inside the work of a run, until every member is here.  NULL: a team of one.
    void team_barrier(TeamThreads* team)

cdef class Team:
    cdef TeamThreads* members  # NULL: closed
    cdef readonly int threads

# Runs `work` on every member, and returns when all are done.  It is called with the GIL, which it
# gives up meanwhile.  Raises ValueError where the team is closed, at a run, or another process's.
cdef int team_run(Team team, TeamWork work, void* argument) except -1
