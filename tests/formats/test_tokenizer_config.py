"""Saved checkpoints in transformers, and what transformers saved here: ids, text and logits.

transformers itself is the oracle; without it (the extra `compat`) only the content of
the file is tested.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.cli.infer import main
from crystalline.data.tokenizer import END_OF_TEXT, KINDS, UNKNOWN, Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.formats import checkpoint as cp
from crystalline.formats.files import TOKENIZER_CONFIG
from crystalline.infer.engine import Generation, GenerationSettings
from crystalline.infer.loading import Model, open_model
from crystalline.infer.sampling import SamplingSettings
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.train.config import TrainConfig

TEXT = "It's  the\tquick brown fox, it's 12 dogs!\n\n  hello <|endo> world's café ☃ ab cd .\r\n 😀 "
# Every kind with an end of text, and the one that can be without.
FOLDERS = (*((kind, 2) for kind in KINDS), ("char", 1))
NASTY = (
    "", "a", " ", "  ", "\n", "\t\t", "ab cd", " a . b , c ' d", "dogs !", "it 's", "don't",
    END_OF_TEXT, f"  {END_OF_TEXT}  a", f"a{END_OF_TEXT}{END_OF_TEXT}b", "<|endo", "<|", UNKNOWN,
    f" {UNKNOWN} ", "[UNK]", "<pad>", "<s> </s>", "▁the", "Ġthe", "e\u0301", "é", "ﬁ", "İ", "ẞ",
    "\r\n\r\n", "\u200b", "a\u00a0b", "\u3000", "\x00", "😀😀", "☃ ", "the the", "DON'T", "x" * 99,
)  # fmt: skip


def save(place: Path, kind: str, documents: int) -> Path:
    """Return a checkpoint of a small model whose logits differ much."""
    place.mkdir(parents=True)
    tokenizer = Tokenizer.train(kind, [TEXT] * documents, 300)
    tokenizer.save(place / "tokenizer.json")
    config = ModelConfig(tokenizer.vocab_size, seq_len=48, num_layers=2, num_heads=2, embed_dim=16)
    weights = np.zeros(parameter_table(config).size, np.float32)
    initialize(config, weights, seed=3)
    weights *= 8.0
    return cp.save_checkpoint(
        place,
        step=1,
        model_config=config,
        train_config=TrainConfig(),
        weights=weights,
        moments=(np.zeros_like(weights), np.zeros_like(weights)),
        tokenizer_path=place / "tokenizer.json",
        state={},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    place = tmp_path_factory.mktemp("runs")
    return {(kind, count): save(place / f"{kind}{count}", kind, count) for kind, count in FOLDERS}


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", FOLDERS)
def test_special_tokens_are_those_of_the_vocabulary(saved: Any, which: tuple[str, int]) -> None:
    folder = saved[which]
    config = json.loads((folder / TOKENIZER_CONFIG).read_text("utf-8"))
    special = {name: value for name, value in config.items() if name.endswith("_token")}
    ends = which != ("char", 1)
    expected = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT} if ends else {}
    assert special == expected | ({"unk_token": UNKNOWN} if which[0] == "word" else {})
    vocabulary = Tokenizer.load(folder / "tokenizer.json").inner.get_vocab()
    assert all(token in vocabulary for token in special.values())
    model = json.loads((folder / "config.json").read_text("utf-8"))
    assert model["eos_token_id"] == model["bos_token_id"] == vocabulary.get(END_OF_TEXT)
    assert "token_type_ids" not in config["model_input_names"]
    assert config["model_max_length"] == model["n_positions"] == 48


def test_checkpoints_of_earlier_versions_lack_it_and_are_whole(tmp_path: Path) -> None:
    folder = save(tmp_path / "run", "word", 1)
    (folder / TOKENIZER_CONFIG).unlink()
    assert str(cp.verify(folder)) == f"{TOKENIZER_CONFIG} is missing"
    manifest = json.loads((folder / cp.MANIFEST).read_text("utf-8"))
    del manifest["files"][TOKENIZER_CONFIG]
    (folder / cp.MANIFEST).write_text(json.dumps(manifest), "utf-8")
    assert cp.verify(folder) is None
    assert cp.load_checkpoint(folder).step == 1
    assert open_model(folder).tokenizer.kind == "word"


def test_generating_does_not_look_at_it(tmp_path: Path) -> None:
    """Who edits what transformers is told does not damage the model."""
    folder = save(tmp_path / "run", "byte", 1)
    (folder / TOKENIZER_CONFIG).write_text("{}", "utf-8")
    assert open_model(folder).tokenizer.kind == "byte"
    with pytest.raises(CheckpointError, match=TOKENIZER_CONFIG):
        cp.inspect_checkpoint(folder)


# --- transformers ---------------------------------------------------------------------------------


def texts() -> Iterator[str]:
    yield from NASTY
    draw = random.Random(7)
    for _ in range(300):
        yield "".join(draw.choices(TEXT, k=draw.randint(1, 40)))


def ours(tokenizer: Tokenizer, text: str) -> tuple[list[int], str] | None:
    try:
        ids = tokenizer.encode(text).tolist()
    except DataError:
        return None
    return ids, tokenizer.decode(ids)


def theirs(tokenizer: Any, text: str) -> tuple[list[int], str] | None:
    try:
        ids = tokenizer(text)["input_ids"]
    except Exception as error:  # noqa: BLE001  (the library raises nothing narrower)
        assert "Missing [UNK] token" in str(error)  # noqa: PT017
        return None
    return ids, tokenizer.decode(ids)


@pytest.mark.parametrize("which", FOLDERS)
def test_transformers_gives_the_same_ids_and_text(
    hub: Any, saved: Any, which: tuple[str, int], tmp_path: Path
) -> None:
    own = Tokenizer.load(saved[which] / "tokenizer.json")
    auto = hub.AutoTokenizer.from_pretrained(saved[which])
    assert len(auto) == own.vocab_size == open_model(saved[which]).decoder.config.vocab_size
    assert auto.eos_token_id == own.eot_id
    auto.save_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.kind, again.vocab_size, again.eot_id) == (which[0], own.vocab_size, own.eot_id)
    known = 0
    for text in texts():
        expected = ours(own, text)
        assert theirs(auto, text) == expected, repr(text)
        assert ours(again, text) == expected, repr(text)
        known += expected is not None
    assert known > 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_that_transformers_saved_cuts_no_text(
    hub: Any, saved: Any, kind: str, tmp_path: Path
) -> None:
    auto = hub.AutoTokenizer.from_pretrained(saved[kind, 2])
    auto.pad_token = auto.eos_token
    auto("the quick brown fox", truncation=True, max_length=2, padding="max_length")
    auto.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["padding"]
    own, again = (Tokenizer.load(p / "tokenizer.json") for p in (saved[kind, 2], tmp_path))
    assert ours(again, TEXT) == ours(own, TEXT)


@pytest.mark.parametrize("which", FOLDERS)
def test_transformers_computes_the_same_logits(
    hub: Any, saved: Any, which: tuple[str, int]
) -> None:
    import torch

    model = hub.AutoModelForCausalLM.from_pretrained(saved[which])
    assert model.generation_config.eos_token_id == open_model(saved[which]).tokenizer.eot_id
    inputs = hub.AutoTokenizer.from_pretrained(saved[which])(
        "the quick brown fox, ab", return_tensors="pt"
    )
    with torch.no_grad():
        single = model(**inputs).logits[0].double().numpy()
        exact = model.double()(**inputs).logits[0].numpy()
    # What single precision costs in another order of the same sums: the cost in torch's own.
    tolerance = 8 * max(
        np.abs(single - exact).max(), np.finfo(np.float32).eps * np.abs(exact).max()
    )
    assert np.ptp(exact) > 1e3 * tolerance
    decoder = open_model(saved[which], cache="float32").decoder
    ids = inputs["input_ids"][0].tolist()
    for end in range(1, len(ids) + 1):
        decoder.truncate(0, 0)
        (row,) = decoder.extend([0], [ids[:end]])
        assert np.abs(row - exact[end - 1]).max() <= tolerance


def greedy(model: Model, prompt: str, count: int) -> list[int]:
    ids = model.tokenizer.encode(prompt).tolist()
    knobs = GenerationSettings(count, (), SamplingSettings(temperature=0))
    generation = Generation(model.tokenizer, ids, knobs)
    model.scheduler.submit(generation)
    model.scheduler.finish(generation)
    return ids + generation.tokens


@pytest.mark.parametrize("which", FOLDERS)
def test_transformers_writes_the_same_text(hub: Any, saved: Any, which: tuple[str, int]) -> None:
    model = hub.AutoModelForCausalLM.from_pretrained(saved[which])
    inputs = hub.AutoTokenizer.from_pretrained(saved[which])("the fox", return_tensors="pt")
    found = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert found[0].tolist() == greedy(open_model(saved[which], cache="float32"), "the fox", 12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("which", FOLDERS)
def test_what_transformers_saved_opens_here(
    hub: Any, saved: Any, which: tuple[str, int], dtype: str, tmp_path: Path, capsys: Any
) -> None:
    import torch

    folder = saved[which]
    model = hub.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    hub.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    config = cp.load_model(folder).config
    views = parameter_table(config).views(cp.load_model(tmp_path).weights)
    for name, tensor in model.state_dict().items():
        if name in views:
            assert np.array_equal(views[name], tensor.float().numpy()), name
    again = open_model(tmp_path)
    own = open_model(folder)
    assert (again.tokenizer.vocab_size, again.tokenizer.eot_id) == (
        own.tokenizer.vocab_size,
        own.tokenizer.eot_id,
    )
    if dtype in ("float32", "float64"):
        assert greedy(again, "the fox", 20) == greedy(own, "the fox", 20)
    argv = [str(tmp_path), "--prompt", "the fox", "--temperature", "0", "--max-tokens", "3"]
    assert main([*argv, "--quiet"]) == 0
    assert len(capsys.readouterr().out) > 1


@pytest.mark.parametrize("head", ["copied", "left out", "own"])
def test_heads_that_transformers_saved(hub: Any, saved: Any, head: str, tmp_path: Path) -> None:
    folder = saved["char", 1]
    if head == "left out":
        model = hub.AutoModel.from_pretrained(folder)
    else:
        model = hub.AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=False)
        rows = model.get_input_embeddings().weight.data
        model.lm_head.weight.data = rows.clone() if head == "copied" else rows + 1
    model.save_pretrained(tmp_path)
    hub.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    if head == "own":
        with pytest.raises(CheckpointError, match="an output head of its own"):
            open_model(tmp_path)
        return
    assert greedy(open_model(tmp_path), "fox", 9) == greedy(open_model(folder), "fox", 9)
