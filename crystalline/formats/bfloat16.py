"""Tensors of type bfloat16 in a safetensors file, as float32: NumPy has no such type.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON:
name → dtype, shape and data_offsets), and the data, to whose start the offsets count.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt


def read_bfloat16(path: Path, name: str) -> npt.NDArray[np.float32]:
    """Return the bfloat16 tensor `name` as float32, exactly.

    The header is taken to be sound: `safetensors.safe_open` has checked it.  Raises `OSError`.
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_bytes))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + header_bytes + start)
        upper = np.frombuffer(file.read(end - start), "<u2")
    # The upper half of a float32's bits; the lower half is zero.
    widened = (upper.astype(np.uint32) << 16).view(np.float32)
    return widened.reshape(entry["shape"])
