"""The two bodies of the tile operations: the instructions, and plain C with the same bits.

Both are compiled here from `primitives/tiles.h`.  The plain body is held against the order of sums
as it is written down, in NumPy; where the machine has tiles, the instructions are held against it.
"""

from __future__ import annotations

import ctypes
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import attention, isa, matmul
from crystalline.machine import cpu, levels
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from tests._kernels.buffers import same_but_nan

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
AVX512 = next(level for level in levels.LEVELS if level.name == "avx512bf16")
TILES = next(level for level in levels.LEVELS if level.name == "amx")
ROWS, WORDS = 16, 16
TINY = 2.0**-126

U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not set(AVX512.features) <= cpu.FEATURES,
    reason="the plain body is compiled for AVX-512",
)
HAS_TILES = set(TILES.features) <= cpu.FEATURES and "amx" in isa.available_levels()


class Body:
    """One of the two, as a library."""

    def __init__(self, folder: Path, *, plain: bool) -> None:
        library = folder / f"tiles-{plain}.so"
        compiler = shlex.split(sysconfig.get_config_var("CC"))[0]
        command = [compiler, "-shared", "-fPIC", "-O2", "-std=gnu11", "-ffp-contract=off"]
        command += ["-Wno-psabi", *(["-DCL_PLAIN_TILES"] if plain else [])]
        folders = (ROOT / "crystalline/_kernels/primitives", ROOT / "crystalline/machine")
        command += [f"-I{folder}" for folder in folders]
        source = str(HERE / "tilebodies.c")
        subprocess.run([*command, source, "-o", str(library)], check=True, timeout=60)
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str) -> Any:
        """The harness's functions without arguments."""
        return getattr(self._library, name)

    def dots(self, c: F32, a: U32, b: U32) -> F32:
        """Return c + the products of the tiles a and b; c [count, rows, 16]."""
        out = c.copy()
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (out, a, b)]
        assert self._library.dots(ctypes.c_int64(len(c)), c.shape[1], *arrays)
        return out

    def dots_int8(self, c: I32, a: U32, b: U32) -> I32:
        """The same for tiles of bytes."""
        out = c.copy()
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (out, a, b)]
        assert self._library.dots_int8(ctypes.c_int64(len(c)), c.shape[1], *arrays)
        return out

    def product(
        self, M: int, n: int, K: int, a: F32, panel: F32, c: F32, bias: F32 | None,
        residual: F32 | None, store: int, name: str = "product",
    ) -> F32:  # fmt: skip
        out = c.copy()
        pointers = [
            ctypes.c_void_p(x.ctypes.data if x is not None else None)
            for x in (a, panel, out, bias, residual)
        ]
        number = ctypes.c_int64
        assert getattr(self._library, name)(
            number(M), number(n), number(K), pointers[0], number(K), pointers[1], pointers[2],
            number(out.shape[1]), pointers[3], pointers[4], store,
        )  # fmt: skip
        return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Body:
    return Body(tmp_path_factory.mktemp("plain"), plain=True)


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Body:
    if not HAS_TILES:
        pytest.skip("this machine has no tiles")
    return Body(tmp_path_factory.mktemp("instructions"), plain=False)


def words(draw: np.random.Generator, kind: str, *shape: int) -> U32:
    """Random pairs: of ordinary size, of any, near and below the smallest, infinite or NaN."""
    low, high = {
        "ordinary": (110, 140), "any": (0, 255), "small": (40, 80), "denormal": (0, 2),
        "special": (250, 256),
    }[kind]  # fmt: skip
    halves = draw.integers(0, 1 << 16, (*shape, 2), np.uint32) & 0x807F
    halves |= draw.integers(low, high, (*shape, 2)).astype(np.uint32) << 7
    return np.ascontiguousarray(halves[..., 0] | halves[..., 1] << np.uint32(16))


KINDS = ["ordinary", "any", "small", "denormal", "special"]


def flushed(x: npt.NDArray[np.float64] | F32) -> F32:
    x = np.asarray(x, np.float32)
    return np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x)


@pytest.mark.parametrize("rows", [16, 1, 7])
@pytest.mark.parametrize("b_kind", KINDS)
@pytest.mark.parametrize("a_kind", KINDS)
def test_instructions_and_plain_c_agree(
    plain: Body, instructions: Body, a_kind: str, b_kind: str, rows: int
) -> None:
    draw = np.random.default_rng(KINDS.index(a_kind) * 5 + KINDS.index(b_kind))
    a, b = words(draw, a_kind, 60, rows, WORDS), words(draw, b_kind, 60, ROWS, WORDS)
    c = (draw.standard_normal((60, rows, WORDS)) * 4).astype(np.float32)
    c[::3] = 0
    c[1::7] = words(draw, "any", *c[1::7].shape).view(np.float32)
    assert same_but_nan(plain.dots(c, a, b), instructions.dots(c, a, b))


def tiles_of_bytes(rows: int) -> tuple[I32, U32, U32]:
    """Tiles a and b of any bytes, and c of any numbers, near the largest and the smallest too."""
    draw = np.random.default_rng(rows)
    a, b = (draw.integers(0, 1 << 32, (60, n, WORDS), np.uint32) for n in (rows, ROWS))
    a[0], b[0] = 0x80808080, 0x80808080  # the largest sum, of -128 by -128
    a[1], b[1] = 0x80808080, 0x7F7F7F7F
    ends = np.iinfo(np.int32)
    c = draw.integers(ends.min, ends.max, (60, rows, WORDS), np.int32, endpoint=True)
    c[0], c[1] = ends.max - 1, ends.min + 1
    return c, a, b


@pytest.mark.parametrize("rows", [16, 1, 7])
def test_both_bodies_sum_bytes_modulo_2_to_32(
    plain: Body, rows: int, request: pytest.FixtureRequest
) -> None:
    c, a, b = tiles_of_bytes(rows)
    left = a.view(np.int8).astype(np.int64)  # [60, rows, 64]
    right = b.view(np.int8).reshape(60, ROWS, WORDS, 4).swapaxes(2, 3).reshape(60, 64, WORDS)
    exact = c + left @ right.astype(np.int64)
    assert (exact > np.iinfo(np.int32).max).any()
    assert (exact < np.iinfo(np.int32).min).any()
    want = exact.astype(np.uint64).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(plain.dots_int8(c, a, b), want)
    if HAS_TILES:
        instructions: Body = request.getfixturevalue("instructions")
        np.testing.assert_array_equal(instructions.dots_int8(c, a, b), want)


def test_sums_are_taken_in_the_order_written_down(plain: Body) -> None:
    """Products of 8 bits by 8 are exact in float64, and so is adding one to a float32 before it is
    rounded, as long as exponents are near: that is what a fused multiply-add rounds."""
    draw = np.random.default_rng(1)
    a, b = words(draw, "ordinary", 9, ROWS, WORDS), words(draw, "ordinary", 9, ROWS, WORDS)
    a, b = (x & np.uint32(0x83FF83FF) | np.uint32(0x3C003C00) for x in (a, b))
    c = draw.standard_normal((9, ROWS, WORDS)).astype(np.float32)
    halves = []
    for shift in (0, 16):
        x, y = (
            ((m >> np.uint32(shift)) << np.uint32(16)).view(np.float32).astype(np.float64)
            for m in (a, b)
        )
        total = np.zeros_like(c)
        for w in range(WORDS):
            total = flushed(total + x[:, :, w, None] * y[:, w, None, :])
        halves.append(total)
    assert same_but_nan(plain.dots(c, a, b), c + (halves[0] + halves[1]))


def test_what_is_below_the_smallest_is_zero(plain: Body) -> None:
    a, b = np.zeros((1, ROWS, WORDS), np.uint32), np.zeros((1, ROWS, WORDS), np.uint32)
    a[0, 0, 0], b[0, 0, :] = 0x0000007F, 0x00004780  # a denormal times 2^16
    a[0, 1, 0] = 0x00000080  # the smallest normal times that
    c = np.full((1, ROWS, WORDS), 0, np.float32)
    out = plain.dots(c, a, b)
    assert (out[0, 0] == 0).all()
    assert (out[0, 1] == 2.0**-110).all()


@pytest.mark.parametrize("store", [0, 1])
@pytest.mark.parametrize("M", [1, 15, 16, 17, 31, 32, 33, 70])
@pytest.mark.parametrize("n", [1, 16, 17, 32])
def test_products_agree(plain: Body, instructions: Body, M: int, n: int, store: int) -> None:
    draw = np.random.default_rng(M * 100 + n)
    K = 48
    a = words(draw, "ordinary", -(-M // ROWS) * ROWS, K).view(np.float32)
    panel = words(draw, "ordinary", K, 32).view(np.float32)
    c, r = (draw.standard_normal((M, 40)).astype(np.float32) for _ in range(2))
    v = draw.standard_normal(40).astype(np.float32)
    for bias, residual in ((None, None), (v, None), (v, r)):
        got = [
            body.product(M, n, K, a, panel, c, bias, residual, store)
            for body in (plain, instructions)
        ]
        assert same_but_nan(got[0], got[1])
        assert same_but_nan(got[0][:, n:], c[:, n:])


@pytest.mark.parametrize("K", [48, 272])  # results after every block, and between steps
@pytest.mark.parametrize("M", [1, 4, 16, 17, 32, 70])
@pytest.mark.parametrize("n", [1, 17, 32])
def test_products_of_bytes_agree(plain: Body, instructions: Body, M: int, n: int, K: int) -> None:
    draw = np.random.default_rng(M * 100 + n)
    a, panel = (
        draw.integers(0, 1 << 32, shape, np.uint32).view(np.float32)
        for shape in ((M, K + 16), (K + 16, 32))
    )
    a[:, K] = draw.random(M)  # the scales
    panel[K] = draw.random(32)
    c, r = (draw.standard_normal((M, 40)).astype(np.float32) for _ in range(2))
    v = draw.standard_normal(40).astype(np.float32)
    for bias, residual, store in ((None, None, 0), (v, None, 0), (v, r, 1)):
        got = [
            body.product(M, n, K + 16, a, panel, c, bias, residual, store, "product_int8")
            for body in (plain, instructions)
        ]
        assert same_but_nan(got[0], got[1])
        assert not same_but_nan(got[0][:, :n], c[:, :n])
        assert same_but_nan(got[0][:, n:], c[:, n:])


@pytest.mark.skipif(isa.level() != "amx", reason="another level is in use")
def test_tiles_are_given_back_when_a_product_is_done(instructions: Body) -> None:
    """What they hold would be saved at every context switch: 8 KB."""
    instructions.take()
    assert instructions.in_use()
    instructions.give_back()
    assert not instructions.in_use()

    x, out = np.ones((40, 32), np.float32), np.empty((40, 32), np.float32)
    operand = np.empty(matmul.operand_shape(40, 32, "bf16"), np.float32)
    packed = np.empty(matmul.packed_size(32, 32, "bf16"), np.float32)
    matmul.to_operand(x, operand, "bf16")
    matmul.pack_matrix(x[:32], packed, precision="bf16")
    matmul.matmul(operand, packed, out, precision="bf16", inner=32)
    assert (out == 32).all()
    assert not instructions.in_use()

    qkv, att, lse = np.ones((8, 48), np.float32), np.empty((8, 16), np.float32), np.empty((1, 2, 8))
    attention.attention_forward(qkv, 8, 2, att, lse.astype(np.float32), precision="bf16")
    assert not instructions.in_use()

    config = ModelConfig(11, 8, num_layers=1, num_heads=2, embed_dim=16)
    size = parameter_table(config).size
    model = Transformer.allocate(config, np.zeros(size, np.float32), precision="bf16")
    tokens = np.zeros((1, 9), np.int32)
    model.compute(tokens, np.empty(size, np.float32), scale=1.0)
    model.evaluate(tokens)
    model.logits(tokens[:, :8])
    assert not instructions.in_use()
