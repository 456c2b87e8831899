"""A conversation with a base model.

Such a model knows no roles, so the conversation is plain text, a transcript
that the model continues:

    User: What is a prime?
    Assistant: A number with two divisors.
    User: Name one.
    Assistant:

Each answer ends where the model begins a line of the user's.  What no longer
fits in the context is forgotten, oldest first, in whole turns.
"""

from __future__ import annotations

from crystalline.data.tokenizer import Tokenizer
from crystalline.infer.engine import encode_prompt

USER_PREFIX = "User:"
MODEL_PREFIX = "Assistant:"
ANSWER_STOP = "\n" + USER_PREFIX


class Transcript:
    """The text of a conversation, turn by turn, after an optional preamble.

    >>> talk = Transcript("Two friends meet.")
    >>> talk.ask("Hello")
    >>> print(talk.text())
    Two friends meet.
    User: Hello
    Assistant:
    >>> talk.answer(" Good day")
    >>> talk.text().splitlines()[-1]
    'Assistant: Good day'
    """

    def __init__(self, preamble: str = "") -> None:
        self._preamble = preamble
        self._turns: list[str] = []

    def reset(self) -> None:
        """Forget every turn, keep the preamble."""
        self._turns.clear()

    def ask(self, line: str) -> None:
        """Add what the user says and the beginning of the model's turn."""
        self._turns.append(f"{USER_PREFIX} {line}\n{MODEL_PREFIX}")

    def answer(self, text: str) -> None:
        """Complete the newest turn with what the model said."""
        self._turns[-1] += text.rstrip("\n")

    def take_back(self) -> None:
        """Remove the newest turn."""
        self._turns.pop()

    def text(self, turns: int | None = None) -> str:
        """Return the preamble and the newest `turns` (default: all), one under the other."""
        kept = self._turns if turns is None else self._turns[len(self._turns) - turns :]
        return "\n".join([self._preamble] * bool(self._preamble) + kept)

    def prompt(self, tokenizer: Tokenizer, room: int) -> list[int]:
        """Return the tokens of the preamble and as many of the newest turns as `room` holds.

        The newest turn is always there, even where it alone needs more.

        Raises:
            DataError: text that the tokenizer cannot express.
        """
        for turns in range(len(self._turns), 1, -1):
            tokens = encode_prompt(tokenizer, self.text(turns))
            if len(tokens) <= room:
                return tokens
        return encode_prompt(tokenizer, self.text(1))
