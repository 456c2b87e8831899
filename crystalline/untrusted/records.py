"""What a file may say: one table of fields, with type and range, for each kind of file.

    OWNER = Record(Field("pid", int, 1, 2**31), Field("host", str, 0, 255))
    owner = OWNER.check(parse_json(data))

The table is the whole truth about a file's fields: readers take their values from `check`,
and the tests make the hostile variants of every field from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crystalline.untrusted.parsing import BadContent
from crystalline.untrusted.text import shown

VALUE_CHARS = 60  # of a wrong value, shown in a message

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True)
class Field:
    """One field: its type, and between which bounds its value lies (both included).

    The bounds are those of a number, and of the length of a text, a list or a table.
    `pattern` must fit a text as a whole.  `optional` may be missing, `nullable` may be null.
    `items` checks what is in a list, and the values of a table.
    """

    name: str
    kind: type
    low: float = -math.inf
    high: float = math.inf
    pattern: str | None = None
    optional: bool = False
    nullable: bool = False
    items: Callable[[Any], bool] | None = None

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as a clause, or None.

        >>> Field("step", int, 0, 10**12).problem(-1)
        "'step' is -1, it must be a whole number of 0 to 1,000,000,000,000"
        """
        if value is None and self.nullable:
            return None
        if not self._fits(value):
            given = shown(repr(value), VALUE_CHARS)
            return f"'{self.name}' is {given}, it must be {self.wanted()}"
        return None

    def wanted(self) -> str:
        """Return what a value must be, in words."""
        words = _WORDS[self.kind]
        size = "" if self.kind in (int, float) else "length "
        if self.kind is not bool:
            if self.low == self.high:
                words += f" of {size}{self.low:,}"
            elif self.low > -math.inf and self.high < math.inf:
                words += f" of {size}{self.low:,} to {self.high:,}"
            elif self.low > -math.inf:
                words += f" of {size or 'at least '}{self.low:,}" + (" or more" if size else "")
            elif self.high < math.inf:
                words += f" of {size}at most {self.high:,}"
        return words + (" or null" if self.nullable else "")

    def _fits(self, value: Any) -> bool:
        if self.kind in (int, float):
            number = isinstance(value, (int, self.kind)) and not isinstance(value, bool)
            return number and math.isfinite(value) and self.low <= value <= self.high
        kind: Any = self.kind
        if not isinstance(value, kind):
            return False
        if kind is bool:
            return True
        if not self.low <= len(value) <= self.high:
            return False
        if isinstance(value, str):
            return self.pattern is None or re.fullmatch(self.pattern, value) is not None
        items = value.values() if kind is dict else value
        return self.items is None or all(map(self.items, items))


class Record:
    """The fields that a table must have.

    >>> owner = Record(Field("pid", int, 1, 2**31), Field("host", str, 0, 255))
    >>> owner.check({"pid": 7, "host": "a", "more": 1})
    {'pid': 7, 'host': 'a', 'more': 1}
    >>> try:
    ...     owner.check({"pid": 1e300, "host": "a"})
    ... except BadContent as error:
    ...     print(error)
    'pid' is 1e+300, it must be a whole number of 1 to 2,147,483,648
    """

    def __init__(self, *fields: Field) -> None:
        self.fields = {field.name: field for field in fields}

    def accepts(self, document: Any) -> bool:
        """Return whether `check` would."""
        try:
            self.check(document)
        except BadContent:
            return False
        return True

    def check(self, document: Any) -> dict[str, Any]:
        """Return `document`, a table whose fields are as their rows say.

        Further keys stay, unchecked: they belong to other versions.  Raises `BadContent`.
        """
        if not isinstance(document, Mapping):
            raise BadContent("it is not a table of fields")
        found = dict(document)
        for name, field in self.fields.items():
            if name not in found:
                if not field.optional:
                    raise BadContent(f"it has no '{name}'")
                continue
            problem = field.problem(found[name])
            if problem:
                raise BadContent(problem)
        return found
