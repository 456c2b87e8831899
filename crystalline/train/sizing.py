"""How large a model, how many steps and how long an evaluation: pure functions of data and time.

A model is worth training when it sees enough tokens for each parameter: Hoffmann et al. 2022
find twenty in one pass over fresh text, and nanoGPT's small models, which read a short text
several times, do well with two to fifteen.  So the largest preset is taken for which

    parameters · TOKENS_PER_PARAMETER ≤ tokens seen

where the tokens seen are those of the wanted passes, of which a text gives something new in
the first eight, and with --minutes at most those that the machine can do in the time,
at 6N + 12·L·C·T floating-point operations a token.  What the user fixes stays fixed.

An evaluation takes about EVALUATION_SHARE of the time between two of them, going by tokens and
never by a clock, so that two runs with the same settings evaluate the same text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train.config import TrainConfig

DEFAULT_EPOCHS = 10.0
TOKENS_PER_PARAMETER = 8.0
USEFUL_EPOCHS = 8.0
WIDEST_HEAD = 64
FORWARD_SHARE = 0.4  # of the time of a training step, for the same tokens, spent going forward
EVALUATION_SHARE = 0.03  # of the time between two evaluations
LEAST_EVALUATION = 16_384  # tokens: the loss over fewer depends too much on which they are
USUAL_INTERVAL = TrainConfig.eval_interval  # what an evaluation at the end only goes by


@dataclass(frozen=True)
class Preset:
    """A shape from which the missing sizes are taken."""

    num_layers: int
    num_heads: int
    embed_dim: int


PRESETS = (  # smallest first; heads of 32 channels, then of 64
    Preset(2, 2, 64),
    Preset(3, 3, 96),
    Preset(4, 4, 128),
    Preset(5, 5, 160),
    Preset(6, 6, 192),
    Preset(6, 8, 256),
    Preset(6, 6, 384),
    Preset(8, 8, 512),
    Preset(10, 10, 640),
    Preset(12, 12, 768),
)


def flops_per_token(model: ModelConfig, adapter: AdapterConfig | None = None) -> float:
    """Return the floating-point operations that training takes for a token: 6N + 12·L·W·T.

    N leaves out what is only looked up: position table, and embeddings that are no head.  W is the
    width of all heads.  Where adapters of n numbers are trained, it is 4N + 6n + 12·L·W·T: the
    weights have no gradient.

    >>> round(flops_per_token(ModelConfig(65, 256, 6, 6, 384)) / 1e6, 1)
    71.1
    """
    table = parameter_table(model)
    tables = [table.find(Role.POSITIONS)]
    if not model.is_tied:
        tables.append(table.find(Role.TOKENS))
    looked_up = sum(one.size for one in tables if one is not None)
    width = model.num_heads * model.head_dim
    products = 6.0 * (table.count - looked_up)
    if adapter is not None:
        products = 4.0 * (table.count - looked_up) + 6.0 * adapter_table(model, adapter).count
    return products + 12.0 * model.num_layers * width * model.seq_len


def choose_model(
    config: TrainConfig,
    *,
    vocab_size: int,
    train_tokens: int,
    flops_per_second: float | None = None,
) -> ModelConfig:
    """Return the shape of the model: what `config` fixes, the rest sized from data and time.

    `flops_per_second` is what training reaches on this machine; it matters with --minutes.

    Raises:
        UsageError: the fixed sizes do not go together.
    """
    fitting = [_shape(config, preset, vocab_size) for preset in PRESETS]
    chosen = fitting[0]
    for model in fitting[1:]:
        seen = _tokens_seen(config, model, train_tokens, flops_per_second)
        if parameter_table(model).count * TOKENS_PER_PARAMETER > seen:
            break
        chosen = model
    return chosen


def evaluation_tokens(config: TrainConfig) -> int:
    """Return the tokens that an evaluation predicts at most; 0: the whole held-out split.

    >>> evaluation_tokens(TrainConfig()), evaluation_tokens(TrainConfig(eval_interval=10))
    (57600, 16384)
    >>> evaluation_tokens(TrainConfig(eval_tokens=0)), evaluation_tokens(TrainConfig(eval_tokens=9))
    (0, 9)
    """
    if config.eval_tokens is not None:
        return config.eval_tokens
    between = (config.eval_interval or USUAL_INTERVAL) * config.tokens_per_step
    return max(LEAST_EVALUATION, round(EVALUATION_SHARE / FORWARD_SHARE * between))


def resolve_steps(
    config: TrainConfig, train_tokens: int, steps_per_second: float | None = None
) -> int:
    """Return the optimizer steps of the whole run, at least 1.

    Those of --max-steps, or else of --epochs, or what --minutes allow at `steps_per_second`,
    whichever is less; ten epochs where nothing is said.  The learning rate comes down within
    the shorter of two limits.

    >>> resolve_steps(TrainConfig(batch_size=10, seq_len=50, epochs=3), train_tokens=10_100)
    61
    >>> resolve_steps(TrainConfig(minutes=2), 10_000_000, steps_per_second=5.5)
    660
    """
    limits = []
    if config.max_steps is not None:
        limits.append(config.max_steps)
    elif config.epochs is not None or config.minutes is None or steps_per_second is None:
        epochs = DEFAULT_EPOCHS if config.epochs is None else config.epochs
        limits.append(math.ceil(epochs * train_tokens / config.tokens_per_step))
    if config.minutes is not None and steps_per_second is not None:
        limits.append(int(config.minutes * 60 * steps_per_second))
    return max(1, min(limits))


def _tokens_seen(
    config: TrainConfig, model: ModelConfig, train_tokens: int, flops_per_second: float | None
) -> float:
    """Return how many tokens the run can learn something from."""
    wanted = USEFUL_EPOCHS * train_tokens
    if config.max_steps is not None:
        wanted = min(wanted, config.max_steps * config.tokens_per_step)
    elif config.epochs is not None:
        wanted = min(wanted, config.epochs * train_tokens)
    if config.minutes is not None and flops_per_second is not None:
        wanted = min(wanted, config.minutes * 60 * flops_per_second / flops_per_token(model))
    return wanted


def _shape(config: TrainConfig, preset: Preset, vocab_size: int) -> ModelConfig:
    """Return the preset with the sizes that the user fixed, and the others made to fit them."""
    heads, width = config.num_heads, config.embed_dim
    if heads is None and width is None:
        heads, width = preset.num_heads, preset.embed_dim
    elif width is None:
        assert heads is not None
        width = heads * max(1, round(preset.embed_dim / heads / 8) * 8)
    elif heads is None:
        # Heads as wide as the preset's, or as near as divides the channels; 64 at most.
        wanted = min(WIDEST_HEAD, preset.embed_dim // preset.num_heads)
        divisors = [d for d in range(1, min(width, WIDEST_HEAD) + 1) if width % d == 0]
        heads = width // min(divisors, key=lambda d: abs(d - wanted))
    return ModelConfig(
        vocab_size=vocab_size,
        seq_len=config.seq_len,
        num_layers=config.num_layers or preset.num_layers,
        num_heads=heads,
        embed_dim=width,
        dropout=config.dropout,
        attention=config.attention,
        architecture=config.architecture,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        mlp_dim=config.mlp_dim,
        rope_theta=config.rope_theta,
        sliding_window=config.sliding_window,
        tie_embeddings=None if config.tie_embeddings else False,
    )
