"""cllm: one name for every command, and what it says to those who have not found theirs yet."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline.cli import umbrella
from crystalline.cli.run import called, version_line

ROOT = Path(__file__).resolve().parents[2]
ALL = "The commands are train, infer, eval, control, export and vocab."
_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --workers 2 --plain"""


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    def call(*argv: object, program: str = "cllm") -> tuple[int, str, str]:
        capsys.readouterr()
        code = umbrella.main([str(argument) for argument in argv], program=program)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("command", umbrella.COMMANDS, ids=lambda command: command.name)
def test_a_row_leads_to_a_command_with_a_script_of_its_own(command: umbrella.Command) -> None:
    module = importlib.import_module(command.module)
    assert callable(module.main)
    assert f'cllm-{command.name} = "{command.module}:main"' in (ROOT / "pyproject.toml").read_text()


def test_help_teaches(call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    width = max(len(command.name) for command in umbrella.COMMANDS)
    for command in umbrella.COMMANDS:
        assert f"\n  {command.name:{width}}  {command.help}\n" in out
        assert f"\n  cllm {command.name} {command.example}\n" in out
    assert max(map(len, out.splitlines())) <= 80
    assert call("help") == call("-h") == (code, out, err)
    assert call() == (2, "", out)


@pytest.mark.parametrize("name", [command.name for command in umbrella.COMMANDS])
def test_the_help_of_a_command_names_it_as_it_was_called(call, name: str) -> None:
    code, out, err = call("help", name)
    assert (code, err) == (0, "")
    assert out == call(name, "--help")[1] == call("--help", name)[1]
    assert re.search(rf"^usage: cllm {name}\b", out)
    assert f"  cllm {name} " in out
    assert "cllm-" not in out


def test_version(call) -> None:
    assert call("--version") == (0, version_line() + "\n", "")
    assert call("train", "--version") == (0, version_line() + "\n", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "'trian' is not a command of cllm. Did you mean train?"),
        (["Train"], "'Train' is not a command of cllm. Did you mean train?"),
        (["cllm-infer"], "'cllm-infer' is not a command of cllm. Did you mean infer?"),
        (["help", "vocabulary"], "'vocabulary' is not a command of cllm. Did you mean vocab?"),
        (["zzz"], f"'zzz' is not a command of cllm. {ALL}"),
        ([""], f"'' is not a command of cllm. {ALL}"),
        (["--minutes"], "'--minutes' is not a command of cllm. The name of a command comes first"),
        (["x\x1b[2J"], "'x?[2J' is not a command of cllm. The"),
        (
            ["book.txt"],
            "'book.txt' is not a command of cllm. To train on that text: cllm train book.txt",
        ),
    ],
)
def test_what_is_no_command_gets_one_sentence(call, argv: list[str], words: str) -> None:
    Path("book.txt").write_text("text")
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"cllm: error: {words}")
    assert err.count("\n") == 1


def test_errors_and_advice_name_the_command_as_it_was_called(call) -> None:
    assert call("train", "--seq-len", "0")[2].startswith("cllm train: error: --seq-len is 0.")
    assert call("train", "--sq-len", "0")[2].endswith("See cllm train --help.\n")
    assert call("infer", "nothing")[2].startswith("cllm infer: error: ")
    for name in ("infer", "eval", "export"):
        assert f" as in: cllm {name} runs/NAME" in call(name)[2]
    assert "of cllm vocab. It must be" in call("vocab", "look")[2]
    module = "python -m crystalline"
    assert call("vocab", "inspect", program=module)[2] == (
        f"{module} vocab: error: no token is given. "
        f"Name one, as in: {module} vocab inspect the --from RUN.\n"
    )
    assert called("cllm-train") == "cllm-train"  # nothing of it stays


def test_a_run_says_how_to_go_on_as_it_was_called(call) -> None:
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog, and again; " * 60)
    argv = ["train", "text.txt", *_TINY.split(), "--checkpoint-dir", "cllm-train"]
    code, _, err = call(*argv, "--max-steps", 2)
    assert code == 0, err
    assert "Train longer with:  cllm train --resume cllm-train --max-steps N\n" in err
    assert 'Generate text with: cllm infer cllm-train --prompt "..."\n' in err
    code, out, _ = call("infer", "cllm-train", "--prompt", "the", "--max-tokens", 3, "--quiet")
    assert (code, out != "") == (0, True)


def test_the_package_is_the_command_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crystalline", "trian"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    name = f"{Path(sys.executable).name} -m crystalline"
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"{name}: error: 'trian' is not a command of {name}. Did you mean train?\n"
    )
