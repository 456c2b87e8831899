r"""HTML to its visible text, in time that grows with the length, whatever the page looks like.

White space is folded except in `<pre>`, a block begins a new line, and what stands in
`<script>`, `<style>` and `<template>` is not shown.  Tags are taken as they come, no tree is
built: a page that leaves `</li>` and `</p>` out reads as it is written, and nesting costs
nothing.  Tags, comments and character references are told apart as the HTML standard's
tokenizer does (https://html.spec.whatwg.org/multipage/parsing.html#tokenization); what is not
closed swallows the rest of the page, as it does in a browser.

Why no library: those at hand build a tree, and their time grows with the square of the depth
(of 300 kB of `<div>` lexbor takes more than ten seconds; libxml2 two for `<b></p>`), the tags
that they put in would change the text of pages, and that text would follow the library's
version, from which the tokens of a run, and so its bits, would depend on it.  Python's own
`html.parser` takes minutes for 300 kB of `<!--`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import unescape

_INLINE_TAGS = """
    a abbr b bdi bdo big cite code del dfn em font i img ins kbd mark q s samp small span strong
    sub sup time tt u var wbr
"""
_INLINE = frozenset(_INLINE_TAGS.split())
_HIDDEN = frozenset({"script", "style", "template"})
_RAW = frozenset({"script", "style"})  # no tags inside but their own end

_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")  # any other `<` is itself
_NAME = re.compile(r"</?([a-zA-Z][^\t\n\f\r />]*)")
_PLAIN_END = re.compile(r"[^>\"'=]*>")  # of a tag whose attributes have no values
_ATTRIBUTE = re.compile(r"[\t\n\f\r /]*([^\t\n\f\r />][^\t\n\f\r />=]*)?[\t\n\f\r ]*(=?)")
_SPACE = re.compile(r"[\t\n\f\r ]*")
_UNQUOTED = re.compile(r"[^\t\n\f\r >]*")
_RAW_END = {name: re.compile(rf"</{name}(?=[\t\n\f\r />])", re.IGNORECASE) for name in _RAW}
_COMMENT_END = re.compile(r"--!?>")
_LONG_REFERENCE = re.compile(r"&#([0-9]{8,});?")
_FOLD = re.compile(r"\s+")


def html_text(blocks: Iterable[str]) -> Iterator[str]:
    """Yield the visible text of a page, which is joined first; nothing where there is none.

    >>> list(html_text(["<h1>One &amp; two</h1><p>Some <b>bold</b>", "  words.<script>x<y"]))
    ['One & two\\n\\nSome bold words.\\n']
    """
    text = "".join(_Page("".join(blocks)).parts())
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        yield text + "\n"


class _Page:
    """One pass over a page: where it is, and what the tags so far mean for the text here."""

    def __init__(self, page: str) -> None:
        self._page = page
        self._at = 0
        self._hidden = 0
        self._verbatim = 0
        self._after_break = True

    def parts(self) -> Iterator[str]:
        """Yield text and line breaks in order."""
        page = self._page
        while self._at < len(page):
            markup = _MARKUP.search(page, self._at)
            start = markup.start() if markup else len(page)
            if start > self._at:
                yield from self._data(page[self._at : start])
            self._at = start
            if start < len(page):
                yield from self._markup()

    def _markup(self) -> Iterator[str]:
        """Read what begins with the `<` here."""
        page, start = self._page, self._at
        name = _NAME.match(page, start)
        if name:
            yield from self._tag(name[1].lower(), name.end(), closes=page[start + 1] == "/")
        elif page.startswith("<!--", start):
            if page.startswith((">", "->"), start + 4):  # empty, says the standard
                self._at = page.index(">", start) + 1
            else:
                end = _COMMENT_END.search(page, start + 4)
                self._at = end.end() if end else len(page)
        elif page.startswith("<![CDATA[", start):
            self._skip_to("]]>")
        elif page.startswith(("<!", "<?"), start) or (
            page.startswith("</", start) and start + 2 < len(page)
        ):
            self._skip_to(">")
        else:
            self._at = start + 1
            yield from self._data("<")

    def _skip_to(self, end: str) -> None:
        found = self._page.find(end, self._at)
        self._at = len(self._page) if found < 0 else found + len(end)

    def _tag(self, name: str, after_name: int, *, closes: bool) -> Iterator[str]:
        end = self._tag_end(after_name)
        if end is None:
            self._at = len(self._page)
            return
        self._at = end
        closed_at_once = not closes and self._page[end - 2] == "/"
        if not closed_at_once:
            step = -1 if closes else 1
            if name in _HIDDEN:
                self._hidden = max(0, self._hidden + step)
            if name == "pre":
                self._verbatim = max(0, self._verbatim + step)
        if name not in _INLINE and not self._hidden:
            self._after_break = True
            yield "\n"
        if name in _RAW and not closes and not closed_at_once:
            raw_end = _RAW_END[name].search(self._page, end)
            self._at = raw_end.start() if raw_end else len(self._page)

    def _tag_end(self, at: int) -> int | None:
        """Return where a tag is over whose name ends at `at`; None where it never is."""
        page = self._page
        plain = _PLAIN_END.match(page, at)
        if plain:
            return plain.end()
        while True:
            attribute = _ATTRIBUTE.match(page, at)
            assert attribute is not None
            at = attribute.end()
            if attribute[2]:
                space = _SPACE.match(page, at)
                assert space is not None
                at = space.end()
                quote = page[at : at + 1]
                if quote in ('"', "'"):
                    at = page.find(quote, at + 1) + 1
                    if at == 0:
                        return None
                else:
                    value = _UNQUOTED.match(page, at)
                    assert value is not None
                    at = value.end()
            if at >= len(page):
                return None
            if page[at] == ">":
                return at + 1

    def _data(self, data: str) -> Iterator[str]:
        if self._hidden:
            return
        data = unescape(_LONG_REFERENCE.sub(_shorter, data))
        if not self._verbatim:
            data = _FOLD.sub(" ", data)
            if self._after_break:
                data = data.lstrip(" ")
        self._after_break = data.endswith("\n")
        yield data


def _shorter(reference: re.Match[str]) -> str:
    """Return a numeric reference without leading zeros, of which there are more than int() takes.

    Seven digits are enough for every code point.
    """
    digits = reference[1].lstrip("0")
    return f"&#{digits};" if len(digits) < 8 else "\N{REPLACEMENT CHARACTER}"
