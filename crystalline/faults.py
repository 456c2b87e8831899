"""Faults, by name: every point where a process can die, or a call fail, can be made to.

    CRYSTALLINE_FAULTS="barrier.claimed=kill@3,pointer.replace=fail:ENOSPC/node-zero"

A fault is NAME=ACTION, optionally with a number and a role:

    kill          the process that passes the point dies there by SIGKILL
    stop          ... is stopped there (SIGSTOP), until somebody lets it go on
    delay[:S]     ... sleeps there for S seconds, 0.1 if none are given
    fail[:ERRNO]  ... gets an `OSError` there, EIO if no other is named
    @N            at the Nth passage of all processes together, 1 if none is given;
                  @N+: from then on, at every one
    /ROLE         only where that role passes: launcher, node-zero, control, sphere or saver

The points stand in `POINTS`, and in docs/faults.md.  Passages are counted in memory that all
processes of a run share, or in the file that CRYSTALLINE_FAULTS_COUNTS names, where tests read them
(`Counts`).  Without the variable a point is a call that returns at once.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from crystalline.errors import UsageError, remedy

VARIABLE, COUNTS_VARIABLE = "CRYSTALLINE_FAULTS", "CRYSTALLINE_FAULTS_COUNTS"
ROLES = ("launcher", "node-zero", "control", "sphere", "saver")
LAUNCHER, NODE_ZERO, CONTROL, SPHERE, SAVER = ROLES
KILL, STOP, DELAY, FAIL = ACTIONS = ("kill", "stop", "delay", "fail")
DELAY_S = 0.1
LONGEST_DELAY_S = 3600.0
MOST_FAULTS = 64


@dataclass(frozen=True)
class Point:
    """One row: a place in the code."""

    name: str
    who: str  # the roles that pass it, a space between them
    what: str  # what happens there, or what was done last
    actions: tuple[str, ...] = ACTIONS

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that pass it."""
        return tuple(self.who.split())


_NO_CALL = (KILL, STOP, DELAY)  # where nothing can fail
_PARENTS, _NODES = "node-zero control", "control sphere"
_WRITERS, _SAVERS = "launcher node-zero saver", "node-zero saver"

POINTS = {point.name: point for point in (
    # The arena.
    Point("arena.sweep", "launcher", "memory that dead runs left a name of is removed", _NO_CALL),
    Point("arena.memory", "node-zero", "shared memory is about to be made in /dev/shm"),
    Point("arena.named", "node-zero", "it is there, of one byte and with a name, for a moment"),
    Point("arena.file", "node-zero", "a file in the run directory is opened in its place"),
    Point("arena.allocate", "node-zero", "the memory gets its size and all its pages"),
    Point("arena.map", "node-zero", "the memory is mapped"),
    Point("arena.attach", "launcher", "the launcher maps it"),
    Point("arena.populate", "sphere", "its pages are entered into a sphere's page table"),
    # Claims, permits, hand-over and sleep.
    Point("permit.taken", "sphere", "a sphere has taken a permit", _NO_CALL),
    Point("permit.release", "sphere", "it is about to give the permit back", _NO_CALL),
    Point("barrier.claimed", "sphere", "a sphere has claimed a unit"),
    Point("barrier.worked", "sphere", "the unit's results are there, its mark is not"),
    Point("barrier.done", "sphere", "the unit is marked as done", _NO_CALL),
    Point("handover.claimed", "sphere",
          "a sphere has claimed the hand-over of a finished phase", _NO_CALL),
    Point("handover.written", "sphere", "what follows from the phase is written", _NO_CALL),
    Point("barrier.moving", "node-zero sphere",
          "the ticket is that of the next phase already", _NO_CALL),
    Point("barrier.moved", "node-zero sphere",
          "the next phase has begun, nobody was woken", _NO_CALL),
    Point("handover.done", "sphere", "the next phase has begun, Node Zero was not told", _NO_CALL),
    Point("barrier.sleep", "sphere", "a sphere with a permit is about to sleep until the phase "
          "moves on (futex)", _NO_CALL),
    Point("bells.sleep", _NODES, "one without a permit is about to sleep until it is "
          "called (futex)", _NO_CALL),
    Point("bells.rung", _PARENTS, "a bell counts one more, nobody was woken", _NO_CALL),
    Point("node.sleep", "node-zero", "Node Zero is about to sleep (futex)", _NO_CALL),
    Point("node.publish", "node-zero", "Node Zero is about to begin a phase", _NO_CALL),
    Point("node.published", "node-zero",
          "the phase has begun, and no sphere without a permit knows", _NO_CALL),
    # The tree of spheres.
    Point("fork.workers", _PARENTS, "children are about to be forked (fork)"),
    Point("fork.parted", _PARENTS, "they are forked, and the parent has not written down their "
          "pids", _NO_CALL),
    Point("fork.born", "sphere", "a child runs for the first time", _NO_CALL),
    Point("fork.joined", "sphere", "a child has its row", _NO_CALL),
    Point("order.given", "node-zero",
          "a node has an order in its row, and was not called", _NO_CALL),
    Point("order.heard", _NODES, "a node is about to follow an order", _NO_CALL),
    Point("order.answer", "control", "a node has followed an order and not said so", _NO_CALL),
    Point("leave.asked", _PARENTS, "children are told to leave, and not called", _NO_CALL),
    Point("leave.going", _NODES,
          "a child is about to end because it was told to leave", _NO_CALL),
    Point("burial.begun", _PARENTS,
          "a dead child is about to be buried, and what it held is still its", _NO_CALL),
    Point("burial.undone", _PARENTS, "its unfinished unit is undone, and still claimed", _NO_CALL),
    Point("burial.units", _PARENTS, "its units are free, the hand-over is not", _NO_CALL),
    Point("burial.freed", _PARENTS, "its claims are free, its permit is not", _NO_CALL),
    Point("burial.parted", _PARENTS, "its row has forgotten its pid, and it was not waited for",
          _NO_CALL),
    Point("burial.telling", _PARENTS, "its death has a number and is not written down", _NO_CALL),
    Point("burial.told", _PARENTS, "its death is written down, and it is not replaced", _NO_CALL),
    Point("adoption.begun", _PARENTS,
          "the children of a dead control are about to be adopted", _NO_CALL),
    Point("adoption.stood", _PARENTS,
          "one of them has a new place, and is not watched yet", _NO_CALL),
    # Units of training.
    Point("compute.lane", "sphere", "a lane's gradient is there, its loss is not written"),
    Point("compute.lanes", "sphere", "all lanes are done, what follows is half written"),
    Point("compute.merge", "sphere", "a sum of lanes is there, and not marked as done"),
    Point("merge.recover", _PARENTS, "a sum that a dead sphere was writing is put right", _NO_CALL),
    Point("reduce.segment", "sphere", "a segment is summed, its square is not written"),
    Point("reduce.segments", "sphere", "all segments are summed, what follows is half written"),
    Point("update.segment", "sphere", "a segment is about to be updated in place"),
    Point("update.kept", "sphere", "a block is copied to the undo area, which is not marked",
          _NO_CALL),
    Point("update.marked", "sphere", "the undo area is marked, the block is unchanged", _NO_CALL),
    Point("update.changed", "sphere", "the block is changed, and not counted", _NO_CALL),
    Point("update.counted", "sphere", "the block is counted, its mark is still valid", _NO_CALL),
    Point("update.packing", "sphere", "weights are updated, their packed forms are not",
          _NO_CALL),
    Point("update.recover", _PARENTS,
          "a block that a dead sphere was changing is put back", _NO_CALL),
    Point("evaluate.unit", "sphere", "a unit of an evaluation is done, its loss is not written"),
    Point("pack.segment", "sphere", "a segment's packed forms are about to be written"),
    # Node Zero.
    Point("node.spec", "node-zero", "Node Zero is about to read what it shall run", _NO_CALL),
    Point("node.loaded", "node-zero", "weights are there, and no spheres", _NO_CALL),
    Point("node.step", "node-zero", "a step is done and not in the books", _NO_CALL),
    Point("node.evaluate", "node-zero",
          "a round of an evaluation is done and not in the books", _NO_CALL),
    Point("node.discover", "node-zero", "roots are about to be found anew", _NO_CALL),
    Point("node.result", "node-zero", "all is done but to say so", _NO_CALL),
    Point("request.put", "launcher", "a request is in the queue, and not counted yet", _NO_CALL),
    Point("request.answer", "node-zero", "a request is done, and not answered yet", _NO_CALL),
    Point("message.send", "node-zero", "a message to the launcher is about to be written"),
    Point("message.sent", "node-zero", "it is written", _NO_CALL),
    # Checkpoints that are written while training goes on.
    Point("snapshot.unit", "sphere", "a part of what is saved is about to be copied"),
    Point("saver.copied", "node-zero", "the copy is there, and nobody who writes it", _NO_CALL),
    Point("saver.born", "saver", "the process that writes the copy runs for the first time"),
    Point("saver.answer", "saver", "the checkpoint is written, and nobody was told", _NO_CALL),
    Point("saver.ended", "node-zero", "the writer has ended well, and nobody was told", _NO_CALL),
    # The launcher.
    Point("launcher.spawn", "launcher", "Node Zero is about to be started (fork and exec)"),
    Point("launcher.spawned", "launcher", "it runs and does not know what", _NO_CALL),
    Point("launcher.message", "launcher",
          "a message of Node Zero's is about to be handled", _NO_CALL),
    Point("launcher.snapshot", "launcher", "the run is about to be looked at", _NO_CALL),
    Point("launcher.end", "launcher", "Node Zero's end is about to be waited for", _NO_CALL),
    Point("door.open", "launcher", "the socket for other processes is about to be made"),
    Point("door.bound", "launcher", "the socket has its name, and nobody listens", _NO_CALL),
    Point("door.accept", "launcher", "somebody who has called is about to be let in"),
    Point("door.answer", "launcher", "a request is about to be answered", _NO_CALL),
    # Files.
    Point("atomic.open", _WRITERS, "a temporary file is about to be made"),
    Point("atomic.sync", _WRITERS, "it is written, and about to be forced to disk"),
    Point("atomic.replace", _WRITERS, "it is about to take the final name"),
    Point("atomic.replaced", _WRITERS,
          "it has the name, and the folder is not forced to disk", _NO_CALL),
    Point("atomic.folder", _WRITERS, "the names in a folder are about to be forced to disk"),
    Point("metrics.open", "node-zero", "metrics.jsonl is about to be opened"),
    Point("metrics.append", "node-zero", "a line is about to be appended"),
    Point("metrics.appended", "node-zero", "a part of it is written", _NO_CALL),
    Point("metrics.sync", "node-zero", "the lines are about to be forced to disk"),
    Point("status.write", "launcher", "status.json is about to be written"),
    Point("checkpoint.begin", _SAVERS, "the hidden folder of a checkpoint is about to be made"),
    Point("checkpoint.describe", _SAVERS, "what describes the model is about to be written"),
    Point("checkpoint.tensors", _SAVERS, "a file of tensors is about to be opened"),
    Point("checkpoint.block", _SAVERS, "a block of a tensor is about to be written"),
    Point("checkpoint.state", _SAVERS, "state.json is about to be written"),
    Point("checkpoint.sync", _SAVERS, "a file is about to be forced to disk"),
    Point("checkpoint.manifest", _SAVERS, "all files are there but the manifest"),
    Point("checkpoint.rename", _SAVERS, "the folder is about to get its name"),
    Point("checkpoint.aside", _SAVERS, "the one before of the same step has stepped aside"),
    Point("checkpoint.replaced", _SAVERS,
          "the new one is there, and the old one aside as well", _NO_CALL),
    Point("checkpoint.named", _SAVERS,
          "the checkpoint is whole, and no pointer points to it", _NO_CALL),
    Point("pointer.link", _SAVERS, "a link is about to be made, under a temporary name"),
    Point("pointer.replace", _SAVERS, "it is about to take the place of `latest` or `best`"),
    Point("prune.rename", _SAVERS, "an old checkpoint is about to lose its name"),
    Point("prune.remove", _SAVERS,
          "it has lost its name, and is about to be removed", _NO_CALL),
)}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What shall happen at one point."""

    name: str
    action: str
    at: int = 1  # the passage
    lasts: bool = False  # from then on, and not only then
    role: str | None = None  # None: whoever passes
    errno: int = errno.EIO
    seconds: float = DELAY_S


_FAULT = re.compile(
    r"(?P<name>[^=]*)=(?P<action>[^:@/]*)(?::(?P<more>[^@/]*))?"
    r"(?:@(?P<at>[^/+]*)(?P<lasts>\+?))?(?:/(?P<role>.*))?"
)


def parse(text: str) -> list[Fault]:
    """Return the faults that a text asks for.

    >>> parse("barrier.claimed=kill@3, arena.map=fail:ENOMEM/node-zero")[0]
    Fault(name='barrier.claimed', action='kill', at=3, lasts=False, role=None, errno=5, seconds=0.1)

    Raises:
        UsageError: a part of it is none.
    """
    faults = [_parsed(part.strip()) for part in text.split(",") if part.strip()]
    if not faults:
        raise _mistake(
            "asks for nothing", "Name a point and an action, as in barrier.claimed=kill."
        )
    if len(faults) > MOST_FAULTS:
        raise _mistake(f"asks for {len(faults)} faults", f"There can be {MOST_FAULTS}.")
    return faults


def _parsed(text: str) -> Fault:
    match = _FAULT.fullmatch(text)
    shown = ascii(text[:80])
    if match is None:
        raise _mistake(f"has {shown}", "Write NAME=ACTION, as in barrier.claimed=kill@3/sphere.")
    name, action, more, role = match["name"], match["action"], match["more"], match["role"]
    known = POINTS.get(name)
    if known is None:
        near = difflib.get_close_matches(name, POINTS, 1)
        advice = f"Did you mean {near[0]}?" if near else "They are listed in docs/faults.md."
        raise _mistake(f"has {shown}, and there is no such point", advice)
    if action not in known.actions:
        raise _mistake(
            f"has {shown}, and what can happen there is none of that",
            f"Use one of: {', '.join(known.actions)}.",
        )
    if role is not None and role not in known.roles:
        raise _mistake(
            f"has {shown}, and no process of that role passes there",
            f"Use one of: {', '.join(known.roles)}.",
        )
    at = match["at"]
    if at is not None and not (at.isascii() and at.isdecimal() and 1 <= int(at[:9]) == int(at)):
        raise _mistake(f"has {shown}", "After @ comes the number of a passage, from 1.")
    number, seconds = errno.EIO, DELAY_S
    if more is not None and action == FAIL:
        number = getattr(errno, more, 0) if more.isupper() else 0
        if number not in errno.errorcode:
            raise _mistake(f"has {shown}", "After fail: comes an error's name, as in fail:ENOSPC.")
    elif more is not None and action == DELAY:
        try:
            seconds = float(more)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= LONGEST_DELAY_S:
            raise _mistake(f"has {shown}", "After delay: come seconds, as in delay:0.5.")
    elif more is not None:
        raise _mistake(f"has {shown}", f"{action} takes nothing after a colon.")
    return Fault(name, action, int(at or 1), bool(match["lasts"]), role, number, seconds)


def _mistake(what: str, advice: str) -> UsageError:
    return UsageError(f"the environment variable {VARIABLE} {what}", advice=advice)


# The file of counts: words of eight bytes.
_WORD = struct.Struct("q")
# Of each fault: passages, when it fired, who passed then, and when the next phase had ended.
_FAULT_WORDS = 5
_PASSAGES, _FIRED_NS, _PID, _ROLE, _RECOVERED_NS = range(_FAULT_WORDS)
_TABLE = MOST_FAULTS * _FAULT_WORDS  # passages of each point by each role follow
_INDEX = {name: place for place, name in enumerate(POINTS)}
RECOVERED = "handover.done"  # whoever passes it has ended a phase


class Counts:
    """What all processes of a run have passed: a file, locked by who counts."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str) -> Counts:
        """Open a file of counts; it is made where there is none.  Raises `OSError`."""
        return cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def passed(self, name: str, role: str) -> int:
        """Return how often a point was passed by a role."""
        return self._load(self._place(name, role))

    def fired(self, number: int) -> bool:
        """Return whether fault `number` of the list has happened."""
        return self._load(number * _FAULT_WORDS + _FIRED_NS) != 0

    def pid(self, number: int) -> int:
        """Return the process that a fault has happened to, 0 where it has not."""
        return self._load(number * _FAULT_WORDS + _PID)

    def role(self, number: int) -> str | None:
        """Return the role of that process."""
        role = self._load(number * _FAULT_WORDS + _ROLE)
        return ROLES[role] if self.fired(number) else None

    def recovered_s(self, number: int) -> float | None:
        """Return how long it was from a fault to the next end of a phase, if there was one."""
        fired_ns, recovered_ns = (
            self._load(number * _FAULT_WORDS + word) for word in (_FIRED_NS, _RECOVERED_NS)
        )
        return (recovered_ns - fired_ns) / 1e9 if fired_ns and recovered_ns else None

    def count(self, name: str, role: str, faults: list[Fault]) -> Fault | None:
        """Count a passage; return the fault that happens at it, if one does."""
        due = None
        with self._locked():
            self._add(self._place(name, role))
            now_ns = time.monotonic_ns()
            for number, fault in enumerate(faults):
                at = number * _FAULT_WORDS
                ends = name == RECOVERED and self._load(at + _FIRED_NS)
                if ends and not self._load(at + _RECOVERED_NS):
                    self._store(at + _RECOVERED_NS, now_ns)
                if fault.name != name or fault.role not in (None, role):
                    continue
                passages = self._add(at + _PASSAGES)
                if passages == fault.at or (fault.lasts and passages > fault.at):
                    due = due or fault
                    if not self._load(at + _FIRED_NS):
                        self._store(at + _PID, os.getpid())
                        self._store(at + _ROLE, ROLES.index(role))
                        self._store(at + _FIRED_NS, now_ns)
        return due

    def _place(self, name: str, role: str) -> int:
        return _TABLE + _INDEX[name] * len(ROLES) + ROLES.index(role)

    def _load(self, word: int) -> int:
        raw = os.pread(self._descriptor, _WORD.size, word * _WORD.size)
        value: int = _WORD.unpack(raw)[0] if len(raw) == _WORD.size else 0
        return value

    def _store(self, word: int, value: int) -> None:
        os.pwrite(self._descriptor, _WORD.pack(value), word * _WORD.size)

    def _add(self, word: int) -> int:
        value = self._load(word) + 1
        self._store(word, value)
        return value

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock of the process, not of the open file, which forked processes have in common.
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class _Armed:
    """Faults that are switched on in this process."""

    def __init__(self, faults: list[Fault], counts: Counts) -> None:
        self.faults, self.counts = faults, counts
        self.role = LAUNCHER

    def meet(self, name: str) -> None:
        """Count, and let happen what is due."""
        fault = self.counts.count(name, self.role, self.faults)
        if fault is None:
            return
        if fault.action == DELAY:
            time.sleep(fault.seconds)
        elif fault.action == FAIL:
            raise OSError(fault.errno, os.strerror(fault.errno))
        else:
            os.kill(os.getpid(), signal.SIGKILL if fault.action == KILL else signal.SIGSTOP)


_armed: _Armed | None = None


def point(name: str) -> None:
    """Pass a point.  Raises `OSError` where a fault says so."""
    if _armed is not None:
        _armed.meet(name)


def are_on() -> bool:
    """Return whether faults are switched on: what compiled code asks before a loop."""
    return _armed is not None


def set_up(role: str) -> None:
    """Switch on what the environment asks for, in a process of that role.  Twice is once.

    Raises:
        UsageError: the environment asks for what there is not.
    """
    global _armed
    text = os.environ.get(VARIABLE)
    if _armed is not None:
        _armed.counts.close()
        _armed = None
    if text is None:
        return
    faults = parse(text)
    if COUNTS_VARIABLE not in os.environ:  # children find the memory by our name
        memory = os.memfd_create("faults", os.MFD_CLOEXEC)
        os.environ[COUNTS_VARIABLE] = f"/proc/{os.getpid()}/fd/{memory}"
    path = os.environ[COUNTS_VARIABLE]
    try:
        counts = Counts.open(path)
    except OSError as error:
        raise UsageError(
            f"the environment variable {COUNTS_VARIABLE} is {path[:200]!a}, "
            f"which cannot be opened ({error.strerror})",
            advice=remedy(error),
        ) from None
    _armed = _Armed(faults, counts)
    _armed.role = role


def play(role: str) -> None:
    """Take another role: of a process that was forked, or a leaf that has children now."""
    if _armed is not None:
        _armed.role = role
