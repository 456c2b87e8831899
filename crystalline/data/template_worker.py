"""The process that renders a chat template: see `chat_template`.

Standard input has a line of JSON with the template and the names of special tokens, then one
for each conversation: its messages, and whether the model is asked for the next one.  Standard
output gets a line when the template is compiled, and then one for each conversation: its text and
the spans of the model's turns (none where it is asked), or that the template refuses it
("refused"), or that it cannot be used at all ("fault").

Where the model's turns are is told by the template's `{% generation %}` blocks, as in
transformers.  One without shows it by what it makes of the conversation up to a turn, with the
mark that asks for an answer, and with the turn; where it has no such mark, or that does not begin
the whole because the template leaves out or adds something later, by the content of the message
in the text.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

MEMORY_BYTES = 2 << 30  # of addresses
CPU_S = 24 * 3600  # of all conversations; each has a limit of its own at the other end

# Noncharacters, which are for the inside of programs: they mark what a generation block holds.
FIRST, LAST = "\ufdd0", "\ufdd1"

# What a template's own code raises for messages that it does not expect.
_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)

Message = dict[str, Any]


class Template:
    """A compiled template, in a sandbox."""

    def __init__(self, source: str, tokens: dict[str, str], ends: list[str]) -> None:
        """Raises `jinja2.TemplateError`."""
        from jinja2.ext import Extension, loopcontrols
        from jinja2.nodes import CallBlock
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """The tag `generation`, which changes nothing but leaves marks."""

            tags = {"generation"}  # noqa: RUF012 - as Jinja asks for it

            def parse(self, parser: Any) -> Any:
                line = next(parser.stream).lineno
                body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
                call = self.call_method("_marked", [])
                return CallBlock(call, [], [], body).set_lineno(line)

            def _marked(self, caller: Any) -> str:
                return f"{FIRST}{caller()}{LAST}"

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source)
        self._tokens = tokens
        self._ends = [end for end in ends if end]
        self._marks = "endgeneration" in source

    def conversation(self, messages: list[Message]) -> dict[str, Any]:
        """Return the text of a conversation, and the spans of the model's turns."""
        whole = self._render(messages)
        if self._marks:
            return _unmarked(whole)
        spans = []
        at = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            found = self._turn(messages, number, whole, at)
            if found is not None:
                spans.append(found)
                at = found[1]
        return {"text": whole, "spans": spans}

    def prompt(self, messages: list[Message]) -> dict[str, Any]:
        """Return the text after which the model's next turn begins."""
        return _unmarked(self._render(messages, ask=True)) | {"spans": []}

    def _turn(
        self, messages: list[Message], number: int, whole: str, at: int
    ) -> tuple[int, int] | None:
        """Return the span of a turn in the whole, not before `at`; None where it is left out."""
        head = self._begins(messages[:number], whole, ask=True)
        turn = self._begins(messages[: number + 1], whole, ask=False)
        content = messages[number]["content"].strip()
        if head is not None and turn is not None and at <= len(head) < len(turn):
            first = len(head)
            if head == self._begins(messages[:number], whole, ask=False):  # it marks no answers
                first = max(first, whole.find(content, first, len(turn)))
            return first, len(turn.rstrip())
        first = whole.find(content, max(at, len(head or ""))) if content else -1
        if first < 0:
            return None
        last = first + len(content)
        for end in self._ends:  # the turn ends with its mark, which may stand behind white space
            behind = whole[last:]
            if behind.lstrip().startswith(end):
                return first, last + len(behind) - len(behind.lstrip()) + len(end)
        return first, last

    def _begins(self, messages: list[Message], whole: str, *, ask: bool) -> str | None:
        """Return what a part of the conversation becomes, if the whole begins with it."""
        from jinja2 import TemplateError

        try:
            text = self._render(messages, ask=ask)
        except (TemplateError, *_FAULTS):
            return None  # not every part of a conversation is one
        return text if whole.startswith(text) else None

    def _render(self, messages: list[Message], *, ask: bool = False) -> str:
        return self._template.render(
            messages=messages, add_generation_prompt=ask, tools=None, documents=None, **self._tokens
        )


def _unmarked(text: str) -> dict[str, Any]:
    """Take the marks out of a text."""
    parts, spans, size = [], [], 0
    for number, piece in enumerate(text.split(FIRST)):
        inside, _, outside = piece.partition(LAST) if number else ("", "", piece)
        if inside:
            spans.append((size, size + len(inside)))
        parts += [inside, outside]
        size += len(inside) + len(outside)
    return {"text": "".join(parts), "spans": spans}


def _clean(value: Any) -> Any:
    """Take our marks out of what a conversation says."""
    if isinstance(value, str):
        return value.replace(FIRST, "\ufffd").replace(LAST, "\ufffd")
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return value


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
    sort_keys: bool = False,
) -> str:  # fmt: skip
    """Write JSON without the escapes of HTML, as transformers does."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: Any) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(str(message))


def answer(template: Template, line: str) -> dict[str, Any]:
    """Return what a line with messages becomes."""
    from jinja2 import TemplateError

    try:
        asked = json.loads(line)
        render = template.prompt if asked["ask"] else template.conversation
        return render(_clean(asked["messages"]))
    except MemoryError:
        return {"fault": "it needs too much memory"}
    except RecursionError:
        return {"fault": "it is nested too deeply"}
    except (TemplateError, *_FAULTS) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    """Serve until standard input ends."""
    for name, limit in (("RLIMIT_AS", MEMORY_BYTES), ("RLIMIT_CPU", CPU_S), ("RLIMIT_FSIZE", 0)):
        resource.setrlimit(getattr(resource, name), (limit, limit))
    setting = json.loads(sys.stdin.readline())
    fault: dict[str, Any] | None = None
    try:
        from jinja2 import TemplateError

        template = Template(setting["template"], setting["tokens"], setting["ends"])
    except ImportError:
        fault = {"fault": "jinja2, which renders it, is not installed"}
    except (TemplateError, MemoryError, RecursionError) as error:
        fault = {"fault": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(fault or {}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(template, line)), flush=True)
