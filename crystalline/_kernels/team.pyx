"""A team of threads for what one process computes: created once, run thousands of times a second.

    cdef void work(int member, int members, void* argument) noexcept nogil: ...
    team_run(team, work, &argument)

The caller is member 0, so a team of one has no threads.  Inside the work, `team_barrier` ends a
stage: it costs about a microsecond while every member has a core.  Members that wait spin for
50 microseconds at most, or not at all where the team has more members than cores, and then sleep;
between runs they sleep.  The level's hooks for threads stand around every member's work.

The work runs to its end: signals reach Python's threads only, and their handlers run in the caller
after the run.  So Ctrl-C takes as long as one run does.  Threads do not live on in a fork: there a
team refuses to run, and a new one has to be made.
"""

import os

from crystalline.machine.cores import usable_cores

cimport cython
from libc.errno cimport EBUSY, ECHILD, errno
from libc.stdint cimport int64_t
from libc.string cimport memset

from crystalline._kernels.atomics cimport monotonic_ns_now
from crystalline._kernels.isa cimport begin_thread, end_thread

cdef extern from "team.h" nogil:
    ctypedef void (*TeamHook)() noexcept nogil
    TeamThreads* team_open(int members, int cores, TeamHook begin, TeamHook end)
    void team_close(TeamThreads* team)
    int team_go(TeamThreads* team, TeamWork work, void* argument)

cdef enum:
    MOST_THREADS = 1024


cdef void begin() noexcept nogil:
    begin_thread()


cdef void end() noexcept nogil:
    end_thread()


@cython.final
cdef class Team:
    """Threads that compute together.

    Parameters
    ----------
    threads : members, the caller among them; 0: as many as cores that this process may keep busy

    >>> with Team(2) as team:
    ...     team.threads, exercise(team, stages=3)[0]
    (2, 0)
    """

    def __cinit__(self):
        self.members = NULL

    def __init__(self, int threads=0):
        if not 0 <= threads <= MOST_THREADS:
            raise ValueError(f"threads is {threads}, expected 0 to {MOST_THREADS}")
        if self.members != NULL:
            raise ValueError("the team has begun")
        cores = usable_cores()
        self.threads = threads or min(cores, MOST_THREADS)
        self.members = team_open(self.threads, cores, begin, end)
        if self.members == NULL:
            raise OSError(errno, f"there are no {self.threads} threads: {os.strerror(errno)}")

    def __dealloc__(self):
        team_close(self.members)

    def close(self) -> None:
        """End the threads; a closed team stays closed.  Raises ValueError during a run."""
        cdef TeamThreads* members = self.members
        if members == NULL:
            return
        _expect(team_go(members, nothing, NULL), ECHILD)  # nobody else is in a run from here on
        self.members = NULL
        with nogil:
            team_close(members)

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.close()


cdef void nothing(int member, int members, void* argument) noexcept nogil:
    pass


cdef int _expect(int refusal, int but=0) except -1:
    if refusal == EBUSY:
        raise ValueError("the team is at a run")
    if refusal == ECHILD and but != ECHILD:
        raise ValueError("the team's threads are another process's: make a team after a fork")
    return 0


cdef int team_run(Team team, TeamWork work, void* argument) except -1:
    cdef TeamThreads* members = team.members
    cdef int refusal
    if members == NULL:
        raise ValueError("the team is closed")
    with nogil:
        refusal = team_go(members, work, argument)
    return _expect(refusal)


# What `exercise` has the members do: each counts its stages and looks at the others' counts.
cdef struct Exercise:
    TeamThreads* threads
    int64_t stages
    int64_t counts[MOST_THREADS]
    int64_t mistakes[MOST_THREADS]


cdef void count_stages(int member, int members, void* argument) noexcept nogil:
    cdef Exercise* e = <Exercise*>argument
    cdef int64_t stage
    cdef int other
    for stage in range(e.stages):
        e.counts[member] += 1
        team_barrier(e.threads)
        for other in range(members):
            e.mistakes[member] += e.counts[other] != stage + 1
        team_barrier(e.threads)


def exercise(Team team not None, *, int64_t stages) -> tuple[int, float]:
    """Let a team count stages of two barriers each: the counts found wrong, and the seconds taken.

    A count is wrong where a member was not where the barriers should have kept it.
    """
    cdef Exercise e
    memset(&e, 0, sizeof(e))
    e.threads, e.stages = team.members, stages
    cdef int64_t start = monotonic_ns_now()
    team_run(team, count_stages, &e)
    cdef int64_t end = monotonic_ns_now()
    mistakes = 0
    for member in range(team.threads):
        mistakes += e.mistakes[member] + (e.counts[member] != stages)
    return mistakes, (end - start) / 1e9
