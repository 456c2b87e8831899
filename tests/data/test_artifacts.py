"""What programs keep beside text is told by what it holds, whatever its name and place."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from crystalline.data import prepare
from crystalline.data.artifacts import CACHE, MODEL_FOLDER, RUN_DIRECTORY, recognize
from crystalline.data.finding import find
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.formats.rundir import RunDir
from crystalline.train.metrics import MetricsLog

GPT2 = '{"model_type": "gpt2", "n_embd": 16}'
SAFETENSORS = struct.pack("<Q", 2) + b"{}"
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# anybody's\n"


def kind(folder: Path) -> str | None:
    return recognize(folder, [name for name in os.listdir(folder) if not name.startswith(".")])


def fill(folder: Path, **files: str | bytes) -> Path:
    """Make files; two underscores stand for the dot in a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def tokenizer() -> str:
    return Tokenizer.train("byte", [], 0).to_json()


def checkpoint(folder: Path) -> Path:
    return fill(
        folder, config__json=GPT2, tokenizer__json=tokenizer(), state__json='{"step": 5}',
        manifest__json="{}", model__safetensors=SAFETENSORS,
    )  # fmt: skip


def finished_run(folder: Path) -> Path:
    """Make what a run leaves behind, with the code that writes it as far as it goes alone."""
    with RunDir.create(folder) as run:
        run.write_config({"seq_len": 16, "data": ["a"]}, comment="Resolved by cllm-train 1.")
        with MetricsLog(folder) as metrics:
            metrics.enter(
                "evaluation",
                {"step": 5, "val_loss": 1.0, "val_bits_per_byte": 1.0, "val_tokens": 9},
            )
            metrics.event("resumed", 5)
    fill(folder, tokenizer__json=tokenizer())
    checkpoint(folder / "checkpoints/step-00000005")
    (folder / "latest").symlink_to("checkpoints/step-00000005")
    return folder


def lose(*names: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for name in names:
            path = run / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    return change


def unpack(run: Path) -> None:
    """A zip file holds no links."""
    (run / "latest").unlink()
    shutil.copytree(run / "checkpoints/step-00000005", run / "latest")


def point_as_text(run: Path) -> None:
    (run / "latest").unlink()
    (run / "latest").write_text("checkpoints/step-00000005")


@pytest.mark.parametrize(
    "change",
    [
        lose(),
        unpack,
        point_as_text,
        lose("run.lock"),
        lose("run.lock", "config.toml"),
        lose("run.lock", "config.toml", "metrics.jsonl", "tokenizer.json"),
        lose("checkpoints", "latest"),
        lose("run.lock", "checkpoints", "latest"),
        lose("run.lock", "checkpoints", "latest", "tokenizer.json", "metrics.jsonl"),
        lose("checkpoints", "latest", "config.toml", "tokenizer.json", "metrics.jsonl"),
        lambda run: (run / "notes.txt").write_text("mine"),
    ],
)
def test_a_run_is_told_by_its_files(tmp_path: Path, change: Callable[[Path], None]) -> None:
    run = finished_run(tmp_path / "stories")
    change(run)
    assert kind(run) == RUN_DIRECTORY


def test_a_run_that_is_just_being_made(tmp_path: Path) -> None:
    with RunDir.create(tmp_path / "run"):
        assert kind(tmp_path / "run") == RUN_DIRECTORY
    (tmp_path / "run/run.lock").write_bytes(b"")
    assert kind(tmp_path / "run") == RUN_DIRECTORY, "between two system calls"
    fill(tmp_path / "run", config__toml="# Resolved by cllm-train 1.\nseq_len = 16\n")
    assert kind(tmp_path / "run") == RUN_DIRECTORY


@pytest.mark.parametrize(
    "files",
    [
        {"config__json": GPT2, "model__safetensors": SAFETENSORS},
        {"config__json": GPT2, "pytorch_model__bin": b"PK", "README__md": "# A model"},
        {"config__json": GPT2, "tokenizer_config__json": "{}", "merges__txt": "a b"},
        {"config__json": '{"architecture": "resnet"}', "model__safetensors": SAFETENSORS},
        {"config__json": "{}", "tokenizer__json": tokenizer()},
        {"tokenizer__json": tokenizer(), "tokenizer_config__json": "{}"},
        {"adapter_config__json": '{"peft_type": "LORA"}', "adapter_model__safetensors": b""},
        {"model_index__json": '{"_class_name": "Pipeline"}', "README__md": "# A pipeline"},
    ],
)
def test_model_folders(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    assert kind(fill(tmp_path / "any", **files)) == MODEL_FOLDER


@pytest.mark.parametrize(
    "files",
    [
        {"config__json": '{"theme": "dark"}', "diary__txt": "Dear diary"},
        {"config__json": '{"theme": "dark"}', "tokenizer__json": '{"mine": 1}', "a__txt": "x"},
        {"config__json": '{"theme": "dark"}', "a__txt": "x", "data__bin": b"\0"},
        {"config__json": GPT2, "notes__md": "on GPT-2"},
        {"config__json": "[" * 100_000, "model__safetensors": b"", "a__txt": "x"},
        {"config__toml": "# Resolved by cllm-train 1.\nseq_len = 16\n", "a__txt": "x"},
        {"config__toml": 'title = "A site"\n', "metrics__jsonl": '{"step": "up"}\n', "a__txt": ""},
        {"run__lock": "mine", "a__txt": "x"},
        {"run__lock": "", "a__txt": "x"},
        {"metrics__jsonl": '{"text": "metrics of poems"}\n', "a__txt": "x"},
        {"CACHEDIR__TAG": "not the signature", "a__txt": "x"},
        {"tokens__bin": b"mine", "a__txt": "x"},
        {"a__gguf": b"GGUF", "a__txt": "x"},
    ],
)
def test_text_is_not_taken_for_anything_else(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    for name in ("runs", "checkpoints", "corpora", "requests", "cache"):
        assert kind(fill(tmp_path / name, **files)) is None
        assert find([tmp_path / name]).sources


def test_a_folder_of_folders_named_like_steps_is_text(tmp_path: Path) -> None:
    fill(tmp_path / "checkpoints/step-00000001", lesson__txt="one")
    fill(tmp_path / "corpora" / ("a" * 32), story__txt="two")
    assert len(find([tmp_path]).sources) == 2


def make_cache(root: Path, text: Path) -> None:
    text.write_text("some text " * 40)
    os.utime(text, (1, 1))
    old = prepare._SETTLED_NS
    prepare._SETTLED_NS = -(10**18)  # trust the file at once
    try:
        prepare.prepare([text], kind="byte", vocab_size=0, val_fraction=0.1, cache_dir=root)
    finally:
        prepare._SETTLED_NS = old


def test_our_cache_with_and_without_its_tag(tmp_path: Path) -> None:
    root = tmp_path / "texts/of mine"
    make_cache(root, tmp_path / "a.txt")
    assert (root / "CACHEDIR.TAG").read_bytes().startswith(TAG[:43].encode())
    assert kind(root) == CACHE
    (root / "CACHEDIR.TAG").unlink()
    assert kind(root) == CACHE
    (entry,) = (root / "corpora").iterdir()
    for part in (root / "corpora", root / "requests", entry):
        assert kind(part) == CACHE
    shutil.rmtree(root / "corpora")
    assert kind(root) == CACHE
    (record,) = (root / "requests").iterdir()
    assert json.loads(record.read_text())["sources"]


def test_a_cache_among_text_tags_its_own_folders_only(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    make_cache(tmp_path, tmp_path / "a.txt")
    assert not (tmp_path / "CACHEDIR.TAG").exists()
    assert kind(tmp_path) is None
    found = find([tmp_path])
    assert [source.path.name for source in found.sources] == ["a.txt", "mine.txt"]
    assert found.left_out_words() == "2 caches"


def test_what_is_left_out_is_counted_and_everything_else_is_read(tmp_path: Path) -> None:
    notes = fill(tmp_path / "notes", a__txt="a", config__json='{"theme": 1}')
    finished_run(notes / "deep/er")
    shutil.copytree(notes / "deep/er", notes / "copy", symlinks=True)
    checkpoint(notes / "gpt")
    fill(notes / "pip", CACHEDIR__TAG=TAG, page__html="<p>cached")
    found = find([notes])
    assert [source.path.name for source in found.sources] == ["a.txt", "config.json"]
    assert found.left_out_words() == "2 run directories, 1 model folder, 1 cache"
    (notes / "a.txt").unlink()
    (notes / "config.json").unlink()
    with pytest.raises(DataError, match=r"holds no text \(left out: 2 run directories, 1 model"):
        find([notes])


@pytest.mark.parametrize("what", ["run", "model", "cache"])
def test_text_must_not_be_such_a_folder_but_may_be_a_file_of_one(tmp_path: Path, what: str) -> None:
    (tmp_path / "text.txt").write_text("text")
    if what == "run":
        finished_run(tmp_path / "it")
    elif what == "model":
        checkpoint(tmp_path / "it")
    else:
        fill(tmp_path / "it", CACHEDIR__TAG=TAG)
    fill(tmp_path / "it", notes__txt="x")
    with pytest.raises(DataError, match=rf"it is a {what}.*, not a folder of text.*one by one"):
        find([tmp_path / "text.txt", tmp_path / "it"])
    (source,) = find([tmp_path / "it/notes.txt"]).sources
    assert source.explicit


def test_files_that_this_process_prints_to_are_no_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, a__txt="a", out__json="", err__log="")
    with capfd.disabled():
        saved = os.dup(1)
        file = os.open(tmp_path / "out.json", os.O_WRONLY)
        try:
            os.dup2(file, 1)
            found = find([tmp_path])
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            os.close(file)
    assert [source.path.name for source in found.sources] == ["a.txt", "err.log"]
    assert found.left_out_words() == "1 file of this command's own output"
