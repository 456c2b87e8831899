"""`cllm-train --eval-suite`: what new best checkpoints write, measured while training goes on.

Each time that `best` moves, `cllm-eval` measures that checkpoint in a process of its own, at the
lowest priority: it changes no bit of the run, and slows it where no core is idle.  One measurement
at a time; a checkpoint that is overtaken meanwhile is passed over.  Results are lines of
RUN/suite.jsonl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crystalline.formats.files import BEST, CHECKPOINTS, SUITE_RESULTS, step_of
from crystalline.formats.names import shell_word
from crystalline.formats.pointers import pointer
from crystalline.untrusted import shown

BUILT_IN = "built-in"
_NICE = 19
_FIGURES = (  # field, what it is called, its format
    ("perplexity", "perplexity", "{:.2f}"),
    ("distinct_2", "distinct pairs", "{:.0%}"),
    ("parses", "code that parses", "{:.0%}"),
)
_PROGRAM = (
    "import os, sys\n"
    f"os.nice({_NICE})\n"
    "sys.path[:] = {path!r}\n"
    "from crystalline.cli.eval import main\n"
    "sys.exit(main({arguments!r}))"
)


class BestSuite:
    """Watches a run for new best checkpoints, and measures them one at a time."""

    def __init__(self, run_dir: Path, suite: str, tell: Callable[[str], None]) -> None:
        """`suite` is a file of questions, or "built-in"; `tell` gets a line for people."""
        self._run_dir = run_dir
        self._arguments = [] if suite == BUILT_IN else ["--suite", suite]
        self._tell = tell
        self._measured = self._best()  # of an earlier session
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Take what is finished, and begin with a new best checkpoint; never waits."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._take()
        best = self._best()
        if best is not None and best != self._measured:
            self._measured = best
            self._start(best)

    def finish(self) -> None:
        """Wait for what is being measured, and measure the last best checkpoint."""
        self.look()
        while self._process is not None:
            self._tell(f"measuring {self._measured} ...")
            self._process.wait()
            self.look()

    def close(self) -> None:
        """Leave no process behind."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close(process)

    def _best(self) -> str | None:
        """Return the name of the best checkpoint, None while there is none."""
        best = pointer(self._run_dir, BEST)
        return None if best is None else best.name

    def _start(self, name: str) -> None:
        arguments = [str(self._checkpoint(name).absolute()), "--json", "--quiet", *self._arguments]
        code = _PROGRAM.format(path=[os.path.abspath(p) for p in sys.path], arguments=arguments)  # noqa: PTH100
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the run's
        )

    def _checkpoint(self, name: str) -> Path:
        return self._run_dir / CHECKPOINTS / name

    def _take(self) -> None:
        """Record the result of the process that has ended, or say why there is none."""
        process, self._process = self._process, None
        assert process is not None
        out, err = process.communicate()
        name = str(self._measured)
        if process.returncode:
            words = err.decode("utf-8", "replace").strip().splitlines()
            self._tell(f"{name} was not measured: {shown(words[-1]) if words else 'it failed'}")
            return
        groups: dict[str, Any] = json.loads(out)["models"][0]["groups"]
        line = {"step": step_of(self._checkpoint(name)), "groups": groups}
        try:
            with (self._run_dir / SUITE_RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            place = shell_word(self._run_dir / SUITE_RESULTS)
            self._tell(f"{place} cannot be written ({error.strerror})")
        self._tell(f"{name}: {summary(groups)}")


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def summary(groups: dict[str, Any]) -> str:
    """Return the figures of the groups in a line.

    >>> summary({"code": {"perplexity": 9.314, "distinct_2": 0.5, "parses": None}})
    'code: perplexity 9.31, distinct pairs 50%'
    """
    parts = []
    for name, group in groups.items():
        figures = [
            f"{title} {form.format(group[field])}"
            for field, title, form in _FIGURES
            if group.get(field) is not None
        ]
        parts.append(f"{shown(name)}: {', '.join(figures)}")
    return "; ".join(parts)
