"""What tokenizers of every kind share in GGUF files: types of tokens, names of values, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crystalline.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

GGML = "tokenizer.ggml."
OWN = "crystalline.tokenizer."  # what tokenizer.ggml cannot say
ADVICE = "Save it as a Hugging Face folder, or train with --tokenizer bpe."


def refusal(why: str, advice: str = ADVICE) -> DataError:
    """Return the error of a tokenizer that llama.cpp cannot do as it does."""
    return DataError(f"the tokenizer cannot be held by a GGUF file: {why}", advice=advice)


def added_tokens(tokens: Sequence[str], types: Sequence[int]) -> list[dict[str, Any]]:
    """Return tokenizer.json's added tokens: those that are found in a text before all else."""
    return [
        {
            "id": id_, "content": token, "special": kind != USER_DEFINED,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for id_, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]  # fmt: skip
