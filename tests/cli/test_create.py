"""`--create`: a run with nothing but its first checkpoint, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crystalline.cli import train as cli
from crystalline.formats.checkpoint import inspect_checkpoint
from tests.surroundings import TEXT, own_surroundings

_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --eval-interval 0 --save-interval 0 --workers 2 --plain --precision float32 --optimizer adam
    --weight-decay 0.01 --lr-schedule none"""
TINY = _TINY.split()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


def test_it_trains_to_the_bits_of_a_run_in_one_piece(tmp_path: Path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    argv = [str(text), *TINY, "--max-steps", "4", "--json", "--checkpoint-dir"]
    assert cli.main([*argv, str(begun), "--create"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["final_step"] == 0
    assert f"Made {begun}, untrained. Train it with: cllm-train --resume {begun}" in err
    assert "symmetry" not in err
    info = inspect_checkpoint(begun / "latest")
    assert (info.step, info.train_config["optimizer"]) == (0, "adam")
    assert cli.main(["--resume", str(begun), "--json", "--plain"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert cli.main([*argv, str(whole)]) == 0
    assert json.loads(capsys.readouterr().out)["weights_sha256"] == resumed["weights_sha256"]
    assert resumed["final_step"] == 4
    assert cli.main(["--resume", str(begun), "--create"]) == 2
    assert "--create makes a new run" in capsys.readouterr().err
