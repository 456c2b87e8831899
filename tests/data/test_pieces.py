"""Pieces: together they are the text, and no tokenizer notices the cuts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.data import pieces
from crystalline.data.tokenizer import Tokenizer

TEXTS = st.text(st.sampled_from("ab'st1 \n\t.ß\u00a0\u3000\x1c\x85"), max_size=80)


def cut_small(blocks: list[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_CHARS", 3)
        patch.setattr(pieces, "LONGEST_PIECE_CHARS", 1000)
        return list(pieces.cut(blocks))


@pytest.fixture(scope="module")
def tokenizers_by_kind() -> dict[str, Tokenizer]:
    texts = ["a test's\n\n  b1 'st ab  ab\t.\n a ß ßß  tt tst"] * 3
    return {kind: Tokenizer.train(kind, texts, 300) for kind in ("bpe", "word")}


@pytest.mark.parametrize("kind", ["bpe", "word"])
@settings(deadline=None)
@given(text=TEXTS)
def test_cutting_changes_no_token(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, text: str
) -> None:
    inner = tokenizers_by_kind[kind].inner
    cut = cut_small([text])
    assert "".join(cut) == text
    assert all(cut)
    ids = [id_ for piece in cut for id_ in inner.encode(piece).ids]
    assert ids == inner.encode(text).ids


WORDS = st.lists(
    st.sampled_from(
        ["a", "ab'", "'ll", "'", "1", "12", "!", "|", "<", " ", "\u3000", "\n", "\x1c",
         "<|endoftext|>", "<|endof", "aaaa", "    ", "....", "7777", "\u4e2d\u6587", "\U0001f600"]
    ),
    max_size=120,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def short_words() -> Iterator[dict[str, Tokenizer]]:
    """Tokenizers whose words have at most four characters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crystalline.data.tokenizer.LONGEST_WORD", 4)
        patch.setattr("crystalline.data.tokenizer.BOUNDED_PATTERN", pieces.word_pattern(4))
        texts = ["aaaaaaaa ab'll ab' 1212 77777 .... !!!! <<|| \u4e2d\u6587\u4e2d\u6587"] * 3
        yield {kind: Tokenizer.train(kind, texts, 300, long_words=True) for kind in ("bpe", "word")}


@pytest.mark.parametrize("kind", ["bpe", "word"])
@settings(deadline=None)
@given(text=WORDS)
def test_cutting_between_bounded_words_changes_no_token(
    short_words: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = short_words[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_CHARS", 3)
        patch.setattr(pieces, "LONGEST_PIECE_CHARS", 40)
        cut = list(pieces.cut([text], 4))
        halves = list(pieces.cut([text[:33], text[33:]], 4))
    assert "".join(cut) == text
    assert halves == cut
    assert max(map(len, cut), default=0) <= 40
    ids = [id_ for piece in cut for id_ in tokenizer.inner.encode(piece).ids]
    assert ids == tokenizer.inner.encode(text).ids


@pytest.mark.parametrize("kind", ["bpe", "word"])
@settings(deadline=None)
@given(text=WORDS)
def test_cutting_between_whole_words_changes_no_token(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, text: str
) -> None:
    """A tokenizer without a bound gets pieces as long as its words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_CHARS", 3)
        patch.setattr(pieces, "LONGEST_PIECE_CHARS", 20)
        cut = list(pieces.cut([text], None))
    inner = tokenizers_by_kind[kind].inner
    ids = [id_ for piece in cut for id_ in inner.encode(piece).ids]
    assert ids == inner.encode(text).ids


@pytest.mark.parametrize(
    "char", ["a", "7", "-", " ", "\n", "\u3000", "\u4e2d", "\U0001f600", "\x1c"]
)
def test_long_words_are_noticed(char: str) -> None:
    longest = pieces.LONGEST_WORD
    other = "9" if char != "7" else "a"
    for around in ("", other * 9):
        assert pieces.has_long_word(around + char * longest + around)
        assert not pieces.has_long_word(around + char * (longest - 1) + other)
    assert not pieces.has_long_word((char * 99 + other * 99) * 30)


@given(text=TEXTS, ends=st.lists(st.integers(0, 80)))
def test_where_pieces_end_does_not_depend_on_the_blocks(text: str, ends: list[int]) -> None:
    bounds = [0, *sorted(min(end, len(text)) for end in ends), len(text)]
    blocks = [text[a:b] for a, b in itertools.pairwise(bounds)]
    assert cut_small(blocks) == cut_small([text])


def test_text_without_white_space_is_cut_where_a_bounded_word_ends() -> None:
    longest, bound = pieces.LONGEST_PIECE_CHARS, pieces.LONGEST_WORD
    text = "12" + "x" * (2 * longest + 5)
    lengths = [len(piece) for piece in pieces.cut([text[:7], text[7:]])]
    assert sum(lengths) == len(text)
    assert max(lengths) <= longest
    assert (lengths[0] - 2) % bound == lengths[1] % bound == 0
    assert [len(piece) for piece in pieces.cut([text], None)] == [2, 2 * longest + 5]


def test_a_real_source_file_is_cut_into_many_pieces() -> None:
    text = Path(pytest.__file__).with_name("__init__.py").read_text("utf-8") * 40
    lengths = [len(piece) for piece in pieces.cut([text])]
    assert len(lengths) == pytest.approx(len(text) / pieces.PIECE_CHARS, abs=2)
    assert max(lengths) < pieces.PIECE_CHARS + 200
