"""Walk every interleaving of a step's lanes and merges in place, with deaths at any moment.

    python3 tools/model_sums.py                      # the usual instances, some seconds
    python3 tools/model_sums.py --break no-undo      # seed a bug; it must be found

The protocol is drawn in crystalline/train/sums.py and crystalline/model/merge.py; `Model.sphere`
and `Model.bury` repeat, one access of memory at a time, what these, `Barrier.claim` and the burial
of the dead do.  A sphere may be killed between any two of them, and is then forked anew.  Units and
buffers are those of `plan_sums`, the function that runs use.  Checked in every state:

* a unit is done by one sphere at a time, and no unit writes a buffer that another reads or writes;
* a merge finds the whole sums of its two children in its buffers;
* in the end buffer 0 holds the sum of all lanes, in the order of the tree;
* from every state the end can be reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crystalline.train.sums import Leaf, Merge, plan_sums
from tools.walk import ViolationError, explore, list_bugs, walk_all

FREE, CLAIMED, DONE = 0, 1, 2
TORN = "torn"  # a value of which a part is written only

# Bugs that can be seeded, and what each does.
BUGS = {
    "no-needs": "a unit is claimed before what it needs is done",
    "no-undo": "the half-done merge of a dead sphere is not undone",
    "free-first": "a dead sphere's merge is freed before it is undone",
    "no-copy": "a merge does not copy what it changes",
    "no-progress": "a merge does not count what is done, and begins anew after a death",
    "plain-claim": "a unit is claimed by looking and then storing, without compare-and-swap",
}

State = tuple[Any, ...]
# A state is a tuple of
#   words      claim word of each unit, as (state, sphere or -1)
#   buffers    what each holds: a tree of leaves, TORN, or None
#   progress   blocks done of each merge, 0 or 1
#   undo       per sphere (it keeps its permit): (merge, value) or None
#   spheres    (where it is, unit) each
#   kills      how many may still happen


@dataclass(frozen=True)
class Instance:
    """How many of everything."""

    lanes: int
    spheres: int
    buffers: int
    kills: int
    bug: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.lanes} lanes, {self.spheres} spheres, {self.buffers} buffers, "
            f"{self.kills} kills"
        )


class Model:
    """The transitions of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.bug = instance.bug
        self.plan = plan_sums(instance.lanes, 1, permits=1, most_buffers=instance.buffers)
        self.values: dict[range, Any] = {}
        for unit in self.plan.units:
            if isinstance(unit, Leaf):
                self.values[unit.lanes] = unit.lanes.start
            else:
                known = (lanes for lanes in self.values if lanes.start == unit.lanes.start)
                left = max(known, key=len)  # units come in post-order
                right = range(left.stop, unit.lanes.stop)
                self.values[unit.lanes] = (self.values[left], self.values[right])

    def first(self) -> State:
        """Return the state at Point A."""
        n, units = self.instance, self.plan.units
        return (
            ((FREE, -1),) * len(units), (None,) * self.plan.buffers,
            (0,) * len(units), (None,) * n.spheres, (("look", -1),) * n.spheres, n.kills,
        )  # fmt: skip

    def is_final(self, state: State) -> bool:
        """Return whether all units are done; check what came of it."""
        if any(word[0] != DONE for word in state[0]):
            return False
        if state[1][0] != self.values[range(self.instance.lanes)]:
            raise ViolationError(f"the sum is {state[1][0]}")
        return True

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every (what happens, state after it)."""
        for index, (at, _) in enumerate(state[4]):
            if at.startswith("dead"):
                yield self.bury(state, index)
                continue
            for label, after in self.sphere(state, index):
                yield f"sphere {index}: {label}", after
            if state[5]:
                unit = state[4][index][1]
                yield (
                    f"sphere {index} is killed",
                    _put(state, index, "dead", unit, kills=state[5] - 1),
                )

    def sphere(self, state: State, index: int) -> Iterator[tuple[str, State]]:
        """Yield what a sphere does next, by one access."""
        words, buffers, progress, undo, spheres, _ = state
        at, unit = spheres[index]
        if at == "look":
            for number, word in enumerate(words):
                needs = () if self.bug == "no-needs" else self.plan.needs[number]
                if word[0] == FREE and all(words[other][0] == DONE for other in needs):
                    if self.bug == "plain-claim":
                        yield f"sees unit {number} free", _put(state, index, "claim", number)
                    else:
                        mine = _set(words, number, (CLAIMED, index))
                        yield (
                            f"claims unit {number}",
                            _put(state, index, "begin", number, words=mine),
                        )
                    return
            return  # it waits, and looks again when another unit is done
        work = self.plan.units[unit]
        if at == "claim":
            mine = _set(words, unit, (CLAIMED, index))
            yield f"claims unit {unit}", _put(state, index, "begin", unit, words=mine)
            return
        self._check(state, index)
        if at == "done":
            yield (
                f"marks unit {unit} done",
                _put(state, index, "look", -1, words=_set(words, unit, (DONE, index))),
            )
        elif isinstance(work, Leaf):
            torn = at == "begin"
            value = TORN if torn else self.values[work.lanes]
            yield "writes a lane", _put(
                state, index, "half" if torn else "done", unit,
                buffers=_set(buffers, work.buffer, value),
            )  # fmt: skip
        elif at == "begin":
            if progress[unit] and self.bug != "no-progress":
                yield "finds it done", _put(state, index, "void", unit)
            else:
                then = "change" if self.bug == "no-copy" else "copy"
                yield (
                    "voids its undo area",
                    _put(state, index, then, unit, undo=_set(undo, index, None)),
                )
        elif at == "copy":
            kept = _set(undo, index, (unit, buffers[work.buffer]))
            yield "copies and marks", _put(state, index, "change", unit, undo=kept)
        elif at == "change":
            yield (
                "changes a part",
                _put(state, index, "half", unit, buffers=_set(buffers, work.buffer, TORN)),
            )
        elif at == "half":
            left = undo[index][1] if undo[index] else self._left(work)
            value = (left, buffers[work.right])
            yield (
                "changes the rest",
                _put(state, index, "count", unit, buffers=_set(buffers, work.buffer, value)),
            )
        elif at == "count":
            yield (
                "counts the block",
                _put(state, index, "void", unit, progress=_set(progress, unit, 1)),
            )
        elif at == "void":
            yield (
                "voids its undo area",
                _put(state, index, "done", unit, undo=_set(undo, index, None)),
            )

    def _left(self, merge: Merge) -> Any:
        return self.values[merge.lanes][0]

    def _check(self, state: State, index: int) -> None:
        """See that nobody else is at the unit or its buffers, and that sums are whole."""
        words, buffers, progress, _, spheres, _ = state
        at, unit = spheres[index]
        work = self.plan.units[unit]
        if words[unit] != (CLAIMED, index):
            raise ViolationError(f"sphere {index} does unit {unit}, which is {words[unit]}")
        mine = {work.buffer} | ({work.right} if isinstance(work, Merge) else set())
        for other, (where, number) in enumerate(spheres):
            if other == index or where in ("look", "claim") or where.startswith("dead"):
                continue
            theirs = self.plan.units[number]
            if theirs.buffer in mine:
                raise ViolationError(f"units {unit} and {number} use buffer {theirs.buffer}")
        if isinstance(work, Merge) and at in ("begin", "copy") and not progress[unit]:
            left, right = self.values[work.lanes]
            if (buffers[work.buffer], buffers[work.right]) != (left, right):
                found = buffers[work.buffer], buffers[work.right]
                raise ViolationError(f"a merge for {left} and {right} finds {found}")

    def bury(self, state: State, index: int) -> tuple[str, State]:
        """Return what happens next to what a dead sphere left."""
        words, buffers, progress, undo, spheres, _ = state
        at, unit = spheres[index]
        held = unit >= 0 and words[unit] == (CLAIMED, index)
        free = _set(words, unit, (FREE, -1)) if held else words
        if at == "dead" and self.bug == "free-first":
            return f"unit {unit} is freed", _put(state, index, "dead late", unit, words=free)
        if at != "dead freed":
            after, kept = buffers, undo[index]
            if held or self.bug == "free-first":
                work = self.plan.units[unit] if unit >= 0 else None
                is_whole = self.bug == "no-undo" or kept is None or kept[0] != unit
                if isinstance(work, Merge) and not is_whole and not progress[unit]:
                    after = _set(buffers, work.buffer, kept[1])
            then = "dead freed" if at == "dead" else "look"
            return f"unit {unit} is undone", _put(
                state, index, then, unit if then != "look" else -1,
                buffers=after, undo=_set(undo, index, None),
            )  # fmt: skip
        return f"unit {unit} is freed", _put(state, index, "look", -1, words=free)


def _set(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _put(state: State, index: int, at: str, unit: int, **changes: Any) -> State:
    """Return the state with a sphere moved, and what is named changed."""
    names = ("words", "buffers", "progress", "undo", "spheres", "kills")
    after = [changes.get(name, value) for name, value in zip(names, state, strict=True)]
    after[4] = _set(state[4], index, (at, unit))
    return tuple(after)


USUAL = (
    Instance(2, 2, 2, 2),
    Instance(3, 1, 2, 2),
    Instance(3, 2, 2, 2),
    Instance(4, 2, 3, 2),
    Instance(4, 3, 4, 0),
    Instance(5, 2, 3, 1),
)


def main(argv: list[str] | None = None) -> int:
    """Explore what the command line asks for; return 1 when a violation was found."""
    parser = argparse.ArgumentParser(description="Walk all interleavings of sums in place.")
    parser.add_argument("--break", dest="bug", choices=BUGS, help="seed this bug")
    parser.add_argument("--list-bugs", action="store_true")
    options = parser.parse_args(argv)
    if options.list_bugs:
        list_bugs(BUGS)
        return 0
    return walk_all(
        (replace(usual, bug=options.bug) for usual in USUAL),
        lambda instance: explore(Model(instance)),
    )


if __name__ == "__main__":
    sys.exit(main())
