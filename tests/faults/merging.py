"""The program of a real run whose lanes are summed while others are computed, however small."""

from __future__ import annotations

from crystalline.train import sums
from crystalline.train.program import TrainingProgram
from crystalline.train.spec import RunSpec


def build(spec: RunSpec) -> TrainingProgram:
    sums.DIRECT_BYTES = 0
    return TrainingProgram(spec)
