"""cllm-eval: what a model, or two side by side, make of a suite of prompts with answers.

    cllm-eval RUN
    cllm-eval RUN/checkpoints/step-00000100 RUN/checkpoints/step-00000200
    cllm-eval RUN --suite prompts.jsonl --json

The figures are those of `crystalline.infer.evaluation`; they go to stdout, messages to stderr.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.infer_view import Progress, chosen, print_json, tell
from crystalline.cli.options import (
    ModelPlace,
    Quiet,
    Temperature,
    TopP,
    Version,
    WhichCheckpoint,
    require_model,
)
from crystalline.cli.run import InferPrecision, parse_settings, run_command, version_line
from crystalline.errors import EXIT_OK, UsageError
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from crystalline.infer.engine import GenerationSettings
    from crystalline.infer.evaluation import GroupReport
    from crystalline.infer.loading import Model
    from crystalline.infer.suite import Question

PROGRAM = "cllm-eval"
DESCRIPTION = """Measure a model, or two side by side, on prompts with answers.

  cllm-eval RUN
  cllm-eval RUN/checkpoints/step-00000100 RUN/checkpoints/step-00000200

Without --suite there are two groups of prompts: for code, and questions. The
  answers are measured: their perplexity after the prompt. The model's own texts
  are looked at: words and pairs of words that are different (few in a text that
  repeats itself), code that parses, length."""

PARALLEL = 16
_COLUMN = 14
_ROWS = (  # field, what it is called, its format
    ("perplexity", "perplexity of answers", "{:.3f}"),
    ("bits_per_byte", "bits per byte", "{:.4f}"),
    ("distinct_1", "distinct words", "{:.1%}"),
    ("distinct_2", "distinct pairs", "{:.1%}"),
    ("parses", "code that parses", "{:.1%}"),
    ("tokens", "tokens per text", "{:.1f}"),
    ("chars", "characters per text", "{:.1f}"),
)


@dataclass(frozen=True)
class EvalSettings:
    """Every option of the command; the text under a field is its help."""

    model: ModelPlace = ""
    other: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="OTHER", help_behavior_hint="(default: none)"),
    ] = ""
    """Another one, to compare with the first."""
    suite: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE", constructor=str, help_behavior_hint="(default: the built-in prompts)"
        ),
    ] = None
    """JSON lines with "group", "prompt" and, where there is one, "answer"; the texts of the
    group "code" are parsed as Python."""
    max_tokens: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 128
    """Longest text, in tokens."""
    temperature: Temperature = 0.8
    top_p: TopP = 0.95
    seed: int = 0
    """Seed of the draws; that of a text is this plus the index of its prompt."""
    parallel: int = PARALLEL
    """Texts to work on at a time; the figures are the same."""
    checkpoint: WhichCheckpoint = None
    json: bool = False
    """Print one JSON object to stdout instead of a table."""
    precision: InferPrecision = "float32"
    """Number format of the weights: bf16, int8, int8g32 (as q8_0) and int4 (as q4_0) take less
    memory and time than float32, and cost some quality."""
    quiet: Quiet = False
    version: Version = False

    def __post_init__(self) -> None:
        if self.version:
            return
        require_model(self.model, f"{PROGRAM} runs/NAME")
        if not 1 <= self.parallel <= 256:
            raise UsageError(
                f"--parallel is {self.parallel}", advice="It must lie between 1 and 256."
            )
        if self.other and self.checkpoint is not None:
            raise UsageError(
                "--checkpoint cannot be combined with a second model",
                advice="Name the checkpoints by their paths.",
            )

    def generation(self) -> GenerationSettings:
        """Return the settings of the engine."""
        from crystalline.infer.engine import GenerationSettings
        from crystalline.infer.sampling import SamplingSettings

        sampling = SamplingSettings(temperature=self.temperature, top_p=self.top_p, seed=self.seed)
        return GenerationSettings(self.max_tokens, (), sampling)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    settings = parse_settings(EvalSettings, argv, program=PROGRAM, description=DESCRIPTION)
    if settings.version:
        print(version_line())
        return EXIT_OK
    from crystalline.infer.suite import read_questions

    generation = settings.generation()
    suite = read_questions(settings.suite)
    measured = [
        _measure(settings, generation, suite, place)
        for place in (settings.model, settings.other)
        if place
    ]
    if settings.json:
        print_json(
            {
                "suite": settings.suite,
                "max_tokens": settings.max_tokens,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "seed": settings.seed,
                "models": [
                    {"model": name, "groups": {group.name: _json(group) for group in groups}}
                    for name, groups in measured
                ],
            }
        )
    else:
        for line in table(measured):
            print(line)
    return EXIT_OK


def _measure(
    settings: EvalSettings, generation: GenerationSettings, suite: list[Question], place: str
) -> tuple[str, list[GroupReport]]:
    """Open a model and return its name and its figures."""
    from crystalline.infer.evaluation import evaluate
    from crystalline.infer.loading import open_model

    slots = min(settings.parallel, len(suite))
    model: Model = open_model(
        Path(place),
        checkpoint=settings.checkpoint,
        slots=slots,
        precision=settings.precision,
    )
    tell(chosen(model), quiet=settings.quiet)
    progress = Progress(quiet=settings.quiet, unit="measurements")
    try:
        groups = evaluate(
            model.scheduler, model.tokenizer, suite, generation, progress=progress.update
        )
    finally:
        progress.close()
    for group in groups:
        if group.left_out:
            tell(
                f"{group.left_out} of the {group.questions} prompts of {shown(group.name)} are left"
                " out: the tokenizer lacks their characters.",
                quiet=settings.quiet,
            )
    return str(model.path), groups


def table(measured: list[tuple[str, list[GroupReport]]]) -> Iterator[str]:
    """Yield the lines of a table of at most 80 columns: one model, or two and their change."""
    names = "AB"[: len(measured)]
    if len(measured) == 1:
        yield shown(measured[0][0])
    if len(measured) > 1:
        for letter, (name, _) in zip(names, measured, strict=True):
            yield f"{letter}  {shown(name)}"
        yield " " * 24 + "".join(f"{name:>{_COLUMN}}" for name in (*names, "change"))
    for groups in zip(*(groups for _, groups in measured), strict=True):
        count = groups[0].questions
        yield f"{shown(groups[0].name)}, {count} {'prompt' if count == 1 else 'prompts'}"
        for field, title, form in _ROWS:
            values = [getattr(group, field) for group in groups]
            if any(value is not None for value in values):
                cells = ["–" if value is None else form.format(value) for value in values]
                if len(values) == 2:
                    cells.append(_change(values[0], values[1], form))
                yield f"  {title:22}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


def _change(first: float | None, second: float | None, form: str) -> str:
    """Return by how much a figure changed: in percent, of shares in points of a hundred.

    >>> _change(4.0, 3.0, "{:.1f}"), _change(0.25, 0.5, "{:.1%}"), _change(None, 1.0, "{:.1f}")
    ('-25.0%', '+25.0 pp', '–')
    """
    if first is None or second is None:
        return "–"
    if form.endswith("%}"):
        return f"{100 * (second - first):+.1f} pp"
    return f"{second / first - 1:+.1%}" if first else "–"


def _json(group: GroupReport) -> dict[str, Any]:
    content = asdict(group)
    del content["name"]
    return content
