"""A model written for other programs: a GGUF file, or a folder in Hugging Face's layout.

    exported = export_model(Path("runs/NAME"), ExportSettings(type="q4_0"))
    exported.path; exported.cost

The model may come from anywhere that `formats.sources` opens.  Its tensors are read and written
one at a time.  What the other side cannot hold is refused before anything is written, and what is
there already is never written over.

What a type costs is measured on what was written, read back: its perplexity beside that of the
model it came from, on the same tokens.  Both are computed in float32, so that the numbers of the
file are all that differs; that comes nearest to what llama.cpp makes of it, too.  A quantized type
of a run of ours is measured unasked, on the text that the run held out, where the cache has it.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from crystalline.errors import DataError, UsageError
from crystalline.formats.files import CHECKPOINTS
from crystalline.formats.rundir import run_of
from crystalline.formats.sources import GGUF_SUFFIX, ModelSource, Read, open_source
from crystalline.model.params import parameter_table
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from crystalline.data.tokenizer import Tokenizer
    from crystalline.formats.gguf import SpecialTokens
    from crystalline.formats.tensorfile import TensorType
    from crystalline.infer.protocol import TokenIds

Form = Literal["gguf", "hf"]
ExportType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
Floats = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], object]
"""Called with what is done, and all there is to do: bytes written, or tokens measured."""

TYPES: dict[Form, tuple[ExportType, ...]] = {
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0"),
    "hf": ("f32", "bf16"),
}
QUANTIZED = ("q8_0", "q4_0")
_NOUNS: dict[Form, str] = {"gguf": "a GGUF file", "hf": "a folder in Hugging Face's layout"}
_HELD_OUT_TOKENS = 16_384  # of a run's held-out text; of more, the first


@dataclass(frozen=True)
class ExportSettings:
    """What to make of a model.

    Without `to`, the name of `out` tells: a GGUF file ends in .gguf, anything else is a folder;
    without both it is a GGUF file.  Without `out`, the name is made of the model's (see
    `default_name`), in the working directory.
    """

    to: Form | None = None
    type: ExportType = "f32"
    out: Path | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--to", self.to or "gguf", tuple(TYPES)),
            ("--type", self.type, TYPES["gguf"]),
        ):
            if value not in choices:
                raise UsageError(
                    f"{name} is {shown(repr(value), 40)}",
                    advice=f"It must be {', '.join(choices[:-1])} or {choices[-1]}.",
                )
        if self.out is not None and (self.out == Path() or "\0" in str(self.out)):
            raise UsageError(
                f"--out {shown(repr(str(self.out)), 80)} is no name of a file",
                advice="Name a file or folder that is not there yet.",
            )
        if self.type not in TYPES[self.form]:
            choices = TYPES[self.form]
            raise UsageError(
                f"--type {self.type} cannot be had in {_NOUNS[self.form]}",
                advice=f"Use {', '.join(choices[:-1])} or {choices[-1]}, or make {_NOUNS['gguf']}"
                f" (--to gguf, or --out NAME{GGUF_SUFFIX}).",
            )
        if self.to == "hf" and self.out is not None and self.out.suffix == GGUF_SUFFIX:
            raise UsageError(
                f"--to hf makes a folder, and --out {shown(str(self.out))} is the name of a GGUF"
                " file",
                advice="Leave --to out, or name a folder.",
            )

    @property
    def form(self) -> Form:
        """What is made."""
        if self.to is not None:
            return self.to
        return "gguf" if self.out is None or self.out.suffix == GGUF_SUFFIX else "hf"


@dataclass(frozen=True)
class Cost:
    """What a type costs: the perplexity of what was written, and that of the model in float32.

    >>> cost = Cost("q4_0", 25.31, 25.02, 16_384)
    >>> print(cost)
    q4_0: perplexity 25.31, float32 25.02 (+1.16 %)
    """

    type: str
    perplexity: float
    float32: float
    tokens: int  # that were predicted

    @property
    def change(self) -> float:
        """By how much the perplexity rose, as a share of float32's."""
        return self.perplexity / self.float32 - 1 if math.isfinite(self.float32) else math.nan

    def __str__(self) -> str:
        percent = round(100 * self.change, 2) + 0.0  # of a zero, without its sign
        rise = f" ({percent:+.2f} %)" if math.isfinite(percent) else ""
        return f"{self.type}: perplexity {self.perplexity:.4g}, float32 {self.float32:.4g}{rise}"


@dataclass(frozen=True)
class Exported:
    """What was written.  It is path-like: `load(exported)` opens it."""

    path: Path
    source: Path  # the folder or file that the model came from
    choice: str  # "best" or "latest": which of a run's checkpoints, where none was named
    form: Form
    type: ExportType
    size_bytes: int
    parameters: int
    tensors: Mapping[str, int]  # how many there are of each number format
    cost: Cost | None = None  # where it was measured

    def __fspath__(self) -> str:
        return str(self.path)


def export_model(
    place: Path,
    settings: ExportSettings,
    *,
    checkpoint: str | None = None,
    measure: Sequence[str] | None = None,
    writing: OnProgress | None = None,
    measuring: OnProgress | None = None,
) -> Exported:
    """Write the model that `place` names (see `open_source`); return what came of it.

    `measure` is text, by its documents, on which the cost of the type is measured; quantized
    types of a run of ours are measured without it, too.  `writing` is told bytes, `measuring`
    tokens.

    Raises:
        CheckpointError: no model there, or a damaged one.
        UsageError: a name that is taken, a shape or numbers that cannot be written so.
        DataError: a tokenizer that GGUF cannot hold, or text that cannot be measured.
        SaveError: it could not be written; nothing is left of it.
    """
    source = open_source(place, checkpoint)
    tokenizer = source.tokenizer()
    out = settings.out or Path(default_name(source, settings))
    _require_free(out, settings.form)
    tokens = _tokens_to_measure(source, tokenizer, settings.type, measure)
    if settings.form == "gguf":
        tensors = _write_gguf(source, tokenizer, settings.type, out, writing)
        size_bytes = out.stat().st_size
    else:
        tensors = _write_folder(source, settings.type, out, writing)
        size_bytes = sum(entry.stat().st_size for entry in out.iterdir())
    cost = None
    if tokens is not None:
        before, after = _perplexities(((place, checkpoint), (out, None)), tokens, measuring)
        cost = Cost(settings.type, after, before, int(tokens.size) - 1)
    return Exported(
        out, source.path, source.choice, settings.form, settings.type, size_bytes,
        parameter_table(source.config).count, tensors, cost,
    )  # fmt: skip


def default_name(source: ModelSource, settings: ExportSettings) -> str:
    """Return NAME-TYPE.gguf, or NAME-TYPE of a folder, by the name of the run, folder or file."""
    ending = GGUF_SUFFIX if settings.form == "gguf" else ""
    return f"{model_name(source)}-{settings.type}{ending}"


def model_name(source: ModelSource) -> str:
    """Return the name of a model: its run's, with the checkpoint where one was named."""
    if source.path.suffix == GGUF_SUFFIX:
        return source.path.stem
    path = source.path.resolve()  # of RUN/latest the checkpoint
    if path.parent.name == CHECKPOINTS:
        run = run_of(path).name
        return run if source.choice else f"{run}-{path.name}"
    return path.name


def _require_free(out: Path, form: Form) -> None:
    """Raise `UsageError` for a name that is taken, or lies in no folder."""
    if out.is_dir() and not out.is_symlink() and (form == "gguf" or any(out.iterdir())):
        inside = "a file in it" if form == "gguf" else "a new one"
        raise UsageError(f"{shown(str(out))} is a folder", advice=f"Name {inside} with --out.")
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(
            f"{shown(str(out))} is there already",
            advice="Name another file or folder with --out, or remove that one.",
        )
    if not out.parent.is_dir():
        raise UsageError(
            f"{shown(str(out.parent))} is no folder",
            advice="Make it first, or name another place with --out.",
        )


# --- writing ----------------------------------------------------------------------------------


def _write_gguf(
    source: ModelSource,
    tokenizer: Tokenizer,
    type: ExportType,  # noqa: A002 - as users say it
    out: Path,
    writing: OnProgress | None,
) -> Mapping[str, int]:
    from crystalline.formats.gguf import write_gguf

    name = model_name(source)
    with source.weights() as read:
        kinds = write_gguf(
            out,
            source.config,
            _in_order(source, read),
            type=type,
            tokenizer=source.tokenizer_json(),
            special=special_tokens(tokenizer),
            chat_template=source.facts.chat_template,
            name=name.encode("utf-8", "replace").decode(),
            progress=None if writing is None else lambda done, total: _tell(writing, done, total),
        )
    return Counter(kinds.values())


def _write_folder(
    source: ModelSource,
    type: ExportType,  # noqa: A002 - as users say it
    out: Path,
    writing: OnProgress | None,
) -> Mapping[str, int]:
    from crystalline.formats.folder import NamedTensors, save_model_folder
    from crystalline.untrusted.files import CRYSTAL

    crystal = None
    if source.crystal_path is not None:
        try:
            crystal = CRYSTAL.read_bytes(source.crystal_path).decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{source.crystal_path} is not UTF-8", advice="Copy the folder again."
            ) from None
    with source.weights() as read:
        item_bytes = 2 if type == "bf16" else 4
        tensors = NamedTensors(
            read,
            source.config,
            None
            if writing is None
            else lambda done, total: writing(done * item_bytes, total * item_bytes),
        )
        save_model_folder(
            out, source.config, tensors, source.tokenizer_json(), source.facts,
            type=cast("TensorType", type), crystal=crystal,
        )  # fmt: skip
    return {type: len(tensors)}


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """Return which tokens of a vocabulary begin and end a text, for a GGUF file.

    The end is what the model's files call so, as llama.cpp's converter has it: a chat model's is
    the end of a turn, not of a document.
    """
    from crystalline.formats.gguf import SpecialTokens

    ids = {name: tokenizer.inner.token_to_id(text) for name, text in tokenizer.special.items()}
    end = ids.get("eos_token", tokenizer.eot_id)
    begin = tokenizer.prompt_start[0] if tokenizer.prompt_start else ids.get("bos_token", end)
    return SpecialTokens(
        bos=begin,
        eos=end,
        unk=ids.get("unk_token"),
        pad=ids.get("pad_token"),
        add_bos=bool(tokenizer.prompt_start),
    )


def _in_order(source: ModelSource, read: Read) -> Iterator[tuple[str, Floats]]:
    """Yield the tensors as files have them, each parameter read once."""
    for parameter in parameter_table(source.config).parameters:
        whole = read(parameter)
        for part in parameter.parts:
            yield part.name, parameter.part_view(whole, part)


def _tell(progress: OnProgress, done: int, total: int) -> None:
    progress(min(done, total), total)


# --- measuring --------------------------------------------------------------------------------


def _tokens_to_measure(
    source: ModelSource,
    tokenizer: Tokenizer,
    type: ExportType,  # noqa: A002 - as users say it
    documents: Sequence[str] | None,
) -> TokenIds | None:
    """Return what to measure on; None: nothing."""
    if documents is None:
        return held_out(source) if type in QUANTIZED else None
    tokens = np.ascontiguousarray(tokenizer.encode_documents(documents), dtype=np.int32)
    if tokens.size < 2:
        raise DataError(
            f"the text to measure has {tokens.size} tokens",
            advice="At least two are needed to predict one.",
        )
    return tokens


def held_out(source: ModelSource) -> TokenIds | None:
    """Return the first tokens that the model's run held out; None where the cache lacks them."""
    from crystalline.data.prepare import cached_tokens

    found = cached_tokens(source.tokens_sha256) if source.tokens_sha256 else None
    if found is None or found.vocab_size > source.config.vocab_size or found.val.size < 2:
        return None
    return found.val[: _HELD_OUT_TOKENS + 1].astype(np.int32)


def _perplexities(
    models: Sequence[tuple[Path, str | None]], tokens: TokenIds, measuring: OnProgress | None
) -> list[float]:
    """Return the perplexity of each model, given by its place and checkpoint, one at a time."""
    from crystalline.infer.loading import open_model
    from crystalline.infer.perplexity import TextScore, nats_of

    found: list[float] = []
    predicted = int(tokens.size) - 1

    def tell(done: int, _: int) -> None:
        if measuring is not None:
            measuring(len(found) * predicted + done, len(models) * predicted)

    for place, checkpoint in models:
        # Keys and values stay float32, so that it is the weights that are compared.
        model = open_model(place, checkpoint=checkpoint, cache="float32")
        nats = nats_of(model.scheduler, tokens, progress=tell)
        found.append(TextScore(nats, int(tokens.size), 1).perplexity)
        del model  # before the next is loaded
    return found
