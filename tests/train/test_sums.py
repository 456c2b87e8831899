"""Sums over lanes: the tree, the plan of buffers, and runs that sum in place, with deaths."""

from __future__ import annotations

import dataclasses
import heapq
import math
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crystalline.data.prepare import PreparedData
from crystalline.model.merge import Merges
from crystalline.model.update import UNDO_WORDS
from crystalline.train import sums
from crystalline.train.launcher import train
from crystalline.train.program import TrainingProgram
from crystalline.train.schedule import learning_rate
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Snapshot
from crystalline.train.step import clip_factor
from crystalline.train.sums import Leaf, Merge, Sums, direct_sums, plan_sums, tree_over
from tests.oracles import ops
from tests.train.real_runs import bound, prepare_text, run, serial_run, spec

SIZES = [(1, 1), (2, 1), (12, 1), (12, 2), (18, 2), (24, 2), (24, 1), (37, 1), (60, 2), (144, 1)]
SETTINGS: dict[str, Any] = {"max_steps": 4, "eval_interval": 0, "save_interval": 0,
                            "dropout": 0.0, "log_interval": 2}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    text = "the quick brown fox jumps over the lazy dog. " * 200
    return prepare_text(tmp_path_factory.mktemp("data"), text, "char")


# --- the plan --------------------------------------------------------------------------------


@pytest.mark.parametrize(("lanes", "together"), SIZES)
def test_the_tree_is_one_by_twelves(lanes: int, together: int) -> None:
    leaves = -(-lanes // together)
    assert tree_over(leaves, 12 // together) == ops.grouped_tree(leaves, 12 // together)


@pytest.mark.parametrize("permits", [1, 2, 5])
@pytest.mark.parametrize(("lanes", "together"), SIZES)
def test_a_plan_in_any_order_that_it_allows_has_the_bits_of_the_tree(
    lanes: int, together: int, permits: int
) -> None:
    """Units are done in random orders, and every buffer is full of NaN until a leaf is written."""
    leaves, group = -(-lanes // together), 12 // together
    tree = ops.grouped_tree(leaves, group)
    generator = np.random.default_rng(lanes)
    values = generator.standard_normal((leaves, 50)).astype(np.float32)
    want = ops.tree_sum(list(values), tree)
    least = sums.least_buffers(tree)
    for most in {least, sums.usual_buffers(leaves, group, permits)}:
        plan = plan_sums(lanes, together, permits=permits, most_buffers=most)
        assert plan.buffers <= most
        for _ in range(3):
            buffers = np.full((plan.buffers, 50), np.nan, np.float32)
            left, done = list(range(len(plan.units))), set[int]()
            while left:
                ready = [u for u in left[:99] if done.issuperset(plan.needs[u])]
                unit = int(generator.choice(ready[-permits:]))
                left.remove(unit)
                done.add(unit)
                work = plan.units[unit]
                if isinstance(work, Leaf):
                    buffers[work.buffer] = values[work.lanes.start // together]
                else:
                    start, stop = work.slice(50)
                    buffers[work.buffer, start:stop] += buffers[work.right, start:stop]
            assert (buffers[0] == want).all()


def test_buffers_are_permits_and_depth_however_many_lanes() -> None:
    for lanes in (12, 24, 60, 144, 600):
        for permits in (1, 2, 8):
            depth = math.ceil(math.log2(lanes)) + 1
            plan = sums.choose_sums(lanes, 1, permits=permits, size_bytes=10**9)
            assert plan.buffers <= permits + depth
    with pytest.raises(ValueError, match="3 buffers are too few for 12 leaves"):
        plan_sums(12, 1, permits=1, most_buffers=3)


@pytest.mark.parametrize("permits", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("lanes", [12, 24, 60])
def test_spheres_hardly_wait_for_buffers(lanes: int, permits: int) -> None:
    """Played with lanes that take 1 and merges that take 1/20."""
    plan = sums.choose_sums(lanes, 1, permits=permits, size_bytes=10**9)
    took = _played(plan, permits, merge=0.05)
    assert took < 1.12 * math.ceil(lanes / permits)


def _played(plan: Sums, permits: int, merge: float) -> float:
    """Return when the last unit ends, each claimed as the barrier claims it."""
    done: set[int] = set()
    waiting, running, now = list(range(len(plan.units))), [], 0.0
    while waiting or running:
        for unit in list(waiting):
            if len(running) < permits and done.issuperset(plan.needs[unit]):
                work = plan.units[unit]
                length = 1.0 if isinstance(work, Leaf) else merge / work.parts
                heapq.heappush(running, (now + length, unit))
                waiting.remove(unit)
        now, ended = heapq.heappop(running)
        done.add(ended)
    return now


def test_joints_at_multiples_of_twelve_lanes() -> None:
    plan = plan_sums(60, 2, permits=2, most_buffers=8)
    for first, twelves in ((0, 1), (1, 1), (2, 1), (4, 1), (0, 2), (2, 2), (0, 4), (0, 5)):
        found = plan.joint(first, twelves)
        assert found is not None
        assert found[0] == 0 or first
        for unit in found[1]:
            work = plan.units[unit]
            assert work.lanes == range(first * 12, (first + twelves) * 12)
            assert work.buffer == found[0]
    assert plan.joint(1, 2) is None  # no node of the tree
    assert direct_sums(24, 1).joint(0, 1) is None


# --- merges ----------------------------------------------------------------------------------


def test_a_merge_cut_off_anywhere_ends_in_the_same_bits() -> None:
    generator = np.random.default_rng(1)
    size = 512 * 3 + 77
    lanes = generator.standard_normal((2, size)).astype(np.float32)
    for blocks in range(4):
        for half in (False, True):
            buffers = lanes.copy()
            undo = np.zeros((2, UNDO_WORDS), np.int64)
            progress = np.zeros(1, np.int64)
            merges = Merges(buffers, undo, progress)
            merges.merge(0, 0, 1, 0, min(512 * blocks, size), 0, 6)
            if half:  # the block in work: copied, marked, and partly changed
                start = 512 * blocks
                stop = min(start + 512, size)
                undo[0, 8 : 8 + 256].view(np.float32)[: stop - start] = buffers[0, start:stop]
                undo[0, :3] = 7, -1, blocks
                buffers[0, start : start + 30] = np.nan
            merges.recover(0, 0, 0, size, 0, 6)
            assert undo[0, 0] == 0
            merges.merge(0, 0, 1, 0, size, 1, 6)  # another's turn, with another permit
            assert (buffers[0] == lanes[0] + lanes[1]).all()
            merges.merge(0, 0, 1, 0, size, 1, 6)  # done is done
            assert (buffers[0] == lanes[0] + lanes[1]).all()
            merges.merge(0, 0, 1, 0, size, 1, 7)  # in the next step it is another
            assert (buffers[0] == (lanes[0] + lanes[1]) + lanes[1]).all()


def test_recover_leaves_what_is_not_its_own() -> None:
    buffers = np.ones((2, 600), np.float32)
    undo, progress = np.zeros((1, UNDO_WORDS), np.int64), np.zeros(2, np.int64)
    merges = Merges(buffers, undo, progress)
    for words in ((8, -1, 0), (7, -2, 0), (7, -1, 1), (7, 0, 0)):
        undo[0, :3] = words
        merges.recover(0, 0, 0, 600, 0, 6)
        assert (buffers == 1).all()
        assert undo[0, 0] == 0
    for arguments in ((2, 0, 1, 0, 600, 0), (0, 2, 1, 0, 600, 0), (0, 0, 2, 0, 600, 0),
                      (0, 0, 1, 0, 601, 0), (0, 0, 1, 0, 600, 1)):  # fmt: skip
        with pytest.raises(IndexError, match=" of "):
            merges.merge(*arguments, 0)


# --- runs ------------------------------------------------------------------------------------


def build_in_place(spec: RunSpec) -> TrainingProgram:
    """Build a program that sums in place, with as few buffers as can be."""
    made, sums.DIRECT_BYTES = sums.DIRECT_BYTES, 0
    try:
        return TrainingProgram(spec)
    finally:
        sums.DIRECT_BYTES = made


def in_place(spec: RunSpec) -> RunSpec:
    return dataclasses.replace(spec, program="tests.train.test_sums:build_in_place")


def numpy_run(spec: RunSpec) -> str:
    """Train with lanes summed by the oracle, in float32."""
    config, program = spec.config, bound(dataclasses.replace(spec, permits=1))
    size = program.table.size
    tree = ops.grouped_tree(program.lane_count, 12)
    segments = range(program.segment_count)
    for step in range(spec.max_steps):
        lanes: list[npt.NDArray[np.float32]] = []
        for lane in range(program.lane_count):
            program._together = 1  # every lane on its own
            program.compute_lane(lane, 0, step, 0.0)
            lanes.append(program._lanes[program._buffers[lane]].copy())
        program._lanes[0, :size] = ops.tree_sum(lanes, tree)
        program._lanes[1:] = 0.0
        norm = math.sqrt(math.fsum([program.reduce_segment(segment) for segment in segments]))
        place = spec.plan.place(step)
        clip, lr = (
            clip_factor(norm, config.grad_clip),
            learning_rate(config, place, spec.plan.length),
        )
        for segment in segments:
            program.update_segment(segment, 0, step, lr, clip)
    return program.weights_sha256()


@pytest.mark.parametrize("lanes", [12, 24, 36])
def test_a_run_has_the_bits_of_the_tree(data: PreparedData, tmp_path: Path, lanes: int) -> None:
    """Direct and in place, alone and with four spheres; each lane summed by NumPy says which."""
    settings = {**SETTINGS, "lanes": lanes, "batch_size": lanes + 2}
    want = numpy_run(spec(data, tmp_path / "numpy", **settings))
    assert serial_run(spec(data, tmp_path / "serial", **settings)) == want
    for workers, permits in ((1, 1), (4, 3), (5, 2)):
        made = spec(data, tmp_path / f"{workers}", workers=workers, permits=permits, **settings)
        assert run(in_place(made)).weights_sha256 == want
    direct = spec(data, tmp_path / "direct", workers=3, permits=2, **settings)
    assert run(direct).weights_sha256 == want


def test_deaths_while_sums_are_taken_in_place(data: PreparedData, tmp_path: Path) -> None:
    settings = {**SETTINGS, "lanes": 24, "batch_size": 24, "max_steps": 150}
    want = serial_run(spec(data, tmp_path / "serial", **settings))
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        pids = [sphere.pid for sphere in snapshot.spheres if sphere.pid]
        if snapshot.step < 130 and pids and len(killed) < 12:
            pid = pids[len(killed) % len(pids)]
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            killed.append(pid)

    made = in_place(spec(data, tmp_path / "run", workers=6, permits=2, **settings))
    result = train(made, on_snapshot=kill_one, interval_s=0.03)
    assert len(killed) > 2
    assert result.weights_sha256 == want


def test_63_spheres_on_two_permits_sum_in_place(data: PreparedData, tmp_path: Path) -> None:
    settings = {**SETTINGS, "lanes": 36, "batch_size": 36, "max_steps": 3}
    want = serial_run(spec(data, tmp_path / "serial", **settings))
    made = in_place(spec(data, tmp_path / "run", workers=63, permits=2, **settings))
    assert run(made).weights_sha256 == want


def test_merge_slices_cover_the_buffer_once() -> None:
    for parts in (1, 2, 3, 8):
        for size in (1, 15, 100, 4096):
            slices = [Merge(0, range(2), 0, 1, part, parts).slice(size) for part in range(parts)]
            assert slices[0][0] == 0
            assert slices[-1][1] == size
            assert all(a[1] == b[0] for a, b in pairwise(slices))
