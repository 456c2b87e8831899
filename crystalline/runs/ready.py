"""A run that can begin: its directory is locked, its files are in place, its spec is made."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crystalline.errors import EXIT_OK, UnsupportedError, UsageError
from crystalline.log import get_logger
from crystalline.runs.settings import BESIDE, BUILT_IN, RunSettings
from crystalline.train.config import TrainConfig
from crystalline.train.plan import Plan

if TYPE_CHECKING:
    from crystalline.data.crystal.tokens import Crystal
    from crystalline.data.prepare import PreparedData, Progress
    from crystalline.data.tokenizer import GivenTokenizer
    from crystalline.formats.rundir import RunDir
    from crystalline.formats.sources import ModelSource
    from crystalline.infer.suite import Question
    from crystalline.model.config import ModelConfig
    from crystalline.runs.length import Length
    from crystalline.train.spec import RunResult, RunSpec
    from crystalline.train.stats import Snapshot

TIME_SHARE = 0.97  # of --minutes that the first plan is fitted to

Preparing = Callable[[], "AbstractContextManager[Progress | None]"]
"""Opens what is told how far the preparation of the text is; once for each long part of it."""

_log = get_logger("runs")


@dataclass(frozen=True)
class ReadyRun:
    """A run that can begin, new or resumed; whoever made it holds its lock."""

    settings: RunSettings
    spec: RunSpec
    run: RunDir
    summary: str  # lines for people: the resolved settings
    newest: Path | None = None  # the checkpoint that it is to have, even if it stops at once
    questions: tuple[Question, ...] = ()  # of --eval-suite

    def record(self) -> None:
        """Write config.toml; and a resumed run is from now on where its checkpoint was.

        Raises:
            UsageError: the directory cannot be written.
        """
        from crystalline.formats.checkpoint import LATEST, move_pointer

        self._write_config(self.spec.config)
        if self.newest is not None:
            move_pointer(self.run.path, LATEST, self.newest)

    def train(
        self,
        *,
        on_snapshot: Callable[[Snapshot], None],
        poll_actions: Callable[[], list[str]] = list,
    ) -> RunResult:
        """Run it to its end; see `train.launcher.train` for the callbacks and the errors."""
        from crystalline.train.launcher import train

        if not self.questions:
            return train(self.spec, on_snapshot=on_snapshot, poll_actions=poll_actions)
        from crystalline.runs.suite import SuiteWatch

        with SuiteWatch(self.run.path, self.settings.eval_suite, self.questions) as watch:

            def show(snapshot: Snapshot) -> None:
                watch.look()
                on_snapshot(snapshot)

            result = train(self.spec, on_snapshot=show, poll_actions=poll_actions)
            watch.finish(is_whole=result.exit_code == EXIT_OK)
            return result

    def keep_plan(self, plan: str | None) -> None:
        """Write the plan as it was carried out; a failure is told, for the run is done."""
        if plan is None or plan == self.spec.config.plan:
            return
        steps = Plan.parse(plan).max_steps
        try:
            self._write_config(dataclasses.replace(self.spec.config, plan=plan, max_steps=steps))
        except UsageError as error:
            _log.warning("%s", error)

    def _suite(self) -> str | None:
        name = self.settings.eval_suite
        if not self.questions:
            return None
        return name if name == BUILT_IN else os.path.abspath(name)  # noqa: PTH100

    def _write_config(self, config: TrainConfig) -> None:
        from crystalline import __version__

        paths = [os.path.abspath(path) for path in self.settings.data]  # noqa: PTH100
        values = {
            "data": paths or None,
            "text_field": self.settings.text_field,
            **config.to_dict(),
            # Of a run that began from a model they say nothing, and are no settings of it.
            **({"init": None, "positions": None} if config.init_from else {}),
            **{name: getattr(self.settings, name) for name in BESIDE},
            "eval_suite": self._suite(),
        }
        comment = f"Resolved by cllm-train {__version__}.\n\n{self.summary}"
        self.run.write_config(values, comment=comment)


def require_linux() -> None:
    """Raise `UnsupportedError` on a system that cannot train."""
    if sys.platform != "linux":
        raise UnsupportedError(
            f"crystalline trains on Linux only, and this is {sys.platform}",
            advice="Use a Linux machine, container or virtual machine.",
        )


def prepare_text(
    settings: RunSettings, preparing: Preparing, given: GivenTokenizer | None = None
) -> PreparedData:
    """Return the text of a run as tokens, made or found in the cache.

    `given` is the tokenizer of the model that the run begins from.
    """
    from crystalline.data.prepare import prepare
    from crystalline.data.windows import check_fits

    with preparing() as progress:
        data = prepare(
            settings.data or None,
            kind=settings.tokenizer,
            vocab_size=settings.vocab_size,
            val_fraction=settings.val_fraction,
            text_field=settings.text_field,
            given=given,
            progress=progress,
        )
    check_fits(data.train_tokens, data.val_tokens, settings.seq_len)
    return data


def prepare_crystal(
    settings: RunSettings,
    data: PreparedData,
    preparing: Preparing,
    learned: Path | None = None,
) -> Crystal:
    """Return the numbers of the vocabulary; what training makes of them at first is cached.

    `learned` is the crystal.json of the model that the run begins from, if it has one: what it
    learned of the numbers, it learned of those.
    """
    from crystalline.data.crystal.neighbors import load_or_build
    from crystalline.data.crystal.tokens import Crystal
    from crystalline.data.prepare import crystal_of

    with preparing() as progress:
        crystal = crystal_of(data, progress) if learned is None else Crystal.load(learned)
        if settings.smooths and crystal.generation == 0:
            load_or_build(
                data.token_path.parent,
                crystal,
                settings.crystalline_k,
                settings.crystalline_similarity,
                progress=progress,
            )
    return crystal


def keep_base(source: ModelSource, run: RunDir, model: ModelConfig, preparing: Preparing) -> Path:
    """Write the model whose adapters a run trains into its directory; return its folder there.

    `model` is the shape that the run trains.  Raises `SaveError`, `CheckpointError`.
    """
    with preparing() as progress:
        on_read = None if progress is None else partial(progress, "Keeping the model")
        return source.keep_base(run.path, model, on_read)


def speed_of(model: ModelConfig, data: PreparedData, cores: int) -> Callable[[TrainConfig], float]:
    """Return what measures the steps a second that a run of --minutes is first planned with."""
    from crystalline.train.sizing import evaluation_tokens
    from crystalline.train.speed import measure_speed

    def measure(config: TrainConfig) -> float:
        tokens = evaluation_tokens(config) or data.val_tokens
        speed = measure_speed(model, config, cores)
        return TIME_SHARE * speed.steps_per_second(config, min(tokens, data.val_tokens))

    return measure


def make_spec(
    settings: RunSettings,
    length: Length,
    model: ModelConfig,
    data: PreparedData,
    run: RunDir,
    peak: float,
    command: str,
) -> RunSpec:
    """Return what Node Zero needs to run; the run gets its copy of the tokenizer.

    `peak` is the measured speed of the cores in FLOP/s, `command` what messages call the program.
    """
    from crystalline._kernels import isa
    from crystalline.model.params import parameter_table
    from crystalline.train.sizing import flops_per_token
    from crystalline.train.spec import RunSpec

    return RunSpec(
        config=length.config,
        model=model,
        token_path=data.token_path,
        tokenizer_path=run.keep_tokenizer(data.tokenizer_path),
        run_dir=run.path,
        val_tokens=data.val_tokens,
        val_bytes=data.val_bytes,
        tokens_per_epoch=data.train_tokens,
        workers=settings.workers,
        pin=settings.pin,
        share_cores=settings.share_cores,
        depth=settings.recursive_depth,
        hang_s=settings.sphere_timeout,
        health_interval_s=settings.health_interval,
        held=settings.hold,
        max_seconds=length.seconds,
        most_steps=length.most_steps,
        precision=length.config.precision,
        isa=isa.level(),
        parameters=parameter_table(model).count,
        flops_per_token=flops_per_token(model, length.config.adapter),
        peak_flops=peak,
        command=command,
    )
