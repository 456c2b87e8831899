"""How the answers of cllm-vocab look: lines of at most 80 columns, colored on a terminal.

Takes what `vocab` gathers and knows nothing else; without a terminal the same lines are
plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crystalline.untrusted import one_line

if TYPE_CHECKING:
    from rich.text import Text

_LABEL = 13  # columns
_TEXT = 24

Row = Sequence[tuple[str, str]]
"""One line: pieces of text, each with its style."""


def show(action: str, content: dict[str, Any], *, top: int) -> None:
    """Print the answer to `action` on stdout."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for row in _rows(action, content, top):
        console.print(_line(row), soft_wrap=True)


def quoted(text: str | None, columns: int = _TEXT) -> str:
    r"""Return a token's text in quotes, on one line, cut to a width.

    >>> print(quoted(" the"), quoted('a"\n\u200b'), quoted(None), quoted("abcdefghij", 8))
    " the" "a\"\n\u200b" (no text) "abcdef…
    """
    from rich.cells import cell_len, set_cell_size

    if text is None:
        return "(no text)"
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in json.dumps(text, ensure_ascii=False)
    )
    if cell_len(shown) <= columns:
        return shown
    return set_cell_size(shown, columns - 1).rstrip() + "…"


def _visible(affix: str) -> str:
    """Return an affix with its spaces as open boxes: a leading space is a prefix too."""
    return affix.replace(" ", "␣")


def _rows(action: str, content: dict[str, Any], top: int) -> Iterator[Row]:
    if action == "inspect":
        for place, token in enumerate(content["tokens"]):
            if place:
                yield ()
            yield from _token(token, content, top)
    elif action == "affixes":
        yield from _affixes(content)
    else:
        yield from _roots(content)


def _token(token: dict[str, Any], content: dict[str, Any], top: int) -> Iterator[Row]:
    size = f"{content['vocab_size']:,}"
    remaps = content["generation"]
    yield (
        (quoted(token["text"], 32), "bold"),
        (f"  token #{token['token']} of {size}", "dim"),
        (f", {remaps}. remap of root discovery" if remaps else "", "dim"),
    )
    product = " · ".join(map(str, token["factors"]))
    kind = "prime" if token["is_root"] else f"= {product}"
    yield _field("number", f"{token['number']} {kind}")
    root = token["root"]
    for affix in sorted(token["affixes"], key=lambda affix: affix["prime"]):
        yield _field("", f"{affix['prime']:<8} {_visible(affix['affix'])} ({affix['kind']})")
    is_root = "itself" if token["is_root"] else f"{quoted(root['text'])} #{root['token']}"
    if not token["is_root"]:
        yield _field("", f"{root['number']:<8} {quoted(root['text'])} (root)")
    yield _field("signature", ", ".join(map(str, token["signature"])))
    yield _field("root", is_root)
    share = f"{100 * token['share']:.2g} %"
    yield _field("count", f"{token['count']:,} ({share}), rank {token['rank']:,} of {size}")
    yield _field("Ulam place", f"({token['ulam']['x']}, {token['ulam']['y']})")
    yield _field("clock", f"ring {token['clock']['ring']}, hour {token['clock']['hour']}")
    yield _field("symmetry", f"group {token['group']} of 12")
    yield from _tree(token, top)
    yield from _neighbors(token["neighbors"])


def _tree(token: dict[str, Any], top: int) -> Iterator[Row]:
    tree = token["derivations"]
    if not tree["derived"]:
        yield _field("derivations", "none")
        return
    yield _field("derivations", "")
    lines = list(_branches(tree, "", "", token["token"]))
    shown = lines if not top or len(lines) <= top else lines[:top]
    yield from shown
    if len(shown) < len(lines):
        yield ((f"  … and {len(lines) - len(shown)} more (--top 0 shows all)", "dim"),)


def _branches(node: dict[str, Any], lead: str, below: str, marked: int) -> Iterator[Row]:
    """Yield a node and what derives from it; `lead` stands before it, `below` before those."""
    here = node["token"] == marked
    yield (
        (f"  {lead}", "dim"),
        (quoted(node["text"]), "bold green" if here else ""),
        (f"  {_visible(node['affix'])}" if node["affix"] else "", "cyan"),
        (f"  {node['number']}", ""),
        (f"  {node['count']:,} {'time' if node['count'] == 1 else 'times'}", "dim"),
        ("  <" if here else "", "bold green"),
    )
    last = len(node["derived"]) - 1
    for place, child in enumerate(node["derived"]):
        own, under = ("└─ ", "   ") if place == last else ("├─ ", "│  ")
        yield from _branches(child, below + own, below + under, marked)


def _neighbors(neighbors: list[dict[str, Any]]) -> Iterator[Row]:
    if not neighbors:
        return
    yield _field("neighbors", "")
    yield from _table(
        ("token", "similarity", "number", "gcd", "Ulam distance"),
        [
            (
                quoted(other["text"]),
                f"{other['similarity']:.4f}",
                str(other["number"]),
                str(other["gcd"]),
                f"{other['distance']:.1f}",
            )
            for other in neighbors
        ],
    )


def _affixes(content: dict[str, Any]) -> Iterator[Row]:
    rows = [
        (
            _visible(affix["affix"]),
            str(affix["prime"]),
            f"{affix['tokens']:,}",
            f"{affix['count']:,}",
            ", ".join(quoted(example["text"], 14) for example in affix["examples"]),
        )
        for affix in content["affixes"]
    ]
    if not rows:
        yield (("no affixes", ""),)
        return
    yield from _table(("affix", "prime", "tokens", "count", "as in"), rows, left=("as in",))


def _roots(content: dict[str, Any]) -> Iterator[Row]:
    rows = [
        (
            quoted(root["text"], 16),
            str(root["number"]),
            f"{root['derivations']:,}",
            f"{root['family_count']:,}",
            ", ".join(quoted(text, 14) for text in root["examples"][:3]),
        )
        for root in content["roots"]
    ]
    if not rows:
        yield (("no token derives from another", ""),)
        return
    heads = ("root", "prime", "derived", "count", "such as")
    yield from _table(heads, rows, left=("such as",))


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield aligned lines: the first column and those of `left` to the left, others right."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]

    def cells(row: Sequence[str]) -> str:
        parts = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blank = " " * (width - cell_len(cell))
            parts.append(cell + blank if not place or heads[place] in left else blank + cell)
        return ("  " + "  ".join(parts)).rstrip()

    yield ((cells(heads), "dim"),)
    for row in rows:
        yield ((cells(row), ""),)


def _field(name: str, value: str) -> Row:
    return ("  " + name.ljust(_LABEL), "cyan"), (value, "")


def _line(row: Row) -> Text:
    from rich.text import Text

    text = Text.assemble(*((one_line(piece), style) for piece, style in row))
    text.rstrip()
    return text
