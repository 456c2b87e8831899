"""Shared memory between Node Zero, the spheres and the launcher: the map and the rules.

This page is the protocol; the modules beside it are its code, and
`tools/model_barrier.py` walks all its interleavings.

Who is who
----------
    launcher ──starts──> Node Zero ──forks──> spheres ──fork──> spheres …
The launcher is the user's command.  Node Zero plans and never computes.  Spheres form a tree:
leaves compute, and those that have children, controls, look after them and compute nothing
(`crystalline.engine.tree`).  All see one arena; nothing else passes between Node Zero and the
spheres: no pipes, no locks, no signals but SIGKILL, and SIGSTOP and SIGCONT while the
user has the whole run stopped.  One pipe that nobody writes to ends them when Node Zero is gone.

The arena
---------
One mapping, cut into regions by one table (`arena.Layout`), each starting on a
64-byte boundary.  It has no name: spheres inherit it, the launcher gets a descriptor, and
it goes with the last of the three, however they end.  The engine's own regions come
first, the program's after them:

    region     dtype    shape         written by
    control    int64    (16,)         launcher                       a stop, time stopped
    state      int64    (24,)         Node Zero; all: the counts     what it does now; counts of
                                      of the tree                    ids, deaths, changes
    requests   int64    (16, 136)     launcher; Node Zero: answers   see `engine.queue`
    barrier    int64    (32,)         see below                      phase, hand-over
    permits    int64    (permits·8,)  spheres; the parent frees      one word per cache line
    claims     int64    (units,)      spheres; the parent frees      one word per unit
    bells      int64    (rows + 1, 8) all                            a pair of bells per family
    spheres    int64    (rows, 48)    the sphere; its parent: where  the tree, statistics
                                      it stands, pid, respawns, and
                                      state when dead; Node Zero:
                                      orders, homes
    deaths     int64    (64, 8)       who buries                     who died, and how
    errors     uint8    (rows, 2048)  the sphere                     its last words

Every word has eight bytes and is read and written whole.  Words of `barrier`,
`permits`, `claims`, `control` and `state` are C atomics with sequentially
consistent order (on x86-64 a load is a plain load and a store is one `xchg`): the
rules below rely on "store mine, then look at yours" on both sides of a pair, which
acquire and release alone do not give.  A futex sleeps on the low half of a word.

Words of `barrier` (each on a cache line of its own)
----------------------------------------------------
    PHASE      generation · 16 + kind; only grows.  Spheres with a permit sleep on it.
    TICKET     generation · 2³² + next candidate; a hint, never the truth
    HANDOVER   claim word of the hand-over, see below
    NODE_BELL  counts rings.  Node Zero sleeps on it.

Phases
------
    IDLE ──> a phase ──> the one that follows ──> … ──> IDLE

Which phases there are, how many units each has and what follows is the program's to say
(`crystalline.engine.phase`; for training, `crystalline.train.step`).  Node Zero makes the moves
out of IDLE (it alone, and only then does it write what units read); spheres make all others.  The
number of units of a phase depends on its kind only, so it cannot be read out of step with the
phase.

Leaving
-------
    a phase that may be left ──Node Zero, a stop is wanted──> (left: no phase ever follows)

Where a program says so, Node Zero does not wait for the end of a phase when the launcher wants a
stop.  It leaves the phase as it is, kills the spheres, saves what is not saved yet and ends.
It writes no word for that, and no sphere learns of it: those at work go on until
they are killed, wherever they are.  So what they do must change nothing that is saved, and
nothing but IDLE may follow the phase.  No unit is lost, because results of a phase that was left
are not read.

Claim words
-----------
    word = generation · 2¹⁶ + state · 2¹² + (sphere + 1)     FREE 0 < CLAIMED 1 < DONE 2

    older generation, or FREE(g) ──CAS by a sphere with a permit──> CLAIMED(g, s)
    CLAIMED(g, s) ──store by s, after its results──> DONE(g, s)
    CLAIMED(g, s) ──its parent, s is dead and buried──> FREE(g)

So words compare as integers: a unit of g can be claimed when word < CLAIMED(g, 0)
and is finished when word ≥ DONE(g, 0).  A claim by CAS from the value that was
looked at proves that the phase is still g, since g cannot end before its units.

Hand-over
---------
A sphere that finds every unit of g DONE claims HANDOVER for g in the same way.  The winner alone
may write what follows from the phase and TICKET and move PHASE on.  It need not release the
word: the next generation is larger.  (Letting everybody hand over "because they would
write the same bytes" is wrong: one who falls asleep half way wakes up in a later phase.)

Permits
-------
    0 ──CAS by sphere s──> s + 1 ──store by s, holding no claim──> 0
                           s + 1 ──its parent, s is dead and buried──> 0

A sphere claims only while it holds a permit, and keeps the permit while phases follow one
another.  It gives it back in IDLE when it has had it for a while and others wait.
Workspaces and undo areas belong to permits.

Sleeping
--------
A sleeper reads the bell, then looks for a reason to stay awake, then sleeps on the
value that it read; a ringer makes the reason, then adds one to the bell, then wakes.
No wake is lost that way unless the woken one dies or is stopped; Node Zero therefore
wakes up every 50 ms during a phase, rings again where permits are free, and looks
who is alive.  Sleeps on PHASE end by themselves after 50 ms.

Death of sphere s (killed, or stopped for too long and then killed by its parent)
---------------------------------------------------------------------------------
Its parent, Node Zero or a control, sees that the process is gone, then in this order: (1) a unit
CLAIMED(g, s) of a phase that works in place is put back to its state before, as the phase's `undo`
does; (2) that unit becomes FREE(g); (3) so does HANDOVER; (4) the permit becomes 0; (5) bells; (6)
the row forgets the pid, and only then is the process waited for: so a pid in a row is nobody
else's; (7) a new process is forked into the same place.  All of this may be done again: a parent
that dies over it leaves it to its own.

Where s was a control, its parent, before (6), adopts its children as long as it has places for
them, and ends the others, dead or alive, in the order above; then the row of s is free.  If there
was nobody to adopt, a leaf is forked into it, so that the phase has somebody to end it.  What the
tree has lost grows again between phases.

Messages
--------
Nodes write into one another's mailboxes (`mailbox`, which has the words and the rules).  Nothing
may depend on a message.
"""
