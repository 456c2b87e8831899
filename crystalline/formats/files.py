"""What a run and its checkpoints consist of: the names of files and folders, not their content.

A file that a checkpoint is to get is added to `TO_GO_ON` here, or, where only some runs
have it, to `OPTIONAL_FILES`; the manifest, its check and the pointers follow these.
"""

from __future__ import annotations

from pathlib import Path

from crystalline.data import artifacts
from crystalline.data.crystal import CRYSTAL

RUNS = Path("runs")  # where runs go that nobody named
SETTINGS = artifacts.SETTINGS  # of the run
METRICS = artifacts.METRICS
SUITE_RESULTS = artifacts.SUITE_RESULTS
PROFILE = artifacts.PROFILE
LOG = artifacts.LOG  # of all sessions of a run; see `crystalline.logfile`
LOGS = artifacts.log_files(LOG)  # ... with what has been rotated out of it
STATUS = artifacts.STATUS  # of a run, for scripts; see `train.statusfile`
CONTROL = artifacts.CONTROL  # the door of a run that goes on; see `engine.door`

FORMAT = 1
# The names are those by which `data` knows that a folder holds no text.
CHECKPOINTS, LATEST, BEST = artifacts.CHECKPOINTS, artifacts.LATEST, artifacts.BEST
CONFIG, TOKENIZER = artifacts.CONFIG, artifacts.TOKENIZER
STATE, MANIFEST = artifacts.STATE, artifacts.MANIFEST
MODEL, OPTIMIZER = artifacts.MODEL, artifacts.OPTIMIZER
MODEL_INDEX = "model.safetensors.index.json"  # names the shards of a model in several files
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # which are not read
TOKENIZER_CONFIG = "tokenizer_config.json"  # for transformers
GENERATION_CONFIG = "generation_config.json"  # of models from elsewhere
CHAT_TEMPLATE = "chat_template.jinja"
BASE = artifacts.BASE  # of a run that trains adapters: the folder of the model they belong to
ADAPTER_CONFIG, ADAPTER_MODEL = artifacts.ADAPTER_CONFIG, artifacts.ADAPTER_MODEL
MODEL_FILES = (CONFIG, TOKENIZER, MODEL)  # what inference needs
# ... beside the base, which has the config.json: with one here, transformers takes it for a model.
ADAPTER_FILES = (TOKENIZER, ADAPTER_CONFIG, ADAPTER_MODEL)
TO_GO_ON = (OPTIMIZER, STATE)  # what training needs besides
FILES = (*MODEL_FILES, *TO_GO_ON)  # of a checkpoint of a run that trains all weights
# Of runs that compute with the numbers of their vocabulary; of all but those of older versions.
OPTIONAL_FILES = (CRYSTAL, TOKENIZER_CONFIG)
FOR_OTHERS = (TOKENIZER_CONFIG,)  # whose change by hand is no damage to a model

STEP_NAME = artifacts.STEP_NAME


def step_name(step: int) -> str:
    """Return the name of the directory of a step.

    >>> step_name(500)
    'step-00000500'
    """
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Return the step that a directory `step-…` is named for."""
    return int(checkpoint.name.removeprefix("step-"))


def is_there(path: Path) -> bool:
    """Return whether there is a file; yes where that is hidden, so that reading it says why.

    Text that a damaged pointer holds may be no name at all.
    """
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
