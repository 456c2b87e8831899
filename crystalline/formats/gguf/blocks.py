"""The number formats of a GGUF file: rows of float32 to bytes and back, a block of a row at a time.

A row holds whole blocks; a block is 32 numbers (Q6_K: 256) that share a scale d in float16:

    F32, F16, BF16    the numbers themselves
    Q8_0              d, 32 × int8:                       x = d q
    Q4_0              d, 32 × 4 bits, less 8:             x = d (q - 8)
    Q4_1              d, m, 32 × 4 bits:                  x = d q + m
    Q5_0, Q5_1        as Q4, with a fifth bit of each q in a word of their own
    Q6_K              128 + 64 bytes of 6 bits, 16 × int8 s, d:   x = d s (q - 32)

Of the 32 numbers of 4 bits, byte i holds number i below and number i + 16 above.  The first five
are written too, in the bits of llama.cpp's reference quantization (ggml-quants.c).  Scales are
rounded to float16 after the numbers were divided by the unrounded ones, as it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_QUANT_NUMBERS = 32
_LARGEST_HALF = 65504.0
_CHUNK_NUMBERS = 1 << 20  # decoded or encoded at a time, so that temporaries stay small
_CARRY = np.uint32(0x7FFF)


class BlockError(ValueError):
    """Numbers that a format cannot hold; `str(error)` is a clause."""


@dataclass(frozen=True)
class BlockType:
    """One number format.  `code` is the file's number for it, `name` llama.cpp's."""

    name: str
    code: int
    numbers: int  # in a block
    block_bytes: int
    decode: Callable[[Bytes], Floats]  # [blocks, block_bytes] to [blocks, numbers]
    encode: Callable[[Floats], npt.NDArray[Any]] | None = None  # and back; None: only read here
    file_type: int = -1  # llama.cpp's number for a file that is mostly of this type

    def row_bytes(self, columns: int) -> int:
        """Return the size of a row.  Raises `ValueError` unless it is whole blocks."""
        if columns % self.numbers:
            raise ValueError(f"{columns} numbers are no whole blocks of {self.name}")
        return columns // self.numbers * self.block_bytes

    def dequantize(self, rows: Bytes) -> Floats:
        """Return float32[rows, columns] of the bytes of whole rows, uint8[rows, row_bytes].

        Scales of a damaged file may give numbers that are not finite.
        """
        count, row_bytes = rows.shape
        columns = row_bytes // self.block_bytes * self.numbers
        result = np.empty((count, columns), np.float32)
        for part in _parts(count, columns):
            blocks = rows[part].reshape(-1, self.block_bytes)
            with np.errstate(invalid="ignore", over="ignore"):
                result[part] = self.decode(blocks).reshape(-1, columns)
        return result

    def quantize(self, rows: Floats) -> Bytes:
        """Return uint8[rows, row_bytes] of float32[rows, columns].

        Raises `BlockError` for numbers beyond the format, and `ValueError` for part of a block.
        """
        assert self.encode is not None
        count, columns = rows.shape
        result = np.empty((count, self.row_bytes(columns)), np.uint8)
        for part in _parts(count, columns):
            blocks = np.ascontiguousarray(rows[part], np.float32).reshape(-1, self.numbers)
            result[part] = self.encode(blocks).view(np.uint8).reshape(-1, result.shape[1])
        return result


def _parts(count: int, columns: int) -> list[slice]:
    step = max(1, _CHUNK_NUMBERS // max(columns, 1))
    return [slice(start, start + step) for start in range(0, count, step)]


def _little(blocks: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Return the last axis of bytes as numbers."""
    return np.ascontiguousarray(blocks).view(dtype)


def _half(values: Floats, name: str) -> npt.NDArray[np.float16]:
    if values.size and not float(np.abs(values).max()) <= _LARGEST_HALF:
        raise BlockError(f"it has numbers that are too large for {name}, or are not finite")
    return values.astype("<f2")


# --- whole numbers ----------------------------------------------------------------------------


def _decode_f32(blocks: Bytes) -> Floats:
    return _little(blocks, "<f4")


def _encode_f32(blocks: Floats) -> npt.NDArray[Any]:
    return blocks.astype("<f4", copy=False)


def _decode_f16(blocks: Bytes) -> Floats:
    return _little(blocks, "<f2").astype(np.float32)


def _encode_f16(blocks: Floats) -> npt.NDArray[Any]:
    return _half(blocks, "f16")


def _decode_bf16(blocks: Bytes) -> Floats:
    return (_little(blocks, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _encode_bf16(blocks: Floats) -> npt.NDArray[Any]:
    """Round to the nearest, ties to even."""
    if not np.isfinite(blocks).all():
        raise BlockError("it has numbers that are not finite")
    bits = blocks.view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = (bits + (_CARRY + (upper & np.uint32(1)))) >> np.uint32(16)
    return rounded.astype("<u2")


# --- 32 numbers and a scale -------------------------------------------------------------------


def _inverse(scale: Floats) -> Floats:
    """Return 1 / scale; 0 where the scale is 0 or so small that there is no inverse."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse: Floats = np.float32(1.0) / scale
    inverse[~np.isfinite(inverse)] = 0.0
    return inverse


def _decode_q8_0(blocks: Bytes) -> Floats:
    scale = _little(blocks[:, :2], "<f2").astype(np.float32)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * scale


def _encode_q8_0(blocks: Floats) -> npt.NDArray[Any]:
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127.0)
    halves = _half(scale, "q8_0")
    scaled = blocks * _inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += size - whole >= np.float32(0.5)  # halves away from zero, as C's roundf
    numbers = np.copysign(whole, scaled).astype(np.int8)
    return np.concatenate([halves.view(np.uint8), numbers.view(np.uint8)], axis=1)


def _nibbles(packed: Bytes) -> Bytes:
    """Return the 32 numbers of 16 bytes: those below first, then those above."""
    return np.concatenate([packed & np.uint8(0x0F), packed >> np.uint8(4)], axis=1)


def _decode_q4_0(blocks: Bytes) -> Floats:
    scale = _little(blocks[:, :2], "<f2").astype(np.float32)
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - np.float32(8.0)) * scale


def _encode_q4_0(blocks: Floats) -> npt.NDArray[Any]:
    """The number of the largest size becomes -8; the others are rounded in two steps, unfused."""
    at = np.abs(blocks).argmax(axis=1)[:, None]
    scale = np.take_along_axis(blocks, at, axis=1) / np.float32(-8.0)
    halves = _half(scale, "q4_0")
    shifted = blocks * _inverse(scale) + np.float32(8.5)
    numbers = np.minimum(shifted.astype(np.uint8), np.uint8(15))
    packed = numbers[:, :16] | (numbers[:, 16:] << np.uint8(4))
    return np.concatenate([halves.view(np.uint8), packed], axis=1)


def _decode_q4_1(blocks: Bytes) -> Floats:
    scale, least = np.split(_little(blocks[:, :4], "<f2").astype(np.float32), 2, axis=1)
    return _nibbles(blocks[:, 4:]).astype(np.float32) * scale + least


def _fifth_bits(words: Bytes) -> Bytes:
    """Return the 32 bits of a word, each worth 16."""
    return np.unpackbits(words, axis=1, bitorder="little") << np.uint8(4)


def _decode_q5_0(blocks: Bytes) -> Floats:
    scale = _little(blocks[:, :2], "<f2").astype(np.float32)
    numbers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return (numbers.astype(np.float32) - np.float32(16.0)) * scale


def _decode_q5_1(blocks: Bytes) -> Floats:
    scale, least = np.split(_little(blocks[:, :4], "<f2").astype(np.float32), 2, axis=1)
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return numbers.astype(np.float32) * scale + least


def _decode_q6_k(blocks: Bytes) -> Floats:
    """Each half of a block has 128 numbers: 64 bytes of low parts, 32 bytes of high parts.

    Byte i of the low parts holds numbers i and i + 64 of the half; byte i of the high parts
    two bits of each of the numbers i, i + 32, i + 64 and i + 96.
    """
    count = len(blocks)
    low = blocks[:, :128].reshape(count, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None]
    low = (low & np.uint8(0x0F)).reshape(count, 2, 128)
    high = blocks[:, 128:192].reshape(count, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (high & np.uint8(0x03)).reshape(count, 2, 128) << np.uint8(4)
    numbers = (low | high).reshape(count, 16, 16).astype(np.float32) - np.float32(32.0)
    scale = _little(blocks[:, 208:], "<f2").astype(np.float32)
    parts = blocks[:, 192:208].view(np.int8).astype(np.float32) * scale
    return (numbers * parts[:, :, None]).reshape(count, 256)


F32 = BlockType("f32", 0, 1, 4, _decode_f32, _encode_f32, 0)
F16 = BlockType("f16", 1, 1, 2, _decode_f16, _encode_f16, 1)
BF16 = BlockType("bf16", 30, 1, 2, _decode_bf16, _encode_bf16, 32)
Q8_0 = BlockType("q8_0", 8, _QUANT_NUMBERS, 34, _decode_q8_0, _encode_q8_0, 7)
Q4_0 = BlockType("q4_0", 2, _QUANT_NUMBERS, 18, _decode_q4_0, _encode_q4_0, 2)
Q4_1 = BlockType("q4_1", 3, _QUANT_NUMBERS, 20, _decode_q4_1)
Q5_0 = BlockType("q5_0", 6, _QUANT_NUMBERS, 22, _decode_q5_0)
Q5_1 = BlockType("q5_1", 7, _QUANT_NUMBERS, 24, _decode_q5_1)
Q6_K = BlockType("q6_K", 14, 256, 210, _decode_q6_k)

READABLE = {kind.code: kind for kind in (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q6_K)}
WRITABLE = {kind.name: kind for kind in READABLE.values() if kind.encode is not None}

# Types of llama.cpp that are not read here: their names, for a message.
FOREIGN = {
    9: "q8_1", 10: "q2_K", 11: "q3_K", 12: "q4_K", 13: "q5_K", 15: "q8_K", 16: "iq2_xxs",
    17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs",
    24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 34: "tq1_0", 35: "tq2_0",
    39: "mxfp4",
}  # fmt: skip
