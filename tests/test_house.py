"""One truth for version, build table and requirements; `tools/dev.py` says what is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

import crystalline
from tools import dev

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUP = (ROOT / "setup.py").read_text("utf-8")


# One truth


def test_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", crystalline.__version__)
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "crystalline.__version__"
    }
    try:
        installed = metadata.version("crystalline")
    except metadata.PackageNotFoundError:
        pytest.skip("imported from the source tree, not installed")
    assert installed == crystalline.__version__


def test_build_requirements_are_those_of_pyproject() -> None:
    assert dev.build_requirements() == PYPROJECT["build-system"]["requires"]


def test_every_compiled_module_is_in_the_build_table() -> None:
    table = SETUP[SETUP.index("EXTENSIONS = {") :]
    listed = re.findall(r'^    "([\w.]+)": ', table[: table.index("\n}")], re.MULTILINE)
    sources = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "crystalline").rglob("*.pyx")
    ]
    assert sorted(listed) == sorted(sources)


def test_cython_knows_every_directive() -> None:
    """Cython ignores a directive that it does not know, without a word."""
    from Cython.Compiler.Options import get_directive_defaults

    table = SETUP[SETUP.index("DIRECTIVES = {") :]
    named = re.findall(r'^    "(\w+)": ', table[: table.index("\n}")], re.MULTILINE)
    assert "boundscheck" in named
    assert set(named) <= set(get_directive_defaults())


def test_directives_stand_in_setup_only() -> None:
    found = []
    for path in (ROOT / "crystalline").rglob("*.p[yx][xd]"):
        text = path.read_text("utf-8")
        if re.search(r"^# *(cython|distutils) *:|@cython\.\w+\(|with cython\.", text, re.MULTILINE):
            found.append(path.name)
    assert found == []


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "crystalline").rglob("*.p[yx]*") if path.is_file()}
    folders = {folder for folder in folders if folder.name != "__pycache__"}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_scripts_lead_to_functions() -> None:
    import importlib

    for name, target in PYPROJECT["project"]["scripts"].items():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "python3 tools/dev.py test" in script.read_text("utf-8")
    assert "\npython3 tools/dev.py test " in (ROOT / "README.md").read_text("utf-8")


# What the machine lacks


@pytest.fixture
def include(tmp_path: Path) -> str:
    (tmp_path / "Python.h").touch()
    return str(tmp_path)


def names(missing: list[str]) -> list[str]:
    return [item.split()[0] for item in missing]


def test_nothing_is_missing_where_everything_is_there(include: str) -> None:
    assert dev.missing_packages(["cc"], include) == []


def test_missing_compiler_is_named(include: str) -> None:
    missing = dev.missing_packages(["no-such-cc", "-pthread"], include)
    assert names(missing) == ["gcc", "libc6-dev"]
    assert "'no-such-cc'" in missing[0]


def test_missing_c_headers_are_named(include: str) -> None:
    assert names(dev.missing_packages(["cc", "-nostdinc"], include)) == ["libc6-dev"]


def test_missing_python_headers_are_named(tmp_path: Path) -> None:
    missing = dev.missing_packages(["cc"], str(tmp_path))
    assert re.fullmatch(r"python3(\.\d+)?-dev", names(missing)[0])
    assert str(tmp_path) in missing[0]


def test_missing_venv_is_named(include: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "_importable", lambda *_: False)
    assert re.fullmatch(r"python3(\.\d+)?-venv", names(dev.missing_packages(["cc"], include))[0])


def test_module_that_does_not_import_is_noticed() -> None:
    assert dev._importable("venv")
    assert not dev._importable("venv", "no_such_module")


def test_what_is_missing_is_one_message_without_traceback() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "dev.py"), "build"],
        env=os.environ | {"CC": "no-such-cc -O2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "sudo apt install gcc libc6-dev" in done.stderr
    assert "Traceback" not in done.stderr


# Commands


@pytest.mark.parametrize(
    ("line", "command", "rest"),
    [
        ("test", "test", []),
        ("test -k adam --lf tests/model", "test", ["-k", "adam", "--lf", "tests/model"]),
        ("bench bench/bench_matmul.py", "bench", ["bench/bench_matmul.py"]),
        ("lint", "lint", []),
    ],
)
def test_arguments_go_on_to_pytest(line: str, command: str, rest: list[str]) -> None:
    options = dev.parse(line.split())
    assert (options.command, options.rest) == (command, rest)


@pytest.mark.parametrize("line", ["", "nonsense", "lint --fast", "build src", "tree -q"])
def test_unknown_arguments_are_usage_errors(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        dev.parse(line.split())
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_debug_switch() -> None:
    assert dev.parse(["build", "--debug"]).debug
    assert not dev.parse(["build"]).debug


def test_exit_status_of_a_command_is_passed_on() -> None:
    assert dev.call([sys.executable, "-c", "raise SystemExit(75)"]) == 75
    assert dev.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


def test_interrupt_leaves_the_command_time_to_save(tmp_path: Path) -> None:
    saver = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.2)\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(30)\n"
    )
    caller = (
        "import pathlib, sys\nfrom tools import dev\n"
        "dev.ROOT = pathlib.Path.cwd()\n"
        f"sys.exit(dev.call([sys.executable, '-c', {saver!r}]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", caller],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "saved").exists()


def test_environment_of_commands_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("KEPT", "1")
    env = dev.clean_environment(EXTRA="2")
    assert "PYTHONPATH" not in env
    assert (env["KEPT"], env["EXTRA"]) == ("1", "2")
    assert env["PATH"].startswith(str(dev.VENV / "bin") + os.pathsep)


def test_failing_build_shows_the_end_of_its_output(tmp_path: Path) -> None:
    code = "print('fir' + 'st'); print(*range(100), sep='\\n'); raise SystemExit(3)"
    with pytest.raises(dev.DeveloperError) as caught:
        dev.call_quietly([sys.executable, "-c", code], tmp_path / "logs" / "build.log")
    message = str(caught.value)
    assert "\n99\n" in message
    assert "first" not in message
    assert "exit status 3" in message
    assert "first" in (tmp_path / "logs" / "build.log").read_text()


# Stamps


def test_stamp_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "stamp.json"
    assert dev.read_stamp(path) == {}
    dev.write_stamp(path, key="k", extras=["test"])
    assert dev.read_stamp(path) == {"key": "k", "extras": ["test"]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["stamp.json"]


@pytest.mark.parametrize("text", ["", '{"key": ', "[1]"])
def test_damaged_stamp_means_start_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stamp.json"
    path.write_text(text)
    assert dev.read_stamp(path) == {}


def test_hash_tells_where_one_part_ends() -> None:
    assert dev.hash_of("ab", "c") != dev.hash_of("a", "bc")
    assert dev.hash_of("ab", b"c") == dev.hash_of(b"ab", "c")


def test_demo_never_takes_a_directory_that_is_there(tmp_path: Path) -> None:
    assert dev.free_run_directory(tmp_path / "runs").name == "demo-1"
    assert dev.free_run_directory(tmp_path / "runs").name == "demo-2"  # the first is made
    (tmp_path / "demo-1").mkdir()
    (tmp_path / "demo-2").touch()
    assert dev.free_run_directory(tmp_path).name == "demo-3"


# The file tree


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""One thing.  And more."""\n', "One thing."),
        ("a.py", '#!/usr/bin/env python3\n"""Two\nlines: yes.\n\nMore.\n"""\n', "Two lines: yes."),
        ("a.pyx", '# cython: x=1\n\nr"""Version 1.5 of it"""\n', "Version 1.5 of it."),
        ("a.pxd", "# A door.\n# Wide.\ncimport x\n", "A door."),
        ("a.h", "/* Tiles: small.\n * Fast. */\n", "Tiles: small."),
        ("a.h", "/*\n * Rows\n * of it\n *\n * More\n */\n", "Rows of it."),
        ("a.c", "// One level,\n// included.\n#include <x.h>\n", "One level, included."),
        ("LOG.md", "# What was tried\n\nMuch.\n", "What was tried."),
        ("rows.pyi", "def f() -> None: ...\n", "The types of rows.pyx."),
        ("py.typed", "", "Marks the package as typed (PEP 561)."),
    ],
)
def test_files_describe_themselves(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    assert dev.describe(tmp_path / name) == expected


@pytest.mark.parametrize("text", ["import os\n", 'x = 1\n"""Late."""\n', ""])
def test_file_that_does_not_describe_itself_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    (tmp_path / "mute.py").write_text(text)
    with pytest.raises(dev.DeveloperError, match=r"mute\.py does not open with"):
        dev.describe(tmp_path / "mute.py")


def test_page_without_markers_is_an_error() -> None:
    with pytest.raises(dev.DeveloperError, match="lacks the lines"):
        dev.split_page("# Title\n" + dev.TREE_BEGIN)


def test_page_of_files_is_split_at_the_markers() -> None:
    parts = dev.split_page("a\n" + dev.TREE_BEGIN + "b\n" + dev.TREE_END + "c\n")
    assert parts == ("a\n" + dev.TREE_BEGIN, "b\n", dev.TREE_END + "c\n")
