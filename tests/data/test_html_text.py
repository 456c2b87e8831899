"""HTML to text: as Python's parser has it for well-formed pages, and quick for all others."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.data.html_text import html_text
from tests.oracles.visible_text import visible_text

SIZE = 300_000
ATTRIBUTES = st.sampled_from(
    ["", ' class="a b"', " title='a > b'", " hidden", " href=x/y?a=1&b=2", " a=\"1\" b = '<p>' c"]
)
TEXTS = st.text(st.sampled_from("ab \n\t.ß\u00a0'\"=/>"), max_size=8)
REFERENCES = st.sampled_from(["&amp;", "&lt;p&gt;", "&#65;", "&#x1F600;", "&eacute", "&nbsp;", "&"])
VOIDS = st.sampled_from(["<br>", "<br/>", "<hr />", '<img src="a.png" alt="x">', "<!-- a > b -->",
                         "<!DOCTYPE html>", "<?xml version='1'?>", "<input value=a>"])  # fmt: skip
RAW = st.sampled_from(
    ["<script>if (a</b && c > d) x = '<p>';</script>", "<STYLE>p > a {}</style>", "<script/>"]
)
NAMES = st.sampled_from(["p", "div", "b", "SPAN", "pre", "li", "td", "h1", "template", "x-y"])


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    element = st.builds(
        lambda name, more, content, close: f"<{name}{more}>{content}" + close * f"</{name}>",
        NAMES, ATTRIBUTES, inner, st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    return st.lists(inner | element, max_size=4).map("".join)


PAGES = st.recursive(TEXTS | REFERENCES | VOIDS | RAW, nested, max_leaves=25)


def text_of(page: str) -> str:
    return "".join(html_text([page]))


@settings(max_examples=150)
@given(page=PAGES)
def test_well_formed_pages_read_as_ever(page: str) -> None:
    assert text_of(page) == visible_text(page)


def test_an_ordinary_page() -> None:
    page = (
        "<html><head><style>p {x}</style><script>if (a<b) {}</script></head><body>\n"
        "<h1>Title &amp; more</h1><p>Some <b>bold</b>\n   text.</p><br/>"
        "<pre>a\n  b</pre> <ul><li>one<li>two</ul><template><p>no</p></template></body></html>"
    )
    assert text_of(page) == "Title & more\n\nSome bold text.\n\na\n  b\n\none\ntwo\n"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("a < b && c > d", "a < b && c > d\n"),
        ("1<2", "1<2\n"),
        ("a</", "a</\n"),
        ("a</>b", "ab\n"),
        ("a<p", "a\n"),  # never closed: the rest of the page, as in a browser
        ("a<p title='x>b", "a\n"),
        ("a<!--b", "a\n"),
        ("a<!-->b<!--->c--!>d", "abc--!>d\n"),
        ("a<script>b</scripts>c", "a\n"),
        ("a<script>b</script >c", "a\nc\n"),
        ("a<p title=x'y>b</p>", "a\nb\n"),
        ("a<![CDATA[b>c]]>d", "ad\n"),
        ("a<?b>c", "ac\n"),
        ("&#0000000000000065;&#x41;&#55555;&#99999999999;", "AA\ufffd\ufffd\n"),
        ("</template></pre>a  b", "a b\n"),
        ("<script>x</script><p></p>", ""),
    ],
)
def test_what_is_malformed_reads_as_browsers_read_it(page: str, text: str) -> None:
    assert text_of(page) == text


def repeated(part: str, size: int = SIZE) -> str:
    return part * (size // len(part))


NASTY = {
    **{part: repeated(part) for part in (
        "<", "<a ", "<a", "</", "</a", "<!", "<!--", "<?", "<![CDATA[", "&", "&#", "<p>", "<b></p>",
        "<b><p>", "<a x='", "<a =", "<a b", "<script>", "<script></scrip", "<template>",
        "<font x=y>", "<ul><li>", "<table><tr><td>", "<svg>", "<textarea>", "<p>\t", "<!-->", "</>",
        "\ufeff<",
    )},
    "100,000 deep": "<div>" * 100_000 + "x" + "</div>" * 100_000,
    "many attributes": "<a " + " ".join(f"a{i}=1" for i in range(SIZE // 8)) + ">x</a>",
    "a long reference": "&#" + "9" * SIZE + ";",
    "leading zeros": "&#" + "0" * SIZE + "65;",
    "blanks in a tag": "<a" + " " * SIZE,
    "blanks in pre": "<pre>" + "\t" * SIZE + "x",
    "blanks": "x" + " " * SIZE + "x",
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_no_page_takes_long(name: str) -> None:
    began = time.process_time()
    text_of(NASTY[name])
    assert time.process_time() - began < 2.0


def test_long_references_do_not_meet_the_limit_on_digits() -> None:
    assert text_of(NASTY["a long reference"]) == "\ufffd\n"
    assert text_of(NASTY["leading zeros"]) == "A\n"
