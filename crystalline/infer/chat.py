"""A conversation with a model.

One that knows no roles continues plain text, a transcript:

    User: What is a prime?
    Assistant: A number with two divisors.
    User: Name one.
    Assistant:

One with a chat template has a form of its own; `chat_form` tells either.  The context is
shared: an answer gets at most half of it, the conversation so far the rest.
What no longer fits is forgotten, oldest first, in whole turns.

A conversation in a file is JSON, in the form that training reads, too:

    {"messages": [{"role": "system", "content": "Two friends meet."},
                  {"role": "user", "content": "What is a prime?"},
                  {"role": "assistant", "content": "A number with two divisors."}]}
"""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.atomic import write_json
from crystalline.data.decoding import plain
from crystalline.data.transcript import MODEL_PREFIX, USER_PREFIX
from crystalline.errors import DataError, remedy
from crystalline.infer.engine import DEFAULT_MAX_TOKENS
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import CONVERSATION

if TYPE_CHECKING:
    from crystalline.infer.chat_form import Form


def answer_tokens(seq_len: int, max_tokens: int | None) -> int:
    """Return the longest answer: what was asked for, else the default within half the context.

    >>> [answer_tokens(seq_len, None) for seq_len in (1, 16, 128, 1024)]
    [1, 8, 64, 200]
    >>> answer_tokens(128, 500)
    500
    """
    return max_tokens or max(1, min(DEFAULT_MAX_TOKENS, seq_len // 2))


def history_room(seq_len: int, max_tokens: int) -> int:
    """Return the tokens that a conversation may take, so that an answer has room beside it.

    A longer answer moves the context on while it is written (see `engine`), so it takes no
    more than half of it away.

    >>> history_room(128, 20), history_room(128, 500), history_room(1, 1)
    (108, 64, 1)
    """
    return max(1, seq_len - min(max_tokens, seq_len // 2))


class Transcript:
    """The text of a conversation, turn by turn, after an optional preamble.

    >>> talk = Transcript("Two friends meet.")
    >>> talk.ask("Hello")
    >>> print(talk.text())
    Two friends meet.
    User: Hello
    Assistant:
    >>> talk.answer(" Good day")
    >>> talk.text().splitlines()[-1]
    'Assistant: Good day'
    """

    def __init__(self, preamble: str = "") -> None:
        self.preamble = preamble
        self._turns: list[tuple[str, str]] = []  # what the user said, and the answer
        self.left_out = 0  # turns that the newest prompt had no room for

    def reset(self) -> None:
        """Forget every turn, keep the preamble."""
        self._turns.clear()
        self.left_out = 0

    def ask(self, line: str) -> None:
        """Add what the user says and the beginning of the model's turn."""
        self._turns.append((line, ""))

    def answer(self, text: str) -> None:
        """Complete the newest turn with what the model said."""
        self._turns[-1] = self._turns[-1][0], text.rstrip("\n")

    @property
    def turns(self) -> int:
        """How many lines of the user's there are."""
        return len(self._turns)

    def messages(self, turns: int | None = None) -> list[dict[str, str]]:
        """Return the newest `turns` (default: all) as messages with a role and a content.

        >>> talk = Transcript("Two friends meet.")
        >>> talk.ask("Hello"); talk.answer(" Good day")
        >>> [message["content"] for message in talk.messages()]
        ['Two friends meet.', 'Hello', 'Good day']
        >>> Transcript.of(talk.messages()).text() == talk.text()
        True
        """
        found = [_message("system", self.preamble)] * bool(self.preamble)
        for line, answer in self._newest(turns):
            found += [_message("user", line), _message("assistant", answer.strip())]
        return found

    @classmethod
    def of(cls, messages: list[Any]) -> Transcript:
        """Return the conversation of these messages: perhaps a system's, then pairs.

        Raises:
            BadContent: messages that are none, or of which the roles do not take turns.
        """
        talk = cls()
        wanted = "user"
        for number, message in enumerate(messages, 1):
            role, content = _role_and_content(message, number)
            if role == "system" and number == 1:
                talk.preamble = content
            elif role != wanted:
                raise BadContent(f"message {number} should be the {wanted}'s")
            elif role == "user":
                talk.ask(content)
                wanted = "assistant"
            else:
                talk.answer(f" {content}" if content else "")
                wanted = "user"
        if wanted == "assistant":
            raise BadContent("its last message has no answer")
        return talk

    def take_back(self) -> None:
        """Remove the newest turn."""
        self._turns.pop()

    def text(self, turns: int | None = None) -> str:
        """Return the preamble and the newest `turns` (default: all), one under the other."""
        said = [
            f"{USER_PREFIX} {line}\n{MODEL_PREFIX}{answer}" for line, answer in self._newest(turns)
        ]
        return "\n".join([self.preamble] * bool(self.preamble) + said)

    def _newest(self, turns: int | None) -> list[tuple[str, str]]:
        return self._turns if turns is None else self._turns[len(self._turns) - turns :]

    def prompt(self, form: Form, room: int) -> list[int]:
        """Return the tokens of the preamble and as many of the newest turns as `room` holds.

        The newest turn is always there, even where it alone needs more.  `left_out` says
        how many turns are not.

        Raises:
            DataError: text that the tokenizer cannot express, or the form does not accept.
        """

        def size(turns: int) -> int:
            return len(form.tokens(self, turns))

        kept = max(1, bisect_right(range(1, len(self._turns) + 1), room, key=size))
        self.left_out = len(self._turns) - kept
        return form.tokens(self, kept)


def save(talk: Transcript, path: Path) -> None:
    """Write the conversation to a file; one that is there is replaced if it is one, too.

    Raises:
        DataError: something else has that name, or it cannot be written.
    """
    name = shown(os.fspath(path))
    try:
        if os.path.lexists(path):
            CONVERSATION.read(path)
        write_json(path, {"messages": talk.messages()})
    except BadContent:
        raise DataError(
            f"{name} is there, and no conversation", advice="Choose another name."
        ) from None
    except OSError as error:
        raise DataError(
            f"{name} cannot be written ({error.strerror})", advice=remedy(error)
        ) from None


def load(path: Path) -> Transcript:
    """Return the conversation in a file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    name = shown(os.fspath(path))
    try:
        return Transcript.of(CONVERSATION.read(path)["messages"])
    except BadContent as error:
        raise DataError(
            f"{name} is no conversation: {error}", advice="Name a file that /save has written."
        ) from None
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror})", advice=remedy(error)) from None


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _role_and_content(message: Any, number: int) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadContent(f"message {number} is no table of fields")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadContent(f"message {number} has no role and content of text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise BadContent(f"message {number} is not valid Unicode") from None
    return role, plain(content)
