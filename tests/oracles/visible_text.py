"""The visible text of HTML by Python's own parser: slow on malformed pages, obvious on others."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_INLINE_TAGS = (
    "a abbr b bdi bdo big cite code del dfn em font i img ins kbd mark q s samp small span strong"
    " sub sup time tt u var wbr"
)
INLINE = frozenset(_INLINE_TAGS.split())
HIDDEN = frozenset({"script", "style", "template"})


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0
        self.verbatim = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.hidden += tag in HIDDEN
        self.verbatim += tag == "pre"
        self.line(tag)

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in HIDDEN))
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        self.line(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.line(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if not self.verbatim:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith("\n"):
                data = data.lstrip(" ")
        self.parts.append(data)

    def line(self, tag: str) -> None:
        if tag not in INLINE and not self.hidden:
            self.parts.append("\n")


def visible_text(page: str) -> str:
    """Return the text of a well-formed page."""
    collector = _Collector()
    collector.feed(page)
    collector.close()
    text = re.sub(r"[ \t]+\n", "\n", "".join(collector.parts))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text + "\n" if text else ""
