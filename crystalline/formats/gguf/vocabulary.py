"""Tokenizers in GGUF files: tokenizer.json to the values tokenizer.ggml.*, and back.

llama.cpp has no tokenizer.json.  It knows byte-level BPE by its tokens and merges, and the split
of text into words by a name (`tokenizer.ggml.pre`), each with a regular expression of its own.
Four of these are known here too: GPT-2's, alone or behind a split of digits, Llama 3's and Qwen's.
What it holds, and how:

    bpe     as it is.  A bound on the length of words (see `data.pieces`) is no part of
            llama.cpp's GPT-2 split: ids may differ in words of 512 characters and more
    byte    BPE without merges
    char    BPE whose merges join the bytes of each character, and nothing else.  A character
            that is not in the vocabulary, which we refuse, it leaves out
    spm     its own kind, see `sentencepiece`
    word    not at all: it has no word for "unknown"

Qwen's tokenizers compose characters first (NFC), which llama.cpp does not do: ids are equal for
text that is in that form.  `crystalline.tokenizer.*` keeps what tokenizer.ggml.* cannot say, so
that the way back gives the same tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers

from crystalline.data.pieces import BOUNDED_PATTERN, END_OF_TEXT, LONGEST_WORD, word_pattern
from crystalline.data.tokenizer_facts import find_separator
from crystalline.data.tokenizer_file import (
    CHAR_PATTERN,
    LLAMA3_PATTERN,
    MOST_TOKENS,
    QWEN_PATTERN,
    check_tokenizer,
    is_sentencepiece,
)
from crystalline.errors import DataError
from crystalline.formats.gguf import sentencepiece
from crystalline.formats.gguf.container import Container, Value
from crystalline.formats.gguf.token_types import (
    CONTROL,
    GGML,
    NORMAL,
    OWN,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    added_tokens,
    refusal,
)
from crystalline.untrusted import BadContent, parse_json, shown
from crystalline.untrusted.files import TOKENIZER

LONGEST_TEMPLATE = 1 << 20  # characters

_SPECIAL_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# llama.cpp's name for a split, its pattern, whether whole words skip the merges.
_SPLITS = {
    "gpt-2": (word_pattern(), False),
    "smollm": (word_pattern(), False),  # digits stand alone
    "llama-bpe": (LLAMA3_PATTERN, True),
    "qwen2": (QWEN_PATTERN, False),
}
_DIGITS = {"type": "Digits", "individual_digits": True}
_OTHER_NAMES = {
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "pixtral": "llama-bpe",
    "falcon3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "megrez": "qwen2",
    "starcoder": "smollm", "mpt": "gpt-2", "olmo": "gpt-2", "phi-2": "gpt-2", "exaone4": "gpt-2",
}  # fmt: skip
# The token that ends a text in llama.cpp where a file does not say it.
_DEFAULT_ENDS = {"gpt2": 11, "llama": 2}
_UNREADABLE = "Use the Hugging Face folder of the model."


def _byte_spelling() -> list[str]:
    """Return GPT-2's character for each byte: printable Latin-1 as itself, others from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_SPELLING = _byte_spelling()
_BYTES = {character: byte for byte, character in enumerate(_SPELLING)}


@dataclass(frozen=True)
class SpecialTokens:
    """Which tokens begin and end a text; None: there is no such token.

    `add_bos` says whether a prompt begins with `bos`.
    """

    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    pad: int | None = None
    add_bos: bool = False
    add_eos: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer that a GGUF file holds."""

    document: dict[str, Any]  # tokenizer.json
    special: SpecialTokens
    chat_template: str | None


# --- writing ----------------------------------------------------------------------------------


def tokenizer_values(
    source: Path | bytes,
    vocab_size: int,
    *,
    special: SpecialTokens | None = None,
    chat_template: str | None = None,
) -> dict[str, Value]:
    """Return the values that hold a tokenizer.json, for a model of `vocab_size` tokens.

    `source` is its path or its content.

    By default the token between documents begins and ends a text, and a prompt begins with a token
    where the tokenizer's own post-processor puts one there.  Numbers of the model that no token has
    are filled with unused ones.

    Raises `DataError` for a tokenizer that cannot be read, and for one that GGUF cannot hold.
    """
    document, raw = _read(source)
    expressed = _expressed(document)
    added = {token["id"]: token for token in document["added_tokens"]}
    texts = expressed.texts | {id_: token["content"] for id_, token in added.items()}
    if texts and max(texts) >= vocab_size:
        raise DataError(
            f"the tokenizer has {max(texts) + 1:,} tokens, the model {vocab_size:,}",
            advice="Use the tokenizer that belongs to the model.",
        )
    types = [UNUSED] * vocab_size
    for id_, text in texts.items():
        types[id_] = sentencepiece.type_of(text) if expressed.kind == "spm" else NORMAL
    for id_, token in added.items():
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise refusal(
                f"its token {shown(repr(token['content']), 40)} takes the blanks around it"
            )
        types[id_] = CONTROL if token["special"] else USER_DEFINED
    special = special or _usual_special(raw, texts, added.values())
    if expressed.unknown is not None:
        types[expressed.unknown] = UNKNOWN
        special = replace(special, unk=expressed.unknown)
    default_end = _DEFAULT_ENDS[expressed.model]
    if special.eos is None and vocab_size > default_end:
        raise refusal(
            f"it has no token that ends a text, and llama.cpp would take number {default_end} "
            f"for one, {shown(repr(texts.get(default_end)), 40)}",
            "Train on several files, or with another --tokenizer: then there is <|endoftext|>.",
        )
    tokens = [texts.get(id_, f"[PAD{id_}]") for id_ in range(vocab_size)]
    if len(set(tokens)) < vocab_size:
        raise refusal("two of its tokens have the same text")
    found: dict[str, Value] = {
        GGML + "model": ("text", expressed.model),
        **{GGML + key: value for key, value in expressed.values.items()},
        GGML + "tokens": ("list", ("text", tokens)),
        GGML + "token_type": ("list", ("i32", types)),
        **_special_values(special, vocab_size),
        OWN + "kind": ("text", expressed.kind),
        **{OWN + key: value for key, value in expressed.own.items()},
    }
    if expressed.kind == "spm":
        scores = [expressed.scores.get(id_, sentencepiece.NO_SCORE) for id_ in range(vocab_size)]
        found[GGML + "scores"] = ("list", ("f32", scores))
    if chat_template is not None:
        found["tokenizer.chat_template"] = ("text", chat_template)
    return found


def _read(source: Path | bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    what = "the tokenizer" if isinstance(source, bytes) else f"the tokenizer {source}"
    try:
        data = source if isinstance(source, bytes) else TOKENIZER.read_bytes(source)
        raw = parse_json(data)
        return check_tokenizer(raw)[0], raw
    except OSError as error:
        problem = f"{what} cannot be read ({error.strerror})"
    except BadContent as error:
        problem = f"{what} cannot be used: {error}"
    raise DataError(problem, advice="Name a tokenizer.json that was saved with a model.")


@dataclass(frozen=True)
class _Expressed:
    """A tokenizer in the words of llama.cpp, without its added tokens."""

    kind: str
    model: str
    texts: dict[int, str]  # of the tokens
    values: dict[str, Value]  # of tokenizer.ggml
    own: dict[str, Value] = field(default_factory=dict)  # of crystalline.tokenizer
    scores: dict[int, float] = field(default_factory=dict)
    unknown: int | None = None


def _expressed(document: dict[str, Any]) -> _Expressed:
    model = document["model"]
    texts = {id_: token for token, id_ in model["vocab"].items()}
    if is_sentencepiece(document["decoder"]):
        found = sentencepiece.express(document)
        unknown = model["vocab"].get(model["unk_token"])
        return _Expressed("spm", "llama", texts, found.values, found.own, found.scores, unknown)
    if model["type"] == "BPE":
        return _expressed_bpe(document, texts)
    pattern = (document["pre_tokenizer"] or {}).get("pattern")
    if pattern != {"Regex": CHAR_PATTERN} or document["normalizer"] is not None:
        raise refusal("llama.cpp cannot look up whole words, and has no token for unknown ones")
    spelled = {id_: _spelled(text) for id_, text in texts.items()}
    merges = sorted({merge for text in spelled.values() for merge in _joining(text)})
    values: dict[str, Value] = {"pre": ("text", "gpt-2"), "merges": ("list", ("text", merges))}
    return _Expressed("char", "gpt2", spelled, values)


def _spelled(text: str) -> str:
    return "".join(_SPELLING[byte] for byte in text.encode())


def _joining(spelled: str) -> list[str]:
    """Return the merges that join the bytes of a character, from its first on.

    None of them joins bytes of two characters: each begins with the first byte of one.

    >>> _joining(_spelled("é")), _joining("a")
    (['Ã ©'], [])
    """
    return [f"{spelled[:count]} {spelled[count]}" for count in range(1, len(spelled))]


def _expressed_bpe(document: dict[str, Any], texts: dict[int, str]) -> _Expressed:
    model = document["model"]
    if (document["decoder"] or {}).get("type") != "ByteLevel":
        raise refusal("it is no byte-level BPE")
    split, longest_word = _split_of(document["pre_tokenizer"])
    normalizer = document["normalizer"]
    if normalizer is not None and (split, normalizer["type"]) != ("qwen2", "NFC"):
        raise refusal("llama.cpp does not normalize text")
    if model["ignore_merges"] != _SPLITS[split][1]:
        _require_reachable(model)
    merges = [" ".join(pair) for pair in model["merges"]]
    if any(merge.count(" ") != 1 for merge in merges):
        raise refusal("its merges have blanks in them")
    values: dict[str, Value] = {
        "pre": ("text", split),
        "merges": ("list", ("text", merges)),
    }
    own: dict[str, Value] = {"ignore_merges": ("bool", model["ignore_merges"])}
    if longest_word is not None:
        own["longest_word"] = ("u32", longest_word)
    if split == "qwen2":
        own["normalizer"] = ("text", "" if normalizer is None else "NFC")
    return _Expressed("bpe", "gpt2", texts, values, own)


def _split_of(pre_tokenizer: dict[str, Any] | None) -> tuple[str, int | None]:
    """Return llama.cpp's name for how words are split, and the bound on their length."""
    parts = [pre_tokenizer] if pre_tokenizer else []
    while any(part["type"] == "Sequence" for part in parts):
        parts = [
            inner
            for part in parts
            for inner in (part["pretokenizers"] if part["type"] == "Sequence" else [part])
        ]
    known: dict[str, tuple[str, int | None]] = {
        word_pattern(): ("gpt-2", None),
        BOUNDED_PATTERN: ("gpt-2", LONGEST_WORD),
        LLAMA3_PATTERN: ("llama-bpe", None),
        QWEN_PATTERN: ("qwen2", None),
    }
    if parts and parts[-1]["type"] == "ByteLevel" and not parts[-1]["add_prefix_space"]:
        *before, last = parts
        if not before and last["use_regex"]:
            return known[word_pattern()]
        if before == [_DIGITS] and last["use_regex"]:
            return "smollm", None
        if len(before) == 1 and not last["use_regex"] and before[0]["type"] == "Split":
            one = before[0]
            if one["behavior"] == "Isolated" and not one["invert"]:
                found = known.get(one["pattern"]["Regex"])
                if found:
                    return found
    raise refusal("llama.cpp does not split text as it does")


def _require_reachable(model: dict[str, Any]) -> None:
    """Raise `DataError` unless every token comes out of its own text by merging alone.

    Then it makes no difference whether whole words that are tokens skip the merges.
    """
    pairs = [(first, second) for first, second in model["merges"]]
    merging = tokenizers.models.BPE(vocab=model["vocab"], merges=pairs)
    for token in model["vocab"]:
        if len(token) > 1 and [part.value for part in merging.tokenize(token)] != [token]:
            raise refusal(
                f"its merges do not lead to the token {shown(repr(token), 40)}, and llama.cpp "
                "decides by the split whether they are asked"
            )


def _usual_special(
    raw: Mapping[str, Any], texts: Mapping[int, str], added: Iterable[Mapping[str, Any]]
) -> SpecialTokens:
    ids = {text: id_ for id_, text in texts.items()}
    separator = find_separator(token["content"] for token in added if token["special"])
    end = ids.get(END_OF_TEXT if separator is None else separator)
    first = _first_token(raw.get("post_processor"))
    begins = ids.get(first) if first is not None else None
    return SpecialTokens(bos=end if begins is None else begins, eos=end, add_bos=begins is not None)


def _first_token(post_processor: Any) -> str | None:
    """Return the special token that a post-processor puts in front of a text."""
    if not isinstance(post_processor, dict):
        return None
    if post_processor.get("type") == "Sequence":
        inner = post_processor.get("processors")
        found = [_first_token(one) for one in inner] if isinstance(inner, list) else []
        return next((one for one in found if one is not None), None)
    single = post_processor.get("single")
    first = single[0] if isinstance(single, list) and single else None
    token = first.get("SpecialToken") if isinstance(first, dict) else None
    name = token.get("id") if isinstance(token, dict) else None
    return name if isinstance(name, str) else None


def _special_values(special: SpecialTokens, vocab_size: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, key in _SPECIAL_KEYS.items():
        id_ = getattr(special, name)
        if id_ is not None:
            if not 0 <= id_ < vocab_size:
                raise DataError(
                    f"the {name} token is number {id_}, the vocabulary has {vocab_size:,}",
                    advice="Use the tokenizer that belongs to the model.",
                )
            values[f"{GGML}{key}_token_id"] = ("u32", id_)
    # Without a token to add, llama.cpp's own default would be another one.
    values[GGML + "add_bos_token"] = ("bool", special.add_bos and special.bos is not None)
    values[GGML + "add_eos_token"] = ("bool", special.add_eos and special.eos is not None)
    return values


# --- reading ----------------------------------------------------------------------------------


def read_vocabulary(container: Container, vocab_size: int) -> Vocabulary:
    """Return the tokenizer of a file whose model has `vocab_size` tokens.

    Raises `DataError` for a kind that is not known here, and `BadContent` for damage.
    """
    tokens, types = _tokens(container, vocab_size)
    special = _special_tokens(container, len(tokens))
    template = container.get("tokenizer.chat_template")
    if template is not None and not (
        isinstance(template, str) and len(template) <= LONGEST_TEMPLATE
    ):
        raise BadContent("its chat template is no text of a reasonable length")
    model = container.get(GGML + "model")
    if model not in _DEFAULT_ENDS:
        raise DataError(
            f"{container.path} has a tokenizer of the kind {shown(repr(model), 40)}, "
            "which is not read from GGUF files",
            advice=_UNREADABLE,
        )
    if model == "llama":
        special = _spm_defaults(container, special, len(tokens))
        document = sentencepiece.document_of(container, tokens, types, special.unk)
    elif container.get(OWN + "kind") == "char":
        document = _char_document(tokens, types)
    else:
        document = _bpe_document(container, tokens, types)
    document = check_tokenizer(document)[0]
    if special.add_bos and special.bos is not None:
        document["post_processor"] = _beginning(tokens[special.bos], special.bos)
    return Vocabulary(document, special, template)


def _tokens(container: Container, vocab_size: int) -> tuple[list[str], list[int]]:
    count = container.length(GGML + "tokens")
    if not 0 < count <= MOST_TOKENS:
        raise BadContent(f"its vocabulary has {count:,} tokens")
    if count != vocab_size:
        raise BadContent(f"its vocabulary has {count:,} tokens, its embeddings {vocab_size:,}")
    tokens = container.get(GGML + "tokens")
    types = container.get(GGML + "token_type", [NORMAL] * count)
    if not isinstance(tokens[0], str) or len(set(tokens)) != count:
        raise BadContent("its tokens are no texts, or one is there twice")
    if not isinstance(types, list) or len(types) != count or not isinstance(types[0], int):
        raise BadContent("its types of tokens do not fit its tokens")
    return tokens, types


def _special_tokens(container: Container, count: int) -> SpecialTokens:
    found: dict[str, Any] = {}
    for name, key in _SPECIAL_KEYS.items():
        id_ = container.get(f"{GGML}{key}_token_id")
        if isinstance(id_, int) and 0 <= id_ < count:  # llama.cpp passes over the others too
            found[name] = id_
    pre = container.get(GGML + "pre")
    by_default = _OTHER_NAMES.get(str(pre), pre) == "llama-bpe"
    return SpecialTokens(
        **found,
        add_bos=container.get(GGML + "add_bos_token", by_default) is True,
        add_eos=container.get(GGML + "add_eos_token", False) is True,
    )


def _spm_defaults(container: Container, special: SpecialTokens, count: int) -> SpecialTokens:
    """Return the special tokens with llama.cpp's defaults for SentencePiece's tokenizers."""
    defaults = {"unk": 0, "bos": 1, "eos": 2}
    missing: dict[str, Any] = {
        name: id_
        for name, id_ in defaults.items()
        if f"{GGML}{_SPECIAL_KEYS[name]}_token_id" not in container and id_ < count
    }
    add_bos = container.get(GGML + "add_bos_token", True) is True
    return replace(special, **missing, add_bos=add_bos)


def _bpe_document(
    container: Container, tokens: Sequence[str], types: Sequence[int]
) -> dict[str, Any]:
    name = container.get(GGML + "pre")
    split = _OTHER_NAMES.get(str(name), str(name))
    if split not in _SPLITS:
        raise DataError(
            f"{container.path} splits text as {shown(repr(name), 40)}, which is not known here",
            advice=_UNREADABLE,
        )
    pattern, ignores_merges = _SPLITS[split]
    merges = container.get(GGML + "merges", None)
    if not isinstance(merges, list) or len(merges) > MOST_TOKENS:
        raise BadContent("its merges are no list")
    pairs = [_pair(merge) for merge in merges]
    vocabulary = {
        token: id_
        for id_, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == NORMAL
    }
    added = added_tokens(tokens, types)
    follow = range(len(vocabulary), len(vocabulary) + len(added))
    if [token["id"] for token in added] != list(follow):
        # The library numbers added tokens behind all others, unless they are among them.
        vocabulary |= {token["content"]: token["id"] for token in added}
    own = container.get(OWN + "ignore_merges")
    normalizer = container.get(OWN + "normalizer", "NFC" if split == "qwen2" else "")
    if split == "gpt-2" and container.get(OWN + "longest_word") == LONGEST_WORD:
        pattern = BOUNDED_PATTERN
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if normalizer == "NFC" else None,
        "pre_tokenizer": _pre_tokenizer(pattern, digits=split == "smollm"),
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "ignore_merges": own if isinstance(own, bool) else ignores_merges,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }


def _pair(merge: Any) -> list[str]:
    at = merge.find(" ", 1) if isinstance(merge, str) else -1
    if at < 0:
        raise BadContent(f"{shown(repr(merge), 40)} among its merges is no pair of tokens")
    return [merge[:at], merge[at + 1 :]]


def _pre_tokenizer(pattern: str, *, digits: bool) -> dict[str, Any]:
    whole = pattern == word_pattern()
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": whole,
    }  # fmt: skip
    if digits:
        return {"type": "Sequence", "pretokenizers": [_DIGITS, byte_level]}
    if whole:
        return byte_level
    split = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def _char_document(tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    vocabulary = {
        _character(token): id_
        for id_, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == NORMAL
    }
    split = {
        "type": "Split", "pattern": {"Regex": CHAR_PATTERN}, "behavior": "Isolated",
        "invert": False,
    }  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": added_tokens(tokens, types),
        "normalizer": None,
        "pre_tokenizer": split,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


def _character(token: str) -> str:
    """Return the character that a token spells the bytes of."""
    try:
        character = bytes(_BYTES[one] for one in token).decode()
    except (KeyError, UnicodeDecodeError):
        character = ""
    if len(character) != 1:
        raise BadContent(f"its token {shown(repr(token), 40)} is no character")
    return character


def _beginning(token: str, id_: int) -> dict[str, Any]:
    """Return the post-processor that puts a token in front of a text, for other programs."""
    return {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}},
    }
