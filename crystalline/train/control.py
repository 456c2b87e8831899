"""The launcher's view of a run: requests go in, snapshots come out, all through the arena.

Requests wait in a queue until Node Zero takes them between steps (`engine.queue`); what makes no
sense by what was asked before is refused here, at once.  Nothing here waits.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.board import REQUEST_PLACES
from crystalline.engine.queue import Answer, RequestQueue
from crystalline.engine.requests import FEWER, MORE, Wish
from crystalline.engine.shape import most_leaves
from crystalline.engine.tree import Tree
from crystalline.errors import UsageError
from crystalline.ipc.arena import Arena
from crystalline.ipc.liveness import memory_bytes
from crystalline.ipc.mailbox import counters
from crystalline.log import get_logger
from crystalline.train import words as w
from crystalline.train.aggregates import balance, entropy, lanes_by_group, shares, stolen
from crystalline.train.health import Vitals
from crystalline.train.spec import STOP_REASONS, RunSpec, StopReason
from crystalline.train.stats import (
    FAILED,
    OK,
    OVER,
    RUN_STATES,
    SPHERE_STATES,
    Diagnosis,
    EvalPoint,
    Snapshot,
    SphereStats,
)
from crystalline.train.words import TrainingWords

HISTORY_POINTS = 2000
RATE_WINDOW_S = 10.0
MEMORY_INTERVAL_S = 2.0
ANSWERS_KEPT = 256
NOTE_CHARS = 300  # of what the queue has room for

logger = get_logger("train")


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
        self._step = 0  # at the last snapshot
        self._rates: deque[tuple[int, int, int]] = deque()  # step time (ns), tokens, steps
        self._memory: dict[int, int] = {}
        self._memory_at = -math.inf
        self._peaks: dict[int, int] = {}  # of memory, by node
        self.message: str | None = None
        self.checkpoint_path: str | None = None
        self.named_checkpoints: tuple[tuple[str, int], ...] = ()
        self._vitals = Vitals(spec.run_dir, spec.hang_s, spec.health_interval_s)
        self._is_health_told = True  # to Node Zero
        self.diagnosis: Diagnosis | None = None
        self._queue = RequestQueue(self._board)
        self._answers: dict[int, Answer] = {}  # the newest, by number
        self._answers_taken = 0
        self.is_paused, self.is_held = False, spec.held  # when all that was asked is done
        self._workers_asked = (-1, spec.workers)  # number of the request, and how many
        self._board.control.store(b.ATTACHED, 1)
        self._board.barrier.ring_node()

    # Requests.

    def ask(self, wish: Wish, pid: int | None = None, uid: int | None = None) -> int:
        """Pass a wish on to Node Zero; return the number by which `answer_to` knows it.

        `pid` and `uid` are whose wish it is, by default this process's.

        Raises:
            UsageError: it makes no sense as the run is now, or too many wait; nothing changes.
        """
        if self.is_stopping:
            raise UsageError("the run is ending already", advice="Nothing more can be asked of it.")
        if wish.name == "workers":
            wish = self._workers_wished(wish)
        elif wish.name == "pause" and self.is_paused:
            raise UsageError("the run is paused already", advice="Let it go on with: resume.")
        elif wish.name == "resume" and not self.is_paused:
            raise UsageError("the run is not paused", advice="There is nothing to resume.")
        elif wish.name == "start" and not self.is_held:
            raise UsageError("the run has started already", advice="There is nothing to start.")
        self._take_answers()
        number = self._queue.put(
            str(wish), os.getpid() if pid is None else pid, os.getuid() if uid is None else uid
        )
        if wish.name == "stop":
            self.stop()  # also where the queue is full
            return -1 if number is None else number
        if number is None:
            raise UsageError(
                f"{REQUEST_PLACES} requests wait for the end of the step already",
                advice="Ask again when it is over.",
            )
        if wish.name in ("pause", "resume"):
            self.is_paused = wish.name == "pause"
        elif isinstance(wish.argument, int) and wish.name == "workers":
            self._workers_asked = (number, wish.argument)
        elif wish.name == "start":
            self.is_held = False
        return number

    def answer_to(self, number: int) -> Answer | None:
        """Return what came of a request; None while its turn has not come.

        Raises `KeyError` for one that was never made, or is forgotten.
        """
        self._take_answers()
        if number in self._answers:
            return self._answers[number]
        if self._answers_taken <= number < self._board.control.load(b.ASKED):
            return None
        raise KeyError(number)

    def _take_answers(self) -> None:
        """Keep the newest answers: their places in the queue are used again."""
        for number in range(self._answers_taken, self._queue.answered):
            self._answers[number] = self._queue.answer_to(number)
        self._answers_taken = self._queue.answered
        while len(self._answers) > ANSWERS_KEPT:
            del self._answers[next(iter(self._answers))]

    def _workers_wished(self, wish: Wish) -> Wish:
        now = self.workers
        steps: dict[object, int] = {MORE: now + 1, FEWER: now - 1}
        wanted = wish.argument if isinstance(wish.argument, int) else steps[wish.argument]
        if wanted == now:
            raise UsageError(f"the run has {now} workers already", advice="Nothing changes.")
        most = most_leaves(self._spec.depth)
        if not 1 <= wanted <= most:
            raise UsageError(f"{wanted} workers were asked for", advice=f"Use 1 to {most} of them.")
        return Wish("workers", wanted)

    def stop(self, reason: StopReason = "stopped") -> None:
        """Finish the current step, save, and end.  A signal handler may call it anywhere."""
        self._board.control.store(b.STOP, STOP_REASONS.index(reason))
        self._board.barrier.ring_node()

    @property
    def workers(self) -> int:
        """How many leaves the tree has when all that was asked is done."""
        number, count = self._workers_asked
        if number < self._queue.answered:  # others may have changed it since
            return self._board.state.load(b.SPHERES) or self._spec.workers
        return count

    def look_at_health(self, snapshot: Snapshot) -> None:
        """Judge the health of the run, every so often; tell, and record, when it changes."""
        changed = self._vitals.look(snapshot)
        health = self._vitals.health
        reasons = "; ".join(health.reasons)
        if changed:
            level = logging.WARNING if health.state == FAILED else logging.INFO
            logger.log(level, "health: %s%s", health.state, f": {reasons}" if reasons else "")
            self._is_health_told = False
        if not self._is_health_told:
            self._is_health_told = self._queue.put_note(
                "health", {"state": health.state, "reasons": reasons[:NOTE_CHARS]}
            )

    def add_suspended(self, nanoseconds: int) -> None:
        """Tell Node Zero for how long the whole run was stopped."""
        self._board.control.fetch_add(b.SUSPENDED_NS, nanoseconds)

    @property
    def state(self) -> str:
        """What the run does now: one of `RUN_STATES`."""
        return RUN_STATES[self._board.state.load(b.RUN_STATE)]

    @property
    def is_stopping(self) -> bool:
        """Whether an end was asked for, or has come."""
        ending = self.state == "stopping" or self.state in OVER
        return ending or bool(self._board.control.load(b.STOP))

    # Watching.

    def forked_pids(self) -> list[int]:
        """Return the process ids of what Node Zero has forked and may live: spheres, a saver."""
        pids = self._board.sphere_table[:, b.S_PID].tolist()
        return [pid for pid in (*pids, self._words.counts.load(w.SAVER_PID)) if pid > 0]

    def snapshot(self) -> Snapshot:
        """Return the whole run at this moment.

        Each figure is whole; two of them may belong to neighboring steps.
        """
        spec, state = self._spec, self._board.state
        values = self._words.run_figures()
        self._read_losses()
        self._read_evals()
        step, tokens = values["step"], values["tokens"]
        if step < self._step:  # the run went back
            self._forget_after(step)
        self._step = step
        started_ns, since_ns, now_ns = (
            state.load(b.STARTED_NS),
            state.load(b.SINCE_NS),
            monotonic_ns(),
        )
        max_steps = values["max_steps"] or spec.max_steps
        rate, step_s = self._rate(step)
        left = max(0, max_steps - step)
        stood_ns = state.load(b.PAUSED_NS) + self._board.control.load(b.SUSPENDED_NS)
        elapsed_s = max(0.0, (now_ns - started_ns - stood_ns) / 1e9) if started_ns else 0.0
        eta_s = left * step_s if step_s else None
        if eta_s is not None and spec.max_seconds is not None:
            eta_s = max(0.0, min(eta_s, spec.max_seconds - elapsed_s))
        peak = spec.peak_flops
        spheres = self._spheres()
        work = shares(lanes_by_group(spheres))
        values |= {
            "balance": balance(spheres),
            "work_entropy": entropy(work),
            "work_by_group": work,
            "run_dir": str(spec.run_dir),
            "state": RUN_STATES[state.load(b.RUN_STATE)],
            "max_steps": max_steps,
            "epoch": tokens / spec.tokens_per_epoch if spec.tokens_per_epoch else 0.0,
            "elapsed_s": elapsed_s,
            "eta_s": eta_s,
            "tokens_per_second": rate,
            "flops_per_token": spec.flops_per_token,
            "peak_share": rate * spec.flops_per_token / peak if peak else None,
            "permits": self._permits,
            "lanes": spec.config.lanes,
            "parameters": spec.parameters,
            "precision": spec.precision,
            "isa": spec.isa,
            "last_checkpoint": self.checkpoint_path,
            "message": self.message,
            "health": self._vitals.health.state,
            "state_s": max(0.0, (now_ns - since_ns) / 1e9) if since_ns else 0.0,
        }
        return Snapshot(
            **values,
            loss_history=tuple(self._losses),
            eval_history=tuple(self._evals),
            diagnosis=self.diagnosis,
            health_reasons=self._vitals.health.reasons,
            named_checkpoints=self.named_checkpoints,
            spheres=spheres,
        )

    def _spheres(self) -> tuple[SphereStats, ...]:
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_INTERVAL_S:
            self._memory_at = now
            self._memory = {}
        rows = self._board.sphere_table.tolist()
        homes = [
            (index, row[b.S_HOME] - 1 if row[b.S_HOME] else row[b.S_GROUP])
            for index, row in enumerate(rows)
            if row[b.S_ID] > 0
        ]
        lanes = self._words.position_table.tolist()
        spheres = []
        for index, group in homes:
            row = rows[index]
            pid, node = max(0, row[b.S_PID]), row[b.S_ID]
            if pid and pid not in self._memory:
                self._memory[pid] = memory_bytes(pid)
            memory = self._memory.get(pid, 0)
            self._peaks[node] = max(memory, self._peaks.get(node, 0))
            values = self._words.sphere_figures(index)
            mail = counters(self._board.mail, index)
            values |= {
                "index": index,
                "position": group,
                "pid": pid,
                "level": len(self._tree.path(index)),
                "state": SPHERE_STATES[row[b.S_STATE]],
                "stolen": stolen(index, lanes, homes),
                "memory_bytes": memory,
                "peak_memory_bytes": self._peaks[node],
                "quiet_s": self._vitals.quiet_s(index, pid, row[b.S_BEAT]),
                "health": self._vitals.health.spheres.get(index, OK),
                "mail_sent": mail.sent,
                "mail_received": mail.received,
                "mail_dropped": mail.dropped,
            }
            spheres.append(SphereStats(**values))
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
        if took_s <= 0 or steps <= 0:
            return 0.0, 0.0
        return (now[1] - rates[0][1]) / took_s, took_s / steps

    def _read_losses(self) -> None:
        """Take new entries from the ring; halve the history when it grows too long."""
        written = self._words.counts.load(w.LOSSES)
        first = max(self._losses_read, written - w.LOSS_RING + 16)  # the oldest may be in the works
        for entry in range(first, written):
            step, loss = self._words.losses[entry % w.LOSS_RING].tolist()
            while self._losses and self._losses[-1][0] >= step:  # the run went back
                self._losses.pop()
            if entry % self._stride == 0:
                self._losses.append((int(step), loss))
        self._losses_read = written
        while len(self._losses) > HISTORY_POINTS:
            self._stride *= 2
            del self._losses[1::2]

    def _forget_after(self, step: int) -> None:
        """Drop from the past what lies behind a step that the run went back to."""
        while self._losses and self._losses[-1][0] > step:
            self._losses.pop()
        while self._evals and self._evals[-1].step > step:
            self._evals.pop()
        self._rates.clear()

    def _read_evals(self) -> None:
        written = self._words.counts.load(w.EVALS)
        for entry in range(max(self._evals_read, written - w.EVAL_RING + 1), written):
            step, loss, bits = self._words.evals[entry % w.EVAL_RING].tolist()
            while self._evals and self._evals[-1].step >= step:
                self._evals.pop()
            self._evals.append(EvalPoint(int(step), loss, bits))
        self._evals_read = written
