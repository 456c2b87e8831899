"""How well a model predicts a text.

The text is cut into windows of seq_len tokens that do not overlap.  Each
token but the very first is predicted once, from the tokens of its own window
before it (the first of a window from the last of the window before).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.infer.engine import unknown_tokens
from crystalline.infer.protocol import TokenIds
from crystalline.infer.scheduler import Scheduler, Scoring


@dataclass(frozen=True)
class TextScore:
    """The loss of a model on one text.

    >>> score = TextScore(nats=69.3147, tokens=101, size_bytes=202)
    >>> round(score.nats_per_token, 4), round(score.perplexity, 3), round(score.bits_per_byte, 3)
    (0.6931, 2.0, 0.5)
    """

    nats: float  # sum over the predicted tokens
    tokens: int  # in the text; one less is predicted
    size_bytes: int  # of the text in UTF-8
    unknown: int = 0  # tokens that stand for words which the vocabulary lacks

    @property
    def nats_per_token(self) -> float:
        """Mean loss of a predicted token."""
        return self.nats / (self.tokens - 1)

    @property
    def perplexity(self) -> float:
        """exp(nats per token); infinite where that overflows."""
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per token times tokens per byte: comparable between tokenizers."""
        return self.nats_per_token / math.log(2) * self.tokens / self.size_bytes


def score_text(
    scheduler: Scheduler,
    tokenizer: Tokenizer,
    text: str | Sequence[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TextScore:
    """Return the score of `text`; `progress` is told (tokens predicted, tokens to predict).

    A text may be given by its documents; between them stands `<|endoftext|>`, as in training.

    Raises:
        DataError: fewer than two tokens, or text the tokenizer cannot express.
        CheckpointError: the model gives a loss that is not a number.
    """
    documents = [text] if isinstance(text, str) else text
    tokens = np.ascontiguousarray(tokenizer.encode_documents(documents), dtype=np.int32)
    if tokens.size < 2:
        raise DataError(
            f"the text has {tokens.size} tokens", advice="At least two are needed to predict one."
        )
    nats = nats_of(scheduler, tokens, progress=progress)
    size_bytes = sum(len(document.encode()) for document in documents)
    unknown = unknown_tokens(tokenizer, tokens)
    return TextScore(nats, int(tokens.size), size_bytes, unknown)


def nats_of(
    scheduler: Scheduler,
    tokens: TokenIds,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Return the loss on two tokens or more: the sum over all but the first.

    Raises `CheckpointError` for a model that gives a loss that is not a number.
    """
    window = scheduler.seq_len
    sums: list[float] = []

    def take(part: npt.NDArray[np.float64]) -> None:
        sums.append(math.fsum(part.tolist()))
        if progress is not None:
            progress(min(len(sums) * window, tokens.size - 1), tokens.size - 1)

    scoring = Scoring(windows(tokens, window), take)
    scheduler.submit(scoring)
    scheduler.finish(scoring)
    nats = math.fsum(sums)
    if math.isnan(nats):
        raise CheckpointError(
            "the model's loss on this text is not a number",
            advice="Its weights are damaged or its training diverged; use an earlier checkpoint.",
        )
    return nats


def windows(tokens: TokenIds, size: int) -> Iterator[TokenIds]:
    """Yield windows of `size` tokens, and the one after each."""
    for start in range(0, tokens.size - 1, size):
        yield tokens[start : start + size + 1]
