"""The transcript of a conversation."""

from __future__ import annotations

import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.infer.chat import Transcript


@pytest.fixture(scope="module")
def byte():
    return Tokenizer.train("byte", [], 0)


def talk(preamble=""):
    transcript = Transcript(preamble)
    for number in range(3):
        transcript.ask(f"question {number}")
        transcript.answer(f" answer {number}\n")
    transcript.ask("last")
    return transcript


def test_turns_stand_one_under_the_other():
    assert talk().text() == (
        "User: question 0\nAssistant: answer 0\n"
        "User: question 1\nAssistant: answer 1\n"
        "User: question 2\nAssistant: answer 2\n"
        "User: last\nAssistant:"
    )


def test_the_oldest_turns_go_first_and_the_preamble_stays(byte):
    transcript = talk("Rules.")
    whole = transcript.text()
    assert bytes(transcript.prompt(byte, len(whole))).decode() == whole
    shorter = bytes(transcript.prompt(byte, len(whole) - 1)).decode()
    assert shorter == whole.replace("User: question 0\nAssistant: answer 0\n", "")
    assert bytes(transcript.prompt(byte, 1)).decode() == "Rules.\nUser: last\nAssistant:"


def test_a_turn_can_be_taken_back_and_all_forgotten():
    transcript = talk("P")
    transcript.take_back()
    assert transcript.text().endswith("answer 2")
    transcript.reset()
    transcript.ask("again")
    assert transcript.text() == "P\nUser: again\nAssistant:"


def test_unknown_characters_are_an_error():
    transcript = Transcript()
    transcript.ask("é")
    with pytest.raises(DataError, match="'é'"):
        transcript.prompt(Tokenizer.train("char", ["User: Assistant:\n"], 0), 99)
