#!/usr/bin/env python3
"""The developer's one command: environment, build, tests, lint, demo, benchmarks.

    python3 tools/dev.py demo     train on the embedded default for two minutes, then generate
    python3 tools/dev.py test     build and run every test; further arguments go to pytest
    python3 tools/dev.py --help   the rest

It needs Python 3.10 or newer with venv, a C compiler and the Python headers,
and says which of them is missing.  Everything else goes into `.venv` in the
repository.  Each step is skipped when what it depends on has not changed.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - said here, before an older Python stumbles
    sys.exit(f"tools/dev.py needs Python 3.10 or newer; this is {sys.version.split()[0]}.")

import argparse
import ast
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
ENVIRONMENT_STAMP = VENV / "crystalline.json"
BUILD = ROOT / "build"
BUILD_STAMP = BUILD / "crystalline.json"
BUILD_LOG = BUILD / "build.log"

TREE_PAGE = Path("docs", "FILES.md")
TREE_FOLDERS = ("crystalline", "tools", "bench")
FILES_BEGIN, FILES_END = "<!-- files: tools/dev.py files -->\n", "<!-- end of files -->\n"
TREE_BEGIN, TREE_END = "<!-- tree: tools/dev.py tree -->\n", "<!-- end of tree -->\n"

# What `sanitize` runs when no tests are named.
EXACT = [
    "tests/exact",
    "tests/_kernels/bigint",
    "tests/_kernels/lattice",
    "tests/_kernels/primes",
    "tests/_kernels/test_fixedarray.py",
]

LINTERS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "cython-lint": ["cython-lint", "crystalline"],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports", "--no-logo"],
    "check_cimports": ["python", "tools/check_cimports.py"],
}


class DeveloperError(Exception):
    """Something missing or failed that the reader can act on; the message is all they need."""


def say(text: str) -> None:
    """Print one line of progress on stderr, at once."""
    print(f"dev: {text}", file=sys.stderr, flush=True)


# What the machine must have


def missing_packages(compiler: list[str], include: str) -> list[str]:
    """Return the Debian packages that lack here, each with the reason in parentheses.

    `compiler` is the command that will be called, `include` the folder where
    Python.h should be.
    """
    version = f"python3.{sys.version_info.minor}"
    distribution = Path("/usr/bin/python3")
    if distribution.exists() and distribution.resolve() == Path(sys.executable).resolve():
        version = "python3"
    missing = []
    if not _importable("venv", "ensurepip"):
        missing.append(f"{version}-venv (to create the environment)")
    if not shutil.which(compiler[0]):
        missing.append(f"gcc (no C compiler called {compiler[0]!r})")
        missing.append("libc6-dev (C headers)")
    elif not _compiles(compiler, "#include <stdlib.h>\n#include <linux/futex.h>\n"):
        missing.append("libc6-dev (C headers)")
    if not Path(include, "Python.h").is_file():
        missing.append(f"{version}-dev (no Python.h in {include})")
    return missing


def _importable(*modules: str) -> bool:
    code = "import " + ", ".join(modules)
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def _compiles(compiler: list[str], source: str) -> bool:
    command = [*compiler, "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0


def check_machine() -> None:
    """Raise DeveloperError where the build could not succeed, naming all that is missing."""
    if not sys.platform.startswith("linux"):
        raise DeveloperError(f"Crystalline runs on Linux only; this is {sys.platform}.")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    missing = missing_packages(compiler, sysconfig.get_path("include"))
    if missing:
        names = " ".join(item.split()[0] for item in missing)
        lines = "\n".join(f"  {item}" for item in missing)
        raise DeveloperError(
            f"This machine lacks:\n{lines}\nOn Debian or Ubuntu: sudo apt install {names}"
        )


# Running commands


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without what would lead Python or pip astray."""
    drop = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")
    env = {key: value for key, value in os.environ.items() if key not in drop}
    env["PATH"] = f"{VENV / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["VIRTUAL_ENV"] = str(VENV)
    return env | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | extra


def call(command: Sequence[str], **extra_environment: str) -> int:
    """Run a command of the environment in the repository and return its exit status.

    Ctrl-C reaches the command too; it may need a moment to save its work, so
    we go on waiting for it.
    """
    program = shutil.which(command[0], path=str(VENV / "bin")) or command[0]
    process = subprocess.Popen(
        [program, *command[1:]], cwd=ROOT, env=clean_environment(**extra_environment)
    )
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            continue
        return status if status >= 0 else 128 - status


def call_quietly(command: Sequence[str], log: Path, **extra_environment: str) -> None:
    """Run a command with its output in `log`; show the end of it when the command fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        env = clean_environment(**extra_environment)
        process = subprocess.run(command, cwd=ROOT, env=env, stdout=file, stderr=file)
    if process.returncode:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-60:])
        raise DeveloperError(
            f"{tail}\n\n{shlex.join(command)} failed with exit status "
            f"{process.returncode}. All of its output is in {log}."
        )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock of environment and build, so that two calls do not tread on each other."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another tools/dev.py to finish building")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_stamp(path: Path) -> dict[str, object]:
    """Return what `write_stamp` wrote, or nothing where the step never finished."""
    try:
        stamp = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, **facts: object) -> None:
    """Note that a step has finished, and with what."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    temporary.replace(path)


def hash_of(*parts: str | bytes) -> str:
    """Return a SHA-256 over the parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


# Environment and build


def build_requirements() -> list[str]:
    """Return `build-system.requires` of pyproject.toml (Python 3.10 has no TOML parser)."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r"^\[build-system\]\nrequires = (\[[^\]]*\])", text, re.MULTILINE)
    if not found:
        raise DeveloperError("pyproject.toml has no [build-system] with requires on its first line")
    return [str(name) for name in ast.literal_eval(found[1])]


def pip_install(*arguments: str, **extra_environment: str) -> None:
    """Install into the environment; pip prints only what went wrong."""
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", *arguments]
    status = call(command, **extra_environment)
    if status:
        raise DeveloperError(
            f"pip could not install {' '.join(arguments)} (exit status {status}). It needs the "
            "network, or an index of your own in PIP_INDEX_URL; run the command again."
        )


def prepare(extras: Sequence[str] = (), *, debug: bool = False) -> None:
    """Bring environment and build up to date: `.venv` with `extras`, kernels compiled in place."""
    check_machine()
    with one_at_a_time():
        version = (ROOT / "crystalline" / "__init__.py").read_bytes()
        requirements = hash_of((ROOT / "pyproject.toml").read_bytes(), version)
        python_key = hash_of(sys.version, str(Path(sys.executable).resolve()), str(ROOT))
        stamp = read_stamp(ENVIRONMENT_STAMP)
        if stamp.get("python") != python_key:
            stamp = {}
            say(f"creating {VENV} with Python {sys.version.split()[0]}")
            command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
            call_quietly(command, BUILD / "venv.log")
        installed = stamp.get("extras", [])
        have = {str(name) for name in installed} if isinstance(installed, list) else set()
        wanted = sorted(have | set(extras))
        current = stamp.get("requirements") == requirements and have >= set(extras)
        if not current:
            say("installing the build tools")
            pip_install("--upgrade", *build_requirements())
        compile_kernels(debug=debug)
        if not current:
            suffix = f"[{','.join(wanted)}]" if wanted else ""
            say(f"installing crystalline{suffix} and what it depends on")
            pip_install(
                "--no-build-isolation", "-e", f".{suffix}", DIST_EXTRA_CONFIG=str(_build_settings())
            )
            facts = {"python": python_key, "requirements": requirements, "extras": wanted}
            write_stamp(ENVIRONMENT_STAMP, **facts)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _build_settings() -> Path:
    """Write the settings shared by the build and by pip, so that pip compiles nothing again."""
    settings = BUILD / "build_ext.cfg"
    BUILD.mkdir(exist_ok=True)
    settings.write_text(
        f"[build_ext]\nbuild_lib = {BUILD / 'lib'}\nbuild_temp = {BUILD / 'temp'}\n"
        f"parallel = {cores()}\n",
        "utf-8",
    )
    return settings


def has_tiles() -> bool:
    """Return whether the CPU has matrix tiles; where not, tests make do with some of plain C."""
    return "amx_tile" in Path("/proc/cpuinfo").read_text("utf-8").split()


def compile_kernels(*, debug: bool = False) -> None:
    """Compile what has changed, in place; all of it when the flags or the compiler changed."""
    compiler = os.environ.get("CC", "") + " " + os.environ.get("CFLAGS", "")
    plain = os.environ.get("CRYSTALLINE_PLAIN_TILES") or ("0" if has_tiles() else "1")
    key = hash_of((ROOT / "setup.py").read_bytes(), compiler, str(debug), plain, sys.version)
    environment = {
        "DIST_EXTRA_CONFIG": str(_build_settings()),
        "CRYSTALLINE_DEBUG": "1" if debug else "0",
        "CRYSTALLINE_PLAIN_TILES": plain,
    }
    command = [str(PYTHON), "setup.py", "build_ext", "--inplace"]
    if read_stamp(BUILD_STAMP).get("key") != key:
        say("compiling the kernels" + (" with bounds checks" if debug else ""))
        BUILD_STAMP.unlink(missing_ok=True)
        command.append("--force")
        environment["CYTHON_FORCE_REGEN"] = "1"
    else:
        say("compiling what has changed")
    call_quietly(command, BUILD_LOG, **environment)
    write_stamp(BUILD_STAMP, key=key, debug=debug)


# The file tree


def describe(path: Path) -> str:
    """Return the first sentence of a file's opening docstring, comment or heading.

    A stub speaks for the compiled module beside it and needs no opening.
    Raises DeveloperError for a file that does not say what it is.
    """
    if path.name == "py.typed":
        return "Marks the package as typed (PEP 561)."
    if path.suffix == ".pyi":
        beside = path.with_suffix(".py" if path.with_suffix(".py").is_file() else ".pyx")
        return f"The types of {beside.name}."
    text = path.read_text("utf-8").lstrip("\ufeff")
    if path.suffix == ".md":
        found = re.match(r"#+ +(.+)", text)
    elif path.suffix in (".c", ".h"):
        found = re.match(r"\s*/\*+(.*?)\*/", text, re.DOTALL) or re.match(r"\s*((?://.*\n)+)", text)
    else:
        opening = r"(?:#![^\n]*\n|# (?:cython|distutils):[^\n]*\n|\s*\n)*"
        found = re.match(opening + r'[rR]?"""(.*?)"""', text, re.DOTALL)
        found = found or re.match(opening + r"((?:#[^\n]*\n)+)", text)
    if not found:
        raise DeveloperError(f"{path.relative_to(ROOT)} does not open with a line on what it is")
    body = re.sub(r"^[ \t]*(?:\*|//+|#+)[ \t]?", "", found[1].strip(), flags=re.MULTILINE)
    paragraph = " ".join(body.strip().split("\n\n")[0].split())
    sentence = re.match(r".*?\.(?= |$)", paragraph)
    return (sentence[0] if sentence else paragraph).rstrip(".:") + "."


def tracked_files() -> list[Path]:
    """Return the files under `TREE_FOLDERS` that git tracks, relative to the repository."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--", *TREE_FOLDERS],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeveloperError("the file tree is taken from git, which did not answer") from error
    return sorted(Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file())


def tree() -> str:
    """Return the block of files for `TREE_PAGE`, one line each, with what each says of itself."""
    lines: list[tuple[str, str]] = []
    open_folders: tuple[str, ...] = ()
    for path in sorted(tracked_files(), key=_files_before_folders):
        folders = path.parts[:-1]
        for depth, folder in enumerate(folders):
            if folders[: depth + 1] != open_folders[: depth + 1]:
                lines.append(("  " * depth + folder + "/", ""))
        open_folders = folders
        lines.append(("  " * len(folders) + path.name, describe(ROOT / path)))
    width = max((len(name) for name, _ in lines), default=0) + 2
    body = "".join(f"{name:{width}}{text}".rstrip() + "\n" for name, text in lines)
    return f"```text\n{body}```\n"


def _files_before_folders(path: Path) -> list[tuple[int, int, str]]:
    top = TREE_FOLDERS.index(path.parts[0])
    last = len(path.parts) - 1
    return [(top, int(depth < last), name) for depth, name in enumerate(path.parts)]


def split_page(text: str) -> tuple[str, str, str]:
    """Return the text of `TREE_PAGE` before, inside and after the tree's markers."""
    return _split(text, str(TREE_PAGE), TREE_BEGIN, TREE_END)


def split_security(text: str) -> tuple[str, str, str]:
    """Return SECURITY.md before, inside and after the markers of its table of files."""
    return _split(text, "SECURITY.md", FILES_BEGIN, FILES_END)


def _split(text: str, name: str, first: str, last: str) -> tuple[str, str, str]:
    before, begin, rest = text.partition(first)
    inside, end, after = rest.partition(last)
    if not (begin and end):
        raise DeveloperError(f"{name} lacks the lines {first!r} and {last!r}")
    return before + begin, inside, end + after


def table_of_files() -> str:
    """Return SECURITY.md's table of the files that are read and written, from the package."""
    path = [str(ROOT), *sys.path]
    before, sys.path[:] = sys.path[:], path
    try:
        from crystalline.untrusted.files import table
    finally:
        sys.path[:] = before
    return table()


# The subcommands


def run_build(options: argparse.Namespace) -> int:
    """Compile what has changed."""
    prepare(debug=options.debug)
    return 0


def run_test(options: argparse.Namespace) -> int:
    """Build, then run every test; the exit status is pytest's."""
    prepare(["test"])
    say("running the tests")
    return call(["pytest", *options.rest])


def run_sanitize(options: argparse.Namespace) -> int:
    """Build the kernels with the sanitizers beside the usual ones, then run the exact tests."""
    prepare(["test"])
    library, temporary = BUILD / "sanitize" / "lib", BUILD / "sanitize" / "temp"
    say("compiling the kernels with the address and undefined-behavior sanitizers")
    shutil.rmtree(library, ignore_errors=True)  # a module that is gone must not linger
    call_quietly(
        [str(PYTHON), "setup.py", "build", f"--build-lib={library}", f"--build-temp={temporary}"],
        BUILD / "sanitize.log",
        CRYSTALLINE_SANITIZE="1",
    )
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    runtimes = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    say("running the exact tests")
    # In the environment, so that the runs that tests start, one a level, find the same build; the
    # sanitizer keeps freed memory for a while, which looks like a leak from outside.
    flags = f"-o 'pythonpath={library} .' -o timeout=900 -k 'not test_nothing_leaks'"
    return call(
        ["pytest", *(options.rest or EXACT)],
        PYTEST_ADDOPTS=flags,
        LD_PRELOAD=" ".join(runtimes),
        # Python itself keeps memory until the end; its own allocator would hide ours.
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
        PYTHONMALLOC="malloc",
    )


def run_lint(_options: argparse.Namespace) -> int:
    """Run every checker, also after one has failed."""
    prepare(["test"])
    failed = []
    for name, command in LINTERS.items():
        say(name)
        if call(command):
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "every checker is content")
    return 1 if failed else 0


def run_bench(options: argparse.Namespace) -> int:
    """Run the benchmarks."""
    prepare(["bench", "test"])
    command = ["pytest", "--benchmark-only", "-o", "python_files=bench_*.py", "-o", "timeout=0"]
    return call([*command, *(options.rest or ["bench"])])


def run_demo(_options: argparse.Namespace) -> int:
    """Train on the embedded default, then generate text."""
    prepare()
    run_dir = free_run_directory(ROOT / "runs")
    say("training for two minutes on the Python standard library; Ctrl-C saves and stops")
    status = call(["cllm-train", "--minutes", "2", "--checkpoint-dir", str(run_dir)])
    if status:
        return status
    say("writing text with the result")
    command = ["cllm-infer", str(run_dir), "--prompt", "def ", "--max-tokens", "200"]
    return call([*command, "--temperature", "0.8", "--top-k", "40", "--seed", "1"])


def free_run_directory(parent: Path) -> Path:
    """Make demo-1, demo-2, …: the first that is not there yet, whoever else is looking."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (parent / f"demo-{number}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return parent / f"demo-{number}"


def run_tree(_options: argparse.Namespace) -> int:
    """Rewrite the file tree in docs/FILES.md."""
    page = ROOT / TREE_PAGE
    before, _, after = split_page(page.read_text("utf-8"))
    page.write_text(before + tree() + after, "utf-8")
    return 0


def run_files(_options: argparse.Namespace) -> int:
    """Rewrite the table of files in SECURITY.md."""
    security = ROOT / "SECURITY.md"
    before, _, after = split_security(security.read_text("utf-8"))
    security.write_text(before + table_of_files() + after, "utf-8")
    return 0


COMMANDS = {
    "demo": (run_demo, "train on the embedded default for two minutes, then generate text"),
    "test": (run_test, "build and run every test; further arguments go to pytest"),
    "build": (run_build, "compile what has changed"),
    "sanitize": (run_sanitize, "run the exact tests under the sanitizers; arguments go to pytest"),
    "lint": (run_lint, "run ruff, cython-lint, mypy and the layer checks"),
    "bench": (run_bench, "run the benchmarks; further arguments go to pytest"),
    "tree": (run_tree, "rewrite the file tree in docs/FILES.md"),
    "files": (run_files, "rewrite the table of files in SECURITY.md"),
}
TAKES_MORE = ("test", "sanitize", "bench")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; for those that take more, pytest's arguments in `rest`."""
    parser = argparse.ArgumentParser(
        prog="tools/dev.py", description="Environment, build, tests, lint, demo, benchmarks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "build":
            command.add_argument("--debug", action="store_true", help="switch bounds checks on")
    wants_help = not {"-h", "--help"}.isdisjoint(arguments)
    split = 1 if arguments and arguments[0] in TAKES_MORE and not wants_help else len(arguments)
    options = parser.parse_args(arguments[:split])
    options.rest = list(arguments[split:])
    return options


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand and return the exit status."""
    options = parse(arguments)
    try:
        return COMMANDS[options.command][0](options)
    except DeveloperError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
