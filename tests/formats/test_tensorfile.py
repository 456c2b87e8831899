"""safetensors files: the library's own bytes, views of any strides, blocks of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crystalline.errors import CheckpointError
from crystalline.formats import tensorfile
from crystalline.formats.tensorfile import TensorFile, write_tensors

DRAW = np.random.default_rng(3)
TENSORS = {
    name: DRAW.standard_normal(shape).astype(np.float32)
    for name, shape in {
        "z": (5, 3), "a": (7,), "model.é": (2, 3, 4), "scalar": (), "empty": (0, 3), "b": (40, 50),
    }.items()
}  # fmt: skip


@pytest.fixture(params=[1, 7, 1 << 20])
def block_floats(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(tensorfile, "_BLOCK_FLOATS", request.param)
    return int(request.param)


@pytest.mark.usefixtures("block_floats")
def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    for metadata in ({"format": "pt"}, None):
        write_tensors(own, TENSORS, metadata)
        save_file(TENSORS, theirs, metadata)
        assert own.read_bytes() == theirs.read_bytes()


@pytest.mark.usefixtures("block_floats")
def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    """The library writes a transposed view in the order of its memory."""
    whole = TENSORS["b"]
    views = {"t": whole.T, "columns": whole[:, 10:31].T, "steps": whole[::3, ::-2]}
    path = tmp_path / "x.safetensors"
    write_tensors(path, views)
    for name, found in load_file(path).items():
        assert np.array_equal(found, views[name]), name


def test_reading_gives_what_was_written(tmp_path: Path, block_floats: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    with TensorFile(path) as file:
        for name, expected in TENSORS.items():
            blocks = list(file.blocks(name))
            found = np.concatenate(blocks) if blocks else np.zeros(expected.shape)
            assert np.array_equal(found.reshape(expected.shape), expected), name
            assert all(block.size <= max(block_floats, 50) for block in blocks)
        rows = np.concatenate(list(file.blocks("b", 3, 21)))
        assert np.array_equal(rows, TENSORS["b"][3:21])


def test_types_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    some = {
        "half": TENSORS["b"].astype(np.float16),
        "double": TENSORS["b"].astype(np.float64) * (1 + 1e-9),
    }
    save_file(some, path)
    with TensorFile(path) as file:
        for name, expected in some.items():
            assert np.array_equal(next(file.blocks(name)), expected.astype(np.float32)), name
    write_tensors(path, {"b": TENSORS["b"]}, type="bf16")
    assert path.stat().st_size < 2 * TENSORS["b"].size + 100
    with TensorFile(path) as file:
        found = next(file.blocks("b"))
    assert np.abs(found - TENSORS["b"]).max() <= 2**-8 * np.abs(TENSORS["b"]).max()
    assert (found.view(np.uint32) & 0xFFFF == 0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, wrong: float) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.array([1.0, wrong])}, path)
    with TensorFile(path) as file, pytest.raises(CheckpointError, match=r"'a' in .* not finite"):
        next(file.blocks("a"))


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    with TensorFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(path.stat().st_size - 1)
        with pytest.raises(CheckpointError, match="became shorter"):
            for name in file.tensors:
                list(file.blocks(name))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = "{" + entry + ", " + entry.replace("[1]", "[1, 1]") + "}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(CheckpointError, match="cannot be read"):
        TensorFile(path)


def test_with_shapes_each_tensor_is_asked_for_once(tmp_path: Path) -> None:
    class Asked(dict[str, np.ndarray]):
        asked: list[str] = []  # noqa: RUF012

        def __getitem__(self, name: str) -> np.ndarray:
            self.asked.append(name)
            return super().__getitem__(name)

    tensors = Asked(b=np.ones((2, 3), np.float32), a=np.zeros(4, np.float32))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_tensors(tmp_path / "plain", dict(tensors))
    write_tensors(tmp_path / "once", tensors, shapes=shapes)
    assert tensors.asked == ["a", "b"]
    assert (tmp_path / "once").read_bytes() == (tmp_path / "plain").read_bytes()
    with pytest.raises(ValueError, match=r"tensor a is \(4,\), not \(5,\)"):
        write_tensors(tmp_path / "wrong", tensors, shapes=shapes | {"a": (5,)})
