"""The process that measures a checkpoint on a suite of prompts: see `suite`.

Standard input has an object of JSON with the checkpoint and the questions; standard output gets
one with the figures of each group and the seconds that they took, or with a "fault".
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

SLOTS = 16  # texts at a time
NICE = 10  # beside a sphere that wants the same core, about a tenth of it
LIKELIEST_TO_DIE = "1000"  # where memory runs out, the kernel takes this process first


def measure(checkpoint: Path, questions: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the figures of each group of questions, by its name, as `cllm-eval` has them.

    Raises:
        CheckpointError, DataError: a checkpoint that cannot be used, or none of the questions.
    """
    from crystalline.infer.engine import GenerationSettings
    from crystalline.infer.evaluation import evaluate
    from crystalline.infer.loading import open_model
    from crystalline.infer.suite import TEXT_TOKENS, Question

    suite = [Question(*one) for one in questions]
    model = open_model(checkpoint, slots=min(SLOTS, len(suite)), threads=1)
    groups = evaluate(model.scheduler, model.tokenizer, suite, GenerationSettings(TEXT_TOKENS))
    figures = [asdict(group) for group in groups]
    return {group.pop("name"): group for group in figures}


def step_back() -> None:
    """Leave the cores to training, and the memory."""
    os.nice(NICE)
    # Where the system shares out the cores by sessions, the session has a priority of its own.
    for place, value in (("autogroup", str(NICE)), ("oom_score_adj", LIKELIEST_TO_DIE)):
        with contextlib.suppress(OSError):
            Path("/proc/self", place).write_text(value)


def main() -> None:
    """Measure once."""
    from crystalline.errors import CrystallineError

    step_back()
    began_s = time.monotonic()
    asked = json.load(sys.stdin)
    try:
        groups = measure(Path(asked["checkpoint"]), asked["questions"])
        answer = {"groups": groups, "seconds": round(time.monotonic() - began_s, 3)}
    except CrystallineError as error:
        answer = {"fault": error.message}
    except MemoryError:
        answer = {"fault": "there is not enough memory beside the training"}
    print(json.dumps(answer), flush=True)
