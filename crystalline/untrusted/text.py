"""What others wrote, made safe for a terminal and short enough for a message.

File names, the strings of a model's files, arguments in errors and generated text may hold
escape sequences that move the cursor, change colors or type on somebody's behalf.  Nothing but
text reaches a terminal; a pipe or a file gets bytes as they are.
"""

from __future__ import annotations

import unicodedata
from typing import TextIO

# Control, format (bidi, zero-width), surrogate, private, unassigned; line and paragraph breaks.
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Format characters that scripts and emoji need, and that move nothing.
_JOINERS = frozenset("\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{SOFT HYPHEN}")
MESSAGE_CHARS = 2000  # of a whole message
NAME_CHARS = 300  # of a name or a value within one


def one_line(text: str) -> str:
    """Return text that is safe in one line: no control, format or broken characters.

    >>> one_line("a\\x1b[31mb\\nc")
    'a?[31mb c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        " " if c in "\n\t" else "?" if unicodedata.category(c) in UNSAFE_CATEGORIES else c
        for c in text
    )


def shown(text: str, limit: int = NAME_CHARS) -> str:
    """Return `text` as one safe line of at most `limit` characters, its middle left out.

    >>> shown("abcdefghijklmnop", 9)
    'abcd…mnop'
    """
    if len(text) > limit:  # cut first: cleaning 90 MB takes its time
        half = (limit - 1) // 2
        text = text[: limit - 1 - half] + "…" + text[len(text) - half :]
    return one_line(text)


def for_terminal(text: str, stream: TextIO) -> str:
    """Return generated text as it may be written to `stream`.

    On a terminal line ends and tabs stay, other control characters and what would change the
    direction of the text become "?"; elsewhere the text is as it was.
    """
    if not stream.isatty():
        return text
    return visible(text)


def visible(text: str) -> str:
    """Return text of several lines without anything that a terminal would obey.

    >>> visible("one\\n\\ttwo\\x1b]0;title\\x07")
    'one\\n\\ttwo?]0;title?'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        if c in "\n\t" or c in _JOINERS or unicodedata.category(c) not in UNSAFE_CATEGORIES
        else "?"
        for c in text
    )
