"""Segments: reduction, optimizer and repacking over the whole buffer, and what a kill leaves."""

from __future__ import annotations

import math
import mmap
import os
import signal
import time

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import formats, matmul
from crystalline._kernels.optimizer import tree_sum
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from crystalline.model.update import UNDO_WORDS, SegmentUpdate, bias_correction
from tests.oracles import ops

CONFIG = ModelConfig(vocab_size=211, seq_len=13, num_layers=2, num_heads=3, embed_dim=129)
TABLE = parameter_table(CONFIG)
# Gradients and panels of which are written past the cache; its sizes are multiples of nothing, too.
LARGE = ModelConfig(vocab_size=211, seq_len=13, num_layers=1, num_heads=7, embed_dim=301)
LANES = 5
HEADER = 8  # words of an undo area before its floats
BLOCK = (UNDO_WORDS - HEADER) * 2 // 3  # floats that change between two marks
SETTINGS = {"beta1": 0.9, "beta2": 0.97, "weight_decay": 0.2}


def shared(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Zeros that a forked child shares."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


class Subject:
    def __init__(
        self, optimizer: str, config: ModelConfig = CONFIG, precision: str = "float32"
    ) -> None:
        self.table = parameter_table(config)
        size = self.table.size
        self.weights, self.m, self.v, self.grads = (shared((size,)) for _ in range(4))
        self.lanes = shared((LANES, size))
        self.packed = shared((Transformer.packed_size(config, precision),))
        self.undo = shared((1, UNDO_WORDS), np.int64)
        self.progress = shared((len(self.table.segments()),), np.int64)
        initialize(config, self.weights, seed=1)
        workspace = np.frombuffer(
            mmap.mmap(-1, Transformer.workspace_size(config, precision)), np.uint8
        )
        self.model = Transformer(config, self.weights, self.packed, workspace, precision=precision)
        self.model.pack()
        self.update = SegmentUpdate(
            self.model, self.lanes, self.grads, self.m, self.v, self.undo, self.progress,
            optimizer=optimizer, **SETTINGS,
        )  # fmt: skip

    def fill_lanes(self, step: int) -> None:
        generator = np.random.default_rng(step)
        for lane in self.lanes:
            for view in self.table.views(lane).values():
                view[...] = generator.standard_normal(view.shape) * 10.0 ** generator.integers(
                    -4, 1
                )

    def step(self, step: int, lr: float, clip: float) -> float:
        squares = sum(self.update.reduce(i) for i in range(len(self.progress)))
        for i in range(len(self.progress)):
            self.update.update(i, 0, step, lr, clip)
        return squares


def test_segments_cover_the_buffer_once() -> None:
    segments = sorted((s.start, s.stop) for s in TABLE.segments())
    covered = np.zeros(TABLE.size, np.int64)
    for start, stop in segments:
        covered[start:stop] += 1
    for p in TABLE.parameters:
        assert (covered[p.offset : p.offset + p.size] == 1).all(), p.name
    assert covered.max() == 1


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_tensor_follows_the_oracle(optimizer: str) -> None:
    subject = Subject(optimizer)
    w = {name: view.astype(np.float64) for name, view in TABLE.views(subject.weights).items()}
    m = {name: np.zeros_like(x) for name, x in w.items()}
    v = {name: np.zeros_like(x) for name, x in w.items()}
    start = {name: x.copy() for name, x in w.items()}
    for step in range(4):
        lr, clip = 0.01 * (step + 1), 0.5 + 0.1 * step
        subject.fill_lanes(step)
        squares = subject.step(step, lr, clip)
        total = subject.lanes.astype(np.float64).sum(axis=0)
        assert squares == pytest.approx((total**2).sum(), rel=1e-6)
        for p in TABLE.parameters:
            gradient = TABLE.views(total)[p.name] * clip
            decay = SETTINGS["weight_decay"] if len(p.shape) == 2 else 0.0
            if optimizer == "adam":  # decay is a part of the gradient, and not clipped
                gradient, decay = gradient + decay * w[p.name], 0.0
            if optimizer != "sgd":
                w[p.name], m[p.name], v[p.name] = ops.adamw_step(
                    w[p.name], gradient, m[p.name], v[p.name], step=step + 1, learning_rate=lr,
                    beta1=0.9, beta2=0.97, weight_decay=decay,
                )  # fmt: skip
            else:
                w[p.name], m[p.name] = ops.sgd_momentum_step(
                    w[p.name], gradient, m[p.name], learning_rate=lr, momentum=0.9,
                    weight_decay=decay,
                )  # fmt: skip
    for name, got in TABLE.views(subject.weights).items():
        moved = np.abs(w[name] - start[name])
        assert moved.max() > 0.01, name  # an optimizer that skips a tensor fails here
        np.testing.assert_allclose(got, w[name], atol=2e-4 * moved.max(), err_msg=name)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999])
def test_corrections_have_the_bits_of_the_mathematical_power(beta: float) -> None:
    for step in [*range(1, 3000), 10_000, 123_457, 1_000_000, 2**31]:
        wanted = np.float32(1.0 / (1.0 - math.pow(beta, step)))
        assert np.float32(bias_correction(beta, step)) == wanted, step


def panels(w: npt.NDArray[np.float32], precision: str) -> npt.NDArray[np.float32]:
    out = np.full(matmul.packed_size(*w.shape, precision), np.nan, np.float32)
    matmul.pack_matrix(w, out, precision=precision)
    return out


def panels_t(w: npt.NDArray[np.float32], precision: str) -> npt.NDArray[np.float32]:
    out = np.full(matmul.packed_size(*w.shape[::-1], precision), np.nan, np.float32)
    matmul.pack_transposed(w, out, precision)
    return out


@pytest.mark.parametrize("precision", [*filter(formats.trains, formats.names())])
@pytest.mark.parametrize("config", [CONFIG, LARGE], ids=["small", "large"])
def test_panels_are_repacked_from_the_new_weights(config: ModelConfig, precision: str) -> None:
    subject = Subject("adamw", config, precision)
    subject.fill_lanes(0)
    before = subject.packed.copy()
    subject.step(0, 0.01, 1.0)
    updated = subject.packed.copy()
    subject.packed.view(np.uint32)[:] = 0x7FC07FC0  # NaN in every format
    subject.model.pack()
    views = subject.table.views(subject.weights)
    names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    matrices = [
        views[f"transformer.h.{layer}.{name}.weight"]
        for layer in range(config.num_layers)
        for name in names
    ]
    wte = views["transformer.wte.weight"]
    want = [form(w, precision) for w in matrices for form in (panels, panels_t)]
    want += [panels_t(wte, precision), panels(wte, precision)]
    for packed in (updated, subject.packed):
        same = packed.view(np.uint32) == np.concatenate(want).view(np.uint32)
        assert same.all(), np.flatnonzero(~same)[:9]
    assert (updated.view(np.uint32) != before.view(np.uint32)).mean() > 0.5


def test_sum_past_the_cache_has_the_bits_of_its_segments() -> None:
    subject = Subject("adamw", LARGE)
    assert subject.table.size > 1 << 20
    subject.fill_lanes(0)
    for i in range(len(subject.progress)):
        subject.update.reduce(i)
    for segment in subject.table.segments():
        piece = np.empty(segment.stop - segment.start, np.float32)
        tree_sum(subject.lanes[:, segment.start : segment.stop], piece)
        np.testing.assert_array_equal(subject.grads[segment.start : segment.stop], piece)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_killed_update_ends_in_the_same_bits(optimizer: str) -> None:
    calm = Subject(optimizer)
    calm.fill_lanes(0)
    calm.step(0, 0.01, 0.7)
    generator = np.random.default_rng(4)
    cut_short = 0
    for _ in range(40):
        subject = Subject(optimizer)
        subject.fill_lanes(0)
        count = len(subject.progress)
        done = shared((1,), np.int64)
        for i in range(count):
            subject.update.reduce(i)
        child = os.fork()
        if child == 0:
            for i in range(count):
                subject.update.update(i, 0, 0, 0.01, 0.7)
                done[0] = i + 1
            os._exit(0)
        time.sleep(generator.uniform(0.0, 3e-3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        first = int(done[0])
        cut_short += first < count
        for i in range(first, count):
            if i == first:
                subject.update.recover(0, i, 0)
            subject.update.update(i, 0, 0, 0.01, 0.7)
        for name in ("weights", "m", "v", "packed"):
            np.testing.assert_array_equal(getattr(subject, name), getattr(calm, name), name)
    assert cut_short > 3


def test_recover_puts_back_exactly_the_marked_block() -> None:
    subject = Subject("adamw")
    subject.fill_lanes(0)
    segment = next(i for i, s in enumerate(TABLE.segments()) if s.stop - s.start > 3 * BLOCK)
    start = TABLE.segments()[segment].start
    for i in range(len(subject.progress)):
        subject.update.reduce(i)
    calm = Subject("adamw")
    calm.lanes[:] = subject.lanes
    calm.step(0, 0.01, 1.0)
    # As if killed in block 2 of step 0: two blocks done, the third half written.
    subject.update.update(segment, 0, 0, 0.01, 1.0)
    third = slice(start + 2 * BLOCK, start + 3 * BLOCK)
    original = Subject("adamw").weights
    rest = slice(start + 2 * BLOCK, TABLE.segments()[segment].stop)
    subject.weights[rest] = original[rest]
    subject.m[rest] = 0.0
    subject.v[rest] = 0.0
    copy = subject.undo[0, HEADER:].view(np.float32)
    copy[:BLOCK], copy[BLOCK:] = original[third], 0.0
    subject.undo[0, :3] = 1, segment, 2
    subject.progress[segment] = (1 << 20) | 2
    subject.weights[third][:100] = np.nan
    subject.m[third][:7] = np.nan
    subject.update.recover(0, segment, 0)
    assert subject.undo[0, 0] == 0
    subject.update.update(segment, 0, 0, 0.01, 1.0)
    stop = TABLE.segments()[segment].stop
    np.testing.assert_array_equal(subject.weights[start:stop], calm.weights[start:stop])
    np.testing.assert_array_equal(subject.m[start:stop], calm.m[start:stop])
    np.testing.assert_array_equal(subject.v[start:stop], calm.v[start:stop])
