"""What `model_tree` walks: the words, the processes and the kernel, and each access to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tools.walk import ViolationError

LEAF, CONTROL, LEAVING = "leaf", "control", "leaving"
NODE_ZERO = -1  # its row; its pid is 1
FREE, CLAIMED, DONE = "free", "claimed", "done"
WORK, CALL = "work", "call"

Places = tuple[int, ...]


class Row(NamedTuple):
    """A row of the table."""

    id: int = 0
    pid: int = 0
    parent: int = NODE_ZERO
    place: int = 0
    role: str = LEAF
    order: tuple[int, Places] = (0, ())
    answer: int = 0
    failed: bool = False


class Process(NamedTuple):
    """A process: where its program is, and what the accesses since then gave."""

    parent: int
    row: int
    program: tuple[Any, ...]
    found: tuple[Any, ...] = ()
    listens: tuple[str, int] | None = None
    rang: bool = False
    doomed: bool = False
    dead: bool = False


class State(NamedTuple):
    """All there is."""

    rows: tuple[Row, ...]
    processes: tuple[Process | None, ...]  # pid 1 is the first
    unit: tuple[str, int]
    permit: int  # the row that has it, -1: free
    phase: int  # 0 idle, 1 the phase, 2 idle after it
    numbers: int  # of nodes and forks, so far
    orders: int
    changed: bool  # since Node Zero looked
    kills: int  # that may still happen
    failures: int
    refused: bool  # Node Zero has heard of a failure


class Machine:
    """Does what programs ask for; a bug may be seeded."""

    def __init__(self, bug: str | None, timeouts: bool) -> None:
        self.bug = bug
        self.timeouts = timeouts

    def wanted(self, state: State) -> frozenset[Places]:
        """Return the tree that Node Zero wants."""
        raise NotImplementedError

    # The accesses.

    def do(
        self, state: State, pid: int, me: Process, access: tuple[Any, ...]
    ) -> Iterator[tuple[Any, State]]:
        """Yield every (what an access gives, state after it); nothing where it must wait."""
        rows = state.rows
        match access:
            case ("sleep",):
                if me.rang:
                    yield "rang", state
                elif self.timeouts and (me.listens is None or me.listens[0] == CALL):
                    yield "slept enough", state
            case "fork", row, fork, may_fail:
                if may_fail and state.failures:
                    yield 0, state._replace(failures=state.failures - 1)
                child = Process(pid, row, ("start", row, fork))
                free = (*state.processes, None).index(None)
                yield free + 1, put(state, free + 1, child)
            case "await", child:
                if self._child(state, pid, child).dead:
                    yield None, state
            case "wait", child:
                if self._child(state, pid, child).dead:
                    yield None, put(state, child, None)
            case "dead?", child:
                yield self._child(state, pid, child).dead, state
            case "kill", child:
                process = self._child(state, pid, child)
                doomed = process if process.dead else process._replace(doomed=True)
                yield None, put(state, child, doomed)
            case ("reap strays",):
                named = {word.pid for word in rows if word.id > 0}
                yield (
                    None,
                    state._replace(
                        processes=trimmed(
                            None if p and p.dead and p.parent == pid and n not in named else p
                            for n, p in enumerate(state.processes, 1)
                        )
                    ),
                )
            case ("exit",):
                yield None, die(state, pid)
            case "enter", row, fork:
                yield self._enter(state, pid, row, fork)
            case "listen", bell, row:
                listening = me._replace(listens=(bell, rows[row].parent), rang=False)
                yield None, put(state, pid, listening)
            case ("listen to node bell",):
                yield None, put(state, pid, me._replace(rang=False))
            case ("ring node",):
                yield None, rung(state, lambda process: process.row == NODE_ZERO)
            case "ring", family:
                yield None, rung(state, lambda p: bool(p.listens and p.listens[1] == family))
            case ("acquire" | "claim" | "compute" | "done" | "advance" | "release", *_):
                yield self._work(state, *access)
            case (
                (
                    "orders"
                    | "phase"
                    | "wanted"
                    | "changed?"
                    | "table"
                    | "families"
                    | "called"
                    | "order?"
                    | "node?"
                    | "answered?"
                ),
                *_,
            ):
                yield self._read(state, *access)
            case _:
                yield self._write(state, *access)

    def _enter(self, state: State, pid: int, row: int, fork: int) -> tuple[Any, State]:
        if state.rows[row].pid not in (fork, pid):
            return False, state
        for other, process in enumerate(state.processes, 1):
            if process is None or other == pid or process.dead or process.row != row:
                continue
            if process.program[0] not in ("start", "leave"):
                raise ViolationError(f"pids {other} and {pid} are both in row {row}")
        return True, written(state, row, pid=pid)

    def _child(self, state: State, pid: int, child: int) -> Process:
        process = process_of(state, child)
        if process is None or process.parent != pid:
            raise ViolationError(f"pid {child} is no child of pid {pid}")
        return process

    def _work(self, state: State, name: str, row: int = -1) -> tuple[Any, State]:
        """Return what an access of a leaf at work gives, and the state after it."""
        unit, permit = state.unit, state.permit
        if name == "acquire":
            return (True, state._replace(permit=row)) if permit < 0 else (False, state)
        if name == "advance":
            return None, state._replace(phase=2) if unit[0] == DONE else state
        if permit != row:
            raise ViolationError(f"row {row}: {name}, with the permit of {permit}")
        if name == "claim":
            if state.phase == 1 and unit[0] == FREE:
                return True, state._replace(unit=(CLAIMED, row))
            if unit[0] == CLAIMED:
                raise ViolationError(f"row {row} has the permit, and {unit[1]} the unit")
            return False, state
        if name == "release":
            return None, state._replace(permit=-1)
        if (unit, state.phase) != ((CLAIMED, row), 1):
            raise ViolationError(f"row {row}: {name}, of a unit that is {unit}")
        return None, state._replace(unit=(DONE, -1)) if name == "done" else state

    def _read(self, state: State, name: str, *arguments: Any) -> tuple[Any, State]:
        """Return what a look gives, and the state after it."""
        if name == "orders":
            return state.orders, state
        if name == "phase":
            return state.phase, state
        if name == "wanted":
            return self.wanted(state), state
        if name == "changed?":
            return state.changed, state
        if name == "table":
            return state.rows, state
        if name == "families":
            leaves = (w.parent for w in state.rows if w.id > 0 and w.role == LEAF)
            return tuple(sorted(set(leaves))) if state.permit < 0 else (), state
        row, *others = arguments
        word = state.rows[row]
        if name == "called":
            return (word.role, word.order[0] != word.answer), state
        if name == "order?":
            return (word.order, word.role), state
        if name == "node?":
            return word.id, state
        number, node = others
        if word.id != node:
            return self.bug != "wait-for-the-dead", state
        if word.answer >= number and word.failed:
            return "refused", state._replace(refused=True)
        return word.answer >= number, state

    def _write(self, state: State, name: str, *arguments: Any) -> tuple[Any, State]:
        """Return what a change of a word gives, and the state after it."""
        if name == "look at changes":
            return None, state._replace(changed=False)
        if name == "begin":
            return None, state._replace(phase=1)
        row, *others = arguments
        if name == "count orders":
            return None, state._replace(orders=row)
        if name == "free unwritten":
            clean = tuple(Row() if word.id == -2 - row else word for word in state.rows)
            return None, state._replace(rows=clean)
        if name == "take":
            ids = [word.id for word in state.rows]
            if 0 not in ids:
                raise ViolationError("no row is free")
            free = ids.index(0)
            if self.bug != "open-take":
                return free, written(state, free, id=-2 - row)
            number = state.numbers + 1
            return free, written(state, free, id=number)._replace(numbers=number)
        word, number = state.rows[row], state.numbers + 1
        holds = state.permit == row or state.unit == (CLAIMED, row)
        if name in ("publish", "write"):
            word = Row(number if name == "publish" else word.id, 0, others[0], others[1])
            after = state._replace(rows=replaced(state.rows, row, word), changed=True)
            return None, after._replace(numbers=number) if name == "publish" else after
        if name == "number":
            if self.bug == "no-numbers":
                return 0, written(state, row, pid=0)
            return -number, written(state, row, pid=-number)._replace(numbers=number)
        if name == "record":
            return None, written(state, row, pid=others[1]) if word.pid == others[0] else state
        if name == "disown":
            if word.pid < 0 or (word.pid == 0 and self.bug == "no-numbers"):
                return 0, written(state, row, pid=0)
            return word.pid, state
        if name == "forget":
            return None, written(state, row, pid=0)
        if name == "free unit":
            return None, state._replace(unit=(FREE, -1)) if state.unit[1] == row else state
        if name == "free permit":
            return None, state._replace(permit=-1) if state.permit == row else state
        if name == "answer":
            return None, written(state, row, answer=others[0], failed=others[1])
        if name == "give order":
            return None, written(state, row, order=(others[0], others[1]))
        # The others change the tree.
        state = state._replace(changed=True)
        if name == "stand":
            return None, written(state, row, parent=others[0], place=others[1])
        if name == "become":
            return None, written(state, row, role=others[0])
        if name == "free":
            if holds:
                raise ViolationError(f"row {row} is free and has the permit")
            return None, written(state, row, id=0)
        assert name == "change role"
        if holds:
            raise ViolationError(f"row {row} becomes a {others[1]} with a permit")
        if word.role != others[0]:
            return False, state
        return True, written(state, row, role=others[1])


def path_of(rows: tuple[Row, ...], row: int) -> Places:
    """Return the places on the way to a node from Node Zero."""
    places: list[int] = []
    while row != NODE_ZERO and len(places) <= len(rows):
        places.append(rows[row].place)
        row = rows[row].parent
    return tuple(reversed(places))


def replaced(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    """Return a tuple with another value in one place."""
    return (*values[:place], value, *values[place + 1 :])


def written(state: State, row: int, **words: Any) -> State:
    """Return the state after words of a row were written."""
    return state._replace(rows=replaced(state.rows, row, state.rows[row]._replace(**words)))


def rung(state: State, whom: Callable[[Process], bool]) -> State:
    """Return the state after a bell has rung for some."""
    processes = tuple(
        process._replace(rang=True) if process is not None and whom(process) else process
        for process in state.processes
    )
    return state._replace(processes=processes)


def process_of(state: State, pid: int) -> Process | None:
    """Return the process that has a pid."""
    return state.processes[pid - 1] if 0 < pid <= len(state.processes) else None


def put(state: State, pid: int, process: Process | None) -> State:
    """Return the state with another process, or none, at a pid."""
    return state._replace(processes=trimmed(replaced(state.processes, pid - 1, process)))


def trimmed(processes: Any) -> tuple[Process | None, ...]:
    """Return processes without pids at the end that nobody has."""
    kept = list(processes)
    while kept[-1] is None:
        kept.pop()
    return tuple(kept)


def die(state: State, pid: int) -> State:
    """Return the state after a process has died: the kernel gives its children to its parent."""
    gone = state.processes[pid - 1]
    assert gone is not None
    processes = [
        p._replace(parent=gone.parent) if p is not None and p.parent == pid else p
        for p in state.processes
    ]
    processes[pid - 1] = Process(gone.parent, gone.row, ("dead",), dead=True)
    return state._replace(processes=tuple(processes))
