"""A figure more, as one row of the table; what shows it is printed, as JSON.

    python -m tests.train.toy_figure RUN_DIR

The row is put into the text of `crystalline.train.figures` before anybody imports it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

RUN_ROW = """    toy: Annotated[float | None, Figure("a toy", "toys", NODE_ZERO, Word("status"),
        Line("step", "toys", optional=True), cell=Cell("toys", "short"))] = None

"""
SPHERE_ROW = """    sphere_toy: Annotated[int, Figure("another", "toys", SPHERE, _OWN,
        column=Column("toy", 5, "count", 115))] = 0

"""


def _put_rows() -> None:
    spec = importlib.util.find_spec("crystalline.train.figures")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text()
    for row, before in (
        (SPHERE_ROW, "\n@dataclass(frozen=True)\nclass Activity"),
        (RUN_ROW, "\n@dataclass(frozen=True)\nclass LineFigures"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, row + before)
    module = ModuleType(spec.name)
    module.__file__ = spec.origin
    sys.modules[spec.name] = module
    exec(compile(text, spec.origin, "exec"), module.__dict__)


def main(run_dir: Path) -> None:
    """Enter a toy's values as Node Zero and a sphere do, and print where they come out."""
    _put_rows()
    import crystalline.train as package

    package.figures = sys.modules["crystalline.train.figures"]  # type: ignore[attr-defined]
    from crystalline.engine import board as b
    from crystalline.engine.board import engine_regions
    from crystalline.train.books import Books, Step
    from crystalline.train.control import Controller
    from crystalline.train.figures import document
    from crystalline.train.metrics import MetricsLog
    from crystalline.train.stats import Snapshot
    from crystalline.train.statusfile import StatusFile
    from crystalline.train.words import TrainingWords, sphere_word, training_regions
    from crystalline.ui.frame import draw_frame
    from tests.train.arenas import lone_arena
    from tests.train.engine_runs import make_spec

    spec = make_spec(run_dir)
    arena = lone_arena(engine_regions(12, 2, 3) + training_regions(12, 3))
    board, words = b.Board(arena), TrainingWords(arena)
    words.enter(toy=2.5, step=4)
    arena["spheres"][1, b.S_ID] = 1
    arena["spheres"][1, b.S_PARENT] = -1
    board.spheres.bump(1 * b.SPHERE_WORDS + sphere_word("sphere_toy"), 77)
    snapshot = Controller(spec, arena, 2).snapshot()
    StatusFile(run_dir).close(snapshot, "finished")
    status = json.loads((run_dir / "status.json").read_text())
    with MetricsLog(run_dir) as metrics:
        books = Books(board, words, spec, None)  # type: ignore[arg-type]
        books.seconds = lambda: 1.0  # type: ignore[method-assign]
        books.open(metrics)
        row = [1.0] * 8
        books.enter_step(Step(5, [row], [1.0] * 8, 0.1, 10, 0, 10, None, is_last=True))
    frame = draw_frame(snapshot, {}, width=200, height=50)
    print(
        json.dumps(
            {
                "words": words.status.tolist().count(2.5),
                "snapshot": [snapshot.toy, snapshot.spheres[0].sphere_toy],  # type: ignore[attr-defined]
                "again": Snapshot.from_json(snapshot.to_json()) == snapshot,
                "status": [status["toy"], status["spheres"][0]["sphere_toy"]],
                "metrics": json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1]),
                "dashboard": ["".join(text for text, _ in cells) for cells in frame],
                "document": [line for line in document().splitlines() if "toy" in line],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
