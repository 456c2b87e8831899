"""A tokenizer's document with one field of another type, for every field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from crystalline.data.tokenizer_file import check_tokenizer
from crystalline.untrusted import BadContent

HUGE = "\x1b[2J" + "x" * 100_000
WRONG: list[Any] = [None, True, -1, 1.5, 2**32, 10**30, "", HUGE, [], [[]], {}, {"type": "Nope"}]


def mutations(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every field in a document, of long tables the first two."""
    found = [path] if path else []
    if isinstance(value, dict):
        keys: list[Any] = list(value)[:2] if len(value) > 20 else list(value)
    elif isinstance(value, list):
        keys = list(range(min(2, len(value))))
    else:
        return found
    for key in keys:
        found += mutations(value[key], (*path, key))
    return found


def require_refused_or_harmless(text: str, use: Callable[[dict[str, Any]], None]) -> None:
    """Try every mutant of a document: it is refused in one short, safe line, or `use` works."""
    refusals = set()
    for path in mutations(json.loads(text)):
        for wrong in WRONG:
            made = json.loads(text)
            inner: Any = made
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = wrong
            try:
                checked, _ = check_tokenizer(made)
            except BadContent as error:
                refusals.add(str(error))
                continue
            use(checked)
    assert len(refusals) > 10
    assert max(map(len, refusals)) < 200
    assert all(refusal.isprintable() for refusal in refusals)
