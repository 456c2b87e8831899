"""--max-memory, --lanes auto, and what a run says that it takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crystalline.cli.settings import environment_layer, parse_layered
from crystalline.errors import UsageError
from crystalline.machine import cores
from crystalline.runs.layers import Layers, toml_layer
from crystalline.runs.settings import RunSettings, automatic_lanes, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 g", 15 * 10**8), ("2GiB", 2**31), ("500mb", 5 * 10**8)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("--max-memory", text) == size
    assert RunSettings(max_memory=text).max_bytes == size


@pytest.mark.parametrize(
    "text", ["", "4", "GB", "4XB", "-4GB", "4GB!", "1e9", "\u0664GB", "9" * 9 + "G"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--max-memory is") as caught:
        RunSettings(max_memory=text)
    assert caught.value.advice == "It is a size with its unit, such as 4GB or 500MB."


@pytest.mark.parametrize(
    ("usable", "sequences", "lanes"),
    [(2, 60, 12), (12, 60, 12), (13, 60, 24), (64, 99, 72), (64, 59, 48), (64, 5, 12)],
)
def test_automatic_lanes(
    usable: int, sequences: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    assert automatic_lanes(sequences) == lanes
    assert RunSettings(lanes=0, batch_size=sequences).lanes == lanes


def test_auto_is_understood_at_every_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 20)

    def parsed(argv: list[str], layers: Layers) -> int:
        return parse_layered(RunSettings, argv, layers, program="p", description="d").lanes

    assert parsed(["--lanes", "auto"], Layers()) == 24
    assert parsed(["--lanes=auto"], Layers()) == 24
    assert parsed(["--lanes", "36"], Layers()) == 36
    values, _ = environment_layer(RunSettings, {"CLLM_LANES": "auto"})
    assert parsed([], Layers(values)) == 24
    (tmp_path / "s.toml").write_text('lanes = "auto"\n')
    values, _ = toml_layer(RunSettings, tmp_path / "s.toml")
    assert parsed([], Layers(values)) == 24
    with pytest.raises(UsageError, match=re.escape("--batch-size")):
        parsed(["--batch-size", "auto"], Layers())
