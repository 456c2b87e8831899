"""Messages along the tree: who hears what, and that nothing depends on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline.engine import board as b
from crystalline.engine.board import Board, engine_regions
from crystalline.engine.geometry import siblings_in_contact
from crystalline.engine.mail import Mail
from crystalline.engine.shape import NODE_ZERO
from crystalline.engine.tree import CONTROL, LEAF, Tree
from crystalline.ipc.arena import Arena, Layout
from crystalline.ipc.mailbox import Kind, Message, counters
from tests.engine.toy import expected

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(60)

LOSING = """
import sys
from crystalline.ipc.mailbox import Post
from tests.engine import toy
Post.send = lambda *_, **__: False
toy.main("3+9,13,12+40", 2, 6, 3, 6)
"""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(Arena.create(Layout(engine_regions(1, 1, 64)), tmp_path))


def heard(mail: Mail) -> list[Message]:
    found: list[Message] = []
    mail.read(found.append)
    return found


def test_hello_goes_to_the_parent_and_to_siblings_in_contact(board: Board) -> None:
    tree = Tree(board)
    control = tree.take(NODE_ZERO, 3)
    rows = [tree.take(control, place) for place in range(12)]
    for row in (control, *rows):
        tree.become(row, CONTROL)
    mails = {row: Mail(board, row) for row in (NODE_ZERO, control, *rows)}
    mails[rows[5]].say_hello()
    near = {rows[place] for place in siblings_in_contact(5)}
    for row, mail in mails.items():
        messages = heard(mail)
        assert len(messages) == (row == control or row in near)
        for message in messages:
            assert (message.kind, message.payload[:3]) == (Kind.HELLO, (rows[5], 2, 5))
    assert counters(board.mail, rows[5]).sent == 5
    for row in near:  # a leaf is told nothing
        tree.become(row, LEAF)
    mails[rows[5]].say_hello()
    assert [row for row, mail in mails.items() if heard(mail)] == [control]


def test_what_followed_an_order_reaches_node_zero_through_all_levels(board: Board) -> None:
    tree = Tree(board)
    top = tree.take(NODE_ZERO, 1)
    middle = tree.take(top, 2)
    leaf = tree.take(middle, 7)
    mails = {row: Mail(board, row) for row in (NODE_ZERO, top, middle, leaf)}
    mails[leaf].tell_of_children(4, 11)
    assert heard(mails[NODE_ZERO]) == []  # not yet: it goes by hands
    for row in (middle, top):
        assert len(heard(mails[row])) == 1
    (message,) = heard(mails[NODE_ZERO])
    assert (message.kind, message.sender.row) == (Kind.SPAWNED, top)
    assert message.payload[:3] == (leaf, 4, 11)


def test_mail_for_the_dead_is_not_read_by_who_follows(board: Board) -> None:
    tree = Tree(board)
    control = tree.take(NODE_ZERO, 0)
    leaf = tree.take(control, 0)
    Mail(board, leaf).tell_of_children(1, 0)
    tree.put(control, b.S_RESPAWNS, 1)
    assert heard(Mail(board, control)) == []


def test_a_run_is_right_when_every_message_is_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSING], cwd=ROOT, capture_output=True, text=True, timeout=50,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"] == expected(7)
