"""Settings files hold any name, are valid TOML for others, and come back the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.formats.toml import read_toml, to_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def there_and_back(path: Path, values: dict, comment: str = "") -> dict:
    path.write_text(to_toml(values, comment=comment), "utf-8", newline="")
    return read_toml(path)


@given(st.binary(max_size=12), st.text(st.characters(codec=None), max_size=12))
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, name: bytes, text) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    values = {"data": [os.fsdecode(name), text], text or "key": text}
    assert there_and_back(path, values, comment=f"{text}\n{os.fsdecode(name)}") == values


@pytest.mark.parametrize(
    "text",
    ["\udc80\udcff", "\0", "\0dc80", "\0" + "0000", "\0\udc80", "\0\0dc80", "\0\0", "\x7f",
     "\x85\u2028", "\r\n\t\b", "\0DC80\0d7ff", "a\\u0000dc80"],
)  # fmt: skip
def test_what_looks_like_an_escape(tmp_path: Path, text: str) -> None:
    values = {"data": [text, f"{text}{text}"], "resume": text}
    assert there_and_back(tmp_path / "a.toml", values, comment=text) == values


def test_the_form_on_disk() -> None:
    """What the module's docstring promises."""
    assert to_toml({"data": ["caf\udce9.txt"]}) == 'data = ["caf\\u0000dce9.txt"]\n'


@pytest.mark.parametrize("control", [*map(chr, range(32)), "\x7f", "\x9b", "\udcff"])
def test_comments_and_values_are_valid_toml(control: str) -> None:
    text = to_toml({"a": f"x{control}y"}, comment=f"run  x{control}y\nlast")
    found = tomllib.loads(text.encode("utf-8").decode("utf-8"))
    assert list(found) == ["a"]
    if control < "\ud800":
        assert found["a"] == f"x{control}y"
    assert "\n# last\n" in text
