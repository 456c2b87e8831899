"""Nothing but text reaches a terminal, and no message is longer than a reader."""

from __future__ import annotations

import io
import time
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from crystalline.untrusted import for_terminal, message, one_line, printable, shown
from crystalline.untrusted.text import MESSAGE_CHARS, UNSAFE_CATEGORIES

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x08\r\x7f\u202e\u2066"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_escape_sequences_reach_no_terminal() -> None:
    for made in (one_line(ESCAPES), printable(ESCAPES), for_terminal(ESCAPES, Terminal())):
        assert made.isprintable()
    assert len(one_line(ESCAPES)) == len(ESCAPES)  # columns stay where they are
    assert message(ESCAPES) == printable(ESCAPES)


def test_a_pipe_gets_the_text_as_it_is() -> None:
    assert for_terminal(ESCAPES, io.StringIO()) == ESCAPES


def test_what_scripts_and_emoji_need_stays() -> None:
    for text in ("नमस्ते\n", "می‌خواهم", "👩‍👩‍👧‍👦", "a\tb", "é ü 漢字"):
        assert for_terminal(text, Terminal()) == text


def test_a_long_name_is_cut_in_its_middle_and_quickly() -> None:
    name = "\x1b" + "x" * 90_000_000 + "end"
    began = time.perf_counter()
    made = shown(name, 100)
    assert time.perf_counter() - began < 0.5
    assert len(made) == 100
    assert made[:4] + made[-4:] == "?xxxxend"
    assert "…" in made


def test_a_message_is_short_also_where_all_of_it_is_spelled_out() -> None:
    for text in ("\x1b" * 5_000, "\udcff" * 1_999, "\u202e" * 10_000_000):
        assert len(message(text)) <= MESSAGE_CHARS


@given(st.text(), st.integers(1, 50))
def test_what_is_shown_is_printable_and_short(text: str, limit: int) -> None:
    made = shown(text, limit)
    assert len(made) <= limit
    assert not UNSAFE_CATEGORIES & {unicodedata.category(c) for c in made}


@given(st.text())
def test_a_line_of_text_can_be_encoded_and_stays_one_line(text: str) -> None:
    cleaned = one_line(text)
    assert cleaned.encode() or not text
    assert "\x1b" not in cleaned
    assert "\n" not in cleaned
    assert one_line("größe 名前") == "größe 名前"
