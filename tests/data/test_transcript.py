"""Conversations as text, in the very form in which a model is asked later."""

from __future__ import annotations

import pytest

from crystalline.data.transcript import transcript
from crystalline.infer.chat import Transcript


def test_a_conversation_has_the_form_of_the_chat() -> None:
    talk = Transcript("Two friends meet.")
    talk.ask("Hello")
    talk.answer(" Good day")
    talk.ask("And now?")
    talk.answer(" Tea.")
    messages = [
        {"role": "system", "content": "Two friends meet.\n"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": " Good day"},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}, {"type": "image_url"}]},
        {"role": "assistant", "content": "Tea."},
    ]
    assert transcript(messages) == talk.text()
    others = {"system": "system", "user": "human", "assistant": "gpt"}
    texts = ["Two friends meet.", "Hello", "Good day", "And now?", "Tea."]
    shared = [{"from": others[m["role"]], "value": t} for m, t in zip(messages, texts, strict=True)]
    assert transcript(shared) == talk.text()


def test_empty_messages_leave_no_line_and_other_roles_keep_their_name() -> None:
    messages = [
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": ["It is", "4."]},
    ]
    assert transcript(messages) == "User: Two and two?\nTool: 4\nAssistant: It is\n4."


@pytest.mark.parametrize(
    "value", [None, "text", 3, {}, [], ["a"], [{"content": "no role"}], [{"role": 3}], [[]]]
)
def test_anything_else_is_no_conversation(value: object) -> None:
    assert transcript(value) is None
