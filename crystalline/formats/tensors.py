"""Tensors on disk: a flat buffer as a safetensors file with the parameter table's names."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.errors import CheckpointError
from crystalline.formats.bfloat16 import read_bfloat16
from crystalline.formats.catalog import damage, unreadable
from crystalline.formats.files import CONFIG
from crystalline.model.params import ParameterTable
from crystalline.untrusted import open_regular, shown

PREFIX = "transformer."
Flat = npt.NDArray[np.float32]

_LEAST_BYTES = 2  # of a parameter: float16 and bfloat16
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # buffers of old GPT-2 files, not weights


def write_tensors(path: Path, views: Mapping[str, Flat], metadata: dict[str, str]) -> None:
    """Write a safetensors file, of the mode that the umask allows.  Raises `OSError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the library's own files are for the owner alone
    try:
        save_file(dict(views), path, metadata=metadata)
    except SafetensorError as error:  # carries the system's error only as text
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def read_flat(path: Path, table: ParameterTable, prefix: str) -> Flat:
    """Return the tensors whose names begin with `prefix` as one flat buffer; gaps are 0."""
    from safetensors import SafetensorError, safe_open

    _require_room(path, table)
    flat = np.zeros(table.size, np.float32)
    views = table.views(flat)
    missing = set(views)
    head: npt.NDArray[Any] | None = None
    try:
        with safe_open(path, framework="numpy") as file:
            for stored in file.keys():  # noqa: SIM118 - not a mapping
                if not stored.startswith(prefix):
                    continue
                name = stored[len(prefix) :]
                if _MASK.fullmatch(name.removeprefix(PREFIX)):
                    continue
                dtype = file.get_slice(stored).get_dtype()
                if dtype not in ("F16", "BF16", "F32", "F64"):
                    raise CheckpointError(
                        f"the tensor '{shown(stored)}' in {path} is of type {shown(dtype)}",
                        advice="Save the model as float32.",
                    )
                bf16 = dtype == "BF16"
                tensor = read_bfloat16(path, stored) if bf16 else file.get_tensor(stored)
                if name == "lm_head.weight":
                    head = tensor
                    continue
                view = views.get(name)
                if view is None:
                    name = PREFIX + name
                    view = views.get(name)
                if view is None:
                    raise damage(path.parent, f"{path} holds an unknown tensor '{shown(stored)}'")
                if tensor.shape != view.shape:
                    raise damage(
                        path.parent,
                        f"the tensor '{shown(stored)}' in {path} has shape "
                        f"{shown(str(tensor.shape), 60)}, "
                        f"{CONFIG} asks for {view.shape}",
                    )
                view[...] = tensor
                missing.discard(name)
    except (SafetensorError, OSError) as error:
        raise damage(path.parent, f"{path} cannot be read ({shown(str(error))})") from None
    if missing:
        raise damage(path.parent, f"{path} has no tensor '{prefix}{min(missing)}'")
    if head is not None and not np.array_equal(head, views[PREFIX + "wte.weight"]):
        raise CheckpointError(
            f"{path} has an output head of its own", advice="Use a model whose head is tied."
        )
    if not np.isfinite(flat).all():
        name = next(name for name, view in views.items() if not np.isfinite(view).all())
        raise damage(path.parent, f"the tensor '{prefix}{name}' in {path} is not finite")
    return flat


def _require_room(path: Path, table: ParameterTable) -> None:
    """Raise `CheckpointError` for what is no file, or cannot hold so many parameters.

    Before memory is taken for them: config.json may promise any number.
    """
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
    except PermissionError as error:
        raise unreadable(path, error) from None
    except OSError as error:
        raise damage(path.parent, f"{path} cannot be read ({error.strerror})") from None
    if size_bytes < _LEAST_BYTES * table.count:
        raise damage(
            path.parent,
            f"{path} has {size_bytes:,} bytes, too few for the {table.count:,} parameters that "
            f"{CONFIG} describes",
        )


def weights_sha256(weights: Flat, table: ParameterTable) -> str:
    """Return the hash of all tensors in table order, names included, alignment gaps left out."""
    digest = hashlib.sha256()
    for name, view in table.views(weights).items():
        digest.update(name.encode() + b"\0")
        digest.update(view.tobytes())
    return digest.hexdigest()
