"""The documents say what is: the file tree, exit codes, links, commands and flags."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline import errors
from tools import dev

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {  # name: examples of Python that it has
    "README.md": 8,
    "docs/CRYSTALLINE.md": 4,
    "docs/EXACT.md": 9,
    "docs/PYTHON.md": 34,
}
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in PAGES}
COMMANDS = {
    "cllm-train": "crystalline.cli.train",
    "cllm-infer": "crystalline.cli.infer",
    "cllm-vocab": "crystalline.cli.vocab",
}


def shell_commands() -> list[str]:
    """Return the lines of the pages' shell blocks, without comments."""
    blocks = [b for text in TEXTS.values() for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tree is what git tracks")
def test_tree_lists_every_file_with_what_it_says_of_itself() -> None:
    _, inside, _ = dev.split_page((ROOT / dev.TREE_PAGE).read_text("utf-8"))
    assert inside == dev.tree(), "run: python3 tools/dev.py tree"


def test_the_table_of_files_is_that_of_the_package() -> None:
    _, inside, _ = dev.split_security((ROOT / "SECURITY.md").read_text("utf-8"))
    assert inside == dev.table_of_files(), "run: python3 tools/dev.py files"


@pytest.mark.parametrize("page", PAGES)
def test_python_in_the_pages_does_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path / "cache"))
    results = doctest.testfile(str(ROOT / page), module_relative=False)
    assert results.attempted == PAGES[page]
    assert results.failed == 0


def test_readme_is_short() -> None:
    assert len(README.encode()) < 15_000


def test_exit_codes_are_those_of_the_package() -> None:
    in_readme = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    in_package = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert in_readme == in_package
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", TEXTS["docs/PYTHON.md"], re.MULTILINE)
    classes = {name: int(code) for name, code in rows if name != "Interrupted"}
    assert classes == {
        kind.__name__: kind.exit_code for kind in errors.CrystallineError.__subclasses__()
    }
    assert dict(rows)["Interrupted"] == str(errors.EXIT_INTERRUPTED)


@pytest.mark.parametrize("page", [*PAGES, "docs/FILES.md", "docs/passes.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8"))
    folder = (ROOT / page).parent
    missing = [name for name in targets if "://" not in name and not (folder / name).is_file()]
    assert missing == []


def test_subcommands_of_dev_exist() -> None:
    named = set(re.findall(r"tools/dev\.py (\w+)", README))
    assert {"demo", "test"} <= named <= set(dev.COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_commands_exist(command: str) -> None:
    lines = [line for line in shell_commands() if line.startswith(command)]
    flags = {flag for line in lines for flag in re.findall(r"(?<= )--[a-z-]+", line)}
    assert flags
    code = f"from {COMMANDS[command]} import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[a-z][a-z-]*", done.stdout))
    assert flags <= known


def test_flags_in_running_text_exist() -> None:
    named = {flag for text in TEXTS.values() for flag in re.findall(r"`(--[a-z-]+)", text)}
    from dataclasses import fields

    from crystalline.cli import infer, train

    known = {
        "--" + field.name.replace("_", "-")
        for settings in (train.TrainSettings, infer.InferSettings)
        for field in fields(settings)
    }
    assert named - {"--help", "--shm-size"} <= known


def test_changelog_has_this_version() -> None:
    from crystalline import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", changelog, re.MULTILINE)
    assert any(__version__ in heading for heading in headings), headings


def test_picture_is_what_its_script_draws() -> None:
    from tools import architecture

    picture = (ROOT / "docs" / "architecture.svg").read_text("utf-8")
    command = "run: python3 tools/architecture.py docs/architecture.svg"
    assert picture == architecture.draw(), command
