"""From a prompt to a stream of text: the KV cache, the loop, and when it ends.

When the context is full (learned positions end at seq_len), the newest half of
it is kept and read again from position 0, then generation goes on: one
prefill for every seq_len / 2 tokens.  Of a prompt that is longer than the
context, the newest seq_len tokens are read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from crystalline.data.tokenizer import UNKNOWN, StreamDecoder, Tokenizer
from crystalline.errors import DataError, UsageError
from crystalline.infer.protocol import Decoder, Logits, TokenIds
from crystalline.infer.sampling import Sampler, SamplingSettings
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
    """Return the prompt's tokens; an empty prompt is the token that separates documents.

    Raises:
        DataError: text that the tokenizer cannot express, or an empty prompt
            and a tokenizer without such a token.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the prompt is not valid Unicode at character {error.start + 1}",
            advice="Give it in UTF-8.",
        ) from None
    tokens = [int(token) for token in tokenizer.encode(text)]
    if tokens:
        return tokens
    if tokenizer.eot_id is None:
        raise DataError(
            f"the prompt is empty, and a {tokenizer.kind} tokenizer has no token to begin with",
            advice="Give at least one character with --prompt.",
        )
    return [tokenizer.eot_id]


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


class Context:
    """The tokens in one slot of a decoder, kept within its context length."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._seq_len = decoder.config.seq_len
        self.tokens: list[int] = []  # what the model sees now

    def start(self, tokens: Sequence[int]) -> Logits:
        """Forget everything, read the newest seq_len of `tokens`; return the logits [V]."""
        self.tokens = list(tokens[-self._seq_len :])
        return self._decoder.prefill(self.tokens)

    def append(self, token: int) -> Logits:
        """Add one token, making room when there is none; return the logits [V] after it."""
        self.tokens.append(token)
        if len(self.tokens) > self._seq_len:
            self.tokens = newest_half(self.tokens, self._seq_len)
            return self._decoder.prefill(self.tokens)
        rows = self._decoder.step(np.array([token], dtype=np.int32))
        return cast(Logits, rows[0])


def newest_half(tokens: Sequence[int], seq_len: int) -> list[int]:
    """Return the newest seq_len // 2 tokens, at least one.

    >>> newest_half([1, 2, 3, 4, 5, 6], 5)
    [5, 6]
    """
    return list(tokens[-max(1, seq_len // 2) :])


class Generation:
    """One text being generated: iterate over it to get pieces of text as they become certain.

    A piece never contains a stop string, part of one, or part of a character.
    What has been generated so far can be read at any time, also after an
    interruption.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        settings: GenerationSettings,
        *,
        sample: int = 0,
    ) -> None:
        if not prompt:
            raise ValueError("a prompt has at least one token")
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._prompt = list(prompt)
        self._settings = settings
        self._sample = sample
        self.tokens: list[int] = []  # every token generated, those of a stop string included
        self.text = ""  # what has been handed out
        self.stop = ""  # the stop string that ended the text
        self.finish_reason = "interrupted"  # one of FINISH_REASONS; until the end, this
        self.seconds = 0.0  # from the start of reading the prompt to the newest token

    def __iter__(self) -> Iterator[str]:
        started = time.perf_counter()
        pieces = StreamDecoder(self._tokenizer)
        stops = StopFilter(self._settings.stop)
        sampler = Sampler(self._settings.sampling, self._sample)
        context = Context(self._decoder)
        vocabulary = self._tokenizer.vocab_size  # the model's may be padded beyond it
        logits = context.start(self._prompt)
        seen = list(self._prompt)
        reason = "length"
        while True:
            token = sampler.choose(logits[:vocabulary], seen)
            seen.append(token)
            self.tokens.append(token)
            self.seconds = time.perf_counter() - started
            if token == self._tokenizer.eot_id:
                reason = "eot"
                break
            yield from self._hand_out(stops.push(pieces.push(token)))
            if stops.stopped:
                reason = "stop"
                break
            if len(self.tokens) == self._settings.max_tokens:
                break
            logits = context.append(token)
        yield from self._hand_out(stops.push(pieces.flush()) + stops.flush())
        self.stop = stops.found
        self.finish_reason = "stop" if stops.stopped else reason

    def finish(self) -> None:
        """Generate to the end, for those who want the text in one piece."""
        for _ in self:
            pass

    def _hand_out(self, text: str) -> Iterator[str]:
        if text:
            self.text += text
            yield text
