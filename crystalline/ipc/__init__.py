"""Shared memory between Node Zero, the spheres and the launcher: the map and the rules.

This page is the protocol; the modules beside it are its code, and
`tools/model_barrier.py` walks all its interleavings.

Who is who
----------
    launcher ──starts──> Node Zero ──forks──> sphere 0 … sphere S-1     (S ≤ 63)
The launcher is the user's command.  Node Zero plans and never computes.  Spheres
compute.  All three see one arena; nothing else passes between Node Zero and the
spheres: no pipes, no locks, no signals but SIGKILL, and SIGSTOP and SIGCONT while the
user has the whole run stopped.

The arena
---------
One mapping, cut into regions by one table (`arena.Layout`), each starting on a
64-byte boundary.  It has no name: spheres inherit it, the launcher gets a descriptor, and
it goes with the last of the three, however they end.  The engine's own regions come
first, the program's after them:

    region     dtype    shape         written by
    control    int64    (16,)         launcher                       requests, time stopped
    state      int64    (32,)         Node Zero                      what it does now
    status     float64  (16,)         Node Zero                      figures for watchers
    barrier    int64    (64,)         see below                      phase, bells, hand-over
    permits    int64    (permits·8,)  spheres; Node Zero frees       one word per cache line
    claims     int64    (units,)      spheres; Node Zero frees       one word per unit
    descriptor float64  (8,)          Node Zero, in IDLE             step, learning rate,
                                                                     epsilon; round of an
                                                                     evaluation
    outcome    float64  (8,)          holder of the hand-over        norm, clip factor, flag
    results    float64  (units, 8)    claimant of the unit           loss, tokens, norm, time,
                                                                     smoothed loss; squares
    spheres    int64    (64, 32)      the sphere; Node Zero: pid,    statistics
                                      respawns, and state when dead
    positions  int64    (64, 12)      the sphere                     lanes by position
    errors     uint8    (64, 2048)    the sphere                     its last words
    losses     float64  (4096, 2)     Node Zero                      ring of (step, loss)
    evals      float64  (256, 3)      Node Zero                      ring of (step, loss, bits)

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
    WORK_BELL  counts rings.  Spheres without a permit sleep on it.
    NODE_BELL  counts rings.  Node Zero sleeps on it.
    WORKERS    number of spheres wanted; a sphere with a higher index retires

Phases
------
    IDLE ─Point A─> COMPUTE ─Point B─> REDUCE ──> UPDATE ──> IDLE
                       └ a loss is not finite ────┬───────────^
                                   a norm is not finite
    IDLE ──> EVALUATE ──> IDLE          IDLE ──> PACK ──> IDLE

Node Zero makes the moves out of IDLE (it alone, and only then does it write
`descriptor`); spheres make all others.  The number of units of a phase depends on
its kind only, so it cannot be read out of step with the phase.

An evaluation is a row of phases EVALUATE, its rounds: unit u of the phase is unit
EVAL_FIRST + u of the held-out split while u < EVAL_COUNT, and nothing otherwise.
Between rounds, in IDLE, Node Zero does what the launcher wants, as between steps.

Leaving
-------
    EVALUATE ──Node Zero, a stop is wanted──> (left: no phase ever follows)

Node Zero does not wait for the end of a round when the launcher wants a stop.  It
leaves the phase as it is, kills the spheres, saves what is not saved yet and ends.
It writes no word for that, and no sphere learns of it: those at work go on until
they are killed, wherever they are.  What they did changes nothing that is saved:
units of EVALUATE write to results and to the workspace of their permit, weights are
written in UPDATE and PACK only, and out of EVALUATE a sphere can only move on to IDLE,
where all wait for Node Zero.  No unit is lost, because the results of an evaluation
that was left are not read: the run that goes on makes it again, from its first unit.
COMPUTE, REDUCE and UPDATE are never left.

Claim words
-----------
    word = generation · 2¹⁶ + state · 2⁸ + (sphere + 1)      FREE 0 < CLAIMED 1 < DONE 2

    older generation, or FREE(g) ──CAS by a sphere with a permit──> CLAIMED(g, s)
    CLAIMED(g, s) ──store by s, after its results──> DONE(g, s)
    CLAIMED(g, s) ──Node Zero, s is dead and buried──> FREE(g)

So words compare as integers: a unit of g can be claimed when word < CLAIMED(g, 0)
and is finished when word ≥ DONE(g, 0).  A claim by CAS from the value that was
looked at proves that the phase is still g, since g cannot end before its units.

Hand-over
---------
A sphere that finds every unit of g DONE claims HANDOVER for g in the same way.  The
winner alone may write `outcome` and TICKET and move PHASE on.  It need not release the
word: the next generation is larger.  (Letting everybody hand over "because they would
write the same bytes" is wrong: one who falls asleep half way wakes up in a later step.)

Permits
-------
    0 ──CAS by sphere s──> s + 1 ──store by s, holding no claim──> 0
                           s + 1 ──Node Zero, s is dead and buried──> 0

A sphere claims only while it holds a permit, and keeps the permit over the phases
of a step.  It gives it back in IDLE when it has had it for a while and others wait.
Workspaces and undo areas belong to permits.

Sleeping
--------
A sleeper reads the bell, then looks for a reason to stay awake, then sleeps on the
value that it read; a ringer makes the reason, then adds one to the bell, then wakes.
No wake is lost that way unless the woken one dies or is stopped; Node Zero therefore
wakes up every 50 ms during a phase, rings again where permits are free, and looks
who is alive.  Sleeps on PHASE end by themselves after 50 ms.

Death of sphere s (killed, or stopped for too long and then killed by Node Zero)
--------------------------------------------------------------------------------
Node Zero waits for the process to be gone, then in this order: (1) a unit CLAIMED(g,
s) of an UPDATE is put back to its state before, from the undo area of s's permit;
(2) that unit becomes FREE(g); (3) so does HANDOVER; (4) the permit becomes 0; (5)
bells; (6) a new process is forked into the same place.
"""
