"""From paths to tokens: the whole way, the cache, two processes at once, and every refusal."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crystalline.data import prepare
from crystalline.data.crystal.tokens import Crystal
from crystalline.data.default import LARGEST_BYTES, default_corpus
from crystalline.data.prepare import PreparedData, default_cache_dir
from crystalline.data.tokenfile import TokenFile
from crystalline.data.tokenizer import END_OF_TEXT, KINDS, Tokenizer
from crystalline.errors import DataError, UsageError

STDLIB = Path(os.__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three documents."""
    path = tmp_path / "text"
    path.mkdir()
    for name in ("bisect.py", "heapq.py", "textwrap.py"):
        (path / name).write_text((STDLIB / name).read_text("utf-8"), "utf-8")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files that have just been written."""
    monkeypatch.setattr(prepare, "_SETTLED_NS", 0)
    time.sleep(0.02)  # the file system's clock ticks slower than ours


def run(
    paths: Path | list[Path], cache: Path, kind: str = "byte", **others: object
) -> PreparedData:
    options: dict[str, object] = {"vocab_size": 400, "val_fraction": 0.1, **others}
    given = paths if isinstance(paths, list) else [paths]
    return prepare.prepare(given, kind=kind, cache_dir=cache, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_text(folder: Path, tmp_path: Path, kind: str) -> None:
    ready = run(folder, tmp_path / "cache", kind, vocab_size=100_000 if kind == "word" else 400)
    tokens = TokenFile.open(ready.token_path, verify=True)
    tokenizer = Tokenizer.load(ready.tokenizer_path)
    texts = [path.read_text("utf-8") for path in sorted(folder.iterdir())]
    n_train = int(sum(map(len, texts)) * 0.9)
    assert n_train > len(texts[0] + texts[1]), "the split lies in the last document"
    in_last = n_train - len(texts[0] + texts[1])
    train, val = tokenizer.decode(tokens.train), tokenizer.decode(tokens.val)
    assert train == END_OF_TEXT.join([*texts[:2], texts[2][:in_last]])
    if kind != "word":  # which may not know the words that only the held-out text has
        assert val == texts[2][in_last:]
    assert ready.train_bytes == len("".join([*texts[:2], texts[2][:in_last]]).encode())
    assert ready.val_bytes == len(texts[2][in_last:].encode())
    assert (ready.train_tokens, ready.val_tokens) == (len(tokens.train), len(tokens.val))
    assert (ready.kind, ready.documents, ready.cached) == (kind, 3, False)
    assert ready.vocab_size == tokenizer.vocab_size == tokens.vocab_size
    assert "3 documents" in ready.description


def test_pieces_and_batches_leave_no_trace_in_the_tokens(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(folder, tmp_path / "1", "bpe")
    monkeypatch.setattr("crystalline.data.pieces.PIECE_CHARS", 50)
    monkeypatch.setattr(prepare, "_BATCH_PIECES", 3)
    cut = run(folder, tmp_path / "2", "bpe")
    library = Tokenizer.load(whole.tokenizer_path).inner
    texts = [path.read_text("utf-8") for path in sorted(folder.iterdir())]
    expected = library.encode(END_OF_TEXT.join(texts[:2])).ids
    assert cut.tokenizer_path.read_bytes() == whole.tokenizer_path.read_bytes()
    assert cut.tokens_sha256 == whole.tokens_sha256
    assert TokenFile.open(cut.token_path).train[: len(expected)].tolist() == expected


def test_documents_are_held_out_whole_when_there_are_enough(tmp_path: Path) -> None:
    text = tmp_path / "a.jsonl"
    documents = [f"document number {n}, {n * n}" for n in range(200)]
    text.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    ready = run(text, tmp_path / "cache", "char")
    tokenizer = Tokenizer.load(ready.tokenizer_path)
    tokens = TokenFile.open(ready.token_path)
    train = tokenizer.decode(tokens.train).split(END_OF_TEXT)
    val = tokenizer.decode(tokens.val).split(END_OF_TEXT)
    assert sorted(train + val) == sorted(documents)
    assert 20 <= len(val) <= 22
    assert ready.documents == 200


def test_the_tokenizer_learns_from_the_training_split_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha beta gamma delta " * 100 + "omega " * 80)
    ready = run(tmp_path / "a.txt", tmp_path / "cache", "word", val_fraction=0.1)
    assert Tokenizer.load(ready.tokenizer_path).encode(" omega").tolist() != [0]
    ready = run(tmp_path / "a.txt", tmp_path / "cache", "word", val_fraction=0.3)
    assert Tokenizer.load(ready.tokenizer_path).encode(" omega").tolist() == [0]


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(folder, tmp_path / "cache", "bpe")
    monkeypatch.setattr(prepare, "read_corpus", None)
    second = run(folder, tmp_path / "cache", "bpe")
    assert second.cached
    assert not first.cached
    assert second.token_path == first.token_path
    assert second.tokens_sha256 == first.tokens_sha256


def test_a_file_that_was_just_written_is_read_again(folder: Path, tmp_path: Path) -> None:
    """Its times may not show another change within the same tick of the clock."""
    os.utime(folder / "heapq.py", ns=(2**62, 2**62))
    run(folder, tmp_path / "cache")
    assert not (tmp_path / "cache/requests").exists()
    assert run(folder, tmp_path / "cache").cached


@pytest.mark.usefixtures("settled")
def test_changed_text_and_settings_make_new_tokens(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    keys = {run(folder, cache).token_path}
    keys.add(run(folder, cache, val_fraction=0.2).token_path)
    keys.add(run(folder, cache, "char").token_path)
    keys.add(run(folder, cache, "bpe").token_path)
    keys.add(run(folder, cache, "bpe", vocab_size=300).token_path)
    assert len(keys) == 5
    assert run(folder, cache, vocab_size=77).token_path in keys  # bytes find their own
    content = bytearray((folder / "heapq.py").read_bytes())
    times = (folder / "heapq.py").stat()
    content[100] ^= 1
    (folder / "heapq.py").write_bytes(content)
    os.utime(folder / "heapq.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = run(folder, cache)
    assert changed.token_path not in keys
    assert not changed.cached


def test_the_same_text_elsewhere_shares_the_entry(folder: Path, tmp_path: Path) -> None:
    first = run(folder, tmp_path / "cache")
    moved = folder.rename(tmp_path / "moved")
    second = run(moved, tmp_path / "cache")
    assert second.cached
    assert second.token_path == first.token_path


@pytest.mark.parametrize("damage", ["flip", "truncate", "tokenizer", "missing"])
def test_a_damaged_entry_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = run(folder, tmp_path / "cache")
    content = bytearray(first.token_path.read_bytes())
    if damage == "flip":
        content[-3] ^= 4
        first.token_path.write_bytes(content)
    elif damage == "truncate":
        first.token_path.write_bytes(content[:-1])
    elif damage == "tokenizer":
        first.tokenizer_path.write_text("{}")
    else:
        first.tokenizer_path.unlink()
    with caplog.at_level(logging.WARNING, "crystalline"):
        second = run(folder, tmp_path / "cache")
    assert "made again" in caplog.text
    assert not second.cached
    assert second.tokens_sha256 == first.tokens_sha256
    assert TokenFile.open(second.token_path, verify=True).header.documents == 3
    assert os.listdir(tmp_path / "cache/corpora") == [second.token_path.parent.name]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sources": 3'])
def test_a_damaged_record_is_no_obstacle(folder: Path, tmp_path: Path, content: str) -> None:
    run(folder, tmp_path / "cache")
    (record,) = (tmp_path / "cache/requests").iterdir()
    record.write_text(content)
    assert run(folder, tmp_path / "cache").cached


def test_processes_at_once_agree_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = (
        "import sys; from pathlib import Path; from crystalline.data.prepare import prepare; "
        "ready = prepare([sys.argv[1]], kind='bpe', vocab_size=400, val_fraction=0.1, "
        "cache_dir=Path(sys.argv[2])); print(ready.tokens_sha256)"
    )
    command = [sys.executable, "-c", code, str(folder), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        outputs = [process.communicate(timeout=60)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert len(set(outputs)) == 1
    assert outputs[0].strip()
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(os.listdir(cache / "corpora")) == 1


def test_losing_the_race_keeps_the_other_entry(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    build = prepare._build

    def slow(*arguments: object) -> None:
        monkeypatch.setattr(prepare, "_build", build)
        run(folder, cache)  # another process is faster
        build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "_build", slow)
    ready = run(folder, cache)
    assert TokenFile.open(ready.token_path, verify=True).header.documents == 3
    assert len(os.listdir(cache / "corpora")) == 1


def test_a_failure_leaves_no_entry(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepare, "write_token_file", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left.*CLLM_CACHE") as info:
        run(folder, tmp_path / "cache")
    assert info.value.exit_code == 3
    assert os.listdir(tmp_path / "cache/corpora") == []


def test_abandoned_folders_are_removed_and_fresh_ones_kept(folder: Path, tmp_path: Path) -> None:
    corpora = tmp_path / "cache/corpora"
    (corpora / ".tmp-1-old").mkdir(parents=True)
    (corpora / ".tmp-2-new").mkdir()
    os.utime(corpora / ".tmp-1-old", (1, 1))
    run(folder, tmp_path / "cache")
    assert sorted(path.name for path in corpora.glob(".tmp-*")) == [".tmp-2-new"]


def test_a_cache_that_cannot_be_made_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/cache cannot be written.*CLLM_CACHE"):
        run(folder, tmp_path / "file/cache")


@pytest.mark.usefixtures("settled")
def test_a_cache_that_is_only_read_is_good_enough(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(folder, tmp_path / "cache")
    moved = folder.rename(tmp_path / "moved")

    def denied(*_: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(prepare, "write_json", denied)
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert run(moved, tmp_path / "cache").cached
    assert "read again next time" in caplog.text


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CLLM_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / ".cache/crystalline"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which the standard says to ignore")
    assert default_cache_dir() == tmp_path / ".cache/crystalline"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/crystalline")
    monkeypatch.setenv("CLLM_CACHE", "/own")
    assert default_cache_dir() == Path("/own")


def test_no_home_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CLLM_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match=r"no home folder.*CLLM_CACHE"):
        default_cache_dir()


def test_progress_goes_through_its_stages_and_never_back(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    run(folder, tmp_path / "cache", "bpe", progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    if "Building the vocabulary" in stages:  # where the library is at it for long enough
        stages.remove("Building the vocabulary")
    assert stages == ["Reading text", "Training the tokenizer", "Encoding"]
    for stage in stages:
        done = [call[1] for call in calls if call[0] == stage]
        (total,) = {call[2] for call in calls if call[0] == stage}
        assert done == sorted(done)
        assert done[-1] == total > 0


def test_progress_beats_while_the_tokenizer_is_busy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Tokenizer.train

    def slow(*arguments: object, **options: object) -> Tokenizer:
        time.sleep(0.7)
        return train(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tokenizer, "train", slow)
    calls: list[str] = []
    run(folder, tmp_path / "cache", progress=lambda stage, *_: calls.append(stage))
    assert calls.count("Training the tokenizer") + calls.count("Building the vocabulary") >= 4


def test_an_interruption_ends_the_training_of_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, *_: int) -> None:
        if stage == "Training the tokenizer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "cache", "bpe", progress=interrupt)
    assert os.listdir(tmp_path / "cache/corpora") == []


def test_a_file_that_changes_meanwhile_is_noticed_in_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "write_token_file", None)  # which would notice it again

    def change(stage: str, *_: int) -> None:
        if stage == "Reading text":
            (folder / "bisect.py").write_text("something shorter")

    with pytest.raises(DataError, match=r"bisect.py changed while it was being read"):
        run(folder, tmp_path / "cache", "bpe", progress=change)


def test_user_errors_of_the_tokenizer_come_through(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--vocab-size 100 is too small for bpe"):
        run(folder, tmp_path / "cache", "bpe", vocab_size=100)


@pytest.mark.parametrize("kind", KINDS)
def test_three_characters_can_be_prepared(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.txt").write_text("aéb", encoding="utf-8")
    ready = run(tmp_path / "a.txt", tmp_path / "cache", kind)
    assert ready.train_bytes + ready.val_bytes == 4
    assert ready.train_tokens >= 1
    if kind == "char":
        assert (ready.vocab_size, ready.train_tokens, ready.val_tokens) == (3, 2, 1)


def test_large_corpora_train_their_tokenizer_on_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text((STDLIB / "argparse.py").read_text("utf-8"), "utf-8")
    seen: list[int] = []
    train = Tokenizer.train

    def counted(kind: str, texts: object, *others: object, **options: object) -> Tokenizer:
        kept = list(texts)  # type: ignore[call-overload]
        seen.append(sum(map(len, kept)))
        return train(kind, kept, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tokenizer, "train", counted)
    monkeypatch.setattr(prepare, "TRAINING_BYTES", 30_000)
    for kind in ("bpe", "char"):
        run(tmp_path / "a.txt", tmp_path / "cache", kind)
    assert 10_000 < seen[0] < 60_000
    assert seen[1] == (tmp_path / "a.txt").stat().st_size


@pytest.mark.usefixtures("settled")
def test_names_that_are_not_utf8_are_prepared_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"stra\xdfe")
    folder.mkdir()
    path = folder / os.fsdecode(b"caf\xe9.txt")
    path.write_text("some text " * 40)
    first = [run(given, tmp_path / "cache") for given in (path, folder)]
    assert first[0].description.startswith(f"{tmp_path}/stra\\xdfe/caf\\xe9.txt (1 document")
    monkeypatch.setattr(prepare, "read_corpus", None)
    for given, before in zip((path, folder), first, strict=True):
        assert run(given, tmp_path / "cache").tokens_sha256 == before.tokens_sha256


def test_the_cache_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "cache")
    tag = (tmp_path / "cache/CACHEDIR.TAG").read_bytes()
    assert tag.startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("a cache in somebody's folder")
    run(folder, tmp_path / "mine")
    assert not (tmp_path / "mine/CACHEDIR.TAG").exists(), "a backup would leave the diary out"
    assert (tmp_path / "mine/corpora/CACHEDIR.TAG").exists()


def test_the_field_of_records_makes_other_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"text": f"a{n}", "b": f"other {n}"} for n in range(40)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    usual = run(path, tmp_path / "cache")
    named = run(path, tmp_path / "cache", text_field="b")
    assert named.train_bytes > usual.train_bytes
    assert run(path, tmp_path / "cache", text_field="text").train_bytes == usual.train_bytes


def test_the_library_at_work_is_told_as_a_stage_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("\u4e2d\u6587 " * 3000, encoding="utf-8")
    train = Tokenizer.train

    def slow(kind: str, texts: object, *others: object, **options: object) -> Tokenizer:
        kept = list(texts)  # type: ignore[call-overload]
        time.sleep(0.4)
        return train(kind, kept, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tokenizer, "train", slow)
    calls: list[tuple[str, int, int]] = []
    run(tmp_path / "a.txt", tmp_path / "cache", "bpe", progress=lambda *call: calls.append(call))
    fed = [call for call in calls if call[0] == "Training the tokenizer"]
    assert fed[-1][1] == fed[-1][2] == 8100, "characters of the training split"
    assert {call[1:] for call in calls if call[0] == "Building the vocabulary"} == {(0, 0)}


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_text_without_spaces_gives_the_tokens_of_the_library(tmp_path: Path, kind: str) -> None:
    """Also where a long word is divided between the splits, and where it is cut into pieces."""
    text = "> " + "ACGGT" * 60_000 + "<|endoftext|>" + " " * 3000 + "12" * 3000
    (tmp_path / "a.txt").write_text(text)
    ready = run(tmp_path / "a.txt", tmp_path / "cache", kind, vocab_size=300, val_fraction=0.3)
    tokens = TokenFile.open(ready.token_path)
    library = Tokenizer.load(ready.tokenizer_path).inner
    n_train = int(len(text) * 0.7)
    assert tokens.train.tolist() == library.encode(text[:n_train]).ids
    assert tokens.val.tolist() == library.encode(text[n_train:]).ids


# --- the numbers of the vocabulary ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_crystal_counts_the_training_split(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_COUNT_TOKENS", 1000)
    ready = run(folder, tmp_path / "cache", kind, vocab_size=900)
    assert not ready.token_path.with_name("crystal.json").exists(), "plain runs pay nothing"
    calls: list[tuple[str, int, int]] = []
    crystal = prepare.crystal_of(ready, lambda *call: calls.append(call))
    train = TokenFile.open(ready.token_path).train
    assert crystal.counts.tolist() == [int((train == t).sum()) for t in range(ready.vocab_size)]
    assert calls[-1][0] == "Finding affixes"
    counted = [done for stage, done, _ in calls if stage == "Counting tokens"]
    assert counted[-1] == len(train)
    assert crystal.vocab_size == ready.vocab_size

    monkeypatch.setattr(prepare, "_count", None)  # the second time it is read
    assert prepare.crystal_of(ready).sha256 == crystal.sha256
    assert Crystal.load(ready.token_path.with_name("crystal.json")).sha256 == crystal.sha256
    assert run(folder, tmp_path / "cache", kind, vocab_size=900).cached


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_a_damaged_crystal_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    ready = run(folder, tmp_path / "cache", "char")
    crystal = prepare.crystal_of(ready)
    path = ready.token_path.with_name("crystal.json")
    text = path.read_text("utf-8")
    if damage == "flip":
        path.write_text(text.replace('"columns"', '"colunms"'), "utf-8")
        assert prepare.crystal_of(ready).sha256 == crystal.sha256, "it says the same"
        path.write_text(text.replace("1", "2"), "utf-8")
    elif damage == "cut":
        path.write_text(text[:-30], "utf-8")
    else:
        other = run(folder, tmp_path / "cache", "char", val_fraction=0.2)
        prepare.crystal_of(other).save(path)
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert prepare.crystal_of(ready).sha256 == crystal.sha256
    assert "made again" in caplog.text
    assert path.read_text("utf-8") == text


def test_a_crystal_that_cannot_be_cached_is_still_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ready = run(folder, tmp_path / "cache", "char")

    def denied(*_: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Crystal, "save", denied)
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert prepare.crystal_of(ready).vocab_size == ready.vocab_size
    assert "next time" in caplog.text


def test_a_crystal_of_tokens_that_are_gone_is_an_error(folder: Path, tmp_path: Path) -> None:
    ready = run(folder, tmp_path / "cache", "char")
    ready.token_path.unlink()
    with pytest.raises(DataError, match=r"tokens\.bin cannot be read"):
        prepare.crystal_of(ready)


# --- the embedded default ---------------------------------------------------------------------


def test_the_default_is_the_standard_library_without_tests_and_packages() -> None:
    paths = default_corpus()
    assert paths == default_corpus()
    assert len(paths) == len(set(paths)) > 100
    assert {"argparse.py", "heapq.py"} <= {path.name for path in paths}
    parts = {part for path in paths for part in path.relative_to(STDLIB).parts[:-1]}
    assert not parts & {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"}
    assert 1_000_000 < sum(path.stat().st_size for path in paths) <= LARGEST_BYTES


def test_the_default_can_be_prepared(tmp_path: Path) -> None:
    ready = prepare.prepare(None, kind="byte", vocab_size=0, val_fraction=0.05, cache_dir=tmp_path)
    assert ready.documents > 100
    assert "standard library" in ready.description
    tokens = TokenFile.open(ready.token_path)
    assert np.count_nonzero(tokens.train == 256) > 90
    assert 0.04 < ready.val_bytes / (ready.train_bytes + ready.val_bytes) < 0.08


def test_a_python_without_sources_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(DataError, match="comes without the sources of its standard library"):
        default_corpus()


def test_what_killed_processes_left_is_swept(folder: Path, tmp_path: Path) -> None:
    prepared = run(folder, tmp_path / "cache")
    left = [
        tmp_path / "cache" / place / f".any.{1 << 22}-01234567.tmp"
        for place in ("corpora", "requests", f"corpora/{prepared.token_path.parent.name}")
    ]
    for entry in left:
        entry.mkdir(parents=True)
    fresh = left[0].with_name(f".any.{os.getpid()}-01234567.tmp")
    fresh.mkdir()
    assert run(folder, tmp_path / "cache").cached
    assert [entry for entry in left if entry.exists()] == []
    assert fresh.exists()


def test_cached_tokens_are_found_by_their_checksum(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert prepare.cached_tokens("0" * 64, cache) is None  # there is no cache yet
    run(folder, cache, "char")
    ready = run(folder, cache, "byte")
    (cache / "corpora" / "stray").write_text("")
    found = prepare.cached_tokens(ready.tokens_sha256, cache)
    assert found is not None
    assert found.path == ready.token_path
    assert prepare.cached_tokens("0" * 64, cache) is None
    data = bytearray(ready.token_path.read_bytes())
    data[-1] ^= 1
    ready.token_path.write_bytes(data)
    assert prepare.cached_tokens(ready.tokens_sha256, cache) is None
