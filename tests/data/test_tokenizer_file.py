"""Of a stranger's tokenizer only checked parts reach the library; the rest is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_file import (
    check_tokenizer,
    read_tokenizer_file,
    to_text,
)
from crystalline.untrusted import BadContent, RefusedFile
from crystalline.untrusted.files import TOKENIZER
from tests.data.mutants import require_refused_or_harmless

TEXTS = ["Hello world, it's 2026!  \n\n  naïve 漢字\tend", "def f(x):\n    return x + 12345"]


def document(kind: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(Tokenizer.train(kind, TEXTS * 9, 300).to_json())
    return made


DOCUMENTS = {kind: document(kind) for kind in ("bpe", "char", "word", "byte")}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_our_own_tokenizers_pass_unchanged(kind: str) -> None:
    checked, dropped = check_tokenizer(DOCUMENTS[kind])
    assert dropped == []
    ours = tokenizers.Tokenizer.from_str(json.dumps(DOCUMENTS[kind]))
    loaded = tokenizers.Tokenizer.from_str(to_text(checked))
    assert loaded.get_vocab() == ours.get_vocab()
    for text in TEXTS if kind != "char" else [TEXTS[0]]:
        assert loaded.encode(text).ids == ours.encode(text, add_special_tokens=False).ids


def test_truncation_padding_and_dropout_are_switched_off_and_named(tmp_path: Path) -> None:
    made = copy.deepcopy(DOCUMENTS["bpe"])
    made["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    made["padding"] = {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    made["model"]["dropout"] = 0.5
    made["post_processor"] = {"type": "TemplateProcessing", "single": [], "pair": []}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(made), "utf-8")
    checked, dropped = read_tokenizer_file(path)
    assert dropped == ["truncation", "padding", "dropout"]
    ours = tokenizers.Tokenizer.from_str(json.dumps(DOCUMENTS["bpe"]))
    loaded = tokenizers.Tokenizer.from_str(to_text(checked))
    assert loaded.encode(TEXTS[0]).ids == ours.encode(TEXTS[0]).ids


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_of_another_type_is_refused_or_harmless(kind: str) -> None:
    """What passes must load and encode; what is refused says so in one short, safe line."""

    def use(checked: dict[str, Any]) -> None:
        loaded = tokenizers.Tokenizer.from_str(to_text(checked))
        if kind != "char":  # whose text is cut here
            loaded.encode(TEXTS[0])

    require_refused_or_harmless(json.dumps(DOCUMENTS[kind]), use)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "."}, "content": "xx"}),
        ("normalizer", {"type": "Prepend", "prepend": "▁"}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 17}),
        (
            "pre_tokenizer",
            {
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            },
        ),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁"}),
        ("decoder", {"type": "Metaspace"}),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
    ],
)
def test_parts_that_grow_hang_or_are_unknown_are_refused(part: str, value: Any) -> None:
    with pytest.raises(BadContent):
        check_tokenizer(DOCUMENTS["bpe"] | {part: value})


def test_sequences_within_sequences_are_bounded() -> None:
    part: Any = {"type": "NFC"}
    for _ in range(50):
        part = {"type": "Sequence", "normalizers": [part]}
    with pytest.raises(BadContent, match="sequence"):
        check_tokenizer(DOCUMENTS["bpe"] | {"normalizer": part})


def test_numbers_of_tokens_fit_together() -> None:
    for vocabulary in ({"a": 2**20}, {"a": 0, "b": 0}, {"a": -1}, {"x" * 5000: 0}):
        model = DOCUMENTS["char"]["model"] | {"vocab": vocabulary}
        with pytest.raises(BadContent):
            check_tokenizer(DOCUMENTS["char"] | {"model": model})
    model = DOCUMENTS["bpe"]["model"] | {"merges": [["h", "zzz"]]}
    with pytest.raises(BadContent, match="'zzz', which is no token"):
        check_tokenizer(DOCUMENTS["bpe"] | {"model": model})
    added = {"id": 0, "content": "<|other|>"}
    with pytest.raises(BadContent, match="twice"):
        check_tokenizer(DOCUMENTS["bpe"] | {"added_tokens": [added]})


def test_a_file_longer_than_any_tokenizer_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(TOKENIZER.limit_bytes + 1)
    with pytest.raises(RefusedFile):
        read_tokenizer_file(path)


@pytest.mark.parametrize(
    "digits", [r"\p{N}{1,3}", r"\p{N}"], ids=["the split of Llama 3", "the split of Qwen 2"]
)
def test_splits_of_well_known_models_pass(digits: str) -> None:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # fmt: skip
    split = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
    }  # fmt: skip
    part = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    made = DOCUMENTS["bpe"] | {"pre_tokenizer": part, "normalizer": {"type": "NFC"}}
    checked, _ = check_tokenizer(made)
    assert checked["pre_tokenizer"] == part
    ours = tokenizers.Tokenizer.from_str(json.dumps(made))
    loaded = tokenizers.Tokenizer.from_str(to_text(checked))
    assert loaded.encode(TEXTS[1]).ids == ours.encode(TEXTS[1]).ids
