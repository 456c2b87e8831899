"""Messages between nodes of the tree: a ring in shared memory for each, many writers, one reader.

Nothing may depend on a message: training is right when every one of them is lost.  Sending never
waits; a message to a full mailbox is dropped, and counted.

The words of one mailbox
------------------------
    TAIL       ticket of the next message; whoever finds it claimed may move it on by CAS
    HEAD       ticket of the next message to be read; the reader's
    counters   sent, received, dropped, skipped, refused; its owner's
    64 slots   of eight words: claim; kind and addressee; step; five words of payload

Ticket t has slot t mod 64 and round t // 64 + 1.  Rounds begin at 1, so that fresh memory, which is
all zeros, is an empty mailbox.  The claim word of a slot only grows:

    word = round · 2³⁴ + state · 2³² + generation · 2¹⁶ + (row + 1)     CLAIMED 1 < PUBLISHED 2

    older round ──CAS by a writer──> CLAIMED(r, writer)
    CLAIMED(r, w) ──store by w, after its message──> PUBLISHED(r, w)

A writer reads TAIL, then HEAD, and so sees too few free slots rather than too many.  Where there is
one it claims the word of TAIL's slot by CAS from the value that it looked at, moves TAIL on, writes
its message and publishes.  If another was faster it helps TAIL on and tries the next.  TAIL is
not simply taken by an addition: whoever then found the mailbox full could not give its ticket back.
The claim names the writer, so that whatever it dies of and whenever, it is known whose slot it is.

The reader takes slots in order, and moves HEAD on when it has read the message.  A slot that is
claimed and not published holds up those behind it, unless its writer is gone: dead, and waited
for by its parent.  Then it is skipped.  So is a message to a node that had the reader's row before.

`tools/model_mailbox.py` walks all interleavings.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from crystalline._kernels.atomics import Words

SLOTS = 64
PAYLOAD = 5  # int64 words of a message that mean what its kind says

_LINE = 8  # words to a cache line, and to a slot
_TAIL, _HEAD, _COUNTERS, _FIRST = (i * _LINE for i in range(4))
MAILBOX_WORDS = _FIRST + SLOTS * _LINE
_SENT, _RECEIVED, _DROPPED, _SKIPPED, _REFUSED = range(_COUNTERS, _COUNTERS + 5)
_ABOUT, _STEP, _DATA = 1, 2, 3  # in a slot, after its claim word
_CLAIMED, _PUBLISHED = 1, 2
_LOW = 0xFFFF  # 16 bits
_LIMIT = 2**63


class Kind(IntEnum):
    """What a message is about."""

    HELLO = 1  # row, level, position: to siblings and to the parent
    STATUS = 2
    STATS = 3
    WORK_REQUEST = 4
    WORK_GRANT = 5
    WORK_DONE = 6
    SPAWN = 7
    SPAWNED = 8
    TERMINATE = 9
    PAUSE = 10
    RESUME = 11
    ERROR = 12  # the text is in the sender's row of the region `errors`
    HEARTBEAT = 13
    CHECKPOINT = 14
    REBALANCE = 15


class Address(NamedTuple):
    """A node, told apart from those that had its row before."""

    row: int  # -1: Node Zero
    generation: int  # of the row; 16 bits of it count

    @property
    def word(self) -> int:
        """The address as the low 32 bits of a word."""
        return (self.generation & _LOW) << 16 | (self.row + 1)

    @classmethod
    def of_word(cls, word: int) -> Address:
        """Return the address in the low 32 bits of a word."""
        return cls((word & _LOW) - 1, word >> 16 & _LOW)


NODE_ZERO = Address(-1, 0)


class Message(NamedTuple):
    """What was received."""

    kind: Kind
    sender: Address
    step: int
    payload: tuple[int, ...]  # PAYLOAD words


class Counters(NamedTuple):
    """Messages of one node so far."""

    sent: int
    received: int
    dropped: int  # the addressee's mailbox was full
    skipped: int  # in its own mailbox: the writer died over it, or it was for a node before
    refused: int  # there is no link to the addressee


def words_needed(rows: int) -> int:
    """Return the words that the mailboxes of so many rows and of Node Zero take."""
    return (rows + 1) * MAILBOX_WORDS


class Post:
    """One node's door to the mailboxes: it reads its own and writes to those it is linked to."""

    def __init__(
        self,
        words: Words,
        me: Address,
        *,
        linked: Callable[[int, int], bool],
        is_gone: Callable[[Address], bool],
    ) -> None:
        """`words` are those of all mailboxes.  `linked` tells of two rows whether messages may run
        between them; `is_gone` of a node whether its process is dead and waited for, so that it
        will never write again.
        """
        self._words = words
        self._me = me
        self._linked = linked
        self._is_gone = is_gone
        self._mine = _base(me.row, self._words.size)

    def send(self, kind: Kind, to: Address, step: int = 0, payload: tuple[int, ...] = ()) -> bool:
        """Put a message into a node's mailbox; return False when that is full, or not linked.

        It never waits: it tries again only where another writer was faster.
        """
        if len(payload) > PAYLOAD:
            raise ValueError(f"{len(payload)} words of payload, a message has {PAYLOAD}")
        content = [kind << 32 | to.word, step, *payload, *[0] * (PAYLOAD - len(payload))]
        if not all(-_LIMIT <= word < _LIMIT for word in content):  # before a slot is claimed
            raise OverflowError(f"a message of {content} does not fit into words of 64 bits")
        if not self._linked(self._me.row, to.row):
            self._words.bump(self._mine + _REFUSED, 1)
            return False
        words, base = self._words, _base(to.row, self._words.size)
        while True:
            ticket = words.load(base + _TAIL)
            if ticket - words.load(base + _HEAD) >= SLOTS:
                words.bump(self._mine + _DROPPED, 1)
                return False
            slot, claim = _slot(base, ticket), _claim(ticket)
            found = words.load(slot)
            claimed = found < claim and words.compare_exchange(slot, found, claim | self._me.word)
            # Whoever has claimed it, TAIL goes on; by our hand where the other is slow, or dead.
            words.compare_exchange(base + _TAIL, ticket, ticket + 1)
            if claimed:
                break
        for place, word in enumerate(content, slot + _ABOUT):
            words.put(place, word)
        words.store(slot, _published(ticket) | self._me.word)
        words.bump(self._mine + _SENT, 1)
        return True

    def receive(self) -> Message | None:
        """Return the next message; None when there is none, or its writer is not ready.

        Only one process may read a mailbox: its owner.
        """
        words, base = self._words, self._mine
        while True:
            ticket = words.load(base + _HEAD)
            slot = _slot(base, ticket)
            found = words.load(slot)
            if found < _claim(ticket):
                return None
            message = None
            sender = Address.of_word(found)
            if found >= _published(ticket):
                about = words.load(slot + _ABOUT)
                if about & 0xFFFFFFFF == self._me.word:
                    message = Message(
                        Kind(about >> 32),
                        sender,
                        words.load(slot + _STEP),
                        tuple(words.load(slot + _DATA + place) for place in range(PAYLOAD)),
                    )
            elif not self._is_gone(sender):
                return None
            else:  # it may have died before it moved TAIL on, which is never behind HEAD
                words.compare_exchange(base + _TAIL, ticket, ticket + 1)
            words.store(base + _HEAD, ticket + 1)
            words.bump(base + (_SKIPPED if message is None else _RECEIVED), 1)
            if message is not None:
                return message

    def waiting(self) -> int:
        """Return how many messages are in the mailbox, those included that are being written."""
        head = self._words.load(self._mine + _HEAD)
        return self._words.load(self._mine + _TAIL) - head

    def counters(self) -> Counters:
        """Return this node's counters."""
        return counters(self._words, self._me.row)


def counters(words: Words, row: int) -> Counters:
    """Return the counters of a row, -1 for Node Zero's."""
    first = _base(row, words.size) + _COUNTERS
    return Counters(*(words.load(first + i) for i in range(len(Counters._fields))))


def _base(row: int, size: int) -> int:
    """Return where the mailbox of a row begins; Node Zero's is the first."""
    base = (row + 1) * MAILBOX_WORDS
    if not 0 <= base < size:
        raise IndexError(f"row {row} has no mailbox")
    return base


def _slot(base: int, ticket: int) -> int:
    return base + _FIRST + ticket % SLOTS * _LINE


def _claim(ticket: int) -> int:
    return (ticket // SLOTS + 1) << 34 | _CLAIMED << 32


def _published(ticket: int) -> int:
    return (ticket // SLOTS + 1) << 34 | _PUBLISHED << 32
