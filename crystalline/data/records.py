"""JSON to documents: lines of a `.jsonl` file, and a `.json` file that is one array of records.

A record gives its field `text`, else its conversation (`messages` or `conversations`, see
`transcript`); `--text-field` names another field, which may hold either.  A string is a
document, and an array in a line stands for its elements.  Nothing else is ever taken for
text: records without any are counted, and a file of nothing but such is refused with the
fields that it has.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from crystalline.data.transcript import Conversation, is_conversation, transcript
from crystalline.errors import DataError

Render = Callable[[Any], "Conversation | None"]
"""Makes the text of a list of messages; None of anything else."""

TEXT_FIELD = "text"
CONVERSATIONS = ("messages", "conversations")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_ELEMENT_CHARS = 1 << 26  # of an array; what is longer is no array of records
_SHOWN_FIELDS = 8
_SPACE = re.compile(r"[ \t\n\r]*")

# Numbers are never text; as floats they may have any number of digits.
_DECODER = json.JSONDecoder(parse_int=float)


def text_of(value: Any, field: str | None, render: Render = transcript) -> str | None:
    """Return the text of a record, None when it has none; `field` None is the usual ones.

    That of a list of messages is a `Conversation`, which `render` makes.

    >>> text_of({"text": "a"}, None), text_of({"body": "b"}, "body"), text_of({"body": "b"}, None)
    ('a', 'b', None)
    """
    if isinstance(value, str):
        return _whole(value)
    if not isinstance(value, dict):
        return None
    for name in (TEXT_FIELD, *CONVERSATIONS) if field is None else (field,):
        held = value.get(name)
        text = held if isinstance(held, str) else render(held)
        if text is not None:
            return _whole(text)
    return None


def texts(
    values: Iterable[Any],
    name: str,
    field: str | None,
    note: Callable[[int, int], None] | None = None,
    render: Render = transcript,
) -> Iterator[str]:
    """Yield the text of every record; `note` gets at the end how many had none, and of how many.

    Raises `DataError` when there are records, and none of them has text.
    """
    count = without = 0
    fields: Counter[str] = Counter()
    for value in values:
        count += 1
        text = text_of(value, field, render)
        if text is None:
            without += 1
            fields.update(list(value) if isinstance(value, dict) else ())
        else:
            yield text
    if count and without == count:
        raise _no_field(name, field, count, fields)
    if note is not None and without:
        note(without, count)


def line_values(lines: Iterable[str], name: str) -> Iterator[Any]:
    """Yield the records of JSON lines; an array stands for its elements, unless it is a chat.

    Raises `DataError` for a line that is not JSON.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"line {number} of {name} is not JSON ({_reason(error)})",
                advice="A .jsonl file holds one JSON value per line; rename it to .txt otherwise.",
            ) from None
        if not isinstance(value, list):
            yield value
        elif is_conversation(value):
            yield {TEXT_FIELD: value}
        else:
            yield from value


def array_values(blocks: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a text that is one JSON array of objects.

    Raises `ValueError` or `RecursionError` where it turns out to be something else.
    """
    reader = _Buffer(iter(blocks))
    if reader.next_char() != "[":
        raise ValueError("not an array")
    reader.at += 1
    if reader.next_char() == "]":
        raise ValueError("an empty array")
    while True:
        if reader.next_char() != "{":
            raise ValueError("not an object")
        yield reader.value()
        after = reader.next_char()
        reader.at += 1
        if after == "]":
            break
        if after != ",":
            raise ValueError("no comma")
        reader.next_char()
    if reader.next_char():
        raise ValueError("something after the array")


class _Buffer:
    """The part of a text that is being parsed."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks = blocks
        self._text = ""
        self.at = 0

    def next_char(self) -> str:
        """Go to the next character that is no white space and return it; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self._text) or not self._more(1):
                return self._text[self.at : self.at + 1]

    def value(self) -> Any:
        """Parse the value that begins here, and go behind it."""
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self._text, self.at)
                return value
            except ValueError:
                have = len(self._text) - self.at
                if have > _LARGEST_ELEMENT_CHARS or not self._more(have):
                    raise

    def _more(self, least: int) -> bool:
        """Read at least as many characters, if there are any more."""
        parts = [self._text[self.at :]]
        got = 0
        for block in self._blocks:
            parts.append(block)
            got += len(block)
            if got >= least:
                break
        self._text, self.at = "".join(parts), 0
        return got > 0


def _whole(text: str) -> str:
    whole = _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    return Conversation(whole, text.spans) if isinstance(text, Conversation) else whole


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _no_field(name: str, field: str | None, count: int, fields: Counter[str]) -> DataError:
    wanted = TEXT_FIELD if field is None else field
    records = f"its {count:,} records" if count > 1 else "its only record"
    if not fields:
        return DataError(
            f"{name} has no text: there is no object and no string among {records}",
            advice='A record looks like {"text": "…"}; a file that is no such thing ends in .txt.',
        )
    shown = [f"{_whole(key)[:40]!r} ({n:,})" for key, n in fields.most_common(_SHOWN_FIELDS)]
    more = f" and {len(fields) - _SHOWN_FIELDS} more" if len(fields) > _SHOWN_FIELDS else ""
    return DataError(
        f"{name} has no text in a field {wanted!r} of {records}; "
        f"the fields are {', '.join(shown)}{more}",
        advice="Name the field of the text with --text-field NAME.",
    )
