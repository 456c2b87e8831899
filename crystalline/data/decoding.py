"""Bytes to text: UTF-8 without a byte order mark, with `\\n` line ends; the same for every reader.

Training, `--perplexity` and prompts all read text here, so that a model is measured on the
characters that it was trained on.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from crystalline.errors import DataError

BLOCK_BYTES = 1 << 20
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # a byte order mark, decoded
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def plain(text: str) -> str:
    r"""Return `text` without a byte order mark, with `\n` line ends.

    >>> plain("\ufeffone\r\ntwo")
    'one\ntwo'
    """
    return text.removeprefix(_MARK).replace("\r\n", "\n")


def text_blocks(read: Callable[[int], bytes], name: str) -> Iterator[str]:
    """Yield as `plain` text what `read(size)` gives in bytes, until it gives none.

    Raises `DataError` for text that is not UTF-8 and for NUL bytes; `name` says whose.
    """
    held = b""  # an incomplete UTF-8 sequence
    held_return = ""  # a carriage return whose line feed may follow
    offset = 0  # of `held` in the whole
    while True:
        block = read(BLOCK_BYTES)
        _refuse_binary(name, block, offset + len(held))
        held += block
        try:
            text, used = codecs.utf_8_decode(held, "strict", not block)
        except UnicodeDecodeError as error:
            where = offset + error.start
            raise DataError(
                f"{name} is not UTF-8: byte 0x{held[error.start]:02x} at offset {where}",
                advice="Convert it to UTF-8, for example with iconv.",
            ) from None
        if offset == 0:
            text = text.removeprefix(_MARK)
        held = held[used:]
        offset += used
        text = held_return + text
        held_return = ""
        if block and text.endswith("\r"):
            text, held_return = text[:-1], "\r"
        if text:
            yield text.replace("\r\n", "\n")
        if not block:
            break


def _refuse_binary(name: str, block: bytes, offset: int) -> None:
    if offset == 0 and block.startswith(_UTF16_MARKS):
        raise DataError(
            f"{name} is UTF-16 text", advice="Convert it, for example: iconv -f UTF-16 -t UTF-8."
        )
    nul = block.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{name} is a binary file (NUL byte at offset {offset + nul})",
            advice="Name files of plain text.",
        )
