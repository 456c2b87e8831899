"""The container: what a GGUF file says of itself and where its tensors lie, without their meaning.

    "GGUF"  version u32  tensors u64  values u64          little-endian throughout
    values:   key, type u32, value
    tensors:  name, dimensions u32, each u64, type u32, offset u64
    padding to a multiple of general.alignment (32 where it is not named)
    data: the tensors one after another, each padded to the alignment

A text is its length u64 and UTF-8, a list the type of its items u32, their number u64, the items.
Dimensions stand with the innermost first, the other way round than in NumPy.  Every length, count,
number and offset of a file is checked before anything follows from it: what is refused raises
`BadContent` with a clause.  Texts are decoded, and lists made, when they are asked for.

To write, `Header` takes values and tensors, and knows then where each tensor's bytes go.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crystalline.formats.gguf.blocks import FOREIGN, READABLE, BlockType, Bytes
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import GGUF

MAGIC = b"GGUF"
VERSION = 3
VERSIONS = (2, 3)  # version 1 had other lengths, and is read by nobody any more
ALIGNMENT = 32

MOST_VALUES = 1 << 16
MOST_TENSORS = 1 << 16
MOST_ITEMS = 1 << 22  # of all lists of texts together
MOST_LISTED = 1 << 20  # of a list that is asked for: as many as a vocabulary may have tokens
LONGEST_TEXT = 1 << 24  # bytes of a text that is asked for
LONGEST_NAME = 63  # bytes of a tensor's, as llama.cpp has it
LONGEST_KEY = (1 << 16) - 1
MOST_DIMENSIONS = 4
LARGEST_ALIGNMENT = 1 << 16

ValueType = Literal[
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "list", "u64", "i64", "f64"
]
TYPES: tuple[ValueType, ...] = (
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "list", "u64", "i64", "f64",
)  # fmt: skip
_DTYPES = {
    "u8": "<u1", "i8": "<i1", "u16": "<u2", "i16": "<i2", "u32": "<u4", "i32": "<i4",
    "f32": "<f4", "bool": "|u1", "u64": "<u8", "i64": "<i8", "f64": "<f8",
}  # fmt: skip
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies; `shape` is NumPy's, the innermost dimension last."""

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    start: int  # in bytes, from the beginning of the file
    size_bytes: int

    @property
    def rows(self) -> int:
        """All dimensions but the last, multiplied."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))


@dataclass(frozen=True)
class _Value:
    """Where a value lies.  `inner` and `count` are of a list."""

    kind: ValueType
    start: int
    stop: int
    inner: ValueType = "u8"
    count: int = 0


class Container:
    """An open GGUF file: its values by key, and its tensors by name, in the order of the file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and check.  Raises `OSError`, and `BadContent` for what is no GGUF file."""
        self.path = Path(path)
        with GGUF.open(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes < 24:
                raise BadContent("it is too short for a GGUF file")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._at = 0
        self._items_left = MOST_ITEMS
        self._values: dict[str, _Value] = {}
        self._seen: set[str] = set()  # names of tensors
        self.tensors: dict[str, TensorInfo] = {}
        self._read_head()

    # --- values -------------------------------------------------------------------------------

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> tuple[str, ...]:
        """Return the keys, in the order of the file."""
        return tuple(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value: a number, a bool, a text, or a list of them.

        Raises `BadContent` for a text that is not UTF-8, and for what is too long.
        """
        value = self._values.get(key)
        if value is None:
            return default
        if value.kind == "text":
            return self._text(value.start, value.stop - value.start, key)
        if value.kind != "list":
            number = self._numbers(value.start, value.kind, 1)[0]
            return bool(number) if value.kind == "bool" else number.item()
        if value.count > MOST_LISTED:
            raise BadContent(f"its '{shown(key, 80)}' is a list of {value.count:,} items")
        if value.inner == "text":
            return self._texts(value, key)
        numbers = self._numbers(value.start, value.inner, value.count)
        return [bool(n) for n in numbers] if value.inner == "bool" else numbers.tolist()

    def length(self, key: str) -> int:
        """Return the number of items of a list without making it; 0 for what is none."""
        value = self._values.get(key)
        return 0 if value is None else value.count

    def _numbers(self, start: int, kind: ValueType, count: int) -> npt.NDArray[Any]:
        dtype = np.dtype(_DTYPES[kind])
        return self._bytes[start : start + count * dtype.itemsize].view(dtype)

    def _text(self, start: int, size: int, what: str) -> str:
        if size > LONGEST_TEXT:
            raise BadContent(f"its {shown(what, 80)} has {size:,} bytes")
        try:
            return self._map[start : start + size].decode()
        except UnicodeDecodeError:
            raise BadContent(f"its {shown(what, 80)} is not UTF-8") from None

    def _texts(self, value: _Value, key: str) -> list[str]:
        found = []
        at = value.start
        for _ in range(value.count):
            (size,) = _U64.unpack_from(self._map, at)
            found.append(self._text(at + 8, size, key))
            at += 8 + size
        return found

    # --- tensors ------------------------------------------------------------------------------

    def rows(self, info: TensorInfo) -> Bytes:
        """Return the bytes of a tensor, uint8[rows, row_bytes], where they lie."""
        data = self._bytes[info.start : info.start + info.size_bytes]
        return data.reshape(info.rows, -1)

    # --- reading the head ---------------------------------------------------------------------

    def _read_head(self) -> None:
        if self._map[:4] != MAGIC:
            raise BadContent("it is not a GGUF file")
        self._at = 4
        version = self._u32()
        if version & 0xFFFF == 0:
            raise BadContent("it was made for machines of the other byte order")
        if version not in VERSIONS:
            raise BadContent(f"it is of version {version} of GGUF, version 2 and 3 are known here")
        tensors, values = self._u64(), self._u64()
        if tensors > MOST_TENSORS or values > MOST_VALUES:
            raise BadContent(
                f"it promises {tensors:,} tensors and {values:,} values, which is absurd"
            )
        for _ in range(values):
            self._read_value()
        alignment = self._alignment()
        heads = [self._read_tensor_head() for _ in range(tensors)]
        start = _aligned(self._at, alignment)
        expected = 0
        for name, shape, kind, offset in heads:
            rows = int(np.prod(shape[:-1], dtype=object))
            size_bytes = rows * kind.row_bytes(shape[-1])
            if offset != expected:
                raise BadContent(
                    f"its tensor '{shown(name, 80)}' does not lie behind the one before"
                )
            expected = _aligned(offset + size_bytes, alignment)
            if start + offset + size_bytes > len(self._bytes):
                raise BadContent(f"it is cut off within its tensor '{shown(name, 80)}'")
            self.tensors[name] = TensorInfo(name, shape, kind, start + offset, size_bytes)

    def _take(self, size: int) -> int:
        """Step over so many bytes; return where they begin."""
        start = self._at
        if size > len(self._bytes) - start:
            raise BadContent("it is cut off")
        self._at += size
        return start

    def _u32(self) -> int:
        return int(_U32.unpack_from(self._map, self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack_from(self._map, self._take(8))[0])

    def _name(self, what: str, longest: int) -> str:
        size = self._u64()
        if not 0 < size <= longest:
            raise BadContent(f"it has {what} of {size:,} bytes")
        return self._text(self._take(size), size, what)

    def _type(self) -> ValueType:
        number = self._u32()
        if number >= len(TYPES):
            raise BadContent(f"it has a value of the unknown type {number}")
        return TYPES[number]

    def _read_value(self) -> None:
        key = self._name("a key", LONGEST_KEY)
        if key in self._values:
            raise BadContent(f"it has the key '{shown(key, 80)}' twice")
        kind = self._type()
        if kind == "text":
            size = self._u64()
            start = self._take(size)
            self._values[key] = _Value(kind, start, self._at)
        elif kind == "list":
            self._values[key] = self._read_list(key)
        else:
            start = self._take(np.dtype(_DTYPES[kind]).itemsize)
            self._values[key] = _Value(kind, start, self._at)

    def _read_list(self, key: str) -> _Value:
        inner, count = self._type(), self._u64()
        if inner == "list":
            raise BadContent(f"its '{shown(key, 80)}' is a list of lists")
        start = self._at
        if inner != "text":
            self._take(count * np.dtype(_DTYPES[inner]).itemsize)
            return _Value("list", start, self._at, inner, count)
        self._items_left -= count
        if self._items_left < 0:
            raise BadContent(f"its lists have more than {MOST_ITEMS:,} texts")
        if count * 8 > len(self._bytes) - start:
            raise BadContent("it is cut off")
        for _ in range(count):
            self._take(self._u64())
        return _Value("list", start, self._at, inner, count)

    def _alignment(self) -> int:
        alignment = self.get("general.alignment", ALIGNMENT)
        good = isinstance(alignment, int) and 0 < alignment <= LARGEST_ALIGNMENT
        if not good or alignment & (alignment - 1):
            raise BadContent(f"its alignment is {shown(repr(alignment), 40)}")
        return int(alignment)

    def _read_tensor_head(self) -> tuple[str, tuple[int, ...], BlockType, int]:
        name = self._name("the name of a tensor", LONGEST_NAME)
        if name in self._seen:
            raise BadContent(f"it has the tensor '{shown(name, 80)}' twice")
        self._seen.add(name)
        dimensions = self._u32()
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise BadContent(f"its tensor '{shown(name, 80)}' has {dimensions:,} dimensions")
        shape = tuple(self._u64() for _ in range(dimensions))[::-1]
        code, offset = self._u32(), self._u64()
        kind = READABLE.get(code)
        if kind is None:
            raise ForeignType(name, FOREIGN.get(code, f"number {code}"))
        if 0 in shape or shape[-1] % kind.numbers:
            raise BadContent(
                f"its tensor '{shown(name, 80)}' has the shape {shown(str(shape), 80)}, "
                f"which {kind.name} cannot have"
            )
        return name, shape, kind, offset


class ForeignType(BadContent):
    """A tensor in a number format that is not read here; `type_name` is llama.cpp's word for it."""

    def __init__(self, tensor: str, type_name: str) -> None:
        super().__init__(f"its tensor '{shown(tensor, 80)}' is of type {type_name}")
        self.type_name = type_name


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


# --- writing ----------------------------------------------------------------------------------


Value = tuple[ValueType, Any]  # ("u32", 7), ("text", "x"), or a list: ("list", ("i32", [1, 2]))


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor go."""

    start: int  # from the beginning of the file
    size_bytes: int
    kind: BlockType


class Header:
    """The head of a file to be written, and where each tensor goes."""

    def __init__(
        self,
        values: Mapping[str, Value],
        tensors: Iterable[tuple[str, Sequence[int], BlockType]],
    ) -> None:
        """`tensors` are name, shape (NumPy's) and format, in the order of the file."""
        listed = list(tensors)
        parts = [MAGIC, _U32.pack(VERSION), _U64.pack(len(listed)), _U64.pack(len(values))]
        for key, (kind, value) in values.items():
            parts += [_packed_text(key), _U32.pack(TYPES.index(kind)), _packed(kind, value)]
        offset = 0
        offsets: dict[str, tuple[int, int, BlockType]] = {}
        for name, shape, block in listed:
            size_bytes = int(np.prod(shape[:-1], dtype=np.int64)) * block.row_bytes(shape[-1])
            parts += [_packed_text(name), _U32.pack(len(shape))]
            parts += [_U64.pack(n) for n in reversed(shape)]
            parts += [_U32.pack(block.code), _U64.pack(offset)]
            offsets[name] = (offset, size_bytes, block)
            offset = _aligned(offset + size_bytes, ALIGNMENT)
        head = b"".join(parts)
        start = _aligned(len(head), ALIGNMENT)
        self.head = head.ljust(start, b"\0")
        self.places = {
            name: Place(start + at, size_bytes, block)
            for name, (at, size_bytes, block) in offsets.items()
        }
        self.size_bytes = start + offset  # of the whole file


def _packed_text(text: str) -> bytes:
    data = text.encode()
    return _U64.pack(len(data)) + data


def _packed(kind: ValueType, value: Any) -> bytes:
    if kind == "text":
        return _packed_text(value)
    if kind != "list":
        return np.array(value, _DTYPES[kind]).tobytes()
    inner, items = value
    head = _U32.pack(TYPES.index(inner)) + _U64.pack(len(items))
    if inner == "text":
        return head + b"".join(map(_packed_text, items))
    return head + np.array(items, _DTYPES[inner]).tobytes()
