"""`cllm-infer --chat`: lines in, answers out, and a word on what the context had no room for.

The transcript and the shares of the context are those of `crystalline.infer.chat`; how it is
written for the model is `chat_form`'s.  Here lines are read, commands obeyed and notices given.
What recurs with every turn is said once, and again after /reset or /load.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crystalline.cli.infer_view import (
    chosen,
    context_full,
    parts,
    reading,
    stream,
    tell,
    words_unknown,
)
from crystalline.cli.run import called
from crystalline.errors import EXIT_OK, DataError
from crystalline.untrusted import message, shown

if TYPE_CHECKING:
    from crystalline.data.transcript import FormName
    from crystalline.infer.chat_form import Form
    from crystalline.infer.engine import Generation, GenerationSettings
    from crystalline.infer.loading import Model

PROGRAM = "cllm-infer"
HELP = """/system TEXT  let TEXT stand before the conversation; nothing: no such text
/save FILE    write the conversation to a file
/load FILE    go on with the conversation in a file
/reset        forget the conversation
/quit         leave (so does the end of input)
/help         show this"""


def chat(
    model: Model,
    generation: GenerationSettings,
    preamble: str,
    which: FormName | None,
    *,
    quiet: bool,
) -> int:
    """Answer line after line until /quit or the end of input; `which` form, see `open_form`.

    Raises:
        DataError: a preamble or a transcript that the tokenizer cannot express, or a chat
            template that cannot be used, or that the model does not have.
    """
    from crystalline.infer.chat_form import open_form

    with open_form(model.tokenizer, which, preamble) as form:
        return _talk(_Conversation(model, form, generation, preamble, quiet=quiet))


def _talk(conversation: _Conversation) -> int:
    for number, line in enumerate(_lines(), 1):
        if not line:
            continue
        if not line.startswith("/"):
            conversation.say(line, number)
            continue
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if line == "/quit":
            break
        if line == "/reset":
            conversation.reset()
        elif line == "/help":
            print(HELP, file=sys.stderr)
        elif command == "/system":
            conversation.set_system(rest, number)
        elif command in ("/save", "/load"):
            conversation.exchange(command, rest)
        else:
            print(f"{shown(command)} is not a command. {HELP}", file=sys.stderr)
    return EXIT_OK


class _Conversation:
    """A transcript, and what has been said about it."""

    def __init__(
        self,
        model: Model,
        form: Form,
        generation: GenerationSettings,
        preamble: str,
        *,
        quiet: bool,
    ) -> None:
        from crystalline.infer.chat import Transcript, history_room

        self._model = model
        self._form = form
        self._generation = replace(generation, stop=(*form.stops, *generation.stop))
        self._seq_len = model.decoder.config.seq_len
        self._room = history_room(self._seq_len, generation.max_tokens)
        self._transcript = Transcript(preamble)
        self._quiet = quiet
        self._said: set[str] = set()
        self._turn = 0
        self._tell(f"{form.title} /help for commands.")
        most = f"answers of at most {generation.max_tokens:,} tokens"
        self._tell(f"({parts(chosen(model), most)})")
        self._measure_frame()

    def say(self, line: str, number: int) -> None:
        """Answer the user's line of that number; one that cannot be encoded is left out."""
        from crystalline.infer.engine import Generation

        tokens = self._tokens(line, number)
        if tokens is None:
            return
        scheduler = self._model.scheduler
        answer = Generation(self._model.tokenizer, tokens, self._generation, sample=self._turn)
        self._turn += 1
        scheduler.submit(answer)
        try:
            stream(scheduler.pieces(answer))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        finally:
            scheduler.cancel(answer)  # also where it was the showing that was interrupted
        self._transcript.answer(answer.text)
        self._tell_end(len(tokens), answer)

    def reset(self) -> None:
        """Forget the turns; what is left out from now on is said again."""
        self._transcript.reset()
        self._said.clear()
        self._tell("The conversation is forgotten.")

    def set_system(self, text: str, number: int) -> None:
        """Let a text stand before the conversation; "" takes it away."""
        from crystalline.data.decoding import plain

        before = self._transcript.preamble
        try:
            _require_unicode(text, number)
            self._transcript.preamble = plain(text)
            self._measure_frame()
        except DataError as error:
            self._transcript.preamble = before
            self._tell_error(error)
            return
        self._said.clear()
        self._tell("The system text is set." if text else "There is no system text.")

    def exchange(self, command: str, name: str) -> None:
        """Save the conversation to a file, or go on with the one in it."""
        from crystalline.infer.chat import load, save

        talk = self._transcript
        try:
            path = _path(command, name)
            if command == "/save":
                save(talk, path)
                self._tell(f"{shown(os.fspath(path))} has the {_turns(talk.turns)}.")
                return
            self._transcript = load(path)
            self._measure_frame()
        except DataError as error:
            self._transcript = talk
            self._tell_error(error)
            return
        self._said.clear()
        self._turn = self._transcript.turns  # so the draws go on as they would have
        self._tell(f"The {_turns(self._turn)} of {shown(os.fspath(path))} went before.")

    def _measure_frame(self) -> None:
        """Measure what every prompt has; say what of it never fits.

        Raises:
            DataError: text that the tokenizer cannot express (without ':' it cannot chat), or a
                system text that the model's chat template refuses.
        """
        from crystalline.infer.chat import Transcript
        from crystalline.infer.engine import unknown_tokens

        tokenizer, form = self._model.tokenizer, self._form
        preamble = self._transcript.preamble
        empty = Transcript(preamble)
        empty.ask("")
        self._frame = len(form.tokens(empty))
        text = form.marks_of(preamble)
        if preamble.strip() not in text:
            self._tell("The chat template of the model leaves the system text out.")
        what = f"system text and the {form.marks}" if preamble else form.marks
        self._tell(words_unknown(unknown_tokens(tokenizer, tokenizer.encode(text)), what))
        if self._frame > self._seq_len:
            self._tell(
                f"The {what} have {self._frame:,} tokens, the context {self._seq_len:,}:"
                f" only the newest {self._seq_len:,} of each turn are read."
            )
        elif self._frame > self._room:
            self._tell(
                f"The {what} have {self._frame:,} tokens, which leaves no room in the context of"
                f" {self._seq_len:,} for earlier turns: each line is answered without them."
            )

    def _tokens(self, line: str, number: int) -> list[int] | None:
        """Return the prompt that ends with this line; None where it cannot be encoded."""
        from crystalline.infer.engine import unknown_tokens

        transcript, tokenizer = self._transcript, self._model.tokenizer
        transcript.ask(line)
        try:
            _require_unicode(line, number)
            tokens = transcript.prompt(self._form, self._room)
        except DataError as error:
            transcript.take_back()
            self._tell_error(error)
            return None
        self._tell(words_unknown(unknown_tokens(tokenizer, tokenizer.encode(" " + line)), "line"))
        left_out = transcript.left_out
        if left_out and self._frame <= self._room:
            turns = "turn 1 is" if left_out == 1 else f"turns 1 to {left_out} are"
            self._once(
                "left out",
                f"The context of {self._seq_len:,} tokens has {self._room:,} for the conversation:"
                f" from here on {turns} forgotten, and later the next oldest.",
            )
        if len(tokens) > self._seq_len >= self._frame:
            self._tell(
                f"With this line there are {len(tokens):,} tokens, the context holds"
                f" {self._seq_len:,}: only the newest {self._seq_len:,} are read."
            )
        return tokens

    def _tell_end(self, prompt_tokens: int, answer: Generation) -> None:
        from crystalline.infer.engine import fills_context

        if answer.finish_reason == "length":
            self._tell(f"(cut off after {len(answer.tokens):,} tokens; --max-tokens sets how many)")
        elif answer.finish_reason == "stop" and answer.stop not in self._form.stops:
            self._tell(f"(ended at --stop {answer.stop!r})")
        if fills_context(prompt_tokens, len(answer.tokens), self._seq_len):
            self._once("full", context_full(self._seq_len))

    def _once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._tell(text)

    def _tell_error(self, error: DataError) -> None:
        print(f"{called(PROGRAM)}: {message(str(error))}", file=sys.stderr, flush=True)

    def _tell(self, text: str) -> None:
        tell(text, quiet=self._quiet)


def _require_unicode(line: str, number: int) -> None:
    """Raise `DataError` for a line that was read with surrogateescape and was not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        raise DataError(f"line {number} is not valid UTF-8", advice="It is left out.") from None


def _path(command: str, name: str) -> Path:
    if not name:
        raise DataError(f"{command} names no file", advice=f"Write {command} FILE.")
    if "\0" in name:
        raise DataError("the name of a file has a NUL in it", advice="Choose another.")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count:,} turns"


def _lines() -> Iterator[str]:
    """Yield what the user types, without surrounding blanks, until the end of input.

    Input is UTF-8 whatever the locale says; bytes that are not become surrogates.

    Raises:
        DataError: standard input cannot be read.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # some builds of Python lack it
            import readline  # noqa: F401  (gives input() its line editing)
        while True:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                raise
            yield line.strip()
    while True:
        with reading("the conversation"):
            line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()
