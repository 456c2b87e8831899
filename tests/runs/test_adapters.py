"""Runs that train adapters: what may be asked for, what is kept of the model, what goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import crystalline as cl
from crystalline.cli import train as cli
from crystalline.data.finding import find
from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.formats.checkpoint import load_checkpoint, trained_sha256
from crystalline.formats.manifest import verify
from crystalline.formats.rundir import read_toml
from crystalline.formats.sources import open_source
from crystalline.model.adapters import AdapterConfig
from crystalline.runs.foundation import Foundation
from crystalline.runs.settings import RunSettings
from crystalline.train.config import TrainConfig
from tests.runs.test_foundation import QUICK, TEMPLATE, model_folder
from tests.surroundings import TEXT


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_rank": -1}, "--lora-rank is -1"),
        ({"lora_alpha": 8.0}, "--lora-alpha 8 weighs adapters, and --lora-rank 0 has none"),
        ({"lora_rank": 8}, "--lora-rank 8 trains adapters of a model, and none is named"),
        ({"lora_rank": 8, "init_from": ""}, "--init-from names no model"),
        ({"lora_rank": 8, "init_from": "m", "lora_alpha": 0.0}, "--lora-alpha is 0"),
        ({"lora_rank": 8, "init_from": "m", "lora_alpha": 1e10}, "--lora-alpha is 1e+10"),
        ({"lora_rank": 8, "init_from": "m", "lora_alpha": float("inf")}, "--lora-alpha is inf"),
        ({"lora_rank": 8, "init_from": "m", "init": "lattice"}, "--init lattice would take"),
        (
            {"lora_rank": 8, "init_from": "m", "crystalline_epsilon": 0.1},
            "--crystalline-epsilon 0.1 teaches all weights of a model, and --lora-rank 8",
        ),
        (
            {"lora_rank": 8, "init_from": "m", "attention": "crystalline"},
            "--attention crystalline teaches all weights of a model",
        ),
        (
            {"lora_rank": 8, "init_from": "m", "discovery_interval": 2},
            "--discovery-interval 2 would change nothing",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**settings)
    assert words in str(caught.value)
    assert caught.value.advice


def test_what_the_settings_ask_for() -> None:
    assert TrainConfig().adapter is None
    assert TrainConfig(init_from="m", lora_rank=8).adapter == AdapterConfig(8, 16.0)
    assert TrainConfig(init_from="m", lora_rank=8, lora_alpha=3).adapter == AdapterConfig(8, 3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_a_rank_above_a_side_of_the_matrices_is_refused(architecture: str, tmp_path: Path) -> None:
    found = Foundation.open(str(model_folder(tmp_path / "model", architecture)))
    settled = found.settle(RunSettings(init_from="model", lora_rank=32), {"lora_rank"})
    assert (settled.lora_rank, settled.lora_alpha) == (32, 64.0)  # in so many words from here on
    with pytest.raises(UsageError, match="--lora-rank 33 is above the smallest side") as caught:
        found.settle(RunSettings(init_from="model", lora_rank=33), {"lora_rank"})
    assert caught.value.advice == "Use at most 32; 8 to 64 are usual."


def test_a_model_with_crystalline_attention_takes_no_adapters(tmp_path: Path) -> None:
    found = Foundation.open(str(model_folder(tmp_path / "model")))
    found.source.config = dataclasses.replace(found.source.config, attention="crystalline")
    with pytest.raises(UsageError, match="has crystalline attention, whose λ adapters do not"):
        found.settle(RunSettings(init_from="model", lora_rank=2), {"lora_rank"})


# --- whole runs -------------------------------------------------------------------------------

SETTINGS = {**QUICK, "lora_rank": 3, "max_steps": 3, "learning_rate": 1e-2, "warmup_steps": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained adapters of a llama; the model is gone since."""
    folder = tmp_path_factory.mktemp("made")
    text = folder / "text.txt"
    text.write_text(TEXT)
    source = model_folder(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLLM_CACHE", str(folder / "cache"))
        run = cl.train(text, init_from=source, **SETTINGS, checkpoint_dir=folder / "run")
    assert run.result is not None
    assert cl.Run(run.path).weights_sha256 == run.result.weights_sha256
    shutil.rmtree(source)
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(made, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_the_run_keeps_its_model_whole(made: Path) -> None:
    again = model_folder(made.parent / "again")
    assert open_source(made / "base").flat().tobytes() == open_source(again).flat().tobytes()
    assert open_source(made / "base").facts.chat_template == TEMPLATE
    assert open_source(made).facts.chat_template == TEMPLATE
    assert verify(made / "base", to_go_on=False) is None
    assert not np.array_equal(open_source(made).flat(), open_source(again).flat())
    settings = read_toml(made / "config.toml")
    assert (settings["lora_rank"], settings["lora_alpha"]) == (3, 6.0)
    loaded = load_checkpoint(made / "latest")
    assert loaded.adapter == AdapterConfig(3, 6.0)
    assert loaded.train_config["lora_alpha"] == 6.0


def test_the_head_of_the_settings_tells_what_is_trained(made: Path) -> None:
    lines = (made / "config.toml").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("# adapters")]
    assert "rank 3, alpha 6: 3,072 of 52K parameters are trained" in line, line


def test_positions_are_cut_in_the_base(tmp_path: Path, text: Path) -> None:
    source = model_folder(tmp_path / "model", "gpt2")
    run = cl.train(text, init_from=source, seq_len=7, **SETTINGS, checkpoint_dir=tmp_path / "run")
    assert open_source(run.path / "base").config.seq_len == 7
    assert open_source(run.path).config.seq_len == 7
    assert cl.load(run).generate("a", max_tokens=3, seed=1) is not None


def test_a_run_goes_on_without_the_model_it_began_from(run: Path, text: Path) -> None:
    resumed = cl.resume(run, data=text, max_steps=6)
    assert resumed.step == 6
    source = model_folder(run.parent / "model")
    whole = cl.train(
        text, init_from=source, **{**SETTINGS, "max_steps": 3}, checkpoint_dir=run.parent / "other"
    )
    whole = cl.resume(whole, max_steps=6)
    assert whole.weights_sha256 == resumed.weights_sha256 == trained_sha256(run / "latest")


def test_adapters_are_settled_for_the_life_of_a_run(run: Path, text: Path) -> None:
    for name, value, before in (("lora_rank", 4, "3"), ("lora_alpha", 9.0, "6")):
        with pytest.raises(UsageError, match=f"{name} {value:g}.* differs from the {before}"):
            cl.resume(run, data=text, max_steps=6, **{name: value})
    again = cl.resume(run, data=text, max_steps=4, lora_rank=3, lora_alpha=6)  # as they are
    assert again.step == 4


def test_a_run_without_its_base_does_not_go_on(run: Path, text: Path) -> None:
    (run / "base").rename(run.parent / "moved")
    with pytest.raises(CheckpointError, match="belong to is missing"):
        cl.resume(run, data=text, max_steps=6)
    other = model_folder(run.parent / "model")
    open_source(other).keep_base(run, open_source(run.parent / "moved").config)  # the same bits
    path = run / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(CheckpointError, match=r"is damaged: .*base/model\.safetensors is damaged"):
        cl.resume(run, data=text, max_steps=6)


def test_settings_that_deny_the_adapters_are_damage(run: Path, text: Path) -> None:
    from tests.untrusted.world import signed

    state = run / "checkpoints" / "step-00000003" / "state.json"
    document = json.loads(state.read_text())
    document["train"] |= {"lora_rank": 0, "lora_alpha": None}
    state.write_text(json.dumps(document))
    signed(state.parent)
    with pytest.raises(CheckpointError, match="ask for no adapters, it has adapters of rank 3"):
        cl.resume(run, data=text, max_steps=6)


def test_the_model_goes_out_merged(run: Path, tmp_path: Path) -> None:
    wanted = open_source(run).flat()
    for name in ("out.gguf", "folder"):
        exported = cl.load(run).export(tmp_path / name)
        assert open_source(exported.path).flat().tobytes() == wanted.tobytes()


def test_another_run_begins_from_the_sum(run: Path, tmp_path: Path, text: Path) -> None:
    wanted = open_source(run).flat().tobytes()
    still = {**SETTINGS, "max_steps": 1, "learning_rate": 1e-30}
    second = cl.train(text, init_from=run, **still, checkpoint_dir=tmp_path / "second")
    assert open_source(second.path / "base").flat().tobytes() == wanted
    whole = cl.train(
        text, init_from=run, **{**still, "lora_rank": 0}, checkpoint_dir=tmp_path / "third"
    )
    assert not (whole.path / "base").exists()
    assert open_source(whole.path).flat().tobytes() == wanted


def test_neither_the_run_nor_its_base_is_text(run: Path) -> None:
    for place, kind in ((run, "run directory"), (run / "base", "model folder"),
                        (run / "checkpoints" / "step-00000003", "model folder")):  # fmt: skip
        with pytest.raises(DataError, match=f"is a {kind}"):
            find([place])
    for name in ("run.lock", "checkpoints", "latest", "best", "metrics.jsonl", "tokenizer.json"):
        place = run / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    with pytest.raises(DataError, match="is a run directory"):  # by its settings, all else ours
        find([run])
    shutil.rmtree(run / "base")
    (run / "base").mkdir()
    (run / "base" / "story.txt").write_text("once upon a time")
    assert [source.path.name for source in find([run]).sources]


def test_what_never_began_leaves_nothing(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model_folder(tmp_path / "model")

    def describe(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("crystalline.runs.begin.describe", describe)
    with pytest.raises(KeyboardInterrupt):
        cl.train(text, init_from=source, **SETTINGS, checkpoint_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_folder(tmp_path / "model")
    words = {
        ("--lora-rank", "8"): "--lora-rank 8 trains adapters of a model, and none is named. Add",
        ("--lora-alpha", "8"): "--lora-alpha 8 weighs adapters, and --lora-rank 0 has none",
        ("--init-from", str(model), "--lora-rank", "33"): "Use at most 32; 8 to 64 are usual.",
        ("--init-from", str(model), "--lora-rank", "x"): "--lora-rank",
        ("--init-from", str(model), "--lora-rank", "2", "--attention", "crystalline"): "Leave one",
    }
    for flags, message in words.items():
        assert cli.main([str(text), *flags, "--plain"]) == 2
        found = capsys.readouterr().err
        assert message in found, found
        assert "Traceback" not in found
