"""Opening real folders, and the compiled decoder behind the same engine as the fake one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.crystal.features import token_features
from crystalline.data.crystal.tokens import Crystal, build_crystal
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.checkpoint import load_model, save_checkpoint
from crystalline.infer.batch import generate_all, read_prompts
from crystalline.infer.beam import BeamSearch, beam_search
from crystalline.infer.engine import Generation, GenerationSettings
from crystalline.infer.loading import open_model
from crystalline.infer.perplexity import score_text
from crystalline.infer.sampling import SamplingSettings, log_softmax
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import TrainConfig
from tests.permissions import permissions_hold
from tests.runs.exports import make_run

TEXT = "the quick brown fox jumps over a lazy dog"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train("char", [TEXT], 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer) -> Path:
    """A run with checkpoints of steps 5 (best), 10 and 15 (latest), all different."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "one",
        tokenizer=tokenizer,
        steps=(5, 10, 15),
        factor=8.0,
        seq_len=7,
        num_heads=3,
        embed_dim=21,
    )


@pytest.mark.parametrize(
    ("which", "step"),
    [(None, 5), ("best", 5), ("latest", 15), ("step-00000010", 10)],
)
def test_a_run_has_several_checkpoints(run, which, step):
    assert open_model(run, checkpoint=which).path.name == f"step-{step:08d}"


def test_a_checkpoint_by_its_path(run):
    path = run / "checkpoints" / "step-00000010"
    assert open_model(path).path == path
    assert open_model(run, checkpoint=str(path)).path == path


def test_a_single_model_has_no_checkpoints_to_choose_from(run):
    with pytest.raises(UsageError, match="--checkpoint best"):
        open_model(run / "checkpoints" / "step-00000010", checkpoint="best")


def test_it_is_known_how_a_checkpoint_was_chosen(run, tmp_path):
    assert open_model(run).choice == "best"
    for which in ("best", "latest", "step-00000005"):
        assert open_model(run, checkpoint=which).choice == ""
    assert open_model(run / "best").choice == ""
    assert open_model(run / "checkpoints" / "step-00000005").choice == ""
    shutil.copytree(run, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy" / "best").unlink()
    model = open_model(tmp_path / "copy")
    assert (model.choice, model.path.name) == ("latest", "step-00000015")
    (tmp_path / "copy" / "best").symlink_to("checkpoints/step-00000099")  # and is gone
    assert open_model(tmp_path / "copy").choice == "latest"


def test_impossible_names_are_a_sentence(run):
    for place, which in ((Path("x" * 5000), None), (run, "x" * 5000), (run, "9" * 5000)):
        with pytest.raises(CheckpointError):
            open_model(place, checkpoint=which)


@pytest.mark.parametrize("which", ["step-00000011", "bset"])
def test_an_unknown_checkpoint(run, which):
    with pytest.raises(CheckpointError, match=which):
        open_model(run, checkpoint=which)


def test_a_folder_from_elsewhere(run, tmp_path):
    source = run / "checkpoints" / "step-00000010"
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(source / name, tmp_path / name)
    model = open_model(tmp_path)
    again = open_model(source)
    row = model.decoder.extend([0], [[1, 2, 3]])[0]
    assert np.array_equal(row, again.decoder.extend([0], [[1, 2, 3]])[0])
    assert np.ptp(row) > 0.1


def test_a_tokenizer_of_another_model(run, tmp_path):
    source = run / "checkpoints" / "step-00000010"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, tmp_path / name)
    Tokenizer.train("byte", [], 0).save(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="257 tokens"):
        open_model(tmp_path)


def test_damage_is_found(run, tmp_path):
    copy = tmp_path / "step"
    shutil.copytree(run / "checkpoints" / "step-00000010", copy)
    blob = bytearray((copy / "model.safetensors").read_bytes())
    blob[-9] ^= 1
    (copy / "model.safetensors").write_bytes(blob)
    with pytest.raises(CheckpointError, match="damaged"):
        open_model(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError):
        open_model(copy)


def test_the_advice_for_damage_is_no_flag_of_the_trainer(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    newest = max((copy / "checkpoints").iterdir())
    (newest / "config.json").write_text("")
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        open_model(newest)
    assert "--resume" not in caught.value.advice
    assert "is undamaged: " in caught.value.advice


@pytest.mark.parametrize("checkpoint", [None, "latest"])
def test_a_closed_run_is_not_called_damaged(run, tmp_path, checkpoint):
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    copy.chmod(0)
    try:
        with permissions_hold(), pytest.raises(CheckpointError) as caught:
            open_model(copy, checkpoint=checkpoint)
    finally:
        copy.chmod(0o755)
    assert str(caught.value) == (
        f"{copy} cannot be read (Permission denied). Check its permissions."
    )


def logits(decoder, window):
    decoder.truncate(0, 0)
    return decoder.extend([0], [window])[0]


def likeliest(decoder, window):
    return int(np.argmax(logits(decoder, window)))


def test_greedy_text_agrees_with_reading_every_time(run, tokenizer):
    model, other = open_model(run), open_model(run)
    prompt = tokenizer.encode("the").tolist()
    knobs = GenerationSettings(30, (), SamplingSettings(temperature=0))
    generation = Generation(tokenizer, prompt, knobs)
    model.scheduler.submit(generation)
    text = "".join(model.scheduler.pieces(generation))
    window = list(prompt)
    for token in generation.tokens:  # far beyond the context of 7
        assert token == likeliest(other.decoder, window)
        window.append(token)
        if len(window) > 7:
            window = window[-3:]
    assert text == tokenizer.decode(generation.tokens)
    assert len(set(generation.tokens)) > 1


def test_scores_agree_with_reading_every_time(run, tokenizer):
    model, other = open_model(run), open_model(run)
    ids = tokenizer.encode(TEXT).tolist()
    nats = 0.0
    for at in range(1, len(ids)):
        start = (at - 1) // 7 * 7
        row = logits(other.decoder, ids[start:at]).astype(np.float64)
        nats -= float(log_softmax(row)[ids[at]])
    score = score_text(model.scheduler, tokenizer, TEXT)
    assert score.nats_per_token == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_beam_scores_are_those_of_the_model(run, tokenizer):
    model = open_model(run, slots=3)
    prompt = tokenizer.encode("qu").tolist()
    search = BeamSearch(
        prompt, width=3, max_tokens=5, vocab_size=tokenizer.vocab_size, ends=lambda _: None
    )
    found = beam_search(model.scheduler, search)
    assert len({hypothesis.tokens for hypothesis in found}) == 3
    for hypothesis in found:
        ids = [*prompt, *hypothesis.tokens]
        nats = model.decoder.score(np.array(ids, np.int32))[len(prompt) - 1 :]
        assert hypothesis.log_probability == pytest.approx(-nats.sum(), rel=1e-4)


def test_a_batch_has_the_texts_of_one_by_one(run, tokenizer):
    """Prompts that end within, at and beyond the context of 7, whose texts fill it many times."""
    knobs = GenerationSettings(25, (), SamplingSettings(temperature=1.0))
    prompts = read_prompts("\n".join(TEXT[at : at + 1 + at // 2] for at in range(20)), "f", knobs,
                           is_jsonl=False)  # fmt: skip

    def texts(slots):
        scheduler = open_model(run, slots=slots).scheduler
        return {
            p.index: t.text for p, t in generate_all(scheduler, tokenizer, prompts, "f", seed=1)
        }

    one = texts(1)
    assert len(set(one.values())) == len(prompts)
    assert texts(3) == texts(16) == one


# --- crystalline attention ---------------------------------------------------------------------


@pytest.fixture
def crystalline(tmp_path, tokenizer) -> Path:
    """A checkpoint of a model with crystalline attention, its crystal.json with it."""
    config = ModelConfig(tokenizer.vocab_size, 7, 2, 3, 21, attention="crystalline")
    table = parameter_table(config)
    weights = np.zeros(table.size, np.float32)
    initialize(config, weights, seed=2)
    weights *= 8.0
    for layer in range(2):
        table.views(weights)[f"transformer.h.{layer}.attn.crystal_lambda"][:] = (3.0, -2.0, 1.0)
    crystal = build_crystal(tokenizer, np.arange(tokenizer.vocab_size))
    crystal.save(tmp_path / "crystal.json")
    tokenizer.save(tmp_path / "tokenizer.json")
    return save_checkpoint(
        tmp_path,
        step=1,
        model_config=config,
        train_config=TrainConfig(),
        weights=weights,
        moments=(np.zeros_like(weights), np.zeros_like(weights)),
        tokenizer_path=tmp_path / "tokenizer.json",
        state={},
        crystal=(tmp_path / "crystal.json").read_text("utf-8"),
    )


def test_the_features_come_from_the_checkpoint(crystalline, tokenizer):
    tokens = tokenizer.encode("the fox").tolist()
    loaded = load_model(crystalline)
    crystal = Crystal.load(crystalline / "crystal.json")
    full = Transformer.allocate(loaded.config, loaded.weights, features=token_features(crystal))
    expected = full.logits(np.array([tokens], np.int32))[0, -1]
    decoder = open_model(crystalline, cache="float32").decoder
    decoder.extend([0], [tokens[:3]])
    for token in tokens[3:]:
        row = decoder.extend([0], [[token]])[0]
    np.testing.assert_allclose(row, expected, atol=2e-5 * np.abs(expected).max())
    blind = Transformer.allocate(
        loaded.config, loaded.weights, features=np.zeros((tokenizer.vocab_size, 16), np.float32)
    )
    other = blind.logits(np.array([tokens], np.int32))[0, -1]
    assert np.abs(other - expected).max() > 1e-2 * np.abs(expected).max()
    knobs = GenerationSettings(12, (), SamplingSettings(temperature=0))
    scheduler, text = open_model(crystalline).scheduler, Generation(tokenizer, tokens, knobs)
    scheduler.submit(text)
    assert len("".join(scheduler.pieces(text))) == 12


def test_crystalline_attention_needs_its_own_crystal(crystalline, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(crystalline, place)
    (place / "manifest.json").unlink()
    other = Tokenizer.train("char", ["abc"], 0)
    build_crystal(other, np.ones(other.vocab_size, np.int64)).save(place / "crystal.json")
    with pytest.raises(CheckpointError, match=f"describes {other.vocab_size} tokens"):
        open_model(place)
    (place / "crystal.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"crystal\.json") as damaged:
        open_model(place)
    assert damaged.value.advice == "Copy the folder again."
    (place / "crystal.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"has crystalline attention and no crystal\.json"
    ) as e:
        open_model(place)
    assert "beside config.json" in e.value.advice
