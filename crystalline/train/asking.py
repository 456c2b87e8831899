"""What a run answers to other processes: its status, and whether it will do what it was asked.

    {"command": "status"}  ->  {"ok": true, "state": …, "snapshot": {…}}
    {"command": "pause"}   ->  {"ok": true, "state": …, "told": "it will be idle after …"}
                           or  {"ok": false, "state": …, "reason": …, "advice": …}

Every answer says the state that the run was in when it was asked.  The requests are those of
`engine.requests`; how lines come and go is `engine.door`'s affair.
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

STATUS = "status"  # is no request: it changes nothing
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
        return _refusal(STARTING, "the run is still starting", "Ask again in a moment.")
    state = controller.state
    if request.get("command") == STATUS:
        history = request.get("history") is not False
        snapshot = controller.snapshot().to_json(history=history)
        return {"ok": True, "state": snapshot["state"], "snapshot": snapshot}
    try:
        wish = Wish.of_json(request)
        controller.ask(wish)
    except NoRequestError as error:
        return _refusal(state, str(error), "")
    except UsageError as error:
        return _refusal(state, error.message, error.advice)
    logger.info("process %d asked the run to %s", peer.pid, _in_words(wish, controller.workers))
    return {"ok": True, "state": state, "told": BY_NAME[wish.name].done}


def _refusal(state: str, reason: str, advice: str) -> dict[str, Any]:
    return {"ok": False, "state": state, "reason": reason, "advice": advice}


def _in_words(wish: Wish, workers: int) -> str:
    """Return a wish as a verb and what it takes.

    >>> _in_words(Wish("workers", "+"), 5), _in_words(Wish("checkpoint"), 5)
    ('go on with 5 workers', 'write a checkpoint')
    """
    if wish.name == "workers":
        return f"go on with {workers} workers"
    return "write a checkpoint" if wish.name == "checkpoint" else wish.name
