"""Cut long text into pieces that every tokenizer encodes as if they had stayed together.

In a word of the GPT-2 split regex, white space is either the first character or all
of it, so a new word begins wherever white space follows something else.  Cutting
there, and only there, leaves the tokens of the whole text unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PIECE_CHARS = 16 * 1024
LONGEST_PIECE_CHARS = 16 * PIECE_CHARS  # text without any such place is cut here regardless

_CUT = re.compile(r"(?<=\S)(?=[ \t\n])")


def cut(blocks: Iterable[str]) -> Iterator[str]:
    r"""Yield the text of `blocks` in pieces of about `PIECE_CHARS` characters.

    Where the pieces end depends on the joined text only, not on the blocks.  No
    piece is empty, and together they are the text.

    >>> text = "some words " * 4000
    >>> pieces = list(cut([text[:100], text[100:]]))
    >>> [len(piece) for piece in pieces], "".join(pieces) == text
    ([16389, 16384, 11227], True)
    """
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > PIECE_CHARS:
            longest = start + LONGEST_PIECE_CHARS
            match = _CUT.search(rest, start + PIECE_CHARS, longest)
            if match:
                end = match.start()
            elif len(rest) >= longest:
                end = longest
            else:
                break
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest
