"""Sizing: what is fixed stays, more data and time give more model, steps add up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import UsageError
from crystalline.model.adapters import AdapterConfig
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train.config import TrainConfig
from crystalline.train.sizing import choose_model, flops_per_token, resolve_steps


def parameters(train_tokens: int, flops: float | None = None, vocab: int = 300, **fixed) -> int:
    model = choose_model(
        TrainConfig(**fixed), vocab_size=vocab, train_tokens=train_tokens, flops_per_second=flops
    )
    return parameter_table(model).count


def test_flops_are_the_documented_count() -> None:
    model = ModelConfig(vocab_size=11, seq_len=7, num_layers=2, num_heads=3, embed_dim=6)
    block = 6 * 18 + 18 + 6 * 6 + 6 + 6 * 24 + 24 + 24 * 6 + 6 + 4 * 6
    total = 11 * 6 + 2 * block + 2 * 6
    assert flops_per_token(model) == 6 * total + 12 * 2 * 6 * 7
    rank = 2
    adapters = 2 * rank * ((6 + 18) + (6 + 6) + (6 + 24) + (24 + 6))
    found = flops_per_token(model, AdapterConfig(rank, 4.0))
    assert found == 4 * total + 6 * adapters + 12 * 2 * 6 * 7


@given(
    layers=st.integers(1, 9) | st.none(),
    heads=st.integers(1, 16) | st.none(),
    head_dim=st.integers(1, 40) | st.none(),
    tokens=st.integers(1, 10**9),
    minutes=st.floats(0.1, 1000) | st.none(),
)
def test_what_is_fixed_stays_and_all_fits(layers, heads, head_dim, tokens, minutes) -> None:
    width = None if head_dim is None else head_dim * (heads or 1)
    config = TrainConfig(
        num_layers=layers, num_heads=heads, embed_dim=width, seq_len=33, dropout=0.25,
        minutes=minutes,
    )  # fmt: skip
    model = choose_model(config, vocab_size=77, train_tokens=tokens, flops_per_second=1e11)
    assert (model.vocab_size, model.seq_len, model.dropout) == (77, 33, 0.25)
    assert layers in (None, model.num_layers)
    assert heads in (None, model.num_heads)
    assert width in (None, model.embed_dim)
    assert model.embed_dim % model.num_heads == 0
    if heads is None:
        assert model.head_dim <= 64


def test_a_prime_width_gets_heads_that_divide_it() -> None:
    assert choose_model(TrainConfig(embed_dim=97), vocab_size=9, train_tokens=9).num_heads == 97
    assert choose_model(TrainConfig(embed_dim=53), vocab_size=9, train_tokens=9).num_heads == 1


def test_sizes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="--embed-dim 100 cannot be divided among --num-heads 7"):
        choose_model(TrainConfig(embed_dim=100, num_heads=7), vocab_size=9, train_tokens=9)


def test_more_text_gives_more_model() -> None:
    sizes = [parameters(10**k) for k in range(3, 10)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4  # three too short for more than the least, two at the largest
    assert sizes[0] < 200_000
    assert sizes[-1] > 50_000_000


def test_a_megabyte_of_characters_gets_a_model_that_fits_it() -> None:
    """Tiny Shakespeare: 0.8 M parameters learn it in ten passes."""
    assert 400_000 < parameters(1_003_854, vocab=65) < 2_000_000


def test_time_bounds_the_model() -> None:
    tokens = 20_000_000
    sizes = [parameters(tokens, 2e11, 8000, minutes=m) for m in (1, 3, 30, 300, 3000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < sizes[4]
    assert sizes[-1] <= parameters(tokens, vocab=8000)
    assert parameters(tokens, 2e12, 8000, minutes=30) > sizes[2]


def test_few_steps_bound_the_model() -> None:
    assert parameters(10**9, max_steps=100) < parameters(10**9, max_steps=100_000)
    assert parameters(10**7, epochs=0.1) < parameters(10**7, epochs=5)


def test_the_demo_has_time_to_learn() -> None:
    """Three minutes on two cores, the standard library, 8,000 tokens."""
    config = TrainConfig(minutes=3)
    model = choose_model(config, vocab_size=8000, train_tokens=8_000_000, flops_per_second=1.8e11)
    tokens = 180 * 1.8e11 / flops_per_token(model)
    assert tokens > 5 * parameter_table(model).count
    assert tokens / config.tokens_per_step > 1000  # steps


@pytest.mark.parametrize(
    ("settings", "speed", "expected"),
    [
        ({"max_steps": 7, "epochs": 3, "minutes": 1}, 2.0, 7),
        ({"epochs": 3}, None, math.ceil(3 * 10_000 / 240)),
        ({"epochs": 0.001}, None, 1),
        ({}, None, math.ceil(10 * 10_000 / 240)),
        ({"minutes": 1}, 2.5, 150),
        ({"minutes": 1}, 1e-6, 1),
        ({"minutes": 1, "epochs": 3}, 2.5, 125),
        ({"minutes": 1, "epochs": 3}, 0.5, 30),
        ({"minutes": 1}, None, 417),
        ({"accumulation_steps": 3, "epochs": 3}, None, 42),
    ],
)
def test_steps(settings: dict, speed: float | None, expected: int) -> None:
    config = TrainConfig(batch_size=8, seq_len=30, **settings)
    assert resolve_steps(config, 10_000, speed) == expected
