from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

from crystalline.errors import EngineError
from crystalline.ipc.arena import SHM_DIR, Arena, Layout, Region, arena_name, sweep_stale

LAYOUT = Layout(
    [
        Region("bytes", "uint8", (3, 7)),
        Region("words", "int64", (5,)),
        Region("page", "float32", (33,), align=4096),
        Region("empty", "float64", (0, 4)),
        Region("last", "int32", (1,)),
    ]
)


def test_regions_follow_each_other_aligned() -> None:
    ends = 0
    for region in LAYOUT.regions:
        offset = LAYOUT.offset(region.name)
        assert offset % region.align == 0
        assert ends <= offset < ends + region.align
        ends = offset + region.size_bytes
    assert LAYOUT.size_bytes == ends


def test_a_layout_survives_json() -> None:
    again = Layout.from_json(LAYOUT.to_json())
    assert again.regions == LAYOUT.regions


@pytest.mark.parametrize(("regions", "match"), [
    ([Region("a", "int8", (1,)), Region("a", "int8", (2,))], "two regions are called 'a'"),
    ([Region("a", "int8", (1,), align=48)], "alignment 48"),
    ([Region("a", "int8", (1,), align=4)], "alignment 4"),
])  # fmt: skip
def test_a_wrong_table_is_refused(regions: list[Region], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Layout(regions)


def file_of(arena: Arena) -> str:
    return os.readlink(f"/proc/self/fd/{arena.descriptor}")  # noqa: PTH115 (a deleted name)


def test_two_mappings_see_the_same_memory(tmp_path: Path) -> None:
    before = set(SHM_DIR.iterdir())
    arena = Arena.create(LAYOUT, tmp_path)
    assert set(SHM_DIR.iterdir()) - before == set()
    assert file_of(arena).startswith("/dev/shm/cllm-")
    other = Arena.attach(LAYOUT, arena.descriptor)
    arena.close()
    assert not arena["words"].any()
    arena["words"][:] = [5, 6, 7, 8, 9]
    arena["page"][32] = 2.5
    assert other["words"].tolist() == [5, 6, 7, 8, 9]
    assert other["page"][32] == 2.5
    assert other["bytes"].shape == (3, 7)
    arena.close()  # once more does nothing
    with pytest.raises(ValueError, match="descriptor is closed"):
        _ = arena.descriptor


def test_neighbors_do_not_overlap(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.close()
    for number, region in enumerate(LAYOUT.regions, 1):
        arena[region.name][...] = number
    for number, region in enumerate(LAYOUT.regions, 1):
        assert (arena[region.name] == number).all()


def test_a_view_outlives_the_arena(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.close()
    view = arena["page"]
    view[:] = 3
    del arena
    assert view.sum() == 99


def test_memory_is_allocated_at_once(tmp_path: Path) -> None:
    layout = Layout([Region("much", "uint8", (3_000_000,))])
    arena = Arena.create(layout, tmp_path)
    allocated = os.fstat(arena.descriptor).st_blocks * 512
    arena.close()
    assert allocated >= 3_000_000


@pytest.mark.parametrize("full", [False, True])
def test_no_resource_tracker_is_started(tmp_path: Path, full: bool) -> None:
    """It would unlink the arena behind its users' backs, or tell of a name it does not know."""
    refusal = "raise OSError(28, 'No space left on device')"
    code = (
        "import os, sys; from pathlib import Path; from crystalline.ipc.arena import *\n"
        f"def refuse(*_): {refusal if full else 'pass'}\n"
        "truncate, os.ftruncate = os.ftruncate, lambda *a: (refuse(), truncate(*a))\n"
        "try: a = Arena.create(Layout([Region('a', 'int8', (9,))]), Path(sys.argv[1]))\n"
        "except EngineError: assert refuse.__code__.co_consts\n"
        "else: b = Arena.attach(a.layout, a.descriptor)\n"
        "from multiprocessing import resource_tracker as t\n"
        "print(t._resource_tracker._pid)\n"
    )
    before = set(SHM_DIR.iterdir())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "KeyError" not in done.stderr
    assert done.stdout == "None\n"
    assert set(SHM_DIR.iterdir()) - before == set()
    assert list(tmp_path.iterdir()) == []


def _refuse(monkeypatch: pytest.MonkeyPatch, number: int, *directories: Path) -> None:
    """Let allocations below `directories` fail with an error number."""
    allocate = os.posix_fallocate

    def refuse(descriptor: int, offset: int, size: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        if target.parent in directories:
            raise OSError(number, os.strerror(number))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EPERM])
@pytest.mark.parametrize("nameless", [True, False])
def test_what_dev_shm_refuses_becomes_a_file_in_the_run_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    nameless: bool,
) -> None:
    _refuse(monkeypatch, number, SHM_DIR)
    if not nameless:
        open_file = os.open

        def no_nameless_files(path: Path, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return open_file(path, flags, mode)

        monkeypatch.setattr(os, "open", no_nameless_files)
    before = set(SHM_DIR.iterdir())
    with caplog.at_level(logging.WARNING):
        arena = Arena.create(LAYOUT, tmp_path)
    assert f"({os.strerror(number)}); sharing memory through a file" in caplog.text
    assert file_of(arena).startswith(str(tmp_path))
    assert set(SHM_DIR.iterdir()) - before == set()
    assert list(tmp_path.iterdir()) == []
    other = Arena.attach(LAYOUT, arena.descriptor)
    arena["words"][2] = 42
    assert other["words"].tolist() == [0, 0, 42, 0, 0]
    arena.close()


def test_a_dev_shm_that_refuses_every_name_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shared_memory, "SharedMemory", read_only)
    arena = Arena.create(LAYOUT, tmp_path)
    assert file_of(arena).startswith(str(tmp_path))
    arena.close()


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "enlarge /dev/shm"), (errno.EFBIG, "ulimit -f"), (errno.ENOMEM, "ulimit -v")],
)
def test_room_nowhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    _refuse(monkeypatch, number, SHM_DIR, tmp_path)
    reason = os.strerror(number)
    pattern = rf"fit neither into /dev/shm \({reason}\) nor into .*\({reason}\)"
    with pytest.raises(EngineError, match=pattern) as caught:
        Arena.create(LAYOUT, tmp_path)
    assert advice in caught.value.advice
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_mapped_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "small").open("w+b") as file, pytest.raises(EngineError, match="be mapped"):
        Arena.attach(LAYOUT, file.fileno())


def test_an_arena_killed_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    """The name is gone before the memory is there."""
    code = (
        "import os, signal, sys; from pathlib import Path; from crystalline.ipc.arena import *\n"
        "os.posix_fallocate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Arena.create(Layout([Region('a', 'int8', (9,))]), Path(sys.argv[1]))\n"
    )
    before = set(SHM_DIR.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert set(SHM_DIR.iterdir()) - before == set()


def test_only_arenas_of_the_dead_are_swept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(done.stdout)
    alive = arena_name()
    names = {
        f".cllm-0a-{dead}-77": True,
        f"cllm-0b-{dead}-0": True,
        f"cllm-0c-{os.getpid()}-1": True,  # our pid, another process
        alive: False,
        "." + alive: False,
        "cllm-notes": False,
        "cllm-my-notes-of-today": False,
        f"other-0a-{dead}-77": False,
    }
    for name in names:
        (tmp_path / name).touch()
    # What is not a file of ours is passed over, whatever it is.
    others = {f"cllm-x-{dead}-{n}" for n in range(1, 6)}
    folder, link, pipe, stranger, listener = (tmp_path / name for name in sorted(others))
    folder.mkdir()
    link.symlink_to(tmp_path / "cllm-notes")
    os.mkfifo(pipe)
    stranger.touch()
    listener.touch(mode=0)
    if os.geteuid() == 0:
        os.chown(stranger, 65534, 65534)
    else:
        others.remove(stranger.name)
        stranger.unlink()
    others.remove(listener.name)
    names[listener.name] = True
    names |= dict.fromkeys(others, False) | {f"cllm--{dead}": False, f"cllm-x--{dead}": False}
    (tmp_path / f"cllm--{dead}").touch()
    (tmp_path / f"cllm-x--{dead}").touch()
    removed = {path.name for path in sweep_stale(tmp_path) if path.parent == tmp_path}
    assert removed == {name for name, stale in names.items() if stale}
    assert {path.name for path in tmp_path.iterdir()} == set(names) - removed


def test_nothing_to_sweep_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [
        p for p in sweep_stale(tmp_path / "gone", tmp_path / "file") if tmp_path in p.parents
    ] == []


def test_views_have_the_types_of_the_table(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.close()
    assert {r.name: arena[r.name].dtype for r in LAYOUT.regions} == {
        "bytes": np.uint8, "words": np.int64, "page": np.float32, "empty": np.float64,
        "last": np.int32,
    }  # fmt: skip
