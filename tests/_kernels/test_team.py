"""A team of threads: barriers hold, runs end, and nothing is left when it is closed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from crystalline._kernels.team import Team, exercise
from crystalline.machine.cores import usable_cores


def names() -> list[str]:
    """Return the names of this process's threads that belong to a team."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found.append((task / "comm").read_text().strip())
        except OSError:  # it has just ended
            continue
    return [name for name in found if name.startswith("cllm-team-")]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_barriers_keep_every_member_where_it_should_be(threads: int) -> None:
    with Team(threads) as team:
        assert team.threads == threads
        for _ in range(3):
            assert exercise(team, stages=1000)[0] == 0
        for _ in range(300):  # many short runs
            assert exercise(team, stages=1)[0] == 0


def test_as_many_as_cores_where_nothing_is_said() -> None:
    with Team() as team:
        assert team.threads == usable_cores()


def test_no_thread_is_left_of_many_teams() -> None:
    before = psutil.Process().num_threads()
    for threads in (1, 2, 3, 5) * 10:
        with Team(threads) as team:
            exercise(team, stages=2)
    assert names() == []
    assert psutil.Process().num_threads() == before
    team = Team(3)
    del team  # never closed, never run
    assert names() == []


def test_the_threads_end_where_the_work_raises() -> None:
    with pytest.raises(ZeroDivisionError), Team(3) as team:
        exercise(team, stages=1)
        assert sorted(names()) == ["cllm-team-1", "cllm-team-2"]
        _ = 1 / 0
    assert names() == []
    assert threading.active_count() == 1


@pytest.mark.timeout(30)
def test_a_team_that_sleeps_wakes_for_a_run_and_for_its_end() -> None:
    team = Team(3)
    for _ in range(3):
        time.sleep(0.05)
        assert exercise(team, stages=20)[0] == 0
    time.sleep(0.05)
    team.close()
    assert names() == []


def test_idle_members_burn_nothing() -> None:
    with Team(3) as team:
        exercise(team, stages=1)
        time.sleep(0.05)
        start = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - start < 0.05


def test_a_closed_team_refuses_to_run() -> None:
    team = Team(2)
    team.close()
    team.close()
    with pytest.raises(ValueError, match="the team is closed"):
        exercise(team, stages=1)


@pytest.mark.timeout(30)
def test_one_run_at_a_time() -> None:
    with Team(2) as team:
        refusals = []

        def long_run() -> None:
            while True:
                try:
                    exercise(team, stages=30_000)
                except ValueError:  # the other thread was first
                    continue
                return

        other = threading.Thread(target=long_run)
        other.start()
        while other.is_alive():
            try:
                exercise(team, stages=0)
            except ValueError as error:
                refusals.append(str(error))
                with pytest.raises(ValueError, match="the team is at a run"):
                    team.close()
                break
        other.join(timeout=20)
        assert not other.is_alive()
        assert refusals == ["the team is at a run"]
        assert exercise(team, stages=3)[0] == 0


def test_a_fork_has_no_team() -> None:
    with Team(2) as team:
        exercise(team, stages=1)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                exercise(team, stages=1)
            except ValueError as error:
                team.close()
                with Team(2) as mine:
                    right = exercise(mine, stages=50)[0] == 0
                status = 0 if right and "after a fork" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert exercise(team, stages=1)[0] == 0


@pytest.mark.parametrize("threads", [-1, 1025])
def test_a_number_of_threads_that_cannot_be(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}, expected 0 to 1024"):
        Team(threads)
