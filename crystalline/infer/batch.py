"""Files of prompts, and the file of what a model makes of them.

A prompts file has one prompt on each line.  Where its name ends in .jsonl, or its first line is a
JSON object with a prompt, each line is such an object:

    {"prompt": "Once", "id": "tale", "max_tokens": 50, "seed": 7, "stop": ["END"]}

What a line leaves out is as on the command line.  A text's seed is its own, or that of the whole
plus its index, so that it can be had again by itself.  Lines without anything are skipped.

A results file has a JSON object a text, written when the text ends, with the `index` of its
prompt; when all are there they are put into the order of the prompts.  It then depends on model,
prompts and settings alone, not on how many texts were worked on at a time, nor on stops between.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crystalline.atomic import atomic_write, json_text
from crystalline.data.decoding import plain
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CrystallineError, DataError, UsageError
from crystalline.infer.engine import (
    Generation,
    GenerationSettings,
    encode_prompt,
    fills_context,
    unknown_tokens,
)
from crystalline.infer.sampling import MAX_SEED
from crystalline.infer.scheduler import Scheduler, Work
from crystalline.untrusted import BadContent, open_ours, parse_json, shown
from crystalline.untrusted.files import PROMPTS, RESULTS

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
FIELDS = ("prompt", "id", "max_tokens", *SAMPLING, "seed", "stop")  # of a line of prompts

_LONGEST_LINE_BYTES = 1 << 26  # of results; what is longer is none
_BEGINNING = b'{"index": '  # of each line of results
_FLAG = re.compile(r"^--([a-z-]+)")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    index: int  # among the prompts, from 0
    line: int  # of the file, from 1
    id: str | int
    text: str
    settings: GenerationSettings  # its seed counts where `own_seed` says so
    own_seed: bool = False

    def with_seed(self, seed: int) -> GenerationSettings:
        """Return the settings, with the seed that follows from that of the whole file."""
        if self.own_seed:
            return self.settings
        sampling = replace(self.settings.sampling, seed=(seed + self.index) % (MAX_SEED + 1))
        return replace(self.settings, sampling=sampling)


# --- prompts --------------------------------------------------------------------------------------


def read_prompts(
    text: str, name: str, defaults: GenerationSettings, *, is_jsonl: bool
) -> list[Prompt]:
    """Return the prompts of a file's text; `name` is what messages call it.

    Raises:
        DataError: no prompt at all, or a line that is none; it names the line.
    """
    prompts: list[Prompt] = []
    lines: dict[str | int, int] = {}
    for number, line in enumerate(plain(text).split("\n"), 1):
        if not line.strip():
            continue
        is_jsonl = is_jsonl or (not prompts and _is_object(line))
        where = f"line {number} of {name}"
        if is_jsonl:
            prompt = _json_prompt(line, len(prompts), number, where, defaults)
        else:
            prompt = Prompt(len(prompts), number, len(prompts), line, defaults)
        if prompt.id in lines:
            raise DataError(
                f"{where} has the id {shown(repr(prompt.id), 60)}, as line {lines[prompt.id]} has",
                advice="Each needs its own; where none is given it is the number from 0 on.",
            )
        lines[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise DataError(f"{name} has no prompts", advice="Write one on each line.")
    return prompts


def _is_object(line: str) -> bool:
    """Return whether a line is a JSON object with a prompt."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        value = parse_json(line)
    except BadContent:
        return False
    return isinstance(value, dict) and "prompt" in value


def _json_prompt(
    line: str, index: int, number: int, where: str, defaults: GenerationSettings
) -> Prompt:
    try:
        given = PROMPTS.of(line.encode())
        found = {key: value for key, value in given.items() if value is not None}
        id_ = _id(found.get("id", index))
        stop = _stops(found.get("stop", defaults.stop))
    except BadContent as error:
        raise DataError(
            f"{where} is no prompt: {error}",
            advice='Write a JSON object on each line, as in {"prompt": "Once", "max_tokens": 50}.',
        ) from None
    unknown = sorted(set(found) - set(FIELDS))
    if unknown:
        raise DataError(
            f"{where} has {shown(repr(unknown[0]), 60)}, which is no setting",
            advice=f"A line may have {', '.join(FIELDS[:-1])} and {FIELDS[-1]}.",
        )
    try:
        named = {key: found[key] for key in (*SAMPLING, "seed") if key in found}
        longest = found.get("max_tokens", defaults.max_tokens)
        settings = GenerationSettings(longest, stop, replace(defaults.sampling, **named))
    except UsageError as error:
        message = _FLAG.sub(lambda flag: f"'{flag[1].replace('-', '_')}'", error.message)
        raise DataError(f"{where}: {message}", advice=error.advice) from None
    return Prompt(index, number, id_, plain(found["prompt"]), settings, "seed" in found)


def _id(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadContent("'id' must be text or a whole number")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) for stop in stops):
        raise BadContent("'stop' must be text or a list of texts")
    return tuple(stops)


@dataclass(frozen=True)
class Notices:
    """How many prompts the model does not see as they are."""

    cut: int  # longer than the context
    unknown: int  # words that the vocabulary lacks, in all of them


def check_prompts(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], name: str, seq_len: int
) -> Notices:
    """Make sure that the tokenizer can express every prompt.

    Raises:
        DataError: one that it cannot; the line is named.
    """
    cut = unknown = 0
    for prompt in prompts:
        try:
            tokens = encode_prompt(tokenizer, prompt.text)
        except DataError as error:
            raise DataError(
                f"line {prompt.line} of {name}: {error.message}", advice=error.advice
            ) from None
        cut += len(tokens) > seq_len
        unknown += unknown_tokens(tokenizer, tokens)
    return Notices(cut, unknown)


# --- texts ----------------------------------------------------------------------------------------


def generate_all(
    scheduler: Scheduler,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    name: str,
    *,
    seed: int,
) -> Generator[tuple[Prompt, Generation], None, None]:
    """Yield each prompt with its text, in the order in which the texts end.

    Raises:
        CrystallineError: what stopped a text; its line is named.
    """
    left = iter(prompts)
    running: dict[Work, tuple[Prompt, Generation]] = {}
    try:
        while True:
            while scheduler.waiting < scheduler.slots and (prompt := next(left, None)):
                tokens = encode_prompt(tokenizer, prompt.text)
                text = Generation(tokenizer, tokens, prompt.with_seed(seed))
                running[text] = prompt, text
                scheduler.submit(text)
            if not running:
                return
            for work in scheduler.step():
                if work.done and work in running:
                    prompt, text = running.pop(work)
                    if work.error is not None:
                        raise type(work.error)(
                            f"line {prompt.line} of {name}: {work.error.message}",
                            advice=work.error.advice,
                        )
                    yield prompt, text
    finally:
        for work in running:
            scheduler.cancel(work)


# --- results --------------------------------------------------------------------------------------


def result(prompt: Prompt, text: Generation, model: str, seq_len: int) -> dict[str, Any]:
    """Return what a results file says of a text."""
    return {
        **request(prompt, text.settings, model),
        "text": text.text,
        "finish_reason": text.finish_reason,
        "tokens": len(text.tokens),
        "prompt_tokens": len(text.prompt),
        "prompt_tokens_read": min(len(text.prompt), seq_len),
        "context_full": fills_context(len(text.prompt), len(text.tokens), seq_len),
    }


def request(prompt: Prompt, settings: GenerationSettings, model: str) -> dict[str, Any]:
    """Return what of a result follows from the request: on resuming it must be the same."""
    sampling = {name: getattr(settings.sampling, name) for name in SAMPLING}
    return {
        "index": prompt.index,
        "id": prompt.id,
        "model": model,
        "prompt": prompt.text,
        "seed": settings.sampling.seed,
        "max_tokens": settings.max_tokens,
        "stop": list(settings.stop),
        **sampling,
    }


class Results:
    """A results file that is open to be continued; nobody else may write it meanwhile.

    `found` are the results it has, by index and without their texts.  `was_torn` says that the
    end of its last line was missing, as a killed process leaves it: such a line is cut off.

    Raises:
        DataError: a file that holds anything else; it is left as it is.
        CrystallineError: another process writes it, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = shown(os.fspath(path))
        self.found: dict[int, dict[str, Any]] = {}
        self.was_torn = False
        self._in_order = True
        self._last = -1
        try:
            self._fd = open_ours(path, append=True)
        except OSError as error:
            raise UsageError(
                f"{self.name} cannot be written ({error.strerror})",
                advice="Choose another file for --out.",
            ) from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write(self, content: dict[str, Any]) -> None:
        """Append a result.  Raises `OSError`, with nothing of it in the file."""
        data = (json_text(content) + "\n").encode()
        before = os.fstat(self._fd).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except BaseException:  # Ctrl-C as well
            os.ftruncate(self._fd, before)
            raise
        self._note(content)

    def sort(self) -> None:
        """Put the results into the order of the prompts, and force them to disk."""
        if self._in_order:
            os.fsync(self._fd)
            return
        places: list[tuple[int, int, int]] = []  # index, where its line begins, and its length
        start = 0
        for line, _ in self._lines():
            places.append((RESULTS.of(line)["index"], start, len(line) + 1))
            start += len(line) + 1
        with atomic_write(self.path) as file:
            for _, start, length in sorted(places):
                file.write(os.pread(self._fd, length, start))

    def keep(self, expected: Callable[[int], dict[str, Any]], count: int) -> None:
        """Make sure that what was found are results of these `count` requests.

        Raises:
            DataError: one that is not; the file is left as it is.
        """
        for index, content in self.found.items():
            wanted = expected(index) if index < count else {}
            other = [key for key, value in wanted.items() if content.get(key) != value]
            if other or not wanted:
                what = f"its '{other[0]}' is another" if other else f"there are {count:,} prompts"
                raise DataError(
                    f"{self.name} has results of other requests (of index {index}: {what})",
                    advice="Name the model, prompts and settings it was made with, or another"
                    " file for --out.",
                )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CrystallineError(
                f"{self.name} is being written by another process",
                advice="Wait for its end, or choose another file for --out.",
            ) from None

    def _read(self) -> None:
        end = 0
        for number, (line, is_whole) in enumerate(self._lines(), 1):
            if not is_whole:
                if not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                    raise self._stranger(number, "it does not end as a result does")
                self.was_torn = True
                break
            try:
                content = RESULTS.of(line)
            except BadContent as error:
                raise self._stranger(number, str(error)) from None
            if content["index"] in self.found:
                raise self._stranger(number, f"it has the index {content['index']} again")
            self._note(content)
            end += len(line) + 1
        if self.was_torn:
            os.ftruncate(self._fd, end)

    def _note(self, content: dict[str, Any]) -> None:
        self.found[content["index"]] = {k: v for k, v in content.items() if k != "text"}
        self._in_order = self._in_order and content["index"] > self._last
        self._last = content["index"]

    def _lines(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the lines without their ends, and whether each had one."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            while line := file.readline(_LONGEST_LINE_BYTES):
                yield line.removesuffix(b"\n"), line.endswith(b"\n")

    def _stranger(self, number: int, why: str) -> DataError:
        return DataError(
            f"line {number} of {self.name} is no result of a batch: {why}",
            advice="Choose another file for --out; this one is left as it is.",
        )


def seed_of(prompts: Sequence[Prompt], found: dict[int, dict[str, Any]]) -> int | None:
    """Return the seed that the whole file was made with, as far as its results tell."""
    for index, content in found.items():
        if index < len(prompts) and not prompts[index].own_seed:
            return int(content["seed"] - index) % (MAX_SEED + 1)
    return None


def remaining(prompts: Sequence[Prompt], found: Collection[int]) -> list[Prompt]:
    """Return the prompts without a result."""
    return [prompt for prompt in prompts if prompt.index not in found]
