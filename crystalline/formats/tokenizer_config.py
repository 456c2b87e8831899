"""tokenizer_config.json and its neighbors: what others are told about a tokenizer, and tell us.

Without this file beside tokenizer.json, transformers takes the tokenizer of any model of
type gpt2 for GPT-2's own: it puts byte-level BPE in the place of the rules of
tokenizer.json, so that a `char` tokenizer loses its spaces and a `word` tokenizer its
words, and it adds `<|endoftext|>` to a vocabulary that has none.  The file names the class
that follows tokenizer.json, and the special tokens that the vocabulary really has; it
changes neither.

Read are the names of special tokens and the chat template (also from chat_template.jinja, which
goes first as in transformers), and from generation_config.json or config.json the tokens that end
a text.  A folder without these files is complete: those of earlier versions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts
from crystalline.formats.catalog import damage, unreadable
from crystalline.formats.documents import read_document, token_id
from crystalline.formats.files import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    is_there,
)
from crystalline.untrusted import files as kinds

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_MOST_ENDS = 100


def tokenizer_config(
    tokenizer: Mapping[str, Any],
    end_of_text: str | None,
    seq_len: int,
    facts: TokenizerFacts = NO_FACTS,
) -> dict[str, Any]:
    """Return the content of tokenizer_config.json.

    `tokenizer` is the content of tokenizer.json; `end_of_text` the token between documents, None
    for a vocabulary without one; `seq_len` the context of the model, in tokens; `facts` what the
    model came with.

    >>> model = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"}
    >>> config = tokenizer_config({"model": model}, None, 64)
    >>> config["unk_token"], "eos_token" in config
    ('<unk>', False)
    """
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # follows tokenizer.json, in 4 and in 5
        "clean_up_tokenization_spaces": False,  # or " ." would come back as "."
        "model_max_length": seq_len,
        # No token_type_ids: version 4 makes them by default, and GPT-2 adds them like tokens.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if end_of_text is not None:
        config |= {"bos_token": end_of_text, "eos_token": end_of_text}
    model = tokenizer.get("model") or {}
    unknown = model.get("unk_token")
    if unknown is not None and unknown in model.get("vocab", ()):
        config["unk_token"] = unknown
    there = {name for name, one in facts.special.items() if token_id(tokenizer, one) is not None}
    config |= {name: facts.special[name] for name in _NAMES if name in there}
    if facts.chat_template is not None:
        config["chat_template"] = facts.chat_template
    return config


def read_facts(folder: Path) -> TokenizerFacts:
    """Return what the files of a model folder say about its tokenizer.

    Raises `CheckpointError` for such a file that cannot be read, or is no JSON.
    """
    told: Mapping[str, Any] = {}
    if is_there(folder / TOKENIZER_CONFIG):
        told = read_document(folder, kinds.TOKENIZER_CONFIG)
    special = {name: one for name in _NAMES if (one := _token(told.get(name))) is not None}
    return TokenizerFacts(_ends(folder), special, _template(folder, told.get("chat_template")))


def _token(value: Any) -> str | None:
    """Return a token from its name, or from a table that has it as "content"."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) and content else None


def _ends(folder: Path) -> tuple[int, ...]:
    """Return the tokens at which a text ends; generation_config.json goes before config.json."""
    for name, kind in ((GENERATION_CONFIG, kinds.GENERATION_CONFIG), (CONFIG, kinds.MODEL_CONFIG)):
        if not is_there(folder / name):
            continue
        told = read_document(folder, kind).get("eos_token_id")
        ends = told if isinstance(told, list) else [told]
        found = tuple(
            end
            for end in ends[:_MOST_ENDS]
            if isinstance(end, int) and not isinstance(end, bool) and end >= 0
        )
        if found:
            return tuple(dict.fromkeys(found))
    return ()


def _template(folder: Path, told: Any) -> str | None:
    """Return the chat template: a file of its own, a text, or the first or "default" of several."""
    path = folder / CHAT_TEMPLATE
    if is_there(path):
        try:
            return kinds.CHAT_TEMPLATE.read_bytes(path).decode("utf-8")
        except PermissionError as error:
            raise unreadable(path, error) from None
        except OSError as error:
            raise damage(folder, f"{path} cannot be used: {error.strerror}") from None
        except UnicodeDecodeError:
            raise damage(folder, f"{path} cannot be used: it is not UTF-8") from None
    if isinstance(told, str):
        return told
    if told and kinds.TEMPLATES.problem(told) is None:
        named = {one["name"]: one["template"] for one in told}
        return str(named.get("default", told[0]["template"]))
    return None
