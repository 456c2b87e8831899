"""What the tests of the commands share: a cache of their own, texts, and finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.commands import TINY, run, words


class Finished(NamedTuple):
    """A run that came to its end undisturbed."""

    path: Path
    arguments: tuple[str, ...]  # all but the run directory
    result: dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of some 40,000 characters."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(words(40_000))
    return path


@pytest.fixture(scope="session")
def finished(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a run of 30 steps with checkpoints at steps 10, 20 and 30; copy it to change it."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = (str(text), *TINY, "--max-steps=30", "--save-interval=10", "--eval-interval=30")
    done = run("cllm-train", *arguments, "--checkpoint-dir=run", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Finished(folder / "run", arguments, json.loads(done.stdout))
