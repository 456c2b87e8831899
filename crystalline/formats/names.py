"""Names of files in commands that a person can copy into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from crystalline.untrusted import printable


def shell_word(path: str | Path) -> str:
    r"""Return a path as one word of a shell's command line, whatever bytes it has.

    Control characters and bytes that are not UTF-8 need the quotes $'…' that bash, zsh and
    ksh know.

    >>> shell_word("runs/my novel"), shell_word("runs/caf\udce9")
    ("'runs/my novel'", "$'runs/caf\\xe9'")
    """
    text = os.fspath(path)
    if printable(text) == text and not set(text) & set("\t\n"):
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if printable(character) == character and character not in "\t\n":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
