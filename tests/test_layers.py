"""The layers of pyproject.toml hold, and both checkers of them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import check_cimports
from tools.check_cimports import check, imports, judge, read_layers

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in `folder`."""
    code = "import importlinter.cli as c; raise SystemExit(c.lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """A package that has every layer, keeps to all of them, and is otherwise empty."""
    shutil.copy(PYPROJECT, tmp_path)
    package = tmp_path / "crystalline"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in read_layers(PYPROJECT):
        (package / name).mkdir()
        (package / name / "__init__.py").touch()
    (package / "train" / "stats.py").touch()
    (package / "train" / "engine.py").touch()
    (package / "ui" / "board.py").write_text("from crystalline.train.stats import x\n")
    return tmp_path


def test_import_linter_is_content() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cimports_keep_to_the_layers() -> None:
    breaches = check(ROOT, read_layers(PYPROJECT))
    assert not breaches, "\n".join(map(str, breaches))


def test_import_linter_accepts_the_skeleton(skeleton: Path) -> None:
    done = lint_imports(skeleton)
    assert done.returncode == 0, done.stdout + done.stderr
    assert check(skeleton, read_layers(skeleton / "pyproject.toml")) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("train/engine.py", "import crystalline.ui.board"),
        ("model/gpt2.py", "from crystalline import data"),
        ("ui/chart.py", "from crystalline.train.engine import run"),
        ("other/__init__.py", ""),
    ],
)
def test_import_linter_can_fail(skeleton: Path, file: str, line: str) -> None:
    path = skeleton / "crystalline" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line + "\n")
    done = lint_imports(skeleton)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "text", "imported"),
    [
        ("_kernels/a.pyx", "from crystalline.ipc.words cimport load", "crystalline.ipc.words.load"),
        ("_kernels/a.pxd", "cimport crystalline.model.gpt2 as g", "crystalline.model.gpt2"),
        ("model/a.pyx", "def f():\n    import numpy, crystalline.data", "crystalline.data"),
        (
            "ipc/a.pyx",
            "from crystalline cimport (  # why\n    errors,\n    data)",
            "crystalline.data",
        ),
        ("data/a.py", "from ..train import engine", "crystalline.train.engine"),
        ("infer/__init__.py", "from ..train cimport gpt2 as g", "crystalline.train.gpt2"),
        ("errors/a.pyi", "from crystalline._kernels \\\n  import isa", "crystalline._kernels.isa"),
        ("ui/a.py", "x = 1; import crystalline.cli", "crystalline.cli"),
        ("ipc/a.pyx", "import crystalline.stranger", "crystalline.stranger"),
    ],
)
def test_cimports_can_fail(skeleton: Path, file: str, text: str, imported: str) -> None:
    (skeleton / "crystalline" / file).write_text(text + "\n")
    breaches = check(skeleton, read_layers(skeleton / "pyproject.toml"))
    assert [breach.imported for breach in breaches] == [imported]


@pytest.mark.parametrize(
    "text",
    [
        '"""\nfrom crystalline.ui import board\n"""\n',
        "# import crystalline.ui\n",
        "x = 'import crystalline.ui'\n",
        'cdef extern from "ui.h":\n    int important(int a,\n        int b)\n',
    ],
)
def test_prose_is_not_an_import(text: str) -> None:
    assert list(imports(text, "crystalline.ipc.a", is_package=False)) == []


def test_line_numbers_survive_docstrings_and_continuations() -> None:
    text = (
        '"""One\ntwo."""\nimport a, \\\n  b\nfrom c cimport (\n    d,\n    e as f,\n)\nimport g\n'
    )
    found = list(imports(text, "crystalline.ipc.x", is_package=False))
    assert found == [(3, "a"), (3, "b"), (5, "c.d"), (5, "c.e"), (9, "g")]


def test_places_come_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "pyproject.toml"
    table.write_text(
        "[[tool.importlinter.contracts]]\ntype = 'layers'\nlayers = ['a | (b)', 'c : d | e']\n"
    )
    places = read_layers(table)
    allowed = {(x, y) for x in places for y in places if judge(x, y, places) is None}
    own = {(x, x) for x in "abcde"}
    down = {(x, y) for x in "ab" for y in "cde"}
    assert allowed == own | down | {("c", "d"), ("d", "c")}


def test_the_command_reports_and_fails(
    skeleton: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_cimports, "ROOT", skeleton)
    assert check_cimports.main() == 0
    (skeleton / "crystalline" / "log" / "a.pyx").write_text("\ncimport crystalline.cli\n")
    assert check_cimports.main() == 1
    assert capsys.readouterr().out == (
        "crystalline/log/a.pyx:2: crystalline.cli: cli stands above log\n"
    )
