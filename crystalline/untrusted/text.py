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
    return one_line(_cut(text, limit))  # cut first: cleaning 90 MB takes its time


def printable(text: str) -> str:
    r"""Return text of any number of lines with all that a terminal would obey spelled out.

    Tabs and line ends stay.  Bytes that are not UTF-8, which Python keeps in names of files as
    lone surrogates, are written as such.

    >>> printable("Zürich \x1b[2J \udcff\n")
    'Zürich \\x1b[2J \\xff\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(c) if _is_unsafe(c) else c for c in text)


def message(text: str) -> str:
    """Return an error or a warning as it may be shown: printable, and no longer than a reader.

    >>> len(message("x" * 90_000_000)) == MESSAGE_CHARS
    True
    """
    return _cut(printable(_cut(text, MESSAGE_CHARS)), MESSAGE_CHARS)  # spelled out it is longer


def for_terminal(text: str, stream: TextIO) -> str:
    """Return generated text as it may be written to `stream`.

    On a terminal what moves the cursor or changes the direction of the text is spelled out, as
    `printable` does; elsewhere the text is as it was.
    """
    return printable(text) if stream.isatty() else text


def _cut(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, its middle left out."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return text[: limit - 1 - half] + "…" + text[len(text) - half :]


def _is_unsafe(c: str) -> bool:
    if c in "\n\t" or c in _JOINERS:
        return False
    return unicodedata.category(c) in UNSAFE_CATEGORIES


def _spelled(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
