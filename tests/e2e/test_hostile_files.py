"""Files of strangers in the hands of the real commands: bounded memory and time, a quiet terminal.

`tests/untrusted` tries every variant in process; here a few go through the whole command, with a
limit on its memory, and on a terminal of its own.
"""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.commands import command, environment, files_below, marked, run
from tests.e2e.conftest import Finished

MEMORY_BYTES = 4 << 30  # of addresses: threads and libraries take most of it
TIMEOUT_S = 30.0
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
STYLE = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[KAG]|\r")  # our own


def limited(
    program: str,
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: int | Path = subprocess.DEVNULL,
    umask: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command that may not take much memory, and that must end."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        if umask is not None:
            os.umask(umask)

    own = environment({"OPENBLAS_NUM_THREADS": "1"} | dict(env or {}))
    opened = os.open(stdin, os.O_RDONLY) if isinstance(stdin, Path) else stdin
    try:
        done = subprocess.run(
            command(program, *arguments),
            cwd=cwd,
            env=own,
            stdin=opened,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            preexec_fn=limit,
        )
    finally:
        if isinstance(stdin, Path):
            os.close(opened)
    assert marked(own["CRYSTALLINE_E2E"]) == []
    return done


def require_refusal(
    done: subprocess.CompletedProcess[str], code: int, *, told: bool = False
) -> str:
    """Return the last line of stderr of a command that said no: the only one, unless it `told`."""
    assert done.returncode == code, done.stderr[-2000:]
    assert done.stdout == ""
    assert len(done.stderr) < 3000
    *before, line = done.stderr.splitlines()
    assert all(map(str.isprintable, [*before, line]))
    assert not before or told, before
    assert ": error: " in line
    return line


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished.path, tmp_path / "run", symlinks=True))


# --- what does not end ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/tty"])
def test_nothing_but_files_is_read(copied: Path, kind: str, tmp_path: Path) -> None:
    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(kind)
        return path

    model = tmp_path / "model"
    shutil.copytree(copied / "checkpoints" / "step-00000030", model)
    given = put(tmp_path / "given")
    config = ("cllm-train", "--config", given)
    assert "cannot be read" in require_refusal(limited(*config, cwd=tmp_path), 2)
    require_refusal(limited("cllm-infer", model, "--perplexity", given, cwd=tmp_path), 3)
    require_refusal(limited("cllm-train", given, cwd=tmp_path), 3)
    put(copied / "metrics.jsonl")
    resumed = limited("cllm-train", "--resume", copied, "--max-steps", "31", cwd=tmp_path)
    require_refusal(resumed, 1, told=True)
    put(model / "model.safetensors")
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"]["model.safetensors"]["size_bytes"] = 0
    (model / "manifest.json").write_text(json.dumps(manifest))
    require_refusal(limited("cllm-infer", model, "--prompt", "a", cwd=tmp_path), 4)


def test_an_endless_standard_input_is_refused(copied: Path, tmp_path: Path) -> None:
    done = limited("cllm-infer", copied, "--prompt", "-", stdin=Path("/dev/zero"), cwd=tmp_path)
    assert "more than the 1,000,000,000 bytes" in require_refusal(done, 3)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80"])
def test_a_standard_input_that_is_no_text_is_refused(
    copied: Path, content: bytes, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_bytes(content)
    for flag in ("--prompt", "--perplexity"):
        done = limited("cllm-infer", copied, flag, "-", stdin=given, cwd=tmp_path)
        require_refusal(done, 3)


# --- the terminal ---------------------------------------------------------------------------------


def on_terminal(program: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Return all that a command writes to a terminal, which is its input too."""
    main, side = pty.openpty()
    own = environment({"TERM": "xterm", "LC_ALL": "C.UTF-8"} | dict(env))
    try:
        with subprocess.Popen(
            command(program, *arguments), cwd=cwd, env=own, stdin=side, stdout=side, stderr=side
        ) as process:
            os.close(side)
            written = b""
            ends_s = time.monotonic() + TIMEOUT_S
            while time.monotonic() < ends_s:
                ready, _, _ = select.select([main], [], [], 0.5)
                if not ready and process.poll() is not None:
                    break
                try:
                    part = os.read(main, 1 << 16) if ready else b""
                except OSError:  # the last of them has closed it
                    break
                written += part
            process.wait(timeout=TIMEOUT_S)
    finally:
        os.close(main)
    return written.decode("utf-8", "surrogateescape")


def require_quiet(written: str) -> str:
    """Return what was written to a terminal without our own style; nothing else may be obeyed."""
    text = STYLE.sub("", written)
    left = {c for c in text if not c.isprintable() and c not in "\n\t"}
    assert not left, (left, text[:500])
    return text


def test_names_give_no_orders_to_the_terminal(copied: Path, tmp_path: Path) -> None:
    hostile = tmp_path / f"run{ESCAPES}"
    shutil.copytree(copied, hostile, symlinks=True)
    settings = tmp_path / "settings.toml"
    settings.write_text('"\\u001b[2J\\u009b31m" = 5\n')
    text = tmp_path / f"text{ESCAPES}.txt"
    text.write_text("hello " * 300)
    for program, arguments, env in (
        ("cllm-train", ["--config", settings], {}),
        ("cllm-train", ["--resume", f"none{ESCAPES}"], {}),
        ("cllm-train", [ESCAPES], {}),
        ("cllm-train", ["--tokenizer", ESCAPES], {}),
        ("cllm-train", [text, "--tokenizer=byte", "--plain", "--max-steps=1", "--num-layers=1",
                        "--num-heads=1", "--embed-dim=4", "--seq-len=16", "--batch-size=12",
                        "--workers=1", f"--checkpoint-dir=new{ESCAPES}"], {}),
        ("cllm-train", [text], {f"CLLM_{ESCAPES}": "1"}),
        ("cllm-train", [text], {"CLLM_SEED": ESCAPES}),
        ("cllm-train", ["--help"], {"CLLM_TEXT_FIELD": ESCAPES}),
        ("cllm-train", [text], {"CLLM_CACHE": str(text)}),
        ("cllm-infer", [hostile, "--prompt", f"the {ESCAPES}", "--max-tokens", "3"], {}),
        ("cllm-infer", [hostile, "--prompt", "the", "--checkpoint", ESCAPES], {}),
        ("cllm-infer", [hostile, "--prompt", "the", "--max-tokens", "3", "--stop", ESCAPES], {}),
        ("cllm-infer", [hostile, "--prompt", "the", "--temperature", ESCAPES], {}),
        ("cllm-vocab", ["inspect", ESCAPES, "the"], {}),
        ("cllm-vocab", [ESCAPES], {}),
    ):  # fmt: skip
        written = on_terminal(program, *arguments, cwd=tmp_path, env=env)
        assert require_quiet(written), arguments


def test_generated_text_gives_no_orders_to_the_terminal(tmp_path: Path) -> None:
    """A model that was trained on nothing else writes little but escape sequences."""
    text = tmp_path / "escapes.txt"
    text.write_text("\x1b[2J\x1b[31m\x07\x9b5m\r" * 400)
    made = run(
        "cllm-train", text, "--tokenizer=char", "--num-layers=1", "--num-heads=1", "--embed-dim=8",
        "--seq-len=8", "--batch-size=12", "--max-steps=30", "--workers=1", "--checkpoint-dir=run",
        cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for more in (["--seed=1"], ["--beam=2"], ["--num-samples=2", "--seed=2"]):
        arguments = ["run", "--prompt=\x1b[2J", "--max-tokens=30", *more]
        written = on_terminal("cllm-infer", *arguments, cwd=tmp_path, env={})
        assert "\\x1b[" in require_quiet(written)
        piped = run("cllm-infer", *arguments, cwd=tmp_path)
        assert "\x1b" in piped.stdout  # a pipe gets the text as it is


# --- modes ----------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in [folder, *folder.rglob("*")]
        if not path.is_symlink()
    }


def test_a_private_run_stays_private(copied: Path, tmp_path: Path) -> None:
    copied.chmod(0o700)
    done = limited(
        "cllm-train", "--resume", copied, "--max-steps=31", "--quiet", cwd=tmp_path, umask=0o027
    )
    assert done.returncode == 0, done.stderr
    found = modes(copied)
    assert found["."] == 0o700
    fresh = {name: mode for name, mode in found.items() if "step-00000031" in name}
    assert len(fresh) >= 7
    assert all(not mode & 0o027 for mode in fresh.values())
    assert not found["config.toml"] & 0o027


@pytest.mark.parametrize("umask", [0o777, 0o277])
def test_a_umask_that_takes_everything_is_one_sentence(
    umask: int, text: Path, tmp_path: Path
) -> None:
    own = {"CLLM_CACHE": str(tmp_path / "cache")}
    done = limited(
        "cllm-train", text, "--tokenizer=char", "--num-layers=1", "--num-heads=1", "--embed-dim=4",
        "--seq-len=8", "--max-steps=1", "--workers=1", "--plain", "--quiet",
        f"--checkpoint-dir={tmp_path / 'new'}", cwd=tmp_path, umask=umask, env=own,
    )  # fmt: skip
    for path in [tmp_path, *tmp_path.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    assert "Traceback" not in done.stderr, done.stderr
    if os.geteuid() == 0:  # for whom modes are no obstacle
        assert done.returncode == 0, done.stderr
    else:
        require_refusal(done, done.returncode)
        assert done.returncode in (1, 2, 3)


# --- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["cllm-train", "cllm-infer", "cllm-vocab"])
def test_a_level_that_no_machine_has_is_an_error_of_usage(program: str, tmp_path: Path) -> None:
    own = {"CRYSTALLINE_ISA": "zzz"}
    line = require_refusal(limited(program, "--version", cwd=tmp_path, env=own), 2)
    assert line.startswith(f"{program}: error: CRYSTALLINE_ISA is 'zzz'")


def test_the_kernels_say_what_they_lack(tmp_path: Path) -> None:
    own = environment({"CRYSTALLINE_ISA": "zzz"})
    code = "import crystalline._kernels.isa"
    done = subprocess.run(
        [*command("cllm-train")[:2], code], cwd=tmp_path, env=own, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "UnsupportedError: CRYSTALLINE_ISA is 'zzz'" in done.stderr


# --- a whole run of links -------------------------------------------------------------------------


def test_a_run_that_is_a_trap_harms_nobody(copied: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "checkpoints" / ".step-00000001.1-000000000000.tmp").mkdir(parents=True)
    (outside / "metrics.jsonl").write_text("precious\n")
    before = files_below(outside)
    for name in ("run.lock", "metrics.jsonl", "checkpoints"):
        trap = tmp_path / f"trap-{name}"
        shutil.copytree(copied, trap, symlinks=True)
        target = trap / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        target.symlink_to(outside / name)
        for arguments in (["--resume", trap, "--max-steps=31"], ["--checkpoint-dir", trap]):
            done = limited("cllm-train", *arguments, cwd=tmp_path)
            assert done.returncode in (1, 2, 4), done.stderr
            assert files_below(outside) == before
