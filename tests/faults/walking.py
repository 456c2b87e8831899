"""The walk over all points: in what surroundings each is passed, and what must hold afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from crystalline.data.prepare import PreparedData
from crystalline.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from crystalline.faults import (
    CONTROL,
    FAIL,
    KILL,
    LAUNCHER,
    NODE_ZERO,
    POINTS,
    SAVER,
    SPHERE,
    STOP,
    parse,
)
from tests.faults.sessions import HANG_S, Ended, Runs, Surroundings
from tests.train import real_runs

TRIES = 4  # runs in which somebody must pass a point
RECOVERED_S = 2.0  # from a fault to the next end of a phase
A_SPHERE_DIES = "barrier.worked=kill@30/sphere"
A_CONTROL_DIES = "order.answer=kill@{}/control"
_DEATHS = {  # after which a point is passed
    "update.recover": "update.changed=kill@30/sphere",
    "merge.recover": "compute.merge=kill@3/sphere",
}
_FLAT = Surroundings("1", workers=3)

Passage = tuple[str, str]  # a point, and a role that passes it
PASSAGES: list[Passage] = [(name, role) for name, point in POINTS.items() for role in point.roles]


def around(name: str, role: str) -> Surroundings:
    """Return the surroundings in which a role passes a point."""
    group = name.partition(".")[0]
    if group == "burial" or name in _DEATHS:
        dies, merges = _DEATHS.get(name, A_SPHERE_DIES), group == "merge"
        if role == CONTROL:
            return Surroundings(companions=dies, merges=merges)
        return Surroundings("1", 3, dies, merges=merges)
    if name == "compute.merge":
        return Surroundings("1", 3, merges=True)
    if group == "adoption":
        if role == CONTROL:  # the third who answers is a grandchild of Node Zero's
            return Surroundings("3", companions=A_CONTROL_DIES.format(3))
        return Surroundings(companions=A_CONTROL_DIES.format(1))
    saver = role == SAVER or group == "snapshot" or name.startswith("saver.")
    if group == "atomic" and role in (NODE_ZERO, SAVER) and name != "atomic.folder":
        return Surroundings("1", 3, "pointer.link=fail@1+", saver=saver)
    if name == "arena.file":
        return Surroundings("1", 3, "arena.memory=fail")
    if name in ("door.accept", "door.answer"):
        return Surroundings("1", 3, calls=True)
    if name in ("checkpoint.aside", "checkpoint.replaced"):
        return Surroundings("1", 3, saver=saver, again=True, settings={"keep": 9})
    if saver:
        return Surroundings("1", 3, saver=True)
    if name == "node.discover":
        return Surroundings("1", 3, settings={"crystalline_epsilon": 0.1, "discovery_interval": 1})
    in_a_tree = group in ("leave", "order", "bells", "fork", "request") or role == CONTROL
    return Surroundings() if in_a_tree else _FLAT


def grouped(passages: Iterable[Passage]) -> list[tuple[Surroundings, list[Passage]]]:
    """Put passages with equal surroundings together."""
    groups: dict[str, tuple[Surroundings, list[Passage]]] = {}
    for passage in passages:
        surroundings = around(*passage)
        groups.setdefault(repr(surroundings), (surroundings, []))[1].append(passage)
    return list(groups.values())


class Walk:
    """Sessions with faults, and what is known of the undisturbed run."""

    def __init__(self, data: PreparedData, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._numbers = itertools.count()
        self._undisturbed: dict[str, tuple[str, list[dict[str, object]]]] = {}

    def alone(self, text: str, surroundings: Surroundings) -> Ended:
        """Meet faults in a run of their own, which then goes on to its end; return how it ended."""
        (ended,) = self.chain([text], surroundings)
        return ended

    def together(self, texts: Sequence[str], surroundings: Surroundings, most: int) -> None:
        """Meet faults that end no run, up to `most` in one; those that are not met there, alone."""
        for first in range(0, len(texts), most):
            part = texts[first : first + most]
            ended = self.alone(",".join(part), surroundings)
            roles = ended.roles[-len(part) :]
            for text, role in zip(part, roles, strict=True):
                if role is None:  # too late, in a run that is met so often
                    self._meet(text, surroundings)

    def require_met(self, texts: Sequence[str], surroundings: Surroundings) -> None:
        """Meet faults one after the other, each of them really."""
        for text, ended in zip(texts, self.chain(texts, surroundings), strict=True):
            if not ended.met_last:
                self._meet(text, surroundings)

    def _meet(self, text: str, surroundings: Surroundings) -> None:
        """Meet a fault in a run of its own; who passes its point is a matter of luck, too."""
        for _ in range(TRIES):
            ended = self.alone(text, surroundings)
            if ended.met_last:
                return
        raise AssertionError(f"nobody has met {text}: {ended}")

    def chain(self, texts: Sequence[str], surroundings: Surroundings) -> list[Ended]:
        """Meet faults in one session after the other, of one run while it is not at its end."""
        ended: list[Ended] = []
        runs = None
        for text in texts:
            fresh = runs is None
            runs = runs or self._begin(surroundings)
            found = self._session(runs, text, surroundings)
            if not found.met_last and not fresh:  # too little is left of the run
                self._compare(runs, found, surroundings, text)
                runs = self._begin(surroundings)
                found = self._session(runs, text, surroundings)
            ended.append(found)
            if found.code == EXIT_OK:
                self._compare(runs, found, surroundings, text)
                runs = None
        if runs is not None:
            self._finish(runs, surroundings, ", ".join(texts))
        return ended

    def _begin(self, surroundings: Surroundings) -> Runs:
        runs = Runs(self._data, self._folder / str(next(self._numbers)), surroundings)
        if surroundings.again:
            assert runs.session("").code == EXIT_OK
        return runs

    def _session(self, runs: Runs, text: str, surroundings: Surroundings) -> Ended:
        faults = ",".join(filter(None, [surroundings.companions, text]))
        ended = runs.session(faults)
        require_good_end(faults, ended)
        return ended

    def _finish(self, runs: Runs, surroundings: Surroundings, text: str) -> None:
        ended = runs.session("")
        assert ended.code == EXIT_OK, f"after {text}: {ended}"
        assert not ended.left, f"after {text}: {ended.left}"
        self._compare(runs, ended, surroundings, text)

    def _compare(self, runs: Runs, ended: Ended, surroundings: Surroundings, text: str) -> None:
        """Require the bits, and the metrics where they could be written."""
        key = repr(sorted(surroundings.settings.items()))
        if key not in self._undisturbed:
            plain = Runs(
                self._data,
                self._folder / str(next(self._numbers)),
                Surroundings("1", workers=1, settings=surroundings.settings),
            )
            first = plain.session("")
            assert first.sha256 is not None, first
            self._undisturbed[key] = (first.sha256, real_runs.metrics(plain.run_dir))
        sha256, metrics = self._undisturbed[key]
        if ended.sha256 is None:
            self._finish(runs, surroundings, text)
            return
        assert ended.sha256 == sha256, f"other bits after {text}"
        if "metrics.append=fail" not in text:
            assert real_runs.metrics(runs.run_dir) == metrics, f"other metrics after {text}"


def require_good_end(text: str, ended: Ended) -> None:
    """Require of a session what can be required of it whatever comes later."""
    faults = parse(text)
    met = [(fault, role) for fault, role in zip(faults, ended.roles, strict=True) if role]
    killed = {role for fault, role in met if fault.action == KILL}
    failed = {role for fault, role in met if fault.action == FAIL}
    if LAUNCHER in killed:
        allowed = {-9, EXIT_FAILURE}
    elif NODE_ZERO in killed:
        allowed = {EXIT_FAILURE}
    elif failed & {LAUNCHER, NODE_ZERO, CONTROL}:
        allowed = {EXIT_OK, EXIT_FAILURE, EXIT_USAGE}
    else:
        allowed = {EXIT_OK}
    assert ended.code in allowed, f"{text}: {ended}"
    if not failed & {SPHERE, CONTROL}:  # what one that fails had to say last is told
        assert "Traceback" not in ended.words, f"{text}: {ended.words}"
    if ended.code >= 0:  # what a killed launcher leaves goes when the run goes on
        assert not ended.left, f"{text}: {ended.left}"
    else:
        left = [name for name in ended.left if name.startswith("process")]
        assert not left, f"{text}: {left}"
    for fault, role, took_s in zip(faults, ended.roles, ended.recovered_s, strict=True):
        if took_s is not None and role in (SPHERE, CONTROL):
            most_s = RECOVERED_S + (HANG_S if fault.action == STOP else 0.0)
            assert took_s < most_s, f"{text}: recovered after {took_s:.1f} s"
