"""bfloat16 tensors: every bit pattern, and the place in the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from crystalline.formats.bfloat16 import read_bfloat16


def test_all_values_are_the_upper_halves_of_float32(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    bits = np.arange(1 << 16, dtype="<u2").reshape(256, 256)
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
    found = read_bfloat16(path, "all")
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
    assert np.isinf(found[0x7F, 0x80])
    assert np.isnan(found[0x7F, 0x81])
    assert read_bfloat16(path, "z") == 1.0
