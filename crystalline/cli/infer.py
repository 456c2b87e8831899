"""cllm-infer: write text with a trained model, talk to it, or measure it on a text.

    cllm-infer RUN --prompt "Once upon a time"
    echo "Once upon a time" | cllm-infer RUN --json
    cllm-infer RUN --prompts FILE --out TEXTS.jsonl
    cllm-infer RUN --chat
    cllm-infer RUN --perplexity FILE

Generated text goes to stdout and nothing else does; messages go to stderr.
"""

from __future__ import annotations

import io
import math
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.infer_view import (
    Progress,
    chosen,
    context_full,
    described,
    endings,
    parts,
    print_json,
    prompt_cut,
    rate,
    reading,
    show,
    speed_fields,
    speeds,
    stream,
    tell,
    words_unknown,
)
from crystalline.cli.options import (
    ModelPlace,
    Quiet,
    Temperature,
    TextField,
    TopP,
    Version,
    WhichCheckpoint,
    require_model,
)
from crystalline.cli.run import (
    CachePrecision,
    InferPrecision,
    parse_settings,
    run_command,
    version_line,
)
from crystalline.data.transcript import FormName
from crystalline.errors import EXIT_INTERRUPTED, EXIT_OK, DataError, UsageError
from crystalline.untrusted import printable

if TYPE_CHECKING:
    from crystalline.infer.engine import GenerationSettings
    from crystalline.infer.loading import Model

PROGRAM = "cllm-infer"
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = """Write text with a trained model, talk to it, or measure it on a text.

  cllm-infer RUN -p "Once upon a time" -n 50
  cllm-infer RUN --prompts prompts.txt --out texts.jsonl
  cllm-infer RUN --chat
  cllm-infer RUN --perplexity other.txt

Text goes to stdout, messages go to stderr. Of a prompt from stdin, one newline
  at the end is dropped; an empty prompt begins a new document; one that begins
  with '-' is written --prompt=-TEXT; with --chat, the prompt stands before the
  conversation. When the context is full, its newest half is kept.

The next token is chosen in this order: repetition penalty, temperature, top-k,
  top-p, min-p, draw.

A line of --prompts is a prompt; in JSON lines it is an object with "prompt",
  and "id", "seed", "stop", "max_tokens", "temperature", ... as it needs them.
  --out gets an object for each text when it ends, with the "index" of its
  prompt, and is put into their order in the end. The seed of a text is --seed
  plus its index. A stopped command, given again, goes on with what is missing."""

SAMPLE_SEPARATOR = "---"
MAX_BEAMS = 256
PARALLEL = 16  # texts at once, where the command does not say


@dataclass(frozen=True)
class InferSettings:
    """Every option of the command; the text under a field is its help."""

    run_or_model: ModelPlace = ""
    prompt: Annotated[
        str | None,
        tyro.conf.arg(
            aliases=["-p"],
            metavar="TEXT",
            constructor=str,
            help_behavior_hint="(default: stdin)",
        ),
    ] = None
    """Text to continue; '-' is stdin, which is also read when it is not a terminal."""
    max_tokens: Annotated[
        int | None,
        tyro.conf.arg(
            aliases=["-n"],
            metavar="INT",
            constructor=int,
            help_behavior_hint="(default: 200; in a chat at most half of the context)",
        ),
    ] = None
    """Longest continuation or answer, in tokens."""
    temperature: Temperature = 0.8
    top_k: int = 0
    """Draw among this many likeliest tokens; 0 is all."""
    top_p: TopP = 0.95
    min_p: float = 0.0
    """Draw among tokens at least this many times as likely as the likeliest; 0 is all."""
    repeat_penalty: float = 1.0
    """Makes the newest 64 tokens less likely (divides their positive logits); 1 is off."""
    seed: Annotated[
        int | None,
        tyro.conf.arg(metavar="INT", constructor=int, help_behavior_hint="(default: random)"),
    ] = None
    """Seed of the draws; the same seed gives the same text."""
    stop: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="TEXT", help_behavior_hint="(repeatable; default: none)"),
    ] = ()
    """End before this text."""
    beam: int = 1
    """Width of a beam search (best mean log-probability) instead of sampling; 1 is off."""
    num_samples: int = 1
    """Texts to generate, with a line '---' between them; of a beam search, the best ones."""
    prompts: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE", constructor=str, help_behavior_hint="(default: off)"),
    ] = None
    """Write a text for each prompt of a file, many at a time: one prompt a line, or JSON lines;
    '-' is stdin."""
    out: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE", constructor=str, help_behavior_hint="(default: stdout)"),
    ] = None
    """File that gets the texts of --prompts, as JSON lines; one that is there is continued."""
    parallel: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT",
            constructor=int,
            help_behavior_hint=f"(default: {PARALLEL}, at most as many as there are)",
        ),
    ] = None
    """Texts to work on at a time, of --prompts or --num-samples. More are faster together; each
    takes memory for its context. The texts are the same."""
    chat: bool = False
    """Talk with the model, line by line; /help lists the commands."""
    chat_template: Annotated[
        FormName | None,
        tyro.conf.arg(
            help_behavior_hint="(default: model, where it has a chat template; else plain)"
        ),
    ] = None
    """Form of a chat: the model's own chat template, or a plain transcript of User: and
    Assistant:, which base models continue."""
    perplexity: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE", constructor=str, help_behavior_hint="(default: off)"),
    ] = None
    """Measure the model on this text, in windows of the context length; it is read as training
    reads it, also HTML and JSON records. '-' is stdin."""
    text_field: TextField = None
    """Field of JSON records that holds their text, with --perplexity."""
    json: bool = False
    """Print one JSON object to stdout instead of text."""
    checkpoint: WhichCheckpoint = None
    precision: InferPrecision = "float32"
    """Number format of the weights: bf16 takes half the memory of float32, int8 and int8g32 (as
    q8_0) a quarter, int4 (as q4_0) less than a fifth, and a token takes about as much less time.
    What one costs in quality, --perplexity tells."""
    cache: CachePrecision = "bf16"
    """Number format of the keys and values of a text, which are read for every token."""
    threads: int = 0
    """Threads that compute together; 0 is one for each core that may be used."""
    quiet: Quiet = False
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Say which model was opened, how long that took, and the instruction-set level."""
    version: Version = False

    def __post_init__(self) -> None:
        if self.version:
            return
        require_model(self.run_or_model, f"{PROGRAM} runs/NAME")
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        if self.num_samples < 1:
            raise UsageError(
                f"--num-samples is {self.num_samples}", advice="It must be at least 1."
            )
        if not 1 <= self.beam <= MAX_BEAMS:
            raise UsageError(
                f"--beam is {self.beam}", advice=f"It must lie between 1 and {MAX_BEAMS}."
            )
        if self.threads < 0:
            raise UsageError(f"--threads is {self.threads}", advice="It must be at least 0.")
        if self.parallel is not None and not 1 <= self.parallel <= MAX_BEAMS:
            raise UsageError(
                f"--parallel is {self.parallel}", advice=f"It must lie between 1 and {MAX_BEAMS}."
            )
        if self.out is not None and self.prompts is None:
            raise UsageError(
                "--out is for the texts of --prompts",
                advice="Name their file with --prompts, or redirect the output: > FILE.",
            )
        if self.beam > 1 and self.num_samples > self.beam:
            raise UsageError(
                f"--num-samples {self.num_samples} is more than --beam {self.beam} finds",
                advice=f"Use --beam {self.num_samples} or more.",
            )

    def _check_combinations(self) -> None:
        names = {
            "--chat": self.chat,
            "--perplexity": self.perplexity is not None,
            "--prompts": self.prompts is not None,
            "--prompts without --out": self.prompts is not None and self.out is None,
            "--quiet": self.quiet,
            "--verbose": self.verbose,
            "--json": self.json,
            "--prompt": self.prompt is not None,
            "--prompt -": self.prompt == "-",
            "--num-samples": self.num_samples > 1,
            "--beam": self.beam > 1,
            "--top-k": self.top_k != InferSettings.top_k,
            "--top-p": self.top_p != InferSettings.top_p,
            "--min-p": self.min_p != InferSettings.min_p,
            "--repeat-penalty": self.repeat_penalty != InferSettings.repeat_penalty,
            "--temperature": self.temperature not in (InferSettings.temperature, 0),
        }
        excluded = {
            "--chat": ("--perplexity", "--json", "--prompt -", "--num-samples", "--beam"),
            "--perplexity": ("--prompt", "--num-samples", "--beam"),
            "--prompts": ("--prompt", "--chat", "--perplexity", "--num-samples", "--beam"),
            "--prompts without --out": ("--json",),
            "--quiet": ("--verbose",),
            "--beam": ("--temperature", "--top-k", "--top-p", "--min-p", "--repeat-penalty"),
        }
        for first, others in excluded.items():
            for second in others:
                if names[first] and names[second]:
                    raise UsageError(
                        f"{first} and {second} cannot be combined", advice="Leave one of them out."
                    )

    def ineffective(self) -> str:
        """Return a sentence on the options that change nothing beside others, or ""."""
        draws = {
            "--top-k": self.top_k != InferSettings.top_k,
            "--top-p": self.top_p != InferSettings.top_p,
            "--min-p": self.min_p != InferSettings.min_p,
            "--seed": self.seed is not None,
        }
        if self.chat_template is not None and not self.chat:
            return "--chat-template has no effect without --chat."
        is_single = self.num_samples == 1 or self.beam > 1
        if self.parallel is not None and self.prompts is None and is_single:
            return "--parallel has no effect without --prompts or --num-samples to draw."
        if self.perplexity is not None:
            others = {
                "--max-tokens": self.max_tokens is not None,
                "--temperature": self.temperature != InferSettings.temperature,
                "--repeat-penalty": self.repeat_penalty != InferSettings.repeat_penalty,
                "--stop": bool(self.stop),
            }
            given, why = others | draws, "with --perplexity, which generates nothing"
        elif self.beam > 1:
            given, why = draws, "with --beam, which draws nothing"
        elif self.temperature == 0 and self.prompts is None:
            given = draws | {"--num-samples": self.num_samples > 1}
            why = "at temperature 0, which always takes the likeliest token"
        else:
            return ""
        flags = [flag for flag, is_given in given.items() if is_given]
        if not flags:
            return ""
        return f"{' and '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect {why}."

    def generation(self) -> GenerationSettings:
        """Return the settings of the engine, with a random seed where none is given.

        How long an answer of a chat is by default depends on the model: see `_chat`.
        """
        from crystalline.infer.engine import DEFAULT_MAX_TOKENS, GenerationSettings
        from crystalline.infer.sampling import SamplingSettings

        sampling = SamplingSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
        )
        max_tokens = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        return GenerationSettings(max_tokens, self.stop, sampling)

    def at_once(self, texts: int | None = None) -> int:
        """Return how many texts to work on at a time, of `texts` (default: of the samples)."""
        texts = self.num_samples if texts is None else texts
        return max(1, min(texts, PARALLEL if self.parallel is None else self.parallel))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    settings = parse_settings(InferSettings, argv, program=PROGRAM, description=DESCRIPTION)
    if settings.version:
        print(version_line())
        return EXIT_OK
    generation = settings.generation()
    tell(settings.ineffective(), quiet=settings.quiet)
    if settings.prompts is not None:
        from crystalline.cli.batch import batch

        return batch(settings, generation)
    if settings.perplexity is not None:
        with reading("the text"):
            documents = _read_text(settings.perplexity, settings.text_field)
        return _measure(settings, documents)
    with reading("the prompt"):
        prompt = _prompt(settings)
    model = open_named(settings, settings.beam if settings.beam > 1 else settings.at_once())
    if settings.chat:
        return _chat(settings, generation, model, prompt)
    if settings.beam > 1:
        return _search(settings, generation, model, prompt)
    return _generate(settings, generation, model, prompt)


def open_named(settings: InferSettings, slots: int) -> Model:
    """Open the model that the command names, with as many slots; with -v, tell about it."""
    from crystalline.infer.loading import open_model

    started = time.perf_counter()
    model = open_model(
        Path(settings.run_or_model),
        checkpoint=settings.checkpoint,
        slots=slots,
        precision=settings.precision,
        cache=settings.cache,
        threads=settings.threads,
    )
    if settings.verbose:
        for line in described(model, time.perf_counter() - started):
            tell(line, quiet=False)
    return model


# --- generation -----------------------------------------------------------------------------------


def _generate(
    settings: InferSettings, generation: GenerationSettings, model: Model, prompt: str
) -> int:
    """Sample, all at once; the text of each is streamed, unless it goes into a JSON object."""
    from crystalline.infer.engine import Generation

    tokens = _read_prompt(settings, model, prompt)
    scheduler = model.scheduler
    samples = [
        Generation(model.tokenizer, tokens, generation, sample=index)
        for index in range(settings.num_samples)
    ]
    for sample in samples:
        scheduler.submit(sample)
    code = EXIT_OK
    _echo(settings, prompt)
    try:
        for index, sample in enumerate(samples):
            if settings.json:
                scheduler.finish(sample)
                continue
            if index:
                print(SAMPLE_SEPARATOR, flush=True)
            stream(scheduler.pieces(sample))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    count = sum(len(sample.tokens) for sample in samples)
    figures = scheduler.figures
    seconds = figures.prompt_seconds + figures.decode_seconds
    full = _is_context_full(model, len(tokens), [len(sample.tokens) for sample in samples])
    if settings.json:
        print_json(
            _answer(generation, model, prompt, len(tokens))
            | {
                "text": samples[0].text,
                "finish_reason": samples[0].finish_reason,
                "tokens": count,
                "seconds": round(seconds, 6),
                "tokens_per_second": rate(count, seconds),
                **speed_fields(figures),
                "context_full": full,
                "seed": generation.sampling.seed,
                "samples": [
                    {"text": s.text, "tokens": len(s.tokens), "finish_reason": s.finish_reason}
                    for s in samples
                ],
            }
        )
    if full:
        tell(context_full(model.decoder.config.seq_len), quiet=settings.quiet)
    tell(speeds(figures, count), quiet=settings.quiet)
    closing = parts(
        f"seed {generation.sampling.seed}",
        chosen(model),
        endings([sample.finish_reason for sample in samples], settings.stop),
    )
    tell(closing, quiet=settings.quiet)
    return code


def _search(
    settings: InferSettings, generation: GenerationSettings, model: Model, prompt: str
) -> int:
    """Print the best texts of a beam search."""
    from crystalline.infer.beam import BeamSearch, beam_search

    tokenizer = model.tokenizer

    def text_of(tokens: tuple[int, ...]) -> str:
        text = tokenizer.decode(token for token in tokens if token not in tokenizer.end_ids)
        return text[: min((at for s in settings.stop if (at := text.find(s)) >= 0), default=None)]

    def ends(tokens: tuple[int, ...]) -> str | None:
        if tokens[-1] in tokenizer.end_ids:
            return "eot"
        if settings.stop and any(stop in tokenizer.decode(tokens) for stop in settings.stop):
            return "stop"
        return None

    tokens = _read_prompt(settings, model, prompt)
    search = BeamSearch(
        tokens,
        width=settings.beam,
        max_tokens=generation.max_tokens,
        vocab_size=tokenizer.vocab_size,
        ends=ends,
    )
    found = beam_search(model.scheduler, search)[: settings.num_samples]
    figures = model.scheduler.figures
    seconds = figures.prompt_seconds + figures.decode_seconds
    count = sum(len(hypothesis.tokens) for hypothesis in found)
    full = _is_context_full(model, len(tokens), [len(hypothesis.tokens) for hypothesis in found])
    if settings.json:
        print_json(
            _answer(generation, model, prompt, len(tokens))
            | {
                "text": text_of(found[0].tokens),
                "finish_reason": found[0].finish_reason,
                "tokens": count,
                "seconds": round(seconds, 6),
                "tokens_per_second": rate(count, seconds),
                **speed_fields(figures),
                "context_full": full,
                "seed": None,
                "samples": [
                    {
                        "text": text_of(h.tokens),
                        "tokens": len(h.tokens),
                        "finish_reason": h.finish_reason,
                        "log_probability": h.log_probability,
                        "score": h.score,
                    }
                    for h in found
                ],
            }
        )
    else:
        _echo(settings, prompt)
        texts = [text_of(hypothesis.tokens) for hypothesis in found]
        show(f"\n{SAMPLE_SEPARATOR}\n".join(text.removesuffix("\n") for text in texts), end="\n")
    if full:
        tell(context_full(model.decoder.config.seq_len), quiet=settings.quiet)
    tell(speeds(figures, count), quiet=settings.quiet)
    closing = parts(
        f"{settings.beam} beams",
        f"{-found[0].score:.4f} nats per token",
        chosen(model),
        endings([hypothesis.finish_reason for hypothesis in found], settings.stop),
    )
    tell(closing, quiet=settings.quiet)
    return EXIT_OK


def _chat(
    settings: InferSettings, generation: GenerationSettings, model: Model, preamble: str
) -> int:
    """Talk, with answers that leave half of the context to the conversation."""
    from dataclasses import replace

    from crystalline.cli.chat import chat
    from crystalline.infer.chat import answer_tokens

    longest = answer_tokens(model.decoder.config.seq_len, settings.max_tokens)
    return chat(
        model,
        replace(generation, max_tokens=longest),
        preamble,
        settings.chat_template,
        quiet=settings.quiet,
    )


def _read_prompt(settings: InferSettings, model: Model, prompt: str) -> list[int]:
    """Return the tokens of the prompt; say what the model will not see of it."""
    from crystalline.infer.engine import encode_prompt, unknown_tokens

    tokens = encode_prompt(model.tokenizer, prompt)
    tell(prompt_cut(len(tokens), model.decoder.config.seq_len), quiet=settings.quiet)
    unknown = words_unknown(unknown_tokens(model.tokenizer, tokens), "prompt")
    tell(unknown, quiet=settings.quiet)
    return tokens


def _answer(
    generation: GenerationSettings, model: Model, prompt: str, prompt_tokens: int
) -> dict[str, Any]:
    return {
        "model": str(model.path),
        "prompt": prompt,
        "prompt_tokens": prompt_tokens,
        "prompt_tokens_read": min(prompt_tokens, model.decoder.config.seq_len),
        "max_tokens": generation.max_tokens,
    }


def _is_context_full(model: Model, prompt_tokens: int, generated: list[int]) -> bool:
    from crystalline.infer.engine import fills_context

    seq_len = model.decoder.config.seq_len
    return any(fills_context(prompt_tokens, count, seq_len) for count in generated)


# --- perplexity -----------------------------------------------------------------------------------


def _measure(settings: InferSettings, text: Sequence[str]) -> int:
    """Print how well the model predicts a text, given by its documents."""
    from crystalline.infer.perplexity import score_text

    model = open_named(settings, 1)
    progress = Progress(quiet=settings.quiet)
    started = time.perf_counter()
    try:
        score = score_text(model.scheduler, model.tokenizer, text, progress=progress.update)
    finally:
        progress.close()
    seconds = time.perf_counter() - started
    speed = rate(score.tokens - 1, seconds)
    if settings.json:
        print_json(
            {
                "model": str(model.path),
                "file": settings.perplexity,
                "nats_per_token": score.nats_per_token,
                "perplexity": score.perplexity if math.isfinite(score.perplexity) else None,
                "bits_per_byte": score.bits_per_byte,
                "tokens": score.tokens,
                "bytes": score.size_bytes,
                "unknown_words": score.unknown,
                "seconds": round(seconds, 6),
                "tokens_per_second": speed,
            }
        )
    else:
        print(f"nats per token  {score.nats_per_token:.4f}")
        print(f"perplexity      {score.perplexity:.3f}")
        print(f"bits per byte   {score.bits_per_byte:.4f}")
        print(f"tokens          {score.tokens}")
        print(f"bytes           {score.size_bytes}")
    tell(words_unknown(score.unknown, "text"), quiet=settings.quiet)
    closing = parts(
        f"{seconds:.2f} s ({speed:,.0f} tokens/s)", f"model {model.path}", chosen(model)
    )
    tell(closing, quiet=settings.quiet)
    return EXIT_OK


# --- input and output -----------------------------------------------------------------------------


def _prompt(settings: InferSettings) -> str:
    """Return the prompt from the flag or from stdin, as text is read in training."""
    from crystalline.data.decoding import plain

    if settings.chat:
        return plain(settings.prompt or "")
    if settings.prompt not in (None, "-"):
        return plain(str(settings.prompt))
    if settings.prompt is None and sys.stdin.isatty():
        return ""
    try:
        return plain(_stdin().decode()).removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the prompt on stdin is not valid UTF-8 at byte {error.start}",
            advice="Convert it to UTF-8.",
        ) from None


def _read_text(name: str, text_field: str | None) -> list[str]:
    """Return the documents of a file, or the text on stdin, as training reads them."""
    from crystalline.data.corpus import read_documents
    from crystalline.data.decoding import text_blocks

    if name == "-":
        return ["".join(text_blocks(io.BytesIO(_stdin()).read, "the text on stdin"))]
    return read_documents(name, text_field)


def _stdin() -> bytes:
    """Return all of standard input, which must end before it is too much."""
    from crystalline.untrusted.files import PROMPT

    return PROMPT.read_stream(sys.stdin.buffer, "standard input")


def _echo(settings: InferSettings, prompt: str) -> None:
    """On a terminal, show the prompt before its continuation."""
    if not (settings.quiet or settings.json) and sys.stdout.isatty() and sys.stderr.isatty():
        print(printable(prompt), end="", file=sys.stderr, flush=True)
