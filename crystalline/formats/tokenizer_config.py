"""tokenizer_config.json: what transformers must be told about a tokenizer.

Without this file beside tokenizer.json, transformers takes the tokenizer of any model of
type gpt2 for GPT-2's own: it puts byte-level BPE in the place of the rules of
tokenizer.json, so that a `char` tokenizer loses its spaces and a `word` tokenizer its
words, and it adds `<|endoftext|>` to a vocabulary that has none.  The file names the class
that follows tokenizer.json, and the special tokens that the vocabulary really has; it
changes neither.  This program does not read it: the folders of earlier versions, which
lack it, stay complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crystalline.data.pieces import END_OF_TEXT


def tokenizer_config(
    tokenizer: Mapping[str, Any], end_of_text: int | None, seq_len: int
) -> dict[str, Any]:
    """Return the content of tokenizer_config.json.

    `tokenizer` is the content of tokenizer.json; `end_of_text` the number of the token between
    documents, None for a vocabulary without one; `seq_len` the context of the model, in tokens.

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
        config |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    model = tokenizer.get("model") or {}
    unknown = model.get("unk_token")
    if unknown is not None and unknown in model.get("vocab", ()):
        config["unk_token"] = unknown
    return config
