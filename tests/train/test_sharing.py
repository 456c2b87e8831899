"""Two runs on the same cores: both get their turns, both get their bits, and nothing stays."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from crystalline.ipc.slots import MEMBERS, SPAN, TURNSTILE
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run
from tests.train.test_endings import Run, started

pytestmark = pytest.mark.timeout(60)

BUSY = {"steps": 100_000, "workers": 2, "share_cores": True, "options": {"burn_s": 0.002}}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of a test meet, and no others of this machine."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder / "cllm-cores"


def holders(place: Path) -> dict[int, int]:
    """Return who holds which slot, as the kernel tells: byte of the file → process."""
    inode, found = place.stat().st_ino, {}
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "->" or not fields[5].endswith(f":{inode}"):
            continue
        pid, first = int(fields[4]), int(fields[6])
        if first < MEMBERS and first % SPAN != TURNSTILE:
            found[first] = pid
    return found


def turns(place: Path, runs: list[Run], seconds: float) -> Counter[int]:
    """Return how often each of the runs was found to hold a core."""
    of = {sphere.pid: number for number, each in enumerate(runs) for sphere in each.spheres}
    found: Counter[int] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found.update(of[pid] for pid in holders(place).values())
        time.sleep(0.01)
    return found


def await_that(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_alone_it_is_as_without(tmp_path: Path, place: Path) -> None:
    result = run(tmp_path / "run", steps=20, share_cores=True)
    spec = make_spec(tmp_path / "twin", steps=20)
    assert result.weights_sha256 == serial_run(spec)[0].weights_sha256()
    assert not place.exists()


def test_two_runs_take_turns_and_who_stops_or_dies_gives_up_its_own(
    tmp_path: Path, place: Path
) -> None:
    with started(tmp_path / "a", **BUSY) as first, started(tmp_path / "b", **BUSY) as second:
        found = turns(place, [first, second], 2.0)
        assert min(found[0], found[1]) > 0.2 * max(found.values())
        ours = {sphere.pid for sphere in first.spheres}
        cores = {byte % SPAN for byte in holders(place)}
        second.process.send_signal(signal.SIGTSTP)
        await_that(
            lambda: {byte % SPAN for byte, pid in holders(place).items() if pid in ours} >= cores
        )
        second.process.send_signal(signal.SIGCONT)
        await_that(lambda: not ours >= set(holders(place).values()))
        second.process.kill()
        second.end()
        await_that(lambda: set(holders(place).values()) <= ours)
        assert place.exists()
    _, alive = psutil.wait_procs([*first.spheres, *second.spheres], timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_a_run_that_rests_holds_no_core(tmp_path: Path, place: Path) -> None:
    found: list[dict[int, int]] = []

    def actions() -> list[str]:
        return ["stop" if len(found) > 30 else "pause"]

    def watch(snapshot: Snapshot) -> None:
        if snapshot.state == "paused":
            found.append(holders(place))

    run(tmp_path / "run", watch, actions, steps=100_000, share_cores=True)
    assert found[-1] == {}


def test_two_runs_at_once_have_their_bits(tmp_path: Path, place: Path) -> None:
    settings = {"steps": 150, "options": {"burn_s": 0.0005}, "share_cores": True, "permits": 2}
    spec = make_spec(tmp_path / "twin", steps=150)
    wanted = serial_run(spec)[0].weights_sha256()
    with started(tmp_path / "a", **settings) as other:
        result = run(tmp_path / "b", **settings)
        code, out, _ = other.end()
    assert code == 0
    assert result.weights_sha256 == wanted
    assert wanted in out
    assert not place.exists()
