"""The generation loop with a fake model: context, ends, pieces of characters, repeatability."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.infer.engine import Generation, GenerationSettings, encode_prompt
from crystalline.infer.sampling import SamplingSettings
from crystalline.infer.scheduler import Scheduler
from tests.infer.fake_model import FakeDecoder, noise, spells

GREEDY = SamplingSettings(temperature=0)


@pytest.fixture(scope="module")
def byte():
    return Tokenizer.train("byte", [], 0)


@pytest.fixture(scope="module")
def char():
    return Tokenizer.train("char", ["abcdefg"], 0)


def spelling(tokenizer, text, prompt, seq_len=64):
    """A decoder that continues a prompt of `prompt` tokens with `text`, then ends the text."""
    ids = [*tokenizer.encode(text).tolist(), tokenizer.eot_id]
    size = tokenizer.vocab_size
    return FakeDecoder(spells(ids, size, prompt), vocab_size=size, seq_len=seq_len)


def begin(decoder, tokenizer, prompt, settings, sample=0):
    """Submit a text to a scheduler of its own; return it and the iterator of its pieces."""
    run = Generation(tokenizer, prompt, settings, sample=sample)
    scheduler = Scheduler(decoder)
    scheduler.submit(run)
    return run, scheduler.pieces(run)


def test_it_ends_at_the_end_of_text_token(byte):
    run, pieces = begin(spelling(byte, "hello", 2), byte, [1, 2], GenerationSettings())
    assert list(pieces) == ["h", "e", "l", "l", "o"]
    assert (run.text, run.finish_reason) == ("hello", "eot")
    assert run.tokens == [*b"hello", byte.eot_id]
    assert 0 < run.prompt_seconds < run.seconds


def test_it_ends_after_max_tokens_and_feeds_no_token_in_vain(byte):
    decoder = spelling(byte, "hello", 2)
    run, pieces = begin(decoder, byte, [1, 2], GenerationSettings(max_tokens=3))
    assert "".join(pieces) == "hel"
    assert (run.text, run.finish_reason, len(run.tokens)) == ("hel", "length", 3)
    assert decoder.calls == [{0: (1, 2)}, {0: (104,)}, {0: (101,)}]


def test_stop_strings_are_never_shown_even_across_tokens(byte):
    settings = GenerationSettings(stop=("\nUser:", "zz"))
    run, pieces = begin(spelling(byte, "Usual.\nUser: hi", 1), byte, [1], settings)
    assert "".join(pieces) == run.text == "Usual."
    assert run.finish_reason == "stop"
    assert run.tokens == list(b"Usual.\nUser:")


def test_a_prefix_of_a_stop_is_shown_in_the_end(byte):
    settings = GenerationSettings(stop=("\nUser:",))
    run, pieces = begin(spelling(byte, "a\nUse", 1), byte, [1], settings)
    assert list(pieces) == ["a", "\nUse"]
    assert run.finish_reason == "eot"


def test_characters_come_whole(byte):
    _, pieces = begin(spelling(byte, "aß€x", 1), byte, [1], GenerationSettings())
    assert list(pieces) == ["a", "ß", "€", "x"]


def test_half_a_character_at_the_end_is_replaced(byte):
    run, pieces = begin(spelling(byte, "a€", 1), byte, [1], GenerationSettings(max_tokens=3))
    assert list(pieces) == ["a", "\ufffd"]
    assert run.finish_reason == "length"


def test_a_stop_may_complete_in_the_last_replacement(byte):
    settings = GenerationSettings(max_tokens=2, stop=("\ufffd",))
    run, pieces = begin(spelling(byte, "a€", 1), byte, [1], settings)
    assert list(pieces) == ["a"]
    assert run.finish_reason == "stop"


def test_a_full_context_keeps_its_newest_half(char):
    size = char.vocab_size
    ids = [4, 5, 6, 4, 5]

    def rule(_):  # the next of `ids`, whatever was cut off before
        row = np.full(size, -np.inf)
        row[ids[len(decoder.calls) % 5 - 1]] = 0.0
        return row

    decoder = FakeDecoder(rule, vocab_size=size, seq_len=6)
    run, pieces = begin(decoder, char, [0, 1, 2, 3], GenerationSettings(5, (), GREEDY))
    list(pieces)
    second = run.tokens
    assert decoder.calls == [
        {0: (0, 1, 2, 3)},
        {0: (second[0],)},
        {0: (second[1],)},
        {0: tuple(second[:3])},  # the seventh token: the newest three of seven
        {0: (second[3],)},
    ]
    assert decoder.length() == 4


@pytest.mark.parametrize("seq_len", [1, 2, 3, 5])
def test_generation_outlives_any_context(seq_len, char):
    size = char.vocab_size
    decoder = FakeDecoder(noise(size), vocab_size=size, seq_len=seq_len)
    run, pieces = begin(decoder, char, [3, 1, 4, 1], GenerationSettings(20, (), GREEDY))
    list(pieces)
    window = [3, 1, 4, 1][-seq_len:]
    for token in run.tokens:  # the rule of the documentation, spelled out
        assert token == int(noise(size)(tuple(window)).argmax())
        window.append(token)
        if len(window) > seq_len:
            window = window[-max(1, seq_len // 2) :]
    assert (len(run.tokens), run.finish_reason) == (20, "length")


def test_a_long_prompt_is_read_from_its_end(char):
    decoder = FakeDecoder(noise(7), vocab_size=7, seq_len=4)
    list(begin(decoder, char, [0, 1, 2, 3, 4, 5], GenerationSettings(1))[1])
    assert decoder.calls == [{0: (2, 3, 4, 5)}]


def test_padded_vocabulary_is_never_drawn(char):
    def rule(_):
        return np.array([0.0] * 7 + [50.0] * 9)

    decoder = FakeDecoder(rule, vocab_size=16, seq_len=8)
    run, pieces = begin(decoder, char, [0], GenerationSettings(30))
    list(pieces)
    assert max(run.tokens) < 7


def test_the_same_seed_gives_the_same_text(char):
    def text(seed, sample=0):
        decoder = FakeDecoder(noise(7), vocab_size=7, seq_len=16)
        knobs = SamplingSettings(temperature=2.0, top_p=1.0, seed=seed)
        return "".join(begin(decoder, char, [2, 5], GenerationSettings(40, (), knobs), sample)[1])

    assert text(1) == text(1)
    assert len({text(1), text(2), text(1, sample=1)}) == 3


def test_the_repetition_penalty_sees_prompt_and_text(char):
    def rule(_):
        return np.array([4.0, 3.9, 3.8, 0.0, 0.0, 0.0, 0.0])

    decoder = FakeDecoder(rule, vocab_size=7, seq_len=8)
    knobs = SamplingSettings(temperature=0, repeat_penalty=1.5)
    run, pieces = begin(decoder, char, [0], GenerationSettings(3, (), knobs))
    list(pieces)
    assert run.tokens == [1, 2, 0]


def test_an_interruption_leaves_what_was_said(byte):
    run, stream = begin(spelling(byte, "hello", 1), byte, [1], GenerationSettings())
    assert [next(stream), next(stream)] == ["h", "e"]
    stream.close()
    assert (run.text, run.finish_reason) == ("he", "interrupted")


def test_broken_logits_name_the_model(char):
    def rule(tokens):
        return np.full(7, np.nan if len(tokens) > 2 else 0.0)

    _, pieces = begin(FakeDecoder(rule, vocab_size=7, seq_len=8), char, [0], GenerationSettings())
    with pytest.raises(CheckpointError, match="NaN"):
        list(pieces)


def test_prompts(byte, char):
    assert encode_prompt(char, "cab") == [2, 0, 1]
    assert encode_prompt(byte, "") == [byte.eot_id]
    with pytest.raises(DataError, match="empty"):
        encode_prompt(char, "")
    with pytest.raises(DataError, match="'é'"):
        encode_prompt(char, "é")
    with pytest.raises(DataError, match="character 2"):
        encode_prompt(byte, "a\udce9")


@pytest.mark.parametrize("values", [{"max_tokens": 0}, {"stop": ("a", "")}])
def test_impossible_settings(values):
    with pytest.raises(UsageError, match="--"):
        GenerationSettings(**values)
