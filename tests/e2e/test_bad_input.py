"""Bad input: one sentence with the value, one with the remedy, the exit code, and nothing else.

Every case is a command in a folder of its own; afterwards no process is left
(`commands.run` looks) and every file is as it was.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.commands import TINY, command, environment, files_below, run, training, words
from tests.e2e.conftest import Finished

USAGE, DATA, CHECKPOINT = 2, 3, 4


@dataclass(frozen=True)
class Case:
    """What is typed, in a folder with `text.txt`, and what must come of it."""

    name: str
    arguments: str
    code: int
    says: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


CASES = (
    # Text.
    Case("a folder without files", "empty", DATA, ("/empty is empty",)),
    Case("no such file", "missing.txt", DATA, ("missing.txt does not exist", "Check the path")),
    Case("no name at all", "''", USAGE, ("a DATA argument is empty",)),
    Case(
        "a binary file", "tool.txt", DATA, ("tool.txt is a binary file (NUL byte at offset 3)",),
        {"tool.txt": b"ELF\0" * 90},
    ),
    Case(
        "not UTF-8", "latin.txt", DATA, ("byte 0xef at offset 2", "Convert it to UTF-8"),
        {"latin.txt": b"na\xefve " * 90},
    ),
    Case(
        "three characters", "three.txt", DATA, ("too few for --seq-len 16", "Give more text"),
        {"three.txt": b"abc"},
    ),
    Case("a context longer than the text", "text.txt --seq-len 90000", DATA,
         ("too few for --seq-len 90000", "or use --seq-len ")),
    # Flags.
    Case("an unknown value", "text.txt --lr-schedule cosin", USAGE, ("'cosin'", "'cosine'")),
    Case("an unknown flag", "text.txt --seqlen 4", USAGE, ("--seqlen", "cllm-train --help")),
    Case("not a number", "text.txt --seq-len many", USAGE, ("--seq-len", "'many'", "whole number")),
    Case("heads that do not divide the channels", "text.txt --num-heads 3", USAGE,
         ("--embed-dim 16 cannot be divided among --num-heads 3", "--embed-dim 15")),
    Case("no workers", "text.txt --workers 0", USAGE, ("--workers is 0", "between 1 and 63")),
    Case("too many workers", "text.txt --workers 64", USAGE, ("--workers is 64",)),
    Case("less than no workers", "text.txt --workers -1", USAGE, ("--workers is -1",)),
    Case("lanes that are not twelvefold", "text.txt --lanes 13", USAGE, ("--lanes is 13", "of 12")),
    Case("for ever", "text.txt --epochs inf", USAGE, ("--epochs is inf", "finite")),
    Case("an infinite rate", "text.txt --learning-rate inf", USAGE, ("--learning-rate is inf",)),
    Case("a giant batch", "text.txt --batch-size 999999999999", USAGE, ("--batch-size 9999999",)),
    Case("a giant seed", "text.txt --seed 99999999999999999999", USAGE, ("--seed is 9999999",)),
    Case("a giant model", "text.txt --embed-dim 200000", USAGE,
         ("--embed-dim 200000 needs at least 7.68 TB of memory, and", "Use --embed-dim ")),
    Case("giant heads", "text.txt --num-heads 999999937 --embed-dim 999999937", USAGE,
         ("--embed-dim 999999937, --num-layers 1 and --seq-len 16 needs", "Use smaller ones")),
    Case("a number of many digits", f"text.txt --embed-dim {'9' * 400}", USAGE,
         ("--embed-dim is a number of 400 digits", "The most is 2,147,483,647")),
    Case("more layers than anybody has", "text.txt --num-layers 1000000000", USAGE,
         ("--num-layers is 1000000000", "The most is 1,000")),
    Case("a context for which there is no memory", "text.txt --seq-len 2000000000", USAGE,
         ("--seq-len 2000000000 needs", "Use --seq-len ")),
    Case("lanes that nobody can use",
         "text.txt --lanes 1200000 --batch-size 1000000 --embed-dim 1024", USAGE,
         ("--lanes is 1200000", "The most is 12,000")),
    # Other places of settings.
    Case("an unknown key", "text.txt --config my.toml", USAGE,
         ("my.toml has an unknown key 'sequence_len'", "Did you mean seq_len?"),
         {"my.toml": b"sequence_len = 3\n"}),
    Case("a wrong type in the file", "text.txt --config my.toml", USAGE,
         ("seq_len = 'x'", "a whole number"), {"my.toml": b'seq_len = "x"\n'}),
    Case("not TOML", "text.txt --config my.toml", USAGE, ("is not valid TOML",),
         {"my.toml": b"seq_len =\n"}),
    Case("a variable of the wrong type", "text.txt", USAGE,
         ("CLLM_DROPOUT is 'low'", "It must be a number"), env={"CLLM_DROPOUT": "low"}),
    Case("an unknown variable", "text.txt", USAGE, ("CLLM_EPOCH ", "CLLM_EPOCHS?"),
         env={"CLLM_EPOCH": "3"}),
    # Places to write to.
    Case("below a file", "text.txt --checkpoint-dir text.txt/run", USAGE, ("(Not a directory)",)),
    Case("a file", "text.txt --checkpoint-dir text.txt", USAGE, ("text.txt is a file",)),
    Case("nowhere to write", "text.txt --checkpoint-dir /proc/run", USAGE,
         ("/proc/run cannot be written",)),
    Case("a directory of something else", "text.txt --checkpoint-dir mine", USAGE,
         ("the run directory mine is not empty",), {"mine/diary.txt": b"dear diary"}),
    # Runs to go on with.
    Case("no run", "--resume", CHECKPOINT, ("no run with a checkpoint in runs/", "--resume RUN")),
    Case("a run that is not there", "--resume gone", CHECKPOINT, ("there is no run at gone",)),
)  # fmt: skip


def is_one_sentence_with_advice(err: str, program: str = "cllm-train") -> bool:
    pattern = rf"{program}: error: [^\n]*[^\n.]\. [A-Z][^\n]*[.?)]\n"
    return re.fullmatch(pattern, err) is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(words(4000))
    (tmp_path / "empty").mkdir()
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    before = files_below(tmp_path)
    given = [part if part != "''" else "" for part in case.arguments.split()]
    is_new = not given[0].startswith("--")
    sizes = (*TINY, "--max-steps=3", "--quiet") if is_new else ()
    done = run("cllm-train", *sizes, *given, cwd=tmp_path, env=case.env)
    assert done.returncode == case.code, done.stderr
    assert done.stdout == ""
    last = done.stderr.splitlines(keepends=True)[-1]
    assert is_one_sentence_with_advice(last), done.stderr
    for word in case.says:
        assert word in last
    assert done.stderr == last
    assert "Traceback" not in done.stderr
    assert files_below(tmp_path) == before


# --- what works although it is unusual ------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    ["few.txt", "few.txt few.txt", ". .", "few.txt --workers 63", "few.txt --val-fraction 0"],
)
def test_unusual_input_works(arguments: str, tmp_path: Path) -> None:
    """Fewer windows than lanes, and a text that is named twice (and read once)."""
    (tmp_path / "few.txt").write_text(words(120))
    done = run(
        "cllm-train", *arguments.split(), *TINY, "--max-steps=4", "--json",
        "--checkpoint-dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["final_step"] == 4
    assert "1 document," in done.stderr


# --- run directories and checkpoints --------------------------------------------------------------


def test_a_run_directory_in_use(finished: Finished, tmp_path: Path) -> None:
    endless = (*finished.arguments, "--max-steps=100000000")
    with training(*endless, "--checkpoint-dir=run", run_dir=tmp_path / "run", cwd=tmp_path) as it:
        it.wait_for_step(3)
        for arguments in ((*endless, "--checkpoint-dir=run"), ("--resume=run",)):
            done = run("cllm-train", *arguments, cwd=tmp_path)
            assert done.returncode == USAGE
            assert is_one_sentence_with_advice(done.stderr)
            assert f"run is in use by process {it.process.pid}" in done.stderr
        step = it.step()
        it.wait_for_step(step + 3)  # undisturbed
        it.process.terminate()
        assert it.end()[0] == 143
        it.assert_all_gone()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip_a_bit])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint(
    finished: Finished, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    """It is found by its hash; the one before it is offered, and leads to the same weights."""
    shutil.copytree(finished.path, tmp_path / "run", symlinks=True)
    damage(tmp_path / "run" / "checkpoints" / "step-00000030" / name)
    before = files_below(tmp_path)
    done = run("cllm-train", "--resume=run", cwd=tmp_path)
    assert done.returncode == CHECKPOINT
    assert is_one_sentence_with_advice(done.stderr)
    assert f"step-00000030 is damaged: {name}" in done.stderr
    assert files_below(tmp_path) == before
    offered = re.search(r"step 20 is undamaged: go on with --resume (\S+)\.$", done.stderr)
    assert offered is not None
    again = run("cllm-train", "--resume", offered[1], "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["weights_sha256"] == finished.result["weights_sha256"]
    assert run("cllm-train", "--resume=run", "--quiet", cwd=tmp_path).returncode == 0


def test_a_damaged_model_writes_no_text(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run", symlinks=True)
    flip_a_bit(tmp_path / "run" / "checkpoints" / "step-00000030" / "model.safetensors")
    done = run("cllm-infer", "run", "--checkpoint=latest", "--prompt=a", cwd=tmp_path)
    assert done.returncode == CHECKPOINT
    assert done.stdout == ""
    assert is_one_sentence_with_advice(done.stderr, "cllm-infer")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("--seq-len 8", USAGE, "--seq-len 8 differs from the 16 that the run run was started with"),
        ("--max-steps 29", USAGE, "the run has done 30 steps, more than the 29 wanted"),
        ("--checkpoint-dir other", USAGE, "--checkpoint-dir other cannot be combined"),
        ("other.txt", DATA, "is not the text that the checkpoint"),
    ],
)
def test_what_a_run_cannot_go_on_with(
    finished: Finished, tmp_path: Path, arguments: str, code: int, says: str
) -> None:
    shutil.copytree(finished.path, tmp_path / "run", symlinks=True)
    (tmp_path / "other.txt").write_text(words(4000, seed=2))
    before = files_below(tmp_path)
    done = run("cllm-train", "--resume=run", "--quiet", *arguments.split(), cwd=tmp_path)
    assert done.returncode == code
    assert is_one_sentence_with_advice(done.stderr)
    assert says in done.stderr
    assert files_below(tmp_path) == before


def test_a_finished_run_goes_on_when_it_is_asked_to(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run", symlinks=True)
    done = run("cllm-train", "--resume=run", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["weights_sha256"] == finished.result["weights_sha256"]
    assert "Train longer with:  cllm-train --resume run --max-steps N" in done.stderr
    done = run("cllm-train", "--resume=run", "--minutes=0.01", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["final_step"] > 30


def test_a_full_disk_costs_no_checkpoint(finished: Finished, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    # In a name space of its own, so that nothing is left mounted; that needs a right.
    prefix = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, *mount], check=False).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    arguments = (*finished.arguments, "--max-steps=80", "--keep=50", "--checkpoint-dir=disk/run")
    resume = command("cllm-train", "--resume=disk/run/checkpoints/step-00000010", "--keep=1")
    script = """
        {mount} || exit 90
        {train}; echo "exit $?" >&2
        rm -r disk/run/checkpoints/step-000000[23]0
        {resume}; echo "exit $?" >&2
    """.format(
        mount=shlex.join(mount),
        train=shlex.join(command("cllm-train", *arguments)),
        resume=shlex.join(resume),
    )
    done = subprocess.run(
        [*prefix, "sh", "-c", script], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    first, _, second = done.stderr.partition("exit 1\n")
    assert "cannot be written" in first
    last = first.splitlines(keepends=True)[-1]
    assert is_one_sentence_with_advice(last), done.stderr
    assert "No space left on device" in last
    assert "Free some space. The checkpoint of step " in last
    assert second.endswith("exit 0\n"), done.stderr
    assert "Traceback" not in done.stderr


# --- the outputs ----------------------------------------------------------------------------------


def test_closed_and_full_outputs(finished: Finished, tmp_path: Path) -> None:
    """The training comes first: it ends, and is saved, whoever listens."""
    train = shlex.join(command("cllm-train", *finished.arguments, "--json", "--checkpoint-dir"))
    for index, (redirection, code) in enumerate(
        {
            "</dev/null 2>/dev/null": 0,
            "<&- 2>/dev/null": 0,
            "2>&-": 0,
            ">/dev/full": 1,
            "2>/dev/full": 0,
            "<&- >&- 2>&-": 0,
            "2>/dev/null | true; exit ${PIPESTATUS[0]}": 141,
            "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}": 0,
        }.items()
    ):
        done = subprocess.run(
            ["bash", "-c", f"{train} run{index} {redirection}"], cwd=tmp_path, env=environment(),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (redirection, done.stderr)
        assert "Traceback" not in done.stderr, redirection
        latest = tmp_path / f"run{index}" / "latest"
        assert latest.readlink().name == "step-00000030", redirection


@pytest.mark.parametrize(
    ("before", "code", "says"),
    [
        ("export TMPDIR=/nowhere TMP=/nowhere TEMP=/nowhere;", 0, ""),
        ("export LC_ALL=xx_YY.UTF-8;", 0, ""),
        ("unset HOME CLLM_CACHE; export XDG_CACHE_HOME=$PWD/cache;", 0, ""),
        ("ulimit -n 8;", 1, "Too many open files. Raise the limit on open files (ulimit -n).\n"),
        ("ulimit -v 60000;", 1, "(ulimit -"),
        ("ulimit -f 100;", 2, "limit on files, which count, is 102 kB (ulimit -f). Raise that"),
        ("cd gone; rmdir ../gone;", 1, "current directory does not exist any more. Change to"),
        ("exec 2>/dev/full; set -- --bad;", 2, ""),
    ],
    ids=["tmp", "locale", "home", "files", "memory", "file size", "directory", "stderr"],
)  # fmt: skip
def test_what_a_machine_refuses(tmp_path: Path, before: str, code: int, says: str) -> None:
    """A run works, or ends with a sentence; never with a traceback."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "text.txt").write_text(words(4000))
    train = shlex.join(command("cllm-train", *TINY, "--max-steps=2"))
    done = subprocess.run(
        ["bash", "-c", f'{before} {train} "$@"', "-", "text.txt"], cwd=tmp_path,
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("options", ["ro", "size=64k"])
def test_a_dev_shm_that_has_no_room(tmp_path: Path, options: str) -> None:
    """A file in the run directory does instead, without a word from Python's resource tracker."""
    (tmp_path / "text.txt").write_text(words(4000))
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    prefix = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, mount], check=False).returncode:
        pytest.skip("this machine does not let us mount a small /dev/shm")
    arguments = ("text.txt", *TINY, "--max-steps=2", "--quiet", "--checkpoint-dir=run")
    done = subprocess.run(
        [*prefix, f"{mount} && {shlex.join(command('cllm-train', *arguments))}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"/dev/shm cannot hold [^\n]* a file in run instead[^\n]*\n", done.stderr)
    assert not list((tmp_path / "run").glob(".cllm-*"))


def test_help_answers_at_once(tmp_path: Path) -> None:
    for program in ("cllm-train", "cllm-infer"):
        best = float("inf")
        for _ in range(3):
            began = time.monotonic()
            done = run(program, "--help", cwd=tmp_path)
            best = min(best, time.monotonic() - began)
            assert done.returncode == 0
        assert best < 0.5
