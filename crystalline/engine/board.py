"""The engine's own regions of the arena: their table, and the names of their words.

`crystalline.ipc` tells who may write what.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystalline._kernels.atomics import Words
from crystalline.engine.phase import Phase
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.barrier import BARRIER_WORDS, Barrier, Handout
from crystalline.ipc.bells import BELL_WORDS, Bells
from crystalline.ipc.mailbox import words_needed
from crystalline.ipc.permits import Permits

ERROR_BYTES = 2048

# control: words of the launcher.
CONTROL_WORDS = 16
(
    STOP,  # number of the reason to stop at the next opportunity, 0: none
    ASKED,  # requests put into the queue so far
    ATTACHED,  # 1: the launcher has mapped the arena
    SUSPENDED_NS,  # time that the whole run was suspended by job control so far
) = range(4)

# state: what Node Zero does now.
STATE_WORDS = 24
(
    RUN_STATE,  # a number of the program's
    SPHERES,  # spheres wanted now
    ANSWERED,  # requests of the queue that have been answered
    STARTED_NS,  # monotonic time at which the work began in this session
    DEATHS,  # spheres that died in this session: entries ever written to the ring of deaths
    PAUSED_NS,  # time that this session was paused
    SINCE_NS,  # monotonic time at which what it does now began
    WORK_DONE,  # of what it does now, in units of the program's
    WORK_TOTAL,  # 0: not known
    ORDERS,  # orders given so far, see `growth`
    LAST_ID,  # of the nodes of the tree, and of forks; each takes the next
    UNIT_NS,  # what a unit that takes long took lately, 0: not known
    CHANGES,  # of the tree so far
) = range(13)

# requests: places of the queue; see `engine.queue`.
REQUEST_PLACES = 16
REQUEST_HEAD = 8  # words; the wish and the answer follow
REQUEST_TEXT_BYTES = 512

# spheres: a row per node of the tree (`tree`); the words from S_PROGRAM on are the program's.
SPHERE_WORDS = 48
(
    S_STATE,  # index into the states of the board
    S_PID,  # 0: nobody; below 0: being forked (`tree`)
    S_BEAT,  # grows while the sphere is well
    S_COMPUTE_NS,
    S_SYNC_NS,
    S_IDLE_NS,
    S_WAIT_NS,
    S_RESPAWNS,
    S_ID,  # of the node, never used again in a session; 0: free; below 0: being written (`tree`)
    S_PARENT,  # row of its parent, `shape.NODE_ZERO` for Node Zero
    S_PLACE,  # among its siblings, from 0
    S_GROUP,  # symmetry position, 0 to 11, whose work it prefers
    S_ROLE,  # of `tree`: leaf, control, leaving
    S_ORDER,  # number of an order, and which children it shall have (`growth`)
    S_ANSWER,  # number of the order that was followed last, and what came of it
    S_HOME,  # 1 + the position that it prefers in place of S_GROUP's, 0: none was given
    S_PACE_NS,  # what a unit of some position took it lately, 0: it did none
    S_RETRIES,  # units that were taken back from it when it died
    S_ERRORS,  # times it died with an error of its own
) = range(19)
S_PROGRAM = 24

# deaths: a ring, an entry per sphere that died, written by who buried it.
DEATH_RING, DEATH_WORDS = 64, 8
D_NUMBER, D_ROW, D_NODE, D_STATUS, D_ADOPTED = range(5)  # the number, from 1, is written last

# What a sphere does; the programs' own states follow, see `states_of`.
SPHERE_STATES = ("starting", "idle", "waiting", "dead", "retired", "control")
STARTING, IDLING, WAITING, DEAD, RETIRED, CONTROLLING = range(len(SPHERE_STATES))


def states_of(phases: Sequence[Phase]) -> tuple[str, ...]:
    """Return the states of spheres, by number: the engine's, and what the phases show.

    >>> work = Phase("add", 3, lambda unit, permit, me: None, "compute")
    >>> states_of([work])[3:]
    ('dead', 'retired', 'control', 'compute')
    """
    return (*SPHERE_STATES, *dict.fromkeys(phase.shown for phase in phases))


def engine_regions(units: int, permits: int, rows: int) -> list[Region]:
    """Return the table of the engine's regions.

    `units` is the most units of any phase, `rows` the most nodes of the tree, Node Zero left out.
    """
    return [
        Region("control", "int64", (CONTROL_WORDS,)),
        Region("state", "int64", (STATE_WORDS,)),
        Region("requests", "int64", (REQUEST_PLACES, REQUEST_HEAD + 2 * REQUEST_TEXT_BYTES // 8)),
        Region("barrier", "int64", (BARRIER_WORDS,)),
        Region("permits", "int64", (Permits.words_needed(permits),)),
        Region("claims", "int64", (units,)),
        Region("bells", "int64", (rows + 1, BELL_WORDS)),
        Region("spheres", "int64", (rows, SPHERE_WORDS)),
        Region("deaths", "int64", (DEATH_RING, DEATH_WORDS)),
        Region("mail", "int64", (words_needed(rows),)),
        Region("errors", "uint8", (rows, ERROR_BYTES)),
    ]


class Board:
    """The engine's doors to an arena; watchers need no `phases`."""

    def __init__(self, arena: Arena, phases: Sequence[Phase] = ()) -> None:
        handouts = [
            Handout(phase.units, phase.cycle, phase.heavy_units, phase.needs) for phase in phases
        ]
        self.barrier = Barrier(arena["barrier"], arena["claims"], handouts)
        self.permits = Permits(arena["permits"])
        self.bells = Bells(arena["bells"])
        self.control = Words(arena["control"])
        self.state = Words(arena["state"])
        self.requests = arena["requests"]
        self.spheres = Words(arena["spheres"].reshape(-1))  # row s starts at s · SPHERE_WORDS
        self.mail = Words(arena["mail"])  # see `ipc.mailbox`
        self.deaths = Words(arena["deaths"].reshape(-1))
        self.sphere_table = arena["spheres"]  # (rows, SPHERE_WORDS)
        self.errors = arena["errors"]  # (rows, ERROR_BYTES)
        self.rows = len(self.sphere_table)

    def leave_last_words(self, sphere: int, text: str) -> None:
        """Keep the end of `text` as what a failing sphere has to say."""
        raw = text.encode()[-ERROR_BYTES:].ljust(ERROR_BYTES, b"\0")
        self.errors[sphere] = np.frombuffer(raw, np.uint8)

    def last_words(self, sphere: int) -> str:
        """Return what a sphere left, and clear it."""
        raw = bytes(self.errors[sphere])
        self.errors[sphere] = 0
        return raw.rstrip(b"\0").decode("utf-8", "replace")
