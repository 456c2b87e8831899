"""The profile of a run (`--profile`): when it is made, and what the system counts meanwhile.

It begins when `WARM_UP` steps of a session are done: by then pages are there, caches are full and
processes have found their cores.  It ends after so many steps, or with the session; then Node Zero
writes the file, while the spheres wait.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from crystalline._kernels.atomics import monotonic_ns
from crystalline.atomic import write_text
from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS, Board
from crystalline.engine.recording import Recorded, Recording
from crystalline.errors import remedy
from crystalline.log import get_logger
from crystalline.train import words as w
from crystalline.train.profile_report import Profile, table, trace
from crystalline.train.spec import RunSpec

WARM_UP = 10  # steps of a session that are passed over
STEPS = 50

_SWITCHES = re.compile(r"^(voluntary|nonvoluntary)_ctxt_switches:\s*(\d+)", re.MULTILINE)
_MIGRATIONS = re.compile(r"^se\.nr_migrations\s*:\s*(\d+)", re.MULTILINE)

_log = get_logger("train")


@dataclass(frozen=True)
class _Start:
    """What was counted before."""

    step: int
    at_ns: int
    system: dict[int, Counter[str]]  # by pid
    counted: Counter[str]


class Profiler:
    """Node Zero's part in the profile of a run; `look` comes before each step."""

    def __init__(
        self, spec: RunSpec, board: Board, phases: tuple[str, ...], *, warm_up: int = WARM_UP
    ) -> None:
        """`phases` are the names of the phases, by number; `warm_up` steps are passed over."""
        self._warm_up = warm_up
        self._spec, self._board, self._phases = spec, board, phases
        self.recording = Recording(board.rows)
        self._first: int | None = None  # step of the session
        self._start: _Start | None = None
        self.table: str | None = None  # the result, once it is there

    @property
    def is_over(self) -> bool:
        """Whether it has been made."""
        return self.table is not None

    def look(self, step: int) -> None:
        """Begin or end where it is time, after `step` steps and before the next."""
        if self._first is None:
            self._first = step
        if self.table is not None:
            return
        if self._start is None:
            if step - self._first >= self._warm_up:
                self._begin(step)
        elif step - self._start.step >= self._spec.profile_steps:
            self.finish(step)

    def finish(self, step: int) -> None:
        """End it after `step` steps, if that has not been done, and write what was found."""
        start, self._start = self._start, None
        if self.table is not None:
            return
        if start is None or step == start.step:
            self.table = ""
            _log.warning("the run was over before its profile began, after %d steps", self._warm_up)
            return
        self.recording.switch(False)
        now, after = monotonic_ns(), self._system()
        system: Counter[str] = Counter()
        for pid, counts in after.items():
            before = start.system.get(pid, Counter())
            system.update({name: counts[name] - before[name] for name in counts})
        counted = self._counted()
        counted.subtract(start.counted)
        profile = Profile(
            spec=self._spec,
            phases=self._phases,
            first_step=start.step + 1,
            steps=step - start.step,
            began_ns=start.at_ns,
            took_ns=now - start.at_ns,
            spheres=self._recorded(),
            system=system,
            counted=counted,
        )
        self.table = table(profile)
        self._write(profile)

    def _begin(self, step: int) -> None:
        self._start = _Start(step, monotonic_ns(), self._system(), self._counted())
        self.recording.switch(True)

    def _write(self, profile: Profile) -> None:
        path = self._spec.profile
        assert path is not None
        last = profile.first_step + profile.steps - 1
        try:
            write_text(path, trace(profile))
        except OSError as error:
            _log.warning("the profile %s cannot be written. %s", path, remedy(error))
        else:
            _log.info("the profile of steps %d to %d is in %s", profile.first_step, last, path)

    def _recorded(self) -> dict[int, Recorded]:
        found = {row: self.recording.read(row) for row in range(self._board.rows)}
        return {row: one for row, one in found.items() if one.written}

    def _counted(self) -> Counter[str]:
        """Return what the spheres count themselves, of all of them."""
        table = self._board.sphere_table.sum(axis=0)
        return Counter(
            lanes=int(table[w.sphere_word("lanes_done")]),
            stolen=int(table[w.sphere_word("steals")]),
            segments=int(table[w.sphere_word("segments_done")]),
            tokens=int(table[w.sphere_word("tokens")]),
        )

    def _system(self) -> dict[int, Counter[str]]:
        """Return what the system counts of each sphere, by pid."""
        words = self._board.spheres
        pids = {words.load(row * SPHERE_WORDS + b.S_PID) for row in range(self._board.rows)}
        return {pid: _counts_of(pid) for pid in pids if pid > 0}


def _counts_of(pid: int) -> Counter[str]:
    """Return what the system counts of a process; nothing of what it does not tell."""
    found: Counter[str] = Counter()
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        found["minor faults"], found["major faults"] = int(fields[7]), int(fields[9])
        status = (folder / "status").read_text(errors="replace")
        for kind, number in _SWITCHES.findall(status):
            found[f"{kind} switches"] = int(number)
        run_ns, waited_ns, _ = (folder / "schedstat").read_text().split()
        found["run ns"], found["runnable ns"] = int(run_ns), int(waited_ns)
        migrations = _MIGRATIONS.search((folder / "sched").read_text(errors="replace"))
        if migrations is not None:
            found["migrations"] = int(migrations[1])
    return found
