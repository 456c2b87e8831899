"""What a checkpoint consists of: the names of its files and folders, and nothing of their content.

A file that a checkpoint is to get is added to `FILES` here, or, where only some runs
have it, to `OPTIONAL_FILES`; the manifest, its check and the pointers follow these.
"""

from __future__ import annotations

import re
from pathlib import Path

from crystalline.data.crystal import CRYSTAL

FORMAT = 1
CHECKPOINTS = "checkpoints"
LATEST = "latest"
BEST = "best"
CONFIG, TOKENIZER, STATE, MANIFEST = "config.json", "tokenizer.json", "state.json", "manifest.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
MODEL_FILES = (CONFIG, TOKENIZER, MODEL)  # what inference needs
FILES = (*MODEL_FILES, OPTIMIZER, STATE)  # what every checkpoint has
OPTIONAL_FILES = (CRYSTAL,)  # of runs that compute with the numbers of their vocabulary

STEP_NAME = re.compile(r"step-(\d{8,})")


def step_of(checkpoint: Path) -> int:
    """Return the step that a directory `step-…` is named for."""
    return int(checkpoint.name.removeprefix("step-"))
