"""The loop that owns a decoder: many texts share its passes, and come and go between them.

    scheduler = Scheduler(decoder)
    scheduler.submit(job)            # waits for a free slot, in order of arrival
    for piece in scheduler.pieces(job): ...

A pass is one call of `Decoder.extend` with at most `chunk` tokens: first one token for each
text that has one to add, then prompts in order of arrival, in chunks.  So a long prompt holds up
no text that is being written, and since there are never more slots than tokens in a pass, the
oldest prompt always comes on.  A job that needs several slots waits at the head of the queue
until they are free, and nobody passes it.

Where the context is full (positions end at seq_len), the newest half of a text's tokens is kept
and read again from position 0, as a prompt is.

A prompt that begins as another slot's tokens do (samples of one prompt, the turns of a chat) takes
them from there and reads only what follows; while the other is still reading, it waits.

Nothing here knows what the tokens say: a `Job` chooses them from the logits.  One thread at a time
may call a scheduler; `door` lets others in.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crystalline.errors import CrystallineError
from crystalline.infer.protocol import Decoder, Logits, TokenIds

# A common beginning of fewer tokens is sooner read again than copied or waited for.
SHARED_TOKENS = 16


class Work:
    """What a scheduler can be given; when it is `done`, an `error` says what stopped it."""

    def __init__(self) -> None:
        self.done = False
        self.error: CrystallineError | None = None


class Job(Work, ABC):
    """Something that grows from a prompt, token by token: a text, or the beams of a search."""

    width = 1  # most sequences at once, each in a slot of its own

    def __init__(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise ValueError("a prompt has at least one token")
        super().__init__()
        self.prompt = list(prompt)
        self.pieces: deque[str] = deque()  # of its text, which nobody has taken yet

    def begin(self) -> None:
        """Take notice that the reading of the prompt begins."""

    @abstractmethod
    def advance(self, rows: Sequence[Logits]) -> list[tuple[int, int]]:
        """Take the logits [V] after each sequence; return how it goes on.

        The first time there is one row, that of the prompt.  Each (index of a row, token)
        is a sequence of the next rows, in this order; none ends the job.

        Raises:
            CrystallineError: the job ends with it; others are not concerned.
        """


class Scoring(Work):
    """A text that is measured: windows of tokens, one in each pass; `take` gets their nats."""

    def __init__(
        self, windows: Iterable[TokenIds], take: Callable[[npt.NDArray[np.float64]], None]
    ) -> None:
        super().__init__()
        self.windows = iter(windows)
        self.take = take


@dataclass
class Figures:
    """What the passes were for.  A pass that did both is divided by its tokens."""

    prompt_tokens: int = 0  # of prompts, as many as were read
    prompt_seconds: float = 0.0
    decode_tokens: int = 0  # added to texts; the first of each text comes with its prompt
    decode_seconds: float = 0.0  # with the time for full contexts, which are read again

    def since(self, before: Figures) -> Figures:
        """Return what has been added to `before`.

        >>> Figures(9, 0.5, 4, 2.0).since(Figures(4, 0.5, 1, 0.5))
        Figures(prompt_tokens=5, prompt_seconds=0.0, decode_tokens=3, decode_seconds=1.5)
        """
        return Figures(
            self.prompt_tokens - before.prompt_tokens,
            self.prompt_seconds - before.prompt_seconds,
            self.decode_tokens - before.decode_tokens,
            self.decode_seconds - before.decode_seconds,
        )


@dataclass(eq=False)
class _Slot:
    """The tokens that the model should see, and how many of them the cache holds."""

    index: int
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    is_new: bool = False  # nothing of these tokens has been read here yet
    row: Logits | None = None  # after the last token, when all are read
    used: int = 0  # the pass in which it was given back

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.cached

    @property
    def held(self) -> list[int]:
        return self.tokens[: self.cached]

    def restart(self, tokens: list[int], cached: int = 0) -> None:
        self.tokens, self.cached, self.is_new, self.row = tokens, cached, True, None


@dataclass(eq=False)
class _Running:
    job: Job
    lent: list[_Slot]
    active: list[_Slot]  # those with a sequence, in the order of the rows
    reads_prompt: bool = True


class Scheduler:
    """Works on jobs in passes over one decoder.

    `figures` are those of all passes so far.
    """

    def __init__(self, decoder: Decoder) -> None:
        if decoder.chunk < decoder.slots:
            raise ValueError(f"a chunk of {decoder.chunk} tokens for {decoder.slots} slots")
        self.slots = decoder.slots
        self.seq_len = decoder.config.seq_len
        self.figures = Figures()
        self._decoder = decoder
        self._all = [_Slot(index) for index in range(decoder.slots)]
        self._waiting: deque[Job] = deque()
        self._running: list[_Running] = []  # in order of arrival
        self._scorings: deque[Scoring] = deque()
        self._passes = 0

    # --- the door -----------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Jobs that no slot has been free for."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether a pass would have nothing to do."""
        return not (self._waiting or self._running or self._scorings)

    def submit(self, work: Work) -> None:
        """Take work in; it begins in one of the next passes."""
        if isinstance(work, Scoring):
            self._scorings.append(work)
        elif isinstance(work, Job):
            if work.width > self.slots:
                raise ValueError(f"a job of {work.width} slots, the decoder has {self.slots}")
            self._waiting.append(work)
        else:
            raise TypeError(f"{type(work).__name__} is no work for a scheduler")

    def cancel(self, work: Work) -> None:
        """Forget work that is not done; its slots are free at once."""
        if work.done:
            return
        work.done = True
        self._scorings = deque(other for other in self._scorings if other is not work)
        self._waiting = deque(other for other in self._waiting if other is not work)
        for run in [run for run in self._running if run.job is work]:
            self._give_back(run)

    def pieces(self, job: Job) -> Iterator[str]:
        """Yield the pieces of a submitted job's text as they become certain.

        Passes are made as they are needed, which brings others on, too.  Whoever stops
        early, by closing the iterator or by Ctrl-C, cancels the job.

        Raises:
            CrystallineError: what stopped the job.
        """
        try:
            while True:
                while job.pieces:
                    yield job.pieces.popleft()
                if job.done:
                    break
                self.step()
        finally:
            self.cancel(job)
        if job.error is not None:
            raise job.error

    def finish(self, work: Work) -> None:
        """Make passes until submitted work is done; raises what stopped it."""
        try:
            while not work.done:
                self.step()
        finally:
            self.cancel(work)
        if work.error is not None:
            raise work.error

    def step(self) -> list[Work]:
        """Make one pass; return what came on in it or was done."""
        started = time.perf_counter()
        self._passes += 1
        self._admit()
        turns = self._plan()
        prompt_tokens = self._extend(turns) if turns else 0
        moved: list[Work] = []
        for run in [run for run in self._running if all(s.row is not None for s in run.active)]:
            moved.append(run.job)
            self._advance(run)
        if turns:
            self._count(turns, prompt_tokens, time.perf_counter() - started)
        if self._scorings:
            moved.append(self._score())
        return moved

    # --- a pass, part by part -----------------------------------------------------------------

    def _admit(self) -> None:
        """Give the jobs that have waited longest their slots, as far as there are any."""
        lent = {slot for run in self._running for slot in run.lent}
        free = sorted((s for s in self._all if s not in lent), key=lambda s: (s.used, s.index))
        while self._waiting and len(free) >= self._waiting[0].width:
            job = self._waiting[0]
            tokens = job.prompt[-self.seq_len :]
            kept = [_common(slot.held, tokens[:-1]) for slot in free]
            shared = max(kept)
            first = free.pop(kept.index(shared))
            first.restart(tokens, shared if shared >= SHARED_TOKENS else 0)
            others = [free.pop(0) for _ in range(job.width - 1)]
            # In this order, so that Ctrl-C between the lines loses neither job nor slot.
            self._running.append(_Running(job, [first, *others], [first]))
            self._waiting.popleft()
            job.begin()

    def _plan(self) -> list[tuple[_Slot, int]]:
        """Return which slots read how many tokens in this pass."""
        unread = [slot for run in self._running for slot in run.active if slot.unread]
        turns = [(slot, 1) for slot in unread if slot.unread == 1]
        budget = self._decoder.chunk - len(turns)
        for place, slot in enumerate(unread):
            if slot.unread == 1 or (slot.is_new and self._shares(slot, unread[:place])):
                continue
            count = min(slot.unread, budget)
            if count:
                turns.append((slot, count))
                budget -= count
        return turns

    def _shares(self, slot: _Slot, earlier: list[_Slot]) -> bool:
        """Copy what another slot holds of these tokens, or return that it is worth waiting for."""
        wanted = slot.tokens[:-1]  # at least one is read, for its logits
        held, source = slot.cached, slot
        for other in self._all:
            if other is not slot and (common := _common(other.held, wanted)) > held:
                held, source = common, other
        worth = slot.cached + SHARED_TOKENS
        if any(_common(other.tokens, wanted) >= max(worth, held + 1) for other in earlier):
            return True
        if held >= worth:
            self._copy({slot: source})
            slot.cached = held
        return False

    def _extend(self, turns: list[tuple[_Slot, int]]) -> int:
        """Let the model read; return how many tokens were of prompts."""
        decoder = self._decoder
        for slot, _ in turns:
            if decoder.length(slot.index) != slot.cached:
                decoder.truncate(slot.index, slot.cached)
        rows = decoder.extend(
            [slot.index for slot, _ in turns],
            [np.array(s.tokens[s.cached : s.cached + n], dtype=np.int32) for s, n in turns],
        )
        for (slot, count), row in zip(turns, rows, strict=True):
            slot.cached += count
            slot.is_new = False
            if not slot.unread:
                slot.row = row
        reading = {slot for run in self._running if run.reads_prompt for slot in run.active}
        return sum(count for slot, count in turns if slot in reading)

    def _advance(self, run: _Running) -> None:
        """Let a job choose from its logits, and lengthen its sequences."""
        rows = [slot.row for slot in run.active if slot.row is not None]
        for slot in run.active:
            slot.row = None
        if run.reads_prompt:
            run.reads_prompt = False
        else:
            self.figures.decode_tokens += len(rows)
        try:
            onward = run.job.advance(rows)
        except CrystallineError as error:
            run.job.error, onward = error, []
        except BaseException:  # Ctrl-C, or a mistake of ours: half done, it cannot go on
            self.cancel(run.job)
            raise
        if onward:
            self._grow(run, onward)
        else:
            run.job.done = True
            self._give_back(run)

    def _grow(self, run: _Running, onward: list[tuple[int, int]]) -> None:
        """Append a token to each sequence that goes on; one that branches is copied."""
        before = run.active
        staying = {before[source] for source, _ in onward}
        spare = [slot for slot in run.lent if slot not in staying]
        run.active = []
        copies: dict[_Slot, _Slot] = {}
        for source, _ in onward:
            slot = before[source]
            if slot in run.active:
                slot = spare.pop(0)
                slot.restart(list(before[source].tokens))
                copies[slot] = before[source]
            run.active.append(slot)
        if len(before[0].tokens) < self.seq_len:  # else all are read again; they grow together
            self._copy(copies)
            for slot, origin in copies.items():
                slot.cached = origin.cached
        for slot, (_, token) in zip(run.active, onward, strict=True):
            slot.tokens.append(token)
            if len(slot.tokens) > self.seq_len:
                slot.restart(newest_half(slot.tokens, self.seq_len))

    def _copy(self, origins: dict[_Slot, _Slot]) -> None:
        """Fill the caches of slots from others', whose tokens they have."""
        if not origins:
            return
        sources = list(range(self.slots))
        for slot, origin in origins.items():
            slot.cached = 0  # until it is done: an interruption must not leave half of it
            sources[slot.index] = origin.index
        self._decoder.reorder(sources)

    def _give_back(self, run: _Running) -> None:
        """Take a job's slots; what they hold may serve the next."""
        self._running.remove(run)
        for slot in run.lent:
            slot.used = self._passes

    def _count(self, turns: list[tuple[_Slot, int]], prompt_tokens: int, seconds: float) -> None:
        figures = self.figures
        share = prompt_tokens / sum(count for _, count in turns)
        figures.prompt_tokens += prompt_tokens
        figures.prompt_seconds += share * seconds
        figures.decode_seconds += (1 - share) * seconds

    def _score(self) -> Work:
        """Measure the next window of the text whose turn it is."""
        scoring = self._scorings.popleft()
        try:
            window = next(scoring.windows, None)
            if window is None:
                scoring.done = True
            else:
                self._scorings.append(scoring)
                scoring.take(self._decoder.score(window))
        except CrystallineError as error:
            self.cancel(scoring)
            scoring.error = error
        return scoring


def newest_half(tokens: Sequence[int], seq_len: int) -> list[int]:
    """Return the newest seq_len // 2 tokens, at least one.

    >>> newest_half([1, 2, 3, 4, 5, 6], 5)
    [5, 6]
    """
    return list(tokens[-max(1, seq_len // 2) :])


def _common(one: list[int], other: list[int]) -> int:
    """Return how many tokens two lists have in common at their beginning.

    >>> _common([1, 2, 3], [1, 2, 4, 5]), _common([], [1]), _common([1, 2], [1, 2])
    (2, 0, 2)
    """
    most = min(len(one), len(other))
    if not most or one[0] != other[0]:
        return 0
    # The lists differ from some length on: looked for by halves, since slices compare fast.
    return bisect_left(range(1, most + 1), True, key=lambda n: one[:n] != other[:n])
