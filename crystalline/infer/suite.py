"""Prompts with answers, to see what a model can do: the built-in ones, and those of a file.

A file has JSON lines: {"group": "code", "prompt": "Write a ...", "answer": "def ..."}.  The group
is any name; texts of the group "code" are looked at as Python.  An answer is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalline.data.decoding import plain
from crystalline.errors import DataError
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import SUITE

CODE = "code"
QUESTIONS = "questions"
TEXT_TOKENS = 128  # of the longest text to a prompt, where nobody says


@dataclass(frozen=True)
class Question:
    """A prompt, as the model gets it, and what would be a good text after it."""

    group: str
    prompt: str
    answer: str = ""  # "": none is given
    line: int = 0  # of the file, from 1


def _code(task: str, answer: str) -> Question:
    return Question(CODE, task + "\n", answer)


def _question(question: str, answer: str) -> Question:
    return Question(QUESTIONS, question + "\n", answer)


BUILT_IN = (
    _code(
        "Write a function to calculate fibonacci",
        "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
        "    return a\n",
    ),
    _code(
        "Write a function to calculate the factorial of a number",
        "def factorial(n):\n    result = 1\n    for i in range(2, n + 1):\n        result *= i\n"
        "    return result\n",
    ),
    _code(
        "Write a function that tells whether a number is prime",
        "def is_prime(n):\n    if n < 2:\n        return False\n    i = 2\n    while i * i <= n:\n"
        "        if n % i == 0:\n            return False\n        i += 1\n    return True\n",
    ),
    _code(
        "Write a function to reverse a string",
        "def reverse(text):\n    return text[::-1]\n",
    ),
    _code(
        "Write a function to compute the greatest common divisor of two numbers",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n",
    ),
    _code(
        "Write a function that counts the words in a file",
        "def count_words(path):\n    with open(path) as file:\n"
        "        return len(file.read().split())\n",
    ),
    _code(
        "Write a function for binary search in a sorted list",
        "def binary_search(items, wanted):\n    low, high = 0, len(items)\n    while low < high:\n"
        "        middle = (low + high) // 2\n        if items[middle] < wanted:\n"
        "            low = middle + 1\n        else:\n            high = middle\n    return low\n",
    ),
    _code(
        "Write a class for a stack",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n"
        "    def push(self, item):\n        self.items.append(item)\n\n"
        "    def pop(self):\n        return self.items.pop()\n",
    ),
    _question(
        "What is the Crystalline CLLM system?",
        "Crystalline is a system that trains and runs small language models on ordinary CPUs.",
    ),
    _question(
        "What is a language model?",
        "A language model is a program that predicts the next word of a text.",
    ),
    _question(
        "What is a prime number?",
        "A prime number is a number greater than one that only one and itself divide.",
    ),
    _question(
        "What is a token?",
        "A token is a piece of text, such as a word or a part of a word.",
    ),
    _question(
        "What does training a model mean?",
        "Training changes the weights of a model step by step, so that its loss falls.",
    ),
    _question(
        "Why is the sky blue?",
        "The sky is blue because air scatters blue light more than red light.",
    ),
    _question(
        "What is a file?",
        "A file is a sequence of bytes that is kept on a disk under a name.",
    ),
    _question(
        "How many days are in a week?",
        "There are seven days in a week.",
    ),
)


def read_questions(name: str | None) -> list[Question]:
    """Return the questions of a file, or those that are built in.

    Raises:
        DataError: a file that cannot be read, or a line that is no question.
    """
    from crystalline.data.corpus import read_lines

    return list(BUILT_IN) if name is None else read_suite(read_lines(name, SUITE), shown(name))


def read_suite(text: str, name: str) -> list[Question]:
    """Return the questions of a file's text; `name` is what messages call it.

    Raises:
        DataError: no question at all, or a line that is none; it names the line.
    """
    questions = []
    for number, line in enumerate(plain(text).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = SUITE.of(line.encode())
            unknown = sorted(set(found) - {"group", "prompt", "answer", "id"})
            if unknown:
                raise BadContent(f"{shown(repr(unknown[0]), 60)} is not among its fields")
        except BadContent as error:
            raise DataError(
                f"line {number} of {name} is no question: {error}",
                advice='Write JSON lines as {"group": "code", "prompt": "...", "answer": "..."}.',
            ) from None
        answer = plain(found.get("answer") or "")
        questions.append(Question(found["group"], plain(found["prompt"]), answer, number))
    if not questions:
        raise DataError(f"{name} has no questions", advice="Write one on each line.")
    return questions
