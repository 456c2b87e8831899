"""Values of settings by their fields' types: out of files, and out of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from crystalline.errors import UsageError
from crystalline.runs.layers import Layers, checked_values, field_names, flag_of, toml_layer
from crystalline.untrusted import BadContent


@dataclass(frozen=True)
class Some:
    names: tuple[str, ...] = ()
    seq_len: int = 10
    lowest: float | None = None


def test_field_names() -> None:
    assert field_names(Some) == {"names", "seq_len", "lowest"}
    assert sorted(map(flag_of, field_names(Some))) == ["--lowest", "--names", "--seq-len"]


def test_settings_of_others_are_left_alone_where_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("seq-len = 3\nplain = true\n")
    assert toml_layer(Some, path, tolerate={"plain"})[0] == {"seq_len": 3}
    with pytest.raises(UsageError, match="unknown key 'plain'"):
        toml_layer(Some, path)


def test_a_number_of_hundreds_of_digits_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(f"lowest = {10**400}\n")
    with pytest.raises(UsageError, match=r"has lowest = 1000.*It must be a number"):
        toml_layer(Some, path)


def test_a_later_layer_wins_and_is_named() -> None:
    layers = Layers({"seq_len": 1, "lowest": 2.0})
    layers.update({"seq_len": 3}, {"seq_len": "a file"})
    assert layers.values == {"seq_len": 3, "lowest": 2.0}
    assert layers.sources == {"seq_len": "a file"}


@pytest.mark.parametrize("value", ["3", 3.5, True, None])
def test_a_stored_value_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(BadContent, match="'seq_len' is"):
        checked_values(Some, {"seq_len": value})
