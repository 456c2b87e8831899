"""Models made in transformers and read here, and made here and opened there: sizes and tensors.

transformers is the oracle; without it (the extra `compat`) nothing of this is tested.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.formats import checkpoint as cp
from crystalline.formats.config_json import canonical
from crystalline.formats.folder import save_model_folder
from crystalline.formats.tokenizer_config import read_facts
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.model.params import parameter_table
from tests.data.foreign import MAKERS, document, special, texts
from tests.formats.checkpoints import flats, save

LINEAR = RopeScaling("linear", 2.0)
LLAMA3 = RopeScaling("llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = RopeScaling("yarn", 4.0, 16, beta_fast=16.0, beta_slow=2.0)
YARN_FACTOR = RopeScaling("yarn", 4.0, 16, attention_factor=1.5)
LLAMA = ModelConfig(320, 64, 2, 4, 24, architecture="llama", num_kv_heads=2, mlp_dim=40)
CONFIGS = {
    "gpt2": ModelConfig(320, 64, 2, 4, 24),
    "gpt2 wide": ModelConfig(320, 64, 2, 4, 24, mlp_dim=40, norm_epsilon=1e-6),
    "llama": LLAMA,
    "llama untied": replace(LLAMA, tie_embeddings=False, num_kv_heads=0),
    "llama heads": replace(LLAMA, head_size=8, num_kv_heads=1, rope_theta=5e5, norm_epsilon=1e-6),
    "llama window": replace(LLAMA, sliding_window=3),
    "llama linear": replace(LLAMA, rope_scaling=LINEAR),
    "llama llama3": replace(LLAMA, rope_scaling=LLAMA3),
    "llama yarn": replace(LLAMA, rope_scaling=YARN),
    "qwen3": replace(LLAMA, architecture="qwen3", head_size=16),
    "qwen3 untied": replace(LLAMA, architecture="qwen3", tie_embeddings=False, rope_theta=1e4),
    "qwen3 window": replace(LLAMA, architecture="qwen3", sliding_window=3),
    "qwen3 yarn": replace(LLAMA, architecture="qwen3", rope_scaling=YARN_FACTOR),
}


def their_config(hub: Any, config: ModelConfig) -> Any:
    """The same model in the words of transformers' own classes."""
    if config.architecture == "gpt2":
        return hub.GPT2Config(
            vocab_size=320, n_positions=64, n_embd=24, n_layer=2, n_head=4,
            n_inner=config.mlp_dim or None, layer_norm_epsilon=config.epsilon,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=3, eos_token_id=3,
        )  # fmt: skip
    name = "Mistral" if config.architecture == "llama" and config.sliding_window else ""
    name = name or config.architecture.capitalize()
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.theta}
    if scaling := config.rope_scaling:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            rope |= {"original_max_position_embeddings": scaling.original_seq_len}
        if scaling.kind == "llama3":
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        if scaling.kind == "yarn":
            rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor:
            rope |= {"attention_factor": scaling.attention_factor}
    window: dict[str, Any] = {}
    if config.sliding_window:
        window = {"sliding_window": config.sliding_window}
        if name == "Qwen3":
            window |= {"use_sliding_window": True, "max_window_layers": 0}
    return getattr(hub, f"{name}Config")(
        vocab_size=320, max_position_embeddings=64, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=config.kv_heads, head_dim=config.head_dim,
        intermediate_size=config.mlp_width, rms_norm_eps=config.epsilon, rope_parameters=rope,
        tie_word_embeddings=config.is_tied, bos_token_id=3, eos_token_id=[3, 4], **window,
    )  # fmt: skip


def their_model(hub: Any, config: ModelConfig, seed: int = 1) -> Any:
    import torch

    torch.manual_seed(seed)
    model = hub.AutoModelForCausalLM.from_config(their_config(hub, config)).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0.0, 0.3)
    return model


def require_same(config: ModelConfig, weights: np.ndarray, state: Any) -> None:
    """Raise unless every tensor of a torch model is the one of a flat buffer."""
    views = parameter_table(config).file_views(weights)
    missing = set(views)
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.is_tied:
            name = "transformer.wte.weight" if config.architecture == "gpt2" else (
                "model.embed_tokens.weight"
            )  # fmt: skip
        assert np.array_equal(views[name], tensor.float().numpy()), name
        missing.discard(name)
    assert not missing


def finish(folder: Path) -> None:
    """Put a tokenizer beside a model that transformers saved."""
    Tokenizer.train("byte", [], 0).save(folder / "tokenizer.json")


@pytest.mark.parametrize("saved", ["float32", "bfloat16", "float16", "sharded", "base"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_saved_is_read(hub: Any, name: str, saved: str, tmp_path: Path) -> None:
    import torch

    config = CONFIGS[name]
    model = their_model(hub, config)
    if saved in ("bfloat16", "float16"):
        model = model.to(getattr(torch, saved))
    if saved == "base":
        if Role.HEAD in config.row.tensors and not config.is_tied:
            pytest.skip("it has no head")
        model.base_model.save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path, max_shard_size=20_000 if saved == "sharded" else "5GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (saved == "sharded")
    finish(tmp_path)
    loaded = cp.load_model(tmp_path)
    assert loaded.config == canonical(config)
    require_same(config, loaded.weights, model.state_dict())
    assert loaded.facts.end_ids == ((3,) if config.architecture == "gpt2" else (3, 4))


@pytest.mark.parametrize("kind", ["checkpoint", "f32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_written_here_opens_there(hub: Any, name: str, kind: Any, tmp_path: Path) -> None:
    config = CONFIGS[name]
    weights, m, v = flats(3, config)
    tokenizer = Tokenizer.train("byte", [], 0).to_json().encode()
    (tmp_path / "tokenizer.json").write_bytes(tokenizer)
    if kind == "checkpoint":
        path = save(
            tmp_path / "run", 1, model_config=config, weights=weights, moments=(m, v),
            tokenizer_path=tmp_path / "tokenizer.json",
        )  # fmt: skip
    else:
        path = tmp_path / "model"
        views = parameter_table(config).file_views(weights)
        save_model_folder(path, config, views, tokenizer, type=kind)
    model, report = hub.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    written = cp.load_model(path).weights
    assert kind == "bf16" or written.tobytes() == weights.tobytes()
    require_same(config, written, model.state_dict())
    assert str(model.dtype) == ("torch.bfloat16" if kind == "bf16" else "torch.float32")
    ours, theirs = model.config.to_dict(), their_config(hub, config).to_dict()
    for key, value in theirs.items():
        ignored = ("dtype", "architectures", "_name_or_path", "transformers_version")
        if key not in (*ignored, "bos_token_id", "eos_token_id", "pad_token_id"):
            assert ours[key] == value, key
    assert model.generation_config.eos_token_id == 256


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(hub: Any, name: str, tmp_path: Path) -> None:
    import torch

    from crystalline.infer.loading import open_model

    config = CONFIGS[name]
    model = their_model(hub, config)
    model.save_pretrained(tmp_path)
    finish(tmp_path)
    ids = np.random.default_rng(5).integers(0, 257, 60)
    with torch.no_grad():
        expected = model.double()(torch.tensor(ids[None])).logits[0].numpy()
    decoder = open_model(tmp_path, precision="float32", cache="float32").decoder
    largest = np.abs(expected).max()
    for end in (1, 2, 7, 33, 60):
        decoder.truncate(0, 0)
        found = decoder.extend([0], [ids[:end].astype(np.int32)])[0]
        assert np.abs(found - expected[end - 1]).max() <= 1e-4 * largest, end


# --- tokenizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_ids_are_those_of_transformers(hub: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(document(name), "utf-8")
    told = special(name) | {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told), "utf-8")
    auto = hub.AutoTokenizer.from_pretrained(tmp_path)
    again = tmp_path / "again"
    auto.save_pretrained(again)
    for folder in (tmp_path, again):
        facts = read_facts(folder)
        own = Tokenizer.load(folder / "tokenizer.json", facts)
        assert own.chat_template == auto.chat_template == told["chat_template"]
        assert own.special == special(name)
        assert auto.eos_token_id in own.end_ids
        for text in texts():
            assert own.encode(text).tolist() == auto(text, add_special_tokens=False)["input_ids"]
            assert own.encode_prompt(text).tolist() == auto(text)["input_ids"], repr(text)


def test_a_chat_template_and_tokens_go_with_a_folder(hub: Any, tmp_path: Path) -> None:
    config = replace(LLAMA, vocab_size=430)
    facts = TokenizerFacts(
        (417, 418, 419), special("llama3"), "{{ bos_token }}{{ messages|length }}"
    )
    views = parameter_table(config).file_views(flats(1, config)[0])
    save_model_folder(tmp_path / "m", config, views, document("llama3").encode(), facts)
    auto = hub.AutoTokenizer.from_pretrained(tmp_path / "m")
    made = auto.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert made == "<|begin_of_text|>1"
    assert (auto.bos_token, auto.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
    model = hub.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.generation_config.eos_token_id == [417, 418, 419]
    assert model.generation_config.bos_token_id == auto.bos_token_id
