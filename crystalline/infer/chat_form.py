"""How a conversation is written for a model: as plain lines, or by its own chat template.

    with open_form(tokenizer, None, "Two friends meet.") as form:
        tokens = talk.prompt(form, room)

A model that was trained on conversations in the form of its template answers well in no other.
What the template writes is encoded as it is, as training does it: the special tokens that it
names are recognized, and nothing is put before them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from crystalline.data.chat_template import ChatTemplate
from crystalline.data.tokenizer import Tokenizer
from crystalline.data.transcript import MODEL_PREFIX, USER_PREFIX, FormName
from crystalline.errors import DataError
from crystalline.infer.chat import Transcript
from crystalline.infer.engine import encode_prompt, encode_text

_ADVICE = "Use --chat-template plain, or leave out a system text that it has no place for."
# Words of a conversation that shows what a template writes between them.
_PROBE = ("qzq first", "qzq second", "qzq third")


class Form(ABC):
    """Makes tokens of a conversation that ends with a line of the user's."""

    title: str  # a sentence that says which form it is
    marks: str  # what it writes around the turns, in a word
    stops: tuple[str, ...]  # texts at which an answer is over, beside the model's end tokens

    @abstractmethod
    def text(self, talk: Transcript, turns: int | None = None) -> str:
        """Return the newest `turns` (default: all), up to where the model's answer begins.

        Raises:
            DataError: a conversation that the form does not accept.
        """

    @abstractmethod
    def tokens(self, talk: Transcript, turns: int | None = None) -> list[int]:
        """Return the tokens of `text`.

        Raises:
            DataError: as `text`, and for text that the tokenizer cannot express.
        """

    def marks_of(self, preamble: str) -> str:
        """Return the text that every prompt has.  Raises as `text`."""
        return self.text(_asking("", preamble))


class PlainForm(Form):
    """A transcript of `User:` and `Assistant:`; a line of the user's ends an answer."""

    title = "The model continues a transcript of User: and Assistant:."
    marks = "names of the speakers"
    stops = ("\n" + USER_PREFIX,)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        if tokenizer.chat_template is not None:
            self.title += " Its own chat template is not used."

    def text(self, talk: Transcript, turns: int | None = None) -> str:
        return talk.text(turns)

    def tokens(self, talk: Transcript, turns: int | None = None) -> list[int]:
        return encode_prompt(self._tokenizer, self.text(talk, turns))

    def marks_of(self, preamble: str) -> str:
        return "\n".join([preamble] * bool(preamble) + [USER_PREFIX, MODEL_PREFIX])


class TemplateForm(Form):
    """What the model's chat template makes of a conversation."""

    title = "The conversation is written by the chat template of the model."
    marks = "marks of the chat template"

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, preamble: str = "") -> None:
        """Find out, with `preamble` as the system's, where a turn of the model's is over.

        Raises:
            DataError: a template that cannot be used, or that refuses a line after `preamble`.
        """
        self._tokenizer = tokenizer
        self._template = template
        self.stops = self._ends_of_turn(preamble)

    def text(self, talk: Transcript, turns: int | None = None) -> str:
        return self._template.prompt(talk.messages(turns)[:-1])  # the answer is yet to come

    def tokens(self, talk: Transcript, turns: int | None = None) -> list[int]:
        found = encode_text(self._tokenizer, self.text(talk, turns), "conversation")
        if not found:
            raise DataError("the chat template of the model writes nothing", advice=_ADVICE)
        return found

    def _ends_of_turn(self, preamble: str) -> tuple[str, ...]:
        r"""Return what ends an answer, where that is none of the model's end tokens.

        It is the first special token that the template writes behind an answer or, where there
        is none, all that it writes before the user's next line, as in "\n### User:".
        """
        first, second, third = _PROBE
        talk = _asking(first, preamble)
        self.text(talk)
        talk.answer(second)
        talk.ask(third)
        try:
            whole = self.text(talk)
        except DataError:  # it has no place for a second turn
            return ()
        behind = whole.rpartition(second)[2]
        between, found, _ = behind.partition(third)
        if not found:
            return ()
        inner = self._tokenizer.inner
        special = [t.content for t in inner.get_added_tokens_decoder().values() if t.special]
        there = [(between.find(one), -len(one), one) for one in special if one in between]
        if there:
            end = min(there)[2]
            return () if inner.token_to_id(end) in self._tokenizer.end_ids else (end,)
        words = between.strip()
        begins_line = "\n" in between[: between.find(words)]
        return ("\n" * begins_line + words,) if words else ()


def _asking(line: str, preamble: str) -> Transcript:
    talk = Transcript(preamble)
    talk.ask(line)
    return talk


@contextmanager
def open_form(tokenizer: Tokenizer, which: FormName | None, preamble: str = "") -> Iterator[Form]:
    """Open the form `which`; None is the model's own where it has a chat template, else plain.

    Raises:
        DataError: the model's form is asked for, and it has none, or its template cannot be used,
            or refuses a line after `preamble`.
    """
    has_template = tokenizer.chat_template is not None
    if which == "model" and not has_template:
        raise DataError(
            "the model has no chat template",
            advice="Leave --chat-template out: the conversation is a plain transcript then.",
        )
    if which == "plain" or not has_template:
        yield PlainForm(tokenizer)
        return
    with ChatTemplate(tokenizer, _ADVICE) as template:
        yield TemplateForm(tokenizer, template, preamble)
