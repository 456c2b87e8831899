"""From pressing return to the first training step, with a cached corpus.

    python -m bench.startup my-texts/            # medians of 5 starts
    python -m bench.startup                      # the embedded default

The clock starts before the command's process does and stops when the first step's line stands in
metrics.jsonl, which Node Zero writes while the second step runs.  The first start of all fills the
cache and is not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COMMAND = "import sys; from crystalline.cli.train import main; sys.exit(main())"
SHAPES = {
    "tiny": ("--num-layers", "4", "--num-heads", "4", "--embed-dim", "128", "--seq-len", "64",
             "--batch-size", "12"),
    "compact": ("--num-layers", "6", "--num-heads", "8", "--embed-dim", "256", "--seq-len", "128",
                "--batch-size", "32"),
}  # fmt: skip
DEADLINE_S = 600.0


def first_step_seconds(corpora: Sequence[str], options: Sequence[str], run_dir: Path) -> float:
    """Return the seconds from starting the command to its first step; the run is then ended."""
    command = [
        sys.executable, "-c", COMMAND, *corpora, *options, "--max-steps", "1000000",
        "--log-interval", "1", "--eval-interval", "0", "--quiet", "--checkpoint-dir", str(run_dir),
    ]  # fmt: skip
    metrics = run_dir / "metrics.jsonl"
    began = time.monotonic()
    with subprocess.Popen(command) as process:
        while not (metrics.exists() and b"\n" in metrics.read_bytes()):
            if process.poll() is not None:
                raise SystemExit(f"startup: cllm-train ended with {process.returncode}")
            if time.monotonic() - began > DEADLINE_S:
                process.kill()
                raise SystemExit(f"startup: no step within {DEADLINE_S:g} s")
            time.sleep(0.002)
        seconds = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Start each shape several times, and print the medians."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.startup",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpora", nargs="*", help="files or folders of text")
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="startup-") as temporary:
        folder = Path(temporary)
        os.environ["CLLM_CACHE"] = str(folder / "cache")
        for name, shape in SHAPES.items():
            times = [
                first_step_seconds(options.corpora, shape, folder / f"{name}-{start}")
                for start in range(options.starts + 1)
            ]
            cached = times[1:]
            print(
                f"{name}: first step after {statistics.median(cached):.2f} s (of {len(cached)} "
                f"starts: {min(cached):.2f} to {max(cached):.2f}; uncached {times[0]:.1f} s)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
