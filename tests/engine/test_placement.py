"""A processor for each permit: on machines that are not this one, and for real on this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from crystalline.engine import placement
from crystalline.engine.placement import settle_in
from crystalline.ipc.arena import Arena, Region
from crystalline.machine.topology import Processor
from crystalline.train.stats import Snapshot
from tests.train.arenas import lone_arena
from tests.train.engine_runs import make_spec, run, serial_run

pytestmark = pytest.mark.timeout(30)

ONE = tuple(Processor(n, (0, n), 0) for n in range(4))
TWO = tuple(Processor(n, (n % 2, n // 2 % 2), n % 2) for n in range(8))  # siblings: n and n + 4


@pytest.fixture
def arena() -> Arena:
    return lone_arena(
        [
            Region("words", "int64", (9,)),
            Region("scratch", "uint8", (3, 8192), align=4096, spread="permits"),
            Region("lanes", "float32", (2, 4096), align=4096, spread="nodes"),
            Region("none", "float32", (3, 0), align=4096, spread="permits"),
        ]
    )


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(placement, "place_memory", lambda *told: found.append(told))
    return found


def on(monkeypatch: pytest.MonkeyPatch, machine: tuple[Processor, ...], usable: int = 64) -> None:
    monkeypatch.setattr(placement, "processors", lambda: machine)
    monkeypatch.setattr(placement, "usable_cores", lambda: min(usable, len(machine)))


def test_one_node_is_left_alone_unless_it_is_wanted(arena, moved, monkeypatch, caplog) -> None:
    on(monkeypatch, ONE)
    caplog.set_level("INFO")
    assert settle_in(arena, 3, "auto") == ()
    assert settle_in(arena, 3, "no") == ()
    assert caplog.text == ""
    assert settle_in(arena, 3, "yes") == (0, 1, 2)
    assert "pinned 3 permits on the processors 0, 1, 2: 3 cores" in caplog.text
    assert moved == []


def test_two_nodes_get_the_memory_that_belongs_to_them(arena, moved, monkeypatch, caplog) -> None:
    on(monkeypatch, TWO)
    caplog.set_level("INFO")
    assert settle_in(arena, 3, "auto") == (0, 1, 2)
    scratch, lanes = arena["scratch"], arena["lanes"]
    assert moved == [
        (scratch[0].ctypes.data, 8192, [0]),
        (scratch[1].ctypes.data, 8192, [1]),
        (scratch[2].ctypes.data, 8192, [0]),
        (lanes.ctypes.data, lanes.nbytes, [0, 1]),
    ]
    assert (
        "pinned 3 permits on the processors 0, 1, 2: 3 cores of 2 nodes, scratch memory on the "
        "permit's node, the rest spread over the nodes" in caplog.text
    )
    assert settle_in(arena, 3, "no") == ()


def test_siblings_come_last(moved, monkeypatch) -> None:
    on(monkeypatch, TWO)
    arena = lone_arena([Region("words", "int64", (9,))])
    assert settle_in(arena, 6, "yes") == (0, 1, 2, 3, 4, 5)
    assert moved == []


def test_a_part_of_a_machine_is_left_alone(arena, monkeypatch) -> None:
    """Where a quota gives less than the processors, others would pin theirs to the same."""
    on(monkeypatch, TWO, usable=2)
    assert settle_in(arena, 2, "auto") == ()


def test_a_system_that_places_no_memory_is_told_of(arena, monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    on(monkeypatch, TWO)
    monkeypatch.setattr(placement, "place_memory", refuse)
    caplog.set_level("INFO")
    assert settle_in(arena, 3, "auto") == (0, 1, 2)
    assert "their memory wherever it is (Operation not permitted)" in caplog.text


@pytest.mark.parametrize("share", [False, True])
def test_spheres_stay_where_their_permits_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, share: bool
) -> None:
    """Each that computes has one processor, no two the same; Node Zero has all, and so have we."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    caplog.set_level("INFO")
    allowed = sorted(os.sched_getaffinity(0))[:2]
    seen: set[tuple[int, ...]] = set()
    nodes: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.step > 5 and snapshot.state == "training" and snapshot.step < 50:
            sphere = psutil.Process(snapshot.spheres[0].pid)
            nodes.append(len(sphere.parent().cpu_affinity()))  # type: ignore[union-attr]
            for each in snapshot.spheres:
                seen.add(tuple(psutil.Process(each.pid).cpu_affinity()))

    result = run(
        tmp_path / "run", watch, steps=60, workers=len(allowed), permits=len(allowed), pin="yes",
        share_cores=share, options={"naps": {"compute": 0.001}},
    )  # fmt: skip
    assert seen == {(number,) for number in allowed}
    assert set(nodes) == {len(os.sched_getaffinity(0))}
    assert f"pinned {len(allowed)} permits on the processors" in caplog.text
    spec = make_spec(tmp_path / "twin", steps=60)
    assert result.weights_sha256 == serial_run(spec)[0].weights_sha256()
