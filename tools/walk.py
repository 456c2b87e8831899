"""Walk all states of a model, and tell what was found: for the models beside this."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class ViolationError(Exception):
    """A state that must not be."""


class Model(Protocol[State]):
    """What can happen; its methods raise `ViolationError` when something did that must not."""

    def first(self) -> State:
        """Return the state in the beginning."""
        ...

    def is_final(self, state: State) -> bool:
        """Return whether it is a state at the end."""
        ...

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every (what happens, state after it)."""
        ...


Instance = TypeVar("Instance")


def list_bugs(bugs: Mapping[str, str]) -> None:
    """Print the bugs that can be seeded, and what each does."""
    print("\n".join(f"{name:20} {text}" for name, text in bugs.items()))


def walk_all(instances: Iterable[Instance], walk: Callable[[Instance], int]) -> int:
    """Walk instances one after the other and tell of each; return 1 when one is violated."""
    for instance in instances:
        began = time.perf_counter()
        try:
            count = walk(instance)
        except ViolationError as error:
            print(f"{instance}: {error}")
            return 1
        print(f"{instance}: {count:,} states, all well ({time.perf_counter() - began:.1f} s)")
    return 0


def explore(
    model: Model[State],
    alike: Callable[[State], State] = lambda state: state,
    stuck: Callable[[State], object] = lambda state: state,
    most_states: int = 3_000_000,
) -> int:
    """Visit every state; return how many there are.

    Of states that differ in nothing that matters, `alike` gives the one to go on with; `stuck`
    gives what to show of one that leads to no end.

    Raises:
        ViolationError: a state that must not be, or from which no end can be reached, with the
            shortest way to it.
    """
    first = model.first()
    number_of: dict[State, int] = {first: 0}
    states = [first]
    came_from = array("q", [-1])
    before: list[array[int]] = [array("q")]  # the predecessors of each state
    finals = []
    at = 0
    while at < len(states):
        state = states[at]
        try:
            if model.is_final(state):
                finals.append(at)
            else:
                for _, raw in model.successors(state):
                    after = alike(raw)
                    number = number_of.get(after)
                    if number is None:
                        number = len(states)
                        number_of[after] = number
                        states.append(after)
                        came_from.append(at)
                        before.append(array("q"))
                    before[number].append(at)
        except ViolationError as error:
            way = "\n".join(_way(model, alike, states, came_from, at))
            raise ViolationError(f"{error}\n{way}") from None
        if len(states) > most_states:
            raise SystemExit(f"more than {most_states:,} states")
        at += 1
    ends = bytearray(len(states))
    for number in finals:
        ends[number] = 1
    queue = finals
    while queue:
        for number in before[queue.pop()]:
            if not ends[number]:
                ends[number] = 1
                queue.append(number)
    if not all(ends):
        where = ends.index(0)
        way = "\n".join(_way(model, alike, states, came_from, where))
        raise ViolationError(f"from here on it never ends: {stuck(states[where])}\n{way}")
    return len(states)


def _way(
    model: Model[State],
    alike: Callable[[State], State],
    states: list[State],
    came_from: array[int],
    at: int,
) -> list[str]:
    """Return what happened on the way to a state (those who are alike may trade numbers)."""
    chain = [at]
    while came_from[chain[-1]] >= 0:
        chain.append(came_from[chain[-1]])
    chain.reverse()
    lines = []
    for here, there in pairwise(chain):
        for label, raw in model.successors(states[here]):
            if alike(raw) == states[there]:
                lines.append("  " + label)
                break
    return lines
