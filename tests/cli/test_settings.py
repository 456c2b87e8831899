"""Where settings come from: precedence, types, and errors that name their source."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from crystalline.cli.settings import environment_layer, flag_value, parse_layered
from crystalline.errors import UsageError
from crystalline.runs.layers import ALIASES, Layers, field_names, toml_layer
from crystalline.train.config import TrainConfig


@dataclass(frozen=True)
class Some:
    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]")
    ] = ()
    """Names."""
    seq_len: int = 10
    """Length."""
    rate: float = 0.5
    """Rate."""
    lowest: float | None = None
    """Lowest rate."""
    kind: Literal["cat", "dog", "eel"] = "cat"
    """Animal."""
    loud: bool = False
    """Loud."""
    place: Path = Path("here")
    """Place."""
    secret: str = "-"
    """Not for files."""

    def __post_init__(self) -> None:
        if self.seq_len < 1:
            raise UsageError(f"--seq-len is {self.seq_len}", advice="It must be at least 1.")
        if self.lowest is not None and self.lowest > self.rate:
            raise UsageError(f"--lowest is {self.lowest}", advice=f"At most {self.rate}.")


def resolve(tmp_path: Path, argv=(), environ=None, toml: str | None = None, **stored) -> Some:
    layers = Layers(dict(stored))
    if toml is not None:
        (tmp_path / "my.toml").write_text(toml)
        layers.update(*toml_layer(Some, tmp_path / "my.toml", exclude={"secret"}))
    layers.update(*environment_layer(Some, environ or {}, exclude={"secret"}, tolerate={"beam"}))
    return parse_layered(Some, list(argv), layers, program="some", description="Some.")


@pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=4)))
def test_precedence(tmp_path: Path, given: tuple[bool, ...]) -> None:
    """flag > environment > file > stored > default, in all sixteen combinations."""
    flag, environ, toml, stored = given
    found = resolve(
        tmp_path,
        ["--seq-len", "1"] if flag else [],
        {"CLLM_SEQ_LEN": "2"} if environ else {},
        "seq_len = 3" if toml else None,
        **({"seq_len": 4} if stored else {}),
    )
    wanted = next((n for n, is_given in enumerate(given, 1) if is_given), 10)
    assert found == Some(seq_len=wanted)


def test_every_type_from_a_file(tmp_path: Path) -> None:
    found = resolve(
        tmp_path,
        toml="""
        names = ["a", "b c"]
        seq-len = 7
        rate = 2
        lowest = 1.5
        kind = "eel"
        loud = true
        place = "there"
        """,
    )
    assert found == Some(("a", "b c"), 7, 2.0, 1.5, "eel", True, Path("there"))
    assert isinstance(found.rate, float)


def test_every_type_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "CLLM_SEQ_LEN": "7",
        "CLLM_RATE": "2e0",
        "CLLM_LOWEST": "1.5",
        "CLLM_KIND": "dog",
        "CLLM_LOUD": "Yes",
        "CLLM_PLACE": "there",
        "CLLM_CACHE": "/somewhere",
        "CLLM_BEAM": "a setting of another command",
        "PATH": "/bin",
    }
    expected = Some((), 7, 2.0, 1.5, "dog", True, Path("there"))
    assert resolve(tmp_path, environ=environ) == expected


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    assert resolve(tmp_path, environ={"CLLM_SEQ_LEN": ""}) == Some()


def test_flags_can_turn_off_what_a_file_turned_on(tmp_path: Path) -> None:
    assert resolve(tmp_path, ["--no-loud"], toml="loud = true") == Some()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('seq_len = "7"', ["seq_len = '7'", "a whole number"]),
        ("seq_len = 7.5", ["seq_len = 7.5", "a whole number"]),
        ("seq_len = true", ["seq_len = True", "a whole number"]),
        ('rate = "fast"', ["rate = 'fast'", "a number"]),
        ('kind = "cow"', ["kind = 'cow'", "cat, dog or eel"]),
        ("kind = 3", ["kind = 3", "cat, dog or eel"]),
        ("loud = 1", ["loud = 1", "true or false"]),
        ("place = 1", ["place = 1", "a string"]),
        ('names = "a"', ["names = 'a'", "a list of strings"]),
        ("seqlen = 1", ["'seqlen'", "Did you mean seq_len?"]),
        ("zzz = 1", ["'zzz'"]),
        ('secret = "x"', ["'secret'"]),
        ("[some]\nseq_len = 1", ["'some'"]),
    ],
)
def test_errors_in_a_file_name_file_and_key(tmp_path: Path, line: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path, toml=line)
    for word in [str(tmp_path / "my.toml"), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CLLM_SEQ_LEN", "7.5", ["CLLM_SEQ_LEN", "'7.5'", "a whole number"]),
        ("CLLM_RATE", "fast", ["CLLM_RATE", "'fast'", "a number"]),
        ("CLLM_LOUD", "maybe", ["CLLM_LOUD", "'maybe'", "1 or 0"]),
        ("CLLM_KIND", "cow", ["CLLM_KIND", "'cow'", "cat, dog or eel"]),
        ("CLLM_SEQLEN", "7", ["CLLM_SEQLEN", "Did you mean CLLM_SEQ_LEN?"]),
        ("CLLM_ZZZ", "7", ["CLLM_ZZZ"]),
        ("CLLM_SECRET", "7", ["CLLM_SECRET"]),
        ("CLLM_NAMES", "a", ["CLLM_NAMES"]),
    ],
)
def test_errors_in_a_variable_name_it(tmp_path: Path, name: str, value: str, words) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path, environ={name: value})
    for word in words:
        assert word in str(caught.value)


def test_an_impossible_value_is_traced_to_its_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--seq-len is 0.*environment variable CLLM_SEQ_LEN\."):
        resolve(tmp_path, environ={"CLLM_SEQ_LEN": "0"})
    with pytest.raises(UsageError, match=r"--seq-len is 0.*settings file .*my\.toml\."):
        resolve(tmp_path, toml="seq_len = 0")
    with pytest.raises(UsageError) as caught:  # here the flag is to blame
        resolve(tmp_path, ["--seq-len", "0"], toml="seq_len = 5")
    assert "my.toml" not in str(caught.value)


def test_values_are_checked_together_only_when_all_are_known(tmp_path: Path) -> None:
    assert resolve(tmp_path, ["--rate", "9"], toml="lowest = 3").lowest == 3
    with pytest.raises(UsageError, match=r"--lowest is 3"):
        resolve(tmp_path, toml="lowest = 3")


def test_flag_value_looks_ahead_of_the_parser() -> None:
    assert flag_value([], "--config") is None
    assert flag_value(["--config"], "--config") is None
    assert flag_value(["a", "--config", "x"], "--config") == "x"
    assert flag_value(["--check_point=x", "b"], "--check-point") == "x"
    assert flag_value(["--config="], "--config") == ""


@pytest.mark.parametrize("form", ["toml", "conf"])
def test_sections_and_the_names_that_settings_have_elsewhere(tmp_path: Path, form: str) -> None:
    names = '["a", "b c"]' if form == "toml" else "a\n  b c"
    quote = '"' if form == "toml" else ""
    file = tmp_path / f"my.{form}"
    file.write_text(
        f"loud = true\nnames = {names}\n[model]\nsequence-length = 7\n"
        f"[training]\nrate = 0.25  # a remark\n[optimizer]\nlowest = 1e-1\n"
        f"[checkpointing]\nplace = {quote}there{quote}\n"
    )
    values, sources = toml_layer(Some, file)
    assert values == {
        "loud": True, "names": ("a", "b c"), "seq_len": 7, "rate": 0.25, "lowest": 0.1,
        "place": Path("there"),
    }  # fmt: skip
    assert set(sources.values()) == {f"the settings file {file}"}


def test_every_alias_is_a_setting() -> None:
    fields = field_names(TrainConfig)
    assert set(ALIASES.values()) <= fields
    assert not {name for _, name in ALIASES if name in fields}


def test_types_belong_to_their_sections(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        '[model]\ntype = "llama"\nembedding_dim = 24\n[optimizer]\ntype = "sgd"\n'
        '[scheduler]\ntype = "none"\n[training]\nnum_epochs = 2\ngradient_clip = 0.5\n'
    )
    values, _ = toml_layer(TrainConfig, file)
    assert values == {
        "architecture": "llama", "embed_dim": 24, "optimizer": "sgd", "lr_schedule": "none",
        "epochs": 2.0, "grad_clip": 0.5,
    }  # fmt: skip
    TrainConfig(**values, num_heads=2)


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("a.toml", "seq_len = 3\n[model]\nsequence_length = 4", "gives seq_len twice"),
        ("a.toml", "[training]\ntype = 'sgd'", "an unknown key 'type'"),
        ("a.toml", "[other]\nseq_len = 3", "an unknown key 'other'"),
        ("a.toml", "[model.training]\nseq_len = 3", "an unknown key 'training'"),
        ("a.toml", "model = 3", "an unknown key 'model'"),
        ("a.conf", "seq_len = many", "has seq_len = 'many'. It must be a whole number."),
        ("a.conf", "seq_len = 3\nseq_len = 4", "'seq_len' is given twice (line 2)"),
        ("a.conf", "rate = 1\n[model]\nnonsense\n", "a line is no NAME = VALUE (line 3)"),
        ("a.conf", "  nonsense\n", "a line is no NAME = VALUE"),
        ("a.conf", "[model]\n[model]\n", "the section [model] is there twice (line 2)"),
        ("a.conf", "[other]\nseq_len = 3", "an unknown key 'other'"),
        ("a.conf", "kind = fish", "It must be cat, dog or eel."),
        ("a.INI", "loud = maybe", "It must be 1 or 0."),
        ("a.conf", "caf\xe9 = 1".encode("latin-1"), "it is not UTF-8"),
    ],
)
def test_settings_files_that_cannot_be_used(
    tmp_path: Path, name: str, text: str | bytes, wrong: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        toml_layer(Some, file)
    assert wrong in str(caught.value)
