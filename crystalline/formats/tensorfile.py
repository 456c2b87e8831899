"""One safetensors file: tensors written and read in blocks, so that no second copy of one exists.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON:
name → dtype, shape and data_offsets), and the data, to whose start the offsets count.

Written here rather than by the library, which takes arrays as they lie in memory: a transposed
view would be written wrongly without a word, and every tensor must be there at the same time.
Read here, too, since NumPy has no bfloat16.  That a header is sound (nothing overlaps, nothing
lies beyond the end) is for the library to check.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crystalline.closing import Closing
from crystalline.errors import CheckpointError
from crystalline.faults import point
from crystalline.formats.bfloat16 import narrow, widen
from crystalline.formats.catalog import damage, unreadable
from crystalline.untrusted import open_regular, shown

TensorType = Literal["f32", "bf16"]  # what is written
Floats = npt.NDArray[np.float32]

_BLOCK_FLOATS = 1 << 20  # at a time
_HEADER_ALIGN = 8
_WRITTEN = {"f32": ("F32", 4), "bf16": ("BF16", 2)}
_READ: dict[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
}


# --- writing ----------------------------------------------------------------------------------


def write_tensors(
    path: Path,
    tensors: Mapping[str, Floats],
    metadata: Mapping[str, str] | None = None,
    type: TensorType = "f32",  # noqa: A002 - as users say it
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Write a safetensors file: what the library would write of contiguous copies.

    The arrays may be views of any strides, and the mapping may make them one by one; with `shapes`
    each is asked for once, otherwise its shape is looked at first.  bf16 is rounded to nearest.

    Raises:
        OSError: it cannot be written.
        ValueError: a tensor has another shape than `shapes` says.
    """
    dtype, item_bytes = _WRITTEN[type]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    names = sorted(tensors)
    if shapes is None:
        shapes = {name: tensors[name].shape for name in names}
    for name in names:
        shape = shapes[name]
        start, end = end, end + item_bytes * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _HEADER_ALIGN)
    point("checkpoint.tensors")
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = tensors[name]
            if tensor.shape != tuple(shapes[name]):
                raise ValueError(f"the tensor {name} is {tensor.shape}, not {shapes[name]}")
            for block in _blocks(tensor):
                values = np.ascontiguousarray(block, np.dtype("<f4"))
                little = narrow(values).astype("<u2", copy=False) if type == "bf16" else values
                point("checkpoint.block")
                file.write(little.data)


def _blocks(tensor: Floats) -> Iterator[Floats]:
    """Yield a tensor in blocks of whole rows, of about `_BLOCK_FLOATS`."""
    if tensor.ndim == 0:
        yield tensor.reshape(1)
        return
    step = max(1, _BLOCK_FLOATS // max(1, math.prod(tensor.shape[1:])))
    for row in range(0, tensor.shape[0], step):
        yield tensor[row : row + step]


# --- reading ----------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table of the header, in which the library and we could believe different twins."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name is there twice")
    return table


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file, bytes

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return np.dtype(_READ[self.dtype]).itemsize


class TensorFile(Closing):
    """A safetensors file, open to read.  Use it as a context manager, or `close` it.

    Raises `CheckpointError` for what is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Stored] = {}
        try:
            self._file = open_regular(path)
        except PermissionError as error:
            raise unreadable(path, error) from None
        except OSError as error:
            raise damage(path.parent, f"{path} cannot be read ({error.strerror})") from None
        try:
            self.size_bytes = os.fstat(self._file.fileno()).st_size
            self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_header(self) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="numpy"):
                pass  # its header is sound
            header_bytes = int.from_bytes(self._file.read(8), "little")
            text = self._file.read(header_bytes)
            header = json.loads(text, object_pairs_hook=_once)
        except (SafetensorError, OSError, ValueError) as error:
            raise self._damage(f"{self.path} cannot be read ({shown(str(error))})") from None
        for name, entry in header.items():
            if name != "__metadata__":
                self.tensors[name] = Stored(
                    entry["dtype"],
                    tuple(entry["shape"]),
                    8 + header_bytes + entry["data_offsets"][0],
                )

    def require_floats(self, name: str) -> None:
        """Raise `CheckpointError` unless a tensor is of a type that can be read here."""
        dtype = self.tensors[name].dtype
        if dtype not in _READ:
            raise CheckpointError(
                f"the tensor '{shown(name)}' in {self.path} is of type {shown(dtype)}",
                advice="Save the model as float32.",
            )

    def blocks(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[Floats]:
        """Yield the rows `start` to `stop` of a tensor in blocks, as float32; each is a new array.

        Raises `CheckpointError` for numbers that are not finite, and where reading fails.
        """
        stored = self.tensors[name]
        width = math.prod(stored.shape[1:])
        rows = stored.shape[0] if stored.shape else 1
        stop = rows if stop is None else stop
        step = max(1, _BLOCK_FLOATS // max(1, width))
        dtype = np.dtype(_READ[stored.dtype]).newbyteorder("<")
        for row in range(start, stop, step):
            count = min(step, stop - row)
            raw = np.empty(count * width, dtype)
            try:
                self._file.seek(stored.start + row * width * stored.item_bytes)
                self._fill(raw.view(np.uint8).data)
            except OSError as error:
                raise self._damage(
                    f"{self.path} cannot be read ({error.strerror or error})"
                ) from None
            with np.errstate(over="ignore"):  # of float64: it is infinite then, and refused
                block = widen(raw) if stored.dtype == "BF16" else raw.astype(np.float32, copy=False)
            if not np.isfinite(block).all():
                raise self._damage(f"the tensor '{shown(name)}' in {self.path} is not finite")
            yield block.reshape(count, *stored.shape[1:]) if stored.shape else block

    def _fill(self, target: memoryview) -> None:
        while target:
            count = self._file.readinto(target)  # type: ignore[attr-defined]
            if not count:
                raise OSError(None, "it became shorter")
            target = target[count:]

    def _damage(self, words: str) -> CheckpointError:
        return damage(self.path.parent, words)
