"""`cllm-infer --prompts FILE`: a text for each prompt of a file, and a run that can be stopped.

What the files say is `crystalline.infer.batch`'s; here they are opened, the work is begun or
gone on with, and it is told how far it is.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli.infer import open_named
from crystalline.cli.infer_view import (
    Progress,
    chosen,
    endings,
    parts,
    print_json,
    rate,
    reading,
    speed_fields,
    speeds,
    tell,
    words_unknown,
)
from crystalline.errors import EXIT_INTERRUPTED, EXIT_OK, CrystallineError, UsageError, remedy
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from crystalline.cli.infer import InferSettings
    from crystalline.infer.batch import Prompt, Results
    from crystalline.infer.engine import GenerationSettings
    from crystalline.infer.loading import Model

JSON_LINES = (".jsonl", ".ndjson")


def batch(settings: InferSettings, generation: GenerationSettings) -> int:
    """Write a text for each prompt of --prompts that --out has none of; return the exit code.

    Raises:
        DataError: a line that is no prompt, or an --out that holds something else; nothing
            was generated.
        CrystallineError: what stopped a text; those before it are in --out.
    """
    from crystalline.infer.batch import Results, check_prompts, remaining, request, seed_of

    assert settings.prompts is not None
    name = "stdin" if settings.prompts == "-" else shown(settings.prompts)
    prompts = read(settings, generation, name)
    with ExitStack() as closing:
        results = None
        if settings.out is not None:
            results = Results(Path(settings.out))
            closing.callback(results.close)
        found = {} if results is None else results.found
        seed = generation.sampling.seed
        if settings.seed is None:
            earlier = seed_of(prompts, found)
            seed = seed if earlier is None else earlier
        todo = remaining(prompts, found)
        model = open_named(settings, settings.at_once(len(todo)))
        if results is not None:
            results.keep(
                lambda index: request(
                    prompts[index], prompts[index].with_seed(seed), str(model.path)
                ),
                len(prompts),
            )
        seq_len = model.decoder.config.seq_len
        notices = check_prompts(model.tokenizer, todo, name, seq_len)
        told = [
            _cut(notices.cut, seq_len),
            words_unknown(notices.unknown, "prompts"),
            _resumed(results, len(prompts)),
        ]
        for sentence in told:
            tell(sentence, quiet=settings.quiet)
        work = _Batch(settings, model, prompts, todo, name, seed, results)
        return work.do()


@dataclass
class _Batch:
    """The texts that are missing, one after the other as they end."""

    settings: InferSettings
    model: Model
    prompts: list[Prompt]
    todo: list[Prompt]
    name: str  # what messages call the file
    seed: int
    results: Results | None
    reasons: list[str] = field(default_factory=list)  # how each text ended
    tokens: int = 0

    def do(self) -> int:
        """Generate and write; say at the end how it went."""
        from crystalline.infer.batch import generate_all, result

        model, code = self.model, EXIT_OK
        seq_len = model.decoder.config.seq_len
        progress = Progress(quiet=self.settings.quiet, unit="texts")
        texts = generate_all(model.scheduler, model.tokenizer, self.todo, self.name, seed=self.seed)
        try:
            for prompt, text in texts:
                self._write(result(prompt, text, str(model.path), seq_len))
                self.reasons.append(text.finish_reason)
                self.tokens += len(text.tokens)
                progress.update(len(self.reasons), len(self.todo), self._speed())
            if self.results is not None:
                self.results.sort()
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        finally:
            texts.close()
            progress.close()
        self._tell(code)
        return code

    def _write(self, content: dict[str, Any]) -> None:
        if self.results is None:
            print_json(content)
            return
        try:
            self.results.write(content)
        except OSError as error:
            raise CrystallineError(
                f"{self.results.name} cannot be written ({error.strerror})",
                advice=f"{remedy(error)} Then give the same command again: it goes on.",
            ) from None

    def _speed(self) -> str:
        figures = self.model.scheduler.figures
        seconds = figures.prompt_seconds + figures.decode_seconds
        return f"{rate(self.tokens, seconds):,.0f} tokens/s"

    def _tell(self, code: int) -> None:
        settings, figures = self.settings, self.model.scheduler.figures
        written, total = len(self.reasons), len(self.prompts)
        there = total - len(self.todo)
        if settings.json:
            print_json(
                {
                    "model": str(self.model.path),
                    "file": settings.prompts,
                    "out": settings.out,
                    "texts": total,
                    "written": written,
                    "found": there,
                    "tokens": self.tokens,
                    "prompt_tokens": figures.prompt_tokens,
                    **speed_fields(figures),
                    "seed": self.seed,
                    "finish_reasons": dict(Counter(self.reasons)),
                }
            )
        if code == EXIT_INTERRUPTED:
            where = f"in {shown(settings.out)}" if settings.out else "written"
            goes_on = "; the same command goes on with the rest" if settings.out else ""
            done = f"{there + written:,} of {total:,} texts are {where}{goes_on}."
            tell(done, quiet=settings.quiet)
        if self.reasons:
            tell(speeds(figures, self.tokens), quiet=settings.quiet)
            closing = parts(
                f"{written:,} {'text' if written == 1 else 'texts'}",
                f"seed {self.seed}",
                chosen(self.model),
                endings(self.reasons),
            )
            tell(closing, quiet=settings.quiet)


def read(settings: InferSettings, generation: GenerationSettings, name: str) -> list[Prompt]:
    """Return the prompts of --prompts; `name` is what messages call the file.

    Raises:
        DataError: a file that cannot be read, or a line that is no prompt.
        UsageError: a file that --out names, too.
    """
    from crystalline.data.corpus import read_lines
    from crystalline.data.decoding import text_blocks
    from crystalline.infer.batch import read_prompts
    from crystalline.untrusted.files import PROMPTS

    place = settings.prompts
    assert place is not None
    if place == "-":
        with reading("the prompts"):
            data = PROMPTS.read_stream(sys.stdin.buffer, "standard input")
        text = "".join(text_blocks(io.BytesIO(data).read, name))
    else:
        _require_another(place, settings.out)
        text = read_lines(place, PROMPTS)
    return read_prompts(text, name, generation, is_jsonl=place.lower().endswith(JSON_LINES))


def _require_another(place: str, out: str | None) -> None:
    try:
        is_same = out is not None and Path(out).samefile(place)
    except (OSError, ValueError):  # one is missing, or can be no file: said when it is opened
        return
    if is_same:
        raise UsageError(
            "--prompts and --out name the same file", advice="Name another one for the texts."
        )


def _cut(count: int, seq_len: int) -> str:
    if not count:
        return ""
    which = "1 prompt has" if count == 1 else f"{count:,} prompts have"
    return f"{which} more tokens than the context: only the newest {seq_len:,} are read."


def _resumed(results: Results | None, total: int) -> str:
    if results is None or not (results.found or results.was_torn):
        return ""
    torn = "; the last line was torn off, and is written anew" if results.was_torn else ""
    return f"{results.name} has {len(results.found):,} of {total:,} texts{torn}."
