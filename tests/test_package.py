"""`import crystalline`: cheap, and everything that it offers is there, with types."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import crystalline

ROOT = Path(__file__).resolve().parent.parent


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import crystalline; dir(crystalline); "
        "print(*sorted(set(sys.modules) - before))"
    )
    assert set(python(code).stdout.split()) == {"crystalline"}


def test_every_name_is_there_and_in_the_stub() -> None:
    stub = ast.parse((ROOT / "crystalline" / "__init__.pyi").read_text("utf-8"))
    typed = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == crystalline._HOMES
    for name in crystalline.__all__:
        assert getattr(crystalline, name) is not None, name
    assert set(crystalline.__all__) <= set(dir(crystalline))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        _ = crystalline.tarin


def test_help_tells_of_training() -> None:
    shown = python("import crystalline; help(crystalline.train)").stdout
    assert "Train a model on files and folders of text, and return the run." in shown
    assert "num_layers: 'int | None' = None" in shown
    assert "The training engine: Node Zero" in shown


@pytest.mark.parametrize(
    "first",
    [
        "import crystalline.train.config",
        "import crystalline.train",
        "from crystalline import train",
    ],
)
def test_train_is_the_function_and_the_package(first: str) -> None:
    code = (
        f"{first}; import crystalline as cl, inspect; "
        "from crystalline.train.config import TrainConfig; "
        "assert callable(cl.train) and cl.train.config.TrainConfig is TrainConfig; "
        "assert 'seq_len' in inspect.signature(cl.train).parameters\n"
        "try: cl.train(seq_len=0)\n"
        "except cl.UsageError as error: print(error)"
    )
    done = python(code)
    assert done.stdout == "seq_len is 0. It must be at least 1.\n", done.stderr
