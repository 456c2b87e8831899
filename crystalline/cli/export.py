"""cllm-export: write a model for other programs, and say what its number format costs.

    cllm-export RUN --type q8_0
    cllm-export RUN --to hf --type bf16 --out my-model/
    cllm-export MODEL --out my-model.gguf --type q4_0 --measure TEXT

The work is `crystalline.runs.export`'s.  What came of it goes to stdout, messages to stderr.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.infer_view import Progress, parts, print_json, tell
from crystalline.cli.options import ModelPlace, Quiet, Version, WhichCheckpoint, require_model
from crystalline.cli.run import parse_settings, run_command, version_line
from crystalline.errors import EXIT_HANGUP, EXIT_OK, EXIT_TERMINATED
from crystalline.handlers import handling
from crystalline.runs.export import QUANTIZED, ExportSettings, ExportType, Form
from crystalline.ui import format as fmt
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from crystalline.runs.export import Exported

PROGRAM = "cllm-export"
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = """Write a model for other programs.

  cllm-export RUN --type q8_0
  cllm-export RUN --to hf --type bf16 --out my-model/
  cllm-export MODEL --out my-model.gguf --type q4_0 --measure text.txt

A GGUF file is what llama.cpp, Ollama and their relatives run: one file with
  the tokenizer, its special tokens and the chat template inside. A folder in
  Hugging Face's layout is what transformers and vLLM open. Both can be opened
  here again.

What a type costs in quality is measured on what was written: its perplexity
  beside float32's, on the same text. Of a run's model, quantized types (q8_0,
  q4_0) are measured on the text that the run held out; --measure names other
  text.

Nothing that is there already is written over."""

_CODES = {int(signal.SIGTERM): EXIT_TERMINATED, int(signal.SIGHUP): EXIT_HANGUP}


@dataclass(frozen=True)
class Settings:
    """Every option of the command; the text under a field is its help."""

    model: ModelPlace = ""
    to: Annotated[
        Form | None,
        tyro.conf.arg(
            metavar="{gguf,hf}", help_behavior_hint="(default: by the name of --out, else gguf)"
        ),
    ] = None
    """A GGUF file, or a folder in Hugging Face's layout."""
    type: ExportType = "f32"
    """Number format of the weights: f32 is exact; f16 and bf16 take half the space, q8_0 about a
    quarter, q4_0 about a seventh. Folders are f32 or bf16. Vectors stay f32 in GGUF files, and
    the head of q4_0 is q8_0."""
    out: Annotated[
        str | None,
        tyro.conf.arg(
            aliases=["-o"],
            metavar="PATH",
            constructor=str,
            help_behavior_hint="(default: NAME-TYPE.gguf, or NAME-TYPE of a folder, here)",
        ),
    ] = None
    """File or folder to write, which must not be there yet; .gguf at its end means --to gguf,
    any other name --to hf."""
    checkpoint: WhichCheckpoint = None
    measure: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE",
            constructor=str,
            help_behavior_hint="(default: a run's held-out text, for q8_0 and q4_0)",
        ),
    ] = None
    """Text on which to measure what the type costs; it is read twice by the model."""
    json: bool = False
    """Print one JSON object to stdout instead of sentences."""
    quiet: Quiet = False
    version: Version = False

    def __post_init__(self) -> None:
        if self.version:
            return
        require_model(self.model, f"{PROGRAM} runs/NAME --type q8_0")
        self.export_settings()

    def export_settings(self) -> ExportSettings:
        """Return what to make.  Raises `UsageError` for what cannot be."""
        return ExportSettings(self.to, self.type, None if self.out is None else Path(self.out))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    settings = parse_settings(Settings, argv, program=PROGRAM, description=DESCRIPTION)
    if settings.version:
        print(version_line())
        return EXIT_OK
    with _unwinding():
        exported = _export(settings)
    if settings.json:
        print_json(_json(exported))
    else:
        print(f"{shown(str(exported.path))}: {_described(exported)}")
        if exported.cost is not None:
            print(exported.cost)
    if exported.cost is not None and settings.measure is None:
        tell(
            f"measured on {exported.cost.tokens:,} tokens that the run held out",
            quiet=settings.quiet,
        )
    if exported.cost is None and exported.type in QUANTIZED:
        tell(f"What {exported.type} costs in quality, --measure TEXT tells.", quiet=settings.quiet)
    return EXIT_OK


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave by way of the writers, which take away what is half written."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(_CODES[number])

    ours = threading.current_thread() is threading.main_thread()
    with handling(dict.fromkeys(_CODES, leave) if ours else {}):
        yield


def _export(settings: Settings) -> Exported:
    """Write the model, and say how far that is."""
    from crystalline.data.corpus import read_documents
    from crystalline.runs.export import export_model

    documents = None if settings.measure is None else read_documents(settings.measure)
    written = Progress(quiet=settings.quiet, unit="MB")
    measured = Progress(quiet=settings.quiet)

    def writing(done: int, total: int) -> None:
        written.update(math.ceil(done / 1e6), math.ceil(total / 1e6))

    try:
        exported = export_model(
            Path(settings.model),
            settings.export_settings(),
            checkpoint=settings.checkpoint,
            measure=documents,
            writing=writing,
            measuring=measured.update,
        )
    finally:
        written.close()
        measured.close()
    _tell_choice(exported, settings.quiet)
    return exported


def _tell_choice(exported: Exported, quiet: bool) -> None:
    """Say what was taken unasked."""
    if exported.choice:
        why = "best" if exported.choice == "best" else "latest, since none is marked as best"
        tell(f"checkpoint {exported.source.name} ({why})", quiet=quiet)


def _described(exported: Exported) -> str:
    """Return what was written, in a clause."""
    kinds = {name: count for name, count in exported.tensors.items() if name != exported.type}
    others = [f"{count} {name}" for name, count in kinds.items()]
    what = "GGUF" if exported.form == "gguf" else "Hugging Face's layout"
    return parts(
        what,
        exported.type
        + (f" ({', '.join(others)} of {sum(exported.tensors.values())} tensors)" if others else ""),
        f"{exported.parameters:,} parameters",
        _size(exported.size_bytes),
    )


def _size(size_bytes: int) -> str:
    """Return a size, of small models with a decimal.

    >>> _size(3_763_200), _size(124_000_000)
    ('3.8 MB', '124 MB')
    """
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 9_950_000 else fmt.megabytes(size_bytes)


def _json(exported: Exported) -> dict[str, Any]:
    cost = exported.cost
    measured = None
    if cost is not None:
        measured = {
            "perplexity": cost.perplexity if math.isfinite(cost.perplexity) else None,
            "float32_perplexity": cost.float32 if math.isfinite(cost.float32) else None,
            "change": cost.change if math.isfinite(cost.change) else None,
            "tokens": cost.tokens,
        }
    return {
        "model": str(exported.source),
        "out": str(exported.path),
        "to": exported.form,
        "type": exported.type,
        "bytes": exported.size_bytes,
        "parameters": exported.parameters,
        "tensors": dict(exported.tensors),
        "measured": measured,
    }
