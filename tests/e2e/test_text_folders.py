"""Folders of text as people keep them: with runs, models and caches among them, and odd names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from tests.e2e.commands import TINY, command, environment, run, training, words
from tests.e2e.conftest import Finished

SHORT = (*TINY, "--max-steps=3", "--plain")


def test_a_run_made_beside_its_text_is_resumed(tmp_path: Path) -> None:
    """The default ./runs lies in the folder of the text; so may the cache."""
    notes = tmp_path / "n"
    notes.mkdir()
    (notes / "t.txt").write_text(words(4000))
    inside = {"CLLM_CACHE": str(notes / "cache")}
    first = run("cllm-train", ".", *SHORT, cwd=notes, env=inside)
    assert first.returncode == 0, first.stderr
    again = run("cllm-train", "--resume", "--max-steps=9", "--json", cwd=notes, env=inside)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["final_step"] == 9
    assert "(1 document, 4.0 kB); left out: 1 cache, 1 run directory\n" in again.stderr
    new = run("cllm-train", ".", *SHORT, cwd=notes, env=inside)
    assert "(1 document, 4.0 kB); left out: 1 cache, 1 run directory\n" in new.stderr


def test_copies_of_runs_and_models_are_no_text(finished: Finished, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "runs").mkdir(parents=True)
    (notes / "runs/story.txt").write_text(words(4000))
    (notes / "config.json").write_text('{"theme": "dark"}')
    shutil.copytree(finished.path, notes / "a copy", symlinks=True)
    shutil.copytree(finished.path / "latest", notes / "model")
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for path in finished.path.rglob("*"):
            if path.is_file() and path.name != "run.lock":
                archive.write(path, path.relative_to(finished.path))
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        archive.extractall(notes / "unpacked")
    endless = (*finished.arguments, "--max-steps=100000000", "--checkpoint-dir=notes/now")
    with training(*endless, run_dir=notes / "now", cwd=tmp_path) as other:
        other.wait_for_step(1)
        done = run("cllm-train", "notes", *SHORT, cwd=tmp_path)
        other.process.terminate()
        other.end()
    assert done.returncode == 0, done.stderr
    assert "(2 documents, 4.0 kB); left out: 3 run directories, 1 model folder\n" in done.stderr
    for name in ("a copy", "model"):
        done = run("cllm-train", f"notes/{name}", *SHORT, cwd=tmp_path)
        assert done.returncode == 3
        assert "not a folder of text" in done.stderr


def test_what_a_command_prints_into_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(words(4000))
    with (tmp_path / "log.txt").open("w") as log:
        done = subprocess.run(
            command("cllm-train", ".", *SHORT, "--json"), cwd=tmp_path, env=environment(),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert "(1 document, 4.0 kB); left out: 1 file of this command's own" in (
        (tmp_path / "log.txt").read_text()
    )


def test_other_kinds_of_files_are_told_in_one_line(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "LICENSE"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "t.txt").write_text(words(4000))
    done = run("cllm-train", ".", *SHORT, cwd=tmp_path)
    assert "Passed over 3 files that no suffix of text marks: 2 .png, 1 without suffix." in (
        done.stderr.splitlines()
    )


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Of a file in a folder, of the working directory, and of DATA that a run remembers."""
    here = tmp_path / os.fsdecode(b"stra\xdfe")
    here.mkdir()
    name = os.fsdecode(b"caf\xe9.txt")
    (here / name).write_text(words(4000))
    (here / os.fsdecode(b"broken\xe9.txt")).write_bytes(b"\xff")
    done = run("cllm-train", ".", *SHORT, "--checkpoint-dir=a", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "(1 document, 4.0 kB)" in done.stderr
    assert "broken\\xe9.txt is not UTF-8" in done.stderr
    done = run("cllm-train", name, *SHORT, "--checkpoint-dir=b", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "data     caf\\xe9.txt (1 document" in done.stderr
    for made in ("a", "b"):
        done = run("cllm-train", "--resume", here / made, "--max-steps=4", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "stra\\xdfe" in done.stderr


def test_a_field_of_records_is_remembered(tmp_path: Path) -> None:
    text = words(6000).splitlines()
    records = "".join(json.dumps({"body": line, "id": n}) + "\n" for n, line in enumerate(text))
    (tmp_path / "a.jsonl").write_text(records)
    done = run("cllm-train", "a.jsonl", *SHORT, cwd=tmp_path)
    assert done.returncode == 3
    assert f"'body' ({len(text)}), 'id' ({len(text)}). Name the field" in done.stderr
    done = run("cllm-train", "a.jsonl", *SHORT, "--text-field=body", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("cllm-train", "--resume", "--max-steps=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "runs").iterdir()
    measured = run(
        "cllm-infer", made, "--perplexity=a.jsonl", "--text-field=body", "--json", cwd=tmp_path
    )
    assert json.loads(measured.stdout)["bytes"] == sum(map(len, text))


def test_a_char_model_measures_the_very_file_it_was_trained_on(tmp_path: Path) -> None:
    """A byte order mark and carriage returns are no part of the text, here as there."""
    text = "\ufeff" + words(4000).replace("\n", "\r\n")
    (tmp_path / "t.txt").write_bytes(text.encode())
    done = run("cllm-train", "t.txt", *SHORT, "--checkpoint-dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sizes = []
    for name, given in (("t.txt", None), ("-", text)):
        done = run("cllm-infer", "run", "--perplexity", name, "--json", cwd=tmp_path, text=given)
        assert done.returncode == 0, done.stderr
        sizes.append(json.loads(done.stdout)["bytes"])
    assert sizes == [len(words(4000))] * 2
    done = run("cllm-infer", "run", "--max-tokens=1", cwd=tmp_path, text="a\r\nb")
    assert done.returncode == 0, done.stderr
