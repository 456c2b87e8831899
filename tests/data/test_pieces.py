"""Pieces: together they are the text, and no tokenizer notices the cuts."""

from __future__ import annotations

import itertools
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


@given(text=TEXTS, ends=st.lists(st.integers(0, 80)))
def test_where_pieces_end_does_not_depend_on_the_blocks(text: str, ends: list[int]) -> None:
    bounds = [0, *sorted(min(end, len(text)) for end in ends), len(text)]
    blocks = [text[a:b] for a, b in itertools.pairwise(bounds)]
    assert cut_small(blocks) == cut_small([text])


def test_text_without_a_place_to_cut_is_cut_anyway() -> None:
    text = "x" * (2 * pieces.LONGEST_PIECE_CHARS + 5)
    lengths = [len(piece) for piece in pieces.cut([text[:7], text[7:]])]
    assert lengths == [pieces.LONGEST_PIECE_CHARS, pieces.LONGEST_PIECE_CHARS, 5]


def test_a_real_source_file_is_cut_into_many_pieces() -> None:
    text = Path(pytest.__file__).with_name("__init__.py").read_text("utf-8") * 40
    lengths = [len(piece) for piece in pieces.cut([text])]
    assert len(lengths) == pytest.approx(len(text) / pieces.PIECE_CHARS, abs=2)
    assert max(lengths) < pieces.PIECE_CHARS + 200
