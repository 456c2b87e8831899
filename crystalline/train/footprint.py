"""Whether a training fits into memory, before anything is made for it.

What it takes is the arena: weights, moments, gradients of the lanes, packed copies, and the
activations of as many sequences as are computed at a time; with checkpoints that are written while
training goes on, weights and moments once more.  Where adapters are trained, moments and gradients
are theirs.  The rest is small beside any model that does not fit.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crystalline.engine.board import engine_regions
from crystalline.engine.shape import Depth, most_leaves, rows_of
from crystalline.errors import UsageError
from crystalline.ipc.arena import SHM_DIR, Layout, Region
from crystalline.ipc.positions import POSITIONS
from crystalline.machine.cores import usable_cores
from crystalline.machine.memory import (
    MemoryLimit,
    available_bytes,
    memory_limit,
    size_words,
)
from crystalline.model.adapters import AdapterConfig, adapter_table, largest_rank
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import SaveWhileTraining, TrainConfig
from crystalline.train.sizing import choose_model
from crystalline.train.spec import RunSpec
from crystalline.train.sums import least_buffers, tree_over
from crystalline.train.words import training_regions

if TYPE_CHECKING:
    from crystalline.data.prepare import PreparedData

LARGEST = 2**31 - 1  # of any size
MOST_LANES = 12_000  # units of a step, which are laid out beforehand
MOST_LAYERS = 1_000  # as many as anybody has trained; every layer is a dozen entries in tables
# Settings that memory depends on, the one to name first at the front, and the least to propose.
SETTINGS = {
    "embed_dim": 1, "num_heads": 1, "num_layers": 1, "seq_len": 16, "lanes": POSITIONS,
    "batch_size": 1, "accumulation_steps": 1,
}  # fmt: skip

_SHAPE = ("embed_dim", "num_heads", "num_layers")
COPY_SHARE = 0.8  # of the free memory that a run with a copy for its checkpoints may take
USUAL_RANK = 8  # of adapters that are proposed

# Of the arena's regions, by the name that people know; what is not here is small.
_PARTS = {
    "weights": ("base", "weights"), "moments": ("m", "v"), "copy": ("copy",),
    "gradients": ("grads", "lanes", "sides"), "packed weights": ("packed",),
    "workspaces": ("workspaces",),
}  # fmt: skip
# What processes need beside the arena, about: launcher and Node Zero, and each sphere.
PROCESSES_BYTES, SPHERE_BYTES = 320_000_000, 10_000_000

Need = Callable[[TrainConfig, ModelConfig], int]  # bytes


@dataclass(frozen=True)
class Room:
    """How a run fits into memory."""

    copies: bool  # whether checkpoints are written from a copy, while training goes on
    sum_buffers: int | None  # most that lanes are summed in, None: as usual
    parts: tuple[tuple[str, int], ...]  # what takes how many bytes of shared memory


def check_sizes(config: TrainConfig) -> None:
    """Refuse sizes that no machine can work with.  Raises `UsageError`."""
    for name in ("embed_dim", "num_heads", "num_layers", "seq_len", "vocab_size", "lanes"):
        value = getattr(config, name)
        most = {"num_layers": MOST_LAYERS, "lanes": MOST_LANES}.get(name, LARGEST)
        if value is not None and value > most:
            shown = value if value < 10**18 else f"a number of {len(str(value))} digits"
            raise UsageError(f"{_flag(name)} is {shown}", advice=f"The most is {most:,}.")


def check_model(config: TrainConfig, workers: int, depth: Depth = "1") -> None:
    """Refuse a model whose weights alone do not fit into memory, before the data is looked at.

    Raises:
        UsageError: it cannot work; the message names sizes that can.
    """
    model = choose_model(config, vocab_size=2, train_tokens=0)  # as small as it can become
    limit = memory_limit()
    least = least_bytes(model, config.adapter)
    if least > limit.size_bytes:
        model = dataclasses.replace(model, vocab_size=config.vocab_size)
        permits = most_permits(workers, depth)

        def need(config: TrainConfig, model: ModelConfig) -> int:
            return _most_bytes(config, model, permits, _largest(config.precision))

        raise _too_large(config, model, limit, f"at least {size_words(least)}", need)


def check_run(
    config: TrainConfig,
    model: ModelConfig,
    data: PreparedData,
    workers: int,
    depth: Depth = "1",
    save_while_training: SaveWhileTraining = "no",
    *,
    recompute: bool = False,
    max_bytes: int | None = None,
) -> Room:
    """Return how a run fits into memory; `max_bytes` is the most that it may take in all.

    With "auto" there is a copy for checkpoints where it fits easily into the memory that is free
    now.  Lanes are summed in fewer buffers where the usual ones do not fit.  Refuses a run whose
    shared memory cannot fit into this machine's; its precision is resolved.

    Raises:
        UsageError: it cannot work; the message names sizes that can.
    """
    limit, permits = memory_limit(), most_permits(workers, depth)
    beside = PROCESSES_BYTES + workers * SPHERE_BYTES
    if max_bytes is not None and max_bytes - beside < limit.size_bytes:
        words = f"--max-memory leaves {size_words(max(0, max_bytes - beside))} beside the processes"
        limit = MemoryLimit(max(0, max_bytes - beside), words)
    copies = save_while_training == "yes"

    def regions(config: TrainConfig, model: ModelConfig, buffers: int | None) -> list[Region]:
        return _regions(config, model, data, (workers, depth), permits, recompute, buffers)

    def need(config: TrainConfig, model: ModelConfig) -> int:
        extra = copy_bytes(config, model) if copies else 0
        least = least_bytes(model, config.adapter) + extra
        if least > limit.size_bytes:
            return least
        rough = _most_bytes(config, model, permits, config.precision) + extra
        if rough <= limit.size_bytes:
            return rough
        buffers = _least_buffers(config)
        found = (_size(regions(config, model, number)) for number in (None, buffers))
        return min(found) + extra

    wanted = need(config, model)
    if wanted > limit.size_bytes:
        too_large = _too_large(config, model, limit, size_words(wanted), need)
        if copies and wanted - copy_bytes(config, model) <= limit.size_bytes:
            too_large.advice = "Leave out --save-while-training yes."
        raise too_large
    free = min(limit.size_bytes, available_bytes(), _free_shared_bytes())
    if save_while_training == "auto":
        copies = wanted + copy_bytes(config, model) <= COPY_SHARE * free
    extra = copy_bytes(config, model) if copies else 0
    buffers, found = None, regions(config, model, None)
    if _size(found) + extra > free:
        least = _least_buffers(config)
        for number in (*range(least + permits, least, -1), least):
            fewer = regions(config, model, number)
            if _size(fewer) < _size(found):
                buffers, found = number, fewer
            if _size(found) + extra <= free:
                break
    return Room(copies, buffers, _parts_of(found, extra))


def _least_buffers(config: TrainConfig) -> int:
    """Return the buffers with which lanes can be summed, whether or not two share one."""
    lanes = min(config.lanes, config.sequences_per_step)
    return least_buffers(tree_over(lanes, POSITIONS))


def _parts_of(regions: Sequence[Region], extra: int) -> tuple[tuple[str, int], ...]:
    """Return what takes how many bytes, what takes none left out; `extra` is a copy's."""
    sizes = {region.name: region.size_bytes for region in regions}
    parts = {name: sum(sizes.pop(one, 0) for one in ones) for name, ones in _PARTS.items()}
    parts["copy"] += extra
    parts["other"] = sum(sizes.values())
    return tuple((name, size) for name, size in parts.items() if size)


def copy_bytes(config: TrainConfig, model: ModelConfig) -> int:
    """Return the bytes of a copy of weights and moments of what is trained."""
    return 3 * _table_bytes(model, config.adapter)[1]


def _free_shared_bytes() -> int:
    """Return what shared memory still takes; where there is none, arenas are files: no limit."""
    try:
        found = os.statvfs(SHM_DIR)
    except OSError:
        return LARGEST**2
    return found.f_bavail * found.f_frsize


def least_bytes(model: ModelConfig, adapter: AdapterConfig | None = None) -> int:
    """Return the bytes of weights, and of moments and gradient of what is trained.

    Quickly, whatever the sizes are.

    >>> least_bytes(ModelConfig(65, 64, 4, 4, 128)) == 16 * parameter_table(
    ...     ModelConfig(65, 64, 4, 4, 128)).size
    True
    """
    weights, trained = _table_bytes(model, adapter)
    return weights + 3 * trained if adapter is None else weights + 4 * trained


def _table_bytes(model: ModelConfig, adapter: AdapterConfig | None) -> tuple[int, int]:
    """Return the bytes of all weights, and of what is trained: as every layer is like the next."""

    def size(layers: int) -> tuple[int, int]:
        shallow = dataclasses.replace(model, num_layers=layers)
        whole = parameter_table(shallow).size
        return whole, whole if adapter is None else adapter_table(shallow, adapter).size

    of_one, of_two = size(1), size(2)
    weights, trained = (
        4 * (one + (two - one) * (model.num_layers - 1))
        for one, two in zip(of_one, of_two, strict=True)
    )
    return weights, trained


def _largest(precision: str) -> str:
    """Return the format that takes most memory of those that a setting may mean."""
    return "bf16" if precision == "auto" else precision


def most_permits(workers: int, depth: Depth) -> int:
    """Return how many spheres may compute at a time: as many as there are cores, at most."""
    return min(usable_cores(), max(workers, POSITIONS), most_leaves(depth))


def _most_bytes(config: TrainConfig, model: ModelConfig, permits: int, precision: str) -> int:
    """Return the bytes of the arena or somewhat more, without looking at the data."""
    L, C, T = model.num_layers, model.embed_dim, model.seq_len
    lanes = min(config.lanes, config.sequences_per_step)
    rows = max(-(-config.sequences_per_step // config.lanes) * T, 4096)
    side = 4 * (L * (16 * C + 256) + (T + rows + model.vocab_size) * C)
    adapter = config.adapter
    workspace = Transformer.workspace_size(model, precision, rows, adapter) + side
    weights, trained = _table_bytes(model, adapter)
    frozen = 0 if adapter is None else weights
    packed = 4 * Transformer.packed_size(model, precision, adapter)
    return frozen + (4 + lanes) * trained + packed + permits * workspace + 2**22


def _size(regions: list[Region]) -> int:
    return Layout(regions).size_bytes


def _regions(
    config: TrainConfig,
    model: ModelConfig,
    data: PreparedData,
    spheres: tuple[int, Depth],
    permits: int,
    recompute: bool,
    sum_buffers: int | None,
) -> list[Region]:
    """Return the regions of the arena, from the tables that Node Zero makes it by."""
    from crystalline.train.program import TrainingProgram

    spec = RunSpec(
        config=config, model=model, token_path=data.token_path,
        tokenizer_path=data.tokenizer_path, run_dir=Path(), val_tokens=data.val_tokens,
        val_bytes=data.val_bytes, tokens_per_epoch=data.train_tokens, workers=spheres[0],
        depth=spheres[1], permits=permits, precision=config.precision, recompute=recompute,
        sum_buffers=sum_buffers,
    )  # fmt: skip
    program = TrainingProgram(spec)
    units = max(program.lane_count, len(program.sums.units), program.segment_count)
    rows = rows_of(*spheres)
    engine = engine_regions(units, permits, rows) + training_regions(units, rows)
    return engine + program.regions()


def _too_large(
    config: TrainConfig, model: ModelConfig, limit: MemoryLimit, wanted: str, need: Need
) -> UsageError:
    """Return the error, with the largest values that fit, each with the others as they are."""

    def fits(name: str, value: int) -> bool:
        changed = _change(config, model, name, value)
        least = least_bytes(changed[1], config.adapter)
        return least <= limit.size_bytes and need(*changed) <= limit.size_bytes

    values = {name: getattr(model if hasattr(model, name) else config, name) for name in SETTINGS}
    if config.num_heads is None or config.embed_dim is not None:
        del values["num_heads"]  # the channels can be divided as before, or are chosen to fit
    if config.init_from is not None:  # the shape is that model's
        values = {name: value for name, value in values.items() if name not in _SHAPE}
    best = {}
    for name, value in values.items():
        step = {"embed_dim": model.num_heads, "lanes": POSITIONS}.get(name, 1)
        most = bisect.bisect_left(
            range(1, value // step), True, key=lambda k: not fits(name, k * step)
        )
        if most * step >= SETTINGS[name]:
            best[name] = most * step
    named = best or [name for name in ("embed_dim", "num_layers", "seq_len") if name in values]
    sizes = [f"{_flag(name)} {values[name]}" for name in named]
    ways = [f"use {_flag(name)} {value} or less" for name, value in best.items()]
    if config.init_from is not None:
        sizes.insert(0, f"--init-from {config.init_from}")
        adapted = dataclasses.replace(config, lora_rank=min(USUAL_RANK, largest_rank(model)))
        if config.adapter is None and _can_adapt(adapted, model, need, limit):
            ways.insert(0, f"train adapters alone with --lora-rank {adapted.lora_rank}")
    if limit.raisable:
        ways.insert(0, "raise that limit")
    otherwise = "use smaller ones" if config.init_from is None else "use a smaller model"
    advice = _listed(ways or [otherwise], ", or ")
    return UsageError(
        f"training with {_listed(sizes, ' and ')} needs {wanted} of memory, and {limit.words}",
        advice=f"{advice[0].upper()}{advice[1:]}.",
    )


def _can_adapt(config: TrainConfig, model: ModelConfig, need: Need, limit: MemoryLimit) -> bool:
    """Return whether training adapters would fit, and is possible at all."""
    if config.uses_crystal or model.attention != "standard":
        return False
    return need(config, model) <= limit.size_bytes


def _change(
    config: TrainConfig, model: ModelConfig, name: str, value: int
) -> tuple[TrainConfig, ModelConfig]:
    if name == "num_heads":
        sizes = {"num_heads": value, "embed_dim": value * model.head_dim}
    elif name in ("embed_dim", "num_layers", "seq_len"):
        sizes = {name: value}
    else:
        return dataclasses.replace(config, **{name: value}), model  # type: ignore[arg-type]
    changed = dataclasses.replace(model, **sizes)  # type: ignore[arg-type]
    return dataclasses.replace(config, seq_len=changed.seq_len), changed


def _listed(words: list[str], last: str) -> str:
    """Return words as a list in a sentence.

    >>> _listed(["a"], ", or "), _listed(["a", "b", "c"], " and ")
    ('a', 'a, b and c')
    """
    *others, end = words
    return f"{', '.join(others)}{last}{end}" if others else end


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
