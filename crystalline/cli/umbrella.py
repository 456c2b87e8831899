"""cllm: every command of the package under one name, as `cllm train` and `cllm infer`.

    cllm train my-texts/ --minutes 30
    cllm help train
    python -m crystalline train my-texts/

A command is a row of the table below and a module with a `main`; each is imported when it is
called, not before.  Messages name a command as it was called (`cli.run.called`).
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass

from crystalline.cli.run import called, run_command, under, version_line
from crystalline.errors import EXIT_OK, EXIT_USAGE, UsageError
from crystalline.formats.names import shell_word
from crystalline.untrusted import shown

PROGRAM = "cllm"


@dataclass(frozen=True)
class Command:
    """One row: `cllm NAME` is `main` of the module, and installed as cllm-NAME, too."""

    name: str
    module: str
    help: str
    example: str  # what stands after the name


COMMANDS = (
    Command("train", "crystalline.cli.train", "train a model on text, or go on with a run",
            "my-texts/ --minutes 30"),
    Command("infer", "crystalline.cli.infer", "write text with a model, talk to it, or measure it",
            'runs/NAME --prompt "Once upon a time"'),
    Command("eval", "crystalline.cli.eval", "measure models on prompts with answers, side by side",
            "runs/NAME runs/OTHER"),
    Command("control", "crystalline.cli.control", "look after a run that goes on: ask, pause, stop",
            "runs/NAME status"),
    Command("export", "crystalline.cli.export", "write a model for other programs",
            "runs/NAME --type q8_0"),
    Command("vocab", "crystalline.cli.vocab", "look into the numbers of a vocabulary",
            "inspect running --from runs/NAME"),
)  # fmt: skip
_BY_NAME = {command.name: command for command in COMMANDS}


def main(argv: list[str] | None = None, *, program: str = PROGRAM) -> int:
    """Run a command; return its exit code (see `crystalline.errors`)."""

    def choose(arguments: list[str]) -> int:
        return _main(arguments, program)

    return run_command(program, choose, argv)


def _main(argv: list[str], program: str) -> int:
    if not argv:
        print(help_text(program), file=sys.stderr)
        return EXIT_USAGE
    name, *rest = argv
    if name == "--version":
        print(version_line())
        return EXIT_OK
    if name in ("help", "--help", "-h"):
        if not rest:
            print(help_text(program))
            return EXIT_OK
        name, rest = rest[0], ["--help"]
    command = _BY_NAME.get(name)
    with under(program):
        if command is None:
            raise UsageError(f"'{shown(name)}' is not a command of {program}", advice=_advice(name))
        code: int = importlib.import_module(command.module).main(rest)
        return code


def help_text(program: str = PROGRAM) -> str:
    """Return what `cllm --help` prints."""
    width = max(len(command.name) for command in COMMANDS)
    with under(program):
        names = {command.name: called(f"{PROGRAM}-{command.name}") for command in COMMANDS}
    examples = [f"  {names[command.name]} {command.example}" for command in COMMANDS]
    first = COMMANDS[0].name
    rows = [f"  {command.name:{width}}  {command.help}" for command in COMMANDS]
    return "\n".join(
        [
            f"usage: {program} COMMAND [ARGUMENTS]",
            "",
            "Train and run small language models on this machine's processor.",
            "",
            *examples,
            "",
            "commands:",
            *rows,
            "",
            f"  {program} help COMMAND  shows the options of a command, with examples",
            f"  {program} --version     shows the version and the instruction-set level in use",
            "",
            f"Each has a name of its own, too: {PROGRAM}-{first}, and so on.",
            "In Python: import crystalline; help(crystalline).",
        ]
    )


def _advice(name: str) -> str:
    """Return what somebody may have meant who gave a name that is no command."""
    train = called(f"{PROGRAM}-train")
    if name.startswith("-"):
        return "The name of a command comes first, then its options."
    bare = name.lower().removeprefix(f"{PROGRAM}-")
    close = difflib.get_close_matches(bare, _BY_NAME, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if os.path.lexists(name):
        return f"To train on that text: {train} {shell_word(name)}"
    *first, last = _BY_NAME
    return f"The commands are {', '.join(first)} and {last}."
