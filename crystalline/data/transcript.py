"""Conversations as text: the form in which a model is trained on them and in which it chats.

Two friends meet.                  what a system message says
User: What is a prime?
Assistant: A number with two divisors.

Training counts the model's own turns alone: in this form what stands between `Assistant:` and the
content of the next message, so that a model learns to end its turn as well.  A model that came
with a chat template has a form of its own: see `chat_template`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from typing_extensions import Self

USER_PREFIX = "User:"
MODEL_PREFIX = "Assistant:"

_USERS = frozenset({"user", "human", "prompter"})
_MODELS = frozenset({"assistant", "gpt", "model", "bot", "chatgpt"})
_PREAMBLES = frozenset({"system", "developer"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})

FormName = Literal["model", "plain"]  # of a conversation: by the model's own template, or ours

Spans = tuple[tuple[int, int], ...]


class Conversation(str):
    """The text of a conversation, and which characters of it are the model's turns."""

    __slots__ = ("spans",)
    spans: Spans  # (first character, behind the last) of each turn, in order and apart

    def __new__(cls, text: str, spans: Spans) -> Self:
        made = super().__new__(cls, text)
        made.spans = spans
        return made


def transcript(messages: Any) -> Conversation | None:
    """Return the text of a list of messages, None for anything else.

    A message is an object with `role` and `content`, or with `from` and `value`.  Its content is
    text or a list of parts, of which those of text count.  Empty messages leave no line; roles
    other than the user's, the model's and the system's keep their own name.

    >>> talk = transcript([{"role": "system", "content": "Be brief."},
    ...                    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ...                    {"from": "gpt", "value": "Good day."}])
    >>> print(talk)
    Be brief.
    User: Hello
    Assistant: Good day.
    >>> [talk[first:last] for first, last in talk.spans]
    [' Good day.']
    """
    if not is_conversation(messages):
        return None
    text, spans = "", []
    begun: int | None = None  # where the model's turn began that goes on
    for prefix, content, is_model in _lines(messages):
        text += ("\n" if text else "") + prefix
        if begun is not None:
            spans.append((begun, len(text)))
        begun = len(text) if is_model else None
        text += content
    if begun is not None:
        spans.append((begun, len(text)))
    return Conversation(text, tuple(spans))


def is_conversation(messages: Any) -> bool:
    """Return whether this is a list of messages, each of somebody."""
    if not isinstance(messages, list) or not messages:
        return False
    return all(isinstance(message, dict) and _role(message) for message in messages)


def standard_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages as chat templates expect them: `role` and `content`, both text.

    Other fields stay.

    >>> standard_messages([{"from": "gpt", "value": "Yes."}])
    [{'role': 'assistant', 'content': 'Yes.'}]
    """
    found = []
    for message in messages:
        role = _role(message)
        for name, names in (("user", _USERS), ("assistant", _MODELS)):
            role = name if role in names else role
        rest = {k: v for k, v in message.items() if k not in ("role", "from", "content", "value")}
        content = _text(message.get("content", message.get("value")))
        found.append({"role": role, "content": content, **rest})
    return found


def _lines(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield (what the line begins with, what follows, whether the model says it)."""
    for message in messages:
        role = _role(message)
        content = _text(message.get("content", message.get("value"))).strip()
        if not content:
            continue
        if role in _PREAMBLES:
            yield "", content, False
        elif role in _USERS:
            yield USER_PREFIX, f" {content}", False
        elif role in _MODELS:
            yield MODEL_PREFIX, f" {content}", True
        else:
            yield f"{role.capitalize()}:", f" {content}", False


def _role(message: dict[str, Any]) -> str:
    role = message.get("role", message.get("from"))
    return role.strip().lower() if isinstance(role, str) else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        text
        for part in content
        if isinstance(text := part.get("text") if _is_text(part) else part, str)
    )


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS
