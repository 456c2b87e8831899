"""Adapters in training against the float64 twin: the gradients of A and B, and nothing else moves.

The twin knows no adapters: it is given W + s A B, with a complex step in A or B.
Runs once per instruction-set level that this machine has, in every format that trains.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from crystalline.model.adapters import AdapterConfig, adapter_table, adapters
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from tests.model.test_architectures import FORMATS, LOSS_TOLERANCE, TOLERANCE, directions, subject
from tests.oracles import transformer as oracle

SHAPES = {
    "gpt2": (ModelConfig(67, 13, 2, 3, 42), AdapterConfig(5, 7.5)),
    "llama": (
        ModelConfig(45, 11, 2, 4, 20, architecture="llama", num_kv_heads=2, head_size=10,
                    mlp_dim=37),
        AdapterConfig(1, 0.5),
    ),
    "qwen3": (
        ModelConfig(33, 17, 1, 6, 36, architecture="qwen3", num_kv_heads=1, tie_embeddings=False),
        AdapterConfig(8, 16.0),
    ),
    # whole tiles and blocks, and a rank beyond a panel's width
    "tiles": (
        ModelConfig(131, 70, 1, 4, 128, architecture="llama", num_kv_heads=2),
        AdapterConfig(40, 40.0),
    ),
    "tiles of gpt2": (ModelConfig(131, 70, 1, 4, 128), AdapterConfig(32, 16.0)),
    "least": (ModelConfig(2, 1, 1, 2, 4), AdapterConfig(2, 2.0)),
}  # fmt: skip


class Adapted:
    """A model with adapters that no initialization would give, and the twin's view of it."""

    def __init__(self, config: ModelConfig, adapter: AdapterConfig, precision: str) -> None:
        self.config, self.adapter = config, adapter
        self.flat, self.params = subject(config)
        self.table = adapter_table(config, adapter)
        generator = np.random.default_rng(4)
        self.adapters = np.zeros(self.table.size, np.float32)
        for view in self.table.views(self.adapters).values():
            view[...] = generator.normal(0, 0.2, view.shape)
        self.model = Transformer.allocate(
            config, self.flat, precision=precision, adapter=adapter, adapters=self.adapters
        )

    def merged(self, name: str = "", step: npt.NDArray[np.complex128] | None = None):
        """Return W + s A B of every matrix, with `step` added to the adapter tensor `name`."""
        views = {k: v.astype(np.complex128) for k, v in self.table.views(self.adapters).items()}
        if step is not None:
            views[name] += step
        found = {key: value.astype(np.complex128) for key, value in self.params.items()}
        for one in adapters(self.config, self.adapter):
            product = views[one.a.name] @ views[one.b.name]
            found[one.matrix.name] += self.adapter.alpha / self.adapter.rank * product
        return found


def tokens_of(config: ModelConfig) -> npt.NDArray[np.int32]:
    generator = np.random.default_rng(11)
    return generator.integers(0, config.vocab_size, (3, config.seq_len + 1)).astype(np.int32)


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape: str, precision: str) -> None:
    config, adapter = SHAPES[shape]
    subject_ = Adapted(config, adapter, precision)
    model, table, tokens = subject_.model, subject_.table, tokens_of(config)
    grads = np.zeros(table.size, np.float32)
    for view in table.views(grads).values():
        view[...] = np.nan
    found = model.compute(tokens, grads, scale=1.0)
    expected = float(np.real(oracle.loss(config, subject_.merged(), tokens)))
    assert found == pytest.approx(expected, rel=LOSS_TOLERANCE[precision])
    assert model.evaluate(tokens) == found
    least = 0.01 * float(np.linalg.norm(grads))
    generator = np.random.default_rng(12)
    for name, view in table.views(grads).items():
        gradient = view.astype(np.float64)
        size = float(np.linalg.norm(gradient))
        assert np.isfinite(size), name
        if config.seq_len > 1:
            assert size > 0, f"the loss does not depend on {name}"
        for direction in directions(gradient, generator):
            along = float((gradient * direction).sum())
            params = subject_.merged(name, 1j * oracle.STEP * direction)
            true = float(np.imag(oracle.loss(config, params, tokens))) / oracle.STEP
            assert abs(along - true) <= TOLERANCE[precision] * max(size, least), name


@pytest.mark.parametrize("precision", FORMATS)
def test_adapters_that_add_nothing_change_no_loss(precision: str) -> None:
    config, adapter = SHAPES["llama"]
    flat, _ = subject(config)
    nothing = np.zeros(adapter_table(config, adapter).size, np.float32)
    model = Transformer.allocate(
        config, flat, precision=precision, adapter=adapter, adapters=nothing
    )
    plain = Transformer.allocate(config, flat, precision=precision)
    tokens = tokens_of(config)
    assert model.evaluate(tokens) == plain.evaluate(tokens)


@pytest.mark.parametrize("precision", FORMATS)
def test_the_weights_are_only_read_and_chunks_add_up(precision: str) -> None:
    config, adapter = SHAPES["tiles of gpt2"]
    subject_ = Adapted(config, adapter, precision)
    subject_.flat.flags.writeable = True
    before = subject_.flat.copy()
    tokens = np.random.default_rng(1).integers(0, 131, (9, 71)).astype(np.int32)  # two chunks
    whole, parts = (np.zeros(subject_.table.size, np.float32) for _ in range(2))
    loss = subject_.model.compute(tokens, whole, scale=1.0)
    halves = [
        subject_.model.compute(tokens[:7], parts, scale=1.0),
        subject_.model.compute(tokens[7:], parts, scale=1.0, accumulate=True),
    ]
    assert loss == sum(halves)
    assert np.array_equal(whole, parts)
    assert np.array_equal(before, subject_.flat)


def test_dropout_is_that_of_the_place() -> None:
    """The same seed, the same gradients; sequences computed apart are those computed together."""
    config = ModelConfig(31, 8, 2, 2, 24, dropout=0.3)
    subject_ = Adapted(config, AdapterConfig(4, 4.0), "float32")
    tokens = tokens_of(config)
    keys = {"scale": 1.0, "seed": 7, "step": 3}
    whole, apart, again = (np.zeros(subject_.table.size, np.float32) for _ in range(3))
    subject_.model.compute(tokens, whole, **keys)
    subject_.model.compute(tokens, again, **keys)
    assert np.array_equal(whole, again)
    for i in range(3):
        subject_.model.compute(tokens[i : i + 1], apart, first_sequence=i, accumulate=i > 0, **keys)
    assert np.allclose(apart, whole, rtol=1e-4, atol=1e-5)
    plain = np.zeros(subject_.table.size, np.float32)
    subject_.model.compute(tokens, plain, scale=1.0, seed=8, step=3)
    assert not np.allclose(plain, whole, rtol=1e-2, atol=1e-2)


def test_refusals() -> None:
    config, adapter = SHAPES["gpt2"]
    flat, _ = subject(config)
    with pytest.raises(ValueError, match="needs the adapters' buffer"):
        Transformer.allocate(config, flat, adapter=adapter)
    with pytest.raises(ValueError, match=r"adapters has 3 elements, the model needs \d+"):
        Transformer.allocate(config, flat, adapter=adapter, adapters=np.zeros(3, np.float32))
    model = Adapted(config, adapter, "float32").model
    grads = np.zeros(adapter_table(config, adapter).size, np.float32)
    side = np.zeros(Transformer.side_size(config), np.float32)
    with pytest.raises(ValueError, match="side has no use with adapters"):
        model.compute(tokens_of(config), grads, scale=1.0, side=side)
    with pytest.raises(ValueError, match=r"grads has \d+ floats, the model needs \d+"):
        model.compute(
            tokens_of(config), np.zeros(parameter_table(config).size, np.float32), scale=1
        )


def test_other_levels(isa_levels) -> None:
    isa_levels(__file__)
