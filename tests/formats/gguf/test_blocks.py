"""Number formats against slow twins, number by number, and against the package `gguf`."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from crystalline.formats.gguf.blocks import F16, Q4_0, READABLE, WRITABLE, BlockError, BlockType

TYPES = list(READABLE.values())
each_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
each_written = pytest.mark.parametrize("kind", WRITABLE.values(), ids=lambda kind: kind.name)


def numbers(rows: int = 40, columns: int = 512) -> np.ndarray:
    """Rows of unequal sizes; zeros, subnormal scales, ties and rows of one sign among them."""
    random = np.random.default_rng(7)
    values = random.standard_normal((rows, columns)) * np.exp(random.standard_normal((rows, 1)))
    values[0] = 0.0
    values[1, :32] = 1e-30
    values[2] = np.round(4 * values[2]) / 4  # many ties
    values[3] = np.arange(columns) - columns // 2
    values[4] = -np.abs(values[4])
    values[5, :32] = 0.5
    values[6] *= 1e-7  # scales below float16's normal numbers
    return values.astype(np.float32)


def float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def half(data: bytes) -> float:
    return struct.unpack("<e", data)[0]


def q8_0_twin(block: list[float]) -> bytes:
    scale = float32(max(map(abs, block)) / 127.0)
    inverse = float32(1.0 / scale) if scale else 0.0
    result = struct.pack("<e", scale)
    for value in block:
        scaled = float32(value * inverse)
        result += struct.pack("<b", int(math.copysign(math.floor(abs(scaled) + 0.5), scaled)))
    return result


def q4_0_twin(block: list[float]) -> bytes:
    largest = max(block, key=abs)  # the first of equals
    scale = float32(largest / -8.0)
    inverse = float32(1.0 / scale) if scale else 0.0
    quants = [min(15, int(float32(float32(value * inverse) + 8.5))) for value in block]
    packed = bytes(quants[i] | quants[i + 16] << 4 for i in range(16))
    return struct.pack("<e", scale) + packed


@pytest.mark.parametrize(("name", "twin"), [("q8_0", q8_0_twin), ("q4_0", q4_0_twin)])
def test_quantization_has_the_bits_of_the_reference(name: str, twin: object) -> None:
    values = numbers()
    rows = WRITABLE[name].quantize(values)
    for row, packed in zip(values[:12], rows, strict=False):
        expected = b"".join(twin(block.tolist()) for block in row.reshape(-1, 32))  # type: ignore[operator]
        assert packed.tobytes() == expected


def unpacked(kind: BlockType, data: bytes) -> list[float]:
    """Return the numbers of a block as ggml-quants.c describes them, one by one."""
    if kind.name == "q8_0":
        return [half(data[:2]) * q for q in struct.unpack("<32b", data[2:])]
    if kind.name == "q6_K":
        return q6_k_twin(data)
    low = data[-16:]
    nibbles = [low[i] & 15 for i in range(16)] + [low[i] >> 4 for i in range(16)]
    if kind.name in ("q5_0", "q5_1"):
        (high,) = struct.unpack("<I", data[-20:-16])
        nibbles = [q | ((high >> i) & 1) << 4 for i, q in enumerate(nibbles)]
    scale = half(data[:2])
    if kind.name.endswith("_1"):
        return [float32(scale * q) + half(data[2:4]) for q in nibbles]
    return [scale * (q - (8 if kind.name == "q4_0" else 16)) for q in nibbles]


def q6_k_twin(data: bytes) -> list[float]:
    low, high, scales = data[:128], data[128:192], struct.unpack("<16b", data[192:208])
    result = [0.0] * 256
    for n in (0, 1):
        for i in range(32):
            for part, (byte, shift) in enumerate(((i, 0), (i + 32, 0), (i, 4), (i + 32, 4))):
                q = (low[64 * n + byte] >> shift) & 15
                q |= ((high[32 * n + i] >> (2 * part)) & 3) << 4
                scale = scales[8 * n + i // 16 + 2 * part]
                result[128 * n + 32 * part + i] = half(data[208:]) * scale * (q - 32)
    return result


@pytest.mark.parametrize(
    "kind", [kind for kind in TYPES if kind.numbers > 1], ids=lambda kind: kind.name
)
def test_blocks_are_unpacked_as_the_reference_does(kind: BlockType) -> None:
    random = np.random.default_rng(3)
    rows = random.integers(0, 256, (6, 3 * kind.block_bytes), np.uint8)
    for block in rows.reshape(-1, kind.block_bytes):  # sane scales
        at = 208 if kind.name == "q6_K" else 0
        for part in range(at, at + (4 if kind.name.endswith("_1") else 2), 2):
            block[part : part + 2] = list(struct.pack("<e", random.standard_normal()))
    found = kind.dequantize(rows)
    for row, data in zip(found, rows, strict=True):
        blocks = [
            data[i : i + kind.block_bytes].tobytes() for i in range(0, len(data), kind.block_bytes)
        ]
        expected = [value for block in blocks for value in unpacked(kind, block)]
        np.testing.assert_allclose(row, expected, rtol=1e-6)


@each_written
def test_what_is_written_comes_back(kind: BlockType) -> None:
    values = numbers()
    back = kind.dequantize(kind.quantize(values))
    steps = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127, "q4_0": 1 / 8}
    largest = np.abs(values.reshape(-1, 32)).max(axis=1).repeat(32).reshape(values.shape)
    if kind.numbers == 1:
        bound = steps[kind.name] * np.abs(values) + (kind.name == "f16") * 2**-25
    else:  # a scale is rounded too, the smallest to a multiple of 2^-24
        bound = (1.001 * steps[kind.name] + 2**-11) * largest + 127 * 2**-25
    assert (np.abs(back - values) <= bound).all()


@each_written
def test_parts_of_rows_make_no_difference(kind: BlockType, monkeypatch: pytest.MonkeyPatch) -> None:
    values = numbers()
    whole = kind.quantize(values)
    monkeypatch.setattr("crystalline.formats.gguf.blocks._CHUNK_NUMBERS", 1500)
    assert np.array_equal(kind.quantize(values), whole)
    assert kind.dequantize(whole).shape == values.shape


@pytest.mark.parametrize("name", ["f16", "bf16", "q8_0", "q4_0"])
def test_numbers_beyond_the_format_are_refused(name: str) -> None:
    values = numbers()
    values[3, 7] = np.inf
    with pytest.raises(BlockError):
        WRITABLE[name].quantize(values)
    values[3, 7] = np.nan
    with pytest.raises(BlockError):
        WRITABLE[name].quantize(values)


def test_large_numbers_are_refused_and_not_made_infinite() -> None:
    values = np.full((1, 32), 70_000.0, np.float32)
    with pytest.raises(BlockError, match="too large for f16"):
        F16.quantize(values)
    with pytest.raises(BlockError, match="too large for q4_0"):
        Q4_0.quantize(values * 10)


@each_type
def test_any_bytes_are_numbers(kind: BlockType) -> None:
    """Scales that are infinite, times 0 and others: for the caller to look at, no warning."""
    for byte in (0x00, 0x7C, 0xFF):
        rows = np.full((2, kind.block_bytes), byte, np.uint8)
        rows[:, ::2] = 0
        assert kind.dequantize(rows).shape == (2, kind.numbers)


@each_type
def test_parts_of_blocks_are_an_error(kind: BlockType) -> None:
    if kind.numbers > 1:
        with pytest.raises(ValueError, match="no whole blocks"):
            kind.row_bytes(kind.numbers + 1)


# --- the package gguf -----------------------------------------------------------------------------


@each_type
def test_bits_are_those_of_the_package(kind: BlockType) -> None:
    gguf = pytest.importorskip("gguf")
    from gguf import quants

    theirs = gguf.GGMLQuantizationType(kind.code)
    assert theirs.name.lower() == kind.name.lower()
    assert gguf.GGML_QUANT_SIZES[theirs] == (kind.numbers, kind.block_bytes)
    values = numbers()
    if kind.encode is not None:
        rows = kind.quantize(values)
        assert np.array_equal(rows, quants.quantize(values, theirs).view(np.uint8))
    else:
        random = np.random.default_rng(4)
        rows = random.integers(0, 256, (20, kind.row_bytes(512)), np.uint8)
    ours = kind.dequantize(rows)
    with np.errstate(all="ignore"):  # any bytes: some scales are not finite
        expected = quants.dequantize(rows.copy(), theirs)
    assert np.array_equal(ours, expected.view(np.float32).reshape(ours.shape), equal_nan=True)
