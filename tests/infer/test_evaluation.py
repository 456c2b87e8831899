"""The figures of a suite, against what they are by hand."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.infer.engine import GenerationSettings
from crystalline.infer.evaluation import evaluate, parses
from crystalline.infer.sampling import SamplingSettings
from crystalline.infer.scheduler import Scheduler
from crystalline.infer.suite import BUILT_IN, CODE, QUESTIONS, Question, read_suite
from tests.infer.fake_model import FakeDecoder, noise

GREEDY = GenerationSettings(12, (), SamplingSettings(temperature=0))


@pytest.fixture(scope="module")
def byte():
    return Tokenizer.train("byte", [], 0)


def decoder(rule, slots=3, seq_len=400, size=257):
    return FakeDecoder(rule, vocab_size=size, seq_len=seq_len, slots=slots)


def telling(tokenizer, answers):
    """A model that continues each prompt with its text, then ends it."""
    texts = [(tuple(tokenizer.encode(p)), [*tokenizer.encode(t), tokenizer.eot_id])
             for p, t in answers.items()]  # fmt: skip

    def rule(tokens):
        row = np.full(tokenizer.vocab_size, -9.0)
        for prompt, ids in texts:
            at = len(tokens) - len(prompt)
            if 0 <= at < len(ids) and tokens == (*prompt, *ids[:at]):
                row[ids[at]] = 9.0
        return row

    return rule


def test_the_figures_of_texts(byte):
    suite = [
        Question(CODE, "A\n"),
        Question("other", "B\n"),
        Question(CODE, "C\n"),
        Question(CODE, "D\n"),
    ]
    said = {"A\n": "x = 1\n", "B\n": "a b a b", "C\n": "so so", "D\n": ""}
    code, other = evaluate(Scheduler(decoder(telling(byte, said))), byte, suite, GREEDY)
    assert (code.name, code.questions, code.left_out) == ("code", 3, 0)
    assert code.parses == pytest.approx(1 / 3)
    assert code.distinct_1 == pytest.approx((1 + 0.5) / 2)  # the empty text has no words
    assert (code.tokens, code.chars) == (pytest.approx((7 + 6 + 1) / 3), pytest.approx(11 / 3))
    assert code.finish_reasons == {"eot": 3}
    assert (other.distinct_1, other.distinct_2) == (0.5, pytest.approx(2 / 3))
    assert (other.parses, other.perplexity, other.bits_per_byte) == (None, None, None)


@pytest.mark.parametrize("seq_len", [400, 9, 5, 3])
def test_the_likelihood_of_answers(byte, seq_len):
    """Each token of an answer after as much as the context holds, the newest of the prompt."""
    suite = [Question("q", "what ", "this"), Question("q", "x", "thät"), Question("q", "no answer")]
    rule = noise(257)
    (group,) = evaluate(Scheduler(decoder(rule, seq_len=seq_len)), byte, suite, GREEDY)
    nats = []
    for question in suite[:2]:
        prompt, answer = list(question.prompt.encode()), list(question.answer.encode())
        room = seq_len + 1 - len(answer) if len(answer) <= seq_len else seq_len // 2
        ids = [*prompt[-max(1, room) :], *answer]
        for at in range(len(ids) - len(answer), len(ids)):
            row = rule(tuple(ids[(at - 1) // seq_len * seq_len : at]))
            nats.append(math.log(math.fsum(math.exp(v) for v in row)) - row[ids[at]])
    assert group.nats_per_token == pytest.approx(math.fsum(nats) / 9, rel=1e-9)
    assert group.perplexity == pytest.approx(math.exp(math.fsum(nats) / 9), rel=1e-9)
    assert group.bits_per_byte == pytest.approx(math.fsum(nats) / math.log(2) / 9, rel=1e-9)


def test_the_figures_do_not_depend_on_what_is_done_at_a_time(byte):
    suite = [Question(CODE, f"{n}\n", "a" * n) for n in range(1, 9)]

    def words(tokens):  # of a and b
        return noise(257)(tokens) + 50.0 * np.isin(np.arange(257), [32, 97, 98])

    def figures(slots, seed):
        knobs = GenerationSettings(30, (), SamplingSettings(temperature=2.0, seed=seed))
        return evaluate(Scheduler(decoder(words, slots)), byte, suite, knobs)

    assert figures(1, 3) == figures(3, 3) == figures(8, 3) != figures(3, 99)


def test_what_cannot_be_expressed_is_left_out():
    char = Tokenizer.train("char", ["abc\n"], 0)
    suite = [Question("a", "abc\n", "cab"), Question("a", "xyz\n"), Question("b", "a", "xyz")]
    scheduler = Scheduler(decoder(noise(4), size=4))
    first, second = evaluate(scheduler, char, suite, GREEDY)
    assert (first.questions, first.left_out, first.finish_reasons) == (2, 1, {"length": 1})
    assert (second.questions, second.left_out, second.tokens) == (1, 1, None)
    with pytest.raises(DataError, match="none of the 16 questions"):
        evaluate(scheduler, char, BUILT_IN, GREEDY)
    assert scheduler.is_idle


def test_a_damaged_model_is_told(byte):
    scheduler = Scheduler(decoder(lambda _: np.full(257, np.nan)))
    with pytest.raises(CheckpointError, match="NaN"):
        evaluate(scheduler, byte, [Question("a", "b", "c")] * 5, GREEDY)
    assert scheduler.is_idle  # whatever else was asked for is given up


def test_progress_reaches_the_end(byte):
    told = []
    suite = [Question("a", "b", "c"), Question("a", "d")]
    scheduler = Scheduler(decoder(noise(257)))
    evaluate(scheduler, byte, suite, GREEDY, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)


@pytest.mark.parametrize(
    ("text", "reason", "good"),
    [
        ("def f(x):\n    return x\n", "eot", True),
        ("def f(x):\n    return x\n    retu", "length", True),
        ("def f(x):\n    return x\n    retu +", "eot", False),
        ("def f(x):", "length", False),
        ("import os", "eot", True),
        ("", "eot", False),
        ("Hello", "eot", False),
        ("5", "eot", False),
        ("The number is prime.", "eot", False),
        ("Sure:\n```py\nx = 1\n```\nand more (", "length", True),
        ("```\nx = = 1\n```\n", "eot", False),
        ("x = '\\d'", "eot", True),  # an odd escape is a warning
        ("x = 1\0", "eot", False),
        ("(" * 5000, "eot", False),
        ("x = " + "-" * 100_000 + "1", "eot", False),
        ("x = 1\n" * 100_000, "eot", False),
    ],
)
def test_code_that_parses(text, reason, good):
    assert parses(text, reason) is good


# --- suites ---------------------------------------------------------------------------------------


def test_the_built_in_suite_is_sound():
    groups = {group: [q for q in BUILT_IN if q.group == group] for group in (CODE, QUESTIONS)}
    assert [len(found) for found in groups.values()] == [8, 8]
    assert all(q.prompt.endswith("\n") and q.answer for q in BUILT_IN)
    assert all(parses(q.answer, "eot") for q in groups[CODE])
    assert {q.prompt for q in BUILT_IN} >= {
        "Write a function to calculate fibonacci\n",
        "What is the Crystalline CLLM system?\n",
    }
    space: dict = {}
    exec(compile(ast.parse(groups[CODE][0].answer), "a", "exec"), space)
    assert [space["fibonacci"](n) for n in range(7)] == [0, 1, 1, 2, 3, 5, 8]


def test_a_suite_of_a_file():
    text = '\ufeff{"group": "a", "prompt": "x\\r\\ny", "answer": "z", "id": 5}\r\n\n'
    text += '{"prompt": "", "group": "code", "answer": null}\n'
    assert read_suite(text, "f") == [Question("a", "x\ny", "z", 1), Question(CODE, "", "", 3)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "it is not valid JSON"),
        ('{"prompt": "a"}', "it has no 'group'"),
        ('{"prompt": "a", "group": ""}', "'group' is ''"),
        ('{"prompt": "a", "group": "b", "answer": 5}', "'answer' is 5"),
        ('{"prompt": "a", "group": "b", "answers": "c"}', "'answers' is not among its fields"),
    ],
)
def test_a_bad_line_is_named(line, words):
    with pytest.raises(DataError, match="line 2 of f is no question: ") as caught:
        read_suite('{"prompt": "a", "group": "b"}\n' + line, "f")
    assert words in str(caught.value)
    with pytest.raises(DataError, match="f has no questions"):
        read_suite("\n", "f")
