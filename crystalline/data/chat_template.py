"""Conversations in the form of a model's chat template, and where its turns are in it.

Templates are files from strangers, written in a language with loops: they are rendered in a
process of their own (`template_worker`), by Jinja2's sandbox as transformers sets it up, within
bounds of memory and of time.  One process serves all conversations of a text.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.transcript import Conversation, standard_messages
from crystalline.errors import DataError
from crystalline.log import get_logger
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from typing_extensions import Self

START_S = 60.0  # until the process has compiled the template, on the slowest machine
MOST_S = 20.0  # that a conversation takes to render, on the slowest machine
MOST_BYTES = 1 << 28  # of what a conversation becomes
_ADVICE = "Use conversations that are text already, in a field that --text-field names."

_log = get_logger("data")


class ChatTemplate:
    """A template at work; use it in a `with` block, after which its process is gone."""

    def __init__(self, tokenizer: Tokenizer, advice: str = _ADVICE) -> None:
        """`tokenizer` has a chat template; `advice` is what to do where it cannot be used."""
        self._advice = advice
        self._ends = [
            tokenizer.token_bytes(id_).decode("utf-8", "replace")
            for id_ in sorted(tokenizer.end_ids)
        ]
        self._setting = {
            "template": tokenizer.chat_template,
            "tokens": dict(tokenizer.special),
            "ends": self._ends,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._stop()
        if self._refused:
            _log.warning(
                "Left out %s conversations that the model's chat template refuses.",
                f"{self._refused:,}",
            )
            self._refused = 0

    def conversation(self, messages: list[dict[str, Any]]) -> Conversation | None:
        """Return messages as the template writes them; None for those that it refuses.

        Raises:
            DataError: a template that cannot be used, or that does not come to an end.
        """
        answer = self._render(messages, ask=False)
        if "refused" in answer:
            if not self._refused:
                _log.warning(
                    "The model's chat template refuses a conversation: %s.",
                    shown(str(answer["refused"])),
                )
            self._refused += 1
            return None
        spans = tuple((int(first), int(last)) for first, last in answer["spans"])
        return Conversation(answer["text"], spans)

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """Return the text after which the model's next turn begins.

        Raises:
            DataError: messages that the template refuses, or as `conversation` does.
        """
        answer = self._render(messages, ask=True)
        if "refused" in answer:
            raise DataError(
                "the chat template of the model refuses the conversation: "
                f"{shown(str(answer['refused']))}",
                advice=self._advice,
            )
        text: str = answer["text"]
        return text

    def _render(self, messages: list[dict[str, Any]], *, ask: bool) -> dict[str, Any]:
        if self._process is None:
            self._start()
        asked = {"messages": standard_messages(messages), "ask": ask}
        return self._usable(self._ask(json.dumps(asked).encode(), MOST_S))

    def _usable(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "fault" in answer:
            raise DataError(
                f"the chat template of the model cannot be used: {shown(str(answer['fault']))}",
                advice=self._advice,
            )
        return answer

    def _ask(self, line: bytes, most_s: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        out, into = process.stdout.fileno(), process.stdin.fileno()
        rest, end_s = memoryview(line + b"\n"), time.monotonic() + most_s
        parts: list[bytes] = []
        size = 0
        try:
            while not parts or not parts[-1].endswith(b"\n"):
                poll = select.poll()
                poll.register(out, select.POLLIN)
                if rest:
                    poll.register(into, select.POLLOUT)
                ready = dict(poll.poll(max(0.0, 1000 * (end_s - time.monotonic()))))
                if not ready:
                    return self._give_up(f"it takes longer than {most_s:.0f} s")
                if into in ready and rest:
                    rest = rest[os.write(into, rest[:65536]) :]
                if out in ready:
                    part = os.read(out, 1 << 20)
                    if not part:
                        return self._give_up("it needs too much memory or time")
                    parts.append(part)
                    size += len(part)
                    if size > MOST_BYTES:
                        return self._give_up("it makes endless text of a conversation")
        except BrokenPipeError:
            return self._give_up("it needs too much memory or time")
        answer: dict[str, Any] = json.loads(b"".join(parts))
        return answer

    def _give_up(self, fault: str) -> dict[str, Any]:
        self._stop()
        return {"fault": fault}

    def _start(self) -> None:
        # Modules are found where this process finds them, but not in its folder.
        own = str(Path(__file__).parents[2])
        path = [os.path.abspath(place) for place in sys.path if place]  # noqa: PTH100
        code = (
            f"import sys; sys.path[:] = {[*path, own]!r}\n"
            "from crystalline.data.template_worker import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours
            bufsize=0,
        )
        self._usable(self._ask(json.dumps(self._setting).encode(), START_S))

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
