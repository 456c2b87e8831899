"""Tokenizers there and back; the values llama.cpp reads; what it cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.formats.gguf import SpecialTokens, read_gguf, write_gguf
from crystalline.formats.gguf.container import Container, Header
from crystalline.formats.gguf.model import GgufModel
from crystalline.formats.gguf.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED
from tests.formats.gguf.models import FOREIGN, TEXT, config_of, tensors_of, trained

KINDS = ("bpe", "byte", "char", "llama3", "qwen", *FOREIGN)


def written(folder: Path, tokenizer: Path, padding: int = 0, **arguments: Any) -> GgufModel:
    path = folder / "model.gguf"
    vocab_size = Tokenizer.load(tokenizer).vocab_size + padding
    config = config_of("llama", vocab_size)
    write_gguf(path, config, tensors_of(config).items(), tokenizer=tokenizer, **arguments)
    return read_gguf(path)


def changed(folder: Path, kind: str, change: Any) -> Path:
    path = trained(kind, folder)
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")
    return path


def back(folder: Path, model: GgufModel) -> Tokenizer:
    path = folder / "back.json"
    path.write_text(json.dumps(model.vocabulary().document), "utf-8")
    return Tokenizer.load(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [0, 3])
def test_the_same_tokenizer_comes_back(tmp_path: Path, kind: str, padding: int) -> None:
    path = trained(kind, tmp_path)
    tokenizer = Tokenizer.load(path)
    model = written(tmp_path, path, padding, chat_template="{{ messages }}")
    found = back(tmp_path, model)
    assert found.kind == tokenizer.kind
    assert comparable(found) == comparable(tokenizer)
    assert found.prompt_start == tokenizer.prompt_start
    vocabulary = model.vocabulary()
    assert vocabulary.chat_template == "{{ messages }}"
    assert vocabulary.special.eos == tokenizer.eot_id
    begin = tokenizer.prompt_start[0] if tokenizer.prompt_start else tokenizer.eot_id
    assert vocabulary.special.bos == begin
    assert vocabulary.special.add_bos == bool(tokenizer.prompt_start)


def comparable(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the document without what moves places in a text, which GGUF does not keep."""
    document: dict[str, Any] = json.loads(tokenizer.to_json())
    del document["post_processor"]
    return document


def test_bounds_on_words_come_back(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    Tokenizer.train("bpe", ["ACGT" * 300, TEXT], 300).save(path)
    assert "{1,512}" in path.read_text("utf-8")
    model = written(tmp_path, path)
    assert json.loads(back(tmp_path, model).to_json()) == json.loads(path.read_text("utf-8"))


def test_values_are_those_of_llama_cpp(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["added_tokens"][1]["special"] = False

    model = written(tmp_path, changed(tmp_path, "llama3", change), padding=2)
    container = Container(model.path)
    assert container.get("tokenizer.ggml.model") == "gpt2"
    assert container.get("tokenizer.ggml.pre") == "llama-bpe"
    tokens = container.get("tokenizer.ggml.tokens")
    types = container.get("tokenizer.ggml.token_type")
    document = json.loads((tmp_path / "llama3.json").read_text("utf-8"))
    assert all(tokens[id_] == token for token, id_ in document["model"]["vocab"].items())
    unused = [f"[PAD{id_}]" for id_ in (len(tokens) - 2, len(tokens) - 1)]
    assert tokens[-4:] == ["<|endoftext|>", "<|im_start|>", *unused]
    assert types[-5:] == [NORMAL, CONTROL, USER_DEFINED, UNUSED, UNUSED]
    assert container.get("tokenizer.ggml.merges")[0] == " ".join(document["model"]["merges"][0])
    assert container.get("tokenizer.ggml.eos_token_id") == len(tokens) - 4
    assert container.get("tokenizer.ggml.add_bos_token") is False
    added = back(tmp_path, model).inner.get_added_tokens_decoder()
    assert [token.special for token in added.values()] == [True, False]


def test_a_token_that_begins_texts_is_kept(tmp_path: Path) -> None:
    """Llama 3's post-processor puts one there."""
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [289], "tokens": ["<|im_start|>"]}
        },
    }
    both = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}
    for processor in (template, both):
        path = changed(tmp_path, "llama3", lambda d, p=processor: d.update(post_processor=p))
        model = written(tmp_path, path)
        special = model.vocabulary().special
        assert special.add_bos
        assert (special.bos, special.eos) == (289, 288)
        found = tokenizers.Tokenizer.from_str(json.dumps(model.vocabulary().document))
        assert found.encode("a").ids == [289, *found.encode("a", add_special_tokens=False).ids]


def test_special_tokens_that_are_named_go_before(tmp_path: Path) -> None:
    special = SpecialTokens(bos=3, eos=5, unk=6, pad=7, add_bos=True, add_eos=True)
    model = written(tmp_path, trained("bpe", tmp_path), special=special)
    assert model.vocabulary().special == special
    with pytest.raises(DataError, match="eos token is number 5000"):
        written(tmp_path, trained("bpe", tmp_path), special=SpecialTokens(eos=5000))


# --- what llama.cpp cannot hold -------------------------------------------------------------------


def splitter(document: dict[str, Any], **changes: Any) -> None:
    document["pre_tokenizer"]["pretokenizers"][0] |= changes


REFUSED: list[tuple[str, Any, str]] = [
    ("bpe", lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "does not split"),
    ("bpe", lambda d: d["pre_tokenizer"].update(use_regex=False), "does not split"),
    ("llama3", lambda d: splitter(d, behavior="Removed"), "does not split"),
    ("llama3", lambda d: splitter(d, invert=True), "does not split"),
    ("bpe", lambda d: d.update(normalizer={"type": "NFC"}), "does not normalize"),
    ("qwen", lambda d: d.update(normalizer={"type": "NFKC"}), "does not normalize"),
    ("bpe", lambda d: d["added_tokens"][0].update(lstrip=True), "takes the blanks"),
    ("bpe", lambda d: d["model"]["vocab"].update({"xyzzy": 299}), "has a number twice|do not lead"),
    ("llama3", lambda d: (d["model"]["vocab"].update({"xyzzy": 290}),
                          d["model"].update(ignore_merges=False)), "do not lead to the token"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "words"), REFUSED)
def test_what_llama_cpp_does_otherwise_is_refused(
    tmp_path: Path, kind: str, change: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        written(tmp_path, changed(tmp_path, kind, change), padding=5)
    assert caught.value.advice


def test_merges_that_lead_to_every_token_may_be_skipped_or_not(tmp_path: Path) -> None:
    path = changed(tmp_path, "llama3", lambda d: d["model"].update(ignore_merges=False))
    model = written(tmp_path, path)
    assert json.loads(back(tmp_path, model).to_json())["model"]["ignore_merges"] is False
    assert Container(model.path).get("tokenizer.ggml.pre") == "llama-bpe"


def test_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot look up whole words.*--tokenizer bpe"):
        written(tmp_path, trained("word", tmp_path))


def test_characters_without_an_end_of_text_are_refused(tmp_path: Path) -> None:
    """llama.cpp would end texts at token 11."""
    path = trained("char", tmp_path, [TEXT])
    with pytest.raises(DataError, match="number 11 for one"):
        written(tmp_path, path)
    few = trained("char", tmp_path, ["abc def"])
    assert back(tmp_path, written(tmp_path, few)).eot_id is None


def test_more_tokens_than_the_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the model 29[0-9]"):
        written(tmp_path, trained("bpe", tmp_path), padding=-2)


def test_missing_and_damaged_tokenizers_are_named(tmp_path: Path) -> None:
    config = config_of("llama")
    for content in (None, "{", '{"model": {"type": "Unigram"}}'):
        path = tmp_path / "tokenizer.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=r"tokenizer\.json cannot be (read|used)"):
            write_gguf(tmp_path / "m.gguf", config, [], tokenizer=path)
    assert not (tmp_path / "m.gguf").exists()


# --- files of others ------------------------------------------------------------------------------


def other(folder: Path, changes: dict[str, Any]) -> GgufModel:
    """Return a model whose tokenizer has changed values; None removes one."""
    return rewritten(written(folder, trained("bpe", folder)), changes)


def rewritten(model: GgufModel, changes: dict[str, Any]) -> GgufModel:
    container = Container(model.path)
    values: dict[str, Any] = {}
    for key in container.keys():  # noqa: SIM118 - not a mapping
        value = container._values[key]
        kind: Any = value.kind
        found = container.get(key)
        values[key] = (kind, (value.inner, found) if kind == "list" else found)
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    tensors = [(info.name, info.shape, info.kind) for info in container.tensors.values()]
    header = Header(values, tensors)
    model.path.write_bytes(header.head.ljust(header.size_bytes, b"\0"))
    return read_gguf(model.path)


GGML = "tokenizer.ggml."
VOCAB = 300
BAD: list[tuple[dict[str, Any], str]] = [
    ({GGML + "model": ("text", "bert")}, "of the kind 'bert'"),
    ({GGML + "model": ("text", "llama")}, "scores do not fit"),
    ({GGML + "model": None}, "of the kind None"),
    ({GGML + "pre": ("text", "falcon")}, "splits text as 'falcon'"),
    ({GGML + "pre": None}, "splits text as None"),
    ({GGML + "tokens": None}, "0 tokens"),
    ({GGML + "tokens": ("list", ("text", ["a"]))}, "1 tokens, its embeddings"),
    ({GGML + "tokens": ("list", ("u32", list(range(VOCAB))))}, "no texts"),
    ({GGML + "tokens": ("list", ("text", ["a"] * VOCAB))}, "twice"),
    ({GGML + "token_type": ("list", ("i32", [1]))}, "types of tokens"),
    ({GGML + "token_type": ("text", "x")}, "types of tokens"),
    ({GGML + "token_type": ("list", ("i32", [2**31 - 1] * VOCAB))}, "no token"),
    ({GGML + "merges": None}, "merges are no list"),
    ({GGML + "merges": ("list", ("text", ["ab"]))}, "no pair"),
    ({GGML + "merges": ("list", ("text", ["x zz"]))}, "no token"),
    ({GGML + "merges": ("list", ("u8", [1, 2]))}, "no pair"),
    ({"tokenizer.chat_template": ("text", "x" * (1 << 21))}, "chat template"),
    ({"tokenizer.chat_template": ("u32", 5)}, "chat template"),
    ({"crystalline.tokenizer.kind": ("text", "char")}, "is no character"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_tokenizers_that_cannot_be_are_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    vocab_size = Tokenizer.load(trained("bpe", tmp_path)).vocab_size
    for key, value in changes.items():
        if value and value[0] == "list" and len(value[1][1]) == VOCAB:
            changes = changes | {key: ("list", (value[1][0], value[1][1][:vocab_size]))}
    model = other(tmp_path, changes)
    with pytest.raises(DataError, match=words) as caught:
        model.vocabulary()
    assert caught.value.advice
    assert len(str(caught.value)) < 600


def test_what_other_programs_leave_out_is_llama_cpp_s_default(tmp_path: Path) -> None:
    own = [f"crystalline.tokenizer.{name}" for name in ("kind", "ignore_merges")]
    model = other(
        tmp_path,
        dict.fromkeys([*own, GGML + "add_bos_token"]) | {GGML + "pre": ("text", "llama3")},
    )
    vocabulary = model.vocabulary()
    assert vocabulary.special.add_bos
    assert vocabulary.document["model"]["ignore_merges"] is True
    model = other(tmp_path, dict.fromkeys(own) | {GGML + "pre": ("text", "qwen2")})
    assert model.vocabulary().document["normalizer"] == {"type": "NFC"}
    model = other(
        tmp_path, {GGML + "eos_token_id": ("u32", 2**32 - 1), GGML + "bos_token_id": None}
    )
    assert model.vocabulary().special == SpecialTokens()


def test_added_tokens_keep_their_numbers_wherever_they_stand(tmp_path: Path) -> None:
    """The library numbers those behind all others, unless the vocabulary has them too."""
    base = other(tmp_path, {})
    tokens = Container(base.path).get(GGML + "tokens")
    types = Container(base.path).get(GGML + "token_type")
    tokens = [tokens[-1], *tokens[:-1]]
    types = [types[-1], *types[:-1]]
    model = other(
        tmp_path,
        {
            GGML + "tokens": ("list", ("text", tokens)),
            GGML + "token_type": ("list", ("i32", types)),
        },
    )
    tokenizer = back(tmp_path, model)
    assert tokenizer.eot_id == 0
    assert tokenizer.encode("a<|endoftext|>b").tolist() == [
        tokens.index("a"), 0, tokens.index("b")
    ]  # fmt: skip


# --- SentencePiece --------------------------------------------------------------------------------

SPM_REFUSED: list[tuple[str, Any, str]] = [
    ("llama2", lambda d: d["model"]["merges"].pop(), "in every way"),
    ("llama2", lambda d: d["model"]["merges"].append(d["model"]["merges"][0]), "not in the order"),
    ("llama2", lambda d: d["model"].update(byte_fallback=False), "no tokens for bytes"),
    ("llama2", lambda d: d["model"].update(ignore_merges=True), "skip its merges"),
    ("llama2", lambda d: d.update(normalizer={"type": "NFC"}), "does not normalize"),
    ("metaspace", lambda d: d["pre_tokenizer"].update(split=True), "splits text at spaces"),
]


@pytest.mark.parametrize(("kind", "change", "words"), SPM_REFUSED)
def test_merges_that_scores_cannot_say_are_refused(
    tmp_path: Path, kind: str, change: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        written(tmp_path, changed(tmp_path, kind, change))


def spm_other(folder: Path, changes: Any) -> GgufModel:
    """Return a model of Llama 2's tokenizer with changed values, made from the number of tokens."""
    model = written(folder, trained("llama2", folder), padding=2)
    return rewritten(model, changes(model.config.vocab_size))


def scores(kind: str, one: Any) -> Any:
    return lambda count: {GGML + "scores": ("list", (kind, [one] * count))}


def long_token(count: int) -> dict[str, Any]:
    """Cutting it in two at every place would take hours."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "x" * 10_000_000]
    tokens += [f"t{i}" for i in range(len(tokens), count)]
    types = [2] + [1] * (count - 1)
    return {
        GGML + "tokens": ("list", ("text", tokens)),
        GGML + "token_type": ("list", ("i32", types)),
    }


SPM_BAD: list[tuple[Any, str]] = [
    (lambda _: {GGML + "scores": None}, "scores do not fit"),
    (lambda _: {GGML + "scores": ("list", ("f32", [1.0]))}, "scores do not fit"),
    (scores("f32", -1.0), "same score"),
    (scores("f32", float("nan")), "finite"),
    (scores("text", "a"), "finite"),
    (lambda _: {GGML + "remove_extra_whitespaces": ("bool", True)}, "removes spaces"),
    (lambda n: {GGML + "token_type": ("list", ("i32", [UNUSED] * n))}, "no tokens for bytes"),
    (long_token, "more than 256 characters"),
]


@pytest.mark.parametrize(("changes", "words"), SPM_BAD)
def test_sentencepiece_that_cannot_be_is_one_sentence(
    tmp_path: Path, changes: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        spm_other(tmp_path, changes).vocabulary()


def test_defaults_of_sentencepiece_are_those_of_llama_cpp(tmp_path: Path) -> None:
    keys = [f"{GGML}{name}_token_id" for name in ("bos", "eos", "unknown")]
    model = spm_other(tmp_path, lambda _: dict.fromkeys([GGML + "add_bos_token", *keys]))
    special = model.vocabulary().special
    assert special == SpecialTokens(bos=1, eos=2, unk=0, add_bos=True)
    assert back(tmp_path, model).prompt_start == (1,)
