"""Checkpoints: round trips, every kind of damage, full disks, foreign GPT-2 folders."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from crystalline.errors import CheckpointError, SaveError
from crystalline.formats import checkpoint as cp
from crystalline.formats.files import TOKENIZER_CONFIG
from crystalline.model.config import ModelConfig
from crystalline.train.config import TrainConfig
from tests.formats.checkpoints import CONFIG, STATE, TABLE, TRAIN, flats, names, save, tokenizer


def test_gives_back_what_was_saved(run: Path) -> None:
    path = run / "checkpoints" / "step-00000020"
    loaded = cp.load_checkpoint(path)
    assert loaded.step == 20
    assert loaded.model_config == CONFIG
    assert TrainConfig(**loaded.train_config) == TRAIN
    assert loaded.state == STATE
    for found, expected in zip((loaded.weights, loaded.m, loaded.v), flats(20), strict=True):
        assert found.dtype == np.float32
        assert found.tobytes() == expected.tobytes()
    assert loaded.tokenizer_path.read_bytes() == tokenizer(run).read_bytes()


@settings(max_examples=15, deadline=None)
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 6),
    layers=st.integers(1, 2),
    vocab=st.integers(1, 40),
    seq=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip_of_any_model(
    tmp_path_factory: pytest.TempPathFactory, heads, width, layers, vocab, seq, seed
) -> None:
    config = ModelConfig(vocab, seq, layers, heads, heads * width)
    weights, m, v = flats(seed, config)
    weights[0], m[0] = np.float32(-0.0), np.float32(1e-45)  # a sign and a subnormal survive
    run = tmp_path_factory.mktemp("run")
    path = save(run, seed, model_config=config, weights=weights, moments=(m, v))
    loaded = cp.load_checkpoint(path)
    assert loaded.model_config == config
    assert loaded.weights.tobytes() == weights.tobytes()
    assert loaded.m.tobytes() == m.tobytes()
    assert loaded.v.tobytes() == v.tobytes()


def test_files_are_what_other_programs_expect(run: Path) -> None:
    path = run / "latest"
    tensors = load_file(path / "model.safetensors")
    assert {name: t.shape for name, t in tensors.items()} == {
        p.name: p.shape for p in TABLE.parameters
    }
    config = json.loads((path / "config.json").read_text())
    assert config["model_type"] == "gpt2"
    assert config["architectures"] == ["GPT2LMHeadModel"]
    sizes = [config[k] for k in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")]
    assert sizes == [11, 5, 9, 2, 3]
    assert config["activation_function"] == "gelu_new"
    assert config["layer_norm_epsilon"] == 1e-5
    assert config["tie_word_embeddings"] is True
    assert config["bos_token_id"] == config["eos_token_id"] == 7
    manifest = json.loads((path / "manifest.json").read_text())
    for name in names(path):
        if name != "manifest.json":
            data = (path / name).read_bytes()
            entry = manifest["files"][name]
            assert entry["sha256"] == hashlib.sha256(data).hexdigest()
            assert entry["size_bytes"] == len(data)


def test_crystalline_attention_comes_back_and_does_not_pass_for_gpt2(tmp_path: Path) -> None:
    config = replace(CONFIG, attention="crystalline")
    weights, m, v = flats(8, config)
    path = save(tmp_path / "run", 8, model_config=config, weights=weights, moments=(m, v))
    document = json.loads((path / "config.json").read_text())
    assert document["model_type"] == "crystalline-gpt2"
    assert document["architectures"] == ["CrystallineGPT2LMHeadModel"]
    assert document["attention"] == "crystalline"
    assert load_file(path / "model.safetensors")["transformer.h.1.attn.crystal_lambda"].size == 3
    for loaded in (cp.load_checkpoint(path), cp.load_model(path)):
        assert loaded.weights.tobytes() == weights.tobytes()
    assert cp.load_model(path).config == cp.inspect_checkpoint(path).model_config == config
    (path / "manifest.json").unlink()
    for changes, words in (
        ({"model_type": "gpt2"}, "attention = crystalline"),
        ({"attention": "standard"}, "attention = standard"),
        ({"model_type": "gpt2", "attention": "standard"}, "unknown tensor"),
    ):
        (path / "config.json").write_text(json.dumps(document | changes))
        with pytest.raises(CheckpointError, match=words):
            cp.load_model(path)


def test_standard_attention_is_not_written(run: Path) -> None:
    """The files are those of versions that knew no other."""
    path = run / "latest"
    assert "attention" not in json.loads((path / "config.json").read_text())
    assert "attention" not in json.loads((path / "state.json").read_text())["model"]


@pytest.mark.parametrize(
    ("tokenizer_file", "expected"),
    [
        ({"added_tokens": []}, None),
        ({"model": {"vocab": {"a": 0, "<|endoftext|>": 3}}}, 3),
        ({"model": {"vocab": [["a", -1.0]]}}, None),
    ],
)
def test_end_of_text_id(tmp_path: Path, tokenizer_file: dict, expected: int | None) -> None:
    (tmp_path / "t.json").write_text(json.dumps(tokenizer_file))
    path = save(tmp_path / "run", 1, tokenizer_path=tmp_path / "t.json")
    assert json.loads((path / "config.json").read_text())["eos_token_id"] == expected


def test_a_plain_checkpoint_has_no_crystal(run: Path) -> None:
    path = run / "latest"
    assert names(path) == sorted([*cp.FILES, TOKENIZER_CONFIG, cp.MANIFEST])
    files = json.loads((path / cp.MANIFEST).read_text())["files"]
    assert list(files) == [*cp.FILES, TOKENIZER_CONFIG]
    assert cp.load_checkpoint(path).crystal_path is None
    assert cp.load_model(path).crystal_path is None


def test_a_crystal_goes_with_the_checkpoint(run: Path) -> None:
    text = '{"tokens": "Zürich"}\n'
    path = save(run, 30, crystal=text)
    for info in (cp.load_checkpoint(path), cp.load_model(path), cp.inspect_checkpoint(path)):
        assert info.crystal_path == path / "crystal.json"
        assert info.crystal_path.read_text("utf-8") == text
    assert names(path) == sorted([*cp.FILES, TOKENIZER_CONFIG, cp.MANIFEST, "crystal.json"])
    manifest = json.loads((path / cp.MANIFEST).read_text())["files"]
    assert manifest["crystal.json"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        ("flip", r"crystal\.json is damaged"),
        ("cut", r"crystal\.json is cut off"),
        ("gone", r"crystal\.json is missing"),
    ],
)
def test_a_damaged_crystal_is_found(run: Path, damage: str, match: str) -> None:
    path = save(run, 30, crystal="content")
    if damage == "gone":
        (path / "crystal.json").unlink()
    else:
        (path / "crystal.json").write_text("c0ntent" if damage == "flip" else "cont")
    for read in (cp.load_checkpoint, cp.load_model):
        with pytest.raises(CheckpointError, match=match):
            read(path)
    with pytest.raises(CheckpointError, match="step 20 is undamaged"):
        cp.inspect_checkpoint(path)


def test_leaves_nothing_but_checkpoints_and_the_pointer(run: Path) -> None:
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]
    assert names(run) == ["checkpoints", "latest", "some-tokenizer.json"]
    assert (run / "latest").readlink() == Path("checkpoints/step-00000020")


@pytest.mark.parametrize("name", [*cp.FILES, TOKENIZER_CONFIG, cp.MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "longer", "empty"])
def test_damage_is_found_and_named(run: Path, name: str, damage: str) -> None:
    path = run / "checkpoints" / "step-00000020"
    file = path / name
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-1:]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "longer":
        data += b"x"
    elif damage == "empty":
        data.clear()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data)
    if name == cp.MANIFEST and damage in ("cut", "flip"):
        # The manifest's last byte is a line end, and not every flip in it makes it useless.
        file.write_bytes(bytes(data).replace(b"sha256", b"sha25x").replace(b"files", b"filez"))
    with pytest.raises(CheckpointError) as caught:
        cp.load_checkpoint(path)
    assert caught.value.exit_code == 4
    assert name in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.undamaged == run / "checkpoints" / "step-00000010"
    assert f"step 10 is undamaged: {caught.value.undamaged}." in caught.value.advice


def test_the_offered_checkpoint_is_itself_undamaged(run: Path) -> None:
    save(run, 30)
    for step in (20, 30):
        (run / f"checkpoints/step-{step:08d}/optimizer.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="step 10 is undamaged"):
        cp.load_checkpoint(run / "checkpoints/step-00000030")
    (run / "checkpoints/step-00000010/state.json").unlink()
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        cp.load_checkpoint(run / "checkpoints/step-00000030")


def test_a_damaged_model_is_not_generated_from(run: Path) -> None:
    path = run / "checkpoints/step-00000020"
    data = bytearray((path / cp.MODEL).read_bytes())
    data[-3] ^= 0x40
    (path / cp.MODEL).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        cp.load_model(path)


def test_optimizer_is_not_needed_for_generating(run: Path) -> None:
    path = run / "checkpoints/step-00000020"
    (path / cp.OPTIMIZER).unlink()
    model = cp.load_model(path)
    assert model.config == CONFIG
    assert model.weights.tobytes() == flats(20)[0].tobytes()
    assert model.metadata["step"] == 20


def test_state_of_another_model_is_refused(run: Path) -> None:
    path = run / "checkpoints/step-00000020"
    other = ModelConfig(11, 5, 2, 3, 12)
    donor = save(run.parent / "donor", 20, model_config=other, **_buffers(other))
    shutil.copy(donor / cp.OPTIMIZER, path / cp.OPTIMIZER)
    with pytest.raises(CheckpointError, match=r"has shape \(11, 12\), .* asks for \(11, 9\)"):
        cp.load_checkpoint(path, verify=False)
    shutil.copy(donor / cp.CONFIG, path / cp.CONFIG)
    with pytest.raises(CheckpointError, match="another model"):
        cp.load_checkpoint(path, verify=False)


def _buffers(config: ModelConfig) -> dict:
    weights, m, v = flats(1, config)
    return {"weights": weights, "moments": (m, v)}


def test_buffers_of_the_wrong_size_are_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model needs"):
        save(tmp_path / "run", 1, weights=np.zeros(TABLE.size - 1, np.float32))
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "run", 1, state={"loss": float("nan")})


@pytest.mark.parametrize(
    "victim", ["write_model", "write_tensors", "write_manifest", "replace_directory"]
)
def test_a_full_disk_loses_nothing(run: Path, monkeypatch, victim: str) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cp, victim, full)
    with pytest.raises(SaveError, match=r"step 30 .*\(No space left on device\)") as caught:
        save(run, 30)
    assert caught.value.advice == "Free some space. The checkpoint of step 20 is intact."
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]
    assert (run / "latest").readlink().name == "step-00000020"


def test_a_write_that_the_system_refuses_is_reported(tmp_path: Path) -> None:
    """With a real limit on file size, in a process of its own."""
    import subprocess
    import sys

    program = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from crystalline.errors import SaveError
from tests.formats.checkpoints import save
run = Path({str(tmp_path / "run")!r})
save(run, 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    save(run, 2)
except SaveError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "step 2 cannot be written" in done.stdout, done.stderr
    assert "(File too large)" in done.stdout
    assert names(tmp_path / "run" / "checkpoints") == ["step-00000001"]


def test_an_unwritable_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(SaveError, match="cannot be written"):
        save(tmp_path, 1)


def test_the_same_step_is_replaced(run: Path) -> None:
    path = save(run, 20, seed=99)
    assert cp.load_checkpoint(path).weights.tobytes() == flats(99)[0].tobytes()
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]


def test_clears_up_after_a_killed_save(run: Path) -> None:
    folder = run / "checkpoints"
    (folder / ".step-00000030.77-ab.tmp").mkdir()
    (folder / ".step-00000030.77-ab.tmp" / "config.json").write_text("{")
    (folder / "step-00000020").rename(folder / ".step-00000020.77-cd.old.tmp")
    cp.tidy(run)
    assert names(folder) == ["step-00000010", "step-00000020"]
    cp.load_checkpoint(folder / "step-00000020")


def test_resolve(run: Path) -> None:
    ten, twenty = cp.list_checkpoints(run)
    assert (ten.name, twenty.name) == ("step-00000010", "step-00000020")
    assert cp.resolve(run) == twenty  # nothing evaluated yet
    cp.set_pointer(run, cp.BEST, ten)
    assert cp.resolve(run) == ten
    assert cp.resolve(run, "best") == ten
    assert cp.resolve(run, "latest") == twenty
    assert cp.resolve(run, "10") == cp.resolve(run, "step-00000010") == ten
    assert cp.resolve(ten) == ten
    assert cp.resolve(run / "latest") == twenty.resolve()
    assert names(run) == ["best", "checkpoints", "latest", "some-tokenizer.json"]


def test_resolve_without_a_usable_pointer(run: Path) -> None:
    (run / "latest").unlink()
    assert cp.resolve(run, "latest").name == "step-00000020"
    (run / "latest").symlink_to("checkpoints/step-00000099")
    assert cp.resolve(run, "latest").name == "step-00000020"
    with pytest.raises(CheckpointError, match="no checkpoint 'best'"):
        cp.resolve(run, "best")


@pytest.mark.parametrize(
    ("place", "which", "words"),
    [
        ("nowhere", None, "there is no run or checkpoint at"),
        ("run", "30", "no checkpoint '30'"),
        ("run", "step-7", "It has those of steps 10, 20"),
        ("empty", None, "holds no checkpoint"),
        ("file", None, "is a file"),
    ],
)
def test_resolve_says_what_is_wrong(run: Path, place: str, which: str | None, words: str) -> None:
    (run.parent / "empty").mkdir()
    (run.parent / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        cp.resolve(run.parent / place, which)
    assert words in str(caught.value)


def test_prune_keeps_the_newest_the_best_and_the_protected(run: Path) -> None:
    for step in (20, 30, 40, 50):
        save(run, step, best=step == 20)
    paths = {int(p.name[5:]): p for p in cp.list_checkpoints(run)}
    removed = cp.prune(run, 2, [paths[10]])
    assert removed == [paths[30]]
    assert [int(p.name[5:]) for p in cp.list_checkpoints(run)] == [10, 20, 40, 50]
    assert "step-00000030" not in "".join(names(run / "checkpoints"))


def test_prune_takes_the_old_branch_first_after_a_step_back(run: Path) -> None:
    """A run that went back to step 10 must not lose its new checkpoints to the old branch."""
    save(run, 15)
    assert [p.name for p in cp.prune(run, 2)] == ["step-00000020"]
    assert [p.name for p in cp.prune(run, 1)] == ["step-00000010"]
    assert cp.resolve(run, "latest").name == "step-00000015"


def test_hash_covers_names_and_values_but_not_the_gaps() -> None:
    weights = flats(3)[0]
    reference = hashlib.sha256()
    for p in TABLE.parameters:
        reference.update(p.name.encode() + b"\0")
        reference.update(weights[p.offset : p.offset + p.size].tobytes())
    assert cp.weights_sha256(weights, TABLE) == reference.hexdigest()
    first, second = TABLE.parameters[0], TABLE.parameters[1]
    assert first.offset + first.size < second.offset  # there is a gap to try
    weights[first.offset + first.size] = 1.0
    assert cp.weights_sha256(weights, TABLE) == reference.hexdigest()
    weights[first.offset + first.size - 1] += 1.0
    assert cp.weights_sha256(weights, TABLE) != reference.hexdigest()


def foreign(folder: Path, edit=None, **config_changes: object) -> Path:
    """A GPT-2 folder as other programs write it: no prefix, masks, a copy of the head."""
    source = save(folder / "run", 1)
    model = folder / "model"
    model.mkdir()
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(source / cp.MODEL).items()
    }
    tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 5, 5), np.float32))
    tensors["h.1.attn.masked_bias"] = np.float32([-1e4])
    tensors["lm_head.weight"] = tensors["wte.weight"]
    if edit:
        edit(tensors)
    save_file(tensors, model / cp.MODEL)
    config = json.loads((source / cp.CONFIG).read_text())
    config.update(config_changes)
    config = {key: value for key, value in config.items() if value is not ...}
    (model / cp.CONFIG).write_text(json.dumps(config))
    shutil.copy(source / cp.TOKENIZER, model / cp.TOKENIZER)
    return model


def test_reads_foreign_folders(tmp_path: Path) -> None:
    model = foreign(tmp_path, n_ctx=..., n_inner=..., initializer_range=...)
    loaded = cp.load_model(model)
    assert loaded.config == CONFIG
    assert loaded.weights.tobytes() == flats(1)[0].tobytes()
    assert loaded.metadata == {}
    assert cp.resolve(model) == model


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    def halve(tensors: dict) -> None:
        tensors["wpe.weight"] = tensors["wpe.weight"].astype(np.float16)

    view = TABLE.views(cp.load_model(foreign(tmp_path, halve)).weights)["transformer.wpe.weight"]
    expected = TABLE.views(flats(1)[0])["transformer.wpe.weight"].astype(np.float16)
    assert np.array_equal(view, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt_neo"}, "model_type = gpt_neo"),
        ({"model_type": "llama"}, "has no 'max_position_embeddings'"),
        ({"activation_function": "relu"}, "activation_function = relu"),
        ({"layer_norm_epsilon": 0}, "'layer_norm_epsilon' is 0"),
        ({"n_inner": 20}, "c_fc.bias' in "),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ({"n_head": 2}, "impossible model: --embed-dim 9 cannot be divided"),
        ({"n_embd": "9"}, "'n_embd' is '9'"),
        ({"n_layer": ...}, "has no 'n_layer'"),
        ({"resid_pdrop": "high"}, "'resid_pdrop' is 'high'"),
        ({"vocab_size": 12}, "'wte.weight'"),
        ({"n_layer": 3}, "has no tensor 'transformer.h.2."),
    ],
)
def test_refuses_what_it_would_compute_wrongly(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        cp.load_model(foreign(tmp_path, **change))
    assert words in caught.value.message


def _untie(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["wte.weight"] + 1


def _add(tensors: dict) -> None:
    tensors["h.0.attn.rotary"] = np.zeros(3, np.float32)


def _integers(tensors: dict) -> None:
    tensors["wpe.weight"] = np.zeros((5, 9), np.int32)


@pytest.mark.parametrize(
    ("edit", "words"), [(_untie, "head of its own"), (_add, "h.0.attn.rotary"), (_integers, "I32")]
)
def test_refuses_tensors_it_has_no_place_for(tmp_path: Path, edit, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        cp.load_model(foreign(tmp_path, edit))


@pytest.mark.parametrize("name", cp.MODEL_FILES)
def test_foreign_folder_with_a_file_missing_or_broken(tmp_path: Path, name: str) -> None:
    model = foreign(tmp_path)
    if name != cp.TOKENIZER:
        (model / name).write_bytes((model / name).read_bytes()[:30])
        with pytest.raises(CheckpointError, match=name):
            cp.load_model(model)
    (model / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        cp.load_model(model)
