"""The launcher's view of a run: requests go in, snapshots come out, all through the arena.

Requests are words that Node Zero reads between steps.  Nothing here waits.
"""

from __future__ import annotations

import math
import time
from collections import deque

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.requests import FEWER, MORE, Wish
from crystalline.engine.shape import most_leaves
from crystalline.engine.tree import Tree
from crystalline.errors import UsageError
from crystalline.ipc.arena import Arena
from crystalline.ipc.liveness import memory_bytes
from crystalline.train import words as w
from crystalline.train.spec import STOP_REASONS, RunSpec, StopReason
from crystalline.train.stats import (
    OVER,
    RUN_STATES,
    SPHERE_STATES,
    EvalPoint,
    Snapshot,
    SphereStats,
)
from crystalline.train.words import TrainingWords

HISTORY_POINTS = 2000
RATE_WINDOW_S = 10.0
MEMORY_INTERVAL_S = 2.0


class Controller:
    """Steers and watches one run.  One at a time: it is the only writer of requests."""

    def __init__(self, spec: RunSpec, arena: Arena, permits: int) -> None:
        self._spec = spec
        self._permits = permits
        self._board = b.Board(arena)
        self._tree = Tree(self._board)
        self._words = TrainingWords(arena)
        self._losses: list[tuple[int, float]] = []
        self._losses_read = 0
        self._stride = 1  # every how manieth loss is kept
        self._evals: list[EvalPoint] = []
        self._evals_read = 0
        self._rates: deque[tuple[int, int, int]] = deque()  # step time (ns), tokens, steps
        self._memory: dict[int, int] = {}
        self._memory_at = -math.inf
        self.message: str | None = None
        self.checkpoint_path: str | None = None
        self.parameter_groups: tuple[tuple[str, float, float], ...] = ()
        self._board.control.store(b.ATTACHED, 1)
        self._board.barrier.ring_node()

    # Requests.

    def ask(self, wish: Wish) -> None:
        """Pass a wish on to Node Zero.

        Raises:
            UsageError: it makes no sense as the run is now; nothing changes.
        """
        if self.is_stopping:
            raise UsageError("the run is ending already", advice="Nothing more can be asked of it.")
        if wish.name == "workers":
            self._ask_workers(wish.argument)
        elif wish.name == "pause" and self.is_paused:
            raise UsageError("the run is paused already", advice="Let it go on with: resume.")
        elif wish.name == "resume" and not self.is_paused:
            raise UsageError("the run is not paused", advice="There is nothing to resume.")
        else:
            simple = {
                "pause": self.pause,
                "resume": self.resume,
                "checkpoint": self.checkpoint,
                "stop": self.stop,
            }
            simple[wish.name]()

    def _ask_workers(self, argument: int | str | None) -> None:
        now = self.workers
        steps: dict[int | str | None, int] = {MORE: now + 1, FEWER: now - 1}
        wanted = argument if isinstance(argument, int) else steps[argument]
        if wanted == now:
            raise UsageError(f"the run has {now} workers already", advice="Nothing changes.")
        self.set_workers(wanted)

    def pause(self) -> None:
        """Stay idle after the current step, until `resume`."""
        self._request(b.PAUSE, 1)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._request(b.PAUSE, 0)

    def checkpoint(self) -> None:
        """Save after the current step."""
        self._request(b.CHECKPOINT, self._board.control.load(b.CHECKPOINT) + 1)

    def stop(self, reason: StopReason = "stopped") -> None:
        """Finish the current step, save, and end."""
        self._request(b.STOP, STOP_REASONS.index(reason))

    def set_workers(self, count: int) -> None:
        """Go on with `count` spheres after the current step.

        Raises:
            UsageError: `count` is out of range; nothing changes.
        """
        most = most_leaves(self._spec.depth)
        if not 1 <= count <= most:
            raise UsageError(f"{count} workers were asked for", advice=f"Use 1 to {most} of them.")
        self._request(b.SET_WORKERS, count)

    def add_suspended(self, nanoseconds: int) -> None:
        """Tell Node Zero for how long the whole run was stopped."""
        self._board.control.fetch_add(b.SUSPENDED_NS, nanoseconds)

    @property
    def workers(self) -> int:
        """The number of spheres asked for last."""
        return self._board.control.load(b.SET_WORKERS) or self._spec.workers

    @property
    def state(self) -> str:
        """What the run does now: one of `RUN_STATES`."""
        return RUN_STATES[self._board.state.load(b.RUN_STATE)]

    @property
    def is_stopping(self) -> bool:
        """Whether an end was asked for, or has come."""
        ending = self.state == "stopping" or self.state in OVER
        return ending or bool(self._board.control.load(b.STOP))

    @property
    def is_paused(self) -> bool:
        """Whether a pause was asked for."""
        return bool(self._board.control.load(b.PAUSE))

    def _request(self, word: int, value: int) -> None:
        self._board.control.store(word, value)
        self._board.barrier.ring_node()

    # Watching.

    def sphere_pids(self) -> list[int]:
        """Return the process ids of all spheres that were ever forked and may live."""
        return [pid for pid in self._board.sphere_table[:, b.S_PID].tolist() if pid > 0]

    def snapshot(self) -> Snapshot:
        """Return the whole run at this moment.

        Each figure is whole; two of them may belong to neighboring steps.
        """
        spec, state, status = self._spec, self._board.state, self._words.status
        counts = self._words.counts
        work_done, work_total = state.load(b.WORK_DONE), state.load(b.WORK_TOTAL)
        self._read_losses()
        self._read_evals()
        step, tokens = counts.load(w.STEP), counts.load(w.TOKENS)
        started_ns, since_ns, now_ns = (
            state.load(b.STARTED_NS),
            state.load(b.SINCE_NS),
            monotonic_ns(),
        )
        max_steps = counts.load(w.MAX_STEPS) or spec.max_steps
        rate, step_s = self._rate(step)
        left = max(0, max_steps - step)
        stood_ns = state.load(b.PAUSED_NS) + self._board.control.load(b.SUSPENDED_NS)
        elapsed_s = max(0.0, (now_ns - started_ns - stood_ns) / 1e9) if started_ns else 0.0
        eta_s = left * step_s if step_s else None
        if eta_s is not None and spec.max_seconds is not None:
            eta_s = max(0.0, min(eta_s, spec.max_seconds - elapsed_s))
        peak = spec.peak_flops
        return Snapshot(
            run_dir=str(spec.run_dir),
            state=RUN_STATES[state.load(b.RUN_STATE)],
            step=step,
            max_steps=max_steps,
            epoch=tokens / spec.tokens_per_epoch if spec.tokens_per_epoch else 0.0,
            elapsed_s=elapsed_s,
            eta_s=eta_s,
            loss=_known(status[w.LOSS]) if step else None,
            val_loss=_known(status[w.VAL_LOSS]),
            best_val_loss=_known(status[w.BEST_VAL_LOSS]),
            val_bits_per_byte=_known(status[w.VAL_BITS]),
            learning_rate=_known(status[w.LEARNING_RATE]) or 0.0,
            grad_norm=_known(status[w.GRAD_NORM]) if step else None,
            clip_factor=_known(status[w.CLIP_FACTOR]) or 1.0,
            tokens=tokens,
            tokens_per_second=rate,
            flops_per_token=spec.flops_per_token,
            peak_share=rate * spec.flops_per_token / peak if peak else None,
            dropped_steps=counts.load(w.DROPPED),
            workers=state.load(b.SPHERES),
            permits=self._permits,
            lanes=spec.config.lanes,
            parameters=spec.parameters,
            precision=spec.precision,
            isa=spec.isa,
            last_checkpoint=self.checkpoint_path,
            message=self.message,
            loss_history=tuple(self._losses),
            eval_history=tuple(self._evals),
            parameter_groups=self.parameter_groups,
            spheres=self._spheres(),
            crystalline_loss=_known(status[w.CRYSTALLINE_LOSS]) if step else None,
            state_s=max(0.0, (now_ns - since_ns) / 1e9) if since_ns else 0.0,
            work_done=work_done,
            work_total=work_total,
        )

    def _spheres(self) -> tuple[SphereStats, ...]:
        now = time.monotonic()
        fresh = now - self._memory_at < MEMORY_INTERVAL_S
        if not fresh:
            self._memory_at = now
            self._memory = {}
        rows = self._board.sphere_table.tolist()
        spheres = []
        for index, row in enumerate(rows):
            if not row[b.S_ID]:
                continue
            pid = row[b.S_PID]
            if pid and pid not in self._memory:
                self._memory[pid] = memory_bytes(pid)
            spheres.append(
                SphereStats(
                    index=index,
                    position=row[b.S_GROUP],
                    level=len(self._tree.path(index)),
                    parent=row[b.S_PARENT],
                    pid=pid,
                    state=SPHERE_STATES[row[b.S_STATE]],
                    lanes_done=row[w.S_LANES],
                    steals=row[w.S_STEALS],
                    segments_done=row[w.S_SEGMENTS],
                    tokens=row[w.S_TOKENS],
                    compute_s=row[b.S_COMPUTE_NS] / 1e9,
                    sync_s=(row[b.S_SYNC_NS] + row[b.S_WAIT_NS]) / 1e9,
                    wait_s=row[b.S_WAIT_NS] / 1e9,
                    idle_s=row[b.S_IDLE_NS] / 1e9,
                    grad_norm=float(self._words.lane_norms[index]),
                    memory_bytes=self._memory.get(pid, 0),
                    respawns=row[b.S_RESPAWNS],
                )
            )
        return tuple(spheres)

    def _rate(self, step: int) -> tuple[float, float]:
        """Return tokens per second and seconds per step, over the last few seconds of steps."""
        counts, rates = self._words.counts, self._rates
        now = (counts.load(w.STEP_NS), counts.load(w.SESSION_TOKENS), step)
        if not rates or now != rates[-1]:
            rates.append(now)
        while len(rates) > 2 and now[0] - rates[1][0] > RATE_WINDOW_S * 1e9:
            rates.popleft()
        took_s = (now[0] - rates[0][0]) / 1e9
        steps = now[2] - rates[0][2]
        if not took_s or not steps:
            return 0.0, 0.0
        return (now[1] - rates[0][1]) / took_s, took_s / steps

    def _read_losses(self) -> None:
        """Take new entries from the ring; halve the history when it grows too long."""
        written = self._words.counts.load(w.LOSSES)
        first = max(self._losses_read, written - w.LOSS_RING + 16)  # the oldest may be in the works
        for entry in range(first, written):
            if entry % self._stride == 0:
                step, loss = self._words.losses[entry % w.LOSS_RING].tolist()
                self._losses.append((int(step), loss))
        self._losses_read = written
        while len(self._losses) > HISTORY_POINTS:
            self._stride *= 2
            del self._losses[1::2]

    def _read_evals(self) -> None:
        written = self._words.counts.load(w.EVALS)
        for entry in range(max(self._evals_read, written - w.EVAL_RING + 1), written):
            step, loss, bits = self._words.evals[entry % w.EVAL_RING].tolist()
            self._evals.append(EvalPoint(int(step), loss, bits))
        self._evals_read = written


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
