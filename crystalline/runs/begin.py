"""A new run: its text prepared, its model sized, its directory made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crystalline.runs.describe import describe
from crystalline.runs.foundation import Foundation
from crystalline.runs.length import new_length, steps_of
from crystalline.runs.ready import (
    Preparing,
    ReadyRun,
    keep_base,
    make_spec,
    prepare_crystal,
    prepare_text,
    speed_of,
)
from crystalline.runs.settings import RunSettings
from crystalline.train.spec import COMMAND

if TYPE_CHECKING:
    from crystalline.formats.rundir import RunDir


@contextlib.contextmanager
def begin(
    settings: RunSettings,
    *,
    preparing: Preparing,
    command: str = COMMAND,
    given: Collection[str] = (),
) -> Iterator[ReadyRun]:
    """Prepare data, model and run directory; its lock is held until the block ends.

    A directory that was never used is removed then.  `given` names the settings that somebody
    gave, defaults left out: with --init-from they must not contradict the model.  Messages on how
    to go on are in the words of `command`; see `train.spec.resume_command`.

    Raises:
        UsageError, DataError, CrystallineError: settings, model, text or memory do not do.
    """
    from crystalline.formats.rundir import RunDir
    from crystalline.machine.cores import usable_cores
    from crystalline.model.params import parameter_table
    from crystalline.train.footprint import check_model, check_run, check_sizes
    from crystalline.train.precision import resolve_precision
    from crystalline.train.sizing import choose_model, evaluation_tokens
    from crystalline.train.speed import MODEL_SHARE, measure_peak

    with contextlib.ExitStack() as stack:
        foundation = None
        if settings.init_from is not None:
            foundation = Foundation.open(settings.init_from)
            settings = foundation.settle(settings, given)
        check_sizes(settings)
        check_model(settings.train_config(), settings.workers, settings.recursive_depth)
        run = None
        if settings.checkpoint_dir is not None:  # its faults are told before the long work
            run = _enter(RunDir.create(Path(settings.checkpoint_dir)), stack)
        tokenizer = None if foundation is None else foundation.tokenizer
        data = prepare_text(settings, preparing, tokenizer)
        crystal = None
        if settings.uses_crystal:
            learned = None if foundation is None else foundation.source.crystal_path
            crystal = prepare_crystal(settings, data, preparing, learned)
        cores = min(usable_cores(), settings.workers)
        config = steps_of(settings.train_config())
        config = dataclasses.replace(
            config, precision=resolve_precision(config), eval_tokens=evaluation_tokens(config)
        )
        peak = measure_peak(cores, config.precision)
        if foundation is not None:
            model = foundation.model(config)
        else:
            model = choose_model(
                config,
                vocab_size=data.vocab_size,
                train_tokens=data.train_tokens,
                flops_per_second=MODEL_SHARE * peak,
            )
        copies = check_run(
            config, model, data, settings.workers, settings.recursive_depth,
            settings.save_while_training,
        )  # fmt: skip
        length = new_length(config, data.train_tokens, speed_of(model, data, cores))
        config = dataclasses.replace(
            length.config,
            embed_dim=model.embed_dim,
            num_layers=model.num_layers,
            num_heads=model.num_heads,
        )
        if run is None:
            run = _enter(RunDir.create_default(parameter_table(model).count), stack)
        run.clear()
        length = dataclasses.replace(length, config=config)
        spec = make_spec(settings, length, model, data, run, peak, command)
        spec = dataclasses.replace(spec, save_while_training=copies)
        if foundation is not None:
            source = foundation.source
            begins_from = source.path
            if config.adapter is not None:
                begins_from = keep_base(source, run, model, preparing)
            spec = dataclasses.replace(spec, init_from=begins_from, facts=source.facts)
        if crystal is not None:
            spec = dataclasses.replace(spec, crystal_path=run.keep_crystal(crystal.to_json()))
        yield ReadyRun(settings, spec, run, describe(settings, spec, data))


def _enter(run: RunDir, stack: contextlib.ExitStack) -> RunDir:
    """Keep a new run's lock until the end; what was never used is removed."""
    stack.enter_context(run)
    stack.callback(run.discard_unused)
    return run
