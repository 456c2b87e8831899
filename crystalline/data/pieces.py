"""Cut long text into pieces that every tokenizer encodes as if they had stayed together.

In a word of the GPT-2 split regex, white space is either the first character or all
of it, so a new word begins wherever white space follows something else.  Cutting
there leaves the tokens of the whole text unchanged.

Text without such places (DNA, digits, Chinese without punctuation, minified code, a
megabyte of blanks) is cut where a word ends.  There words themselves must end, for a
piece and for the merging of pairs, whose time grows with the square of a word's length:
`WORD_PATTERN` is GPT-2's with at most `LONGEST_WORD` characters in a word.  Text whose
words are shorter (`has_long_word` is false) is split by both in the same way, and a
tokenizer trained on it keeps GPT-2's own; a tokenizer trained on other text carries the
bounded pattern in its tokenizer.json, so that whoever loads it finds the same words.
The matches of the pattern depend on nothing before them, so cutting between two of
them changes no token either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

PIECE_CHARS = 16 * 1024
LONGEST_PIECE_CHARS = 16 * PIECE_CHARS  # text without white space is cut between words by then
PART_CHARS = 1 << 20  # of what cannot be cut between words
LONGEST_PART_CHARS = 8 * PART_CHARS
LONGEST_WORD = 512  # characters; above it merging slows down, below it ordinary words begin

END_OF_TEXT = "<|endoftext|>"


def word_pattern(longest: int | None = None) -> str:
    """Return the regex of what GPT-2 calls a word; one leading space belongs to it.

    `longest` bounds its characters, but for that space.
    """
    many = "+" if longest is None else f"{{1,{longest}}}"
    return (
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}{many}| ?\p{{N}}{many}| ?[^\s\p{{L}}\p{{N}}]{many}"
        rf"|\s{many}(?!\S)|\s{many}"
    )


BOUNDED_PATTERN = word_pattern(LONGEST_WORD)

_LINE_END = re.compile(r"(?<=\S\n)(?=\S)")
_CUT = re.compile(r"(?<=\S)(?=[ \t\n])")
# Where a letter or digit of ASCII meets another class, a word ends for sure; the bar is left out,
# since there is one in `<|endoftext|>`.  A quicker look than one for words, in minified code.
_SURE_END = re.compile(
    r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z0-9])(?=[!-/:-@\[-`{}~])", re.ASCII
)
_LAST_BLANK = re.compile(r"[^\S\x1c-\x1f](?![^\S\x1c-\x1f])")  # of those of the pattern's \s
_MAY_BE_LONG = re.compile(rf"[^ \t\n]{{{LONGEST_WORD}}}|\s{{{LONGEST_WORD}}}")
_LONG = Split(
    Regex("|".join(rf"{kind}{{{LONGEST_WORD}}}" for kind in (r"\p{L}", r"\p{N}", r"\s"))
          + rf"|[^\s\p{{L}}\p{{N}}]{{{LONGEST_WORD}}}"),
    "removed",
)  # fmt: skip


def has_long_word(text: str) -> bool:
    """Return whether `text` has a word of `LONGEST_WORD` characters or more.

    >>> has_long_word("word " * 1000), has_long_word("ACGT" * 1000)
    (False, True)
    """
    if _MAY_BE_LONG.search(text) is None:  # a quick look that spares almost all text the other
        return False
    return sum(len(part) for part, _ in _LONG.pre_tokenize_str(text)) < len(text)


def cut(blocks: Iterable[str], longest_word: int | None = LONGEST_WORD) -> Iterator[str]:
    r"""Yield the text of `blocks` in pieces of about `PIECE_CHARS` characters.

    Where the pieces end depends on the joined text only, not on the blocks.  No
    piece is empty, and together they are the text.  `longest_word` is the bound of the
    tokenizer's pattern, None where it has none: then a piece may become as long as a word.

    >>> text = "some words " * 4000
    >>> pieces = list(cut([text[:100], text[100:]]))
    >>> [len(piece) for piece in pieces], "".join(pieces) == text
    ([16389, 16384, 11227], True)
    """
    words = Split(Regex(word_pattern(longest_word)), "isolated")
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > PIECE_CHARS:
            end = _next_cut(rest, start, words)
            if end is None:
                break
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def cut_lines(blocks: Iterable[str]) -> Iterator[str]:
    r"""Yield the text of `blocks` in parts of about `PART_CHARS` characters that end with a line.

    For tokenizers that split in ways of their own, of which none goes on from the end of a line
    into the next one's first character.  Text of endless lines is cut anywhere.

    >>> text = "a line of words\n" * 100_000
    >>> parts = list(cut_lines([text[:100], text[100:]]))
    >>> [len(part) for part in parts], "".join(parts) == text
    ([1048576, 551424], True)
    """
    rest = ""
    for block in blocks:
        rest += block
        while True:
            match = _LINE_END.search(rest, PART_CHARS, LONGEST_PART_CHARS)
            end = match.start() if match else LONGEST_PART_CHARS
            if not match and len(rest) < LONGEST_PART_CHARS:
                break
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _next_cut(text: str, start: int, words: Split) -> int | None:
    """Return where a piece that begins at `start` ends; None where more text is needed to know."""
    window = LONGEST_PIECE_CHARS
    while True:
        match = _CUT.search(text, start + PIECE_CHARS, start + window)
        if match:
            return match.start()
        if len(text) < start + window:
            return None
        match = _SURE_END.search(text, start + window - PIECE_CHARS, start + window)
        if match:
            return match.start()
        length = _whole_words(text[start : start + window], words)
        if length:
            return start + length
        window *= 2


def _whole_words(text: str, words: Split) -> int:
    """Return the length of the words and marks that end in `text` however it goes on, 0 if none.

    Within a mark's length of the end a mark may have begun, which a tokenizer takes out of the
    text before it looks for words.  The last blank before a word is no end: at the end of a
    piece the pattern would join it to the blanks before it.
    """
    mark = text.rfind(END_OF_TEXT)
    found = at = 0 if mark < 0 else mark + len(END_OF_TEXT)
    surely = len(text) - len(END_OF_TEXT) - 1  # blanks look one character ahead
    for word, _ in words.pre_tokenize_str(text[at:]):
        at += len(word)
        if at > surely:
            break
        if not _LAST_BLANK.match(text, at - 1):
            found = at
    return found
