"""bfloat16: every bit pattern, the place in the file, and rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from crystalline.formats.bfloat16 import narrow, widen
from crystalline.formats.tensorfile import TensorFile


def read(path: Path, name: str) -> np.ndarray:
    with TensorFile(path) as file:
        return np.concatenate(list(file.blocks(name)))


def test_all_values_are_the_upper_halves_of_float32(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    bits = np.arange(1 << 16, dtype="<u2").reshape(256, 256)
    bits[(bits & 0x7F80) == 0x7F80] = 0  # neither infinite nor no number: these are refused
    end = 28 + 2 * bits.size
    entries = {
        "__metadata__": {"format": "pt"},
        "before": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28]},
        "all": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [28, end]},
        "z": {"dtype": "BF16", "shape": [], "data_offsets": [end, end + 2]},
    }
    header = json.dumps(entries)
    data = np.arange(7, dtype="<f4").tobytes() + bits.tobytes() + b"\x80\x3f"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    with safe_open(path, framework="numpy") as file:
        assert file.get_slice("all").get_dtype() == "BF16"
    found = read(path, "all")
    assert found.dtype == np.float32
    # 8 bits of exponent, 7 of fraction: the value by the definition of the format
    for sign, exponent, fraction in (
        (0, 127, 0),
        (1, 128, 64),
        (0, 1, 127),
        (0, 0, 1),
        (1, 254, 3),
    ):
        pattern = sign << 15 | exponent << 7 | fraction
        size = (fraction / 128 + (exponent > 0)) * 2.0 ** (max(exponent, 1) - 127)
        assert found[divmod(pattern, 256)] == (-size if sign else size)
    assert read(path, "z") == 1.0


def test_infinite_values_and_no_numbers_widen_as_such() -> None:
    infinite, none = widen(np.array([0x7F80, 0x7F81], np.uint16))
    assert np.isinf(infinite)
    assert np.isnan(none)


def test_rounding_is_to_the_nearest_ties_to_even() -> None:
    draw = np.random.default_rng(5)
    every = widen(np.arange(0, 0x7F00, dtype=np.uint16))
    middles = ((every[:-1].astype(float) + every[1:]) / 2).astype(np.float32)
    some = (draw.standard_normal(5000) * 10.0 ** draw.integers(-40, 38, 5000)).astype(np.float32)
    values = np.concatenate([every, middles, -middles, np.nextafter(middles, 0), some])
    found = narrow(values)
    # The nearest of three neighbors, in exact arithmetic; of two as near the even one.
    signs = np.where(np.signbit(values), 0x8000, 0)
    best = np.zeros(len(values), np.int64)
    least = np.full(len(values), np.inf)
    lower = (values.view(np.uint32) >> 16).astype(np.int64) & 0x7FFF
    for shift in (0, 1):
        pattern = lower + shift
        distance = np.abs(widen(pattern.astype(np.uint16)).astype(float) - np.abs(values))
        better = (distance < least) | ((distance == least) & (pattern % 2 == 0))
        best, least = np.where(better, pattern, best), np.minimum(least, distance)
    assert (found == best + signs).all()
