"""The decoder against the full forward pass, and its promise: a text's bits are its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import formats
from crystalline._kernels import matmul as mm
from crystalline.model.architectures import ARCHITECTURES
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.decode import Decoder
from crystalline.model.params import Parameter, initialize, parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import ops

F32 = npt.NDArray[np.float32]

TOLERANCE = 2e-5  # of the largest logit: the two orders of summation differ by a few ulp

# What rounding activations changes, of the largest logit.  Measured at base, avx512bf16 and amx: at
# most 0.0039, 0.019, 0.017 and 0.023.
ACTIVATIONS = {"bf16": 0.008, "int8": 0.04, "int8g32": 0.035, "int4": 0.045}
PRECISIONS = formats.names()  # before a test adds one of its own

CONFIGS = {
    "gpt2": ModelConfig(67, 45, num_layers=2, num_heads=3, embed_dim=33),
    "llama": ModelConfig(
        67, 45, 2, 4, 40, architecture="llama", num_kv_heads=2, tie_embeddings=False
    ),
    "qwen3": ModelConfig(
        67, 45, 2, 4, 36, architecture="qwen3", num_kv_heads=1, head_size=14, sliding_window=7
    ),
    "crystalline": ModelConfig(67, 45, 2, 3, 33, attention="crystalline"),
}


def weights_of(config: ModelConfig) -> F32:
    flat = np.zeros(parameter_table(config).size, np.float32)
    initialize(config, flat, seed=3)
    for view in parameter_table(config).views(flat).values():  # far from uniform
        view *= 5.0 if view.ndim > 1 else 1.0
        view += 0.1 if view.ndim == 1 else 0.0
    return flat


def features_of(config: ModelConfig) -> F32 | None:
    if config.attention == "standard":
        return None
    return np.random.default_rng(5).normal(0, 0.4, (67, 16)).astype(np.float32)


def decoder_of(name: str, **changes: Any) -> Decoder:
    config = CONFIGS[name]
    changes = {"threads": 1, "cache": "float32", **changes}
    return Decoder(config, weights_of(config), features=features_of(config), **changes)


def full_logits(name: str, tokens: list[int]) -> F32:
    config = CONFIGS[name]
    model = Transformer.allocate(config, weights_of(config), features=features_of(config))
    return model.logits(np.array([tokens], np.int32))[0]


def text(length: int, seed: int = 1) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 67, length)]


def in_cuts(decoder: Decoder, slot: int, tokens: list[int], cuts: list[int]) -> list[F32]:
    """Feed `tokens` in pieces that end at `cuts`; return the logits after each."""
    rows = []
    for start, stop in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        rows.append(decoder.extend([slot], [tokens[start:stop]])[0])
    return rows


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_equal_the_full_pass(name: str) -> None:
    tokens = text(45)
    expected = full_logits(name, tokens)
    decoder = decoder_of(name)
    rows = in_cuts(decoder, 0, tokens, list(range(4, 45)))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.array(rows), expected[3:], rtol=0, atol=TOLERANCE * scale)
    assert decoder.length() == 45


@pytest.mark.parametrize("cache", ["bf16", "float32"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_bits_depend_on_the_text_alone(name: str, precision: str, cache: str) -> None:
    """However it is cut, whatever else is in the pass, and with any number of threads."""
    tokens, others = text(40), [text(n, seed=n) for n in (1, 7, 31)]
    alone = decoder_of(name, precision=precision, cache=cache)
    expected = in_cuts(alone, 0, tokens, [3, 4, 20])
    for threads in (1, 2, 3):
        decoder = decoder_of(name, precision=precision, cache=cache, slots=4, threads=threads)
        one = decoder.extend([2], [tokens[:3]])[0]
        rows = [one, *(decoder.extend([2], [[token]])[0] for token in tokens[3:20])]
        assert np.array_equal(rows[1], expected[1])
        assert np.array_equal(rows[-1], expected[2])
        together = decoder.extend([0, 2, 3, 1], [others[2], tokens[20:], others[0], others[1]])
        assert np.array_equal(together[1], expected[3])
        whole = decoder_of(name, precision=precision, cache=cache).extend([0], [others[2]])[0]
        assert np.array_equal(together[0], whole)
        decoder.close()


def test_slots_do_not_mix_and_reorder_copies_them() -> None:
    texts = [text(5, 1), text(3, 2), text(9, 3), text(1, 4)]
    for order in ([1, 0, 1], [1, 2, 3, 0], [3, 3, 3, 3], [0, 1, 2, 3], [2], [1, 0, 3, 2]):
        decoder = decoder_of("crystalline", slots=4)
        decoder.extend([3, 1, 0, 2], [texts[3], texts[1], texts[0], texts[2]])
        decoder.reorder(order)
        after = [texts[source] for source in order] + texts[len(order) :]
        assert [decoder.length(i) for i in range(4)] == [len(one) for one in after]
        rows = decoder.extend(range(4), [[7], [8], [9], [10]])
        for i, one in enumerate(after):
            fresh = decoder_of("crystalline")
            fresh.extend([0], [one])
            assert np.array_equal(rows[i], fresh.extend([0], [[7 + i]])[0])


def test_a_slot_goes_on_from_where_it_was_cut() -> None:
    tokens = text(20)
    decoder = decoder_of("qwen3", slots=2)
    decoder.extend([1], [tokens])
    decoder.truncate(1, 12)
    again = decoder.extend([1], [[5, 6]])[0]
    assert np.array_equal(again, decoder_of("qwen3").extend([0], [[*tokens[:12], 5, 6]])[0])
    decoder.truncate(1, 0)
    assert decoder.length(1) == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_score_is_the_log_softmax_of_the_full_pass(name: str, threads: int) -> None:
    tokens = text(46, 2)
    expected = ops.cross_entropy_rows(full_logits(name, tokens[:-1]), np.array(tokens[1:]))
    decoder = decoder_of(name, threads=threads)
    decoder.extend([0], [[1, 2, 3]])
    got = decoder.score(np.int32(tokens))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
    assert decoder.length() == 3  # its slots are as they were


def test_long_texts_are_scored_in_passes() -> None:
    config = ModelConfig(31, 1100, 1, 2, 16, architecture="llama")
    weights = weights_of(config)
    tokens = np.random.default_rng(1).integers(0, 31, 1101).astype(np.int32)
    decoder = Decoder(config, weights, cache="float32", threads=2)
    got = decoder.score(tokens)
    read = Transformer.allocate(config, weights).logits(tokens[None, :-1])[0]
    expected = ops.cross_entropy_rows(read, tokens[1:])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
    with pytest.raises(ValueError, match="513 tokens are more than 512"):
        decoder.extend([0], [tokens[:513]])


def rounded(matrix: F32, precision: str) -> F32:
    """Return the values [K, N] that a number format keeps of a matrix: its product with ones."""
    K, N = matrix.shape
    packed = np.zeros(mm.packed_size(K, N, precision), np.float32)
    mm.pack_matrix(np.ascontiguousarray(matrix), packed, precision=precision)
    left = np.zeros(mm.operand_shape(K, K, precision), np.float32)
    mm.to_operand(np.eye(K, dtype=np.float32), left, precision)
    values = np.zeros((K, N), np.float32)
    mm.matmul(left, packed, values, precision=precision, inner=K)
    return values


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_narrow_format_rounds_its_weights_and_what_it_multiplies(
    name: str, precision: str
) -> None:
    """Against float32 with the weights that the format keeps, only activations are rounded."""
    config, tokens = CONFIGS[name], text(30)
    flat, table = weights_of(config), parameter_table(config)
    for parameter, view in zip(table.parameters, table.views(flat).values(), strict=True):
        if parameter.role in (Role.TOKENS, Role.HEAD):
            is_head = parameter.role is Role.HEAD or config.is_tied
            kept = "int8g32" if is_head and precision == "int4" else precision
            view[...] = rounded(view.T, kept).T
        elif parameter.decays and parameter.role is not Role.POSITIONS:
            view[...] = rounded(view, precision)
    model = Transformer.allocate(config, flat, features=features_of(config))
    expected = model.logits(np.array([tokens], np.int32))[0, -1]
    got = decoder_of(name, precision=precision).extend([0], [tokens])[0]
    near = ACTIVATIONS.get(precision, TOLERANCE)
    assert np.abs(got - expected).max() <= near * np.abs(expected).max()


def test_weights_may_come_one_by_one() -> None:
    config = CONFIGS["llama"]
    flat = weights_of(config)
    asked: list[str] = []

    def read(parameter: Parameter) -> F32:
        asked.append(parameter.name)
        return flat[parameter.offset : parameter.offset + parameter.size].reshape(parameter.shape)

    decoder = Decoder(config, read, threads=1, cache="float32")
    assert asked == [p.name for p in parameter_table(config).parameters]
    expected = decoder_of("llama").extend([0], [[1, 2]])
    assert np.array_equal(decoder.extend([0], [[1, 2]]), expected)
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight is float32\[3\]"):
        Decoder(config, lambda _: np.zeros(3, np.float32), threads=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_written_goes_on(name: str) -> None:
    """A greedy text, token by token, is the text of a model that reads it whole each time."""
    config = CONFIGS[name]
    tokens, decoder = [1, 2, 3], decoder_of(name, slots=2, threads=2)
    logits = decoder.extend([1], [tokens])[0]
    for _ in range(20):
        token = int(logits.argmax())
        tokens.append(token)
        logits = decoder.extend([1], [[token]])[0]
    assert len(tokens) < config.seq_len
    read = full_logits(name, tokens[:-1])
    assert [int(row.argmax()) for row in read[2:]] == tokens[3:]


def test_bad_calls_are_refused() -> None:
    decoder = decoder_of("gpt2", slots=2)
    with pytest.raises(ValueError, match="46 tokens for slot 0, which takes 1 to 45"):
        decoder.extend([0], [[1] * 46])
    with pytest.raises(ValueError, match="0 tokens for slot 1"):
        decoder.extend([0, 1], [[1], []])
    with pytest.raises(ValueError, match="token 67 is outside the vocabulary of 67"):
        decoder.extend([0], [[1, 67]])
    with pytest.raises(ValueError, match="token -1 is outside"):
        decoder.score([1, -1])
    with pytest.raises(ValueError, match="name one twice"):
        decoder.extend([1, 1], [[1], [2]])
    with pytest.raises(ValueError, match="1 texts for 2 slots"):
        decoder.extend([0, 1], [[1]])
    with pytest.raises(IndexError, match="slot 2 of 2"):
        decoder.extend([2], [[1]])
    with pytest.raises(ValueError, match="slot 0 holds 0 tokens, not 1"):
        decoder.truncate(0, 1)
    with pytest.raises(ValueError, match="2 to 46 tokens are needed"):
        decoder.score([1])
    decoder.extend([0], [[1] * 45])
    with pytest.raises(ValueError, match="1 tokens for slot 0, which takes 0"):
        decoder.extend([0], [[1]])
    weights = weights_of(CONFIGS["gpt2"])
    with pytest.raises(ValueError, match="slots is 0"):
        Decoder(CONFIGS["gpt2"], weights, slots=0)
    with pytest.raises(ValueError, match="cache is 'int3'"):
        Decoder(CONFIGS["gpt2"], weights, cache="int3")
    with pytest.raises(ValueError, match="precision is 'int3'"):
        Decoder(CONFIGS["gpt2"], weights, precision="int3")


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
