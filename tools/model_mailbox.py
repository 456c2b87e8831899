"""Walk every interleaving of writers and the reader of a mailbox, for small numbers of everything.

    python3 tools/model_mailbox.py                       # the usual instances, some seconds
    python3 tools/model_mailbox.py --writers 2 --messages 2 --slots 2 --kills 1
    python3 tools/model_mailbox.py --break head-first    # seed a bug; it must be found

The rules are in crystalline/ipc/mailbox.py; `Model.writer` and `Model.reader` repeat its `send` and
`receive` one atomic access at a time.  Every order of these accesses is tried, and a writer may be
killed between any two of them.  Checked in every state:

* a message is received whole, once, and after those that its writer sent before it;
* a writer writes into a slot only while that is its own and holds nothing unread;
* a message is dropped only when the mailbox is full at that moment;
* a writer tries again only when somebody else got on;
* in the end every message that was published was received, and TAIL stands where HEAD does;
* from every state the end can be reached: no dead writer holds up the others for ever.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.walk import ViolationError, explore, list_bugs, walk_all  # noqa: E402

CLAIMED, PUBLISHED = 1, 2

# Bugs that can be seeded, and what each does.
BUGS = {
    "take-ticket": "TAIL is taken by an addition before the writer looks whether there is room",
    "head-first": "a writer reads HEAD before TAIL",
    "plain-claim": "a slot is claimed by looking and then storing, without compare-and-swap",
    "publish-first": "a slot is published before the message is in it",
    "move-first": "the reader moves HEAD on before it has read the message",
    "no-help": "a writer does not move TAIL on for another",
    "no-help-for-the-dead": "the reader does not move TAIL on for a dead writer",
    "skip-slow": "the reader skips a slot whose writer lives and is only slow",
    "never-skip": "the reader waits for a dead writer",
}


@dataclass(frozen=True)
class Instance:
    """How many of everything."""

    writers: int
    messages: int  # of each writer
    slots: int
    kills: int = 0
    bug: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.writers} writers, {self.messages} messages each, {self.slots} slots, "
            f"{self.kills} kills"
        )


class Claim(NamedTuple):
    """The claim word of a slot; claims compare as the words do."""

    round: int
    state: int
    writer: int


class Slot(NamedTuple):
    """A slot: its claim word, and the two halves of a message as (writer, number)."""

    claim: Claim
    first: tuple[int, int]
    second: tuple[int, int]


class Writer(NamedTuple):
    """One that sends its messages one after the other."""

    at: str = "tail"  # the access that comes next
    number: int = 0  # of the message
    ticket: int = 0
    head: int = 0  # as it was read, for a seeded bug
    found: Claim = Claim(0, 0, -1)
    claimed: bool = False


class Reader(NamedTuple):
    """The one that receives."""

    at: str = "look"
    ticket: int = 0  # HEAD, which nobody else writes
    first: tuple[int, int] = (-1, -1)
    second: tuple[int, int] = (-1, -1)
    owner: int = -1


class State(NamedTuple):
    """All there is."""

    tail: int
    head: int
    slots: tuple[Slot, ...]
    writers: tuple[Writer, ...]
    reader: Reader
    fates: tuple[str, ...]  # by writer, a letter for each message: see below
    kills: int  # that may still happen


UNSENT, SENT, DROPPED, RECEIVED = "-", "s", "d", "r"


class Model:
    """The transitions of one instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.bug = instance.bug
        self._begin = "head" if self.bug == "head-first" else "tail"

    def first(self) -> State:
        """Return the empty mailbox."""
        n = self.instance
        empty = Slot(Claim(0, 0, -1), (-1, -1), (-1, -1))
        return State(
            0, 0, (empty,) * n.slots, (Writer(self._begin),) * n.writers, Reader(),
            (UNSENT * n.messages,) * n.writers, n.kills,
        )  # fmt: skip

    def is_final(self, state: State) -> bool:
        """Return whether all have sent and nothing is left to be read; check what came of it."""
        slot = state.slots[state.head % self.instance.slots]
        if (
            any(writer.at not in ("end", "dead") for writer in state.writers)
            or state.reader.at != "look"
            or slot.claim >= self._claim(state.head, CLAIMED)
        ):
            return False
        if any(SENT in fates for fates in state.fates):
            raise ViolationError(f"messages were lost: {state.fates}")
        if state.tail != state.head:
            raise ViolationError(f"TAIL is {state.tail} and HEAD is {state.head} in the end")
        return True

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield every (what happens, state after it)."""
        for label, after in self.reader(state):
            yield f"reader: {label}", after
        for index, writer in enumerate(state.writers):
            if writer.at in ("end", "dead"):
                continue
            label, after = self.writer(state, index, writer)
            yield f"writer {index}: {label}", after
            if state.kills:
                dead = self._put(state, index, writer._replace(at="dead"))
                yield f"writer {index} is killed", dead._replace(kills=state.kills - 1)

    def writer(self, state: State, index: int, writer: Writer) -> tuple[str, State]:
        """Return what a writer does next."""
        at, number, ticket = writer.at, writer.number, writer.ticket
        place = ticket % self.instance.slots
        slot = state.slots[place]

        def go(where: str, of: State = state, **changes: Any) -> State:
            return self._put(of, index, writer._replace(at=where, **changes))

        if at == "tail":
            taken = state
            if self.bug == "take-ticket":
                taken = state._replace(tail=state.tail + 1)
            writer = writer._replace(ticket=state.tail)
            if self.bug == "head-first":
                return "reads TAIL", self._decide(taken, index, writer, writer.head)
            return "reads TAIL", go("head", taken)
        if at == "head":
            if self.bug == "head-first":
                return "reads HEAD", go("tail", head=state.head)
            return "reads HEAD", self._decide(state, index, writer, state.head)
        if at == "look":
            if slot.claim < self._claim(ticket, CLAIMED):
                return "sees a free slot", go("claim", found=slot.claim)
            return "sees a claimed slot", go("help", claimed=False)
        if at == "claim":
            if slot.claim != writer.found and self.bug != "plain-claim":
                return "is too late", go("help", claimed=False)
            if ticket - state.head >= self.instance.slots:
                raise ViolationError(f"writer {index} claims a slot that has not been read")
            mine = slot._replace(claim=Claim(self._round(ticket), CLAIMED, index))
            return "claims it", go("help", self._fill(state, place, mine), claimed=True)
        if at == "help":
            moved = state
            if state.tail == ticket and (writer.claimed or self.bug != "no-help"):
                moved = state._replace(tail=ticket + 1)
            if writer.claimed:
                then = "publish" if self.bug == "publish-first" else "first"
                return "moves TAIL on", go(then, moved)
            if moved.tail == ticket:
                raise ViolationError(f"writer {index} waits for another to move TAIL on")
            return "moves TAIL on for another", go(self._begin, moved)
        if slot.claim[0] != self._round(ticket) or slot.claim[2] != index:
            raise ViolationError(f"writer {index} writes into a slot that is not its own")
        if at == "first":
            filled = slot._replace(first=(index, number))
            return "writes half a message", go("second", self._fill(state, place, filled))
        if at == "second":
            filled = slot._replace(second=(index, number))
            then = "next" if self.bug == "publish-first" else "publish"
            after = self._fill(state, place, filled)
            if then == "next":
                return "writes the other half", self._next(after, index, writer)
            return "writes the other half", go(then, after)
        # publish
        done = slot._replace(claim=Claim(self._round(ticket), PUBLISHED, index))
        after = self._fate(self._fill(state, place, done), index, number, SENT)
        if self.bug == "publish-first":
            return "publishes", go("first", after)
        return "publishes", self._next(after, index, writer)

    def reader(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield what the reader can do next."""
        reader = state.reader
        ticket, place = reader.ticket, reader.ticket % self.instance.slots
        slot = state.slots[place]

        def go(where: str, of: State = state, **changes: Any) -> State:
            return of._replace(reader=reader._replace(at=where, **changes))

        if reader.at == "look":
            if slot.claim < self._claim(ticket, CLAIMED):
                return  # nothing: it looks again
            if slot.claim >= self._claim(ticket, PUBLISHED):
                then = "first"
                if self.bug == "move-first":
                    state = state._replace(head=ticket + 1)
                yield "sees a message", go(then, state, owner=slot.claim.writer)
            elif self.bug == "skip-slow" or (
                state.writers[slot.claim.writer].at == "dead" and self.bug != "never-skip"
            ):
                yield "finds the writer dead", go("help")
        elif reader.at == "help":
            moved = state
            if state.tail == ticket and self.bug != "no-help-for-the-dead":
                moved = state._replace(tail=ticket + 1)
            yield "moves TAIL on", go("skip", moved)
        elif reader.at == "skip":
            yield "skips the slot", _moved_on(state)
        elif reader.at == "first":
            yield "reads half a message", go("second", first=slot.first)
        elif reader.at == "second":
            yield "reads the other half", go("move", second=slot.second)
        else:
            yield "moves HEAD on", _moved_on(self._deliver(state))

    def _deliver(self, state: State) -> State:
        """Return the state after a message has been received; check it."""
        reader = state.reader
        if reader.first != reader.second or reader.first[0] != reader.owner:
            raise ViolationError(f"a message is {reader.first} and {reader.second}")
        writer, number = reader.first
        fates = state.fates[writer]
        if fates[number] != SENT:
            raise ViolationError(f"message {number} of writer {writer} is received as {fates!r}")
        if SENT in fates[:number] or RECEIVED in fates[number:]:
            raise ViolationError(f"message {number} of writer {writer} comes out of order")
        return self._fate(state, writer, number, RECEIVED)

    def _decide(self, state: State, index: int, writer: Writer, head: int) -> State:
        """Return the state after a writer has seen whether there is room."""
        if writer.ticket - head < self.instance.slots:
            return self._put(state, index, writer._replace(at="look"))
        if state.tail - state.head < self.instance.slots:
            raise ViolationError(f"writer {index} drops a message though there is room")
        return self._next(self._fate(state, index, writer.number, DROPPED), index, writer)

    def _next(self, state: State, index: int, writer: Writer) -> State:
        """Return the state in which a writer begins its next message."""
        number = writer.number + 1
        at = self._begin if number < self.instance.messages else "end"
        return self._put(state, index, Writer(at, number))

    def _put(self, state: State, index: int, writer: Writer) -> State:
        writers = (*state.writers[:index], writer, *state.writers[index + 1 :])
        return state._replace(writers=writers)

    def _fill(self, state: State, place: int, slot: Slot) -> State:
        return state._replace(slots=(*state.slots[:place], slot, *state.slots[place + 1 :]))

    def _fate(self, state: State, writer: int, number: int, fate: str) -> State:
        fates = state.fates[writer]
        fates = fates[:number] + fate + fates[number + 1 :]
        return state._replace(fates=(*state.fates[:writer], fates, *state.fates[writer + 1 :]))

    def _round(self, ticket: int) -> int:
        return ticket // self.instance.slots + 1

    def _claim(self, ticket: int, state: int) -> Claim:
        return Claim(self._round(ticket), state, -1)


def _moved_on(state: State) -> State:
    """Return the state after HEAD was moved on."""
    ticket = state.reader.ticket + 1
    return state._replace(head=ticket, reader=Reader("look", ticket))


USUAL = (
    Instance(2, 2, 1),
    Instance(2, 2, 2),
    Instance(2, 3, 2),
    Instance(3, 1, 1),
    Instance(3, 1, 2),
    Instance(2, 2, 1, kills=1),
    Instance(2, 2, 2, kills=1),
    Instance(2, 2, 2, kills=2),
    Instance(3, 1, 2, kills=1),
)
THOROUGH = (
    Instance(2, 4, 2, kills=1),
    Instance(2, 3, 3, kills=2),
    Instance(3, 1, 2, kills=2),
    Instance(3, 2, 1, kills=1),
    Instance(3, 2, 2),
)
BROKEN = (  # a seeded bug shows in one of these, the smallest first
    Instance(1, 2, 1),
    Instance(2, 1, 2),
    Instance(2, 2, 1),
    Instance(2, 2, 2),
    Instance(2, 1, 2, kills=1),
    Instance(2, 2, 2, kills=1),
)


def main(argv: list[str] | None = None) -> int:
    """Explore what the command line asks for; return 1 when a violation was found."""
    parser = argparse.ArgumentParser(description="Walk all interleavings of a mailbox.")
    parser.add_argument("--thorough", action="store_true", help="larger instances: minutes")
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--messages", type=int, default=2, help="of each writer")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--kills", type=int, help="explore just this one instance")
    parser.add_argument("--break", dest="bug", choices=BUGS, help="seed this bug")
    parser.add_argument("--list-bugs", action="store_true")
    options = parser.parse_args(argv)
    if options.list_bugs:
        list_bugs(BUGS)
        return 0
    chosen: tuple[Instance, ...] = (
        USUAL + THOROUGH if options.thorough else BROKEN if options.bug else USUAL
    )
    if options.kills is not None:
        chosen = (Instance(options.writers, options.messages, options.slots, options.kills),)
    return walk_all(
        (replace(instance, bug=options.bug) for instance in chosen),
        lambda instance: explore(Model(instance)),
    )


if __name__ == "__main__":
    sys.exit(main())
