"""What computes the bits of training takes no function from a C library: libraries differ.

Listed are the undefined symbols of the built modules, out of their tables of dynamic symbols
(System V ABI, chapter 4; https://gabi.xinuos.com), as `nm -D --undefined-only` lists them.
"""

from __future__ import annotations

import importlib
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "crystalline"
_FUNCTIONS = """sin cos tan sincos asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp exp2
    exp10 expm1 log log2 log10 log1p pow cbrt hypot erf erfc lgamma tgamma"""
FORBIDDEN = {f"{name}{kind}" for name in _FUNCTIONS.split() for kind in ("", "f", "l")}
# The exact numbers have proofs of their own: a library's guess at a size or a start decides no bit.
GUESSES = {
    "bigint/radix": {"log2"},
    "bigint/roots": {"exp2", "log2"},
    "lattice/lll": {"log2"},
}
DYNSYM = 11  # SHT_DYNSYM


def undefined_symbols(library: Path) -> set[str]:
    data = library.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert data[4] == 2  # 64 bits
    order = "<" if data[5] == 1 else ">"
    (sections_at,) = struct.unpack_from(f"{order}Q", data, 0x28)
    size, count = struct.unpack_from(f"{order}HH", data, 0x3A)
    sections = [
        struct.unpack_from(f"{order}IIQQQQIIQQ", data, sections_at + size * i) for i in range(count)
    ]
    found = set()
    for _, kind, _, _, at, length, link, _, _, entry in sections:
        if kind != DYNSYM:
            continue
        names_at = sections[link][4]
        for place in range(at, at + length, entry):
            name, _, _, section = struct.unpack_from(f"{order}IBBH", data, place)
            start = names_at + name
            if section == 0 and name:
                found.add(data[start : data.index(b"\0", start)].decode())
    return found


def built() -> list[Path]:
    suffix = Path(importlib.import_module("crystalline._kernels.isa").__file__ or "").name
    suffix = suffix.removeprefix("isa")
    return sorted(p for part in ("_kernels", "model") for p in (ROOT / part).rglob(f"*{suffix}"))


def name_of(library: Path) -> str:
    return "/".join(library.relative_to(ROOT).parts[1:]).partition(".")[0]


def test_the_parser_finds_what_modules_need() -> None:
    libraries = built()
    assert len(libraries) > 40
    assert all("PyModuleDef_Init" in undefined_symbols(library) for library in libraries)
    radix = next(library for library in libraries if name_of(library) == "bigint/radix")
    assert "log2" in undefined_symbols(radix)


@pytest.mark.parametrize("library", built(), ids=name_of)
def test_no_module_takes_a_function_of_mathematics(library: Path) -> None:
    allowed = GUESSES.get(name_of(library), set())
    assert undefined_symbols(library) & FORBIDDEN - allowed == set()
