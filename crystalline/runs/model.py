"""`crystalline.load`: a trained model that writes text and says how well it predicts one."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
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

_OTHERS = ("prompt", "checkpoint")


def load(
    place: str | os.PathLike[str], *, checkpoint: str | os.PathLike[str] | None = None
) -> Model:
    """Open the model of a run, a checkpoint or a model folder.

    Of a run it is the best checkpoint, or the newest where none is best yet; `checkpoint` picks
    another: "latest", "best", "step-XXXXXXXX" or a path.

    Raises:
        CheckpointError: nothing there, or damaged files.
        UsageError: `checkpoint` for a place that is no run.
    """
    from crystalline.infer.loading import open_model

    with python_spelling(others=_OTHERS):
        which = None if checkpoint is None else os.fsdecode(checkpoint)
        return Model(open_model(Path(os.fsdecode(place)), checkpoint=which))


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

    @takes(GenerationSettings, SamplingSettings, exclude=("sampling", "stop", "seed"))
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

    @takes(GenerationSettings, SamplingSettings, exclude=("sampling", "stop", "seed"))
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

        documents = [text] if isinstance(text, str) else list(text)
        documents = [_plain(document, "the text") for document in documents]
        with python_spelling(others=_OTHERS), self._turn.take():
            return score_text(self._opened.scheduler, self.tokenizer, documents)

    def perplexity(self, text: str | Sequence[str]) -> float:
        """Return exp(nats per token) of a text, or several documents; see `score`."""
        return self.score(text).perplexity

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


def _plain(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise UsageError(f"{name} is {type(text).__name__}", advice="It must be a string.")
    return plain(text)
