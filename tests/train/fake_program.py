"""A tiny program for the engine: exact arithmetic, no model, as easy to disturb as a real one.

Weights and momentum are updated in place from gradients that depend on weights, step
and lane through floating-point rounding, so that any unit done twice, left out, half
done, or summed in another order changes the final bits.  Options (RunSpec.program_options):

    lanes, segments, width, eval_units    sizes
    naps           seconds to sleep in the middle of each unit, by phase: {"compute": 0.01}
    slowness       [[step, factor], ...]: from the step on naps of lanes are so much longer
    lame           by what naps of lanes are longer in some spheres, by number: {"1": 5.0}
    burn_s         seconds of processor time to burn in each lane
    nan_steps      steps whose gradient is not finite
    fail_lane      [lane, step]: raise there, always
    save_s         seconds that a checkpoint takes, in its middle
    save_bug       steps whose checkpoint meets a bug of the program
    fail_save      steps whose checkpoint meets a full disk
    fail_start     initialize with a bug, or "machine": with an error of the system
    thread_s       seconds that a thread begun by initialize lives
    discoveries    what a root discovery adds to each weight; 0: it finds nothing new
    discovery_s    seconds that it takes
    lost           what a death by SIGBUS is explained by
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystalline._kernels.marks import MarkRow
from crystalline.errors import CheckpointError, SaveError, UsageError
from crystalline.ipc.arena import Arena, Region
from crystalline.train.config import TrainConfig
from crystalline.train.examination import Culprit
from crystalline.train.protocol import Discovery, Loaded
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Diagnosis, Sizes
from crystalline.train.sums import Merge, direct_sums

DEFAULTS: dict[str, Any] = {
    "lanes": 12,
    "segments": 7,
    "width": 33,
    "eval_units": 5,
    "naps": {},
    "slowness": [],
    "lame": {},
    "burn_s": 0.0,
    "nan_steps": [],
    "fail_lane": None,
    "save_s": 0.0,
    "save_bug": [],
    "fail_save": [],
    "fail_start": False,
    "thread_s": 0.0,
    "discoveries": 0.0,
    "discovery_s": 0.0,
    "lost": None,
}


class FakeProgram:
    def __init__(self, spec: RunSpec) -> None:
        assert spec.permits is not None
        self.options = o = {**DEFAULTS, **spec.program_options}
        self.permits = spec.permits
        self.seed = spec.config.seed
        self.checkpoints = spec.run_dir / "checkpoints"
        self.lane_count = o["lanes"]
        self.heavy_lanes = o.get("heavy_lanes", 0)
        self.sums = direct_sums(self.lane_count, o.get("lanes_per_unit", 1))
        self.segment_count = o["segments"]
        self.eval_units = o["eval_units"]
        self.eval_tokens = sum(7 + unit for unit in range(self.eval_units))
        self.width = o["width"]
        self.copies = spec.save_while_training
        self.tokens_per_step = 10 * self.lane_count

    def regions(self) -> list[Region]:
        n = self.segment_count * self.width
        return [
            Region("weights", "float32", (n,)),
            Region("momentum", "float32", (n,)),
            Region("copy", "float32", (2, n if self.copies else 0)),
            Region("grads", "float32", (n,)),
            Region("packed", "float32", (n,)),
            Region("lanes", "float32", (self.lane_count, n)),
            Region("scratch", "float32", (self.permits, n)),
            Region("undo", "float32", (self.permits, 2, self.width)),
            Region("marks", "int64", (self.permits, 8)),
            Region("found", "float64", (self.segment_count, 4)),
            Region("culprits", "int64", (self.lane_count,)),
        ]

    def bind(self, arena: Arena) -> None:
        self.weights, self.momentum = arena["weights"], arena["momentum"]
        self.copy = arena["copy"]
        self.grads, self.packed, self.lanes = arena["grads"], arena["packed"], arena["lanes"]
        self.found, self.culprits = arena["found"], arena["culprits"]
        self.scratch, self.undo, self.marks = arena["scratch"], arena["undo"], arena["marks"]

    def record(self, marks: MarkRow) -> None:
        pass

    def initialize(self) -> None:
        if self.options["fail_start"] == "machine":
            raise OSError(errno.EIO, os.strerror(errno.EIO), "weights")
        if self.options["fail_start"]:
            raise LookupError("a bug in the program")
        if self.options["thread_s"]:
            threading.Thread(
                target=time.sleep, args=[self.options["thread_s"]], daemon=True
            ).start()
        generator = np.random.default_rng(self.seed)
        self.weights[:] = generator.standard_normal(len(self.weights), dtype=np.float32)

    def load(self, checkpoint: Path) -> Loaded:
        if not (checkpoint / "state.json").is_file():
            raise CheckpointError(f"{checkpoint} is not a checkpoint", advice="Look elsewhere.")
        weights, momentum = (
            np.load(checkpoint / f"{name}.npy") for name in ("weights", "momentum")
        )
        if weights.shape != self.weights.shape:
            raise CheckpointError(f"{checkpoint} holds another model", advice="Look elsewhere.")
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())

        def put() -> None:
            self.weights[:], self.momentum[:] = weights, momentum

        return Loaded(state, state.pop("config"), put)

    def find(self, name: str) -> Path:
        folder = self.checkpoints / (f"step-{int(name):08d}" if name.isdecimal() else name)
        if not folder.is_dir():
            raise CheckpointError(f"there is no checkpoint '{name}'", advice="Look elsewhere.")
        return folder.resolve()

    def mark_latest(self, checkpoint: Path) -> None:
        (self.checkpoints.parent / "latest.txt").write_text(checkpoint.name)

    def named(self) -> dict[str, int]:
        links = [path for path in self.checkpoints.glob("*") if path.is_symlink()]
        return {path.name: int(path.readlink().name[5:]) for path in links}

    def name(self, checkpoint: Path, name: str) -> None:
        if (self.checkpoints / name).exists():
            raise UsageError(f"the name {name} is taken", advice="Choose another.")
        (self.checkpoints / name).symlink_to(checkpoint.name)

    def copy_segment(self, segment: int) -> None:
        part = self._part(segment)
        self._nap("snapshot")
        self.copy[0, part], self.copy[1, part] = self.weights[part], self.momentum[part]

    def save(self, state: dict[str, Any], config: TrainConfig, *, copied: bool = False) -> Path:
        weights, momentum = self.copy if copied else (self.weights, self.momentum)
        if state["step"] in self.options["save_bug"]:
            raise LookupError("a bug in the program")
        if state["step"] in self.options["fail_save"]:
            raise SaveError("the disk is full", advice="Free some space.")
        target = self.checkpoints / f"step-{state['step']:08d}"
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / "weights.npy", weights)
        time.sleep(self.options["save_s"])
        np.save(target / "momentum.npy", momentum)
        (target / "state.json.tmp").write_text(json.dumps({**state, "config": config.to_dict()}))
        os.replace(target / "state.json.tmp", target / "state.json")
        return target

    def mark_best(self, checkpoint: Path) -> None:
        with (self.checkpoints.parent / "best.txt").open("a") as file:
            file.write(f"{checkpoint.name}\n")

    def lost_file(self) -> str | None:
        lost: str | None = self.options["lost"]
        return lost

    def weights_sha256(self) -> str:
        return hashlib.sha256(self.weights.tobytes() + self.packed.tobytes()).hexdigest()

    def diagnose_segment(self, segment: int, step: int, lr: float) -> None:
        self._nap("diagnose")
        part = self._part(segment)
        self.found[segment] = (
            np.abs(self.weights[part]).max(), np.abs(self.grads[part]).max(), step, lr,
        )  # fmt: skip

    def diagnosis(self, step: int) -> Diagnosis:
        weight, gradient, _, lr = self.found.max(axis=0).tolist()
        sizes = Sizes("all", weight, weight, min(0.5, gradient), 0.1, gradient, 0.0, lr)
        return Diagnosis(step, (sizes,), ())

    def examine(
        self, _: int, __: int, ___: float, losses: Sequence[float], alive: Callable[[], None]
    ) -> None:
        alive()
        assert len(losses) == self.lane_count
        bad = [lane for lane in range(self.lane_count) if not np.isfinite(self.lanes[lane]).all()]
        self.culprits[:] = -1
        self.culprits[: len(bad)] = bad

    def culprit(self, _: int) -> Culprit | None:
        lanes = tuple(int(lane) for lane in self.culprits if lane >= 0)
        return Culprit("gradient", math.nan, "all", (5,), lanes) if lanes else None

    def sequences_in(self, _: int) -> int:
        return 2

    def extremes(self) -> tuple[float, float]:
        sizes = np.abs(self.lanes[self.newest])
        return float(sizes.max()), float(sizes[sizes > 0].min())

    def discover(self, commit: Callable[[], None]) -> Discovery | None:
        every = self.options["discoveries"]
        if not every:
            return None
        until = time.monotonic() + self.options["discovery_s"]
        while time.monotonic() < until:  # and knows nothing of stops
            pass
        commit()
        self.weights += np.float32(every)
        self.packed[:] = self.weights
        return Discovery(1, 2, 3, 4, "much is new")

    def compute_lane(
        self, lane: int, permit: int, step: int, epsilon: float
    ) -> tuple[float, int, float, float]:
        if self.options["fail_lane"] == [lane, step]:
            raise ArithmeticError(f"lane {lane} of step {step} is meant to fail")
        scratch, grad = self.scratch[permit], self.lanes[lane]
        self.newest = lane
        scratch[:] = self.packed * np.float32(0.1 + 0.01 * lane)
        self._nap("compute", self._slowness(step) * self._lameness())
        end = time.process_time() + self.options["burn_s"]
        while time.process_time() < end:
            pass
        # If somebody else had this permit, scratch would have changed under our hands.
        grad[:] = 0.0
        grad += scratch
        grad += np.float32(0.3 * math.sin(step * 12.9 + lane) + epsilon)
        if step in self.options["nan_steps"] and lane == 3:
            grad[5] = np.nan
        loss = float(np.abs(scratch).sum(dtype=np.float64)) + lane
        return loss, 10 + lane, float(np.sqrt(np.dot(grad, grad))), 2.0 * loss

    def merge(self, merge: Merge, permit: int, step: int) -> None:  # noqa: ARG002
        raise AssertionError("every lane has a buffer")

    def recover_merge(self, merge: Merge, permit: int, step: int) -> None:  # noqa: ARG002
        raise AssertionError("every lane has a buffer")

    def reduce_segment(self, segment: int) -> float:
        part = self._part(segment)
        total = self.lanes[0, part].copy()
        for lane in range(1, self.lane_count):
            total += self.lanes[lane, part]
        self._nap("reduce")
        self.grads[part] = total
        return float(np.dot(total.astype(np.float64), total.astype(np.float64)))

    def update_segment(
        self, segment: int, permit: int, step: int, lr: float, clip_factor: float
    ) -> None:
        part, undo, mark = self._part(segment), self.undo[permit], self.marks[permit]
        mark[0] = 0
        undo[0], undo[1] = self.weights[part], self.momentum[part]
        mark[1] = step
        mark[0] = segment + 1
        self.momentum[part] *= np.float32(0.9)
        self.momentum[part] += self.grads[part] * np.float32(clip_factor)
        half = self.width // 2
        change = self.momentum[part] * np.float32(lr)
        self.weights[part][:half] -= change[:half]
        self._nap("update")
        self.weights[part][half:] -= change[half:]
        self.packed[part] = self.weights[part]

    def recover(self, permit: int, segment: int, step: int) -> None:
        part, undo, mark = self._part(segment), self.undo[permit], self.marks[permit]
        if mark[0] == segment + 1 and mark[1] == step:
            self.weights[part], self.momentum[part] = undo[0], undo[1]
            mark[0] = 0

    def pack_segment(self, segment: int) -> None:
        self._nap("pack")
        self.packed[self._part(segment)] = self.weights[self._part(segment)]

    def evaluate_unit(self, unit: int, permit: int) -> tuple[float, int]:
        scratch = self.scratch[permit]
        scratch[:] = self.packed + np.float32(unit)
        self._nap("evaluate")
        return float(np.abs(scratch).sum(dtype=np.float64)), 7 + unit

    def _nap(self, phase: str, factor: float = 1.0) -> None:
        if phase in self.options["naps"]:
            time.sleep(factor * self.options["naps"][phase])

    def _slowness(self, step: int) -> float:
        """Return by what the naps of a step are longer."""
        return next((f for first, f in reversed(self.options["slowness"]) if step >= first), 1.0)

    def _lameness(self) -> float:
        """Return by what the naps of this sphere are longer."""
        lame: dict[str, float] = self.options["lame"]
        if not lame:
            return 1.0
        name = Path("/proc/self/comm").read_text().strip()  # sphere-3
        return lame.get(name.rpartition("-")[2], 1.0)

    def _part(self, segment: int) -> slice:
        return slice(segment * self.width, (segment + 1) * self.width)


def build(spec: RunSpec) -> FakeProgram:
    return FakeProgram(spec)
