"""`crystalline.load`: a trained model that writes text and says how well it predicts one."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.data.decoding import plain
from crystalline.errors import UsageError
from crystalline.infer.engine import Generation, GenerationSettings, encode_prompt
from crystalline.infer.sampling import SamplingSettings
from crystalline.runs.keywords import keywords, python_spelling, takes
from crystalline.runs.layers import field_names

if TYPE_CHECKING:
    from crystalline.data.tokenizer import Tokenizer
    from crystalline.infer import loading
    from crystalline.infer.perplexity import TextScore
    from crystalline.model.config import ModelConfig
    from crystalline.runs.export import Exported, ExportType, Form, OnProgress

_OTHERS = ("prompt", "checkpoint")
_takes_generation = takes(
    GenerationSettings, SamplingSettings, exclude=("sampling", "stop", "seed")
)


def load(
    place: str | os.PathLike[str], *, checkpoint: str | os.PathLike[str] | None = None
) -> Model:
    """Open the model of a run, a checkpoint, a model folder or a GGUF file.

    Of a run it is the best checkpoint, or the newest where none is best yet; `checkpoint` picks
    another: "latest", "best", "step-XXXXXXXX" or a path.

    Raises:
        CheckpointError: nothing there, or damaged files.
        UsageError: `checkpoint` for a place that is no run.
    """
    from crystalline.infer.loading import open_model

    with python_spelling(others=_OTHERS):
        which = None if checkpoint is None else os.fspath(_path(checkpoint, "checkpoint"))
        return Model(open_model(_path(place, "the model"), checkpoint=which))


class Model:
    """A model that is ready to generate; use `load`.

    It holds one text at a time: threads that share it wait for their turn.
    """

    def __init__(self, opened: loading.Model) -> None:
        self._opened = opened
        self._turn = _Turn()

    def __repr__(self) -> str:
        return f"<crystalline.Model of {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The folder that its files came from."""
        return self._opened.path

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return self._opened.decoder.config

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes tokens of text, and text of tokens."""
        return self._opened.tokenizer

    @_takes_generation
    def generate(
        self,
        prompt: str = "",
        *,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        **settings: Any,
    ) -> str:
        """Return the continuation of a prompt, without it.

        The settings are those of cllm-infer: `max_tokens`, `temperature`, `top_k`, `top_p`,
        `min_p`, `repeat_penalty`.  The text ends before any of the `stop` strings, and the same
        `seed` gives the same text; without one it is random.

        Raises:
            UsageError: a setting that cannot work.
            DataError: text that the tokenizer cannot express.
        """
        return "".join(self.stream(prompt, stop=stop, seed=seed, **settings))

    @_takes_generation
    def stream(
        self,
        prompt: str = "",
        *,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Return an iterator over the pieces of what `generate` returns, as they become certain.

        It has the model to itself from its first piece to its end, or to its `close()`.
        """
        with python_spelling(GenerationSettings, SamplingSettings, others=_OTHERS):
            generation = _generation(settings, stop, seed)
            tokens = encode_prompt(self.tokenizer, _plain(prompt, "the prompt"))
        return self._pieces(Generation(self.tokenizer, tokens, generation))

    def score(self, text: str | Sequence[str]) -> TextScore:
        """Return how well the model predicts a text, or several documents.

        Raises:
            DataError: fewer than two tokens, or text that the tokenizer cannot express.
        """
        from crystalline.infer.perplexity import score_text

        documents = _documents(text, "the text")
        with python_spelling(others=_OTHERS), self._turn.take():
            return score_text(self._opened.scheduler, self.tokenizer, documents)

    def perplexity(self, text: str | Sequence[str]) -> float:
        """Return exp(nats per token) of a text, or several documents; see `score`."""
        return self.score(text).perplexity

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        to: Form | None = None,
        type: ExportType = "f32",  # noqa: A002 - the word of cllm-export
        measure: str | Sequence[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Exported:
        """Write the model for other programs; what comes back is path-like, and says its `cost`.

        A name that ends in .gguf is a GGUF file, which llama.cpp runs, of `type` "f32", "f16",
        "bf16", "q8_0" or "q4_0"; any other is a folder in Hugging Face's layout, of "f32" or
        "bf16".  `to` ("gguf" or "hf") says it whatever the name.  What is there already is not
        written over.

        With `measure`, a text or several documents, the perplexity of what was written stands
        beside that in float32; of quantized types of a run of ours it is measured without, too,
        on the text that the run held out.  `on_progress` is told what is done, of all: bytes
        written, then tokens measured.

        Raises:
            UsageError: a name that is taken, or a type or a shape that cannot be written so.
            DataError: a tokenizer that GGUF cannot hold, or text that cannot be measured.
            CheckpointError: the files of the model are no longer there, or damaged.
            SaveError: it could not be written; nothing is left of it.
        """
        from crystalline.runs.export import ExportSettings, export_model
        from crystalline.runs.settings import RunSettings

        documents = None if measure is None else _documents(measure, "the text to measure")
        with python_spelling(RunSettings, others=(*_OTHERS, "to", "type", "out", "measure")):
            return export_model(
                self.path,
                ExportSettings(to, type, _path(out, "out")),
                measure=documents,
                writing=on_progress,
                measuring=on_progress,
            )

    def _pieces(self, generation: Generation) -> Iterator[str]:
        with self._turn.take():
            scheduler = self._opened.scheduler
            scheduler.submit(generation)
            try:
                yield from scheduler.pieces(generation)
            finally:
                scheduler.cancel(generation)


class _Turn:
    """Whose turn it is with the one cache of a model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that has it

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait until no other thread has the model; a thread that has it cannot wait for itself."""
        if self._owner == threading.get_ident():
            raise UsageError(
                "this model is in the middle of another text",
                advice="Finish its stream or close() it, or load the model a second time.",
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None


def _generation(
    settings: dict[str, Any], stop: str | Sequence[str], seed: int | None
) -> GenerationSettings:
    given = settings | {"stop": stop, "seed": secrets.randbelow(2**32) if seed is None else seed}
    values = keywords(given, GenerationSettings, SamplingSettings, exclude=("sampling",))
    draws = {name: values.pop(name) for name in field_names(SamplingSettings) & values.keys()}
    return GenerationSettings(**values, sampling=SamplingSettings(**draws))


def _path(value: object, name: str) -> Path:
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise UsageError(
            f"{name} is {type(value).__name__}", advice="It must be a string or a path."
        )
    return Path(os.fsdecode(value))


def _documents(text: object, name: str) -> list[str]:
    several = text if isinstance(text, Iterable) and not isinstance(text, (str, bytes)) else [text]
    return [_plain(document, name) for document in several]


def _plain(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise UsageError(f"{name} is {type(text).__name__}", advice="It must be a string.")
    return plain(text)
