"""cllm-control: look after a run that goes on elsewhere, by its socket RUN/control.sock.

    cllm-control RUN status
    cllm-control RUN pause
    cllm-control RUN workers 4

What may be asked is the table of `crystalline.engine.requests`; the run decides.  Answers go to
stdout, messages to stderr.
"""

from __future__ import annotations

import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.infer_view import print_json
from crystalline.cli.options import Version
from crystalline.cli.run import called, parse_settings, run_command, version_line
from crystalline.engine.requests import BY_NAME, REQUESTS, NoRequestError, Wish
from crystalline.errors import (
    EXIT_OK,
    CheckpointError,
    CrystallineError,
    EngineError,
    UsageError,
    remedy,
)
from crystalline.untrusted import shown

if TYPE_CHECKING:
    from crystalline.engine.call import Call
    from crystalline.train.stats import Snapshot

PROGRAM = "cllm-control"
STATUS, ANSWER, WATCH, TREE = "status", "answer", "watch", "tree"
_HELP = {
    STATUS: "say what it does, and how far it is",
    **{f"{request.name} {request.kind.letters}".strip(): request.help for request in REQUESTS},
    TREE: "show the tree of worker processes, as text, with --dot as a graph, with --svg as a "
    "picture; also of a run that has ended",
    WATCH: "show the dashboard until it ends, or q leaves the view",
}
_NAMES = (STATUS, *BY_NAME, TREE, WATCH)
_WIDTH = max(map(len, _HELP)) + 2


def _row(name: str, text: str) -> str:
    """Return a command and its help as lines of a terminal's width."""
    first, *others = textwrap.wrap(text, 78 - _WIDTH - 2)
    return "\n".join([f"  {name:{_WIDTH}}{first}", *(" " * (_WIDTH + 2) + t for t in others)])


_ROWS = "\n".join(_row(name, text) for name, text in _HELP.items())
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = f"""Look after a run that goes on: under nohup, as a service, on another terminal.

  cllm-control runs/NAME status
  cllm-control runs/NAME pause
  cllm-control runs/NAME workers 4
  cllm-control runs/NAME watch
  cllm-control runs/NAME tree --svg tree.svg

What can be asked:

{_ROWS}

The run decides, and answers at once; what was asked is done when the step in
  hand is. The same bits come of a run, whatever it was asked, but for restore
  and lr-factor, which are part of what it computes, and saved with it. Ending
  this command never ends the run.

Exit codes: 0 the run does it; 1 it refuses, and says why, or does not answer;
  2 the arguments cannot work; 4 there is no such run, or nobody trains in it."""

_WATCH_S = 0.5  # between two looks at a run that is watched
_ANSWER_S = 0.02  # between two looks at what came of a request
_AGAIN_S = 0.1  # between two attempts at a run that is still starting


@dataclass(frozen=True)
class Settings:
    """Every option of the command; the text under a field is its help."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """Directory of the run."""
    command: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="COMMAND", help_behavior_hint=f"(default: {STATUS})"),
    ] = STATUS
    """What to ask; see above."""
    arguments: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="[ARGUMENT ...]", help_behavior_hint="(of some commands)"),
    ] = ()
    """What the command takes: a number, a name, a checkpoint."""
    timeout: float = 10.0
    """Seconds to wait for the run's answer, and for the outcome of what may be refused, which comes
    when the step in hand is over. A busy run answers within a second; one that is stopped by Ctrl-Z
    does not."""
    plain: bool = False
    """Let watch print lines instead of the dashboard, as it does where there is no terminal."""
    dot: bool = False
    """Let tree print a graph in the language of Graphviz."""
    svg: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE", constructor=str, help_behavior_hint="(default: none)"),
    ] = None
    """Let tree write a picture into this file."""
    json: bool = False
    """Print the answer as one JSON object: of status, every figure of the run."""
    version: Version = False

    def __post_init__(self) -> None:
        if self.version:
            return
        if not self.run:
            raise UsageError(
                "no run is given",
                advice=f"Name its directory, as in: {called(PROGRAM)} runs/NAME {STATUS}.",
            )
        if self.command not in _NAMES:
            first, last = ", ".join(_NAMES[:-1]), _NAMES[-1]
            raise UsageError(
                f"'{shown(self.command)}' is not a command of {called(PROGRAM)}",
                advice=f"The commands are {first} and {last}.",
            )
        if not 0 < self.timeout <= 1e6:
            raise UsageError(f"--timeout is {self.timeout:g}", advice="It is seconds, more than 0.")
        for flag, given in (("--dot", self.dot), ("--svg", self.svg is not None)):
            if given and self.command != TREE:
                raise UsageError(
                    f"{flag} is given with the command {self.command}",
                    advice=f"Use it with {TREE}.",
                )
        self.wish()

    def wish(self) -> Wish | None:
        """Return what is asked of the run; None for what changes nothing."""
        given, request = self.arguments, BY_NAME.get(self.command)
        most = 0 if request is None else len(request.kind.letters.split())
        if len(given) > most:
            takes = "no argument" if not most else "one argument" if most == 1 else "two arguments"
            raise UsageError(
                f"{self.command} takes {takes}, and got '{shown(' '.join(given))}'",
                advice=f"See {called(PROGRAM)} --help.",
            )
        if request is None:
            return None
        word = f"{self.command}={','.join(given)}" if given else self.command
        try:
            return Wish.of_word(word)
        except NoRequestError as error:
            raise UsageError(str(error), advice=f"See {called(PROGRAM)} --help.") from None


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    settings = parse_settings(Settings, argv, program=PROGRAM, description=DESCRIPTION)
    if settings.version:
        print(version_line())
        return EXIT_OK
    if settings.command == WATCH:
        return _watch(settings)
    if settings.command == TREE:
        return _tree(settings)
    wish = settings.wish()
    with _call(settings) as call:
        answer = _asked(settings, call, {"command": STATUS} if wish is None else wish.to_json())
        if wish is not None and BY_NAME[wish.name].waits:
            answer = _outcome(settings, call, answer["number"])
    if settings.json:
        print_json(answer if wish is not None else answer["snapshot"])
    elif wish is not None:
        print(f"{shown(settings.run)}: {shown(str(answer.get('told')))}")
    else:
        print(_status(settings.run, _snapshot(answer)))
    return EXIT_OK


def _tree(settings: Settings) -> int:
    """Show the tree of a run, as it is or as it was last known."""
    from crystalline.atomic import write_text
    from crystalline.engine.picture import dot, svg
    from crystalline.train.tree import balls, tree_lines

    snapshot = _last_known(settings)
    if settings.svg is not None:
        path, title = Path(settings.svg), f"{snapshot.run_dir}, step {snapshot.step:,}"
        try:
            write_text(path, svg(balls(snapshot), title))
        except OSError as error:
            raise UsageError(
                f"--svg {shown(settings.svg)} cannot be written ({error.strerror})",
                advice=remedy(error),
            ) from None
    if settings.json:
        print_json({"spheres": snapshot.to_json(history=False)["spheres"]})
    elif settings.dot:
        print(dot(balls(snapshot)), end="")
    elif settings.svg is None:
        print("\n".join(map(shown, tree_lines(snapshot))))
    return EXIT_OK


def _last_known(settings: Settings) -> Snapshot:
    """Return what a run does now, or what its status.json says; RUN may be that file itself."""
    from crystalline.formats.files import STATUS as STATUS_NAME
    from crystalline.train.stats import Snapshot
    from crystalline.untrusted import BadContent
    from crystalline.untrusted.files import STATUS as STATUS_FILE

    run = Path(settings.run)
    path = run / STATUS_NAME
    if run.is_file():
        path = run
    else:
        try:
            with _call(settings) as call:
                return _snapshot(_asked(settings, call, {"command": STATUS, "history": False}))
        except CheckpointError:
            if not path.exists():
                raise
    try:
        return Snapshot.from_json(STATUS_FILE.read(path))
    except OSError as error:
        raise CheckpointError(
            f"{shown(str(path))} cannot be read ({error.strerror})", advice=remedy(error)
        ) from None
    except (BadContent, ValueError) as error:
        raise CheckpointError(
            f"{shown(str(path))} is no status of a run ({error})",
            advice="Name a run, or its status.json.",
        ) from None


def _watch(settings: Settings) -> int:
    """Show a run until it ends, or somebody leaves; keys are requests."""
    from crystalline.ui import make_reporter

    with _call(settings) as call:
        snapshot = _snapshot(_asked(settings, call, {"command": STATUS}))
        with make_reporter(plain=settings.plain, elsewhere=True) as reporter:
            look_at = 0.0
            while True:
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _WATCH_S
                    try:
                        answer = _asked(settings, call, {"command": STATUS})
                    except CheckpointError:  # it has ended
                        break
                    snapshot = _snapshot(answer)
                    reporter.show(snapshot)
                for word in reporter.poll():
                    wish = Wish.of_word(word)
                    if wish.name == "stop":
                        return EXIT_OK
                    if wish.name == "pause" and snapshot.state == "paused":
                        wish = Wish("resume")
                    try:
                        _asked(settings, call, wish.to_json())
                    except CrystallineError as error:  # it refuses, or has ended
                        reporter.message(str(error))
                    look_at = 0.0
                time.sleep(_AGAIN_S)
    print(f"{shown(settings.run)}: the run has ended{_end_of(Path(settings.run))}")
    return EXIT_OK


def _outcome(settings: Settings, call: Call, number: int) -> dict[str, Any]:
    """Return what came of a request, when its turn has come.  Raises `CrystallineError`."""
    deadline = time.monotonic() + settings.timeout
    while (answer := _asked(settings, call, {"command": ANSWER, "number": number})).get("pending"):
        if time.monotonic() > deadline:
            raise EngineError(
                f"the run has not come to it within {settings.timeout:g} s",
                advice="It will, when the step in hand is over; allow more time with --timeout.",
            )
        time.sleep(_ANSWER_S)
    return answer


def _asked(settings: Settings, call: Call, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a run that does what it is asked; wait while it is starting.

    Raises `CrystallineError` where it refuses.
    """
    deadline = time.monotonic() + settings.timeout
    while True:
        try:
            answer = call.ask(request)
        except OSError:
            raise CheckpointError(
                f"the run in {shown(settings.run)} has just ended",
                advice=_way_on(settings.run),
            ) from None
        except ValueError as error:
            raise EngineError(
                f"the answer of the run cannot be understood ({error})",
                advice="Use the version of this command that the run was started with.",
            ) from None
        if answer.get("ok") is True:
            return answer
        if answer.get("again") is not True or time.monotonic() > deadline:
            raise CrystallineError(
                shown(str(answer.get("reason"))), advice=shown(str(answer.get("advice", "")))
            )
        time.sleep(_AGAIN_S)


def _call(settings: Settings) -> Call:
    """Return a connection to the run.  Raises `CrystallineError` that says why there is none."""
    from crystalline.engine.call import Call
    from crystalline.formats.catalog import require_directory
    from crystalline.formats.files import CONTROL
    from crystalline.formats.rundir import trainer_of

    run = Path(settings.run)
    require_directory(run)
    try:
        return Call.open(run, CONTROL, timeout_s=settings.timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        trainer = trainer_of(run)
        if trainer is None:
            raise CheckpointError(
                f"nobody trains in {shown(settings.run)}{_end_of(run)}",
                advice=_way_on(settings.run),
            ) from None
        raise EngineError(
            f"{trainer} holds the run in {shown(settings.run)}, and cannot be reached",
            advice="It is about to start or to end, or its file system knows no sockets.",
        ) from None
    except OSError as error:
        raise EngineError(
            f"the socket of the run in {shown(settings.run)} cannot be used ({error.strerror})",
            advice=remedy(error),
        ) from None


def _end_of(run: Path) -> str:
    """Return how the run's last session ended, as far as it could say, as a clause."""
    from crystalline.formats.files import STATUS
    from crystalline.untrusted import BadContent
    from crystalline.untrusted.files import STATUS as STATUS_FILE

    try:
        told = STATUS_FILE.read(run / STATUS)
    except (OSError, BadContent):
        return ""
    if not told["over"] or not told.get("how"):
        return f"; it was killed at about step {told['step']:,}"
    return f"; it ended at step {told['step']:,}: {shown(told['how'].rstrip('.'))}"


def _way_on(run: str) -> str:
    from crystalline.formats.names import shell_word

    return f"Go on with the run by: {called('cllm-train')} --resume {shell_word(run)}."


def _snapshot(answer: dict[str, Any]) -> Snapshot:
    from crystalline.train.stats import Snapshot

    try:
        return Snapshot.from_json(answer["snapshot"])
    except (KeyError, TypeError, ValueError):
        raise EngineError(
            "the status of the run cannot be understood",
            advice="Use the version of this command that the run was started with.",
        ) from None


def _status(run: str, snapshot: Snapshot) -> str:
    """Return a run's status in a few lines."""
    from crystalline.train.stats import OK
    from crystalline.ui.plain import LASTING_S, activity_line, progress_line

    lines = [f"{shown(run)}: {snapshot.state}, {snapshot.workers} workers"]
    lines.append(progress_line(snapshot))
    if snapshot.work_share is not None or snapshot.state_s >= LASTING_S:
        lines.append(activity_line(snapshot))
    if snapshot.saving_step is not None:
        lines.append(f"saving step {snapshot.saving_step:,} meanwhile")
    if snapshot.last_checkpoint is not None:
        lines.append(f"saved {shown(Path(snapshot.last_checkpoint).name)}")
    if snapshot.health != OK:
        lines.append(f"health: {snapshot.health}: {shown('; '.join(snapshot.health_reasons))}")
    if snapshot.named_checkpoints:
        named = (f"{shown(name)} (step {step:,})" for name, step in snapshot.named_checkpoints)
        lines.append(f"kept by name: {', '.join(named)}")
    if snapshot.lr_factor != 1.0:
        lines.append(f"learning rate: the schedule's times {snapshot.lr_factor:g}")
    return "\n".join(lines)
