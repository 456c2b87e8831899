"""Node Zero: plans steps, watches spheres, evaluates, saves, obeys.  It computes no batch.

It lives in a process of its own (`crystalline.train.node_process`).

While training it is awake once a step, for some tens of microseconds: it hands out
the next step first and does the books of the last one while the spheres compute.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import math
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from crystalline._kernels.atomics import monotonic_ns
from crystalline._kernels.marks import MarkRow
from crystalline.engine import board as b
from crystalline.engine.interruption import interruptible
from crystalline.engine.node import Node
from crystalline.engine.obeying import RefusedError
from crystalline.engine.runner import LOOK_NS
from crystalline.engine.shape import rows_of
from crystalline.errors import CrystallineError
from crystalline.faults import point
from crystalline.formats.files import PROFILE
from crystalline.ipc.positions import POSITIONS
from crystalline.ipc.slots import open_cores
from crystalline.log import get_logger
from crystalline.machine.memory import give_back
from crystalline.machine.topology import core_numbers
from crystalline.train import words as w
from crystalline.train.books import Books, Step
from crystalline.train.config import TrainConfig
from crystalline.train.epochs import ends_epochs
from crystalline.train.evaluation import Evaluation
from crystalline.train.footprint import most_permits
from crystalline.train.metrics import MetricsLog
from crystalline.train.profiler import Profiler
from crystalline.train.protocol import Program
from crystalline.train.report import send
from crystalline.train.saving import Saver
from crystalline.train.schedule import crystalline_epsilon, learning_rate
from crystalline.train.sizing import FORWARD_SHARE
from crystalline.train.spec import STOP_REASONS, RunSpec, StopReason
from crystalline.train.stats import RUN_STATES
from crystalline.train.step import COMPUTE, EVALUATE, PACK, StepPhases
from crystalline.train.step_words import StepSpheres
from crystalline.train.timing import TimedPlan, Work
from crystalline.train.wishes import Place, Wishes, read_place
from crystalline.train.words import TrainingWords, training_regions

SIGNALED = ("interrupted", "terminated", "hangup")  # reasons to stop that are no requests
SAVE_S = 0.05  # what a save is thought to take at least, before one was measured
CHECKPOINT_BYTES, SAVED_BYTES_PER_S = 12, 250e6  # of a parameter; written, hashed and synced
ANNOUNCE_NS = 2_000_000_000  # a root discovery that takes longer is told of while it lasts

logger = get_logger("train")


class _StopWanted(Exception):
    """Somebody wants an end, or the time is up; raised in the middle of a root discovery."""


class NodeZero:
    """A run, from the first step of this session to its result."""

    def __init__(self, spec: RunSpec, report: int) -> None:
        """`report` is the file descriptor of the pipe to the launcher."""
        self._report = report
        cores = spec.permits or most_permits(spec.workers, spec.depth)
        self.spec = spec = dataclasses.replace(spec, permits=cores)
        self.program = _build(spec)
        program = self.program
        declared = StepPhases(program, spec.config.grad_clip)
        phases = declared.declare()
        units = max(program.lane_count, *(phase.units for phase in phases))
        rows = rows_of(spec.workers, spec.depth)
        self._node = Node(
            phases,
            training_regions(units, rows) + program.regions(),
            folder=spec.run_dir,
            permits=cores,
            rows=rows,
            depth=spec.depth,
            states=RUN_STATES,
            jitter_s=spec.jitter_s,
            hang_s=spec.hang_s,
            lost_file=program.lost_file,
            happened=self._happened,
            record=self._record,
            held=spec.held,
            cores=open_cores(core_numbers()) if spec.share_cores else None,
            pin=spec.pin,
        )
        self._phase_names = tuple(phase.name for phase in phases)
        self._profiler: Profiler | None = None
        if spec.profile is not None:
            self._profiler = Profiler(spec, self._node.board, self._phase_names)
        self._phases, self._clock = self._node.runner, self._node.clock
        program.bind(self._node.arena)
        self.words = TrainingWords(self._node.arena)
        declared.bind(self.words)
        self._books = Books(self._node.board, self.words, spec, self._clock)
        self._spheres = StepSpheres(self._node.board)
        self._saver = Saver(
            spec, program, self._node, self._books, self.words,
            lambda path: self.send("checkpoint", path=path),
        )  # fmt: skip
        self._plan = spec.plan
        self._timing: TimedPlan | None = None
        self._step = 0
        self._unbooked: Step | None = None
        self._went_back = False
        self._wishes = Wishes(
            program, spec.config, save=self._save, finish_saves=self._saver.finish,
            go_back=self._go_back, set_factor=self._set_factor,
            is_timed=spec.max_seconds is not None, profile=self._begin_profile,
            named=lambda names: self.send("named", names=names),
        )  # fmt: skip
        self._node.requests.add(self._wishes.handlers())
        if cores > program.lane_count:
            lanes = program.lane_count
            logger.warning(
                "%d of %d cores have nothing to do: a step has %d lanes; a new run with --lanes %d "
                "and at least as many sequences a step would use them all",
                cores - lanes, cores, lanes, -(-cores // POSITIONS) * POSITIONS,
            )  # fmt: skip

    def _record(self, row: int) -> MarkRow | None:
        """Return where the sphere in a row enters what it does; called in its process."""
        if self._profiler is None:
            return None
        marks = self._profiler.recording.row(row)
        self.program.record(marks)
        return marks

    def _begin_profile(self, steps: int) -> Path:
        """Record so many steps from now on; return the file that it comes to."""
        if self._profiler is not None and not self._profiler.is_over:
            raise RefusedError("a profile is being made", advice="Ask again when it is there.")
        path = self.spec.run_dir / PROFILE
        spec = dataclasses.replace(self.spec, profile=path, profile_steps=steps)
        self._profiler = Profiler(spec, self._node.board, self._phase_names, warm_up=0)
        self._node.growth.renew()  # who was forked before knows of no recording
        return path

    # Life.

    def run(self) -> dict[str, Any]:
        """Train to the end; return the fields of a `RunResult`."""
        try:
            self._introduce()
            self._load()
            point("node.loaded")
            gc.collect()
            gc.freeze()  # what is here now stays shared with the spheres
            if not self.spec.create:
                self._node.resize(self.spec.workers)
                self._phases.begin(PACK)
                self._phases.wait()
            with MetricsLog(self.spec.run_dir, self._step) as metrics:
                self._books.open(metrics)
                if self.spec.create:
                    return self._finish("created")
                if self._step and self._books.recall(self._step, self.program.eval_tokens):
                    self._saver.mark_best(self._step)
                return self._finish(self._train())
        except CrystallineError:
            self._saver.finish(look_after=False)  # what was right before is worth the wait
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._saver.close()
            self._node.disband()

    def _introduce(self) -> None:
        """Hand the launcher the arena, and wait until it has mapped it."""
        self._node.enter_state("starting")
        self.words.enter(max_steps=self._plan.max_steps)
        self.words.status[:] = math.nan
        arena = self._node.arena
        send(
            self._report, "arena", layout=arena.layout.to_json(), permits=self.spec.permits,
            descriptor=arena.descriptor,
        )  # fmt: skip
        self._node.await_launcher()

    def _load(self) -> None:
        checkpoint = self.spec.resume_from
        if checkpoint is None:
            self.program.initialize()
            return
        place = read_place(self.program, checkpoint)
        place.loaded.put()
        self._take_place(place)

    def _take_place(self, place: Place) -> None:
        """Be where a checkpoint is, which was put into the arena."""
        self._step = place.state["step"]
        self._books.restore(place.state, place.checkpoint)
        self._saver.resumed(self._step, place.checkpoint)

    def _go_back(self, place: Place) -> None:
        """Go back, or forth, to a checkpoint of this run, and go on as if resumed there."""
        before = self._step
        self._saver.finish()
        self._node.enter_state("restoring")
        place.loaded.put()
        self._phases.begin(PACK)
        self._phases.wait()
        self._take_place(place)
        self._plan = place.plan
        self.words.enter(max_steps=self._plan.max_steps)
        self._books.metrics.cut(self._step)
        if self._books.recall(self._step, self.program.eval_tokens):
            self._saver.mark_best(self._step)
        self.program.mark_latest(place.checkpoint)
        self._went_back = True
        give_back()
        logger.info("the run went from step %d to step %d", before, self._step)
        self._happened("restored", checkpoint=place.checkpoint.name, before=before)

    def _has_gone_back(self) -> bool:
        """Return whether the run went back since the last call."""
        went, self._went_back = self._went_back, False
        return went

    def _set_factor(self, factor: float) -> None:
        self._books.set_lr_factor(factor)
        self._saver.is_changed = True

    def _train(self) -> StopReason:
        """Take steps until the last one, or until somebody wants a stop."""
        self._wishes.tell_names()
        held = self._node.hold()
        if held:
            return STOP_REASONS[held] or "stopped"
        self._node.enter_state("training")
        self._clock.start()
        self._timing = self._saver.timing = self._time_plan()
        while True:
            self._look_at_the_clock()
            last = self._plan.max_steps
            if self._is_due() or (self._unbooked and self._unbooked.outcome[w.NON_FINITE]):
                self._book()
                reason = self._attend()
                if self._has_gone_back() and reason is None:
                    continue
                if reason is not None:
                    return (
                        reason if self._step < last or self._is_evaluation_wanted() else "finished"
                    )
            if self._is_patience_over():
                return "patience"
            if self._step >= last:
                self._book()
                reason = self._conclude()
                if reason is not None:
                    return reason
                if not self._has_gone_back() and not self._look_at_the_clock():
                    return "finished"
                self._node.enter_state("training")
                continue
            if self._is_discovery_due():
                try:
                    self._discover()
                except _StopWanted:
                    return self._stop_reason() or "time"
            self._take_step()

    def _take_step(self) -> None:
        """Points A to B and on to the end of a step; the last step's books meanwhile."""
        if self._profiler is not None:
            self._profiler.look(self._step)
        words, began_ns = self.words, self._clock.running_ns()
        config, plan = self.spec.config, self._plan
        place = plan.place(self._step)
        lr = learning_rate(config, place, plan.length) * self._books.lr_factor
        words.descriptor[w.STEP_INDEX] = self._step
        words.descriptor[w.STEP_LR] = lr
        words.descriptor[w.STEP_EPSILON] = crystalline_epsilon(config, place, plan.length)
        words.descriptor[w.DIAGNOSES] = self._is_diagnosis_due(self._step + 1)
        self._node.enter_progress(0, 0, 0)
        from_ns = monotonic_ns()
        self._phases.begin(COMPUTE)
        self._book()
        self._phases.wait()
        point("node.step")
        took_ns = max(1, self._clock.running_ns() - began_ns)
        self._step += 1
        is_dropped = bool(words.outcome[w.NON_FINITE])
        is_due = not is_dropped and bool(words.descriptor[w.DIAGNOSES])
        self._unbooked = Step(
            self._step,
            words.results[: self.program.lane_count].tolist(),
            words.outcome.tolist(),
            lr,
            took_ns,
            from_ns,
            monotonic_ns(),
            self._spheres.since(),
            is_last=self._step >= plan.max_steps,
            diagnosis=self.program.diagnosis(self._step) if is_due else None,
            culprit=self.program.culprit(self._step - 1) if is_dropped else None,
        )

    def _book(self) -> None:
        """Enter the newest finished step in the books."""
        done, self._unbooked = self._unbooked, None
        if done is not None:
            units_ns = [row[w.UNIT_NS] for row in done.lanes]
            self._node.board.state.store(b.UNIT_NS, round(statistics.median(units_ns)))
            self._books.enter_step(done)
            if done.diagnosis is not None:
                self.send("diagnosis", diagnosis=done.diagnosis.to_json())

    def _is_diagnosis_due(self, step: int) -> bool:
        interval = self.spec.config.diagnostics_interval
        return interval > 0 and (step == 1 or step % interval == 0)

    # Time.

    def _time_plan(self) -> TimedPlan | None:
        """Return what fits the plan to the time, of a run that has only so much of it."""
        spec, work = self.spec, _work_of(self.spec, self.program)
        if spec.max_seconds is None:
            return None
        return TimedPlan(
            self._plan, spec.max_seconds, work, step=self._step, most_steps=spec.most_steps
        )

    def _look_at_the_clock(self) -> bool:
        """Fit the plan of a timed run to the time it has left; return whether that changed it."""
        timing = self._timing
        if timing is None:
            return False
        changed = timing.look(self._step, self._clock.running_s())
        if not changed and timing.wants_probe:
            self._probe()
            changed = timing.look(self._step, self._clock.running_s())
        self._plan = timing.plan
        self.words.enter(max_steps=self._plan.max_steps)
        return changed

    def _probe(self) -> None:
        """Find out what an evaluation takes, from one round of it."""
        assert self._timing is not None
        self._book()  # whose numbers are where the round's will be
        began_s = self._clock.running_s()
        evaluation = Evaluation(self.program.eval_units, self._node.board.permits.count)
        if self._run_round(evaluation):
            took_s = self._clock.running_s() - began_s
            whole_s = took_s * self.program.eval_tokens / max(1, evaluation.tokens)
            self._timing.probed(took_s, whole_s)

    # Between steps.

    def _stop_reason(self) -> StopReason | None:
        return STOP_REASONS[self._node.stop_wanted()]

    def _is_due(self) -> bool:
        """Return whether anything is to be done before the next step."""
        config = self.spec.config
        return (
            self._node.is_wanted()
            or self._is_multiple(config.eval_interval)
            or self._is_multiple(config.save_interval)
            or self._is_save_epoch()
        )

    def _is_save_epoch(self) -> bool:
        """Return whether the newest step ended a pass after which a run is saved and evaluated."""
        config, spec = self.spec.config, self.spec
        return (
            config.save_epochs > 0
            and self._step > 0
            and ends_epochs(
                self._step, config.save_epochs, config.tokens_per_step, spec.tokens_per_epoch
            )
        )

    def _is_multiple(self, interval: int) -> bool:
        return interval > 0 and self._step > 0 and self._step % interval == 0

    def _is_evaluation_wanted(self) -> bool:
        """Return whether an evaluation would find something new."""
        return self.program.eval_units > 0 and self._books.evaluated_step != self._step

    def _is_patience_over(self) -> bool:
        """Return whether as many evaluations as are allowed brought nothing better, up to here."""
        patience, books = self.spec.config.patience, self._books
        return (
            0 < patience <= books.since_best
            and books.evaluated_step == self._step < self._plan.max_steps
        )

    def _attend(self) -> StopReason | None:
        """Save, evaluate and obey as is due; return the reason to stop, if there is one.

        A run that resumes at a step whose evaluation was given up makes it here, too.
        """
        config = self.spec.config
        ends_epoch = self._is_save_epoch()
        due = ends_epoch or self._is_multiple(config.eval_interval)
        evaluates = due and self._is_evaluation_wanted()
        if evaluates or ends_epoch or self._is_multiple(config.save_interval):
            self._saver.begin(self._step, self._config())
        if evaluates:
            reason = self._evaluate()
            if reason is not None:
                return reason
        return self._obey()

    def _conclude(self) -> StopReason | None:
        """Save and evaluate after the last step; return the reason to stop, if there is one."""
        self._save()
        return self._evaluate()

    def _obey(self, state: str = "training") -> StopReason | None:
        """Do what the user wants while nobody computes; go on in `state`, or return a reason."""
        return STOP_REASONS[self._node.obey(state)]

    def _happened(self, event: str, **values: Any) -> None:
        """Enter an event of the engine's, which comes after the newest step in the books."""
        if event == "workers":
            logger.info("%d spheres from step %d on", values["workers"], self._step)
        self._books.enter_event(event, self._step, **values)

    # Evaluation.

    def _evaluate(self) -> StopReason | None:
        """Evaluate, if that is wanted; return the reason to stop where it was given up for one."""
        if not self._is_evaluation_wanted():
            return None
        program, spec = self.program, self.spec
        evaluation = Evaluation(program.eval_units, self._node.board.permits.count)
        began_ns = self._clock.running_ns()
        self._node.enter_state("evaluating")
        self._node.enter_progress(0, program.eval_tokens, 0)
        while evaluation.next_round() is not None:
            reason = self._stop_reason()
            if reason is None:
                done = self._run_round(evaluation)
                reason = self._obey("evaluating") if done else self._stop_reason()
                if self._went_back:
                    return None
            if reason is not None:
                logger.info(
                    "the evaluation after step %d was given up at %d %%",
                    self._step,
                    100 * evaluation.tokens // max(1, program.eval_tokens),
                )
                return reason
            took_ns = self._clock.running_ns() - began_ns
            self._node.enter_progress(evaluation.tokens, program.eval_tokens, took_ns)
        if self._timing is not None:
            self._timing.evaluated(self._step, (self._clock.running_ns() - began_ns) / 1e9)
        tokens_per_byte = (spec.val_tokens or evaluation.tokens) / spec.val_bytes
        found = evaluation.outcome(tokens_per_byte)
        if self._books.enter_evaluation(self._step, found):
            self._saver.mark_best(self._step)
        return None

    def _run_round(self, evaluation: Evaluation) -> bool:
        """Let the spheres do the next round; return False where it was left for a stop."""
        following = evaluation.next_round()
        if following is None:
            raise ValueError("the evaluation has no round left")
        first, count = following
        self.words.descriptor[w.EVAL_FIRST] = first
        self.words.descriptor[w.EVAL_COUNT] = count
        began_ns = monotonic_ns()
        self._phases.begin(EVALUATE)
        if not self._phases.wait():
            return False
        point("node.evaluate")
        evaluation.enter(self.words.results[:count].tolist(), monotonic_ns() - began_ns)
        return True

    # Root discovery.

    def _is_discovery_due(self) -> bool:
        """Return whether a root discovery comes before the next step.

        It comes after an evaluation and what is saved with it: a run that resumes there makes
        the discovery again, and a checkpoint is what was evaluated.
        """
        config = self.spec.config
        return self._is_multiple(config.discovery_interval * config.eval_interval)

    def _discover(self) -> None:
        """Let the program find roots anew, and tell what changed.  Raises `_StopWanted`."""
        self._node.enter_state("discovering")
        began_ns, began_s = monotonic_ns(), self._clock.running_s()
        most_s = self.spec.max_seconds or math.inf
        announced = False

        def look() -> None:
            nonlocal announced
            if self._node.stop_wanted() or self._clock.running_s() >= most_s:
                raise _StopWanted
            if not announced and monotonic_ns() - began_ns > ANNOUNCE_NS:
                announced = True
                logger.info("the spheres wait while roots and tables are made anew")

        point("node.discover")
        with interruptible(look, LOOK_NS / 1e9) as commit:
            found = self.program.discover(commit)
        self._node.enter_state("training")
        if self._timing is not None:
            self._timing.discovered(self._clock.running_s() - began_s)
        if found is not None:
            logger.info("root discovery after step %d: %s", self._step, found.words)
            counts = dataclasses.asdict(found)
            del counts["words"]
            # Of the step that comes: a run that resumes here discovers and tells it again.
            self._books.enter_event("root_discovery", self._step + 1, **counts)

    # Saving, and the end.

    def _config(self) -> TrainConfig:
        """Return the settings of the run with the plan as it is now."""
        config, plan = self.spec.config, self._plan
        return config.planned(plan, spelled=config.plan is not None or self._timing is not None)

    def _save(self) -> Path:
        """Save, unless that was done after this very step; return the checkpoint."""
        return self._saver.save(self._step, self._config())

    def _finish(self, reason: StopReason) -> dict[str, Any]:
        """Save as is due; return the fields of a `RunResult`."""
        self._wishes.is_over = True
        if reason == "time":
            reason = self._conclude() or reason
        complete = reason in ("finished", "time", "patience", "created")
        if not complete:
            self._node.enter_state("stopping")
        self._node.requests.finish((*self._wishes.handlers(), "stop"), "the run has ended")
        self._saver.save(self._step, self._config())
        seconds = self._clock.running_s()
        self._books.log_positions()
        if self._profiler is not None:
            self._profiler.finish(self._step)
        if reason in SIGNALED:
            self._happened(
                "request", command="stop", argument=reason, pid=os.getppid(), uid=os.getuid(),
                asked_at=time.time(), ok=True, told="",
            )  # fmt: skip
        books, spec = self._books, self.spec
        self._node.enter_state("finished" if complete else "stopped")
        return {
            "final_step": self._step,
            **books.result(),
            "seconds": seconds,
            "weights_sha256": self.program.weights_sha256(),
            "run_dir": str(spec.run_dir),
            "workers": self._node.growth.size or spec.workers,
            "precision": spec.precision,
            "isa": spec.isa,
            "stop_reason": reason,
            "plan": self._config().plan,
            "profile": self._profiler and self._profiler.table,
        }

    # Words to the launcher.

    def send(self, kind: str, **fields: Any) -> None:
        """Write one line of the report."""
        send(self._report, kind, **fields)


def _build(spec: RunSpec) -> Program:
    module, _, function = spec.program.partition(":")
    program: Program = getattr(importlib.import_module(module), function)(spec)
    return program


def _work_of(spec: RunSpec, program: Program) -> Work:
    """Return what a timed run does beside its steps, and the guesses that it begins with."""
    config = spec.config
    return Work(
        eval_interval=config.eval_interval,
        save_interval=config.save_interval,
        discovery_interval=config.discovery_interval * config.eval_interval,
        evaluation_steps=FORWARD_SHARE * program.eval_tokens / program.tokens_per_step,
        save_s=SAVE_S + CHECKPOINT_BYTES * spec.parameters / SAVED_BYTES_PER_S,
    )
