"""Folders of llama and qwen3: names and shapes of others, shards, lazy reading, writing anew."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.errors import CheckpointError, SaveError
from crystalline.formats import checkpoint as cp
from crystalline.formats import folder as folder_module
from crystalline.formats.folder import NamedTensors, save_model_folder
from crystalline.formats.tensors import ModelFiles
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.model.params import parameter_table
from tests.formats.checkpoints import flats, names, save

LLAMA = ModelConfig(
    13, 16, 2, 4, 24, architecture="llama", num_kv_heads=2, head_size=10, mlp_dim=21,
    rope_scaling=RopeScaling("linear", 2.0),
)  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "untied": replace(LLAMA, tie_embeddings=False),
    "qwen3": replace(LLAMA, architecture="qwen3", num_kv_heads=1),
    "crystalline": replace(LLAMA, attention="crystalline"),
}
LAYER = {
    "input_layernorm.weight": (24,), "post_attention_layernorm.weight": (24,),
    "self_attn.q_proj.weight": (40, 24), "self_attn.k_proj.weight": (20, 24),
    "self_attn.v_proj.weight": (20, 24), "self_attn.o_proj.weight": (24, 40),
    "mlp.gate_proj.weight": (21, 24), "mlp.up_proj.weight": (21, 24),
    "mlp.down_proj.weight": (24, 21),
}  # fmt: skip


def checkpoint(run: Path, config: ModelConfig, **options: Any) -> Path:
    weights, m, v = flats(4, config)
    return save(run, 4, model_config=config, weights=weights, moments=(m, v), **options)


def foreign(place: Path, config: ModelConfig = LLAMA, edit: Any = None, **changes: Any) -> Path:
    """A folder as other programs write it; `edit` changes its tensors, `changes` its config."""
    source = checkpoint(place / "run", config)
    model = place / "model"
    model.mkdir()
    tensors = load_file(source / cp.MODEL)
    if edit:
        edit(tensors)
    save_file(tensors, model / cp.MODEL)
    document = json.loads((source / cp.CONFIG).read_text()) | changes
    (model / cp.CONFIG).write_text(json.dumps(document))
    shutil.copy(source / cp.TOKENIZER, model / cp.TOKENIZER)
    return model


def shard(model: Path, count: int = 3) -> dict[str, str]:
    """Put the tensors of a folder into several files; return where each went."""
    tensors = load_file(model / cp.MODEL)
    (model / cp.MODEL).unlink()
    places = {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[number::count]}
        save_file(part, model / name)
        places |= dict.fromkeys(part, name)
    write_index(model, places)
    return places


def write_index(model: Path, places: Any) -> None:
    index = {"metadata": {"total_size": 7}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_comes_back(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    path = checkpoint(tmp_path / "run", config)
    weights, m, v = flats(4, config)
    loaded = cp.load_checkpoint(path)
    assert loaded.model_config == config
    assert loaded.weights.tobytes() == weights.tobytes()
    assert loaded.m.tobytes() == m.tobytes()
    assert loaded.v.tobytes() == v.tobytes()
    assert cp.load_model(path).weights.tobytes() == weights.tobytes()


def test_a_shape_that_was_spelled_out_comes_back_as_the_rule(tmp_path: Path) -> None:
    spelled = ModelConfig(13, 16, 1, 4, 24, architecture="llama", num_kv_heads=4, mlp_dim=64)
    info = cp.inspect_checkpoint(checkpoint(tmp_path / "run", spelled))
    assert info.model_config == ModelConfig(13, 16, 1, 4, 24, architecture="llama")


@pytest.mark.parametrize("name", ["llama", "untied", "qwen3"])
def test_files_have_the_names_and_values_of_others(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    tensors = load_file(checkpoint(tmp_path / "run", config) / cp.MODEL)
    expected = {"model.embed_tokens.weight": (13, 24), "model.norm.weight": (24,)}
    kv = 10 * config.kv_heads
    layer = LAYER | {f"self_attn.{one}_proj.weight": (kv, 24) for one in "kv"}
    if name == "qwen3":
        layer |= {"self_attn.q_norm.weight": (10,), "self_attn.k_norm.weight": (10,)}
    if name == "untied":
        expected |= {"lm_head.weight": (13, 24)}
    expected |= {f"model.layers.{n}.{key}": shape for n in (0, 1) for key, shape in layer.items()}
    assert {key: tensor.shape for key, tensor in tensors.items()} == expected
    table = parameter_table(config)
    views = table.views(flats(4, config)[0])
    fused = views["model.layers.1.self_attn.qkv_proj.weight"]  # [24, 40 + 2 kv]
    parts = (fused[:, :40], fused[:, 40 : 40 + kv], fused[:, 40 + kv :])
    for one, part in zip("qkv", parts, strict=True):
        assert np.array_equal(tensors[f"model.layers.1.self_attn.{one}_proj.weight"], part.T)
    fused = views["model.layers.0.mlp.gate_up_proj.weight"]
    assert np.array_equal(tensors["model.layers.0.mlp.gate_proj.weight"], fused[:, :21].T)
    assert np.array_equal(tensors["model.layers.0.mlp.up_proj.weight"], fused[:, 21:].T)
    moments = load_file(tmp_path / "run/latest/optimizer.safetensors")
    assert "m.model.layers.0.mlp.gate_up_proj.weight" in moments


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "untied", "qwen3"])
@pytest.mark.parametrize("sharded", [False, True])
def test_tensors_are_read_one_by_one(tmp_path: Path, name: str, sharded: bool) -> None:
    config = CONFIGS[name]
    model = foreign(tmp_path, config)
    if sharded:
        shard(model)
    weights = flats(4, config)[0]
    assert cp.load_model(model).weights.tobytes() == weights.tobytes()
    about = cp.inspect_model(model)
    assert about.config == config
    views = parameter_table(config).views(weights)
    with about.open_weights() as files:
        for parameter in files.table.parameters:
            found = files.tensor(parameter)
            assert found.dtype == np.float32
            assert np.array_equal(found, views[parameter.name])
        rows = np.concatenate(list(files.blocks("model.embed_tokens.weight", 2, 9)))
        assert np.array_equal(rows, views["model.embed_tokens.weight"][2:9])


def test_a_model_is_never_whole_in_memory(tmp_path: Path) -> None:
    config = ModelConfig(500, 16, 8, 4, 256, architecture="llama")
    path = checkpoint(tmp_path / "run", config)
    table = parameter_table(config)
    with ModelFiles(path, config) as files:
        tracemalloc.start()
        for parameter in table.parameters:
            files.tensor(parameter)
        most_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    largest_bytes = 4 * max(parameter.size for parameter in table.parameters)
    assert 4 * table.size > 8 * largest_bytes
    assert most_bytes < 2.5 * largest_bytes


def _strip(tensors: dict) -> None:
    for name in [name for name in tensors if name.startswith("model.")]:
        tensors[name.removeprefix("model.")] = tensors.pop(name)


def _buffers(tensors: dict) -> None:
    for name in ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"):
        tensors[name] = np.zeros(5, np.float32)


def _same_head(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]


@pytest.mark.parametrize("edit", [_strip, _buffers, _same_head])
def test_what_others_leave_out_or_add(tmp_path: Path, edit: Any) -> None:
    loaded = cp.load_model(foreign(tmp_path, edit=edit))
    assert loaded.weights.tobytes() == flats(4, LLAMA)[0].tobytes()


def _drop(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


def _add(name: str, like: str) -> Any:
    return lambda tensors: tensors.update({name: tensors[like] + 1})


NORM = "model.norm.weight"
Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_drop(NORM), f"has no tensor '{NORM}'"),
        (_drop(Q), f"has no tensor '{Q}'"),
        (_add("model.layers.0.self_attn.q_proj.bias", NORM), "unknown tensor 'model.layers.0.self"),
        (_add("model.layers.2.input_layernorm.weight", NORM), "unknown tensor 'model.layers.2."),
        (_add("norm.weight", NORM), "'norm.weight' again"),
        (_add("lm_head.weight", "model.embed_tokens.weight"), "an output head of its own"),
        (_add("lm_head.weight", NORM), "an output head of its own"),
        (lambda t: t.update({Q: t[Q].T.copy()}), r"has shape (24, 40), config.json asks for (40,"),
        (lambda t: t.update({Q: t[Q].astype(np.int32)}), "is of type I32"),
        (lambda t: t.update({Q: t[Q] * np.float32(np.nan)}), f"'{Q}' in "),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, edit: Any, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        cp.load_model(foreign(tmp_path, edit=edit))
    assert words in caught.value.message
    assert caught.value.advice


def test_a_head_of_its_own_is_taken_where_config_says_so(tmp_path: Path) -> None:
    edit = _add("lm_head.weight", "model.embed_tokens.weight")
    model = foreign(tmp_path, edit=edit)
    with pytest.raises(CheckpointError) as caught:
        cp.load_model(model)
    assert '"tie_word_embeddings" to false' in caught.value.advice
    document = json.loads((model / cp.CONFIG).read_text()) | {"tie_word_embeddings": False}
    (model / cp.CONFIG).write_text(json.dumps(document))
    loaded = cp.load_model(model)
    views = parameter_table(loaded.config).views(loaded.weights)
    assert not loaded.config.is_tied
    assert np.array_equal(views["lm_head.weight"], views["model.embed_tokens.weight"] + 1)


# --- shards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../model-00001-of-00003.safetensors", "'weight_map' is "),
        ("/etc/passwd", "'weight_map' is "),
        ("sub/x.safetensors", "'weight_map' is "),
        (".hidden.safetensors", "'weight_map' is "),
        ("x.bin", "'weight_map' is "),
        (7, "'weight_map' is "),
        ("model-00004-of-00003.safetensors", "has no model-00004-of-00003.safetensors, which"),
    ],
)
def test_an_index_may_name_files_beside_it_only(tmp_path: Path, name: Any, words: str) -> None:
    model = foreign(tmp_path)
    places = shard(model)
    write_index(model, places | {NORM: name})
    with pytest.raises(CheckpointError) as caught:
        cp.load_model(model)
    assert words in caught.value.message
    assert "model.safetensors.index.json" in caught.value.message


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    model = foreign(tmp_path)
    places = shard(model)
    first = model / places[Q]
    tensors = load_file(first)
    other = next(model / name for name in places.values() if model / name != first)
    save_file(load_file(other) | {Q: tensors[Q]}, other)
    with pytest.raises(CheckpointError, match=f"'{Q}' again"):
        cp.load_model(model)
    save_file({key: value for key, value in tensors.items() if key != Q}, first)
    assert cp.load_model(model).config == LLAMA  # it moved, and is there
    other.write_bytes(other.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=other.name):
        cp.load_model(model)


def test_one_file_goes_before_shards(tmp_path: Path) -> None:
    model = foreign(tmp_path)
    write_index(model, {NORM: "model-00001-of-00002.safetensors"})
    assert cp.load_model(model).config == LLAMA


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_not_read(tmp_path: Path, name: str) -> None:
    model = foreign(tmp_path)
    (model / cp.MODEL).rename(model / name)
    with pytest.raises(CheckpointError, match=f"in {name}, a program") as caught:
        cp.load_model(model)
    assert "safe_serialization=True" in caught.value.advice
    (model / name).unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        cp.load_model(model)


# --- writing --------------------------------------------------------------------------------------


def tokenizer_bytes() -> bytes:
    return Tokenizer.train("bpe", ["a b c"], 300).to_json().encode()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_a_folder_that_was_written_opens(tmp_path: Path, name: str, kind: Any) -> None:
    config = replace(CONFIGS[name], vocab_size=320)
    table = parameter_table(config)
    weights = flats(2, config)[0]
    path = tmp_path / "new" / "model"
    crystal = "{}" if name == "crystalline" else None
    save_model_folder(
        path, config, table.file_views(weights), tokenizer_bytes(), type=kind, crystal=crystal
    )
    expected = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert names(path) == (["config.json", "crystal.json", *expected[1:]] if crystal else expected)
    assert names(path.parent) == ["model"]
    loaded = cp.load_model(path)
    assert loaded.config == config
    if kind == "f32":
        assert loaded.weights.tobytes() == weights.tobytes()
    else:
        assert np.allclose(loaded.weights, weights, rtol=2**-8, atol=0)
    dtype = json.loads((path / cp.CONFIG).read_text())["torch_dtype"]
    assert dtype == ("float32" if kind == "f32" else "bfloat16")
    again = tmp_path / "again"
    with ModelFiles(path, config) as files:  # from one folder to another, tensor by tensor
        save_model_folder(
            again, config, NamedTensors(files.tensor, config), tokenizer_bytes(), type=kind
        )
    assert (again / cp.MODEL).read_bytes() == (path / cp.MODEL).read_bytes()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    views = parameter_table(LLAMA).file_views(flats(2, LLAMA)[0])
    path = tmp_path / "model"
    path.mkdir()
    empty = path.stat().st_ino
    save_model_folder(path, LLAMA, views, tokenizer_bytes())  # an empty folder is no model
    assert path.stat().st_ino != empty  # the whole folder took its place in one step
    before = {entry: entry.read_bytes() for entry in path.iterdir()}
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("model", "file", "link"):
        with pytest.raises(SaveError, match=f"{name} is there already"):
            save_model_folder(tmp_path / name, LLAMA, views, tokenizer_bytes())
    assert {entry: entry.read_bytes() for entry in path.iterdir()} == before
    assert names(tmp_path) == ["file", "link", "model"]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module, "write_tensors", full)
    views = parameter_table(LLAMA).file_views(flats(2, LLAMA)[0])
    with pytest.raises(SaveError, match=r"model \(No space left on device\)") as caught:
        save_model_folder(tmp_path / "model", LLAMA, views, tokenizer_bytes())
    assert caught.value.advice == "Free some space."
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="not the model's"):
        save_model_folder(tmp_path / "model", LLAMA, {}, tokenizer_bytes())


# --- what is told of the tokenizer ----------------------------------------------------------------

FACTS = TokenizerFacts((256, 3), {"bos_token": "a", "eos_token": "<|endoftext|>"}, "{{ bos }} é\n")


def test_facts_go_with_a_model(tmp_path: Path) -> None:
    config = replace(LLAMA, vocab_size=320)
    views = parameter_table(config).file_views(flats(2, config)[0])
    save_model_folder(tmp_path / "model", config, views, tokenizer_bytes(), FACTS)
    document = json.loads((tmp_path / "model" / cp.CONFIG).read_text())
    a = Tokenizer.train("bpe", ["a b c"], 300).encode("a")[0]
    assert (document["eos_token_id"], document["bos_token_id"]) == ([256, 3], a)
    about = cp.inspect_model(tmp_path / "model")
    assert about.facts == FACTS
    tokenizer = about.tokenizer()
    assert tokenizer.chat_template == "{{ bos }} é\n"
    assert tokenizer.special == FACTS.special
    assert tokenizer.end_ids == {256, 3}
    run = tmp_path / "run"
    weights, m, v = flats(2, config)
    path = save(
        run, 9, model_config=config, weights=weights, moments=(m, v), facts=FACTS,
        tokenizer_path=about.tokenizer_path,
    )  # fmt: skip
    assert cp.inspect_model(path).facts == FACTS


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        ({}, TokenizerFacts((0,))),
        ({"config.json": {"eos_token_id": None}}, TokenizerFacts()),
        ({"config.json": {"eos_token_id": [5, 6]}}, TokenizerFacts((5, 6))),
        (
            {"config.json": {"eos_token_id": 5}, "generation_config.json": {"eos_token_id": [7]}},
            TokenizerFacts((7,)),
        ),
        ({"generation_config.json": {"eos_token_id": [True, -1, "x", 8, 8]}}, TokenizerFacts((8,))),
        (
            {
                "tokenizer_config.json": {
                    "eos_token": {"content": "</s>", "lstrip": False},
                    "bos_token": "<s>", "pad_token": None, "unk_token": 7, "chat_template": "x",
                    "model_max_length": 10**30,
                }
            },
            TokenizerFacts((0,), {"eos_token": "</s>", "bos_token": "<s>"}, "x"),
        ),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [
                        {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"},
                    ]
                }
            },
            TokenizerFacts((0,), {}, "d"),
        ),
        (
            {"tokenizer_config.json": {"chat_template": "old"}, "chat_template.jinja": "new é\r\n"},
            TokenizerFacts((0,), {}, "new é\r\n"),
        ),
        ({"tokenizer_config.json": {"chat_template": [{"name": 7}]}}, TokenizerFacts((0,))),
    ],
)  # fmt: skip
def test_what_files_say_of_a_tokenizer(
    tmp_path: Path, files: dict[str, Any], facts: TokenizerFacts
) -> None:
    model = foreign(tmp_path, eos_token_id=0)
    for name, content in files.items():
        path = model / name
        if isinstance(content, dict):
            told = json.loads(path.read_text("utf-8")) if path.exists() else {}
            content = json.dumps(told | content)
        path.write_bytes(content.encode())
    assert cp.inspect_model(model).facts == facts
    assert cp.load_model(model).facts == facts


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
)
def test_broken_files_beside_a_tokenizer_are_named(tmp_path: Path, name: str) -> None:
    model = foreign(tmp_path)
    (model / name).write_bytes(b'{"a": "\xff')
    with pytest.raises(CheckpointError, match=name):
        cp.load_model(model)
