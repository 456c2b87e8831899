"""What `--precision auto` takes: the fastest, as measured, remembered and told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from crystalline._kernels import isa
from crystalline.model.config import ModelConfig
from crystalline.train import precision
from crystalline.train.config import TrainConfig
from crystalline.train.precision import (
    Choice,
    choose,
    label,
    measure,
    resolve_precision,
    summary,
)
from crystalline.untrusted.files import PRECISION

AUTO = TrainConfig(embed_dim=64, num_heads=4, seq_len=32)
NAMED = TrainConfig(embed_dim=64, num_heads=4, seq_len=32, precision="bf16")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[ModelConfig]:
    """The layers that were measured; bf16 is always found to be twice as fast."""
    layers: list[ModelConfig] = []

    def found(model: ModelConfig) -> dict[str, float]:
        layers.append(model)
        return {"float32": 1.0, "bf16": 2.0}

    monkeypatch.setattr(precision, "measure", found)
    return layers


@pytest.mark.parametrize(
    ("speed", "taken"), [(5.1, "bf16"), (1.2, "bf16"), (1.02, "float32"), (0.5, "float32")]
)
def test_the_fastest_is_taken(
    speed: float, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure", lambda _: {"float32": 1.0, "bf16": speed})
    assert resolve_precision(AUTO, tmp_path) == taken
    assert resolve_precision(NAMED, tmp_path) == "bf16"


def test_what_was_found_is_remembered_for_a_shape(
    measured: list[ModelConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "cache"
    first = choose(AUTO, folder)
    assert choose(AUTO, folder) == first
    assert len(measured) == 1
    choose(TrainConfig(embed_dim=32, num_heads=4, seq_len=32), folder)
    assert [model.embed_dim for model in measured] == [64, 32]
    assert choose(AUTO, folder) == first
    assert len(measured) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"x": 3}', '{"KEY": {"bf16": 9}}', '{"KEY": {"float32": 1, "bf16": "2"}}',
             '{"KEY": {"float32": 1, "bf61": 2}}', '{"KEY": {"float32": 1, "bf16": -2}}'],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_measured_again(
    text: str, measured: list[ModelConfig], tmp_path: Path
) -> None:
    (tmp_path / PRECISION.name).write_text(text.replace("KEY", precision._key(AUTO)))
    assert choose(AUTO, tmp_path).precision == "bf16"
    assert len(measured) == 1
    assert choose(AUTO, tmp_path).precision == "bf16"
    assert len(measured) == 1


def test_a_cache_that_cannot_be_written_costs_the_measurement_only(
    measured: list[ModelConfig], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert choose(AUTO, tmp_path / "file").precision == "bf16"
    assert len(measured) == 2


def test_one_that_loses_says_so_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "measure", lambda _: {"float32": 1.0, "bf16": 0.52})
    monkeypatch.setattr(logging.getLogger("crystalline"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert resolve_precision(AUTO, tmp_path) == "float32"
        assert not caplog.records
        assert resolve_precision(NAMED, tmp_path) == "bf16"
    assert f"{label('bf16')} is 0.5 times as fast as float32 on this machine" in caplog.text


def test_the_summary_tells_the_speed_where_it_is_known(
    measured: list[ModelConfig], tmp_path: Path
) -> None:
    assert summary("bf16", AUTO, tmp_path) == label("bf16")
    choose(AUTO, tmp_path)
    assert len(measured) == 1
    assert summary("float32", AUTO, tmp_path) == f"float32, 0.5 times {label('bf16')}"
    assert summary("bf16", AUTO, tmp_path) == f"{label('bf16')}, 2.0 times float32"
    assert str(Choice("float32", {"float32": 1.0})) == "float32"
    assert label("bf16") == ("bf16 tiles" if isa.level() == "amx" else "bf16")


@pytest.mark.parametrize(
    ("asked", "layer"),
    [
        ({}, (256, 4, 128)),
        ({"embed_dim": 96, "num_heads": 6, "seq_len": 1024}, (96, 6, 128)),
        ({"embed_dim": 30}, (30, 2, 128)),
        ({"num_heads": 5}, (256, 1, 128)),
        ({"embed_dim": 4096, "num_heads": 32}, (512, 4, 128)),
        ({"embed_dim": 1600, "num_heads": 25}, (512, 8, 128)),
    ],
)
def test_the_layer_that_is_tried(asked: dict[str, int], layer: tuple[int, int, int]) -> None:
    tried = precision._layer(TrainConfig(**asked))
    assert (tried.embed_dim, tried.num_heads, tried.seq_len) == layer
    assert tried.num_layers == 1


def test_a_measurement_has_every_precision_and_is_short() -> None:
    speeds = measure(ModelConfig(64, 32, num_layers=1, num_heads=2, embed_dim=64), seconds=0.02)
    assert speeds.keys() == {"float32", "bf16"}
    assert speeds["float32"] == 1.0
    assert 0.01 < speeds["bf16"] < 100
