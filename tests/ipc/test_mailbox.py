"""Mailboxes: whole messages, in order, none lost below capacity, whoever dies and whenever."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from crystalline._kernels.atomics import Words
from crystalline.ipc.arena import Arena
from crystalline.ipc.mailbox import (
    MAILBOX_WORDS,
    NODE_ZERO,
    PAYLOAD,
    SLOTS,
    Address,
    Counters,
    Kind,
    Message,
    Post,
    counters,
    words_needed,
)
from tests.ipc.writers import GO, KILL, LAYOUT, READY, VICTIM, address, post

ROOT = Path(__file__).resolve().parents[2]
MANY = 63
ROWS = 4

A, B, C = Address(0, 7), Address(1, 8), Address(2, 65_535)


@pytest.fixture
def words() -> np.ndarray:
    return np.zeros(words_needed(ROWS), np.int64)


def door(words: np.ndarray, me: Address, *gone: Address) -> Post:
    return Post(Words(words), me, linked=lambda *_: True, is_gone=gone.__contains__)


def drain(reader: Post) -> list[Message]:
    return list(iter(reader.receive, None))


def test_a_slot_is_a_cache_line() -> None:
    assert SLOTS == 64
    assert MAILBOX_WORDS * 8 == 64 * (SLOTS + 3)
    assert len(Kind) == 15


def test_a_message_arrives_as_it_was_sent(words: np.ndarray) -> None:
    writer, reader = door(words, C), door(words, NODE_ZERO)
    assert reader.receive() is None
    payload = (1, -1, 2**63 - 1, -(2**63), 0)
    assert writer.send(Kind.SPAWNED, NODE_ZERO, 10**12, payload)
    assert reader.waiting() == 1
    assert reader.receive() == Message(Kind.SPAWNED, C, 10**12, payload)
    assert writer.send(Kind.HELLO, NODE_ZERO)
    assert reader.receive() == Message(Kind.HELLO, C, 0, (0,) * PAYLOAD)
    assert reader.receive() is None
    assert reader.waiting() == 0


def test_every_node_has_a_mailbox_of_its_own(words: np.ndarray) -> None:
    nodes = [NODE_ZERO, A, B, C, Address(3, 0)]
    doors = [door(words, node) for node in nodes]
    for i, sender in enumerate(doors):
        for j, node in enumerate(nodes):
            assert sender.send(Kind.STATUS, node, 10 * i + j)
    for j, reader in enumerate(doors):
        assert [(m.sender, m.step) for m in drain(reader)] == [
            (node, 10 * i + j) for i, node in enumerate(nodes)
        ]
    for row in (-2, ROWS):
        with pytest.raises(IndexError, match=f"row {row} has no mailbox"):
            doors[0].send(Kind.STATUS, Address(row, 0))


def test_a_full_mailbox_drops_what_comes(words: np.ndarray) -> None:
    writer, other, reader = door(words, A), door(words, B), door(words, NODE_ZERO)
    for round_ in range(3):  # the slots are used again and again
        assert [writer.send(Kind.STATS, NODE_ZERO, step) for step in range(SLOTS)] == [True] * SLOTS
        assert not other.send(Kind.STATS, NODE_ZERO)
        assert not writer.send(Kind.STATS, NODE_ZERO)
        assert reader.waiting() == SLOTS
        assert reader.receive().step == 0
        assert other.send(Kind.STATS, NODE_ZERO, 1000)
        assert not other.send(Kind.STATS, NODE_ZERO)
        assert [message.step for message in drain(reader)] == [*range(1, SLOTS), 1000]
        assert writer.counters() == Counters(SLOTS * (round_ + 1), 0, round_ + 1, 0, 0)
        assert other.counters() == Counters(round_ + 1, 0, 2 * (round_ + 1), 0, 0)
        assert reader.counters() == Counters(0, (SLOTS + 1) * (round_ + 1), 0, 0, 0)


def test_messages_run_along_links_only(words: np.ndarray) -> None:
    asked = []

    def linked(ours: int, theirs: int) -> bool:
        asked.append((ours, theirs))
        return theirs == B.row

    writer = Post(Words(words), A, linked=linked, is_gone=lambda _: False)
    assert writer.send(Kind.WORK_REQUEST, B)
    assert not writer.send(Kind.WORK_REQUEST, C)
    assert not writer.send(Kind.WORK_REQUEST, NODE_ZERO)
    assert asked == [(0, 1), (0, 2), (0, -1)]
    assert writer.counters() == Counters(1, 0, 0, 0, 2)
    assert len(drain(door(words, B))) == 1
    assert drain(door(words, C)) == drain(door(words, NODE_ZERO)) == []


def test_a_message_for_a_node_that_had_the_row_before_is_skipped(words: np.ndarray) -> None:
    writer = door(words, A)
    writer.send(Kind.TERMINATE, B)
    later = Address(B.row, B.generation + 1)
    writer.send(Kind.HELLO, later)
    reader = door(words, later)
    assert [message.kind for message in drain(reader)] == [Kind.HELLO]
    assert reader.counters() == Counters(0, 1, 0, 1, 0)


@pytest.mark.parametrize(
    ("step", "payload", "error"),
    [(0, (1,) * 6, ValueError), (2**63, (), OverflowError), (0, (-(2**63) - 1,), OverflowError)],
)
def test_what_is_no_message_takes_no_slot(
    words: np.ndarray, step: int, payload: tuple[int, ...], error: type[Exception]
) -> None:
    writer, reader = door(words, A), door(words, B)
    with pytest.raises(error):
        writer.send(Kind.STATS, B, step, payload)
    assert reader.waiting() == 0
    assert writer.send(Kind.STATS, B)
    assert len(drain(reader)) == 1


# Somebody comes in between, or dies, at every access to a word


class Watched(Words):
    """Words that call a hook before the access with a given number."""

    hook: Callable[[], None]
    at: int

    def _count(self) -> None:
        self.at -= 1
        if self.at == -1:
            self.hook()

    def load(self, index: int) -> int:
        self._count()
        return super().load(index)

    def store(self, index: int, value: int) -> None:
        self._count()
        super().store(index, value)

    def put(self, index: int, value: int) -> None:
        self._count()
        super().put(index, value)

    def bump(self, index: int, amount: int) -> None:
        self._count()
        super().bump(index, amount)

    def compare_exchange(self, index: int, expected: int, value: int) -> bool:
        self._count()
        return super().compare_exchange(index, expected, value)


class DiedError(Exception):
    """Instead of a death: nothing more is written."""


def die() -> None:
    raise DiedError


def watch(words: np.ndarray, owner: Post, at: int, hook: Callable[[], None]) -> Watched:
    watched = Watched(words)
    watched.at, watched.hook = at, hook
    owner._words = watched
    return watched


SEND, RECEIVE = 14, 11  # accesses; one more is none


def test_the_accesses_are_all_seen(words: np.ndarray) -> None:
    writer, reader = door(words, A), door(words, B)
    seen = [watch(words, writer, 99, die), watch(words, reader, 99, die)]
    assert writer.send(Kind.STATS, B)
    assert reader.receive() is not None
    assert [99 - each.at for each in seen] == [SEND, RECEIVE]


@pytest.mark.parametrize("full", [0, 1, SLOTS - 1])
@pytest.mark.parametrize("at", range(SEND))
def test_a_writer_dies_at_every_access(words: np.ndarray, at: int, full: int) -> None:
    """What it wrote comes whole or not at all; what others write comes in any case."""
    writer, other = door(words, A), door(words, C)
    waiting, alive = door(words, B), door(words, B, A)
    for step in range(full):
        assert other.send(Kind.STATS, B, step)
    watch(words, writer, at, die)
    with pytest.raises(DiedError):
        writer.send(Kind.STATS, B, 5000, (1, 2, 3, 4, 5))
    claimed, published = at > 3, at == SEND - 1
    fits = full + claimed < SLOTS
    assert other.send(Kind.STATS, B, 6000) == fits
    before = drain(waiting)  # it is not known yet that the writer is gone
    assert [m.step for m in before[:full]] == list(range(full))
    assert len(before) == full + (0 if claimed and not published else fits + published)
    after = before + drain(alive)
    whole = [Message(Kind.STATS, A, 5000, (1, 2, 3, 4, 5))] * published
    assert [m for m in after[full:] if m.sender == A] == whole
    assert [m.step for m in after[full:] if m.sender == C] == [6000] * fits
    assert alive.counters().skipped == (claimed and not published)
    assert alive.waiting() == 0
    for step in range(SLOTS):  # every slot is there again
        assert other.send(Kind.STATS, B, step)
    assert [m.step for m in drain(alive)] == list(range(SLOTS))


@pytest.mark.parametrize("at", range(4, SEND - 1))
def test_the_reader_moves_on_over_a_dead_writer_by_itself(words: np.ndarray, at: int) -> None:
    writer, reader = door(words, A), door(words, B, A)
    watch(words, writer, at, die)
    with pytest.raises(DiedError):
        writer.send(Kind.STATS, B)
    assert reader.receive() is None
    assert (reader.waiting(), reader.counters().skipped) == (0, 1)


@pytest.mark.parametrize("full", [0, SLOTS - 2, SLOTS - 1])
@pytest.mark.parametrize("at", range(SEND))
def test_another_writer_comes_in_between_at_every_access(
    words: np.ndarray, at: int, full: int
) -> None:
    writer, other, reader = door(words, A), door(words, C), door(words, B)
    for step in range(full):
        assert other.send(Kind.STATS, B, step)
    both = []
    watch(words, writer, at, lambda: both.append(other.send(Kind.STATUS, B, 7000, (9,) * 5)))
    both.append(writer.send(Kind.HELLO, B, 8000, (1, 2, 3, 4, 5)))
    assert sum(both) == min(2, SLOTS - full)
    found = drain(reader)[full:]
    assert Counter((m.kind, m.sender, m.step, m.payload) for m in found) == Counter(
        [(Kind.STATUS, C, 7000, (9,) * 5)] * both[0]
        + [(Kind.HELLO, A, 8000, (1, 2, 3, 4, 5))] * both[1]
    )
    assert writer.counters().sent == both[1]
    assert writer.counters().dropped == (not both[1])


@pytest.mark.parametrize("at", range(3))
def test_a_reader_comes_in_between_when_the_mailbox_is_full(words: np.ndarray, at: int) -> None:
    writer, reader = door(words, A), door(words, B)
    for step in range(SLOTS):
        assert writer.send(Kind.STATS, B, step)
    watch(words, writer, at, reader.receive)
    assert writer.send(Kind.STATS, B, SLOTS) == (at < 2)  # HEAD is read second, not before TAIL
    assert [m.step for m in drain(reader)] == [*range(1, SLOTS), *[SLOTS] * (at < 2)]


@pytest.mark.parametrize("at", range(RECEIVE))
def test_a_writer_comes_in_between_while_one_reads(words: np.ndarray, at: int) -> None:
    writer, reader = door(words, A), door(words, B)
    for step in range(SLOTS):
        assert writer.send(Kind.STATS, B, step, (step,) * 5)
    sent = []
    watch(words, reader, at, lambda: sent.append(writer.send(Kind.STATS, B, SLOTS, (SLOTS,) * 5)))
    first = reader.receive()
    assert first is not None
    assert (first.step, first.payload) == (0, (0,) * 5)
    assert sent == [at >= RECEIVE - 1]  # only once HEAD has moved on
    assert [m.step for m in drain(reader)] == [*range(1, SLOTS), *[SLOTS] * sent[0]]


@pytest.mark.parametrize("at", range(RECEIVE))
def test_a_reader_dies_at_every_access(words: np.ndarray, at: int) -> None:
    """Its successor goes on where it was; at worst it is told one thing twice."""
    writer, reader = door(words, A), door(words, B)
    for step in range(3):
        assert writer.send(Kind.STATS, B, step)
    watch(words, reader, at, die)
    with pytest.raises(DiedError):
        reader.receive()
    assert [m.step for m in drain(door(words, B))] == ([1, 2] if at == RECEIVE - 1 else [0, 1, 2])


# Processes


@contextmanager
def writing(folder: Path, messages: int, *, kill: bool = False) -> Iterator[tuple[Arena, Post]]:
    """Let 63 processes begin to write at once; yield the arena and the reader's door."""
    arena = Arena.create(LAYOUT, folder)
    start = Words(arena["start"])
    command = [sys.executable, "-m", "tests.ipc.writers", str(arena.descriptor)]
    process = subprocess.Popen(
        [*command, str(MANY), str(messages)], cwd=ROOT, pass_fds=[arena.descriptor]
    )
    try:
        deadline = time.monotonic() + 30
        while start.load(READY) < MANY and time.monotonic() < deadline:
            time.sleep(0.005)
        start.store(KILL, kill)
        start.store(GO, 1)
        start.wake(GO, MANY)
        yield arena, post(arena, NODE_ZERO)
        assert process.wait(20) == 0
    finally:
        arena.close()
        process.kill()  # its children go with it
        process.wait()


def collect(reader: Post, wanted: int) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + 30
    while len(found) < wanted and time.monotonic() < deadline:
        new = drain(reader)
        found += new
        if not new:
            time.sleep(0.0005)
    return found


def check(found: list[Message], messages: int, writers: set[int]) -> None:
    """Every message is whole, and those of each writer are all there, in order."""
    assert Counter(m.sender.row for m in found) == Counter(dict.fromkeys(writers, messages))
    steps: Counter[int] = Counter()
    for message in found:
        row, number, product, *rest = message.payload
        assert (message.kind, message.sender) == (Kind.STATS, address(row))
        assert (message.step, product, rest) == (number, row * number, [0, 0])
        assert number == steps[row]
        steps[row] += 1


@pytest.mark.timeout(60)
def test_nothing_is_lost_below_capacity(tmp_path: Path) -> None:
    with writing(tmp_path, 1) as (arena, reader):
        pass  # nothing is read before all have written
    found = drain(reader)
    check(found, 1, set(range(MANY)))
    counted = [counters(Words(arena["mailboxes"]), row) for row in range(MANY)]
    assert counted == [Counters(1, 0, 0, 0, 0)] * MANY


@pytest.mark.timeout(60)
def test_sixty_three_writers_and_one_reader(tmp_path: Path) -> None:
    """What does not fit is dropped and sent again: all comes, and the counters know of all."""
    messages = 20
    with writing(tmp_path, messages) as (arena, reader):
        found = collect(reader, MANY * messages)
    assert drain(reader) == []
    check(found, messages, set(range(MANY)))
    counted = [counters(Words(arena["mailboxes"]), row) for row in range(MANY)]
    assert [each.sent for each in counted] == [messages] * MANY
    assert reader.counters() == Counters(0, MANY * messages, 0, 0, 0)


@pytest.mark.timeout(60)
def test_a_writer_is_killed_over_its_message(tmp_path: Path) -> None:
    """The others' messages come, once it is known that the dead one is dead."""
    with writing(tmp_path, 1, kill=True) as (arena, reader):
        pass  # all have ended, and were waited for
    before = drain(reader)
    reader._is_gone = address(VICTIM).__eq__
    found = before + drain(reader)
    assert len(before) < len(found)
    check(found, 1, set(range(MANY)) - {VICTIM})
    assert reader.counters() == Counters(0, MANY - 1, 0, 1, 0)
    assert counters(Words(arena["mailboxes"]), VICTIM).sent == 0
