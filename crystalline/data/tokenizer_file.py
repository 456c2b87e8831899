"""Reading a `tokenizer.json` that somebody else may have made: what is let through to the library.

The `tokenizers` library believes its file: it cuts texts off, fills memory with padding, runs
any regular expression, and ends the process on some of what does not fit together.  So the
document is checked here, part by part, against what byte-level BPE, SentencePiece's BPE (Llama 2
and its kin) and our own tokenizers consist of, and only the parts that were checked are handed on.
What would change the tokens of a text and is no part of the vocabulary (truncation, padding,
dropout) is switched off and named; everything else that is not known is refused.  Post-processors
that put tokens around a text are kept where they are understood, and passed over otherwise: this
program asks for no such tokens, but reads from them what stands before a prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from crystalline.data.pieces import BOUNDED_PATTERN, word_pattern
from crystalline.untrusted import BadContent, Field, Record, parse_json, shown
from crystalline.untrusted.files import TOKENIZER

MOST_TOKENS = 1 << 20
LONGEST_TOKEN = 4096  # characters
DEEPEST = 4  # sequences within sequences
MOST_PARTS = 16  # of a sequence
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # ▁, how SentencePiece writes a space

CHAR_PATTERN = r"[\s\S]"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = _CONTRACTIONS + r"\p{N}{1,3}" + _AFTER_NUMBERS
QWEN_PATTERN = _CONTRACTIONS + r"\p{N}" + _AFTER_NUMBERS  # of Qwen 2 and 3
# Any other expression could take years on some text.
PATTERNS = frozenset(
    {
        word_pattern(),
        BOUNDED_PATTERN,
        CHAR_PATTERN,
        LLAMA3_PATTERN,
        QWEN_PATTERN,
    }
)
_PLAIN_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")

_ADDED = Record(
    Field("id", int, 0, MOST_TOKENS - 1),
    Field("content", str, 1, LONGEST_TOKEN),
    *(
        Field(name, bool, optional=True)
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    ),
)


_TEMPLATE_TOKEN = Record(
    Field("ids", list, 1, MOST_PARTS, items=lambda id_: isinstance(id_, int)),
    Field("tokens", list, 1, MOST_PARTS, items=lambda token: isinstance(token, str)),
)


def read_tokenizer_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the document of a `tokenizer.json` that is safe to load, and what was switched off.

    Raises `OSError` for a file that cannot be read, and `BadContent` for one that is no
    tokenizer of a kind known here.
    """
    return check_tokenizer(parse_json(TOKENIZER.read_bytes(path)))


def check_tokenizer(document: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of a tokenizer's document that are handed on, and what was left out.

    Raises `BadContent`.

    >>> model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}
    >>> made = {"model": model, "decoder": {"type": "Fuse"}, "padding": {"strategy": {"Fixed": 9}}}
    >>> made["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": CHAR_PATTERN},
    ...                          "behavior": "Isolated", "invert": False}
    >>> check_tokenizer(made)[1]
    ['padding']
    """
    if not isinstance(document, dict):
        raise BadContent("it is not a table of fields")
    dropped = [name for name in ("truncation", "padding") if document.get(name) is not None]
    model = _part(document, "model")
    checked = _bpe(model) if model.get("type") == "BPE" else _word_level(model)
    added = _added(document.get("added_tokens"), checked["vocab"])
    pre_tokenizer = _pre_tokenizer(document.get("pre_tokenizer"))
    normalizer = _normalizer(document.get("normalizer"))
    decoder = _sequence(document.get("decoder"), "decoders", _decoder, "decoder")
    if decoder is None:
        raise BadContent("it has no decoder")
    if not is_sentencepiece(decoder) and any(map(_has_space, (normalizer, pre_tokenizer))):
        raise BadContent("its parts write spaces in different ways")
    by_character = (pre_tokenizer or {}).get("pattern") == {"Regex": CHAR_PATTERN}
    lacks_unknown = checked["type"] == "WordLevel" and checked["unk_token"] not in checked["vocab"]
    if lacks_unknown and not by_character:  # whose characters are looked up here
        raise BadContent("its token for unknown words is not in its vocabulary")
    if model.get("dropout") not in (None, 0, 0.0):
        dropped.append("dropout")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _post_processor(document.get("post_processor"), checked, added),
        "decoder": decoder,
        "model": checked,
    }, dropped


def to_text(document: dict[str, Any]) -> str:
    """Return a checked document as the library reads it."""
    return json.dumps(document, ensure_ascii=False)


def is_sentencepiece(decoder: Any) -> bool:
    """Return whether a checked decoder is one of SentencePiece's, which writes spaces as ▁."""
    return _has_space(decoder)


def prompt_start(document: dict[str, Any]) -> tuple[int, ...]:
    """Return the tokens that a checked document's post-processor puts before a text."""
    part = document["post_processor"] or {}
    starts: list[int] = []
    for one in part.get("processors", (part,)):
        if one.get("type") != "TemplateProcessing":
            continue
        before: list[int] = []
        for piece in one["single"]:
            if "Sequence" in piece:
                break
            before += one["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
        starts = before + starts
    return tuple(starts)


def _has_space(part: Any) -> bool:
    """Return whether a checked part, or one in it, knows ▁."""
    if isinstance(part, dict):
        return any(map(_has_space, part.values()))
    if isinstance(part, list):
        return any(map(_has_space, part))
    return bool(part == SPACE)


# --- the model --------------------------------------------------------------------------------


def _bpe(model: dict[str, Any]) -> dict[str, Any]:
    vocabulary = _vocabulary(model)
    merges = model.get("merges")
    if not isinstance(merges, list) or len(merges) > MOST_TOKENS:
        raise BadContent(f"its merges are no list of at most {MOST_TOKENS:,} pairs")
    pairs = [_pair(merge, vocabulary) for merge in merges]
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name) not in (None, ""):
            raise BadContent(f"its words have a {name.replace('_', ' ')}")
    unknown = _unknown(model)
    if unknown is not None and unknown not in vocabulary and not _knows_all_bytes(vocabulary):
        raise BadContent("its token for unknown words is not in its vocabulary")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": _flag(model, "fuse_unk"),
        "byte_fallback": _flag(model, "byte_fallback"),
        "ignore_merges": _flag(model, "ignore_merges"),
        "vocab": vocabulary,
        "merges": pairs,
    }


def _knows_all_bytes(vocabulary: Collection[str]) -> bool:
    """Return whether nothing is unknown to byte-level BPE: it spells bytes as GPT-2 does."""
    return all(char in vocabulary for char in ByteLevel.alphabet())


def _pair(merge: Any, vocabulary: Collection[str]) -> list[str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) for p in parts):
        raise BadContent(f"{shown(repr(merge), 40)} among its merges is no pair of tokens")
    for token in (*parts, "".join(parts)):
        if token not in vocabulary:
            raise BadContent(f"its merges use {shown(repr(token), 40)}, which is no token")
    return parts


def _word_level(model: dict[str, Any]) -> dict[str, Any]:
    if model.get("type") != "WordLevel":
        raise BadContent(f"its model is of type {shown(repr(model.get('type')), 40)}")
    unknown = _unknown(model)
    if unknown is None:
        raise BadContent("its model names no token for unknown words")
    return {"type": "WordLevel", "vocab": _vocabulary(model), "unk_token": unknown}


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    vocabulary = _part(model, "vocab")
    if len(vocabulary) > MOST_TOKENS:
        raise BadContent(
            f"its vocabulary has {len(vocabulary):,} tokens, more than {MOST_TOKENS:,}"
        )
    for token, id_ in vocabulary.items():
        if isinstance(id_, bool) or not isinstance(id_, int) or not 0 <= id_ < MOST_TOKENS:
            raise BadContent(
                f"the token {shown(repr(token), 40)} has the number {shown(repr(id_), 40)}, "
                f"it must be a whole one below {MOST_TOKENS:,}"
            )
        if len(token) > LONGEST_TOKEN:
            raise BadContent(f"it has a token of {len(token):,} characters")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise BadContent("two of its tokens have the same number")
    return vocabulary


def _unknown(model: dict[str, Any]) -> str | None:
    unknown = model.get("unk_token")
    if unknown is not None and not isinstance(unknown, str):
        raise BadContent("its unk_token is not text")
    return unknown


def _flag(model: dict[str, Any], name: str) -> bool:
    value = model.get(name, False)
    if not isinstance(value, bool):
        raise BadContent(f"its {name} is neither true nor false")
    return value


def _added(tokens: Any, vocabulary: dict[str, int]) -> list[dict[str, Any]]:
    if tokens is None:
        return []
    if not isinstance(tokens, list) or len(tokens) > MOST_TOKENS:
        raise BadContent("its added tokens are no list")
    numbers = {id_: token for token, id_ in vocabulary.items()}
    added = []
    for token in tokens:
        entry = _ADDED.check(token)
        id_, content = entry["id"], entry["content"]
        if numbers.setdefault(id_, content) != content or vocabulary.get(content, id_) != id_:
            raise BadContent(f"its added token {shown(repr(content), 40)} has a number twice")
        added.append({name: entry.get(name, False) for name in _ADDED.fields})
    return added


# --- the parts that cut and change text -------------------------------------------------------


def _normalizer(part: Any) -> dict[str, Any] | None:
    """Let through what makes a text longer by a bounded factor only."""
    return _sequence(part, "normalizers", _one_normalizer, "normalizer")


def _one_normalizer(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _PLAIN_NORMALIZERS:
        return {"type": kind}
    if kind == "Prepend" and part.get("prepend") == SPACE:
        return {"type": kind, "prepend": SPACE}
    if kind == "Replace" and _replaces(part, " ", SPACE):
        return {"type": kind, "pattern": {"String": " "}, "content": SPACE}
    raise BadContent(f"its normalizer {shown(repr(kind), 40)} is not known here")


def _replaces(part: dict[str, Any], old: str, new: str) -> bool:
    return part.get("pattern") == {"String": old} and part.get("content") == new


def _pre_tokenizer(part: Any) -> dict[str, Any] | None:
    return _sequence(part, "pretokenizers", _one_pre_tokenizer, "pre-tokenizer")


def _one_pre_tokenizer(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "ByteLevel":
        return {
            "type": kind,
            "add_prefix_space": _flag(part, "add_prefix_space"),
            "trim_offsets": True,
            "use_regex": _flag({"use_regex": True} | part, "use_regex"),
        }
    if kind == "Metaspace":
        return _metaspace(part)
    if kind == "Digits":
        return {"type": kind, "individual_digits": _flag(part, "individual_digits")}
    if kind == "Split":
        pattern = part.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if not isinstance(expression, str) or expression not in PATTERNS:
            raise BadContent("it splits text by a pattern that is not known here")
        if part.get("behavior") not in _BEHAVIORS:
            raise BadContent(f"its split {shown(repr(part.get('behavior')), 40)} is not known here")
        return {
            "type": kind,
            "pattern": {"Regex": expression},
            "behavior": part["behavior"],
            "invert": _flag(part, "invert"),
        }
    raise BadContent(f"its pre-tokenizer {shown(repr(kind), 40)} is not known here")


def _metaspace(part: dict[str, Any]) -> dict[str, Any]:
    """Check a part that writes spaces as ▁, in the layout of any version of the library."""
    always = _flag({"add_prefix_space": True} | part, "add_prefix_space")
    scheme = part.get("prepend_scheme", "always" if always else "never")
    if part.get("replacement") != SPACE or scheme not in ("always", "first", "never"):
        raise BadContent("its Metaspace is not known here")
    return {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": scheme,
        "split": _flag({"split": True} | part, "split"),
    }


def _decoder(part: dict[str, Any]) -> dict[str, Any]:
    """Only its name matters, and whether it strips a space: text is decoded here."""
    kind = part.get("type")
    if kind == "ByteLevel":
        return {"type": kind, "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    if kind in ("Fuse", "ByteFallback"):
        return {"type": kind}
    if kind == "Metaspace":
        return _metaspace(part)
    if kind == "Replace" and _replaces(part, SPACE, " "):
        return {"type": kind, "pattern": {"String": SPACE}, "content": " "}
    strips = (part.get("content"), part.get("start"), part.get("stop"))
    if kind == "Strip" and strips == (" ", 1, 0):
        return {"type": kind, "content": " ", "start": 1, "stop": 0}
    raise BadContent(f"its decoder {shown(repr(kind), 40)} is not known here")


# --- what puts tokens around a text -----------------------------------------------------------


def _post_processor(
    part: Any, model: dict[str, Any], added: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return a post-processor as far as it is understood, None where nothing of it is."""
    numbers = {token["id"] for token in added} | set(model["vocab"].values())
    parts = part.get("processors") if isinstance(part, dict) else None
    if not isinstance(part, dict) or part.get("type") != "Sequence":
        parts = [part]
    if not isinstance(parts, list) or len(parts) > MOST_PARTS:
        return None
    checked = [one for one in (_one_post_processor(one, numbers) for one in parts) if one]
    if len(checked) < 2:
        return checked[0] if checked else None
    return {"type": "Sequence", "processors": checked}


def _one_post_processor(part: Any, numbers: Collection[int]) -> dict[str, Any] | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "ByteLevel":  # moves places in the text, which nobody asks for
        return {"type": kind, "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    if kind != "TemplateProcessing":
        return None
    special = part.get("special_tokens")
    tokens = {
        name: {"id": name, "ids": entry["ids"], "tokens": entry["tokens"]}
        for name, entry in (special.items() if isinstance(special, dict) else ())
        if _TEMPLATE_TOKEN.accepts(entry)
        and len(entry["ids"]) == len(entry["tokens"])
        and all(_is_number(id_) and id_ in numbers for id_ in entry["ids"])
    }
    single, pair = (_template(part.get(name), tokens) for name in ("single", "pair"))
    if single is None:
        return None
    pair = pair or [{"Sequence": {"id": one, "type_id": 0}} for one in "AB"]
    return {"type": kind, "single": single, "pair": pair, "special_tokens": tokens}


def _template(pieces: Any, tokens: Collection[str]) -> list[dict[str, Any]] | None:
    """Return a template of known tokens around texts, None for anything else."""
    if not isinstance(pieces, list) or len(pieces) > MOST_PARTS:
        return None
    checked: list[dict[str, Any]] = []
    for piece in pieces:
        if not isinstance(piece, dict) or len(piece) != 1:
            return None
        ((kind, inner),) = piece.items()
        name = inner.get("id") if isinstance(inner, dict) else None
        known = tokens if kind == "SpecialToken" else ("A", "B") if kind == "Sequence" else ()
        if not isinstance(name, str) or name not in known:
            return None
        checked.append({kind: {"id": name, "type_id": 0}})
    has_text = any("Sequence" in piece for piece in checked)
    return checked if has_text else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sequence(
    part: Any,
    inner: str,
    check: Callable[[dict[str, Any]], dict[str, Any]],
    name: str,
    depth: int = 0,
) -> dict[str, Any] | None:
    """Check a part that may be a sequence of parts."""
    if part is None:
        return None
    if not isinstance(part, dict):
        raise BadContent(f"its {name} is not a table of fields")
    if part.get("type") != "Sequence":
        return check(part)
    parts: Iterable[Any] = part.get(inner, ())
    if not isinstance(parts, list) or len(parts) > MOST_PARTS or depth == DEEPEST:
        raise BadContent(f"its {name} is no short sequence")
    return {
        "type": "Sequence",
        inner: [
            checked
            for one in parts
            if (checked := _sequence(one, inner, check, name, depth + 1)) is not None
        ],
    }


def _part(table: dict[str, Any], name: str) -> dict[str, Any]:
    part = table.get(name)
    if not isinstance(part, dict):
        raise BadContent(f"its '{name}' is not a table of fields")
    return part
