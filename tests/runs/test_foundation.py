"""Runs that begin from a model: its weights, its tokenizer, its shape, and nothing of its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crystalline as cl
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.checkpoint import load_model, save_model_folder
from crystalline.formats.rundir import read_toml
from crystalline.formats.sources import open_source
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.data import foreign
from tests.formats.gguf.models import saved, tensors_of

QUICK: dict[str, Any] = {
    "batch_size": 13, "eval_interval": 0, "save_interval": 0, "log_interval": 5, "workers": 2,
    "precision": "float32",
}  # fmt: skip
STILL: dict[str, Any] = {**QUICK, "max_steps": 1, "learning_rate": 1e-30}  # moves no weight
SIZES = {"seq_len": 16, "num_layers": 2, "num_heads": 4, "embed_dim": 32}
TEMPLATE = "{% for m in messages %}<|start_header_id|>{{ m.role }}{{ m.content }}{% endfor %}"
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {"num_kv_heads": 2, "tie_embeddings": False},
    "qwen3": {"num_kv_heads": 1, "head_size": 12, "tie_embeddings": True, "mlp_dim": 72},
}


def model_folder(folder: Path, architecture: str = "llama", tokenizer: str = "llama3") -> Path:
    """Write a folder as others make them: a foreign tokenizer, a padded vocabulary, a template."""
    config = ModelConfig(
        foreign.VOCABULARY + 12, architecture=architecture, **SIZES, **SHAPES[architecture]
    )
    facts = TokenizerFacts((foreign.VOCABULARY - 1,), {}, TEMPLATE)
    tensors = tensors_of(config, scale=0.02)
    save_model_folder(folder, config, tensors, foreign.document(tokenizer).encode(), facts)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "llama")


def weights_of(place: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a model by name."""
    source = open_source(place)
    return parameter_table(source.config).views(source.flat())


@pytest.mark.parametrize("architecture", SHAPES)
def test_begins_with_the_models_weights_shape_and_tokenizer(
    architecture: str, tmp_path: Path, text: Path
) -> None:
    source = model_folder(tmp_path / "model", architecture)
    run = cl.train(text, init_from=source, **STILL, checkpoint_dir=tmp_path / "run")
    wanted, found = weights_of(source), load_model(run.latest)
    views = parameter_table(found.config).views(found.weights)
    assert found.config == open_source(source).config
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(views[name], tensor, name)
    assert (run.latest / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert open_source(run.path).facts.end_ids == (foreign.VOCABULARY - 1,)
    assert open_source(run.path).facts.chat_template == TEMPLATE
    assert read_toml(run.path / "config.toml")["init_from"] == str(source)


def test_begins_from_a_gguf_file(tmp_path: Path, text: Path) -> None:
    path = saved(tmp_path, "llama")
    run = cl.train(text, init_from=path, **STILL, checkpoint_dir=tmp_path / "run")
    views = weights_of(run.path)
    for name, tensor in weights_of(path).items():
        np.testing.assert_array_equal(views[name], tensor, name)


def test_learned_positions_are_cut_to_a_shorter_context(tmp_path: Path, text: Path) -> None:
    source = model_folder(tmp_path / "model", "gpt2")
    run = cl.train(text, init_from=source, seq_len=7, **STILL, checkpoint_dir=tmp_path / "run")
    name = "transformer.wpe.weight"
    np.testing.assert_array_equal(weights_of(run.path)[name], weights_of(source)[name][:7])
    with pytest.raises(UsageError, match="seq_len 17 is longer than the 16 positions") as raised:
        cl.train(text, init_from=source, seq_len=17, **STILL, checkpoint_dir=tmp_path / "other")
    assert raised.value.advice == "Use seq_len 16 or less."
    assert not (tmp_path / "other").exists()


def test_rotary_positions_take_a_longer_context_with_a_word(
    folder: Path, tmp_path: Path, text: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = cl.train(text, init_from=folder, seq_len=20, **STILL, checkpoint_dir=tmp_path / "run")
    assert open_source(run.path).config.seq_len == 20
    assert "longer than the context of 16" in caplog.text


def test_the_models_context_is_taken_where_the_usual_one_is_longer(
    folder: Path, tmp_path: Path, text: Path
) -> None:
    run = cl.train(text, init_from=folder, **STILL, checkpoint_dir=tmp_path / "run")
    assert open_source(run.path).config.seq_len == 16


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [
        ("vocab_size", 8000, "432"), ("embed_dim", 64, "32"), ("num_layers", 3, "2"),
        ("num_heads", 2, "4"), ("num_kv_heads", 0, "2"), ("mlp_dim", 100, "96"),
        ("tokenizer", "char", "bpe"), ("tie_embeddings", True, "False"),
        ("architecture", "qwen3", "llama"), ("sliding_window", 8, "0"),
        ("rope_theta", 5.0, "10000"),
    ],
)  # fmt: skip
def test_a_setting_that_contradicts_the_model_is_refused(
    name: str, value: Any, has: str, folder: Path, tmp_path: Path, text: Path
) -> None:
    with pytest.raises(UsageError, match=f"contradicts the model .*, which has {has}") as raised:
        cl.train(text, init_from=folder, **{name: value}, checkpoint_dir=tmp_path / "run")
    assert raised.value.message.startswith(f"{name} ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", [{"init": "lattice"}, {"positions": "learned"}])
def test_what_would_take_the_weights_place_is_refused(
    setting: dict[str, Any], folder: Path, text: Path
) -> None:
    with pytest.raises(UsageError, match="would take the place of weights of init_from"):
        cl.train(text, init_from=folder, **setting)


def test_the_run_goes_on_without_the_source_on_any_number_of_workers(
    tmp_path: Path, text: Path
) -> None:
    source = model_folder(tmp_path / "model")
    settings = QUICK | {"init_from": source, "dropout": 0.1}
    settings |= {"lr_schedule": "constant", "warmup_steps": 0}  # or the end would decide the rate
    whole = cl.train(text, **settings, max_steps=8, checkpoint_dir=tmp_path / "whole")
    part = cl.train(
        text, **settings | {"workers": 1}, max_steps=4, checkpoint_dir=tmp_path / "part"
    )
    shutil.rmtree(source)
    assert cl.resume(part, max_steps=8, workers=3).weights_sha256 == whole.weights_sha256
    assert open_source(part.path).facts.chat_template == TEMPLATE
    with pytest.raises(CheckpointError, match=r"model"):
        cl.train(text, **settings)


def test_its_own_settings_file_begins_the_same_run(
    folder: Path, tmp_path: Path, text: Path
) -> None:
    first = cl.train(text, init_from=folder, **QUICK, max_steps=3, checkpoint_dir=tmp_path / "a")
    again = cl.train(config=first.path / "config.toml", checkpoint_dir=tmp_path / "b")
    assert again.weights_sha256 == first.weights_sha256


def test_crystalline_attention_begins_at_zero_also_in_a_padded_vocabulary(
    folder: Path, tmp_path: Path, text: Path
) -> None:
    crystal = {"attention": "crystalline", "crystalline_epsilon": 0.1}
    run = cl.train(
        text, init_from=folder, **STILL, **crystal, freeze_lambda=True,
        checkpoint_dir=tmp_path / "run",
    )  # fmt: skip
    source = open_source(run.path)
    table = parameter_table(source.config)
    lambdas = table.find(Role.LAMBDA, 0)
    assert source.config.attention == "crystalline"
    assert lambdas is not None
    assert not table.views(source.flat())[lambdas.name].any()
    # A model that has them keeps them, and the numbers that they were learned with.
    second = cl.train(text, init_from=run, **STILL, **crystal, checkpoint_dir=tmp_path / "second")
    assert (second.latest / "crystal.json").read_bytes() == source.crystal_path.read_bytes()
    with pytest.raises(UsageError, match="attention standard contradicts"):
        cl.train(text, init_from=run, attention="standard")


def test_talks_in_the_models_template_are_taken_up_again_without_it(
    tmp_path: Path,
) -> None:
    source = model_folder(tmp_path / "model")
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world dogs"}]
    path = tmp_path / "talks.jsonl"
    path.write_text((json.dumps({"chat": turns}) + "\n") * 30)
    settings = QUICK | {"text_field": "chat", "lr_schedule": "constant", "warmup_steps": 0}
    run = cl.train(path, init_from=source, **settings, max_steps=2, checkpoint_dir=tmp_path / "run")
    shutil.rmtree(source)
    again = cl.resume(run, max_steps=3)
    assert again.step == 3
    tokens = max(line.get("tokens", 0) for line in again.metrics)
    assert 0 < tokens < 3 * 13 * 16  # those of the turns alone
    assert open_source(again.path).facts.chat_template == TEMPLATE
