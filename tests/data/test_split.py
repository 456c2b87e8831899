"""The held-out split: whole documents where there are enough, otherwise the end of the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystalline.data.corpus import Corpus, read_corpus
from crystalline.data.finding import find_sources
from crystalline.data.split import MIN_DOCUMENTS, hold_out


def make(folder: Path, texts: list[str]) -> Corpus:
    for number, text in enumerate(texts):
        (folder / f"{number:04}.txt").write_text(text, encoding="utf-8")
    return read_corpus(find_sources([folder]))


def both(corpus: Corpus, fraction: float) -> tuple[str, str]:
    held_out = hold_out(corpus, fraction)
    train, val = ("".join(text for _, text in held_out.texts(corpus, val)) for val in (False, True))
    return train, val


def test_of_one_document_the_end_is_held_out_by_characters(tmp_path: Path) -> None:
    text = "".join(chr(0x100 + i % 500) for i in range(40_003))
    train, val = both(make(tmp_path, [text]), 0.1)
    assert train == text[: int(0.9 * 40_003)]
    assert train + val == text


def test_of_few_documents_the_end_is_held_out_across_them(tmp_path: Path) -> None:
    texts = ["a" * 50, "b" * 30, "c" * 20]
    corpus = make(tmp_path, texts)
    held_out = hold_out(corpus, 0.35)
    assert list(held_out.texts(corpus, False)) == [(0, "a" * 50), (1, "b" * 15)]
    assert list(held_out.texts(corpus, True)) == [(1, "b" * 15), (2, "c" * 20)]


def test_whole_documents_are_held_out_when_there_are_enough(tmp_path: Path) -> None:
    texts = [f"document {n} " * (10 + n % 7) + "\n" for n in range(60)]
    corpus = make(tmp_path, texts)
    held_out = hold_out(corpus, 0.1)
    train = [number for number, _ in held_out.texts(corpus, False)]
    val = [number for number, _ in held_out.texts(corpus, True)]
    assert sorted(train + val) == list(range(60))
    share = sum(len(texts[n]) for n in val) / sum(map(len, texts))
    assert 0.1 <= share < 0.1 + 1 / 40
    assert val != list(range(60 - len(val), 60)), "the last documents are no sample"


def test_the_choice_follows_content_not_names_or_order(tmp_path: Path) -> None:
    texts = [f"text {n} " * 9 for n in range(50)]
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    forward, backward = make(tmp_path / "1", texts), make(tmp_path / "2", texts[::-1])
    chosen = [
        {text for _, text in hold_out(corpus, 0.2).texts(corpus, True)}
        for corpus in (forward, backward)
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) >= 10


def test_equal_documents_stay_together(tmp_path: Path) -> None:
    texts = [f"text {n // 5} " * 9 for n in range(100)]
    corpus = make(tmp_path, texts)
    held_out = hold_out(corpus, 0.12)
    train = {text for _, text in held_out.texts(corpus, False)}
    val = {text for _, text in held_out.texts(corpus, True)}
    assert val
    assert not train & val


@pytest.mark.parametrize(
    "texts",
    [
        ["x" * 10] * (MIN_DOCUMENTS - 1),
        ["x" * 10] * MIN_DOCUMENTS,  # all equal: nothing would be left to train on
        ["y" * 100, *(f"x{n:09}" for n in range(MIN_DOCUMENTS))],  # one is too large
    ],
)
def test_otherwise_the_end_of_the_text(tmp_path: Path, texts: list[str]) -> None:
    train, val = both(make(tmp_path, texts), 0.1)
    whole = "".join(texts)
    assert (train, val) == (whole[: int(len(whole) * 0.9)], whole[int(len(whole) * 0.9) :])


def test_nothing_is_held_out_on_request(tmp_path: Path) -> None:
    assert both(make(tmp_path, [f"{n} " * 20 for n in range(30)]), 0.0)[1] == ""


def test_three_characters_can_be_split(tmp_path: Path) -> None:
    assert both(make(tmp_path, ["aéb"]), 0.1) == ("aé", "b")
