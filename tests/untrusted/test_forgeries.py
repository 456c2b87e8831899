"""What a forger who can compute checksums would try: nothing is believed or touched outside.

`test_files` makes every variant of every file; here are the ones that mean something.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.cli import train as cli
from crystalline.errors import CheckpointError
from crystalline.formats.checkpoint import inspect_checkpoint
from crystalline.runs.stored import stored_config
from crystalline.train.config import TrainConfig
from crystalline.train.metrics import read_metrics
from crystalline.untrusted.files import PROGRESS
from tests.untrusted.hostile import ESCAPES, WRONG, listing, remove
from tests.untrusted.test_files import generate, look_up_tokens, origin, prepare_text, resume, world
from tests.untrusted.world import (
    Origin,
    outcome,
    parts_of,
    raw_token_file,
    safetensors,
    signed,
    token_file,
)

assert origin is not world  # fixtures


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file of a checkpoint, and sign it."""
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))
    signed(path.parent)


# --- state.json -----------------------------------------------------------------------------------


def fits(hint: Any, value: Any) -> bool:
    """Whether a value may be a setting of a type, by the type alone (an oracle of its own)."""
    options = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            found = value in typing.get_args(option) if isinstance(value, str) else False
        elif option is float:
            found = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif option is int:
            found = isinstance(value, int) and not isinstance(value, bool)
        else:
            found = isinstance(value, option)
        if found:
            return True
    return False


SETTINGS = typing.get_type_hints(TrainConfig)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stored_setting_of_another_type_is_refused(world: Origin, name: str) -> None:
    info = inspect_checkpoint(world.checkpoint)
    for label, wrong in WRONG.items():
        if fits(SETTINGS[name], wrong):
            continue
        forged = dataclasses.replace(info, train_config=info.train_config | {name: wrong})
        with pytest.raises(CheckpointError, match=f"'{name}' is ") as caught:
            stored_config(forged)
        assert len(str(caught.value)) < 1000, label
    change(world.checkpoint / "state.json", lambda d: d["train"].update({name: ESCAPES}))
    if not fits(SETTINGS[name], ESCAPES):
        assert f"'{name}' is " in outcome(name, lambda: resume(world))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embed_dim", 24),
        ("num_layers", 7),
        ("num_heads", 3),
        ("seq_len", 64),
        ("dropout", 0.5),
        ("attention", "standard"),
        ("learning_rate", -1.0),
        ("lanes", 13),
        ("batch_size", 10**12),
        ("max_steps", None),
        ("plan", "nonsense"),
        ("plan", "0:4,9:2"),
        ("plan", "é" * 100_000),
        ("seed", 2**70),
        ("beta1", 1.5),
        ("keep", 0),
    ],
)
def test_a_stored_setting_that_cannot_be_is_refused(world: Origin, name: str, value: Any) -> None:
    change(world.checkpoint / "state.json", lambda d: d["train"].update({name: value}))
    words = outcome(name, lambda: resume(world))
    assert "state.json cannot be used: " in words
    assert "The checkpoint of step 2 is undamaged" in words


@pytest.mark.parametrize("name", PROGRESS.fields)
def test_progress_of_another_type_or_range_is_refused(world: Origin, name: str) -> None:
    info = inspect_checkpoint(world.checkpoint)
    field = PROGRESS.fields[name]
    for label, wrong in WRONG.items():
        if field.problem(wrong) is None:
            continue
        with pytest.raises(CheckpointError) as caught:
            stored_config(dataclasses.replace(info, state=info.state | {name: wrong}))
        assert len(str(caught.value)) < 1000, label
    if not field.optional:
        state = {key: value for key, value in info.state.items() if key != name}
        with pytest.raises(CheckpointError, match=f"no '{name}'"):
            stored_config(dataclasses.replace(info, state=state))


@pytest.mark.parametrize(
    "edit",
    [
        {"step": 3},
        {"step": -4},
        {"evaluated_step": 5},
        {"dropped_steps": 5},
        {"recently_dropped": [5]},
        {"recently_dropped": [0]},
        {"recently_dropped": [3, 2]},
        {"recently_dropped": [2, 2]},
    ],
    ids=str,
)
def test_steps_that_contradict_each_other_are_refused(world: Origin, edit: Any) -> None:
    change(world.checkpoint / "state.json", lambda d: d["state"].update(edit))
    assert outcome(str(edit), lambda: resume(world))


def test_node_zero_takes_no_such_progress_either(
    world: Origin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkpoint may have come into its place since the command looked at it."""
    change(world.checkpoint / "state.json", lambda d: d["state"].update({"evaluated_step": 99}))
    monkeypatch.setattr("crystalline.runs.stored.checked_progress", lambda state: state)
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 4
    _, err = capsys.readouterr()
    assert "'evaluated_step' is 99, of a run of 4 steps" in err
    assert len(err.splitlines()) == 1


# --- tensors --------------------------------------------------------------------------------------


def read_safetensors(path: Path) -> tuple[dict[str, Any], bytearray]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("file", ["model", "optimizer"])
def test_numbers_that_are_none_are_refused(world: Origin, file: str, value: float) -> None:
    path = world.checkpoint / f"{file}.safetensors"
    header, body = read_safetensors(path)
    body[-4:] = np.float32(value).tobytes()
    path.write_bytes(safetensors(header, bytes(body)))
    signed(world.checkpoint)
    assert "is not finite" in outcome(file, lambda: resume(world))


def tensor_cases() -> Iterator[tuple[str, Callable[[dict[str, Any], bytes], bytes]]]:
    name = "transformer.ln_f.bias"

    def with_entry(**changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
        return lambda header, body: safetensors(header | {name: header[name] | changes}, body)

    yield "dtype", with_entry(dtype="I32")
    yield "odd dtype", with_entry(dtype="F8_E5M2")
    yield "no dtype", with_entry(dtype=ESCAPES)
    yield "number as dtype", with_entry(dtype=5)
    yield "shape", with_entry(shape=[3, 4])
    yield "huge shape", with_entry(shape=[2**40, 2**40])
    yield "negative shape", with_entry(shape=[-12])
    yield "no shape", with_entry(shape=None)
    yield "overlap", with_entry(data_offsets=[0, 48])
    yield "beyond", with_entry(data_offsets=[10**15, 10**15 + 48])
    yield "backwards", with_entry(data_offsets=[48, 0])
    yield "2^64", with_entry(data_offsets=[2**64, 2**64 + 48])
    yield "escapes", lambda header, body: safetensors(header | {ESCAPES: header[name]}, body)
    yield (
        "name of 30 MB",
        lambda header, body: safetensors({"\x1b" + "x" * 30_000_000: header[name]}, body),
    )
    yield "metadata", lambda header, body: safetensors(header | {"__metadata__": {"a": 5}}, body)
    yield "deep", lambda _, body: safetensors(b"[" * 100_000, body)
    yield "list", lambda _, body: safetensors(b"[]", body)
    yield "no header", lambda _, body: safetensors(b"", body)
    yield "long header", lambda header, body: safetensors(header, body, length=2**63)
    yield "header of 1 TB", lambda header, body: safetensors(header, body, length=2**40)
    yield "less data", lambda header, body: safetensors(header, body[:-4])
    yield "more data", lambda header, body: safetensors(header, body + b"1234")


TENSORS = dict(tensor_cases())


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused(world: Origin, case: str) -> None:
    path = world.checkpoint / "model.safetensors"
    path.write_bytes(TENSORS[case](*read_safetensors(path)))
    signed(world.checkpoint)
    words = outcome(case, lambda: generate(world))
    assert words or case == "metadata"
    assert "\x1b" not in words


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_layer", 10**6), ("n_layer", 1024), ("n_embd", 2**18), ("n_positions", 2**22),
     ("vocab_size", 2**24), ("vocab_size", 61), ("n_head", 5)],
)  # fmt: skip
def test_a_model_larger_than_its_file_takes_no_memory(world: Origin, key: str, value: int) -> None:
    change(world.checkpoint / "config.json", lambda d: d.update({key: value}))
    assert outcome(key, lambda: generate(world))
    assert outcome(key, lambda: resume(world))


# --- the cache ------------------------------------------------------------------------------------


def tokens_of(world: Origin) -> bytes:
    return (world.entry / "tokens.bin").read_bytes()


# A folder that is named by itself is whoever's it is.
BELIEVED_ALONE = ("another entry", "no entry")


def headers() -> dict[str, Callable[[dict[str, Any], bytes], bytes]]:
    def edit(**changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
        return lambda header, body: token_file(header | changes, body)

    beyond = np.full(1, 65535, "<u2").tobytes()
    return {
        "an id beyond the vocabulary": lambda header, body: token_file(header, body[:-2] + beyond),
        "another dtype": edit(dtype="uint32"),
        "float": edit(dtype="float64"),
        "vocab_size 1": edit(vocab_size=1),
        "vocab_size of wide tokens": edit(vocab_size=10**6),
        "negative": edit(train_tokens=-5),
        "more tokens": edit(train_tokens=10**12),
        "another split": edit(train_tokens=1),
        "another entry": edit(entry="0" * 32),
        "no entry": edit(entry=""),
        "path as entry": edit(entry="../" * 10),
        "another tokenizer": edit(tokenizer_sha256="0" * 64),
        "another version": lambda header, body: token_file(header, body, version=9),
        "deep": lambda _, body: raw_token_file(b"[" * 900, body),
        "list": lambda _, body: raw_token_file(b"[]", body),
        "long": lambda _, body: raw_token_file(b"{" + b" " * 2000 + b"}", body),
    }


@pytest.mark.parametrize("case", headers())
def test_a_forged_token_file_is_made_again(world: Origin, case: str) -> None:
    whole = tokens_of(world)
    path = world.entry / "tokens.bin"
    path.write_bytes(headers()[case](*parts_of(whole)))
    words = outcome(case, lambda: look_up_tokens(world))
    assert words or case in BELIEVED_ALONE
    assert outcome(case, lambda: prepare_text(world)) == ""
    assert parts_of(tokens_of(world)) == parts_of(whole)


def test_tokens_of_another_tokenizer_are_not_counted(world: Origin) -> None:
    path = world.entry / "tokenizer.json"
    document = json.loads(path.read_bytes())
    document["model"]["vocab"]["another word"] = len(document["model"]["vocab"]) + 40
    path.write_text(json.dumps(document))
    assert "is not the tokenizer" in outcome("more", lambda: look_up_tokens(world))
    assert outcome("more", lambda: prepare_text(world)) == ""


def test_an_entry_of_another_corpus_is_not_taken(world: Origin) -> None:
    from crystalline.data.prepare import prepare

    whole = tokens_of(world)
    other = world.root / "another.txt"
    other.write_text("something else entirely, and long enough to be split. " * 50)
    found = prepare([other], kind="word", vocab_size=60, val_fraction=0.1)
    mine = next(e for e in world.entry.parent.iterdir() if (e / "tokens.bin").read_bytes() == whole)
    shutil.rmtree(mine)
    shutil.copytree(found.token_path.parent, mine)
    prepared = prepare([world.text], kind="word", vocab_size=60, val_fraction=0.1)
    assert prepared.token_path.read_bytes() == whole
    other.unlink()


@pytest.mark.parametrize("name", ["../../outside/folder", "/", ".", "..", "", "a" * 32, "A" * 32])
def test_a_request_that_names_another_folder_deletes_nothing(world: Origin, name: str) -> None:
    (path,) = (world.cache / "requests").glob("*.json")
    document = json.loads(path.read_bytes())
    absolute = str(world.outside / "folder")
    for entry in (name, name.replace("../../outside/folder", absolute)):
        path.write_text(json.dumps(document | {"entry": entry}))
        assert outcome(name, lambda: prepare_text(world)) == ""
    assert listing(world.outside) == world.untouched


@pytest.mark.parametrize("part", ["corpora", "requests", "entry", "tag"])
def test_a_cache_of_links_changes_nothing_outside(world: Origin, part: str) -> None:
    places = {
        "corpora": world.cache / "corpora",
        "requests": world.cache / "requests",
        "entry": world.entry,
        "tag": world.cache / "CACHEDIR.TAG",
    }
    remove(places[part])
    places[part].symlink_to(world.outside / ("file" if part == "tag" else "folder"))
    outcome(part, lambda: prepare_text(world))
    before = set(world.untouched)
    if part == "requests":  # a link of the owner's to where there is more room
        before |= {name for name in listing(world.outside) if name.endswith((".json", ".TAG"))}
    if part == "corpora":
        before |= {name for name in listing(world.outside) if "/" in name}
    found = listing(world.outside)
    assert set(found) <= before
    assert {name: found[name] for name in world.untouched if name != "folder"} == {
        name: value for name, value in world.untouched.items() if name != "folder"
    }
    remove(world.outside)
    shutil.copytree(world.kept / "outside", world.outside)


# --- the run directory ----------------------------------------------------------------------------

ARGUMENTS = ("--max-steps", "6", "--plain", "--quiet")


def test_links_in_a_run_are_replaced_and_not_followed(world: Origin) -> None:
    links = ["config.toml", "tokenizer.json", "crystal.json", "latest", "best"]
    settings = (world.run / "config.toml").read_text()
    for name in links:
        remove(world.run / name)
        (world.run / name).symlink_to(world.outside / ("folder" if name == "best" else "file"))
    inside = world.run / "checkpoints"
    (inside / ".step-00000009.old.tmp").symlink_to(world.outside / "folder")
    (inside / ".step-00000009.123-0123456789ab.tmp").symlink_to(world.outside / "folder")
    (inside / "step-00000009").symlink_to(world.outside / "folder")
    (world.run / ".config.toml.123-0123456789ab.tmp").symlink_to(world.outside / "folder")
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 2  # the settings are no TOML
    assert listing(world.outside) == world.untouched
    (world.run / "config.toml").unlink()
    (world.outside / "settings").write_text(settings)
    (world.run / "config.toml").symlink_to(world.outside / "settings")
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 0
    assert (world.outside / "settings").read_text() == settings
    (world.outside / "settings").unlink()
    assert not (world.run / "config.toml").is_symlink()
    assert (world.run / "latest").resolve().name == "step-00000006"
    assert listing(world.outside) == world.untouched


@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
@pytest.mark.parametrize("name", ["run.lock", "metrics.jsonl", "checkpoints"])
def test_what_is_written_in_place_must_be_no_link(
    world: Origin, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = world.root / "runs" / "new"
    new.mkdir()
    (new / "run.lock").touch()
    for folder in (world.run, new):
        remove(folder / name)
        (folder / name).symlink_to(world.outside / target)
    for arguments in (["--resume", world.run], [world.text, "--checkpoint-dir", new]):
        code = cli.main([str(argument) for argument in (*arguments, *ARGUMENTS)])
        assert code in (1, 2, 4)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("cllm-train: error: ")
        assert len(err.splitlines()) == 1
        assert listing(world.outside) == world.untouched


def test_a_backup_made_of_hard_links_keeps_its_bytes(world: Origin) -> None:
    backup = world.root / "backup"
    shutil.copytree(world.run, backup, symlinks=True, copy_function=os.link)
    before = listing(backup)
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 0
    assert listing(backup) == before
    shutil.rmtree(backup)
    assert len(read_metrics(world.run / "metrics.jsonl")) >= 6


def test_a_folder_best_is_no_reason_to_stop(world: Origin) -> None:
    remove(world.run / "best")
    (world.run / "best").mkdir()
    (world.run / "best" / ESCAPES).touch()
    assert outcome("best", lambda: generate(world)) == ""
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 0
    assert (world.run / "best" / ESCAPES).exists() or (world.run / "best-kept-1" / ESCAPES).exists()


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "\udcff", ESCAPES, "a\0b", "~" * 255])
def test_impossible_names_are_refused(
    world: Origin, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from crystalline.cli import infer, vocab

    for main, arguments in (
        (cli.main, ["--resume", name]),
        (cli.main, ["--config", name]),
        (cli.main, [name]),
        (cli.main, [str(world.text), "--checkpoint-dir", str(world.outside / "file" / name)]),
        (infer.main, [name, "--prompt", "a"]),
        (infer.main, [str(world.run), "--checkpoint", name, "--prompt", "a"]),
        (infer.main, [str(world.run), "--perplexity", name]),
        (vocab.main, ["inspect", name]),
        (vocab.main, [name]),
    ):
        assert main(arguments) in (2, 3, 4)
        _, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
        assert len(err) < 3000


OWNERS = {
    "infinite": b'{"pid": Infinity, "host": "a"}',
    "1e999": b'{"pid": 1e999, "host": "a"}',
    "digits": b'{"pid": ' + b"9" * 4000 + b', "host": "a"}',
    "negative": b'{"pid": -1, "host": "a"}',
    "host": json.dumps({"pid": 5, "host": ESCAPES}).encode(),
    "long host": json.dumps({"pid": 5, "host": "x" * 3000}).encode(),
    "list": b"[1, 2]",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("case", OWNERS)
def test_a_lock_that_says_anything_is_told_safely(world: Origin, case: str) -> None:
    lock = world.run / "run.lock"
    lock.write_bytes(OWNERS[case])
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = outcome(case, lambda: resume(world))
    who = "process 5 on ?[2J?]0;owned??" if case == "host" else "another process"
    assert f"is in use by {who}" in words


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_that_lack_half_of_an_evaluation_stop_nothing(world: Origin) -> None:
    lines = [
        '{"step": 1, "val_loss": 2.0}',
        '{"step": 2, "loss": true}',
    ]
    (world.run / "metrics.jsonl").write_text("\n".join([*lines, ""]))
    assert cli.main(["--resume", str(world.run), *ARGUMENTS]) == 0


# --- text and settings ----------------------------------------------------------------------------

CONTENTS = {
    "jsonl deep": (".jsonl", b"[" * 100_000),
    "jsonl deep objects": (".jsonl", b'{"a":' * 100_000),
    "jsonl digits": (".jsonl", b'{"text": ' + b"1" * 5000 + b"}"),
    "jsonl nan": (".jsonl", b'{"text": NaN}\n{"text": Infinity}\n{"text": 1e999}'),
    "jsonl fields": (".jsonl", b"\n".join(b'{"\\u001b%d": 1}' % n for n in range(2000))),
    "jsonl field": (".jsonl", b'{"' + b"x" * 1_000_000 + b'": 1}'),
    "jsonl surrogate": (".jsonl", b'{"text": "\\ud800 a", "\\udfff": 1}'),
    "jsonl escapes": (".jsonl", b'{"text": "\\u001b[2J"}'),
    "json deep": (".json", b"[" * 100_000),
    "json objects": (".json", b'[{"a":' * 50_000),
    "json digits": (".json", b'[{"text": ' + b"1" * 5000 + b"}]"),
    "html tags": (".html", b"<" * 200_000),
    "html comments": (".html", b"<!--" * 50_000),
    "html attributes": (".html", b"<a " + b"b='" * 100_000),
    "html references": (".html", b"&#" + b"9" * 100_000 + b";" + b"&" * 100_000),
    "html nested": (".html", b"<pre><script><div>" * 30_000),
    "nul": (".txt", b"a\0b" * 1000),
    "utf-16": (".txt", "text".encode("utf-16")),
    "binary": (".txt", bytes(range(256)) * 100),
    "cut off": (".txt", "é".encode()[:1]),
    "one line": (".txt", b"x" * 300_000),
    "spaces": (".txt", b" " * 300_000),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_any_text_is_read_or_refused(world: Origin, case: str) -> None:
    from crystalline.data.corpus import read_documents
    from crystalline.data.prepare import prepare

    suffix, content = CONTENTS[case]
    path = world.root / f"given{suffix}"
    path.write_bytes(content)
    words = outcome(case, lambda: read_documents(path))
    outcome(case, lambda: prepare([path], kind="byte", vocab_size=0, val_fraction=0.1))
    outcome(case, lambda: read_documents(path, "\x1b[2J"))
    assert "\x1b" not in words
    path.unlink()


@pytest.mark.parametrize(
    "content",
    [
        f'"{"x" * 100_000}" = 1',
        '"\\u001b[2J" = 1',
        '"\\u0000dcff" = 1',
        'seed = "\\u001b[2J"',
        f'seed = "{"x" * 100_000}"',
        "seed = 99999999999999999999999999",
        "seed = -1",
        "seed = [1]",
        "[seed]\na = 1",
        "learning_rate = 1e308",
        "learning_rate = nan",
        "minutes = -inf",
        'data = ["\\u0000dcff\\u001b[2J"]',
        'data = [""]',
        "data = [1]",
        'tokenizer = "\\u001b[2J"',
        'config = "another"',
        "workers = 100000",
        "batch_size = 9223372036854775807",
        "lanes = 12000000000000",
        "a = " + "[" * 10_000,
    ],
)
def test_any_settings_are_refused_in_one_line(
    world: Origin, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.root / "settings.toml"
    path.write_text(content)
    code = cli.main(["--config", str(path), "--max-steps", "0"])
    _, err = capsys.readouterr()
    assert code == 2
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 3000


@pytest.mark.parametrize("name", ["CLLM_SEED", "CLLM_\x1b[2J", "CLLM_" + "X" * 3000, "CLLM_\udcff"])
@pytest.mark.parametrize("value", ["\x1b[2J", "x" * 50_000, "9" * 5000, "\udcff", "nan"])
def test_any_variable_is_refused_in_one_line(
    world: Origin,
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.main([str(world.text)]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 3000
