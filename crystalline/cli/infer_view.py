"""How cllm-infer shows its work: streamed text, JSON, progress, and what it did unasked.

Text goes to stdout, everything else to stderr; --quiet leaves only errors of the latter.
The sentences are made here from what the engine reports, so that nothing is cut, left out
or chosen in silence.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crystalline.errors import DataError
from crystalline.untrusted import for_terminal, printable

if TYPE_CHECKING:
    from crystalline.infer.loading import Model
    from crystalline.infer.scheduler import Figures

PROGRESS_AFTER_S = 2.0


def tell(message: str, *, quiet: bool) -> None:
    """Print a message, unless `quiet` or empty."""
    if message and not quiet:
        print(printable(message), file=sys.stderr, flush=True)


def print_json(content: dict[str, Any]) -> None:
    """Print one line of JSON."""
    print(json.dumps(content, allow_nan=False), flush=True)


def show(text: str, *, end: str = "") -> None:
    """Print generated text; what a terminal would obey is spelled out there."""
    print(for_terminal(text, sys.stdout), end=end, flush=True)


def stream(pieces: Iterator[str]) -> None:
    """Print pieces as they come, and end the line, also when Ctrl-C ends them."""
    last = ""
    try:
        for piece in pieces:
            show(piece)
            last = piece
    finally:
        if not last.endswith("\n"):
            print(flush=True)


def rate(count: int, seconds: float) -> float:
    """Return `count` per second."""
    return round(count / max(seconds, 1e-9), 3)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn an error of standard input (opened for writing, gone) into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{what} cannot be read from stdin ({error.strerror or error})",
            advice="Redirect it from a file or a pipe.",
        ) from None


# --- sentences ------------------------------------------------------------------------------------


def prompt_cut(tokens: int, seq_len: int) -> str:
    """Say that a prompt is longer than the context.

    >>> prompt_cut(401, 16)
    'The prompt has 401 tokens, the context 16: only its newest 16 are read.'
    >>> prompt_cut(16, 16)
    ''
    """
    if tokens <= seq_len:
        return ""
    return (
        f"The prompt has {tokens:,} tokens, the context {seq_len:,}:"
        f" only its newest {seq_len:,} are read."
    )


def words_unknown(count: int, what: str) -> str:
    """Say that words are not in the vocabulary.

    >>> words_unknown(1, "prompt"), words_unknown(0, "prompt")
    ('1 word of the prompt is not in the vocabulary, and read as <unk>.', '')
    """
    if not count:
        return ""
    words = "1 word of the {} is" if count == 1 else f"{count:,} words of the {{}} are"
    return words.format(what) + " not in the vocabulary, and read as <unk>."


def context_full(seq_len: int) -> str:
    """Say that the context was moved on while text was generated."""
    return f"The context of {seq_len:,} tokens was full: its newest half was kept, and so on."


def endings(reasons: Sequence[str], stops: Sequence[str] = ()) -> str:
    """Say how texts ended, and that a stop was never met.

    >>> endings(["length", "eot", "length"])
    'ended by length (2), eot (1)'
    >>> endings(["length"], stops=["END"])
    'ended by length; --stop was not reached'
    """
    counts = Counter(reasons)
    if len(counts) == 1:
        text = f"ended by {reasons[0]}"
    else:
        text = "ended by " + ", ".join(f"{name} ({n})" for name, n in counts.most_common())
    if stops and "stop" not in counts:
        text += "; --stop was not reached"
    return text


def chosen(model: Model) -> str:
    """Say which checkpoint of a run was taken, where none was named."""
    if not model.choice:
        return ""
    why = "best" if model.choice == "best" else "latest, since none is marked as best"
    return f"checkpoint {model.path.name} ({why})"


def described(model: Model, seconds: float) -> list[str]:
    """Say which model was opened, in how many seconds, and how it computes."""
    from crystalline._kernels import isa
    from crystalline.model.params import parameter_table

    config, tokenizer = model.decoder.config, model.tokenizer
    what = parts(
        f"{config.architecture}, {parameter_table(config).count:,} parameters",
        f"context {config.seq_len:,}",
        f"{tokenizer.kind} vocabulary of {tokenizer.vocab_size:,}",
    )
    how = parts(
        f"loaded in {seconds:.2f} s as {model.precision}",
        f"keys and values as {model.cache}",
        f"{model.threads} {'thread' if model.threads == 1 else 'threads'}",
        f"instruction-set level {isa.level()}",
    )
    return [f"model {model.path}: {what}", how]


def speeds(figures: Figures, count: int) -> str:
    """Say how fast prompts were read and `count` tokens written.

    >>> from crystalline.infer.scheduler import Figures
    >>> speeds(Figures(12, 0.04, 49, 1.9), 50)
    'prompt 12 tokens (300.0/s), text 50 tokens in 1.90 s (25.8 tokens/s)'
    >>> speeds(Figures(1, 0.5, 0, 0.0), 1)
    'prompt 1 token (2.0/s), text 1 token'
    """
    read = f"prompt {_tokens(figures.prompt_tokens)}"
    read += f" ({rate(figures.prompt_tokens, figures.prompt_seconds):,.1f}/s)"
    written = f"text {_tokens(count)}"
    if figures.decode_tokens:
        written += f" in {figures.decode_seconds:.2f} s"
        written += f" ({rate(figures.decode_tokens, figures.decode_seconds):,.1f} tokens/s)"
    return parts(read, written)


def speed_fields(figures: Figures) -> dict[str, Any]:
    """Return the figures of reading prompts and of decoding, for JSON.

    The first token of a text comes with its prompt, and is not among those decoded.
    """
    return {
        "prompt_seconds": round(figures.prompt_seconds, 6),
        "prompt_tokens_per_second": rate(figures.prompt_tokens, figures.prompt_seconds),
        "decode_tokens": figures.decode_tokens,
        "decode_seconds": round(figures.decode_seconds, 6),
        "decode_tokens_per_second": rate(figures.decode_tokens, figures.decode_seconds),
    }


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def parts(*clauses: str) -> str:
    """Join the clauses that are not empty."""
    return ", ".join(filter(None, clauses))


# --- progress -------------------------------------------------------------------------------------


class Progress:
    """A line on stderr that says how far long work is: once a second, from two seconds on."""

    def __init__(self, *, quiet: bool, unit: str = "tokens") -> None:
        self._quiet = quiet
        self._unit = unit
        self._started = time.monotonic()
        self._told = self._started + PROGRESS_AFTER_S - 1.0
        self._open = False

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total`, and a clause about it."""
        now = time.monotonic()
        if self._quiet or now - self._told < 1.0:
            return
        self._told = now
        line = f"{done:,} of {total:,} {self._unit} ({done / total:.0%})"
        if note:
            line += f", {note}"
        if done:
            left_s = (now - self._started) * (total - done) / done
            line += f", {_time(left_s)} left"
        self._open = sys.stderr.isatty()
        start, end = ("\r\x1b[K", "") if self._open else ("", "\n")
        print(start + line, end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipe the line."""
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    """Return a time that people can read.

    >>> _time(59.4), _time(600), _time(7260)
    ('59 s', '10 min', '2 h 01 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
