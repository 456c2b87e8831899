"""Crystalline attention in the model: against the float64 oracle, and standard where λ is 0.

Shapes are multiples of nothing: T not of a tile, D not of a panel, H odd, and chunks of several
sequences.  Everything here runs once per instruction-set level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import random
from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import ModelConfig
from crystalline.model.decode import Decoder
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import gpt2

F32 = npt.NDArray[np.float32]

ODD = ModelConfig(67, 13, num_layers=2, num_heads=3, embed_dim=21, attention="crystalline")
TILES = ModelConfig(131, 70, num_layers=3, num_heads=3, embed_dim=99, attention="crystalline")
WIDE = ModelConfig(97, 61, num_layers=1, num_heads=1, embed_dim=72, attention="crystalline")
DROPPING = replace(ODD, seq_len=31, dropout=0.3)

GRADIENT_TOLERANCE = 2e-5  # of the largest entry of a tensor: that of the standard model
LOSS_TOLERANCE = 2e-6
BF16_TOLERANCE = 0.03  # relative, in norm: that of the standard model
# A head's λ gathers T² terms of either sign in one number: less cancels of their errors.
BF16_LAMBDA_TOLERANCE = 0.1  # measured: 0.034 at most over 12 batches
DECODER_TOLERANCE = 2e-5


def lambdas(config: ModelConfig) -> list[str]:
    return [f"transformer.h.{layer}.attn.crystal_lambda" for layer in range(config.num_layers)]


def tokens_of(config: ModelConfig, sequences: int, length: int, seed: int) -> npt.NDArray[np.int32]:
    return gpt2.random_tokens(config, sequences, length, seed).astype(np.int32)


class Subject:
    """A model on buffers full of NaN, with random weights and features."""

    def __init__(
        self, config: ModelConfig, *, precision: str = "float32", zero: bool = False
    ) -> None:
        self.config = config
        self.params = gpt2.random_parameters(config, seed=1)
        if zero:
            for name in lambdas(config):
                self.params[name][:] = 0.0
        self.features = gpt2.random_features(config, seed=2)
        self.flat = gpt2.to_flat(config, self.params)
        packed = aligned_empty((Transformer.packed_size(config, precision),))
        packed[:] = np.nan
        workspace = aligned_empty((Transformer.workspace_size(config, precision),), np.uint8)
        workspace[:] = 0xFF
        self.model = Transformer(
            config, self.flat, packed, workspace, precision=precision, features=self.features
        )
        self.model.pack()

    def compute(
        self, tokens: npt.NDArray[np.int32], scale: float = 1.0
    ) -> tuple[float, dict[str, F32]]:
        grads = np.full_like(self.flat, np.nan)
        loss = self.model.compute(tokens, grads, scale=scale, seed=11, step=5, first_sequence=7)
        return loss, parameter_table(self.config).views(grads)


@pytest.mark.parametrize(
    ("config", "sequences", "length"),
    [
        (ODD, 1, 1),
        (ODD, 3, 13),
        (ODD, 45, 12),  # more rows than a chunk
        (TILES, 2, 70),
        (TILES, 9, 57),
        (TILES, 1, 29),
        (WIDE, 3, 61),
    ],
)
def test_loss_logits_and_gradients_agree_with_the_oracle(
    config: ModelConfig, sequences: int, length: int
) -> None:
    subject = Subject(config)
    tokens = tokens_of(config, sequences, length + 1, seed=3)
    scale = 1.0 / (sequences * length)
    loss, got = subject.compute(tokens, scale)
    expected_loss, expected = gpt2.loss_and_gradients(
        subject.params, config, tokens[:, :-1], tokens[:, 1:], scale, features=subject.features
    )
    assert loss == pytest.approx(expected_loss, rel=LOSS_TOLERANCE)
    assert subject.model.evaluate(tokens) == pytest.approx(expected_loss, rel=LOSS_TOLERANCE)
    for name, want in expected.items():
        largest = np.abs(want).max()
        if name.endswith("c_attn.bias"):  # 0 in theory for keys: what is left is rounding
            largest = max(largest, 1e-3 * np.abs(expected[gpt2.WTE]).max())
        elif length == 1 and ".attn." in name:  # one key takes it all: no gradient of any score
            largest = np.abs(expected[gpt2.WTE]).max()
        assert np.abs(got[name] - want).max() <= GRADIENT_TOLERANCE * largest, name
    if length > 1:
        for name in lambdas(config):
            assert np.all(np.abs(expected[name]) > 1e-6), name
    logits = subject.model.logits(np.ascontiguousarray(tokens[:, :-1]))
    want = gpt2.forward(subject.params, config, tokens[:, :-1], features=subject.features)
    assert np.abs(logits - want).max() <= 4e-6 * np.abs(want).max()
    decoder = Decoder(config, subject.flat, cache="float32", threads=1, features=subject.features)
    first = gpt2.loss(
        subject.params, config, tokens[:1, :-1], tokens[:1, 1:], features=subject.features
    )
    assert decoder.score(tokens[0]).sum() == pytest.approx(first, rel=LOSS_TOLERANCE)


def test_dropout_of_probabilities_agrees_with_the_oracle() -> None:
    config, first, n, t = DROPPING, 7, 3, 29
    subject = Subject(config)
    tokens = tokens_of(config, n, t + 1, seed=4)

    def mask(shape: tuple[int, ...], site: int, start: int) -> npt.NDArray[np.float64]:
        out = np.empty(int(np.prod(shape)), np.float32)
        key = random.derive_key(11, 5, site)
        random.dropout(np.ones_like(out), out, config.dropout, key, start)
        return out.reshape(shape).astype(np.float64)

    wide, square = (n, t, config.embed_dim), (n, config.num_heads, t, t)
    start, square_start = first * wide[1] * wide[2], first * square[1] * t * t
    masks = {"embedding": mask(wide, 0, start)}
    for layer in range(config.num_layers):
        masks[f"h.{layer}.attention"] = mask(square, 4 * layer + 1, square_start)
        masks[f"h.{layer}.attention_output"] = mask(wide, 4 * layer + 2, start)
        masks[f"h.{layer}.mlp_output"] = mask(wide, 4 * layer + 3, start)
    loss, got = subject.compute(tokens, 0.1)
    expected_loss, expected = gpt2.loss_and_gradients(
        subject.params, config, tokens[:, :-1], tokens[:, 1:], 0.1, masks, subject.features
    )
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, want in expected.items():
        assert np.abs(got[name] - want).max() <= 1e-4 * np.abs(want).max() + 1e-9, name


@pytest.mark.parametrize("config", [ODD, TILES])
def test_bf16_stays_near_the_oracle(config: ModelConfig) -> None:
    subject = Subject(config, precision="bf16")
    tokens = tokens_of(config, 3, config.seq_len, seed=5)
    loss, got = subject.compute(tokens, 0.01)
    expected_loss, expected = gpt2.loss_and_gradients(
        subject.params, config, tokens[:, :-1], tokens[:, 1:], 0.01, features=subject.features
    )
    assert loss == pytest.approx(expected_loss, rel=5e-3)
    for name, want in expected.items():
        error = np.linalg.norm(got[name] - want) / np.linalg.norm(want)
        is_lambda = name in lambdas(config)
        assert error < (BF16_LAMBDA_TOLERANCE if is_lambda else BF16_TOLERANCE), (name, error)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("config", [ODD, TILES, DROPPING])
def test_lambda_zero_has_the_bits_of_standard_attention(
    config: ModelConfig, precision: str
) -> None:
    subject = Subject(config, precision=precision, zero=True)
    plain = replace(config, attention="standard")
    weights = gpt2.to_flat(plain, subject.params)
    model = Transformer.allocate(plain, weights, precision=precision)
    tokens = tokens_of(config, 3, config.seq_len, seed=6)
    grads = np.zeros_like(weights)
    loss = model.compute(tokens, grads, scale=0.5, seed=11, step=5, first_sequence=7)
    got_loss, got = subject.compute(tokens, 0.5)
    assert got_loss == loss
    for name, want in parameter_table(plain).views(grads).items():
        assert got[name].tobytes() == want.tobytes(), name
    assert all(np.all(got[name] != 0.0) for name in lambdas(config))
    assert subject.model.logits(tokens).tobytes() == model.logits(tokens).tobytes()
    assert subject.model.evaluate(tokens) == model.evaluate(tokens)


def test_each_lambda_changes_the_logits_as_the_oracle_says() -> None:
    subject = Subject(ODD)
    tokens = tokens_of(ODD, 2, 13, seed=7)
    before = subject.model.logits(tokens).copy()
    views = parameter_table(ODD).views(subject.flat)
    for name in lambdas(ODD):
        for head in range(ODD.num_heads):
            views[name][head] += 0.75  # never packed: it is read where it lies
            moved = gpt2.from_flat(ODD, subject.flat)
            want = gpt2.forward(moved, ODD, tokens, features=subject.features)
            got = subject.model.logits(tokens)
            assert np.abs(got - want).max() <= 4e-6 * np.abs(want).max(), (name, head)
            assert np.abs(got - before).max() > 1e-3, (name, head)
            views[name][head] -= 0.75


def test_the_features_are_read_at_every_call() -> None:
    """Root discovery replaces them in the arena while models are bound to it."""
    subject = Subject(ODD)
    tokens = tokens_of(ODD, 2, 13, seed=8)
    subject.model.evaluate(tokens)
    subject.features[:] = gpt2.random_features(ODD, seed=9)
    want = gpt2.loss(subject.params, ODD, tokens[:, :-1], tokens[:, 1:], features=subject.features)
    assert subject.model.evaluate(tokens) == pytest.approx(want, rel=LOSS_TOLERANCE)


def test_a_lambda_that_is_not_a_number_shows() -> None:
    subject = Subject(ODD)
    parameter_table(ODD).views(subject.flat)[lambdas(ODD)[0]][1] = np.nan
    assert np.isnan(subject.model.evaluate(tokens_of(ODD, 1, 5, seed=1)))


def test_frozen_lambdas_have_no_gradient_and_all_else_keeps_its_own() -> None:
    subject = Subject(TILES)
    tokens = tokens_of(TILES, 2, 60, seed=10)
    assert subject.model.freeze_lambda is False
    loss, free = subject.compute(tokens)
    subject.model.freeze_lambda = True
    frozen_loss, frozen = subject.compute(tokens)
    assert frozen_loss == loss
    for name in free:
        if name in lambdas(TILES):
            assert np.all(frozen[name] == 0.0), name
            assert np.all(free[name] != 0.0), name
        else:
            assert frozen[name].tobytes() == free[name].tobytes(), name


def test_gradients_add_and_do_not_depend_on_what_was_there() -> None:
    subject = Subject(ODD)
    first, second = tokens_of(ODD, 2, 9, seed=11), tokens_of(ODD, 3, 14, seed=12)
    table = parameter_table(ODD)
    apart = np.zeros((2, table.size), np.float32)
    for tokens, lane in zip((first, second), apart, strict=True):
        subject.model.compute(tokens, lane, scale=0.1)
    both, together = np.full(table.size, np.nan, np.float32), np.zeros(table.size, np.float32)
    subject.model.compute(first, both, scale=0.1)
    subject.model.compute(second, both, scale=0.1, accumulate=True)
    subject.model.compute(first, together, scale=0.1)
    side = np.full(Transformer.side_size(ODD), np.nan, np.float32)
    subject.model.compute(second, together, scale=0.1, side=side)
    for name, want in table.views(apart[0] + apart[1]).items():
        np.testing.assert_allclose(
            table.views(both)[name], want, rtol=1e-5, atol=1e-6 * np.abs(want).max()
        )
        np.testing.assert_array_equal(table.views(together)[name], want, name)


def test_decoding_equals_the_full_pass() -> None:
    """Prefill, steps, and slots that change places, each with the features of its own tokens."""
    subject = Subject(ODD)
    decoder = Decoder(ODD, subject.flat, slots=3, features=subject.features, cache="float32")

    def assert_full(row: F32, text: list[int]) -> None:
        full = subject.model.logits(np.array([text], np.int32))[0]
        assert np.abs(row - full[-1]).max() <= DECODER_TOLERANCE * np.abs(full).max()

    texts = [[5, 9, 60, 2], [33, 1], [7]]
    for slot, text in enumerate(texts):
        assert_full(decoder.extend([slot], [text])[0], text)
    for tokens in ([7, 8, 9], [40, 41, 42], [5, 5, 5]):
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]
        rows = decoder.extend([0, 1, 2], [[token] for token in tokens])
        for row, text in zip(rows, texts, strict=True):
            assert_full(row, text)
    decoder.reorder([1, 0, 1])
    texts = [[*texts[source], token] for source, token in zip([1, 0, 1], [10, 11, 12], strict=True)]
    rows = decoder.extend([0, 1, 2], [[10], [11], [12]])
    for row, text in zip(rows, texts, strict=True):
        assert_full(row, text)
    tokens = np.int32(texts[1])
    want = gpt2.loss(
        subject.params, ODD, tokens[None, :-1], tokens[None, 1:], features=subject.features
    )
    assert decoder.score(tokens).sum() == pytest.approx(want, rel=1e-5)


def test_initialization_changes_no_other_tensor() -> None:
    plain = replace(TILES, attention="standard")
    table, other = parameter_table(TILES), parameter_table(plain)
    assert [p.offset for p in table.parameters[: len(other.parameters)]] == [
        p.offset for p in other.parameters
    ]
    added = table.parameters[len(other.parameters) :]
    assert [p.name for p in added] == lambdas(TILES)
    assert all((p.shape, p.decays, p.group) == ((3,), False, "attention") for p in added)
    weights, expected = np.ones(table.size, np.float32), np.ones(other.size, np.float32)
    initialize(TILES, weights, seed=3)
    initialize(plain, expected, seed=3)
    assert weights[: other.size].tobytes() == expected.tobytes()
    assert np.all(weights[other.size :] == 0.0)
    assert "attention" not in plain.to_dict()
    assert ModelConfig(**TILES.to_dict()) == TILES


@pytest.mark.parametrize("shape", [None, (66, 16), (67, 15)])
def test_features_of_another_shape_are_refused(shape: tuple[int, int] | None) -> None:
    weights = np.zeros(parameter_table(ODD).size, np.float32)
    features = None if shape is None else np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"crystalline attention needs \[67, 16\]"):
        Transformer.allocate(ODD, weights, features=features)


def test_standard_attention_takes_no_features() -> None:
    plain = replace(ODD, attention="standard")
    weights = np.zeros(parameter_table(plain).size, np.float32)
    with pytest.raises(ValueError, match=r"standard attention needs \[0, 16\]"):
        Transformer.allocate(plain, weights, features=np.zeros((67, 16), np.float32))


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
