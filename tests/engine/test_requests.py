"""The table of requests: what keys, callbacks and the socket may ask for, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from crystalline.engine.requests import BY_NAME, REQUESTS, NoRequestError, Wish
from crystalline.ui.keys import ACTIONS, HELP, TREE


@pytest.mark.parametrize(
    "word",
    ["pause", "resume", "checkpoint", "stop", "workers=7", "workers+", "checkpoint=a-b_c.1",
     "restore=500", "restore=best", "lr-factor=0.5", "lr-factor=0.0001", "spawn=3,4",
     "terminate=0", "profile=50"],
)  # fmt: skip
def test_words_and_json_lead_there_and_back(word: str) -> None:
    wish = Wish.of_word(word)
    assert str(wish) == word
    assert Wish.of_json(wish.to_json()) == wish


def test_every_row_can_be_asked_for() -> None:
    examples = {
        "workers": 3, "restore": "3", "lr-factor": 3, "spawn": (3, 3), "terminate": 3,
        "profile": 3,
    }  # fmt: skip
    for request in REQUESTS:
        assert Wish(request.name, examples.get(request.name)).name == request.name


def test_keys_are_requests_or_help() -> None:
    assert {
        Wish.of_word(word).name for word in ACTIONS.values() if word not in (HELP, TREE)
    } <= BY_NAME.keys()


@pytest.mark.parametrize(
    "word", ["", "dance", "pause=3", "pause+", "workers", "workers=", "workers=x", "workers=-1",
             "workers=²", "workers=99999999999", "+", "workers++", "checkpoint=", "checkpoint=a/b",
             "checkpoint=é", "checkpoint=" + "x" * 65, "restore", "restore=", "lr-factor",
             "lr-factor=", "lr-factor=nan", "lr-factor=inf", "lr-factor=-1", "lr-factor=1e9",
             "lr-factor+", "spawn=3", "spawn=3,4,5", "spawn=3,x", "spawn=,", "terminate=+",
             "terminate=-1", "profile", "profile=x", "start=1", "pause="],
)  # fmt: skip
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(NoRequestError):
        Wish.of_word(word)


@pytest.mark.parametrize(
    "line",
    [
        {}, {"command": None}, {"command": 3}, {"command": ["pause"]}, {"command": "x" * 10_000},
        {"command": "workers"}, {"command": "workers", "argument": 1.5},
        {"command": "workers", "argument": True}, {"command": "workers", "argument": [1]},
        {"command": "workers", "argument": 10**300}, {"command": "workers", "argument": -1},
        {"command": "workers", "argument": "7"}, {"command": "pause", "argument": 1},
        {"command": "checkpoint", "argument": 5}, {"command": "checkpoint", "argument": "a\nb"},
        {"command": "lr-factor", "argument": "0.5"}, {"command": "lr-factor", "argument": True},
        {"command": "lr-factor", "argument": float("nan")}, {"command": "spawn", "argument": 3},
        {"command": "spawn", "argument": [1]}, {"command": "spawn", "argument": [1, 2, 3]},
        {"command": "spawn", "argument": [[1], 2]}, {"command": "pause", "argument": {}},
        {"command": "restore", "argument": ["a"] * 9999},
    ],
)  # fmt: skip
def test_other_lines_are_refused(line: dict[str, Any]) -> None:
    with pytest.raises(NoRequestError) as caught:
        Wish.of_json(line)
    assert len(str(caught.value)) < 200
