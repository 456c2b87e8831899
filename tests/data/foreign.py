"""Small tokenizers as other models have them, trained here: their splits, templates and decoders.

The documents are laid out as the published tokenizer.json of each model; the vocabulary is small.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = _CONTRACTIONS + r"\p{N}{1,3}" + _REST
QWEN2_SPLIT = _CONTRACTIONS + r"\p{N}" + _REST
TEXT = (
    "It's  the\tquick brown fox, it's 1234567 dogs!\n\n  hello <|endo> world's café ☃ ab cd .\r\n"
    " 😀 naïve 漢字 DON'T e\u0301 don't the the the quick quick 12 123 x=y+z; \n\n\n def f(a):\n"
) * 3
VOCABULARY = 420


def _byte_level(pattern: str | None, special: list[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=pattern == LLAMA3_SPLIT))
    if pattern is None:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT], trainer)
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    return made


def llama3() -> tokenizers.Tokenizer:
    """Llama 3: its split, whole words before merges, and a token that begins every text."""
    made = _byte_level(LLAMA3_SPLIT, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    begin = "<|begin_of_text|>"
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A",
                pair=f"{begin} $A {begin}:1 $B:1",
                special_tokens=[(begin, made.token_to_id(begin))],
            ),
        ]
    )
    return made


def qwen2() -> tokenizers.Tokenizer:
    """Qwen 2 and 3: digits one by one, NFC, added tokens that are not special."""
    made = _byte_level(QWEN2_SPLIT, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def gpt2() -> tokenizers.Tokenizer:
    """GPT-2."""
    made = _byte_level(None, ["<|endoftext|>"])
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def digits() -> tokenizers.Tokenizer:
    """As small models have it: digits apart, then GPT-2's split; marks that eat white space."""
    made = _byte_level(None, ["<|endoftext|>"])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.add_special_tokens([AddedToken("<mark>", lstrip=True, rstrip=True)])
    return made


def _sentencepiece() -> tokenizers.Tokenizer:
    special = ["<unk>", "<s>", "</s>"]
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    words = tokenizers.Tokenizer(models.BPE())
    words.normalizer = made.normalizer
    words.pre_tokenizer = pre_tokenizers.Metaspace("▁", "never")
    alphabet = sorted(set(TEXT.lower()) & set("▁abcdefghijklmnopqrstuvwxyz0123456789'.,!é"))
    words.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=120, initial_alphabet=alphabet, limit_alphabet=60, show_progress=False
        ),
    )
    trained = json.loads(words.to_str())["model"]
    vocabulary = {one: id_ for id_, one in enumerate(special)}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for token in trained["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    document = json.loads(made.to_str())
    document["model"] |= {"vocab": vocabulary, "merges": trained["merges"]}
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return made


def llama2() -> tokenizers.Tokenizer:
    """Llama 2 and TinyLlama: SentencePiece's BPE, spaces by normalizers."""
    return _sentencepiece()


def metaspace() -> tokenizers.Tokenizer:
    """The same in the later layout: spaces by a pre-tokenizer, before the first word only."""
    made = _sentencepiece()
    made.normalizer = None  # type: ignore[assignment]
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    return made


MAKERS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    maker.__name__: maker for maker in (llama3, qwen2, gpt2, digits, llama2, metaspace)
}


@functools.cache
def document(name: str) -> str:
    """Return the content of tokenizer.json."""
    made: str = MAKERS[name]().to_str()
    return made


def special(name: str) -> dict[str, Any]:
    """Return what tokenizer_config.json says of special tokens."""
    return {
        "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "qwen2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "llama2": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "metaspace": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    }.get(name, {"eos_token": "<|endoftext|>"})


NASTY = (
    "", "a", " ", "  ", "\n", "\t\t", "ab cd", " a . b , c ' d", "dogs !", "it 's", "don't",
    "<|endoftext|>", "  <|endoftext|>  a", "a<|endoftext|><|endoftext|>b", "<|endo", "<|", "<unk>",
    " <unk> ", "[UNK]", "<pad>", "<s> </s>", "▁the", "Ġthe", "e\u0301", "é", "ﬁ", "İ", "ẞ",
    "\r\n\r\n", "\u200b", "a\u00a0b", "\u3000", "\x00", "😀😀", "☃ ", "the the", "DON'T", "x" * 99,
    "<|begin_of_text|>a<|eot_id|> b", "<|im_start|>user\nhi<|im_end|>\n", "a <mark>  b",
    "<tool_call>",
    "foo.\n\n bar", "x)\n\n\ny", "12345678", "\u0301a", "  \n  \n", "a\rb", "👨‍👩‍👧 family",
)  # fmt: skip


def texts() -> list[str]:
    """Return nasty texts, and 300 drawn from the characters of `TEXT`."""
    draw = random.Random(7)
    drawn = ["".join(draw.choices(TEXT, k=draw.randint(1, 40))) for _ in range(300)]
    return [*NASTY, *drawn, TEXT]
