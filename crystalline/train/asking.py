"""What a run answers to other processes: its status, and whether it will do what it was asked.

    {"command": "status"}  ->  {"ok": true, "state": …, "snapshot": {…}}
    {"command": "pause"}   ->  {"ok": true, "state": …, "number": 7, "told": "it will be idle …"}
                           or  {"ok": false, "state": …, "reason": …, "advice": …}
    {"command": "answer", "number": 7}
                           ->  {"ok": true, "state": …, "pending": true}
                           or  {"ok": true, "state": …, "told": …}
                           or  {"ok": false, "state": …, "reason": …, "advice": …}

Every answer says the state that the run was in when it was asked.  A request is taken at once, and
done between steps: what came of it is the answer to its number.  "again" is true where the run
cannot hear yet.  The requests are those of `engine.requests`; how lines come and go is
`engine.door`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crystalline.engine.door import Door, Peer
from crystalline.engine.requests import BY_NAME, NoRequestError, Wish
from crystalline.errors import UsageError
from crystalline.formats.files import CONTROL
from crystalline.log import get_logger
from crystalline.train.control import Controller

STATUS, ANSWER = "status", "answer"  # are no requests: they change nothing
STARTING = "starting"

logger = get_logger("train")


def open_door(run_dir: Path, controller: Callable[[], Controller | None]) -> Door | None:
    """Return the door of a run; None, and a warning, where there can be none.

    `controller` returns None until the run can be steered.
    """

    def answer(request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        return answered(controller(), request, peer)

    try:
        return Door.open(run_dir, CONTROL, answer)
    except OSError as error:
        logger.warning(
            "the run cannot be reached by other processes: %s cannot be made (%s)",
            run_dir / CONTROL,
            error.strerror,
        )
        return None


def answered(controller: Controller | None, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """Do what is asked, or say why not."""
    if controller is None:
        refusal = _refusal(STARTING, "the run is still starting", "Ask again in a moment.")
        return {**refusal, "again": True}
    state = controller.state
    command = request.get("command")
    if command == STATUS:
        history = request.get("history") is not False
        snapshot = controller.snapshot().to_json(history=history)
        return {"ok": True, "state": snapshot["state"], "snapshot": snapshot}
    if command == ANSWER:
        return _outcome(controller, request.get("number"))
    try:
        wish = Wish.of_json(request)
        number = controller.ask(wish, peer.pid, peer.uid)
    except NoRequestError as error:
        return _refusal(state, str(error), "")
    except UsageError as error:
        return _refusal(state, error.message, error.advice)
    logger.info("process %d asked the run to %s", peer.pid, _in_words(wish, controller.workers))
    return {"ok": True, "state": state, "number": number, "told": BY_NAME[wish.name].done}


def _outcome(controller: Controller, number: object) -> dict[str, Any]:
    """Say what came of the request of that number."""
    state = controller.state
    try:
        if type(number) is not int:
            raise KeyError(number)
        answer = controller.answer_to(number)
    except KeyError:
        return _refusal(state, "no request of that number is known", "")
    if answer is None:
        return {"ok": True, "state": state, "pending": True}
    if not answer.ok:
        return _refusal(state, answer.told, answer.advice)
    return {"ok": True, "state": state, "told": answer.told}


def _refusal(state: str, reason: str, advice: str) -> dict[str, Any]:
    return {"ok": False, "state": state, "reason": reason, "advice": advice}


def _in_words(wish: Wish, workers: int) -> str:
    """Return a wish as a verb and what it takes.

    >>> _in_words(Wish("workers", "+"), 5), _in_words(Wish("checkpoint"), 5)
    ('go on with 5 workers', 'write a checkpoint')
    >>> _in_words(Wish("restore", "best"), 5), _in_words(Wish("lr-factor", 0.5), 5)
    ('restore best', 'multiply its learning rate by 0.5')
    """
    argument = wish.argument
    if isinstance(argument, tuple):
        argument = " ".join(map(str, argument))
    special = {
        "workers": f"go on with {workers} workers",
        "checkpoint": "write a checkpoint" + ("" if argument is None else f" named {argument}"),
        "lr-factor": f"multiply its learning rate by {argument}",
    }
    if wish.name in special:
        return special[wish.name]
    return wish.name if argument is None else f"{wish.name} {argument}"
