"""Memory of a whole run: the sum over its processes of their proportional set sizes (PSS).

    python -m bench.memory my-texts/ --megabytes 24          # compact, 63 spheres

The text is repeated until it has --megabytes; shared pages count once in the sum.  It is taken
every second until every sphere has worked for a while; the largest one is told.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.startup import COMMAND, DEADLINE_S, SHAPES

COMPACT = (*SHAPES["compact"], "--vocab-size", "788")


def pss_bytes(root: psutil.Process) -> int:
    """Return the sum over a process and those it started."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def write_corpus(paths: Sequence[str], size_bytes: int, target: Path) -> None:
    """Write the text of `paths` to `target`, again and again until it has `size_bytes`."""
    files = [
        file
        for path in map(Path, paths)
        for file in ([path] if path.is_file() else sorted(path.glob("**/*.txt")))
    ]
    text = b"\n".join(file.read_bytes() for file in files)
    if not text:
        raise SystemExit(f"memory: there is no .txt file in {', '.join(paths)}")
    with target.open("wb") as out:
        while out.tell() < size_bytes:
            out.write(text[: size_bytes - out.tell()])


def largest_pss(corpus: Path, workers: int, seconds: float, precision: str, run_dir: Path) -> int:
    """Train for `seconds` after the first step, and return the largest sum of PSS seen."""
    command = [
        sys.executable, "-c", COMMAND, str(corpus), *COMPACT, "--workers", str(workers),
        "--max-steps", "1000000", "--eval-interval", "0", "--quiet", "--precision", precision,
        "--checkpoint-dir", str(run_dir),
    ]  # fmt: skip
    most, began, first_step = 0, time.monotonic(), None
    with subprocess.Popen(command) as process:
        while first_step is None or time.monotonic() - first_step < seconds:
            if process.poll() is not None or time.monotonic() - began > DEADLINE_S:
                process.kill()
                raise SystemExit("memory: the training ended, or never began")
            if first_step is None and (run_dir / "metrics.jsonl").exists():
                first_step = time.monotonic()
            if first_step is not None:
                most = max(most, pss_bytes(psutil.Process(process.pid)))
            time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    return most


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both precisions, and print the sums."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpora", nargs="+", help="files or folders of text")
    parser.add_argument("--megabytes", type=float, default=24.0, help="of text")
    parser.add_argument("--workers", type=int, default=63)
    parser.add_argument("--seconds", type=float, default=40.0, help="of training that is watched")
    parser.add_argument("--precisions", default="float32,bf16")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="memory-") as temporary:
        folder = Path(temporary)
        os.environ["CLLM_CACHE"] = str(folder / "cache")
        corpus = folder / "corpus.txt"
        write_corpus(options.corpora, round(options.megabytes * 1e6), corpus)
        # The corpus is cached first: the memory of tokenizing it is another matter.
        largest_pss(corpus, 1, 0.0, "float32", folder / "cached")
        for precision in options.precisions.split(","):
            most = largest_pss(
                corpus, options.workers, options.seconds, precision, folder / precision
            )
            print(f"{precision}: {most / 1e6:.0f} MB in all, {options.workers} spheres")
    return 0


if __name__ == "__main__":
    sys.exit(main())
