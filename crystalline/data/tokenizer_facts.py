"""What files beside tokenizer.json say about its tokens, and which token parts documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crystalline.data.pieces import END_OF_TEXT

# What stands between documents, in the models of others: the first of them that is there.
_SEPARATORS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")


@dataclass(frozen=True)
class TokenizerFacts:
    """What a model's folder says about the tokens of its tokenizer.

    What of it the vocabulary does not have is passed over.
    """

    end_ids: tuple[int, ...] = ()  # tokens at which a text ends, the separator of documents first
    special: Mapping[str, str] = field(default_factory=dict)  # "bos_token", "eos_token", … → token
    chat_template: str | None = None  # in Jinja, as transformers renders it


NO_FACTS = TokenizerFacts()


def find_separator(special_tokens: Iterable[str]) -> str | None:
    """Return which of a tokenizer's special tokens parts documents, by its name.

    >>> find_separator(["<s>", "</s>", "<|endoftext|>"]), find_separator(["<s>"])
    ('<|endoftext|>', None)
    """
    there = set(special_tokens)
    return next((token for token in _SEPARATORS if token in there), None)
