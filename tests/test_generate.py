"""What is written from the lists of levels and primitives is up to date, and says what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import generate

HEADER = """
/* A struct; with a semicolon in its comment. */
typedef struct {
  const char *name;
  int64_t a, b[3];
  /* c += x;  many */
  void (*f)(int64_t n, const float *x, const T *as,
            float *out);
  T *(*g)(void);
} Table;
"""


def test_every_generated_file_is_up_to_date() -> None:
    assert generate.outdated() == []


def test_structs_are_read_without_their_comments() -> None:
    ((name, members),) = generate.structs(HEADER)
    assert name == "Table"
    assert [generate.declaration(member) for member in members] == [
        "const char* name",
        "int64_t a",
        "int64_t b[3]",
        "void (*f)(int64_t n, const float* x, const T* as_, float* out) noexcept nogil",
        "T* (*g)() noexcept nogil",
    ]


def test_what_differs_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {tmp_path / "old": "new\n", tmp_path / "same": "same\n", tmp_path / "missing": "m\n"}
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "same").write_text("same\n")
    monkeypatch.setattr(generate, "generated", lambda: files)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert [path.name for path in generate.outdated()] == ["old", "missing"]
    assert generate.main() == 0
    assert capsys.readouterr().out == "old\nmissing\n"
    assert generate.outdated() == []


def test_the_exact_table_names_every_member() -> None:
    """Its functions have names of their own, so it is written by hand."""
    text = (generate.PRIMITIVES / "exact_level.h").read_text("utf-8")
    set_members = set(re.findall(r"\.(\w+) =", text))
    for header in generate.exact_headers():
        for name, members in generate.structs(header.read_text("utf-8")):
            if name.endswith("Primitives"):
                wanted = {re.search(r"\(\*(\w+)\)|(\w+)$", member) for member in members}
                names = {found[1] or found[2] for found in wanted if found}
                assert names <= set_members, name
