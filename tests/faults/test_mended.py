"""Faults that the walk has found, and that are mended: each in a run of its own."""

from __future__ import annotations

import pytest

from crystalline.errors import EXIT_FAILURE, EXIT_OK
from tests.faults.sessions import Surroundings
from tests.faults.walking import Walk
from tests.surroundings import TEXT
from tests.train.real_runs import prepare_text

pytestmark = pytest.mark.timeout(60)
FLAT = Surroundings("1", workers=3)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("walk")
    return Walk(prepare_text(folder, TEXT, "char"), folder / "runs")


def test_half_a_checkpoint_goes_with_the_node_zero_that_was_writing_it(walk: Walk) -> None:
    ended = walk.alone("checkpoint.block=kill@30/node-zero", FLAT)
    assert ended.met_last
    assert ended.left == ()


@pytest.mark.parametrize("role", ["control", "sphere"])
def test_who_is_stopped_where_it_only_obeys_is_replaced(walk: Walk, role: str) -> None:
    ended = walk.alone(f"bells.sleep=stop/{role}", Surroundings())
    assert (ended.met_last, ended.code) == (True, EXIT_OK)


def test_a_fork_that_is_refused_for_a_while_ends_no_run(walk: Walk) -> None:
    dies = Surroundings("1", workers=3, companions="barrier.worked=kill@30/sphere")
    ended = walk.alone("fork.workers=fail:EAGAIN@2/node-zero", dies)
    assert (ended.met_last, ended.code) == (True, EXIT_OK)


def test_a_sync_of_the_metrics_that_fails_ends_no_run(walk: Walk) -> None:
    ended = walk.alone("metrics.sync=fail:EIO", FLAT)
    assert (ended.met_last, ended.code) == (True, EXIT_OK)
    assert "metrics.jsonl cannot be forced to disk (Input/output error)" in ended.words


def test_a_message_that_cannot_be_sent_is_named(walk: Walk) -> None:
    ended = walk.alone("message.send=fail:ENOBUFS", FLAT)
    assert ended.code == EXIT_FAILURE
    assert "Node Zero cannot send a message to the launcher (No buffer space" in ended.words


def test_a_run_that_went_back_and_died_goes_on_from_where_it_went(walk: Walk) -> None:
    """Not from a later checkpoint, whose way there is not in the metrics any more."""
    back = Surroundings("1", workers=3, again=True, settings={"keep": 9})
    assert walk.alone("node.step=kill/node-zero", back).met_last
