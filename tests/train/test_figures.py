"""The table of figures: a row is all that a new one takes, and all faces of a run follow it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from crystalline.engine import board
from crystalline.train import figures
from crystalline.train.figures import Activity, LineFigures, RunFigures, SphereStats, figures_of
from crystalline.train.words import (
    COUNT_WORDS,
    COUNTED,
    MEASURED,
    SAVER_PID,
    SPHERE_OWN,
    STATUS_WORDS,
)
from crystalline.ui import format as fmt

ROOT = Path(__file__).resolve().parents[2]
TABLE = (RunFigures, SphereStats, Activity, LineFigures)


def test_every_field_has_a_row() -> None:
    for kind in TABLE:
        assert list(figures_of(kind)) == list(kind.__dataclass_fields__)


def test_rows_name_what_there_is() -> None:
    for kind in TABLE:
        for name, figure in figures_of(kind).items():
            assert figure.help, name
            assert not figure.help.endswith("."), name
            for word in figure.word.engine if figure.word else ():
                assert isinstance(getattr(board, word), int), name
            for look in (figure.column, figure.cell):
                assert look is None or callable(getattr(fmt, look.write)), name


def test_words_of_figures_fit_their_regions() -> None:
    assert SAVER_PID < COUNT_WORDS
    assert len(MEASURED) <= STATUS_WORDS
    assert len(SPHERE_OWN) + board.S_PROGRAM <= board.SPHERE_WORDS
    assert not set(COUNTED) & set(MEASURED)


def test_places_of_cells_and_columns_are_taken_once() -> None:
    for attribute in ("cell", "column"):
        found = [look.place for _, _, look in figures.shown(attribute, *TABLE)]
        assert len(set(found)) == len(found)


def test_a_figure_is_one_row(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.train.toy_figure", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    toy = json.loads(told.stdout)
    assert toy["words"] == 1
    assert toy["snapshot"] == toy["status"] == [2.5, 77]
    assert toy["again"]
    assert toy["metrics"]["toys"] == 2.5
    assert list(toy["metrics"])[:3] == ["step", "loss", "lr"]
    dashboard = "\n".join(toy["dashboard"])
    assert "toys" in dashboard
    assert "2.50" in dashboard
    header = next(line for line in toy["dashboard"] if " toy " in line)
    row = toy["dashboard"][toy["dashboard"].index(header) + 1]
    assert row[: header.index(" toy ") + 4].split()[-1] == "77"
    assert len(toy["document"]) == 2


def test_the_page_of_figures_is_up_to_date() -> None:
    page = (ROOT / "docs" / "FIGURES.md").read_text(encoding="utf-8")
    assert page == figures.document(), "write it anew: python -m crystalline.train.figures"
