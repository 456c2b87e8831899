"""The container: what is written is read, by us and by the package `gguf`; damage is named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.formats.gguf.blocks import F32, Q8_0
from crystalline.formats.gguf.container import TYPES, Container, Header
from crystalline.untrusted import BadContent

VALUES: dict[str, Any] = {
    "a.u8": ("u8", 255), "a.i8": ("i8", -128), "a.u16": ("u16", 65535), "a.i16": ("i16", -5),
    "a.u32": ("u32", 2**32 - 1), "a.i32": ("i32", -(2**31)), "a.f32": ("f32", 1.5),
    "a.bool": ("bool", True), "a.text": ("text", "Zürich \0 😀"), "a.empty": ("text", ""),
    "a.u64": ("u64", 2**64 - 1), "a.i64": ("i64", -(2**63)), "a.f64": ("f64", 1e300),
    "b.texts": ("list", ("text", ["", "é", "x" * 300])), "b.none": ("list", ("text", [])),
    "b.numbers": ("list", ("i32", [1, -2, 3])), "b.bools": ("list", ("bool", [True, False])),
    "b.floats": ("list", ("f32", [0.5, -0.25])),
}  # fmt: skip
TENSORS = [("one", (3,), F32), ("two", (5, 64), Q8_0), ("three", (2, 3, 4), F32)]


def written(path: Path, values: dict[str, Any] | None = None) -> bytes:
    header = Header(VALUES if values is None else values, TENSORS)
    data = bytearray(header.head.ljust(header.size_bytes, b"\0"))
    for number, place in enumerate(header.places.values()):
        data[place.start : place.start + place.size_bytes] = bytes([number + 1]) * place.size_bytes
    path.write_bytes(data)
    return bytes(data)


def test_values_and_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    written(path)
    found = Container(path)
    for key, (kind, value) in VALUES.items():
        expected = value[1] if kind == "list" else value
        assert found.get(key) == expected, key
        assert type(found.get(key)) is type(expected), key
    assert found.length("b.texts") == 3
    assert found.length("a.u8") == 0
    assert found.get("missing", 5) == 5
    assert [(t.name, t.shape, t.kind) for t in found.tensors.values()] == TENSORS
    for number, info in enumerate(found.tensors.values()):
        assert info.start % 32 == 0
        rows = found.rows(info)
        assert rows.shape[0] == info.rows
        assert (rows == number + 1).all()


def test_the_package_reads_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    written(path)
    reader = gguf.GGUFReader(path)
    for key, (kind, value) in VALUES.items():
        if key != "b.none":  # of which it cannot tell the contents
            assert reader.get_field(key).contents() == (value[1] if kind == "list" else value)
    for (name, shape, kind), tensor in zip(TENSORS, reader.tensors, strict=True):
        assert (tensor.name, tuple(tensor.shape)[::-1]) == (name, shape)
        assert tensor.tensor_type == kind.code


def test_files_of_the_package_are_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_uint32("x.number", 7)
    writer.add_array("x.list", ["a", "b"])
    data = np.arange(40, dtype=np.float32).reshape(4, 10)
    writer.add_tensor("one", data)
    writer.add_tensor("two", data[:1, :3].astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = Container(path)
    assert (found.get("x.number"), found.get("x.list")) == (7, ["a", "b"])
    assert found.tensors["two"].start % 64 == 0
    one = found.tensors["one"]
    assert np.array_equal(one.kind.dequantize(found.rows(one)), data)


# --- damage ---------------------------------------------------------------------------------------


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data)) + data


def head(values: bytes = b"", tensors: bytes = b"", *, counts: tuple[int, int] = (0, 0)) -> bytes:
    return b"GGUF" + u32(3) + u64(counts[0]) + u64(counts[1]) + values + tensors


def value(key: str, kind: str, data: bytes) -> bytes:
    return text(key) + u32(TYPES.index(kind)) + data  # type: ignore[arg-type]


def tensor(name: str = "t", shape: tuple[int, ...] = (8,), code: int = 0, offset: int = 0) -> bytes:
    return text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(code) + u64(offset)


BODY = bytes(64)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "short": (b"GGUF" + bytes(10), "too short"),
    "another": (b"GGML" + bytes(40), "not a GGUF file"),
    "version 1": (b"GGUF" + u32(1) + bytes(40), "version 1"),
    "version 4": (b"GGUF" + u32(4) + bytes(40), "version 4"),
    "other byte order": (b"GGUF" + struct.pack(">I", 3) + bytes(40), "other byte order"),
    "absurd counts": (head(counts=(2**63, 1)), "absurd"),
    "many values": (head(counts=(0, 2**40)), "absurd"),
    "promised values": (head(counts=(0, 3)), "cut off"),
    "promised tensors": (head(counts=(3, 0)), "cut off"),
    "long key": (head(u64(2**62) + b"a", counts=(0, 1)), "a key of"),
    "no key": (head(text(""), counts=(0, 1)), "a key of 0 bytes"),
    "key that is not UTF-8": (head(text(b"\xff\xfe"), counts=(0, 1)), "not UTF-8"),
    "unknown type": (head(text("a") + u32(13) + bytes(8), counts=(0, 1)), "unknown type 13"),
    "long text": (head(value("a", "text", u64(2**63)), counts=(0, 1)), "cut off"),
    "key twice": (head(value("a", "u8", b"1") * 2, counts=(0, 2)), "twice"),
    "list of lists": (
        head(value("a", "list", u32(9) + u64(1) + u32(4) + u64(0)), counts=(0, 1)),
        "list of lists",
    ),
    "long list": (head(value("a", "list", u32(4) + u64(2**61)), counts=(0, 1)), "cut off"),
    "long list of texts": (head(value("a", "list", u32(8) + u64(2**61)), counts=(0, 1)), "texts"),
    "list of texts that is cut": (
        head(value("a", "list", u32(8) + u64(50) + text("a")), counts=(0, 1)),
        "cut off",
    ),
    "alignment 0": (head(value("general.alignment", "u32", u32(0)), counts=(0, 1)), "alignment"),
    "alignment 3": (head(value("general.alignment", "u32", u32(3)), counts=(0, 1)), "alignment"),
    "alignment that is text": (
        head(value("general.alignment", "text", text("32")), counts=(0, 1)),
        "alignment",
    ),
    "huge alignment": (
        head(value("general.alignment", "u32", u32(2**31)), counts=(0, 1)),
        "alignment",
    ),
    "long name": (head(tensors=tensor("x" * 64) + BODY, counts=(1, 0)), "the name of a tensor"),
    "name twice": (head(tensors=tensor() + tensor(offset=32) + BODY * 2, counts=(2, 0)), "twice"),
    "no dimensions": (head(tensors=tensor(shape=()) + BODY, counts=(1, 0)), "0 dimensions"),
    "many dimensions": (
        head(tensors=text("t") + u32(2**31) + BODY, counts=(1, 0)),
        "2,147,483,648 dimensions",
    ),
    "no rows": (head(tensors=tensor(shape=(8, 0)) + BODY, counts=(1, 0)), "the shape"),
    "no columns": (head(tensors=tensor(shape=(0,)) + BODY, counts=(1, 0)), "the shape"),
    "overflow": (
        head(tensors=tensor(shape=(2**62, 2**62, 4)) + BODY, counts=(1, 0)),
        "cut off within",
    ),
    "part of a block": (head(tensors=tensor(shape=(33,), code=8) + BODY, counts=(1, 0)), "q8_0"),
    "unknown format": (head(tensors=tensor(code=999) + BODY, counts=(1, 0)), "number 999"),
    "format of others": (head(tensors=tensor(code=12) + BODY, counts=(1, 0)), "q4_K"),
    "cut off": (head(tensors=tensor(shape=(800,)) + BODY, counts=(1, 0)), "cut off within"),
    "offset beyond": (head(tensors=tensor(offset=2**63) + BODY, counts=(1, 0)), "behind the one"),
    "tensors on one another": (
        head(tensors=tensor("a") + tensor("b") + BODY * 3, counts=(2, 0)),
        "behind the one",
    ),
    "no alignment": (head(tensors=tensor(offset=4) + BODY, counts=(1, 0)), "behind the one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_damage_is_one_clause(tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(BadContent, match=words) as caught:
        Container(path)
    assert len(str(caught.value)) < 300


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    data = written(path)
    whole = Container(path)
    needed = max(info.start + info.size_bytes for info in whole.tensors.values())
    for size in range(0, needed, 7):
        path.write_bytes(data[:size])
        with pytest.raises(BadContent):
            Container(path)


def test_texts_that_are_not_utf8_are_refused_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(head(value("a", "text", text(b"\xff")), counts=(0, 1)))
    with pytest.raises(BadContent, match="its a is not UTF-8"):
        Container(path).get("a")


def test_long_values_are_stepped_over_and_refused_when_they_are_asked_for(tmp_path: Path) -> None:
    """A list of a gigabyte would take many as Python's numbers."""
    path = tmp_path / "a.gguf"
    size = 2**30
    list_head = text("a") + u32(9) + u32(0) + u64(size)
    text_head = text("b") + u32(8) + u64(size)
    with path.open("wb") as file:
        file.write(head(list_head, counts=(0, 2)))
        file.seek(size, 1)
        file.write(text_head)
        file.truncate(file.tell() + size)
    found = Container(path)
    assert found.length("a") == size
    with pytest.raises(BadContent, match="'a' is a list of 1,073,741,824 items"):
        found.get("a")
    with pytest.raises(BadContent, match="b has 1,073,741,824 bytes"):
        found.get("b")


def test_short_files_of_many_texts_are_refused_in_time(tmp_path: Path) -> None:
    """Millions of empty texts take a megabyte each eight bytes of list, and long to walk."""
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(head(value("a", "list", u32(8) + u64(2**25)), counts=(0, 1)))
        file.truncate(2**28 + 100)
    with pytest.raises(BadContent, match="more than 4,194,304 texts"):
        Container(path)
