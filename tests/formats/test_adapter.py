"""Checkpoints of adapters: what they hold, the base beside them, and models with them merged in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crystalline.errors import CheckpointError, SaveError
from crystalline.formats import checkpoint as cp
from crystalline.formats.adapter import read_adapter
from crystalline.formats.catalog import prune
from crystalline.formats.files import BASE
from crystalline.formats.rundir import RunDir
from crystalline.formats.sources import open_source
from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.formats.adapted import ADAPTER, SHAPES, learned, make_base, save
from tests.formats.checkpoints import flats, names
from tests.untrusted.world import signed

CONFIG, MODEL = "adapter_config.json", "adapter_model.safetensors"
LLAMA = SHAPES["llama"]
each_shape = pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save(tmp_path / "run", step, LLAMA)
    return tmp_path / "run"


def changed(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file of a checkpoint, and sign it."""
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))
    signed(path.parent)


def merged_by_hand(base: Path, checkpoint: Path) -> dict[str, np.ndarray]:
    """W + alpha / r · B A of every module, by the files alone, in float64."""
    about = json.loads((checkpoint / CONFIG).read_text())
    weights = {name: w.astype(np.float64) for name, w in load_file(base / cp.MODEL).items()}
    adapters = {name: w.astype(np.float64) for name, w in load_file(checkpoint / MODEL).items()}
    for name in [name for name in adapters if ".lora_A." in name]:
        a, b = adapters[name], adapters[name.replace("lora_A", "lora_B")]
        product = about["lora_alpha"] / about["r"] * (b @ a)
        module = name.removeprefix("base_model.model.").replace(".lora_A", "")
        assert module in weights
        weights[module] += product.T if about["fan_in_fan_out"] else product
    return weights


# --- what is written --------------------------------------------------------------------------


def test_older_versions_wrote_the_shape_beside_the_adapters(tmp_path: Path) -> None:
    run, config = tmp_path / "run", SHAPES["gpt2"]
    path = save(run, 10, config)
    (path / "config.json").write_bytes((run / BASE / "config.json").read_bytes())
    assert cp.inspect_checkpoint(path).model_config == config
    about = json.loads((path / "config.json").read_text()) | {"n_positions": 99}
    (path / "config.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="another model"):
        cp.inspect_checkpoint(path)


@each_shape
def test_a_checkpoint_comes_back(config: ModelConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = save(run, 10, config)
    assert names(path) == sorted([
        CONFIG, MODEL, "manifest.json", "optimizer.safetensors", "state.json",
        "tokenizer.json", "tokenizer_config.json",
    ])  # fmt: skip
    loaded = cp.load_checkpoint(path)
    for found, wanted in zip(
        (loaded.weights, loaded.m, loaded.v), learned(config, 10), strict=True
    ):
        assert found.tobytes() == wanted.tobytes()
    assert (loaded.adapter, loaded.base, loaded.model_config) == (ADAPTER, run / BASE, config)
    table = adapter_table(config, ADAPTER)
    assert loaded.trained == table
    assert cp.trained_sha256(path) == cp.weights_sha256(loaded.weights, table)
    state = json.loads((path / "state.json").read_text())
    assert state["adapter"] == {"rank": 3, "alpha": 7.5}
    manifest = json.loads((run / BASE / "manifest.json").read_text())
    assert state["base_sha256"] == manifest["files"][cp.MODEL]["sha256"]


def test_settings_are_pefts(tmp_path: Path) -> None:
    gpt2 = json.loads((save(tmp_path / "gpt2", 1, SHAPES["gpt2"]) / CONFIG).read_text())
    assert gpt2 == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(tmp_path / "gpt2" / "base"),
        "inference_mode": True,
        "r": 3,
        "lora_alpha": 7.5,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": True,
        "target_modules": ["c_attn", "c_fc", "c_proj"],
    }
    llama = json.loads((save(tmp_path / "llama", 1, LLAMA) / CONFIG).read_text())
    assert llama["fan_in_fan_out"] is False
    assert llama["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip


def test_a_whole_alpha_is_a_whole_number(tmp_path: Path) -> None:
    """As other programs expect it."""
    adapter = AdapterConfig(3, 6.0)
    weights, m, v = learned(LLAMA, 1, adapter)
    path = save(tmp_path, 1, LLAMA, adapter=adapter, weights=weights, moments=(m, v))
    assert '"lora_alpha": 6,' in (path / CONFIG).read_text()
    assert cp.load_checkpoint(path).adapter == adapter


def test_buffers_are_of_the_adapters_size(tmp_path: Path) -> None:
    make_base(tmp_path, LLAMA)
    with pytest.raises(ValueError, match="the model needs float32"):
        save(tmp_path, 1, LLAMA, weights=flats(1, LLAMA)[0])


def test_nothing_is_saved_without_the_base(run: Path) -> None:
    (run / BASE / "manifest.json").unlink()
    with pytest.raises(SaveError, match="the model that its adapters belong to, is missing"):
        save(run, 30, LLAMA)
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]


# --- models -----------------------------------------------------------------------------------


@each_shape
def test_a_model_has_its_adapters_merged_in(config: ModelConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = save(run, 10, config)
    wanted = merged_by_hand(run / BASE, path)
    for place in (run, path, run / "latest"):
        source = open_source(place)
        assert source.config == config
        table = parameter_table(config)
        found = table.file_views(source.flat())
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            np.testing.assert_allclose(found[name], tensor, rtol=1e-5, atol=1e-5, err_msg=name)
        with source.weights() as read:
            one = read(table.parameters[-1])
            assert np.array_equal(one, table.views(source.flat())[table.parameters[-1].name])
    assert cp.load_model(path).weights.tobytes() == open_source(run).flat().tobytes()
    base = open_source(run / BASE).flat()
    assert base.tobytes() == flats(99, config)[0].tobytes()
    assert np.abs(base - source.flat()).max() > 0.1


def test_a_whole_run_can_be_copied(run: Path, tmp_path: Path) -> None:
    wanted = open_source(run).flat().tobytes()
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)  # `latest` becomes a folder
    shutil.rmtree(run)
    assert open_source(copy).flat().tobytes() == wanted
    assert open_source(copy / "latest").flat().tobytes() == wanted
    assert cp.inspect_checkpoint(copy / "checkpoints" / "step-00000020").base == copy / BASE
    alone = tmp_path / "alone"  # a checkpoint with its base beside it
    shutil.copytree(copy / "checkpoints" / "step-00000020", alone / "step")
    shutil.copytree(copy / BASE, alone / BASE)
    assert open_source(alone / "step").flat().tobytes() == wanted


def test_a_checkpoint_on_another_disk_finds_the_base_of_its_run(run: Path, tmp_path: Path) -> None:
    step = run / "checkpoints" / "step-00000010"
    wanted = open_source(step).flat().tobytes()
    step.rename(tmp_path / "disk")
    step.symlink_to(tmp_path / "disk")
    assert open_source(step).flat().tobytes() == wanted
    assert open_source(run, "step-00000010").flat().tobytes() == wanted


def test_pruning_leaves_the_base(run: Path) -> None:
    prune(run, keep=1)
    assert names(run / "checkpoints") == ["step-00000020"]
    open_source(run)


# --- the base ---------------------------------------------------------------------------------


def test_adapters_without_their_base_are_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run / "checkpoints" / "step-00000020", copy)
    for act in (open_source, cp.load_checkpoint, cp.load_model):
        with pytest.raises(CheckpointError, match="belong to is missing") as caught:
            act(copy)
        assert str(copy) in str(caught.value)
        assert caught.value.advice == (
            "Name the run that trained them, or copy its folder base beside them."
        )
    shutil.rmtree(run / BASE)
    with pytest.raises(CheckpointError, match=re.escape(f"is missing ({run / BASE})")):
        open_source(run)


def test_adapters_without_a_model_are_refused(run: Path, tmp_path: Path) -> None:
    """As PEFT saves them, without config.json."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (CONFIG, MODEL):
        shutil.copy(run / "checkpoints" / "step-00000020" / name, copy)
    with pytest.raises(CheckpointError, match="holds adapters, and the model") as caught:
        open_source(copy)
    assert "merge_and_unload" in caught.value.advice


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_base_is_found(run: Path, name: str, harm: str) -> None:
    path = run / BASE / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if harm == "cut":
        path.write_bytes(data[:-1])
    elif harm == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    for act in (open_source, lambda run: cp.inspect_checkpoint(run / "latest")):
        with pytest.raises(CheckpointError, match=f"is damaged: .*/base/{name} is ") as caught:
            act(run)
        assert caught.value.advice == "Copy the folder base again from where it is whole."
        assert caught.value.undamaged is None  # another checkpoint has the same base


def test_a_base_without_its_manifest_is_not_believed(run: Path) -> None:
    (run / BASE / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"is damaged: .*manifest\.json cannot be read"):
        open_source(run)


def test_another_base_is_refused(run: Path) -> None:
    shutil.rmtree(run / BASE)
    make_base(run, LLAMA, seed=98)  # of the same shape
    for act in (open_source, lambda run: cp.load_checkpoint(run / "latest")):
        with pytest.raises(CheckpointError, match="is another model than the one") as caught:
            act(run)
        assert caught.value.advice == "Copy the folder base of their own run to its place."
    shutil.rmtree(run / BASE)
    make_base(run, SHAPES["gpt2"])
    with pytest.raises(CheckpointError, match="is another model than the one"):
        open_source(run)


def test_the_base_is_kept_whole_with_its_positions_cut(tmp_path: Path) -> None:
    config = SHAPES["gpt2"]
    source = open_source(make_base(tmp_path / "other", config))
    short = ModelConfig(11, 4, 2, 3, 12)
    told: list[tuple[int, int]] = []
    base = source.keep_base(tmp_path, short, lambda done, total: told.append((done, total)))
    kept = open_source(base)
    assert kept.config == short
    wanted, found = (parameter_table(one.config).views(one.flat()) for one in (source, kept))
    for name, tensor in found.items():
        rows = slice(4) if name == "transformer.wpe.weight" else slice(None)
        assert np.array_equal(tensor, wanted[name][rows]), name
    assert told[-1][0] == told[-1][1] == parameter_table(short).count
    assert names(tmp_path) == ["base", "other"]  # and nothing half-written
    with pytest.raises(SaveError, match="is there already"):
        source.keep_base(tmp_path, short)
    with pytest.raises(CheckpointError, match="holds another model than it did before"):
        source.keep_base(tmp_path / "new", ModelConfig(11, 4, 2, 3, 9))


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CONFIG, MODEL, "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_found_and_another_named(run: Path, name: str) -> None:
    path = run / "checkpoints" / "step-00000020" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"damaged: {name} is cut off") as caught:
        cp.load_checkpoint(path.parent)
    assert caught.value.undamaged == run / "checkpoints" / "step-00000010"


def test_copies_of_a_must_be_equal(run: Path) -> None:
    path = run / "checkpoints" / "step-00000020" / MODEL
    tensors = load_file(path)
    name = "base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight"
    tensors[name][2, 3] += 1
    save_file(tensors, path)
    signed(path.parent)
    with pytest.raises(CheckpointError, match=r"q_proj.*and '.*k_proj.*differ, and must be one"):
        cp.load_checkpoint(path.parent)
    with pytest.raises(CheckpointError, match="differ, and must be one"):
        open_source(run).flat()


def _drop(tensors: dict[str, np.ndarray]) -> None:
    tensors.popitem()


def _add(tensors: dict[str, np.ndarray]) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = np.zeros(3, np.float32)


def _turn(tensors: dict[str, np.ndarray]) -> None:
    name = next(iter(tensors))
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def _spoil(tensors: dict[str, np.ndarray]) -> None:
    next(iter(tensors.values()))[0, 0] = np.nan


def _integers(tensors: dict[str, np.ndarray]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(np.int32)


def _overflow(tensors: dict[str, np.ndarray]) -> None:
    for tensor in tensors.values():
        tensor[...] = 3e38


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_drop, "has no tensor 'base_model"),
        (_add, "holds an unknown tensor 'base_model.model.lm_head.lora_A.weight'"),
        (_turn, r"has shape .* adapter_config\.json asks for"),
        (_spoil, "is not finite"),
        (_integers, "is of type I32"),
        (_overflow, "makes weights that are not finite"),
        (dict.clear, "too few for the .* parameters that adapter_config.json describes"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    run: Path, edit: Callable[[dict[str, np.ndarray]], object], words: str
) -> None:
    path = run / "checkpoints" / "step-00000020" / MODEL
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    signed(path.parent)
    with pytest.raises(CheckpointError, match=words):
        open_source(run).flat()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("r", 4, "describes other adapters than state.json"),
        ("lora_alpha", 8, "describes other adapters than state.json"),
        ("r", 17, "of rank 17, and the smallest side of the model's matrices is 16"),
        ("r", 0, "'r' is 0, it must be"),
        ("lora_alpha", -1, "'lora_alpha' is -1, it must be"),
        ("peft_type", "LOHA", "'peft_type' 'LOHA', adapters that are not computed here"),
        ("bias", "all", "'bias' 'all', adapters that"),
        ("use_rslora", True, "'use_rslora' True, adapters that"),
        ("use_dora", True, "'use_dora' True, adapters that"),
        ("rank_pattern", {"q_proj": 2}, "'rank_pattern' .*, adapters that"),
        ("modules_to_save", ["lm_head"], "'modules_to_save' .*, adapters that"),
        ("fan_in_fan_out", True, "'fan_in_fan_out' True, adapters that"),
        (
            "target_modules",
            ["q_proj"],
            "has adapters of q_proj; those of this model are of down_pr",
        ),
        ("target_modules", "all-linear", "'target_modules' is 'all-linear', it must be a list"),
    ],
)
def test_settings_of_other_adapters_are_refused(
    run: Path, key: str, value: object, words: str
) -> None:
    path = run / "checkpoints" / "step-00000020" / CONFIG
    changed(path, lambda document: document.update({key: value}))
    for act in (open_source, lambda run: cp.load_checkpoint(run / "latest")):
        with pytest.raises(CheckpointError, match=words):
            act(run)


def test_settings_that_peft_adds_are_none(run: Path) -> None:
    """PEFT saves every field that it has, most of them off."""
    path = run / "checkpoints" / "step-00000020" / CONFIG
    off = {"rank_pattern": {}, "use_dora": False, "modules_to_save": None, "peft_version": "0.18.0"}
    changed(path, lambda document: document.update(off))
    open_source(run)


def test_adapters_that_only_the_state_tells_of_are_damage(run: Path) -> None:
    path = run / "checkpoints" / "step-00000020"
    weights = flats(1, LLAMA)
    save(run, 20, LLAMA, weights=weights[0], moments=tuple(weights[1:]), adapter=None)
    changed(path / "state.json", lambda document: document.update(adapter=ADAPTER.to_dict()))
    with pytest.raises(CheckpointError, match=r"tells of adapters, and adapter_config\.json is"):
        cp.inspect_checkpoint(path)


def test_memory_is_not_taken_for_what_the_file_cannot_hold(run: Path, monkeypatch) -> None:
    monkeypatch.setattr("crystalline.formats.adapter.np.zeros", None)
    with pytest.raises(CheckpointError, match="too few for the"):
        read_adapter(run / "checkpoints" / "step-00000020", LLAMA, AdapterConfig(10**9, 1.0))


# --- the run's directory ----------------------------------------------------------------------


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunDir.create(run) as held:
        make_base(run, LLAMA)
        (run / "some-tokenizer.json").unlink()
        held.write_config({"seed": 1})
    (run / ".base.999999-0123456789ab.tmp").mkdir()  # killed as it was written
    with RunDir.create(run) as held:
        held.discard_unused()
        assert names(run / BASE)  # still the other's
        held.clear()
        assert names(run) == ["run.lock"]


def test_a_run_that_was_never_used_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunDir.create(run) as held:
        make_base(run, LLAMA)
        (run / "some-tokenizer.json").unlink()
        held.discard_unused()
    assert not run.exists()


def test_a_folder_of_others_named_base_is_no_leftover(tmp_path: Path) -> None:
    from crystalline.errors import UsageError

    run = tmp_path / "run"
    with RunDir.create(run) as held:
        held.write_config({"seed": 1})
    (run / BASE).mkdir()
    (run / BASE / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty"):
        RunDir.create(run)
    assert (run / BASE / "thesis.txt").exists()
