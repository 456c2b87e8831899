#!/usr/bin/env python3
"""Writes what follows from two lists, the instruction-set levels and the kernels' primitives.

From `crystalline/machine/levels.py`: `levels.h` and one translation unit a level.  From the structs
of `primitives.h` and of the exact kernels' `*_table.h`: what Cython declares of them, and the
floating-point levels' table.  And the table of GELU's cubics.  All of it is checked in, so that it
can be read and built without this tool; a test keeps it up to date.

    python3 tools/generate.py            write what differs, and name it
"""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from crystalline.machine.levels import EXACT_LEVELS, LEVELS, Level, features_of  # noqa: E402

KERNELS = ROOT / "crystalline" / "_kernels"
PRIMITIVES = KERNELS / "primitives"
WRITTEN = "written by tools/generate.py"
BEGIN, END = f"    # {WRITTEN}\n", "    # end\n"
WIDTH = 100

_STRUCT = re.compile(r"typedef struct \{(.*?)\n\} (\w+);", re.DOTALL)
_FUNCTION = re.compile(r"(.+?)\(\*(\w+)\)\((.*)\)", re.DOTALL)
_INCLUDE = re.compile(r'#include "(\w+_table\.h)"')
_KEYWORDS = {"as": "as_"}  # of Python, that C has for names


# --- levels ---------------------------------------------------------------------------------------


def levels_header() -> str:
    """Return `levels.h`: the names of levels and features, for the preprocessor to walk."""
    features = " ".join(f'X("{name}")' for name in features_of(LEVELS, EXACT_LEVELS))
    lines = textwrap.wrap(features, WIDTH - 6, break_on_hyphens=False)
    return "".join(
        [
            f"/* The levels of crystalline/machine/levels.py, {WRITTEN}. */\n",
            "#ifndef CL_LEVELS_H\n#define CL_LEVELS_H\n\n",
            "#define CL_CPU_FEATURES(X) \\\n  ",
            " \\\n  ".join(lines),
            "\n\n#if defined(__x86_64__)\n",
            _walk("CL_LEVELS", LEVELS),
            _walk("CL_EXACT_LEVELS", EXACT_LEVELS),
            "#else\n",
            _walk("CL_LEVELS", tuple(level for level in LEVELS if level.is_portable)),
            _walk("CL_EXACT_LEVELS", tuple(level for level in EXACT_LEVELS if level.is_portable)),
            "#endif\n\n#endif\n",
        ]
    )


def _walk(name: str, levels: tuple[Level, ...]) -> str:
    return f"#define {name}(X) {' '.join(f'X({level.name})' for level in levels)}\n"


def unit(level: Level, kind: str) -> str:
    """Return the translation unit of a level: "level" for floating point, "exact"."""
    is_floating = kind == "level"
    what, contents = (
        ("Primitives", "level.h") if is_floating else ("Exact primitives", "exact_level.h")
    )
    lines = [f"/* {what} for {level.about}.", f" * {WRITTEN.capitalize()}. */"]
    if is_floating and level.is_portable:
        lines += ["#if defined(__aarch64__)", "#include <arm_neon.h>", "#else"]
        lines += ["#include <immintrin.h>", "#endif"]
    elif not level.is_portable:
        lines.append("#include <immintrin.h>")
    lines += ["#include <stdint.h>", "#include <string.h>"]
    if level.features:
        wide = ("prefer-vector-width=512",) if "avx512f" in level.features else ()
        lines.append(f'#pragma GCC target("{",".join((*level.features, *wide))}")')
    lines += [f"#define {macro}" for macro in level.macros]
    lines += [f"#define CL_LEVEL {level.name}", f'#include "{contents}"']
    return "\n".join(lines) + "\n"


# --- primitives -----------------------------------------------------------------------------------


def structs(header: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, members as C) of every struct in the text of a header.

    >>> list(structs("typedef struct {\\n  int n; /* many */\\n  void (*f)(float *x);\\n} A;"))
    [('A', ['int n', 'void (*f)(float *x)'])]
    """
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    for body, name in _STRUCT.findall(text):
        members = (" ".join(member.split()) for member in body.split(";"))
        yield name, [one for member in members for one in _apart(member)]


def _apart(member: str) -> list[str]:
    """Return a member's declarators each on its own where they are more than names."""
    if not member or "(" in member or "[" not in member or "," not in member:
        return [member] if member else []
    kind, first = member.split(" ", 1)
    return [f"{kind} {declarator}" for declarator in first.split(", ")]


def declaration(member: str) -> str:
    """Return a member of a struct as Cython declares it.

    >>> declaration("void (*f)(const float *x, int as)")
    'void (*f)(const float* x, int as_) noexcept nogil'
    """
    found = _FUNCTION.fullmatch(member)
    if not found:
        return re.sub(r" \*", "* ", member)
    arguments = [_argument(argument) for argument in found[3].split(", ")]
    result = found[1].strip().replace(" *", "*")
    return f"{result} (*{found[2]})({', '.join(a for a in arguments if a)}) noexcept nogil"


def _argument(text: str) -> str:
    if text == "void":
        return ""
    kind, name = re.fullmatch(r"(.*[ *])(\w+)", text).groups()  # type: ignore[union-attr]
    return f"{kind.strip().replace(' *', '*')} {_KEYWORDS.get(name, name)}"


def _wrapped(line: str, indent: int) -> str:
    """Break a declaration after commas, under its opening bracket."""
    hang = indent + line.rfind("(", 0, line.index(")(") + 2 if ")(" in line else 0) + 1
    glued = re.sub(r"(?<!,) ", "\0", line)
    lines = textwrap.wrap(
        glued, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * hang,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    return "\n".join(lines).replace("\0", " ") + "\n"


def declarations(headers: list[Path]) -> str:
    """Return the structs of some headers as Cython declares them, in order."""
    text = ""
    for header in headers:
        for name, members in structs(header.read_text("utf-8")):
            text += f"    ctypedef struct {name}:\n"
            text += "".join(_wrapped(declaration(member), 8) for member in members)
    return text


def with_block(text: str, block: str) -> str:
    """Return a .pxd whose part between the two marks is `block`."""
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + block + text[stop:]


def level_table() -> str:
    """Return the members of a level's `Primitives` that are functions of the same name."""
    (members,) = (
        members
        for name, members in structs((PRIMITIVES / "primitives.h").read_text("utf-8"))
        if name == "Primitives"
    )
    names = [found[2] for member in members if (found := _FUNCTION.fullmatch(member))]
    lines = "".join(f"    .{name} = {name},\n" for name in names)
    return (
        f"/* The functions of a level's table, in the order of primitives.h; {WRITTEN}. */\n{lines}"
    )


# --- tables ---------------------------------------------------------------------------------------

SEGMENTS, SEGMENT_WIDTH = 32, 11 / 32  # of the real line, about 0; powers of two divide the width
GELU_A = 2 * math.sqrt(2 / math.pi)
GELU_B = 0.044715 * GELU_A


def gelu_share(x: float) -> float:
    """Return gelu(x) / x in GPT-2's tanh form, 1 / (1 + exp(-(A x + B x^3))).

    >>> gelu_share(0.0), round(gelu_share(1.0), 4)
    (0.5, 0.8412)
    """
    return 1 / (1 + math.exp(-x * (GELU_A + GELU_B * x * x)))


def gelu_slope(x: float) -> float:
    """Return the derivative of gelu at x.

    >>> round(gelu_slope(1.0), 4)
    1.083
    """
    share = gelu_share(x)
    return share + x * share * (1 - share) * (GELU_A + 3 * GELU_B * x * x)


def cubic(f: Callable[[float], float], middle: float, width: float) -> list[float]:
    """Return c[0..3] of the cubic in x - middle that meets f at the Chebyshev nodes of a segment.

    >>> [round(c, 6) + 0.0 for c in cubic(lambda x: 1 + 2 * x**3, 0.0, 1.0)]
    [1.0, 0.0, 0.0, 2.0]
    """
    at = [width / 2 * math.cos((2 * i + 1) * math.pi / 8) for i in range(4)]
    values = [f(middle + r) for r in at]
    for gap in range(1, 4):  # Newton's divided differences, in place
        for i in range(3, gap - 1, -1):
            values[i] = (values[i] - values[i - 1]) / (at[i] - at[i - gap])
    c = [values[3], 0.0, 0.0, 0.0]
    for i in range(2, -1, -1):  # c = c (x - at[i]) + values[i]
        c = [values[i] - at[i] * c[0], *(c[j - 1] - at[i] * c[j] for j in range(1, 4))]
    return c


def gelu_table() -> str:
    """Return the header with both functions as cubics: segment k is entry k modulo SEGMENTS."""
    text = (
        f"/* gelu(x) / x and d gelu / dx as cubics in x - {SEGMENT_WIDTH} k, entry k modulo "
        f"{SEGMENTS}; {WRITTEN}.\n"
        " * The outermost segments are 0 and 1. */\n"
        f"#define CL_SEGMENT_WIDTH {SEGMENT_WIDTH}f\n"
        f"enum {{ CL_FIRST_SEGMENT = {-SEGMENTS // 2}, CL_LAST_SEGMENT = {SEGMENTS // 2 - 1} }};\n"
    )
    for name, f in (("share", gelu_share), ("slope", gelu_slope)):
        numbers = [(k + SEGMENTS // 2) % SEGMENTS - SEGMENTS // 2 for k in range(SEGMENTS)]
        rows = [cubic(f, SEGMENT_WIDTH * k, SEGMENT_WIDTH) for k in numbers]
        rows[SEGMENTS // 2], rows[SEGMENTS // 2 - 1] = [0.0] * 4, [1.0, 0.0, 0.0, 0.0]
        text += f"static const float cl_gelu_{name}[4][{SEGMENTS}] = {{\n"
        for power in range(4):
            entries = ", ".join(f"{row[power]:.9e}f" for row in rows)
            lines = textwrap.fill(entries, 96, initial_indent="     ", subsequent_indent="     ")
            text += f"    {{{lines.strip()}}},\n"
        text += "};\n"
    return text


def exact_headers() -> list[Path]:
    """Return the headers that declare the exact primitives, the table of tables last."""
    table = PRIMITIVES / "exact.h"
    return [*(PRIMITIVES / name for name in _INCLUDE.findall(table.read_text("utf-8"))), table]


# --- files ----------------------------------------------------------------------------------------


def generated() -> dict[Path, str]:
    """Return every file that this tool writes, with its text."""
    isa, exact_isa = KERNELS / "isa.pxd", KERNELS / "exact_isa.pxd"
    files = {
        ROOT / "crystalline" / "machine" / "levels.h": levels_header(),
        PRIMITIVES / "level_table.h": level_table(),
        PRIMITIVES / "gelu_table.h": gelu_table(),
        isa: with_block(isa.read_text("utf-8"), declarations([PRIMITIVES / "primitives.h"])),
        exact_isa: with_block(exact_isa.read_text("utf-8"), declarations(exact_headers())),
    }
    for kind, levels in (("level", LEVELS), ("exact", EXACT_LEVELS)):
        files |= {PRIMITIVES / f"{kind}_{level.name}.c": unit(level, kind) for level in levels}
    return files


def outdated() -> list[Path]:
    """Return the generated files that are not, or not any more, what the lists say."""
    return [
        path
        for path, text in generated().items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]


def main() -> int:
    """Write what differs."""
    files = generated()
    for path in outdated():
        path.write_text(files[path], "utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
