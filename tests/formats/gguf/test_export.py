"""Writing and reading models: tensors, formats, order of rows, damage, and nothing half done."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.errors import CheckpointError, SaveError, UsageError
from crystalline.formats.gguf import read_gguf, write_gguf
from crystalline.formats.gguf.blocks import WRITABLE
from crystalline.formats.gguf.container import Container
from crystalline.model.params import parameter_table
from tests.formats.gguf.models import SHAPES, config_of, saved, tensors_of, trained


@pytest.mark.parametrize("shape", SHAPES)
def test_tensors_come_back(tmp_path: Path, shape: str) -> None:
    config = config_of(shape)
    tensors = tensors_of(config)
    path = tmp_path / "model.gguf"
    write_gguf(path, config, tensors.items(), tokenizer=trained("byte", tmp_path))
    model = read_gguf(path)
    assert model.names() == tuple(tensors)
    for name, tensor in model.tensors():
        assert np.array_equal(tensor, tensors[name]), name
    table = parameter_table(model.config)  # and fill a buffer of the shape that was read
    flat = np.zeros(table.size, np.float32)
    for name, view in table.file_views(flat).items():
        view[...] = model.tensor(name)
    assert all(np.array_equal(v, tensors[n]) for n, v in table.file_views(flat).items())


def test_names_and_rows_are_those_of_llama_cpp(tmp_path: Path) -> None:
    """Written from llama.cpp's converter: names, [outputs, inputs], rows of q and k in pairs."""
    config = config_of("llama, untied")
    tensors = tensors_of(config)
    path = tmp_path / "model.gguf"
    write_gguf(path, config, tensors.items(), tokenizer=trained("byte", tmp_path))
    container = Container(path)

    def stored(name: str) -> np.ndarray:
        info = container.tensors[name]
        return info.kind.dequantize(container.rows(info)).reshape(info.shape)

    block = "model.layers.1."
    query = tensors[block + "self_attn.q_proj.weight"]  # 4 heads of 24 rows
    found = stored("blk.1.attn_q.weight")
    for head in range(4):
        for pair in range(12):
            for half in (0, 1):
                row = found[24 * head + 2 * pair + half]
                assert np.array_equal(row, query[24 * head + 12 * half + pair])
    key = tensors[block + "self_attn.k_proj.weight"]  # 1 head
    assert np.array_equal(stored("blk.1.attn_k.weight")[[0, 1, 2]], key[[0, 12, 1]])
    for ours, theirs in {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_v.weight": block + "self_attn.v_proj.weight",
        "blk.1.attn_output.weight": block + "self_attn.o_proj.weight",
        "blk.1.attn_norm.weight": block + "input_layernorm.weight",
        "blk.1.ffn_norm.weight": block + "post_attention_layernorm.weight",
        "blk.1.ffn_gate.weight": block + "mlp.gate_proj.weight",
        "blk.1.ffn_up.weight": block + "mlp.up_proj.weight",
        "blk.1.ffn_down.weight": block + "mlp.down_proj.weight",
    }.items():
        assert np.array_equal(stored(ours), tensors[theirs]), ours


def test_layers_of_gpt2_are_turned_and_rows_of_qwen3_stay(tmp_path: Path) -> None:
    tokenizer = trained("byte", tmp_path)
    attention = "model.layers.0.self_attn."
    for shape, name, expected in (
        ("gpt2", "blk.0.attn_qkv.weight", lambda t: t["transformer.h.0.attn.c_attn.weight"].T),
        ("gpt2", "blk.0.ffn_down.weight", lambda t: t["transformer.h.0.mlp.c_proj.weight"].T),
        ("gpt2", "position_embd.weight", lambda t: t["transformer.wpe.weight"]),
        ("gpt2", "blk.0.attn_qkv.bias", lambda t: t["transformer.h.0.attn.c_attn.bias"]),
        ("qwen3", "blk.0.attn_q.weight", lambda t: t[attention + "q_proj.weight"]),
        ("qwen3", "blk.0.attn_q_norm.weight", lambda t: t[attention + "q_norm.weight"]),
    ):  # fmt: skip
        config = config_of(shape)
        tensors = tensors_of(config)
        path = tmp_path / "model.gguf"
        write_gguf(path, config, tensors.items(), tokenizer=tokenizer)
        container = Container(path)
        info = container.tensors[name]
        found = info.kind.dequantize(container.rows(info)).reshape(info.shape)
        assert np.array_equal(found, expected(tensors)), name


@pytest.mark.parametrize("kind", WRITABLE)
@pytest.mark.parametrize("shape", ["gpt2", "llama, untied", "llama", "gpt2, odd"])
def test_formats_follow_one_rule(tmp_path: Path, shape: str, kind: Any) -> None:
    config = config_of(shape)
    tensors = tensors_of(config)
    path = tmp_path / "model.gguf"
    told = write_gguf(path, config, tensors.items(), tokenizer=trained("byte", tmp_path), type=kind)
    model = read_gguf(path)
    head = "model.embed_tokens.weight" if shape == "llama" else "lm_head.weight"
    head = "transformer.wte.weight" if config.architecture == "gpt2" else head
    for name in model.names():
        found = model.kind(name).name
        tensor = model.tensor(name)
        blocks = model.blocks(name)
        whole = tensors[name].shape[::-1] if blocks.rows.shape[0] != len(tensor) else tensor.shape
        quantized = kind in ("q8_0", "q4_0")
        if tensor.ndim == 1 or "wpe" in name:
            assert found == "f32"
        elif quantized and whole[-1] % 32:
            assert found == "f16"
        elif kind == "q4_0" and name == head:
            assert found == "q8_0"
        else:
            assert found == kind
        # The blocks are the tensor's, in rows of Hugging Face's order, never turned.
        values = blocks.kind.dequantize(blocks.rows)
        assert np.array_equal(values if tensor.ndim > 1 else values[0], tensor) or np.array_equal(
            values, tensor.T
        )
        step = {"f32": 0, "f16": 0.002, "bf16": 0.01, "q8_0": 0.02, "q4_0": 0.6}[found]
        assert np.abs(tensor - tensors[name]).max() <= step, name
    assert set(told.values()) >= {"f32"}
    assert told == {info.name: info.kind.name for info in Container(path).tensors.values()}


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = saved(tmp_path, "llama, llama3", type="q8_0", name="A name", chat_template="{{x}}")
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.name").contents() == "A name"
    assert reader.get_field("tokenizer.chat_template").contents() == "{{x}}"
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    model = read_gguf(path)
    config = config_of("llama, llama3")
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    assert "rope_freqs.weight" in by_name
    embeddings = by_name["token_embd.weight"]
    values = gguf.quants.dequantize(embeddings.data, embeddings.tensor_type)
    assert np.array_equal(values, model.tensor("model.embed_tokens.weight"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    for name in model.names():
        base, _, suffix = name.rpartition(".")
        assert f"{names.get_name(base)}.{suffix}" in by_name


def test_tensors_may_come_in_any_order_and_as_views(tmp_path: Path) -> None:
    config = config_of("qwen3")
    tensors = tensors_of(config)
    tokenizer = trained("byte", tmp_path)
    one, other = tmp_path / "a.gguf", tmp_path / "b.gguf"
    seen: list[tuple[int, int]] = []
    write_gguf(one, config, tensors.items(), tokenizer=tokenizer, type="q4_0")
    tokenizer_content = tokenizer.read_bytes()
    turned = {name: np.asfortranarray(tensor) for name, tensor in reversed(tensors.items())}
    write_gguf(
        other, config, turned.items(), tokenizer=tokenizer_content, type="q4_0",
        progress=lambda *both: seen.append(both),
    )  # fmt: skip
    assert one.read_bytes() == other.read_bytes()
    assert len(seen) == len(tensors)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {one.stat().st_size}


def test_old_heads_that_repeat_the_embeddings_are_passed_over(tmp_path: Path) -> None:
    """Converters of old wrote GPT-2's twice."""
    gguf = pytest.importorskip("gguf")
    path = saved(tmp_path, "gpt2")
    reader = gguf.GGUFReader(path)
    for factor in (1.0, 2.0):
        again = tmp_path / "again.gguf"
        writer = gguf.GGUFWriter(again, "gpt2")
        for key, field in reader.fields.items():
            if not key.startswith(("GGUF.", "general.architecture")):
                sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], sub)
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, tensor.data)
            if tensor.name == "token_embd.weight":
                writer.add_tensor("output.weight", factor * tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if factor == 1.0:
            assert read_gguf(again).config == read_gguf(path).config
        else:
            with pytest.raises(
                CheckpointError, match=r"tensor 'output\.weight', which is not known"
            ):
                read_gguf(again)


# --- what goes wrong ------------------------------------------------------------------------------


def test_wrong_tensors_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    config = config_of("llama")
    tensors = tensors_of(config)
    tokenizer = trained("byte", tmp_path)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"precious")
    for wrong, words in (
        (list(tensors.items())[1:], "is missing"),
        ([*tensors.items(), ("more", np.zeros(3))], "is not one of"),
        ([*tensors.items(), *tensors.items()], "is not one of"),
        ([(name, tensor[..., :-1]) for name, tensor in tensors.items()], "is not one of"),
    ):
        with pytest.raises(ValueError, match=words):
            write_gguf(path, config, wrong, tokenizer=tokenizer)
    assert path.read_bytes() == b"precious"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["byte.json", "model.gguf"]


def test_numbers_beyond_a_format_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    config = config_of("llama")
    tensors = tensors_of(config)
    tokenizer = trained("byte", tmp_path)
    big = {name: tensor * 1e6 for name, tensor in tensors.items()}
    with pytest.raises(UsageError, match=r"token_embd\.weight cannot be written as f16.*bf16"):
        write_gguf(tmp_path / "m.gguf", config, big.items(), tokenizer=tokenizer, type="f16")
    with pytest.raises(UsageError, match="the type 'q4_K' cannot be written"):
        write_gguf(tmp_path / "m.gguf", config, big.items(), tokenizer=tokenizer, type="q4_K")  # type: ignore[arg-type]
    assert not (tmp_path / "m.gguf").exists()


def test_full_disks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = config_of("llama")
    tokenizer = trained("byte", tmp_path)
    path = tmp_path / "model.gguf"
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SaveError, match=r"cannot be written \(No space left.*Free some space"):
        write_gguf(path, config, tensors_of(config).items(), tokenizer=tokenizer)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["byte.json"]


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    config = config_of("llama")
    with pytest.raises(SaveError, match="cannot be written"):
        write_gguf(
            tmp_path / "no" / "m.gguf", config, tensors_of(config).items(),
            tokenizer=trained("byte", tmp_path),
        )  # fmt: skip


@pytest.mark.parametrize("kind", WRITABLE)
def test_numbers_that_are_not_finite_are_found(tmp_path: Path, kind: Any) -> None:
    path = saved(tmp_path, type=kind)
    info = Container(path).tensors["blk.0.ffn_up.weight"]
    data = bytearray(path.read_bytes())
    data[info.start : info.start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    model = read_gguf(path)
    with pytest.raises(CheckpointError, match=r"'blk\.0\.ffn_up\.weight' in .* is not finite"):
        model.tensor("model.layers.0.mlp.up_proj.weight")


def test_no_file_and_no_model_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="a folder, not a file"):
        read_gguf(tmp_path)
    (tmp_path / "text.gguf").write_text("Hello, I am no model at all.")
    with pytest.raises(CheckpointError, match="not a GGUF file"):
        read_gguf(tmp_path / "text.gguf")
