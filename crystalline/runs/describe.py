"""What a run is, in a few lines for people: the head of its config.toml, and of its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalline.runs.settings import RunSettings
from crystalline.train.config import TrainConfig

if TYPE_CHECKING:
    from crystalline.data.prepare import PreparedData
    from crystalline.train.spec import RunSpec


def describe(settings: RunSettings, spec: RunSpec, data: PreparedData, *, step: int = 0) -> str:
    """Return the resolved settings; `step` is where a resumed run goes on."""
    from crystalline.formats.rundir import short_count
    from crystalline.train.precision import summary
    from crystalline.train.schedule import effective_warmup

    config, model = spec.config, spec.model
    warmup = effective_warmup(config, spec.plan.length)
    cut = f" (not {config.warmup_steps}: the run is short)" if warmup < config.warmup_steps else ""
    passes = spec.max_steps * config.tokens_per_step / data.train_tokens
    about = "" if spec.max_seconds is None else "about "
    lines = {
        "data": data.description + (f"; left out: {data.left_out}" if data.left_out else ""),
        "model": f"{model.architecture}, {short_count(spec.parameters)} parameters: "
        f"{_count(model.num_layers, 'layer')}, {_count(model.num_heads, 'head')}, "
        f"{_count(model.embed_dim, 'channel')}, context {model.seq_len}, "
        f"vocabulary {model.vocab_size:,}"
        + (f", begun from {config.init_from}" if config.init_from else ""),
        **_adapters(spec),
        "steps": f"{about}{spec.max_steps:,} of {config.sequences_per_step} × {config.seq_len} "
        f"tokens, {passes:.3g} epochs" + (f", from step {step:,} on" if step else ""),
        "rate": f"{config.optimizer}, {config.lr_schedule} {config.learning_rate:g} to "
        f"{config.final_lr:g}, warm-up {warmup}{cut}",
        **_crystalline_parts(config),
        "machine": f"{_count(spec.workers, 'worker')}, "
        f"{summary(spec.precision, settings.train_config())}, {spec.isa}",
        "saving": _saving(spec),
        "run": str(spec.run_dir),
    }
    return "\n".join(f"{name:8} {line}" for name, line in lines.items())


def _count(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> _count(1, "layer"), _count(2, "head")
    ('1 layer', '2 heads')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _saving(spec: RunSpec) -> str:
    from crystalline.machine.memory import size_words
    from crystalline.train.footprint import copy_bytes

    if not spec.save_while_training:
        return "training waits for each checkpoint"
    return (
        f"while training goes on, from a copy of {size_words(copy_bytes(spec.config, spec.model))}"
    )


def _adapters(spec: RunSpec) -> dict[str, str]:
    """Return the line that tells of adapters, where they are what is trained."""
    from crystalline.formats.rundir import short_count
    from crystalline.model.adapters import adapter_table

    adapter = spec.config.adapter
    if adapter is None:
        return {}
    count = adapter_table(spec.model, adapter).count
    return {
        "adapters": f"rank {adapter.rank}, alpha {adapter.alpha:g}: {count:,} of "
        f"{short_count(spec.parameters)} parameters are trained"
    }


def _crystalline_parts(config: TrainConfig) -> dict[str, str]:
    """Return the line that tells which crystalline parts are on, if any is.

    >>> _crystalline_parts(TrainConfig(crystalline_epsilon=0.1, init="lattice"))
    {'crystal': 'loss 0.1 constant over 16 neighbors by primes, lattice embeddings'}
    """
    parts = []
    if config.smooths:
        parts.append(
            f"loss {config.crystalline_epsilon:g} {config.crystalline_schedule} over "
            f"{_count(config.crystalline_k, 'neighbor')} by {config.crystalline_similarity}"
        )
    if config.init != "normal":
        parts.append(f"{config.init} embeddings")
    if config.positions != TrainConfig.positions:
        parts.append(f"{config.positions} positions")
    if config.attention != "standard":
        parts.append(f"{config.attention} attention" + ", λ at 0" * config.freeze_lambda)
    if config.discovery_interval:
        parts.append(
            f"root discovery every {config.discovery_interval * config.eval_interval:,} steps"
        )
    return {"crystal": ", ".join(parts)} if parts else {}
