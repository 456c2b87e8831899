"""Build llama.cpp from its source on PyPI, for this machine's CPU and nothing else.

    python -m bench.peers.build_llama_cpp FOLDER     # then FOLDER/build/bin has the programs
    LLAMA_CPP=FOLDER/build/bin python -m pytest tests/formats/gguf

The source distribution of `llama-cpp-python` carries llama.cpp whole; CMake and Ninja come from
PyPI too, into an environment of their own in FOLDER.  Needs a C++ compiler and about 1 GB, and
takes half an hour of two cores.  Nothing of it is a dependency of ours: llama.cpp is the peer
that `bench` measures against, and the judge of the GGUF files that we write.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
PROGRAMS = ("completion", "bench", "perplexity", "quantize", "tokenize")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "GGML_CCACHE": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
}


def build(folder: Path, jobs: int) -> Path:
    """Build the programs below `folder`; return the folder that they are in.

    Raises `subprocess.CalledProcessError` where a step fails; its output was shown.
    """
    folder = folder.resolve()
    tools = folder / "env" / "bin"
    if not (tools / "cmake").exists():
        venv.create(folder / "env", with_pip=True)
        _run(tools / "pip", "install", "--quiet", "cmake", "ninja")
    source = _source(folder, tools)
    _run(
        tools / "cmake", "-S", source, "-B", folder / "build", "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        *(f"-D{name}={value}" for name, value in OPTIONS.items()),
    )  # fmt: skip
    targets = [f"llama-{name}" for name in PROGRAMS]
    _run(tools / "cmake", "--build", folder / "build", "-j", str(jobs), "--target", *targets)
    return folder / "build" / "bin"


def _source(folder: Path, tools: Path) -> Path:
    """Return the folder of llama.cpp's source, fetched and unpacked where it is missing."""
    unpacked = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}"
    if not unpacked.exists():
        _run(
            tools / "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE,
            "--dest", folder / "sdist", f"{PACKAGE}=={VERSION}",
        )  # fmt: skip
        with tarfile.open(folder / "sdist" / f"{unpacked.name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked / "vendor" / "llama.cpp"


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def main() -> int:
    """Build, and print the folder of the programs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time (default 2)")
    arguments = parser.parse_args()
    print(build(arguments.folder, arguments.jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
