"""A number format is a row of a table: one that only this file knows trains a model.

The toy format (`toyformat.c`) is compiled here and handed over as a row.  Nothing of the engine is
touched for it; that what comes out is right shows that nothing has to be.
"""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from crystalline._kernels import attention, formats
from crystalline._kernels import matmul as mm
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import Precision
from tests._kernels.buffers import F32, guards_intact, normal, place
from tests.oracles import gpt2

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIG = ModelConfig(41, 13, num_layers=2, num_heads=3, embed_dim=33)
CUT = 2.0**-4  # the most that cutting a number takes off, of itself


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the adopted format."""
    if "toy" not in formats.names():
        library = tmp_path_factory.mktemp("toy") / "toyformat.so"
        headers = (ROOT / "crystalline" / "_kernels" / "primitives", ROOT / "crystalline/machine")
        compiler = shlex.split(sysconfig.get_config_var("CC"))[0]
        command = [compiler, "-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Werror"]
        command += [f"-I{folder}" for folder in headers]
        subprocess.run(
            [*command, str(HERE / "toyformat.c"), "-o", str(library)], check=True, timeout=60
        )
        row = ctypes.c_char.in_dll(ctypes.CDLL(str(library)), "toy_format")
        formats.adopt(ctypes.addressof(row))
    return "toy"


def cut(x: F32) -> np.ndarray:
    return (x.view(np.uint32) & np.uint32(0xFFF80000)).view(np.float32).astype(np.float64)


def test_users_can_train_in_every_format_that_trains() -> None:
    able = {name for name in formats.names() if formats.trains(name)}
    assert set(get_args(Precision)) == {"auto", *able} - {"toy"}


def test_it_has_a_name_like_the_others(toy: str) -> None:
    assert formats.names() == ("float32", "bf16", "int8", "int8g32", "int4", toy)
    assert not formats.is_native(toy)
    assert formats.flops_per_second(toy, 0.0) > 0
    assert (mm.operand_shape(2, 5, toy), mm.turned_shape(5, 3, toy)) == ((2, 8), (3, 8))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 33), (14, 32, 32), (70, 69, 68), (5, 2051, 3)])
def test_products(toy: str, shape: tuple[int, int, int]) -> None:
    M, K, N = shape
    rng = np.random.default_rng(1)
    a, b, r, v, dy = (normal(rng, *s) for s in ((M, K), (K, N), (M, N), (N,), (M, N)))
    out, dw = place(np.full((M, N), np.nan)), normal(rng, K, N)
    packed, turned_b = (place(np.full(mm.packed_size(K, N, toy), np.nan)) for _ in range(2))
    mm.pack_matrix(b, packed, precision=toy)
    mm.pack_transposed(place(b.T), turned_b, precision=toy)
    np.testing.assert_array_equal(packed, turned_b)
    operand = place(np.full(mm.operand_shape(M, K, toy), np.nan))
    mm.to_operand(a, operand, toy)
    mm.matmul(operand, packed, out, v, r, precision=toy, inner=K)
    np.testing.assert_allclose(out, cut(a) @ cut(b) + v + r, rtol=1e-3, atol=1e-3)

    turned = place(np.full(mm.turned_shape(M, K, toy), np.nan))
    mm.turn_operand(operand, M, K, turned, toy)
    packed_dy = place(np.full(mm.packed_size(M, N, toy), np.nan))
    mm.pack_matrix(dy, packed_dy, precision=toy)
    exact = dw + cut(a).T @ cut(dy)
    mm.matmul_transposed(turned, packed_dy, dw, accumulate=True, precision=toy, inner=M)
    np.testing.assert_allclose(dw, exact, rtol=1e-3, atol=1e-3)
    assert guards_intact(a, b, r, v, dy, out, dw, packed, operand, turned, packed_dy)


def test_attention(toy: str) -> None:
    T, H, C = 37, 2, 20
    rng = np.random.default_rng(2)
    qkv, outs, lse = normal(rng, T, 3 * C), [], np.empty((1, H, T), np.float32)
    for precision in ("float32", toy):
        outs.append(np.empty((T, C), np.float32))
        attention.attention_forward(qkv, T, H, outs[-1], lse, precision=precision)
    assert 0 < np.abs(outs[1] - outs[0]).max() < 8 * CUT * np.abs(outs[0]).max()


def test_a_model_trains_in_it(toy: str) -> None:
    params = gpt2.random_parameters(CONFIG, seed=3)
    flat = gpt2.to_flat(CONFIG, params)
    model = Transformer.allocate(CONFIG, flat, precision=toy)
    assert model.precision == toy
    tokens = gpt2.random_tokens(CONFIG, 3, 14, seed=4).astype(np.int32)
    grads = np.full_like(flat, np.nan)
    loss = model.compute(tokens, grads, scale=0.01)
    expected_loss, expected = gpt2.loss_and_gradients(
        params, CONFIG, tokens[:, :-1], tokens[:, 1:], 0.01
    )
    assert loss == pytest.approx(expected_loss, rel=CUT)
    assert loss != pytest.approx(expected_loss, rel=1e-6)
    for name, got in parameter_table(CONFIG).views(grads).items():
        want = expected[name]
        assert np.linalg.norm(got - want) < 8 * CUT * np.linalg.norm(want) + 1e-12, name


@pytest.mark.parametrize(
    ("name", "message"),
    [("toy", "there is a format 'toy' already"), ("empty", "the format 'empty' has no layout")],
)
def test_a_row_that_cannot_be_one_is_refused(toy: str, name: str, message: str) -> None:
    text = ctypes.c_char_p(name.encode())
    row = ctypes.create_string_buffer(256)
    ctypes.memmove(row, ctypes.addressof(text), ctypes.sizeof(text))
    with pytest.raises(ValueError, match=message):
        formats.adopt(ctypes.addressof(row))
    assert formats.names()[-1] == toy
