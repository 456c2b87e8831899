"""The JSON files of a checkpoint, read and written; config.json as transformers has GPT-2's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crystalline.atomic import json_text
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.catalog import damage, unreadable
from crystalline.formats.files import CONFIG
from crystalline.model.config import LAYER_NORM_EPSILON, ModelConfig
from crystalline.untrusted import BadContent, parse_json, shown
from crystalline.untrusted.files import MODEL_CONFIG, FileKind

END_OF_TEXT = "<|endoftext|>"
CRYSTALLINE_TYPE = "crystalline-gpt2"  # model_type of a model with crystalline attention

_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def json_document(value: Any) -> str:
    """Return a document as the files of a checkpoint have it.  Raises `ValueError` for NaN."""
    return json_text(value, indent=2) + "\n"


def read_document(path: Path, kind: FileKind) -> dict[str, Any]:
    """Return the checked document of one kind in the checkpoint `path`.

    Raises `CheckpointError`.
    """
    file = path / kind.name
    try:
        return kind.read(file)
    except PermissionError as error:
        raise unreadable(file, error) from None
    except OSError as error:
        problem = error.strerror or str(error)
    except BadContent as error:
        problem = str(error)
    raise damage(path, f"{file} cannot be used: {problem}")


def gpt2_config(config: ModelConfig, end_of_text: int | None) -> dict[str, Any]:
    """Return config.json; `end_of_text` is the number of the document separator."""
    kind: dict[str, Any] = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    if config.attention == "crystalline":
        # Not GPT-2: programs that knew no λ would pass over it and compute something else.
        kind = {
            "architectures": ["CrystallineGPT2LMHeadModel"],
            "model_type": CRYSTALLINE_TYPE,
            "attention": "crystalline",
        }
    return {
        **kind,
        "vocab_size": config.vocab_size,
        "n_positions": config.seq_len,
        "n_ctx": config.seq_len,
        "n_embd": config.embed_dim,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def tokenizer_document(data: bytes, path: Path) -> dict[str, Any]:
    """Return the content of the tokenizer.json `path`, as far as a checkpoint looks into it.

    Raises `CheckpointError`.
    """
    try:
        document: dict[str, Any] = parse_json(data)
        end_of_text_id(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is not a tokenizer file", advice="Prepare the data again."
        ) from None
    return document


def end_of_text_id(tokenizer: dict[str, Any]) -> int | None:
    """Return the number of the document separator in a tokenizer's content, if it has one."""
    for token in tokenizer.get("added_tokens") or []:
        if token["content"] == END_OF_TEXT:
            return int(token["id"])
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    found = vocabulary.get(END_OF_TEXT) if isinstance(vocabulary, dict) else None
    return None if found is None else int(found)


def read_config(path: Path) -> ModelConfig:
    """Return the shape that config.json describes, if it is one that we compute."""
    document = read_document(path, MODEL_CONFIG)
    file = path / CONFIG
    crystalline = document.get("model_type") == CRYSTALLINE_TYPE
    for key, accepted in (
        ("model_type", ("gpt2", CRYSTALLINE_TYPE)),
        ("attention", ("crystalline",) if crystalline else ("standard",)),
        ("activation_function", _GELU_TANH),
        ("layer_norm_epsilon", (LAYER_NORM_EPSILON,)),
        ("scale_attn_weights", (True,)),
        ("scale_attn_by_inverse_layer_idx", (False,)),
        ("add_cross_attention", (False,)),
        ("n_inner", (None, 4 * document["n_embd"])),
    ):
        value = document.get(key, accepted[0])
        if value not in accepted:
            raise CheckpointError(
                f"{file} has {key} = {shown(str(value), 60)}, which is not supported",
                advice=f"It must be {' or '.join(map(str, accepted))}.",
            )
    try:
        return ModelConfig(
            vocab_size=document["vocab_size"],
            seq_len=document["n_positions"],
            num_layers=document["n_layer"],
            num_heads=document["n_head"],
            embed_dim=document["n_embd"],
            dropout=float(document.get("resid_pdrop") or 0.0),
            attention="crystalline" if crystalline else "standard",
        )
    except UsageError as error:
        raise damage(path, f"{file} describes an impossible model: {error.message}") from None
