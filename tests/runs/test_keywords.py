"""Keywords become settings, or errors in Python's spelling."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from crystalline.errors import UsageError
from crystalline.runs.keywords import keywords, python_spelling, takes
from crystalline.runs.settings import RunSettings


@dataclass(frozen=True)
class Some:
    names: tuple[str, ...] = ()
    seq_len: int = 10
    rate: float = 0.5
    lowest: float | None = None
    kind: Literal["cat", "dog", "eel"] = "cat"
    loud: bool = False
    place: str | None = None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("names", "a b", ("a b",)),
        ("names", Path("a"), ("a",)),
        ("names", (word for word in ["a", Path("b"), b"c"]), ("a", "b", "c")),
        ("seq_len", np.int16(7), 7),
        ("rate", 2, 2.0),
        ("rate", np.float32(0.5), 0.5),
        ("rate", Fraction(1, 4), 0.25),
        ("lowest", None, None),
        ("kind", np.str_("eel"), "eel"),
        ("loud", np.True_, True),
        ("place", Path("runs/a"), "runs/a"),
        ("place", None, None),
    ],
)
def test_a_value_of_python_becomes_one_of_the_field(name: str, value: Any, expected: Any) -> None:
    found = keywords({name: value}, Some)[name]
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, str)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seq_len": 7.0}, "seq_len is 7.0. It must be a whole number."),
        ({"seq_len": "7"}, "seq_len is '7'. It must be a whole number."),
        ({"seq_len": True}, "seq_len is True. It must be a number, not True or False."),
        ({"seq_len": None}, "seq_len is None. It must be a whole number."),
        ({"rate": "fast"}, "rate is 'fast'. It must be a number."),
        ({"rate": 10**400}, "It must be a number."),
        ({"rate": 1j}, "rate is 1j. It must be a number."),
        ({"kind": "cow"}, "kind is 'cow'. It must be cat, dog or eel."),
        ({"kind": 3}, "kind is 3. It must be cat, dog or eel."),
        ({"loud": 1}, "loud is 1. It must be True or False."),
        ({"place": 1}, "place is 1. It must be a string or a path."),
        ({"names": 3}, "names is 3. It must be a string or several."),
        ({"names": ["a", 3]}, "It must be a string or a path."),
        ({"names": {"a": 1}}, "It must be a string or several."),
        ({"seqlen": 1}, "'seqlen' is not a setting. Did you mean seq_len?"),
        ({"zzz": 1}, "'zzz' is not a setting. The settings are the flags"),
        ({"kind": "x\x1b[2J"}, r"kind is 'x\x1b[2J'."),
    ],
)
def test_wrong_ones_are_told_by_name_and_value(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        keywords(given, Some)
    assert words in str(caught.value)


def test_every_default_of_a_run_is_a_value_that_python_may_give() -> None:
    defaults = {field.name: field.default for field in fields(RunSettings)}
    assert RunSettings(**keywords(defaults, RunSettings)) == RunSettings()


def test_errors_are_spelled_in_python() -> None:
    with pytest.raises(UsageError) as caught, python_spelling(RunSettings):
        RunSettings(num_layers=0)
    assert str(caught.value) == "num_layers is 0. It must be at least 1."
    assert caught.value.args == ("num_layers is 0",)
    with pytest.raises(UsageError) as caught, python_spelling(RunSettings, others=("config",)):
        raise UsageError("in a/--seed/b and '--seed'", advice="Use --config or --min-lr; --beam.")
    assert str(caught.value) == "in a/--seed/b and '--seed'. Use config or min_lr; --beam."


def test_help_shows_the_keywords() -> None:
    @takes(Some, exclude=("names",))
    def call(first: int, *, second: int = 2, **settings: Any) -> None: ...

    shown = list(inspect.signature(call).parameters)
    assert shown == ["first", "second", *(f.name for f in fields(Some) if f.name != "names")]
