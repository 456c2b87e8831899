"""Runs benchmarks and writes what they print into `bench/APPENDIX.md`, beside the command.

    python -m bench.appendix                  # the sections, with their commands
    python -m bench.appendix peaks kernels    # run these and write them, for this kind of machine

A section belongs to a kind of machine: what was measured on another stays.  What a command prints
is written as it is; a command that fails leaves the page alone.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from crystalline._kernels import isa
from crystalline.machine.cores import usable_cores

PAGE = Path(__file__).with_name("APPENDIX.md")
STEP = "python3 tools/dev.py bench bench/bench_step.py -k"
SECTIONS = {
    "peaks": "python bench/peak.py",
    "step": f"{STEP} share",
    "scaling": f"{STEP} scaling",
    "kernels": "python3 tools/dev.py bench bench/bench_kernels.py",
    "peers": "python -m bench.peers.bench_torch --rounds 1 --seconds 5",
    "model": "python -m bench.cost_model --check --workloads small,compact --seconds 4",
    "exact": "python -m bench.bench_exact",
    "pure": "python -m bench.bench_pure",
}
LIMIT_S = 7200


def machine() -> str:
    """Return the kind of this machine: its CPU, the cores that may be used, the level."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    return f"{found[1] if found else 'unknown CPU'}, {usable_cores()} cores, level {isa.level()}"


def section(name: str, kind: str, command: str, date: str, output: str) -> str:
    r"""Return a section of the page.

    >>> print(section("peaks", "a CPU", "python peak.py", "2026-11-30", "1\n"))
    <!-- peaks: a CPU -->
    ### peaks: a CPU
    <BLANKLINE>
    `python peak.py`, 2026-11-30
    <BLANKLINE>
    ```text
    1
    ```
    <!-- end -->
    <BLANKLINE>
    """
    return (
        f"<!-- {name}: {kind} -->\n### {name}: {kind}\n\n`{command}`, {date}\n\n"
        f"```text\n{output.rstrip()}\n```\n<!-- end -->\n"
    )


def with_section(page: str, name: str, kind: str, text: str) -> str:
    """Return the page with a section where the one of this name and machine is, or at the end.

    >>> page = with_section("# A", "x", "m", section("x", "m", "c", "d", "1"))
    >>> with_section(page, "x", "m", section("x", "m", "c", "d", "2")).count("### x: m")
    1
    """
    old = rf"<!-- {re.escape(name)}: {re.escape(kind)} -->\n.*?<!-- end -->\n"
    if re.search(old, page, re.DOTALL):
        return re.sub(old, lambda _: text, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n{text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="|".join(SECTIONS))
    names = parser.parse_args(arguments).sections
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if not names:
        for name, command in SECTIONS.items():
            print(f"{name:10}{command}")
    for name in names:
        command = SECTIONS[name]
        words = [sys.executable if w == "python" else w for w in shlex.split(command)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
        if done.returncode:
            print(f"{command} failed with exit status {done.returncode}", file=sys.stderr)
            return 1
        date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        text = section(name, machine(), command, date, done.stdout)
        PAGE.write_text(with_section(PAGE.read_text("utf-8"), name, machine(), text), "utf-8")
        print(f"{name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
