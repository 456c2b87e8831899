"""How much memory a run takes: every page counted once, over all processes."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.commands import training, words

SYMBOLS = (
    "abcdefghijklmnopqrstuvwxyzäöüß0123456789"  # and their capitals, space, full stop, newline
)
LIMIT_MB = 400


def pss_mb(process: psutil.Process) -> float:
    """Return a process's share of the memory: its own pages, and its part of shared ones."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not tell")


@pytest.mark.timeout(90)
def test_twelve_spheres_at_character_level_take_less_than_400_mb(tmp_path: Path) -> None:
    """4 layers, 4 heads, 128 channels, context 64, batch 12 on a text of a megabyte."""
    text = tmp_path / "text.txt"
    text.write_text(words(1_000_000, symbols=SYMBOLS))
    assert 62 <= len(set(text.read_text())) <= 80
    with training(
        text, "--tokenizer=char", "--num-layers=4", "--num-heads=4", "--embed-dim=128",
        "--seq-len=64", "--batch-size=12", "--max-steps=2000", "--eval-interval=100",
        "--save-interval=100", "--log-interval=1", "--workers=12", "--checkpoint-dir=run",
        run_dir=tmp_path / "run", cwd=tmp_path,
    ) as it:  # fmt: skip
        most: dict[str, float] = {}
        it.wait_for_step(90)
        while it.step() < 320:  # evaluations and checkpoints are in between
            now = {"launcher": pss_mb(psutil.Process(it.process.pid))}
            now["Node Zero"] = pss_mb(it.node_zero)
            now["12 spheres"] = sum(map(pss_mb, it.spheres()))
            if sum(now.values()) > sum(most.values()):
                most = now
            time.sleep(0.05)
        assert len(it.spheres()) == 12
        it.process.terminate()
        assert it.end()[0] == 143
        it.assert_all_gone()
    print("memory:", ", ".join(f"{name} {mb:.0f} MB" for name, mb in most.items()))
    assert sum(most.values()) < LIMIT_MB
