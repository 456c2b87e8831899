"""A conversation with a base model.

Such a model knows no roles, so the conversation is plain text, a transcript
that the model continues:

    User: What is a prime?
    Assistant: A number with two divisors.
    User: Name one.
    Assistant:

Each answer ends where the model begins a line of the user's.  The context is
shared: an answer gets at most half of it, the conversation so far the rest.
What no longer fits is forgotten, oldest first, in whole turns.
"""

from __future__ import annotations

from bisect import bisect_right

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.transcript import MODEL_PREFIX, USER_PREFIX
from crystalline.infer.engine import DEFAULT_MAX_TOKENS, encode_prompt

ANSWER_STOP = "\n" + USER_PREFIX


def answer_tokens(seq_len: int, max_tokens: int | None) -> int:
    """Return the longest answer: what was asked for, else the default within half the context.

    >>> [answer_tokens(seq_len, None) for seq_len in (1, 16, 128, 1024)]
    [1, 8, 64, 200]
    >>> answer_tokens(128, 500)
    500
    """
    return max_tokens or max(1, min(DEFAULT_MAX_TOKENS, seq_len // 2))


def history_room(seq_len: int, max_tokens: int) -> int:
    """Return the tokens that a conversation may take, so that an answer has room beside it.

    A longer answer moves the context on while it is written (see `engine`), so it takes no
    more than half of it away.

    >>> history_room(128, 20), history_room(128, 500), history_room(1, 1)
    (108, 64, 1)
    """
    return max(1, seq_len - min(max_tokens, seq_len // 2))


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
        self.left_out = 0  # turns that the newest prompt had no room for

    def reset(self) -> None:
        """Forget every turn, keep the preamble."""
        self._turns.clear()
        self.left_out = 0

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

        The newest turn is always there, even where it alone needs more.  `left_out` says
        how many turns are not.

        Raises:
            DataError: text that the tokenizer cannot express.
        """

        def size(turns: int) -> int:
            return len(encode_prompt(tokenizer, self.text(turns)))

        kept = max(1, bisect_right(range(1, len(self._turns) + 1), room, key=size))
        self.left_out = len(self._turns) - kept
        return encode_prompt(tokenizer, self.text(kept))
