"""A run as Python holds it: where it is, what it measured, how it ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalline.formats.checkpoint import CheckpointInfo
    from crystalline.train.spec import RunResult


class Run:
    """A run directory, and how its last session ended where that was in this process.

    `Run("runs/NAME")` is any run that was trained before.  What it says is read from its files
    when it is asked for, so a run that still trains elsewhere can be watched.  It is
    path-like: whatever takes a path takes a run.
    """

    def __init__(self, path: str | os.PathLike[str], result: RunResult | None = None) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are
        self.result = result  # of the session that made this object

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Run):
            return NotImplemented
        return (self.path, self.result) == (other.path, other.result)

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def latest(self) -> Path | None:
        """The newest checkpoint; None before there is one."""
        from crystalline.formats.checkpoint import latest_checkpoint

        return latest_checkpoint(self.path)

    @property
    def best(self) -> Path | None:
        """The checkpoint with the lowest validation loss; None before there is one."""
        from crystalline.formats.checkpoint import BEST, pointer

        return pointer(self.path, BEST)

    @property
    def step(self) -> int:
        """Optimizer steps done, as far as they are saved."""
        if self.result is not None:
            return self.result.final_step
        return 0 if self.latest is None else self._info().step

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its newest checkpoint, resolved: by field of `TrainConfig`."""
        return dict(self._info().train_config)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first; see `crystalline.train.metrics`."""
        from crystalline.formats.files import METRICS
        from crystalline.train.metrics import read_metrics

        path = self.path / METRICS
        return read_metrics(path) if path.exists() else []

    @property
    def losses(self) -> list[tuple[int, float]]:
        """The training losses that were logged: (step, nats per token)."""
        return self._series("loss")

    @property
    def val_losses(self) -> list[tuple[int, float]]:
        """The losses of the evaluations: (step, nats per token)."""
        return self._series("val_loss")

    @property
    def stop_reason(self) -> str | None:
        """Why its session ended: "finished", "time", "patience" or "stopped"; None if elsewhere."""
        return None if self.result is None else self.result.stop_reason

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights, or of the adapters, that it trains: equal for equal bits.

        Raises:
            CheckpointError: there is no checkpoint yet, or it is damaged.
        """
        from crystalline.formats.checkpoint import LATEST, resolve, trained_sha256

        if self.result is not None:
            return self.result.weights_sha256
        return trained_sha256(resolve(self.path, LATEST))

    def _info(self) -> CheckpointInfo:
        from crystalline.formats.checkpoint import LATEST, inspect_checkpoint, resolve

        return inspect_checkpoint(resolve(self.path, LATEST), verify=False)

    def _series(self, name: str) -> list[tuple[int, float]]:
        return [(line["step"], line[name]) for line in self.metrics if name in line]
