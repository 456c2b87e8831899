"""Small models and tokenizers for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_file import LLAMA3_PATTERN, QWEN_PATTERN
from crystalline.formats.gguf import write_gguf
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.model.params import parameter_table
from tests.data import foreign

TEXT = "It's  the\tquick brown fox, it's 12 dogs!\n\n  hello <|endo> world's café ☃ ab cd .\r\n 😀 "
FOREIGN = {name: name for name in ("llama2", "metaspace", "digits")}
FOREIGN |= {"foreign llama3": "llama3", "foreign qwen": "qwen2", "foreign gpt2": "gpt2"}
SIZES: dict[str, Any] = {"seq_len": 48, "num_layers": 2, "num_heads": 4, "embed_dim": 64}
LLAMA3 = RopeScaling("llama3", 8.0, original_seq_len=24)
YARN = RopeScaling("yarn", 4.0, original_seq_len=12)
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"architecture": "gpt2"},
    "gpt2, odd": {"architecture": "gpt2", "embed_dim": 36, "mlp_dim": 50, "norm_epsilon": 1e-3},
    "llama": {"architecture": "llama", "num_kv_heads": 2, "tie_embeddings": True},
    "llama, untied": {
        "architecture": "llama", "num_kv_heads": 1, "head_size": 24, "tie_embeddings": False,
        "rope_theta": 500.0, "mlp_dim": 96,
    },
    "llama, llama3": {"architecture": "llama", "rope_scaling": LLAMA3, "num_kv_heads": 4},
    "llama, linear": {"architecture": "llama", "rope_scaling": RopeScaling("linear", 2.0)},
    "qwen3": {"architecture": "qwen3", "num_kv_heads": 2, "tie_embeddings": False},
    "qwen3, yarn": {
        "architecture": "qwen3", "rope_scaling": YARN, "head_size": 12, "tie_embeddings": True,
    },
    "qwen3, yarn of a factor": {
        "architecture": "qwen3",
        "rope_scaling": RopeScaling("yarn", 4.0, 12, beta_fast=16.0, attention_factor=1.5),
    },
}  # fmt: skip


def config_of(shape: str, vocab_size: int = 300) -> ModelConfig:
    return ModelConfig(vocab_size=vocab_size, **SIZES | SHAPES[shape])


def tensors_of(config: ModelConfig, seed: int = 1, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return random tensors by their names in Hugging Face's files, all of them unequal."""
    table = parameter_table(config)
    random = np.random.default_rng(seed)
    flat = (scale * random.standard_normal(table.size)).astype(np.float32)
    return table.file_views(flat)


def trained(kind: str, folder: Path, texts: list[str] | None = None) -> Path:
    """Return the tokenizer.json of one of our kinds, of "llama3" or "qwen", or a `FOREIGN` one."""
    texts = [TEXT] * 2 if texts is None else texts
    path = folder / f"{kind}.json"
    if kind in FOREIGN:
        document = json.loads(foreign.document(FOREIGN[kind]))
        if kind == "digits":
            document["added_tokens"] = document["added_tokens"][:1]  # without marks that strip
        path.write_text(json.dumps(document), "utf-8")
    elif kind in ("llama3", "qwen"):
        text = split_by(LLAMA3_PATTERN if kind == "llama3" else QWEN_PATTERN, texts).to_str()
        document = json.loads(text)
        if kind == "llama3":
            document["model"]["ignore_merges"] = True
        else:
            document["normalizer"] = {"type": "NFC"}
        path.write_text(json.dumps(document), "utf-8")
    else:
        Tokenizer.train(kind, texts, 300).save(path)
    return path


def split_by(pattern: str, texts: list[str]) -> Inner:
    """Return a byte-level BPE of 290 tokens with a split of its own, two of them special."""
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=288, initial_alphabet=sorted(alphabet), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    inner.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    return inner


def saved(folder: Path, shape: str = "llama", **arguments: Any) -> Path:
    """Return a GGUF file of a random model."""
    path = folder / "model.gguf"
    config = config_of(shape)
    tokenizer = trained("bpe", folder)
    write_gguf(path, config, tensors_of(config).items(), tokenizer=tokenizer, **arguments)
    return path
