"""Files of prompts and of results: what a line may say, and how a results file is gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, CrystallineError, DataError, UsageError
from crystalline.infer.batch import (
    Results,
    check_prompts,
    generate_all,
    read_prompts,
    request,
    result,
    seed_of,
)
from crystalline.infer.engine import Generation, GenerationSettings
from crystalline.infer.sampling import SamplingSettings
from crystalline.infer.scheduler import Scheduler
from tests.infer.fake_model import FakeDecoder, noise

DEFAULTS = GenerationSettings(20, ("END",), SamplingSettings(temperature=1.5, seed=9))


@pytest.fixture(scope="module")
def char():
    return Tokenizer.train("char", ["abcdefghij"], 0)


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def read(text, *, is_jsonl=True):
    return read_prompts(text, "f", DEFAULTS, is_jsonl=is_jsonl)


# --- prompts --------------------------------------------------------------------------------------


def test_a_line_is_a_prompt():
    found = read("\ufeffone \r\n\n  two\n\n", is_jsonl=False)
    assert [(p.index, p.line, p.id, p.text) for p in found] == [
        (0, 1, 0, "one "),
        (1, 3, 1, "  two"),
    ]
    assert all(prompt.settings == DEFAULTS for prompt in found)
    assert [prompt.with_seed(5).sampling.seed for prompt in found] == [5, 6]
    assert found[1].with_seed(2**64 - 1).sampling.seed == 0


def test_lines_of_json_are_known_by_the_first_of_them():
    """On stdin and in a pipe, which have no names."""
    text = '\n{"prompt": "a", "max_tokens": 3}\n{"prompt": "b"}'
    assert [prompt.text for prompt in read(text, is_jsonl=False)] == ["a", "b"]
    for text in ('{"text": "a"}\n{"prompt": "b"}', 'x\n{"prompt": "b"}', "{\n{}"):
        assert [prompt.text for prompt in read(text, is_jsonl=False)] == text.split("\n")


def test_a_line_of_json_has_settings_of_its_own():
    own = {"temperature": 0, "top_k": 3, "top_p": 1, "min_p": 0.1, "repeat_penalty": 2}
    found = read(
        lines(
            {"prompt": "a\r\nb", "id": "x", "max_tokens": 5, "stop": "S", "seed": 3, **own},
            {"prompt": "", "id": 7, "stop": ["S", "T"]},
            {"prompt": "c", "seed": None, "stop": []},
        )
    )
    first, second, third = found
    assert (first.text, first.id, first.own_seed) == ("a\nb", "x", True)
    knobs = SamplingSettings(**own, seed=3)
    assert first.with_seed(100) == GenerationSettings(5, ("S",), knobs)
    assert (second.id, second.settings.stop, second.settings.max_tokens) == (7, ("S", "T"), 20)
    assert second.settings.sampling == DEFAULTS.sampling
    assert (third.id, third.settings.stop, third.own_seed) == (2, (), False)
    assert third.with_seed(100).sampling.seed == 102


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 of f is no prompt: it is not valid JSON"),
        ("[1]", "line 2 of f is no prompt: it is not a table"),
        ('"a"', "line 2 of f is no prompt"),
        ('{"text": "a"}', "it has no 'prompt'"),
        ('{"prompt": 5}', "'prompt' is 5, it must be text"),
        ('{"prompt": "a", "max_tokens": 1.5}', "'max_tokens' is 1.5"),
        ('{"prompt": "a", "max_tokens": true}', "'max_tokens' is True"),
        ('{"prompt": "a", "max_tokens": 0}', "line 2 of f: 'max_tokens' is 0. It must be at least"),
        ('{"prompt": "a", "max_tokens": 1e400}', "not finite"),
        ('{"prompt": "a", "temperature": -1}', "line 2 of f: 'temperature' is -1"),
        ('{"prompt": "a", "temperature": NaN}', "NaN"),
        ('{"prompt": "a", "top_p": 0}', "'top_p' is 0"),
        ('{"prompt": "a", "seed": -1}', "'seed' is -1"),
        ('{"prompt": "a", "seed": 99999999999999999999}', "'seed' is 99999999999999999999"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "5,000 digits"),
        ('{"prompt": "a", "stop": [1]}', "'stop' must be text or a list"),
        ('{"prompt": "a", "stop": ""}', "line 2 of f: 'stop' is empty"),
        ('{"prompt": "a", "id": [1]}', "'id' must be text or a whole number"),
        ('{"prompt": "a", "id": true}', "'id' must be text or a whole number"),
        ('{"prompt": "a", "max_token": 5}', "line 2 of f has 'max_token', which is no setting"),
        ('{"prompt": "a", "id": 0}', "line 2 of f has the id 0, as line 1 has"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_named(line, words):
    with pytest.raises(DataError) as caught:
        read('{"prompt": "fine"}\n' + line)
    assert words in str(caught.value)
    assert caught.value.advice
    assert len(str(caught.value)) < 500


def test_no_prompts_are_an_error():
    for text in ("", "\n \n"):
        with pytest.raises(DataError, match="f has no prompts"):
            read(text)


def test_what_the_tokenizer_cannot_express_is_named(char):
    check = check_prompts(char, read("abc\nbad\nh" + "a" * 9, is_jsonl=False), "f", 8)
    assert (check.cut, check.unknown) == (1, 0)
    with pytest.raises(DataError, match=r"line 3 of f: .*'z'"):
        check_prompts(char, read("abc\n\nxyz".replace("xy", "a"), is_jsonl=False), "f", 8)
    surrogate = read('{"prompt": "a"}\n{"prompt": "\\ud800"}')
    with pytest.raises(DataError, match="line 2 of f: the prompt is not valid Unicode"):
        check_prompts(Tokenizer.train("byte", [], 0), surrogate, "f", 8)


# --- texts ----------------------------------------------------------------------------------------


def fake(slots=1, rule=None):
    return Scheduler(FakeDecoder(rule or noise(10), vocab_size=10, seq_len=16, slots=slots))


def test_texts_are_those_of_one_by_one(char):
    prompts = read(
        lines(
            *({"prompt": "abcdefghij"[place:], "max_tokens": 30 - 3 * place} for place in range(9)),
            {"prompt": "a", "seed": 5},
        )
    )
    found = dict(generate_all(fake(4), char, prompts, "f", seed=7))
    assert len(found) == 10
    for prompt in prompts:
        alone = Generation(char, char.encode(prompt.text).tolist(), prompt.with_seed(7))
        scheduler = fake()
        scheduler.submit(alone)
        scheduler.finish(alone)
        assert found[prompt].text == alone.text
    order = [prompt.index for prompt in found]
    assert order != sorted(order)  # as they end: the short ones do not wait for the long ones


def test_a_text_that_fails_is_named(char):
    def rule(tokens):
        row = noise(10)(tokens)
        return row * float("nan") if tokens[0] == 2 and len(tokens) > 3 else row

    prompts = read("a\n\nc\nd", is_jsonl=False)
    scheduler = fake(2, rule)
    with pytest.raises(CheckpointError, match="line 3 of f: the model's logits are NaN"):
        list(generate_all(scheduler, char, prompts, "f", seed=1))
    assert scheduler.is_idle


# --- results --------------------------------------------------------------------------------------


def texts(char, prompts, seed=7):
    ended = generate_all(fake(3), char, prompts, "f", seed=seed)
    return {prompt.index: result(prompt, text, "m", 16) for prompt, text in ended}


@pytest.fixture
def finished(char, tmp_path):
    """A results file of five prompts, written as they came; the prompts and the path."""
    prompts = read(lines(*({"prompt": "abc", "max_tokens": 9 - n} for n in range(5))))
    path = tmp_path / "out.jsonl"
    results = Results(path)
    for content in texts(char, prompts).values():
        results.write(content)
    results.close()
    return prompts, path


def test_results_are_put_into_order(finished):
    _, path = finished
    written = [json.loads(line)["index"] for line in path.read_text().splitlines()]
    assert written != sorted(written)
    results = Results(path)
    results.sort()
    results.close()
    found = [json.loads(line)["index"] for line in path.read_text().splitlines()]
    assert found == sorted(written)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("cut", [1, 2, 30, 60])
def test_a_torn_line_is_cut_off(finished, cut):
    _, path = finished
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -min(cut, len(last) - 1)])
    results = Results(path)
    assert (results.was_torn, len(results.found)) == (True, 4)
    assert path.read_bytes() == whole[: -len(last)]
    results.write(json.loads(last))
    results.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"notes",
        b"notes\n",
        b'{"a": 1}\n',
        b'{"index": 1}\n',
        b'{"index"; "mine"',
        b"\xff\xfe\n",
        b'{"index": 0, "model": "", "prompt": "", "seed": 0, "text": 5, "finish_reason": "eot"}\n',
    ],
)
def test_another_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"line 1 of .*mine is no result") as caught:
        Results(path)
    assert "--out" in caught.value.advice
    assert path.read_bytes() == content


def test_a_damaged_line_in_the_middle_is_named(finished):
    _, path = finished
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], rows[1][:40] + b"\n", *rows[2:]]))
    with pytest.raises(DataError, match="line 2 of"):
        Results(path)
    path.write_bytes(rows[0] * 2)
    with pytest.raises(DataError, match=r"line 2 of .* has the index \d again"):
        Results(path)


@pytest.mark.parametrize("field", ["prompt", "seed", "temperature", "max_tokens", "stop", "id"])
def test_results_of_other_requests_are_not_mixed(finished, field):
    prompts, path = finished
    results = Results(path)
    results.close()

    def expected(index):
        return request(prompts[index], prompts[index].with_seed(7), "m")

    results.keep(expected, 5)
    with pytest.raises(DataError, match="there are 3 prompts"):
        results.keep(expected, 3)
    with pytest.raises(DataError, match=f"'{field}' is another"):
        results.keep(lambda index: expected(index) | {field: "other"}, 5)


def test_the_seed_of_all_is_known_from_the_results(finished):
    prompts, path = finished
    results = Results(path)
    results.close()
    assert seed_of(prompts, results.found) == 7
    own = read(lines(*({"prompt": "abc", "seed": n} for n in range(5))))
    assert seed_of(own, results.found) is None
    assert seed_of(prompts, {}) is None


def test_two_cannot_write_one_file(finished):
    _, path = finished
    code = (
        "import sys; from pathlib import Path; from crystalline.infer.batch import Results\n"
        "held = Results(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(CrystallineError, match="written by another process"):
            Results(path)
        process.communicate(timeout=20)
    Results(path).close()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for place in (tmp_path, tmp_path / "no" / "file", tmp_path / "link"):
        with pytest.raises(UsageError, match="cannot be written"):
            Results(place)
    assert not (tmp_path / "target").exists()
