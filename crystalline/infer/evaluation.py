"""What a model makes of a suite of questions: how likely the answers are, and how its texts are.

For each group of questions:

    perplexity      of the given answers, each after its prompt; also in bits per byte
    distinct 1, 2   different words, and pairs of words, as a share of all in a text; a text
                    that repeats itself has few.  The mean over the texts
    parses          the share of texts that are Python, of the group "code"
    tokens, chars   the mean length of a text

All questions are worked on together, and the seed of a text is that of the settings plus the
index of its question, so the figures are a function of model, suite and settings.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, DataError
from crystalline.infer.engine import Generation, GenerationSettings, encode_prompt, encode_text
from crystalline.infer.perplexity import windows
from crystalline.infer.sampling import MAX_SEED
from crystalline.infer.scheduler import Scheduler, Scoring, Work
from crystalline.infer.suite import CODE, Question

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LONGEST_SOURCE = 100_000  # characters; what is longer is not given to the parser


@dataclass
class GroupReport:
    """The figures of one group; None where nothing could be measured."""

    name: str
    questions: int = 0
    left_out: int = 0  # that the tokenizer cannot express
    perplexity: float | None = None
    nats_per_token: float | None = None
    bits_per_byte: float | None = None
    distinct_1: float | None = None
    distinct_2: float | None = None
    parses: float | None = None
    tokens: float | None = None
    chars: float | None = None
    finish_reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class _Answer:
    """The text to a question, and how likely the given answer is."""

    question: Question
    text: Generation
    answer_tokens: int = 0
    nats: list[float] = field(default_factory=list)  # of the answer's tokens and those before


def evaluate(
    scheduler: Scheduler,
    tokenizer: Tokenizer,
    suite: Sequence[Question],
    settings: GenerationSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[GroupReport]:
    """Return the figures of each group, in the order of the suite.

    `progress` is told (work done, all work).

    Raises:
        DataError: no question that the tokenizer can express.
        CheckpointError: a damaged model, of which the logits are no numbers.
    """
    reports = {question.group: GroupReport(question.group) for question in suite}
    answers: list[_Answer] = []
    work: list[Work] = []
    for index, question in enumerate(suite):
        try:
            prompt = encode_prompt(tokenizer, question.prompt)
            answer = encode_text(tokenizer, question.answer) if question.answer else []
        except DataError:
            reports[question.group].left_out += 1
            continue
        seed = (settings.sampling.seed + index) % (MAX_SEED + 1)
        own = replace(settings, sampling=replace(settings.sampling, seed=seed))
        answers.append(_Answer(question, Generation(tokenizer, prompt, own), len(answer)))
        work.append(answers[-1].text)
        if answer:
            work.append(_scoring(answers[-1], prompt, answer, scheduler.seq_len))
    if not answers:
        raise DataError(
            f"a {tokenizer.kind} tokenizer can express none of the {len(suite):,} questions",
            advice="Name a suite of questions in the model's own characters.",
        )
    try:
        for each in work:
            scheduler.submit(each)
        for each in work:  # all come on together: most are done before it is their turn
            scheduler.finish(each)
            if progress is not None:
                progress(sum(other.done for other in work), len(work))
    finally:
        for each in work:
            scheduler.cancel(each)
    for name, report in reports.items():
        _fill(report, [answer for answer in answers if answer.question.group == name])
    return list(reports.values())


def parses(text: str, finish_reason: str) -> bool:
    r"""Return whether a text is Python that does something.

    Of a text with a fenced block, that block counts.  Where the text was cut off, its last line
    does not.  Names and constants alone, as plain words may parse, are not enough.

    >>> parses("def f():\n    return 1\n", "eot"), parses("the number", "eot"), parses("a", "eot")
    (True, False, False)
    >>> parses("Here it is:\n```python\nx = 1\n```\nDone.", "eot"), parses("x = 1\ny = (", "length")
    (True, True)
    """
    fenced = _FENCED.search(text)
    source = fenced[1] if fenced else text
    if finish_reason == "length" and not fenced:
        source = source.rpartition("\n")[0]
    if len(source) > _LONGEST_SOURCE:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with odd escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Name, ast.Constant)))
        for node in tree.body
    )


def distinct(text: str, n: int) -> float | None:
    """Return the different sequences of n words as a share of all; None where there are none.

    >>> distinct("a b a b", 1), distinct("a b a b", 2), distinct("a", 2)
    (0.5, 0.6666666666666666, None)
    """
    words = text.split()
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def _scoring(found: _Answer, prompt: list[int], answer: list[int], seq_len: int) -> Scoring:
    """Return the measurement of an answer after as much of its prompt as the context holds."""
    room = seq_len + 1 - len(answer) if len(answer) <= seq_len else seq_len // 2
    tokens = np.array([*prompt[-max(1, room) :], *answer], dtype=np.int32)

    def take(part: npt.NDArray[np.float64]) -> None:
        found.nats += part.tolist()

    return Scoring(windows(tokens, seq_len), take)


def _fill(report: GroupReport, answers: list[_Answer]) -> None:
    report.questions = len(answers) + report.left_out
    if not answers:
        return
    texts = [answer.text for answer in answers]
    _fill_likelihood(report, [answer for answer in answers if answer.answer_tokens])
    report.distinct_1 = _mean(distinct(text.text, 1) for text in texts)
    report.distinct_2 = _mean(distinct(text.text, 2) for text in texts)
    if report.name == CODE:
        report.parses = _mean(float(parses(text.text, text.finish_reason)) for text in texts)
    report.tokens = _mean(float(len(text.tokens)) for text in texts)
    report.chars = _mean(float(len(text.text)) for text in texts)
    report.finish_reasons = dict(Counter(text.finish_reason for text in texts))


def _fill_likelihood(report: GroupReport, answers: list[_Answer]) -> None:
    tokens = sum(answer.answer_tokens for answer in answers)
    if not tokens:
        return
    nats = math.fsum(n for answer in answers for n in answer.nats[-answer.answer_tokens :])
    if not math.isfinite(nats):
        raise CheckpointError(
            "the model's loss on the answers is not a number",
            advice="Its weights are damaged or its training diverged; use an earlier checkpoint.",
        )
    size_bytes = sum(len(answer.question.answer.encode()) for answer in answers)
    report.nats_per_token = nats / tokens
    report.perplexity = math.exp(report.nats_per_token) if report.nats_per_token < 700 else None
    report.bits_per_byte = nats / math.log(2) / size_bytes


def _mean(values: Iterator[float] | Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
