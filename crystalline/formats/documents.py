"""The JSON files of a checkpoint, read and written; config.json as transformers has GPT-2's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crystalline.atomic import json_text
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.catalog import damage, unreadable
from crystalline.formats.files import CONFIG
from crystalline.model.config import LAYER_NORM_EPSILON, ModelConfig

END_OF_TEXT = "<|endoftext|>"
CRYSTALLINE_TYPE = "crystalline-gpt2"  # model_type of a model with crystalline attention

_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def json_document(value: Any) -> str:
    """Return a document as the files of a checkpoint have it.  Raises `ValueError` for NaN."""
    return json_text(value, indent=2) + "\n"


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the document `name` of the checkpoint `path`.  Raises `CheckpointError`."""
    try:
        document = json.loads((path / name).read_text(encoding="utf-8"))
    except PermissionError as error:
        raise unreadable(path / name, error) from None
    except OSError as error:
        problem = error.strerror or str(error)
    except ValueError:
        problem = "it is not valid JSON"
    else:
        if isinstance(document, dict):
            return document
        problem = "it is not a JSON object"
    raise damage(path, f"{path / name} cannot be read ({problem})")


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


def end_of_text_id(path: Path) -> int | None:
    """Return the number of the document separator in a tokenizer.json, if it has one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for token in document.get("added_tokens") or []:
            if token["content"] == END_OF_TEXT:
                return int(token["id"])
        vocabulary = (document.get("model") or {}).get("vocab")
        found = vocabulary.get(END_OF_TEXT) if isinstance(vocabulary, dict) else None
        return None if found is None else int(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is not a tokenizer file", advice="Prepare the data again."
        ) from None


def read_config(path: Path) -> ModelConfig:
    """Return the shape that config.json describes, if it is one that we compute."""
    document = read_json(path, CONFIG)
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
        ("n_inner", (None, 4 * _number(document, "n_embd", file))),
    ):
        value = document.get(key, accepted[0])
        if value not in accepted:
            raise CheckpointError(
                f"{file} has {key} = {value}, which is not supported",
                advice=f"It must be {' or '.join(map(str, accepted))}.",
            )
    dropout = document.get("resid_pdrop", 0.0)
    try:
        return ModelConfig(
            vocab_size=_number(document, "vocab_size", file),
            seq_len=_number(document, "n_positions", file),
            num_layers=_number(document, "n_layer", file),
            num_heads=_number(document, "n_head", file),
            embed_dim=_number(document, "n_embd", file),
            dropout=float(dropout),
            attention="crystalline" if crystalline else "standard",
        )
    except (UsageError, TypeError, ValueError) as error:
        problem = error.message if isinstance(error, UsageError) else f"resid_pdrop is {dropout!r}"
        raise damage(path, f"{file} describes an impossible model: {problem}") from None


def _number(document: dict[str, Any], key: str, file: Path) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        problem = f"has {key} = {value!r}" if key in document else f"has no '{key}'"
        raise damage(file.parent, f"{file} {problem}, a whole number is needed")
    return value
