"""Walk every interleaving of the tree of spheres for small trees: adoption, orders, change of role.

    python3 tools/model_tree.py                      # the usual instances, some seconds
    python3 tools/model_tree.py --thorough           # deeper trees, two deaths; minutes
    python3 tools/model_tree.py --break no-numbers   # seed a bug; it must be found

The protocol is drawn in crystalline/engine/tree.py and crystalline/ipc/__init__.py.  The programs
below repeat what supervisor.py, member.py, growth.py and tree.py in crystalline/engine do, and of
sphere.py what there is to one unit and one permit (`model_barrier` has the rest), one access to
shared memory or call of the kernel (`tree_words`) at a time; a look over the table of rows counts
as one access.  Every order of these is tried; a sphere may be killed between any two of them, and
one that is sent SIGKILL may still go on for a while.  Pids are used again at once.  Checked:

* two processes are never in one row, and nobody signals or waits for a process not its child;
* a unit is done once, by a leaf with a permit; a control never holds one, nor a claim;
* in the end the tree is as wanted: each row has one process, which is the child of the one in its
  parent's row and known to it; no other process is left, dead or alive, and no row is lost;
* from every state that end can be reached: no deadlock, no answer waited for that cannot come, no
  lost wake.  Leaves never wake up by themselves here, and without kills nobody does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import walk  # noqa: E402
from tools.tree_words import (  # noqa: E402
    CALL,
    CONTROL,
    DONE,
    FREE,
    LEAF,
    LEAVING,
    NODE_ZERO,
    WORK,
    Machine,
    Places,
    Process,
    Row,
    State,
    die,
    path_of,
    process_of,
    put,
)
from tools.walk import list_bugs, walk_all  # noqa: E402

# Bugs that can be seeded, and what each does.
BUGS = {
    "no-numbers": "forks have no numbers: a child enters itself where nobody is entered",
    "pid-stays": "a dead child is waited for before its row forgets its pid",
    "open-take": "a row is seen before its parent is written",
    "leave-nobody": "a control that leaves nobody is not replaced",
    "no-strays": "nobody waits for the dead that no row names",
    "count-first": "controls hear that there are orders before these are written",
    "no-ring": "who adopts does not ring for those that sleep on the bell of the dead",
    "no-wait": "who ends an orphan does not wait until it is dead",
    "no-take-back": "what dead orphans held is not taken back",
    "forget-orphans": "the children of a dead control are not adopted",
    "wait-for-the-dead": "Node Zero waits for the answers of the dead",
    "keep-permit": "a leaf follows an order while it has a permit",
}


@dataclass(frozen=True)
class Instance:
    """A tree, as the paths of its nodes, and what is to become of it."""

    before: frozenset[Places]
    after: frozenset[Places]  # wanted from the start, or after the phase
    kills: int
    late: bool = False  # it is wanted only after the phase
    failures: int = 0  # forks of a control that may fail; then it shall be as before
    places: int = 2  # children that a node may have
    rows: int = 4
    bug: str | None = None

    def __str__(self) -> str:
        when = "a phase, then " if self.late else ""
        return (
            f"{_text(self.before)} to {when}{_text(self.after)}, {self.kills} kills"
            + f", {self.failures} failures" * bool(self.failures)
            + f", {self.places} places"
        )


def _text(shape: frozenset[Places]) -> str:
    return "+".join("".join(map(str, path)) for path in sorted(shape))


Program = Generator[tuple[Any, ...], Any, tuple[Any, ...]]
Kids = tuple[tuple[int, int], ...]  # (pid, row) of the children that a process knows


class Model(Machine):
    """The transitions of one instance."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance.bug, instance.kills > 0)
        self.instance = instance
        self._next: dict[tuple[Any, ...], tuple[bool, tuple[Any, ...]]] = {}

    # What it begins with, and ends with.

    def first(self) -> State:
        """Return the tree as it is before, with everybody at the beginning of a look."""
        paths = sorted(self.instance.before)
        row_of = {path: row for row, path in enumerate(paths)} | {(): NODE_ZERO}
        pid_of = {row: row + 2 for row in row_of.values()}
        kids: dict[int, Kids] = {
            row: tuple((pid_of[row_of[p]], row_of[p]) for p in paths if p[:-1] == path)
            for path, row in row_of.items()
        }
        rows = []
        processes: list[Process | None] = [Process(0, NODE_ZERO, ("settle", kids[NODE_ZERO]))]
        for row, path in enumerate(paths):
            role = CONTROL if kids[row] else LEAF
            parent = row_of[path[:-1]]
            program = ("control", row, kids[row], 0) if kids[row] else ("leaf", row)
            rows.append(Row(row + 1, row + 2, parent, path[-1], role))
            processes.append(Process(pid_of[parent], row, program))
        rows += [Row()] * (self.instance.rows - len(rows))
        return State(
            tuple(rows), tuple(processes), (FREE, -1), -1, 0, len(paths), 0, True,
            self.instance.kills, self.instance.failures, False,
        )  # fmt: skip

    def is_final(self, state: State) -> bool:
        """Return whether Node Zero is through, and all is as it shall be."""
        node = state.processes[0]
        assert node is not None
        if node.program[0] != "end" or node.found or state.unit[0] != DONE:
            return False
        rows = {row: word for row, word in enumerate(state.rows) if word.id}
        there = {path_of(state.rows, row): row for row in rows}
        living = [p for p in state.processes[1:] if p is not None]
        if (
            there.keys() != self.wanted(state)
            or len(rows) != len(there)
            or len(living) != len(rows)
            or any(p.dead or p.doomed for p in living)
        ):
            return False
        return all(
            (process := process_of(state, word.pid)) is not None
            and process.row == row
            and process.parent == (1 if word.parent < 0 else state.rows[word.parent].pid)
            and (word.pid, row) in _kids(process_of(state, process.parent))
            and word.role == (CONTROL if _kids(process) else LEAF)
            for row, word in rows.items()
        )

    def wanted(self, state: State) -> frozenset[Places]:
        """Return the tree that Node Zero wants."""
        soon = self.instance.late and state.phase < 2
        return self.instance.before if state.refused or soon else self.instance.after

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every (what happens, state after it)."""
        for pid, process in enumerate(state.processes, 1):
            if process is None or process.dead:
                continue
            name = f"sphere {process.row} (pid {pid})" if pid > 1 else "Node Zero"
            for operation, after in self._step(state, pid, process):
                yield f"{name}: {' '.join(map(str, operation))}", after
            if process.doomed:
                yield f"{name} is gone", die(state, pid)
            elif pid > 1 and state.kills:
                killed = die(state, pid)
                yield f"{name} is killed", killed._replace(kills=state.kills - 1)

    def _step(
        self, state: State, pid: int, process: Process
    ) -> Iterator[tuple[tuple[Any, ...], State]]:
        """Yield what a process can do next: the access, and the state after it."""
        _, operation = self._look_up(process.program, process.found)
        for found, after in self.do(state, pid, process, operation):
            acting = after.processes[pid - 1]
            if acting is None or acting.dead:
                yield operation, after
                continue
            results = (*process.found, found)
            ended, following = self._look_up(process.program, results)
            if ended:
                while ended:  # what needs no access is done at once
                    program = following
                    ended, following = self._look_up(program, ())
                acting = acting._replace(program=program, found=())
            else:
                acting = acting._replace(found=results)
            yield operation, put(after, pid, acting)

    def _look_up(
        self, program: tuple[Any, ...], found: tuple[Any, ...]
    ) -> tuple[bool, tuple[Any, ...]]:
        """Return (False, the next access) of a program, or (True, the program that follows)."""
        key = (program, found)
        if key not in self._next:
            name, *arguments = program
            running: Program | tuple[Any, ...] = getattr(self, name.replace(" ", "_"))(*arguments)
            if isinstance(running, tuple):  # there is no access in it
                self._next[key] = True, running
                return self._next[key]
            try:
                operation = next(running)
                for result in found:
                    operation = running.send(result)
                self._next[key] = False, operation
            except StopIteration as end:
                self._next[key] = True, end.value
        return self._next[key]

    # The programs: a leaf.

    def start(self, row: int, fork: int) -> Program:
        """Be a child that was just forked (Supervisor._become)."""
        entered = yield "enter", row, fork
        return ("leaf", row) if entered else ("leave",)

    def leave(self) -> Program:
        """End."""
        yield ("exit",)
        return ("leave",)

    def leaf(self, row: int) -> Program:
        """Look for work without a permit (Sphere.run)."""
        yield "listen", WORK, row
        role, called = yield "called", row
        if role == LEAVING:
            return ("leave",)
        if called:
            return ("follow", row, None, 0)
        if (yield ("phase",)) == 1 and (yield "acquire", row):
            return ("worker", row)
        yield ("sleep",)
        return ("leaf", row)

    def worker(self, row: int) -> Program:
        """Do the unit, with a permit (Sphere.run)."""
        if (yield "claim", row):
            yield "compute", row
            yield "done", row
        yield ("advance",)
        yield ("ring node",)
        if self.bug == "keep-permit" and (yield "called", row)[1]:
            return ("follow", row, None, 0)
        yield "release", row
        return ("leaf", row)

    # A control.

    def control(self, row: int, kids: Kids, told: int) -> Program:
        """Look after the children (Member._look_after)."""
        yield "listen", CALL, row
        role, called = yield "called", row
        if role == LEAVING:
            return ("dismiss", row, kids, tuple(r for _, r in kids), ("leave",))
        if called:
            return ("follow", row, kids, told)
        orders = yield ("orders",)
        if orders != told:
            yield "ring", row
        return ("reap", row, kids, 0, ("nap", orders))

    def nap(self, row: int, kids: Kids, told: int) -> Program:
        """Sleep until there is something (Member._look_after)."""
        yield ("sleep",)
        return ("control", row, kids, told)

    def follow(self, row: int, kids: Kids | None, told: int) -> Program:
        """Follow an order (Member._follow)."""
        (number, places), role = yield "order?", row
        if role == LEAVING:
            return ("leave",) if kids is None else ("control", row, kids, told)
        if kids is None and places:
            if not (yield "change role", row, LEAF, CONTROL):
                return ("leave",)
            kids = ()
        if kids is None:
            yield "answer", row, number, False
            yield ("ring node",)
            return ("leaf", row)
        return ("have", row, kids, places, ("answered", number, told, False))

    def answered(self, row: int, kids: Kids, number: int, told: int, failed: bool) -> Program:
        """Answer the order, as a leaf again where there are no children (Member._follow)."""
        if not kids:
            yield "change role", row, CONTROL, LEAF
        yield "answer", row, number, failed
        yield ("ring node",)
        return ("control", row, kids, told) if kids else ("leaf", row)

    # A supervisor: a control, or Node Zero.

    def have(self, row: int, kids: Kids, places: Places, then: tuple[Any, ...]) -> Program:
        """Have children in these places and no others (Supervisor.have)."""
        table = yield ("table",)
        there = {table[kid].place: kid for _, kid in kids}
        new = []
        for place in places:
            if place not in there:
                free = yield "take", row, place
                if self.bug != "open-take":
                    yield "publish", free, row, place
                else:
                    yield "write", free, row, place
                new.append(free)
        kids = yield from self._fork(kids, new, row != NODE_ZERO)
        missing = set(new) - {kid for _, kid in kids}
        if missing:  # all or nothing
            for free in sorted(missing):
                yield "free", free
            then = (*then[:-1], True)
            return ("dismiss", row, kids, tuple(free for free in new if free not in missing), then)
        going = tuple(kid for place, kid in sorted(there.items()) if place not in places)
        return ("dismiss", row, kids, going, then)

    def dismiss(
        self, row: int, kids: Kids, going: tuple[int, ...], then: tuple[Any, ...]
    ) -> Program:
        """Let children go (Supervisor._dismiss)."""
        for kid in going:
            yield "become", kid, LEAVING
        yield "ring", row
        return ("dismissing", row, kids, going, then)

    def dismissing(
        self, row: int, kids: Kids, going: tuple[int, ...], then: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Wait until they are gone (Supervisor._dismiss)."""
        if any(kid in going for _, kid in kids):
            return ("reap", row, kids, 0, ("dismissing", going, then))
        return _then(then, row, kids)

    def reap(self, row: int, kids: Kids, place: int, then: tuple[Any, ...]) -> Program:
        """Bury the dead (Supervisor._reap, _reap_strays)."""
        if place == len(kids):
            if self.timeouts and self.bug != "no-strays":
                yield ("reap strays",)
            return _then(then, row, kids)
        if (yield "dead?", kids[place][0]):
            return ("bury", row, kids, place, then)
        return ("reap", row, kids, place + 1, then)

    def bury(self, row: int, kids: Kids, place: int, then: tuple[Any, ...]) -> Program:
        """Take back what a child held, adopt what it leaves, replace it (Supervisor._bury)."""
        pid, dead = kids[place]
        table = yield ("table",)
        role = table[dead].role
        yield from self._take_back(dead)
        adopted = 0
        if role != LEAF and self.bug != "forget-orphans":
            free = () if role == LEAVING else self._free_places(table, row, table[dead].place)
            kids, adopted = yield from self._inherit(row, kids, dead, free)
        yield from self._part_with(dead, pid)
        kids = tuple(kid for kid in kids if kid[0] != pid)
        if role == LEAVING or adopted or (role == CONTROL and self.bug == "leave-nobody"):
            yield "free", dead
        else:
            if role == CONTROL:
                yield "become", dead, LEAF
            kids = yield from self._fork(kids, [dead], False)
        if row == NODE_ZERO:
            return ("reap", row, kids, 0, then)
        yield ("ring node",)
        return ("reap", row, kids, 0, then)

    def _fork(
        self, kids: Kids, rows: list[int], may_fail: bool
    ) -> Generator[tuple[Any, ...], Any, Kids]:
        forks = {}
        for row in rows:
            forks[row] = yield "number", row
        pids = {}
        for row in rows:
            pid = yield "fork", row, forks[row], may_fail
            if not pid:
                break
            pids[row] = pid
        for row in pids:
            yield "record", row, forks[row], pids[row]
        return tuple(sorted((*kids, *((pid, row) for row, pid in pids.items()))))

    def _take_back(self, row: int) -> Generator[tuple[Any, ...], Any, None]:
        yield "free unit", row
        yield "free permit", row

    def _part_with(self, row: int, pid: int) -> Generator[tuple[Any, ...], Any, None]:
        if self.bug == "pid-stays":
            yield "wait", pid
            yield "forget", row
        else:
            yield "forget", row
            yield "wait", pid

    def _free_places(self, table: tuple[Row, ...], row: int, own: int) -> Places:
        taken = {word.place for word in table if word.id > 0 and word.parent == row} - {own}
        return tuple(place for place in range(self.instance.places) if place not in taken)

    def _inherit(
        self, row: int, kids: Kids, dead: int, free: Places
    ) -> Generator[tuple[Any, ...], Any, tuple[Kids, int]]:
        """Adopt or end the children of a dead node (Supervisor._inherit)."""
        adopted = 0
        yield "free unwritten", dead
        table = yield ("table",)
        for orphan, word in enumerate(table):
            if word.id <= 0 or word.parent != dead:
                continue
            pid = yield "disown", orphan
            if pid > 0:
                alive = not (yield "dead?", pid)
                if free and alive and word.role != LEAVING:
                    yield "stand", orphan, row, free[0]
                    free = free[1:]
                    kids = tuple(sorted((*kids, (pid, orphan))))
                    adopted += 1
                    continue
                yield "kill", pid
                if self.bug != "no-wait":
                    yield "await", pid
                if self.bug != "no-take-back":
                    yield from self._take_back(orphan)
                kids, more = yield from self._inherit(
                    row, kids, orphan, () if word.role == LEAVING else free
                )
                free, adopted = free[more:], adopted + more
                if self.bug == "no-wait":
                    yield "forget", orphan
                    yield "await", pid
                    yield "wait", pid
                else:
                    yield from self._part_with(orphan, pid)
            yield "free", orphan
        if self.bug != "no-ring":
            yield "ring", dead
        return kids, adopted

    # Node Zero.

    def settle(self, kids: Kids) -> Program:
        """Have the children that are wanted (Growth.settle)."""
        yield ("look at changes",)
        wanted = yield ("wanted",)
        places = tuple(sorted(path[0] for path in wanted if len(path) == 1))
        return ("have", NODE_ZERO, kids, places, ("give", wanted, False))

    def give(self, _: int, kids: Kids, wanted: frozenset[Places], __: bool) -> Program:
        """Give orders (Growth._orders, _give)."""
        table = yield ("table",)
        there = {path_of(table, row): row for row, word in enumerate(table) if word.id > 0}
        orders = {}
        for path, row in sorted(there.items()):
            places = tuple(sorted(p[-1] for p in wanted if p[:-1] == path))
            have = tuple(sorted(p[-1] for p in there if p[:-1] == path))
            if path in wanted and places != have:
                orders[row] = places
        if not orders:
            if (yield ("changed?",)):
                return ("settle", kids)
            return ("publish", kids)
        number = yield ("orders",)
        last = number + len(orders)
        if self.bug == "count-first":
            yield "count orders", last
        waits = []
        for row, places in orders.items():
            number += 1
            node = yield "node?", row
            if node > 0:
                waits.append((row, number, node))
                yield "give order", row, number, places
        if self.bug != "count-first":
            yield "count orders", last
        yield "ring", NODE_ZERO
        return ("await answers", NODE_ZERO, kids, tuple(waits))

    def await_answers(self, _: int, kids: Kids, waits: tuple[tuple[int, int, int], ...]) -> Program:
        """Wait until the orders are followed, or their nodes are gone (Growth._give)."""
        yield ("listen to node bell",)
        left = []
        for row, number, node in waits:
            answered = yield "answered?", row, number, node
            if answered == "refused":
                return ("settle", kids)
            if not answered:
                left.append((row, number, node))
        if not left:
            return ("settle", kids)
        if (yield ("sleep",)) == "rang":
            return ("await answers", NODE_ZERO, kids, tuple(left))
        return ("reap", NODE_ZERO, kids, 0, ("await answers", tuple(left)))

    def publish(self, kids: Kids) -> Program:
        """Begin the phase, or end when it is over (Runner.begin)."""
        if (yield ("phase",)) == 2:
            return ("end", NODE_ZERO, kids)
        yield ("begin",)
        return ("ring for work", NODE_ZERO, kids)

    def ring_for_work(self, _: int, kids: Kids) -> Program:
        """Wake the leaves (Runner._ring)."""
        for family in (yield ("families",)):
            yield "ring", family
        return ("await end", kids)

    def await_end(self, kids: Kids) -> Program:
        """Wait until the phase is over (Runner.wait)."""
        yield ("listen to node bell",)
        if (yield ("phase",)) == 2:
            return ("settle", kids) if self.instance.late else ("end", NODE_ZERO, kids)
        if (yield ("sleep",)) == "rang":
            return ("await end", kids)
        return ("reap", NODE_ZERO, kids, 0, ("ring for work",))

    def end(self, _: int, kids: Kids) -> Program:
        """Look after the spheres, and let what was lost grow again."""
        if (yield ("changed?",)):
            return ("settle", kids)
        return ("reap", NODE_ZERO, kids, 0, ("end",))


def _then(then: tuple[Any, ...], row: int, kids: Kids) -> tuple[Any, ...]:
    """Return the program that follows, which gets the children that there are now."""
    return then if then == ("leave",) else (then[0], row, kids, *then[1:])


def _kids(process: Process | None) -> Kids:
    """Return the children that a process knows of."""
    if process is None:
        return ()
    for argument in process.program[1:]:
        if isinstance(argument, tuple):
            return argument
    return ()


def explore(instance: Instance) -> int:
    """Visit every state of an instance; return how many there are.

    Raises:
        ViolationError: a state that must not be, with the shortest way to it.
    """
    return walk.explore(Model(instance), stuck=lambda state: state)


def _tree(text: str) -> frozenset[Places]:
    """Return the shape whose paths are given, digit by digit."""
    return frozenset(tuple(map(int, path)) for path in text.split())


USUAL = (
    Instance(_tree("0"), _tree("0 00"), 0),
    Instance(_tree("0"), _tree("0 00"), 0, late=True),
    Instance(_tree("0 00"), _tree("0"), 1),
    Instance(_tree("0 00"), _tree("0 00"), 1),
    Instance(_tree("0 00"), _tree("0 00"), 1, places=0),
)
THOROUGH = (
    Instance(_tree("0 00 01"), _tree("0"), 0),
    Instance(_tree("0"), _tree("0 00 01"), 0),
    Instance(_tree("0"), _tree("0 00"), 0, failures=1),
    Instance(_tree("0"), _tree("0 00"), 1),
    Instance(_tree("0 00"), _tree("0 00"), 2),
    Instance(_tree("0 00"), _tree("0 00 000"), 0),
    Instance(_tree("0 00"), _tree("0 00 01"), 1),
    Instance(_tree("0 00 01"), _tree("0 00 01"), 1, places=1),
    Instance(_tree("0 00 000"), _tree("0 00 000"), 1),
)
# Where a seeded bug shows; the last ones take long.
SHOWS = {
    "no-numbers": Instance(_tree("0"), _tree("0 00"), 1),
    "pid-stays": Instance(_tree("0 00"), _tree("0"), 1),
    "open-take": Instance(_tree("0"), _tree("0 00"), 1, rows=2),
    "no-strays": Instance(_tree("0 00"), _tree("0"), 1),
    "no-ring": Instance(_tree("0 00"), _tree("0 00"), 1),
    "no-wait": Instance(_tree("0 00"), _tree("0 00"), 1, places=0),
    "no-take-back": Instance(_tree("0 00"), _tree("0 00"), 1, places=0),
    "forget-orphans": Instance(_tree("0 00"), _tree("0 00"), 1),
    "wait-for-the-dead": Instance(_tree("0 00"), _tree("0"), 1),
    "keep-permit": Instance(_tree("0"), _tree("0 00"), 0, late=True),
    "leave-nobody": Instance(_tree("0 00"), _tree("0 00"), 2),
    "count-first": Instance(_tree("0 00"), _tree("0 00 000"), 0),
}
SLOW = {"leave-nobody", "count-first"}


def main(argv: list[str] | None = None) -> int:
    """Explore what the command line asks for; return 1 when a violation was found."""
    parser = argparse.ArgumentParser(description="Walk all interleavings of the tree of spheres.")
    parser.add_argument("--thorough", action="store_true", help="larger instances: minutes")
    parser.add_argument("--before", default="0 00", help="paths of the nodes of the tree")
    parser.add_argument("--after", default="0 00", help="and of those that are wanted")
    parser.add_argument("--late", action="store_true", help="they are wanted after the phase")
    parser.add_argument("--kills", type=int, help="explore just this one instance")
    parser.add_argument("--break", dest="bug", choices=BUGS, help="seed this bug")
    parser.add_argument("--list-bugs", action="store_true")
    options = parser.parse_args(argv)
    if options.list_bugs:
        list_bugs(BUGS)
        return 0
    chosen: tuple[Instance, ...] = USUAL + THOROUGH if options.thorough else USUAL
    if options.bug:
        chosen = (SHOWS[options.bug],)
    if options.kills is not None:
        before, after = _tree(options.before), _tree(options.after)
        chosen = (Instance(before, after, options.kills, options.late),)
    return walk_all(
        (replace(instance, bug=options.bug) for instance in chosen),
        explore,
    )


if __name__ == "__main__":
    sys.exit(main())
