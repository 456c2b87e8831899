"""config.json of every architecture: round trips, transformers' defaults, what is refused."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from crystalline.errors import CheckpointError
from crystalline.formats.config_json import canonical, config_document, config_of, read_config
from crystalline.formats.documents import json_document
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.untrusted import BadContent
from crystalline.untrusted.files import MODEL_CONFIG
from tests.untrusted.hostile import forgeries

GPT2_TEXT = """{
  "architectures": [
    "GPT2LMHeadModel"
  ],
  "model_type": "gpt2",
  "vocab_size": 11,
  "n_positions": 5,
  "n_ctx": 5,
  "n_embd": 9,
  "n_layer": 2,
  "n_head": 3,
  "n_inner": null,
  "activation_function": "gelu_new",
  "layer_norm_epsilon": 1e-05,
  "resid_pdrop": 0.1,
  "embd_pdrop": 0.1,
  "attn_pdrop": 0.1,
  "initializer_range": 0.02,
  "tie_word_embeddings": true,
  "bos_token_id": 7,
  "eos_token_id": 7,
  "torch_dtype": "float32"
}
"""
YARN = RopeScaling("yarn", 4.0, 64, beta_fast=16.0, beta_slow=2.0, attention_factor=1.25)
LLAMA3 = RopeScaling("llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=4.0)
CONFIGS = {
    "gpt2": ModelConfig(11, 5, 2, 3, 9),
    "gpt2 wide": ModelConfig(11, 5, 2, 3, 9, mlp_dim=20, norm_epsilon=1e-6, dropout=0.5),
    "llama": ModelConfig(11, 16, 2, 4, 24, architecture="llama", num_kv_heads=2, mlp_dim=40),
    "llama untied": ModelConfig(
        11, 16, 2, 4, 24, architecture="llama", tie_embeddings=False, norm_epsilon=1e-6
    ),
    "llama heads": ModelConfig(
        11, 16, 2, 3, 20, architecture="llama", head_size=8, mlp_dim=7, rope_theta=5e5, dropout=0.2
    ),
    "llama window": ModelConfig(11, 16, 2, 4, 24, architecture="llama", sliding_window=5),
    "linear": ModelConfig(
        11, 16, 2, 4, 24, architecture="llama", rope_scaling=RopeScaling("linear", 2.0)
    ),
    "llama3": ModelConfig(11, 256, 2, 4, 24, architecture="llama", rope_scaling=LLAMA3),
    "yarn": ModelConfig(11, 256, 2, 4, 24, architecture="qwen3", rope_scaling=YARN),
    "qwen3": ModelConfig(11, 16, 2, 4, 24, architecture="qwen3", num_kv_heads=1, head_size=16),
    "qwen3 window": ModelConfig(11, 16, 2, 4, 24, architecture="qwen3", sliding_window=5),
}


def told(config: ModelConfig, **options: Any) -> dict[str, Any]:
    """What a reader finds in the file."""
    document: dict[str, Any] = json.loads(json_document(config_document(config, **options)))
    return document


def read(folder: Path, document: dict[str, Any]) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(document), "utf-8")
    return read_config(folder)


def test_gpt2_is_written_as_ever() -> None:
    config = ModelConfig(11, 5, 2, 3, 9, dropout=0.1)
    assert json_document(config_document(config, (7,))) == GPT2_TEXT


@pytest.mark.parametrize("attention", ["standard", "crystalline"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read(tmp_path: Path, name: str, attention: Any) -> None:
    from dataclasses import replace

    config = replace(CONFIGS[name], attention=attention)
    document = told(config, ends=(3, 4), begin=1)
    assert read(tmp_path, document) == canonical(config)
    plain = told(CONFIGS[name])
    if attention == "crystalline":
        assert document["model_type"] == "crystalline-" + plain["model_type"]
        assert document["architectures"] == ["Crystalline" + plain["architectures"][0]]
    assert (document["bos_token_id"], document["eos_token_id"]) == (1, [3, 4])
    assert document["tie_word_embeddings"] is config.is_tied


def test_other_programs_find_numbers_where_ours_says_the_rule() -> None:
    llama = told(CONFIGS["llama"])
    sizes = ("num_key_value_heads", "head_dim", "intermediate_size", "rms_norm_eps", "rope_theta")
    assert [llama[key] for key in sizes] == [2, 6, 40, 1e-5, 10000.0]
    assert (llama["model_type"], llama["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert llama["rope_scaling"] is None
    qwen3 = told(CONFIGS["qwen3"])
    assert [qwen3[key] for key in sizes] == [1, 16, 64, 1e-6, 1e6]
    assert qwen3["use_sliding_window"] is False
    assert "sliding_window" not in qwen3
    scaled = told(CONFIGS["yarn"])["rope_scaling"]
    assert scaled == {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.25,
    }  # fmt: skip


def test_a_window_of_llama_is_mistral_to_others() -> None:
    """transformers' Llama would pass over it and see everything."""
    document = told(CONFIGS["llama window"])
    assert (document["model_type"], document["sliding_window"]) == ("mistral", 5)
    assert document["architectures"] == ["MistralForCausalLM"]
    qwen3 = told(CONFIGS["qwen3 window"])
    keys = ("model_type", "use_sliding_window", "sliding_window", "max_window_layers")
    assert [qwen3[key] for key in keys] == ["qwen3", True, 5, 0]


def test_canonical_says_no_more_than_the_rule() -> None:
    spelled = ModelConfig(
        11, 16, 2, 4, 24, architecture="llama", num_kv_heads=4, head_size=6, mlp_dim=64,
        norm_epsilon=1e-5, rope_theta=1e4, tie_embeddings=True,
        rope_scaling=RopeScaling("linear", 2.0, original_seq_len=9, beta_fast=3.0),
    )  # fmt: skip
    bare = ModelConfig(
        11, 16, 2, 4, 24, architecture="llama", rope_scaling=RopeScaling("linear", 2.0)
    )
    assert canonical(spelled) == bare == canonical(bare)
    assert (spelled.mlp_width, spelled.head_dim) == (bare.mlp_width, bare.head_dim)


# --- reading as transformers does -----------------------------------------------------------------

LEAST = {
    "model_type": "llama", "vocab_size": 50, "hidden_size": 256, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def test_keys_that_are_not_there_mean_what_they_mean_in_transformers() -> None:
    llama = config_of(LEAST, Path())
    facts = (llama.kv_heads, llama.head_dim, llama.epsilon, llama.theta, llama.is_tied)
    assert facts == (4, 64, 1e-6, 1e4, False)
    qwen3 = config_of(LEAST | {"model_type": "qwen3", "num_attention_heads": 32}, Path())
    facts = (qwen3.kv_heads, qwen3.head_dim, qwen3.epsilon, qwen3.theta, qwen3.is_tied)
    assert facts == (32, 128, 1e-6, 1e4, False)
    nulls = {"num_key_value_heads": None, "head_dim": None, "rope_scaling": None}
    assert config_of(LEAST | nulls, Path()) == llama
    assert not config_of(LEAST | {"tie_word_embeddings": None}, Path()).is_tied
    mistral = config_of(LEAST | {"model_type": "mistral", "num_attention_heads": 16}, Path())
    assert (mistral.architecture, mistral.kv_heads, mistral.sliding_window) == ("llama", 8, 4096)
    none = {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": None}
    assert config_of(LEAST | none, Path()) == llama


SCALED = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("changes", "theta", "scaling"),
    [
        ({"rope_theta": 5e5}, 5e5, None),
        ({"rope_theta": 500000}, 5e5, None),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, 7.0, None),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 9.0}, 9.0, None),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 1e4, RopeScaling("linear", 2.0)),
        (
            {"rope_scaling": SCALED | ORIGINAL | {"rope_type": "llama3"}, "rope_theta": 5e5},
            5e5,
            RopeScaling("llama3", 8.0, 32),
        ),
        (
            {"rope_parameters": SCALED | ORIGINAL | {"rope_type": "llama3", "rope_theta": 5e5}},
            5e5,
            RopeScaling("llama3", 8.0, 32),
        ),
        # rope_scaling goes first, and the context stands for an original one that is not said.
        (
            {
                "rope_scaling": {"rope_type": "yarn", "type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "default", "rope_theta": 3.0},
            },
            1e4,
            RopeScaling("yarn", 2.0, 64),
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": None} | ORIGINAL},
            1e4,
            RopeScaling("yarn", 2.0, 32),
        ),
        (
            {
                "rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 16, "beta_slow": None}
                | ORIGINAL
                | {"truncate": True, "attention_factor": 1.5}
            },
            1e4,
            RopeScaling("yarn", 2.0, 32, beta_fast=16.0, attention_factor=1.5),
        ),
    ],
)  # fmt: skip
def test_rotary_positions(changes: Any, theta: float, scaling: RopeScaling | None) -> None:
    config = config_of(LEAST | changes, Path())
    assert (config.theta, config.rope_scaling) == (theta, scaling)


def test_the_two_scales_of_yarn_become_its_factor() -> None:
    rope = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5} | ORIGINAL
    found = config_of(LEAST | {"rope_scaling": rope}, Path()).rope_scaling
    assert found is not None
    assert found.attention_factor == pytest.approx(1.3688879 / 1.1844440, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"use_sliding_window": False, "sliding_window": 7}, 0),
        ({"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}, 7),
        ({"use_sliding_window": True, "max_window_layers": 0}, 4096),
        ({"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}, 0),
        ({"use_sliding_window": True, "sliding_window": 7}, 0),  # from layer 28 on
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 1}, 0),
        ({"sliding_window": 7, "layer_types": ["full_attention"] * 2}, 0),
        ({"sliding_window": 7, "layer_types": ["sliding_attention"] * 2}, 7),
        ({"sliding_window": None, "layer_types": None}, 0),
    ],
)
def test_windows_of_qwen3(changes: dict[str, Any], window: int) -> None:
    config = config_of(LEAST | {"model_type": "qwen3", "num_attention_heads": 32} | changes, Path())
    assert config.sliding_window == window


QWEN3 = {"model_type": "qwen3", "num_attention_heads": 32}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen2"}, "model_type = qwen2, which is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"qkv_bias": True}, "qkv_bias = True"),
        ({"use_qk_norm": True}, "use_qk_norm = True"),
        (QWEN3 | {"use_qk_norm": False}, "use_qk_norm = False"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "= 0.25"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ({"residual_multiplier": 0.22}, "residual_multiplier = 0.22"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.rope_type = dynamic"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling.rope_type = longrope"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling has no 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "in rope_scaling, 'factor' is '2'"),
        ({"rope_scaling": {"type": "llama3", "factor": 2.0}}, "has no 'low_freq_factor'"),
        (
            {"rope_scaling": SCALED | {"type": "llama3", "high_freq_factor": 1.0}},
            "low_freq_factor is not below high_freq_factor",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "of their own"),
        ({"sliding_window": 7}, "sliding_window = 7, which models of type llama have not"),
        (
            QWEN3 | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
            "some of its layers only",
        ),
        (
            QWEN3 | {"layer_types": ["full_attention", "sliding_attention"]},
            "some of its layers only",
        ),
        ({"num_attention_heads": 3}, "impossible model"),
        ({"num_key_value_heads": 3}, "impossible model"),
        ({"head_dim": 7}, "impossible model"),
        ({"intermediate_size": None}, "'intermediate_size' is None"),
        ({"rms_norm_eps": 0}, "'rms_norm_eps' is 0"),
        ({"tie_word_embeddings": "yes"}, "'tie_word_embeddings' is 'yes'"),
        ({"attention": "crystalline"}, "attention = crystalline"),
        ({"model_type": "crystalline-llama"}, "attention = standard"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    if changes.get("model_type") == "crystalline-llama":
        changes = changes | {"attention": "standard"}
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, LEAST | changes)
    assert words in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize("key", sorted(set(LEAST) - {"model_type"}))
def test_a_size_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match=f"has no '{key}'"):
        read(tmp_path, {name: value for name, value in LEAST.items() if name != key})


def test_what_nobody_knows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harmless = {
        "pretraining_tp": 1, "use_cache": True, "transformers_version": "9", "torch_dtype": "x",
        "bos_token_id": 3, "embedding_multiplier": 1.0, "clip_qkv": None, "num_experts": 0,
        "some_switch": False, "_name_or_path": "me",
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        read(tmp_path, LEAST | harmless)
    assert not caplog.records
    rope = {"type": "linear", "factor": 2.0, "finetuned": True}
    with caplog.at_level(logging.WARNING):
        read(tmp_path, LEAST | {"magic\x1b[2J": 0.5, "auto_map": {"a": "b"}, "rope_scaling": rope})
    (record,) = caplog.records
    message = record.getMessage()
    assert "magic?[2J, auto_map, rope_scaling.finetuned; passed over" in message
    assert str(tmp_path / "config.json") in message


@pytest.mark.parametrize("name", ["yarn", "qwen3 window", "llama window"])
def test_forged_values_are_refused_or_harmless(tmp_path: Path, name: str) -> None:
    assert MODEL_CONFIG.record is not None
    cases = list(forgeries(MODEL_CONFIG.record, told(CONFIGS[name])))
    believed, words = 0, []
    for _, document in random.Random(3).sample(cases, 200):
        try:
            told(config_of(MODEL_CONFIG.record.check(document), tmp_path))
            believed += 1
        except (BadContent, CheckpointError) as error:
            words.append(str(error))
    assert believed > 10
    assert max(map(len, words)) < 2000
    assert all(one.isprintable() for one in words)
