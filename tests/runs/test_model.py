"""A loaded model: text, pieces of text, scores, and whose turn it is."""

from __future__ import annotations

import inspect
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.infer import loading
from crystalline.infer.engine import Generation, GenerationSettings, encode_prompt
from crystalline.infer.perplexity import score_text
from crystalline.infer.sampling import SamplingSettings
from crystalline.runs.model import Model, load
from tests.infer.fake_model import FakeDecoder, noise


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train("byte", [], 0)


@pytest.fixture
def opened(tokenizer: Tokenizer) -> loading.Model:
    size = tokenizer.vocab_size
    return loading.Model(
        Path("folder"), FakeDecoder(noise(size), vocab_size=size, seq_len=32), tokenizer
    )


@pytest.fixture
def model(opened: loading.Model) -> Model:
    return Model(opened)


def expected(opened: loading.Model, prompt: str, settings: GenerationSettings) -> str:
    tokens = encode_prompt(opened.tokenizer, prompt)
    generation = Generation(opened.tokenizer, tokens, settings)
    opened.scheduler.submit(generation)
    opened.scheduler.finish(generation)
    return generation.text


def test_it_writes_what_the_engine_writes(model: Model, opened: loading.Model) -> None:
    sampling = SamplingSettings(temperature=0.5, top_k=9, seed=4)
    wanted = expected(opened, "Once", GenerationSettings(30, (), sampling))
    assert wanted
    given = {"max_tokens": 30, "temperature": 0.5, "top_k": 9, "seed": 4}
    assert model.generate("Once", **given) == wanted
    assert "".join(model.stream("Once", **given)) == wanted
    assert model.generate("On\r\nce", **given) == model.generate("On\nce", **given)


def test_stops_may_be_one_string(model: Model) -> None:
    whole = model.generate("a", max_tokens=40, seed=1)
    stop = whole[5:7]
    assert model.generate("a", max_tokens=40, seed=1, stop=stop) == whole[: whole.index(stop)]
    assert (
        model.generate("a", max_tokens=40, seed=1, stop=["\0", stop]) == whole[: whole.index(stop)]
    )


def test_without_a_seed_texts_differ(model: Model) -> None:
    assert len({model.generate("a", max_tokens=20) for _ in range(4)}) > 1


def test_it_scores_as_the_command_does(model: Model, opened: loading.Model) -> None:
    text = "It was a dark and stormy night. " * 3
    wanted = score_text(opened.scheduler, opened.tokenizer, text)
    assert model.score(text) == wanted
    assert model.score([text]) == wanted
    assert model.perplexity(text) == wanted.perplexity
    assert math.isfinite(wanted.perplexity)
    assert model.score([text, "b"]).tokens == wanted.tokens + 2  # what parts them, and one more


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 2}, "top_p is 2"),
        ({"max_tokens": 0}, "max_tokens is 0. It must be at least 1."),
        ({"max_tokens": "9"}, "max_tokens is '9'"),
        ({"max_token": 9}, "'max_token' is not a setting. Did you mean max_tokens?"),
        ({"sampling": None}, "'sampling' is not a setting"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": 3}, "stop is 3"),
        ({"prompt": b"Once"}, "the prompt is bytes. It must be a string."),
    ],
)
def test_wrong_settings_are_told_at_once(model: Model, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        model.stream(**given)
    assert words in str(caught.value)
    assert "--" not in str(caught.value)


def test_unusable_text_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="not valid Unicode"):
        model.generate("\udce9")
    with pytest.raises(DataError, match="0 tokens"):
        model.score("")
    with pytest.raises(UsageError, match="the text is int"):
        model.score([3])  # type: ignore[list-item]


def test_a_stream_has_the_model_to_itself(model: Model) -> None:
    stream = model.stream("a", max_tokens=30, seed=1)
    first = next(stream)
    with pytest.raises(UsageError, match="in the middle of another text"):
        model.generate("b")
    with pytest.raises(UsageError, match="in the middle of another text"):
        model.score("bb")
    assert first + "".join(stream) == model.generate("a", max_tokens=30, seed=1)
    stream = model.stream("a", max_tokens=30)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert model.generate("b", max_tokens=2, seed=1)


def test_threads_wait_for_their_turn(model: Model) -> None:
    alone = {seed: model.generate("a", max_tokens=30, seed=seed) for seed in range(8)}
    found: dict[int, str] = {}

    def write(seed: int) -> None:
        found[seed] = model.generate("a", max_tokens=30, seed=seed)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == alone


def test_what_is_no_model_is_told_in_python(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        load(tmp_path, checkpoint="best")
    assert "checkpoint best picks from a run" in str(caught.value)
    assert "--" not in str(caught.value)


def test_help_shows_the_settings() -> None:
    names = set(inspect.signature(Model.generate).parameters)
    assert {"prompt", "stop", "seed", "max_tokens", "temperature", "min_p"} <= names
    assert "sampling" not in names
