"""From a prompt to a stream of text: settings, one text being generated, and when it ends.

Reading and the full context are the scheduler's (see there); of a prompt that is longer than
the context, the newest seq_len tokens are read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crystalline.data.tokenizer import UNKNOWN, StreamDecoder, Tokenizer
from crystalline.errors import DataError, UsageError
from crystalline.infer.protocol import Logits, TokenIds
from crystalline.infer.sampling import Sampler, SamplingSettings
from crystalline.infer.scheduler import Job
from crystalline.infer.stops import StopFilter, check_stops

FINISH_REASONS = ("length", "stop", "eot", "interrupted")
DEFAULT_MAX_TOKENS = 200
MOST_MAX_TOKENS = 10**9  # beyond it no text ends


@dataclass(frozen=True)
class GenerationSettings:
    """How long to generate, how to choose tokens, and where to stop."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"--max-tokens is {self.max_tokens}", advice="It must be at least 1.")
        if self.max_tokens > MOST_MAX_TOKENS:
            raise UsageError(
                f"--max-tokens is {self.max_tokens}",
                advice=f"It must be at most {MOST_MAX_TOKENS:,}.",
            )
        check_stops(self.stop)


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the prompt's tokens, with what the model expects before one.

    An empty prompt is that, or the token that separates documents.

    Raises:
        DataError: text that the tokenizer cannot express, or an empty prompt
            and a tokenizer without such a token.
    """
    tokens = [*tokenizer.prompt_start, *encode_text(tokenizer, text, "prompt")]
    if tokens:
        return tokens
    if tokenizer.eot_id is None:
        raise DataError(
            f"the prompt is empty, and a {tokenizer.kind} tokenizer has no token to begin with",
            advice="Give at least one character with --prompt.",
        )
    return [tokenizer.eot_id]


def encode_text(tokenizer: Tokenizer, text: str, what: str = "text") -> list[int]:
    """Return the tokens of a text that goes on from others.

    Raises `DataError` for what the tokenizer cannot express; `what` names the text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the {what} is not valid Unicode at character {error.start + 1}",
            advice="Give it in UTF-8.",
        ) from None
    return [int(token) for token in tokenizer.encode(text)]


def unknown_tokens(tokenizer: Tokenizer, tokens: Sequence[int] | TokenIds) -> int:
    """Return how many tokens stand for words that the vocabulary lacks (of a word tokenizer)."""
    unknown = tokenizer.inner.token_to_id(UNKNOWN) if tokenizer.kind == "word" else None
    return 0 if unknown is None else int(np.count_nonzero(np.asarray(tokens) == unknown))


def fills_context(prompt_tokens: int, generated: int, seq_len: int) -> bool:
    """Return whether room had to be made: each generated token but the last is read again.

    >>> fills_context(10, 7, 16), fills_context(10, 8, 16)
    (False, True)
    """
    return generated > 0 and min(prompt_tokens, seq_len) + generated - 1 > seq_len


class Generation(Job):
    """One text being generated: a job for the scheduler, which hands out its pieces.

    A piece never contains a stop string, part of one, or part of a character.
    What has been generated so far can be read at any time, also after an
    interruption.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        settings: GenerationSettings,
        *,
        sample: int = 0,
    ) -> None:
        super().__init__(prompt)
        self.settings = settings
        self.tokens: list[int] = []  # every token generated, those of a stop string included
        self.text = ""  # all pieces so far
        self.stop = ""  # the stop string that ended the text
        self.finish_reason = "interrupted"  # one of FINISH_REASONS; until the end, this
        self.prompt_seconds = 0.0  # from the start of reading the prompt to the first token
        self.seconds = 0.0  # from the start of reading the prompt to the newest token
        self._tokenizer = tokenizer
        self._decoded = StreamDecoder(tokenizer)
        self._stops = StopFilter(settings.stop)
        self._sampler = Sampler(settings.sampling, sample)
        self._seen = list(prompt)
        self._began = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def advance(self, rows: Sequence[Logits]) -> list[tuple[int, int]]:
        """Choose the next token from the logits; hand out what it makes certain."""
        vocabulary = self._tokenizer.vocab_size  # the model's may be padded beyond it
        token = self._sampler.choose(rows[0][:vocabulary], self._seen)
        self._seen.append(token)
        self.tokens.append(token)
        self.seconds = time.perf_counter() - self._began
        if len(self.tokens) == 1:
            self.prompt_seconds = self.seconds
        if token in self._tokenizer.end_ids:
            return self._end("eot")
        self._hand_out(self._stops.push(self._decoded.push(token)))
        if self._stops.stopped:
            return self._end("stop")
        if len(self.tokens) == self.settings.max_tokens:
            return self._end("length")
        return [(0, token)]

    def _end(self, reason: str) -> list[tuple[int, int]]:
        self._hand_out(self._stops.push(self._decoded.flush()) + self._stops.flush())
        self.stop = self._stops.found
        self.finish_reason = "stop" if self._stops.stopped else reason
        return []

    def _hand_out(self, text: str) -> None:
        if text:
            self.text += text
            self.pieces.append(text)
