"""Options that several commands have, each told once: its type, its look in --help, and its text.

They are types of fields, which stand where a command wants them, and no base class: its fields
would come first in the help of every command.
"""

from __future__ import annotations

from typing import Annotated

import tyro

from crystalline.cli.run import called
from crystalline.errors import UsageError

ModelPlace = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="RUN_OR_MODEL",
        help_behavior_hint="(required)",
        help="Run directory, checkpoint, model folder in Hugging Face's layout, or GGUF file.",
    ),
]
WhichCheckpoint = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="WHICH",
        constructor=str,
        help_behavior_hint="(default: best, else latest)",
        help="Checkpoint of a run: latest, best, step-XXXXXXXX, its name, or a path.",
    ),
]
Temperature = Annotated[
    float,
    tyro.conf.arg(
        aliases=["-t"],
        help="Divides the logits: below 1 is safer, above 1 wilder; 0 always takes the likeliest"
        " token.",
    ),
]
TopP = Annotated[
    float,
    tyro.conf.arg(
        help="Draw among the likeliest tokens that together have this probability; 1 is all."
    ),
]
TextField = Annotated[  # its text differs, and stands under the field
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        constructor=str,
        help_behavior_hint="(default: text, else messages or conversations)",
    ),
]
Quiet = Annotated[bool, tyro.conf.arg(help="Print nothing to stderr but errors.")]
Version = Annotated[
    bool,
    tyro.conf.arg(help="Print the version and the instruction-set level in use, and exit."),
]


def require_model(place: str, example: str) -> None:
    """Raise `UsageError` where no model is named; `example` is a command that names one."""
    if not place:
        raise UsageError(
            "no model is given",
            advice=f"Name a run directory or a model folder, as in: {called(example)}.",
        )
