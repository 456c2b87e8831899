"""Conversations as text: the form in which a model is trained on them and in which it chats.

Two friends meet.                  what a system message says
User: What is a prime?
Assistant: A number with two divisors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

USER_PREFIX = "User:"
MODEL_PREFIX = "Assistant:"

_USERS = frozenset({"user", "human", "prompter"})
_MODELS = frozenset({"assistant", "gpt", "model", "bot", "chatgpt"})
_PREAMBLES = frozenset({"system", "developer"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def transcript(messages: Any) -> str | None:
    """Return the text of a list of messages, None for anything else.

    A message is an object with `role` and `content`, or with `from` and `value`.  Its content is
    text or a list of parts, of which those of text count.  Empty messages leave no line; roles
    other than the user's, the model's and the system's keep their own name.

    >>> print(transcript([{"role": "system", "content": "Be brief."},
    ...                   {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ...                   {"from": "gpt", "value": "Good day."}]))
    Be brief.
    User: Hello
    Assistant: Good day.
    """
    if not isinstance(messages, list) or not messages:
        return None
    if not all(isinstance(message, dict) and _role(message) for message in messages):
        return None
    return "\n".join(_lines(messages))


def _lines(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        role = _role(message)
        content = _text(message.get("content", message.get("value"))).strip()
        if not content:
            continue
        if role in _PREAMBLES:
            yield content
        elif role in _USERS:
            yield f"{USER_PREFIX} {content}"
        elif role in _MODELS:
            yield f"{MODEL_PREFIX} {content}"
        else:
            yield f"{role.capitalize()}: {content}"


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
