"""The tree of spheres changed on request: same bits, and the tree is as was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import run
from tests.train.test_wishes import SLOW, Script, scripted

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(tmp_path_factory.mktemp("undisturbed"), workers=1, steps=60)


def told(script: Script) -> list[tuple[bool, str]]:
    return [(answer["ok"], answer["told"]) for answer in script.answers()]


def test_a_flat_tree_has_no_controls(tmp_path: Path, undisturbed: RunResult) -> None:
    result, script = scripted(
        tmp_path, (3, "spawn=0,2"), (8, "terminate=7"), (12, "terminate=1"), steps=60
    )
    assert told(script) == [
        (False, "sphere 0 cannot have children: the tree may have 1 level"),
        (False, "there is no sphere 7"),
        (True, "sphere 1 has ended, and 2 compute"),
    ]
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.workers == 2


def test_a_deep_tree_grows_and_shrinks(tmp_path: Path, undisturbed: RunResult) -> None:
    result, script = scripted(
        tmp_path, (3, "spawn=1,3"), (8, "spawn=1,2"), (12, "terminate=0"), (16, "terminate=1"),
        (20, "terminate=1"),
        steps=60, depth="2", workers=2,
    )  # fmt: skip
    assert told(script)[:3] == [
        (True, "sphere 1 is the control of 3 spheres, and 4 compute"),
        (False, "sphere 1 cannot have children: it has children already"),
        (True, "sphere 0 has ended, and 3 compute"),
    ]
    assert told(script)[3:] == [
        (True, "sphere 1 has no children any more, and 1 compute"),
        (False, "sphere 1 is the last that computes"),
    ]
    assert result.weights_sha256 == undisturbed.weights_sha256
    last = script.snapshots[-1]
    assert [(sphere.index, sphere.level) for sphere in last.spheres] == [(1, 1)]
    assert {sphere.level for snapshot in script.snapshots for sphere in snapshot.spheres} == {1, 2}
    assert result.workers == 1


def test_workers_are_counted_from_what_there_is(tmp_path: Path) -> None:
    result, script = scripted(
        tmp_path, (3, "terminate=0"), (9, "workers+"), (14, "workers-"), steps=60, workers=4
    )
    assert [answer["argument"] for answer in script.answers()] == ["0", "4", "3"]
    assert result.workers == 3


def test_a_lame_sphere_gets_the_smallest_part(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"steps": 60, "workers": 3, "permits": 3}
    options = {"naps": {"compute": 0.004}, "lame": {"1": 8.0}}
    result, script = scripted(tmp_path, (12, "rebalance"), options=options, **keywords)
    ((ok, words),) = told(script)
    assert ok
    after, before = (float(word) for word in words.split() if word[0].isdecimal())
    assert after < before
    homes = {sphere.index: sphere.position for sphere in script.snapshots[-1].spheres}
    ends = {0: homes[1], 1: homes[2], 2: 12}
    lengths = {sphere: ends[sphere] - homes[sphere] for sphere in homes}
    assert lengths[1] == 1
    assert sum(lengths.values()) == 12
    assert result.weights_sha256 == run(tmp_path / "plain", **keywords).weights_sha256


def test_nothing_is_shared_out_before_it_was_measured(tmp_path: Path) -> None:
    _, script = scripted(tmp_path, (0, "rebalance"), (0, "start"), held=True, steps=5)
    assert told(script)[0] == (False, "no sphere has been measured yet")


# --- held -----------------------------------------------------------------------------------------


def test_a_held_run_waits_for_the_request_to_start(tmp_path: Path, undisturbed: RunResult) -> None:
    seen: list[Snapshot] = []
    asked: list[str] = []

    def actions() -> list[str]:
        held = [snapshot for snapshot in seen if snapshot.state == "held"]
        wishes = {10: "checkpoint=first", 15: "workers=5", 20: "start", 25: "start"}
        for count, wish in wishes.items():
            if len(held) >= count and wish not in asked:
                asked.append(wish)
                return [wish]
        return []

    result = run(tmp_path, seen.append, actions, held=True, steps=60, options=SLOW)
    assert asked == ["checkpoint=first", "workers=5", "start"]
    assert {snapshot.step for snapshot in seen if snapshot.state == "held"} == {0}
    assert {snapshot.elapsed_s for snapshot in seen if snapshot.state == "held"} == {0.0}
    assert (tmp_path / "checkpoints" / "first").is_symlink()
    assert [answer["step"] for answer in Script(tmp_path).answers()] == [0, 0, 0]
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.workers == 5


@pytest.mark.parametrize("first", [[], ["pause"]])
def test_a_held_run_is_stopped(tmp_path: Path, first: list[str]) -> None:
    waiting = [*first, "stop"]
    seen: list[Snapshot] = []

    def actions() -> list[str]:
        return [waiting.pop(0)] if seen and seen[-1].state == "held" and waiting else []

    result = run(tmp_path, seen.append, actions, held=True, steps=60)
    assert (result.final_step, result.stop_reason) == (0, "stopped")
    assert (tmp_path / "checkpoints" / "step-00000000").is_dir()


def test_a_run_that_is_paused_while_held_is_paused_when_it_starts(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    script: list[tuple[Callable[[Snapshot], bool], str]] = [
        (lambda now: now.state == "held", "pause"),
        (lambda now: now.state == "held", "start"),
        (lambda now: now.state == "paused", "resume"),
    ]

    def actions() -> list[str]:
        return [script.pop(0)[1]] if seen and script and script[0][0](seen[-1]) else []

    result = run(tmp_path, seen.append, actions, held=True, steps=20)
    assert result.final_step == 20
    assert {snapshot.step for snapshot in seen if snapshot.state == "paused"} == {0}
