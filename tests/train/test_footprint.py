"""What cannot fit is refused, with sizes that do fit."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from crystalline.data.prepare import prepare
from crystalline.errors import UsageError
from crystalline.machine.memory import MemoryLimit
from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train import footprint
from crystalline.train.config import TrainConfig
from tests.e2e.commands import words

CONFIG = TrainConfig(
    tokenizer="byte", num_layers=4, num_heads=2, embed_dim=128, seq_len=32, batch_size=24,
    precision="float32",
)  # fmt: skip
MODEL = ModelConfig(256, 32, 4, 2, 128)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(words(4000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLLM_CACHE", str(folder / "cache"))
        return prepare([folder / "text.txt"], kind="byte", vocab_size=256, val_fraction=0.1)


def limit_to(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    monkeypatch.setattr(footprint, "memory_limit", lambda: MemoryLimit(size_bytes, "there is less"))


def arena_bytes(config: TrainConfig, model: ModelConfig, data: Any) -> int:
    """Return the least: lanes summed in place, or not, whatever takes less."""
    permits, least = footprint.most_permits(12, "1"), footprint._least_buffers(config)
    found = (
        footprint._regions(config, model, data, (12, "1"), permits, False, buffers)
        for buffers in (None, least)
    )
    return min(map(footprint._size, found))


@pytest.mark.parametrize("attention", ["standard", "crystalline"])
@pytest.mark.parametrize("layers", [1, 2, 3, 9])
def test_the_least_is_that_of_the_table(layers: int, attention: Any) -> None:
    model = ModelConfig(65, 33, layers, 3, 12, attention=attention)
    assert footprint.least_bytes(model) == 16 * parameter_table(model).size


@pytest.mark.parametrize("layers", [1, 3, 9])
def test_adapters_add_little_to_the_least(layers: int) -> None:
    model, adapter = ModelConfig(65, 33, layers, 3, 12), AdapterConfig(2, 4.0)
    wanted = 4 * parameter_table(model).size + 16 * adapter_table(model, adapter).size
    assert footprint.least_bytes(model, adapter) == wanted


@pytest.mark.parametrize("changes", [
    {"lora_rank": 4, "init_from": "m"}, {"lora_rank": 64, "init_from": "m", "batch_size": 100},
    {"lora_rank": 4, "init_from": "m", "num_layers": 40, "embed_dim": 1024},
    {}, {"lanes": 24}, {"batch_size": 100}, {"batch_size": 5, "seq_len": 700}, {"num_layers": 30},
    {"embed_dim": 30}, {"attention": "crystalline"},
])  # fmt: skip
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_rough_figure_is_above_the_arena(
    data: Any, changes: dict[str, Any], precision: str
) -> None:
    config = dataclasses.replace(CONFIG, **changes, precision=precision)
    shape = {k: v for k, v in changes.items() if hasattr(MODEL, k)}
    model = dataclasses.replace(MODEL, **shape)
    permits = footprint.most_permits(12, "1")
    exact = footprint._size(
        footprint._regions(config, model, data, (12, "1"), permits, False, None)
    )
    rough = footprint._most_bytes(config, model, footprint.most_permits(12, "1"), precision)
    assert exact <= rough


def test_what_fits_is_let_pass(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, arena_bytes(CONFIG, MODEL, data))
    footprint.check_run(CONFIG, MODEL, data, 12)
    limit_to(monkeypatch, arena_bytes(CONFIG, MODEL, data) - 1)
    with pytest.raises(UsageError):
        footprint.check_run(CONFIG, MODEL, data, 12)


def test_what_is_proposed_fits_and_more_does_not(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = arena_bytes(CONFIG, MODEL, data) * 2 // 3
    limit_to(monkeypatch, limit)
    with pytest.raises(UsageError, match=r"needs [\d.]+ MB of memory, and there is less") as caught:
        footprint.check_run(CONFIG, MODEL, data, 12)
    found = re.findall(r"--([a-z-]+) (\d+) or less", caught.value.advice)
    assert {"embed-dim", "num-layers"} <= {name for name, _ in found}
    for flag, value in found:
        name = flag.replace("-", "_")
        assert f"--{flag} {getattr(CONFIG, name)}" in caught.value.message
        step = {"embed_dim": 2, "lanes": 12}.get(name, 1)
        for size, fits in ((int(value), True), (int(value) + step, False)):
            changed = footprint._change(CONFIG, MODEL, name, size)
            assert (arena_bytes(*changed, data) <= limit) == fits, (name, size)


def test_a_model_that_is_begun_from_keeps_its_shape_and_may_get_adapters(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(CONFIG, init_from="big")
    low = dataclasses.replace(whole, lora_rank=8)
    need = arena_bytes(low, MODEL, data)
    assert need < 0.75 * arena_bytes(whole, MODEL, data)
    limit_to(monkeypatch, need)
    footprint.check_run(low, MODEL, data, 12)
    with pytest.raises(UsageError, match=r"with --init-from big.* needs [\d.]+ MB") as caught:
        footprint.check_run(whole, MODEL, data, 12)
    assert caught.value.advice.startswith("Train adapters alone with --lora-rank 8")
    assert "--embed-dim" not in str(caught.value)
    limit_to(monkeypatch, need // 20)
    for config in (whole, low):
        with pytest.raises(UsageError, match="--init-from big") as caught:
            footprint.check_run(config, MODEL, data, 12)
        assert caught.value.advice == "Use a smaller model."


def test_a_model_alone_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_to(monkeypatch, 10**9)
    config = dataclasses.replace(CONFIG, embed_dim=40_000)
    with pytest.raises(UsageError, match=r"--embed-dim 40000 needs at least 1\.23 TB"):
        footprint.check_model(config, 12)
    heads = dataclasses.replace(CONFIG, embed_dim=None, num_heads=500_000)
    with pytest.raises(UsageError, match="--num-heads 500000 needs at least"):
        footprint.check_model(heads, 12)


def test_no_machine_has_sizes_like_these() -> None:
    for name in ("embed_dim", "num_heads", "num_layers", "seq_len", "vocab_size"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is 1099511627776"):
            footprint.check_sizes(dataclasses.replace(CONFIG, **{name: 2**40}))


def test_a_copy_for_checkpoints_is_made_where_it_fits_easily(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 bytes a parameter; what is asked for and does not fit is refused with a way on."""
    whole = arena_bytes(CONFIG, MODEL, data)
    more = footprint.copy_bytes(CONFIG, MODEL)
    assert more == 12 * parameter_table(MODEL).size
    low = dataclasses.replace(CONFIG, init_from="m", lora_rank=8)
    assert 0 < footprint.copy_bytes(low, MODEL) < more / 4
    limit_to(monkeypatch, whole + more)
    assert footprint.check_run(CONFIG, MODEL, data, 12, save_while_training="yes").copies
    assert not footprint.check_run(CONFIG, MODEL, data, 12, save_while_training="no").copies
    limit_to(monkeypatch, whole + more - 1)
    with pytest.raises(UsageError) as caught:
        footprint.check_run(CONFIG, MODEL, data, 12, save_while_training="yes")
    assert caught.value.advice == "Leave out --save-while-training yes."
    limit_to(monkeypatch, 1 << 40)
    for name in ("available_bytes", "_free_shared_bytes"):
        with pytest.MonkeyPatch.context() as patch:
            for other in ("available_bytes", "_free_shared_bytes"):
                patch.setattr(footprint, other, lambda: 1 << 40)
            assert footprint.check_run(CONFIG, MODEL, data, 12, save_while_training="auto").copies
            patch.setattr(footprint, name, lambda: whole + more)
            assert not footprint.check_run(
                CONFIG, MODEL, data, 12, save_while_training="auto"
            ).copies
            assert footprint.check_run(CONFIG, MODEL, data, 12, save_while_training="yes")


def test_a_run_keeps_to_the_most_memory_that_it_may_take(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer buffers where that helps, else not at all; the parts add up to what it takes."""
    limit_to(monkeypatch, 1 << 40)
    for name in ("available_bytes", "_free_shared_bytes"):
        monkeypatch.setattr(footprint, name, lambda: 1 << 40)
    usual = footprint.check_run(CONFIG, MODEL, data, 12)
    assert usual.sum_buffers is None
    beside = footprint.PROCESSES_BYTES + 12 * footprint.SPHERE_BYTES
    least = arena_bytes(CONFIG, MODEL, data)
    room = footprint.check_run(CONFIG, MODEL, data, 12, max_bytes=beside + least)
    assert room.sum_buffers is not None
    total = sum(size for _, size in room.parts)
    assert least - 2**16 < total <= least < sum(size for _, size in usual.parts)
    parts = dict(room.parts)
    assert parts["weights"] == 4 * parameter_table(MODEL).size
    assert parts["moments"] == 2 * parts["weights"]
    assert dict(usual.parts)["gradients"] > parts["gradients"]
    with pytest.raises(UsageError, match="--max-memory leaves") as caught:
        footprint.check_run(CONFIG, MODEL, data, 12, max_bytes=beside + least - 4096)
    assert "--num-layers" in caught.value.advice
    lean = footprint.check_run(CONFIG, MODEL, data, 12, recompute=True)
    assert dict(lean.parts)["workspaces"] < dict(usual.parts)["workspaces"]
