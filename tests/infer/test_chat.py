"""The transcript of a conversation."""

from __future__ import annotations

import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.infer.chat import Transcript, answer_tokens, history_room
from crystalline.infer.chat_form import PlainForm


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
    assert bytes(transcript.prompt(PlainForm(byte), len(whole))).decode() == whole
    shorter = bytes(transcript.prompt(PlainForm(byte), len(whole) - 1)).decode()
    assert shorter == whole.replace("User: question 0\nAssistant: answer 0\n", "")
    assert bytes(transcript.prompt(PlainForm(byte), 1)).decode() == "Rules.\nUser: last\nAssistant:"


def test_what_is_left_out_is_counted(byte):
    transcript = talk("Rules.")
    whole = len(transcript.text())
    turn = len("User: question 0\nAssistant: answer 0\n")
    for room, left_out in ((whole, 0), (whole - 1, 1), (whole - turn, 1), (whole - turn - 1, 2)):
        transcript.prompt(PlainForm(byte), room)
        assert transcript.left_out == left_out
    transcript.prompt(PlainForm(byte), 1)
    assert transcript.left_out == 3
    transcript.prompt(PlainForm(byte), whole)
    assert transcript.left_out == 0


@pytest.mark.parametrize("seq_len", [1, 2, 3, 16, 127, 128, 1024, 4096])
def test_half_of_the_context_is_the_conversations(seq_len):
    longest = answer_tokens(seq_len, None)
    assert 1 <= longest <= 200
    assert history_room(seq_len, longest) >= seq_len / 2
    if seq_len > 1:
        assert history_room(seq_len, longest) + longest <= seq_len
    assert history_room(seq_len, 10**9) >= seq_len / 2


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
        transcript.prompt(PlainForm(Tokenizer.train("char", ["User: Assistant:\n"], 0)), 99)
