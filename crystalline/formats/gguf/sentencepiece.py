"""SentencePiece's BPE (Llama 2 and its kin) in GGUF files, whose model is called "llama" there.

Spaces are written ▁, one is put before a text, and characters without a token become tokens of
their bytes.  tokenizer.json lists merges in order; llama.cpp has a score for every token instead,
and joins the two neighbors whose joined text is the token with the highest score.  That is the
same where the merges are all pairs of tokens whose text is a token, in the order of those: so
transformers makes them from SentencePiece's own files.  Anything else is refused, in both
directions.

llama.cpp puts the space also behind special tokens within a text, which tokenizers of the scheme
"first" do at the beginning only: of these, ids are equal for text without special tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystalline.data.tokenizer_file import SPACE
from crystalline.formats.gguf.container import Container, Value
from crystalline.formats.gguf.token_types import (
    BYTE,
    GGML,
    NORMAL,
    OWN,
    UNUSED,
    added_tokens,
    refusal,
)
from crystalline.untrusted import BadContent, shown

MOST_MERGES = 1 << 22
LONGEST_MERGED = 256  # characters; every way to cut a token in two is looked at
NO_SCORE = -1e9  # of tokens that no merge makes

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
_BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def type_of(token: str) -> int:
    """Return the type of a token of the vocabulary proper."""
    return BYTE if _BYTE_TOKEN.fullmatch(token) else NORMAL


# --- writing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expressed:
    """A tokenizer in the words of llama.cpp."""

    scores: dict[int, float]  # of the tokens that merges make
    values: dict[str, Value]  # of tokenizer.ggml
    own: dict[str, Value]  # of crystalline.tokenizer


def express(document: dict[str, Any]) -> Expressed:
    """Return what llama.cpp needs of a checked tokenizer.json.

    Raises `DataError` for one that it would not follow.
    """
    model = document["model"]
    vocabulary: dict[str, int] = model["vocab"]
    if not model["byte_fallback"] or not vocabulary.keys() >= _BYTE_TOKENS:
        raise refusal("it has no tokens for bytes, and llama.cpp needs them for unknown characters")
    if model["ignore_merges"]:
        raise refusal("whole words skip its merges")
    scheme, by_metaspace = _scheme(document["normalizer"], document["pre_tokenizer"])
    merged = _merged_in_order(model["merges"], vocabulary)
    return Expressed(
        scores={vocabulary[token]: -1.0 - rank for rank, token in enumerate(merged)},
        values={"add_space_prefix": ("bool", scheme != "never")},
        own={"metaspace": ("text", scheme)} if by_metaspace else {},
    )


def _scheme(normalizer: dict[str, Any] | None, pre_tokenizer: Any) -> tuple[str, bool]:
    """Return where a space is put ("always", "first", "never"), and whether a Metaspace does it."""
    if normalizer is None and pre_tokenizer and pre_tokenizer["type"] == "Metaspace":
        if pre_tokenizer["split"]:
            raise refusal("it splits text at spaces, and llama.cpp does not")
        return pre_tokenizer["prepend_scheme"], True
    parts = [normalizer]
    if normalizer is not None and normalizer["type"] == "Sequence":
        parts = normalizer["normalizers"]
    if pre_tokenizer is None and parts in ([_PREPEND, _REPLACE], [_REPLACE]):
        return "always" if len(parts) == 2 else "never", False
    raise refusal("llama.cpp does not normalize text as it does")


def _merged_in_order(merges: list[list[str]], vocabulary: dict[str, int]) -> list[str]:
    """Return the tokens that merges make, in their order, once each.

    Raises `DataError` unless the merges are all pairs, those of a token together.
    """
    if max(map(len, vocabulary)) > LONGEST_MERGED:
        raise refusal(f"it has a token of more than {LONGEST_MERGED} characters")
    made: dict[str, int] = {}
    last = ""
    for first, second in merges:
        token = first + second
        if token != last and token in made:
            raise refusal("its merges are not in the order of the tokens that they make")
        made[token] = made.get(token, 0) + 1
        last = token
    for token in vocabulary:
        pairs = sum(
            token[:cut] in vocabulary and token[cut:] in vocabulary for cut in range(1, len(token))
        )
        if pairs != made.get(token, 0):
            raise refusal(f"its merges do not make {shown(repr(token), 40)} in every way")
    return list(made)


# --- reading ----------------------------------------------------------------------------------


def document_of(
    container: Container, tokens: Sequence[str], types: Sequence[int], unknown: int | None
) -> dict[str, Any]:
    """Return tokenizer.json.

    Raises `BadContent` for what the library cannot do, and for damage.
    """
    scores = container.get(GGML + "scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise BadContent("its scores do not fit its tokens")
    if not all(isinstance(score, (int, float)) and np.isfinite(score) for score in scores):
        raise BadContent("its scores are not finite numbers")
    if container.get(GGML + "remove_extra_whitespaces", False) is not False:
        raise BadContent("it removes spaces from text")
    kept = [id_ for id_, kind in enumerate(types) if kind != UNUSED]
    vocabulary = {tokens[id_]: id_ for id_ in kept}
    if not vocabulary.keys() >= _BYTE_TOKENS or unknown is None:
        raise BadContent("it has no tokens for bytes, or none for what is unknown")
    prefix = container.get(GGML + "add_space_prefix", True) is not False
    metaspace = container.get(OWN + "metaspace")
    if metaspace not in ("always", "first", "never"):
        metaspace = None
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "version": "1.0",
        "added_tokens": added_tokens(tokens, types),
        "normalizer": None
        if metaspace
        else {"type": "Sequence", "normalizers": [_PREPEND] * prefix + [_REPLACE]},
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": SPACE, "prepend_scheme": metaspace, "split": False,
        } if metaspace else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip * prefix,
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": _merges(vocabulary, [float(score) for score in scores]),
        },
    }  # fmt: skip


def _merges(vocabulary: dict[str, int], scores: list[float]) -> list[list[str]]:
    """Return all pairs of tokens whose joined text is a token, those of the highest score first.

    Raises `BadContent` where two such tokens have one score: llama.cpp joins the first in the text
    then, which no order of merges says.
    """
    if max(map(len, vocabulary)) > LONGEST_MERGED:
        raise BadContent(f"it has a token of more than {LONGEST_MERGED} characters")
    pairs: dict[str, list[list[str]]] = {}
    for token in vocabulary:
        found = [
            [token[:cut], token[cut:]]
            for cut in range(1, len(token))
            if token[:cut] in vocabulary and token[cut:] in vocabulary
        ]
        if found:
            pairs[token] = sorted(found, key=lambda pair: [vocabulary[part] for part in pair])
    if sum(map(len, pairs.values())) > MOST_MERGES:
        raise BadContent("its tokens can be merged in too many ways")
    order = sorted(pairs, key=lambda token: -scores[vocabulary[token]])
    for first, second in itertools.pairwise(order):
        if scores[vocabulary[first]] == scores[vocabulary[second]]:
            raise BadContent(
                f"its tokens {shown(repr(first), 40)} and {shown(repr(second), 40)} "
                "have the same score"
            )
    return [pair for token in order for pair in pairs[token]]
