"""What the engine runs in a real training: model, data and checkpoints, cut into units of work.

Which windows a lane holds is a pure function of (seed, step, lane), so any sphere can compute any
lane, again if need be.  Sequence i of a step belongs to lane i mod lanes, and thereby to position
i mod 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.marks import MarkRow
from crystalline._kernels.optimizer import magnitudes
from crystalline.data.tokenfile import TokenFile
from crystalline.data.windows import gather, spread_windows, train_starts
from crystalline.errors import CheckpointError
from crystalline.formats.catalog import checkpoint_step
from crystalline.formats.checkpoint import (
    BEST,
    CHECKPOINTS,
    LATEST,
    load_checkpoint,
    move_pointer,
    pointer,
    prune,
    resolve,
    save_checkpoint,
    weights_sha256,
)
from crystalline.formats.kept import name_checkpoint, named_checkpoints
from crystalline.formats.sources import open_source
from crystalline.ipc.arena import Arena, Region
from crystalline.log import get_logger
from crystalline.model.adapters import adapter_table, initialize_adapters
from crystalline.model.merge import Merges
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import CHUNK_ROWS, Transformer
from crystalline.model.update import UNDO_WORDS, SegmentUpdate
from crystalline.train.config import TrainConfig
from crystalline.train.diagnosis import Diagnoser
from crystalline.train.examination import Examiner
from crystalline.train.protocol import Discovery, Loaded
from crystalline.train.sizing import evaluation_tokens
from crystalline.train.spec import RunSpec
from crystalline.train.sums import Leaf, Merge, choose_sums

if TYPE_CHECKING:
    from crystalline.train.crystalline import CrystalTables

_log = get_logger("train")

Marks = npt.NDArray[np.uint8]

EVALUATION_ROWS = 256  # rows of an evaluation's unit, where lanes are smaller


class TrainingProgram:
    """A model in training, or its adapters; see `train.protocol.Program` for the contract."""

    def __init__(self, spec: RunSpec) -> None:
        config = spec.config
        if spec.permits is None:
            raise ValueError("the program needs a spec whose permits are set")
        self.spec = spec
        self.adapter = config.adapter
        self.table = (  # of what is trained
            parameter_table(spec.model)
            if self.adapter is None
            else adapter_table(spec.model, self.adapter)
        )
        self._crystal = _crystal_tables(spec)
        self.tokens = TokenFile.open(spec.token_path)
        self.sequences = config.sequences_per_step
        self.tokens_per_step = config.tokens_per_step
        self.lane_count = min(config.lanes, self.sequences)
        self._segments = self.table.segments()
        self.segment_count = len(self._segments)
        self._diagnoser = Diagnoser(self.table)
        self._examiner = Examiner(self, self._diagnoser)
        self.copies = spec.save_while_training
        self._per_lane = -(-self.sequences // config.lanes)  # most sequences that a lane holds
        together = 1  # of adapters, whose gradients are small
        if self.adapter is None:
            together = lanes_per_unit(
                self.lane_count,
                spec.permits,
                self._per_lane * config.seq_len,
                Transformer.side_rows(spec.model),
            )
        self._together = together
        self.sums = choose_sums(
            self.lane_count, together, permits=spec.permits, size_bytes=4 * self.table.size,
            most_buffers=spec.sum_buffers,
        )  # fmt: skip
        leaves = [unit for unit in self.sums.units if isinstance(unit, Leaf)]
        self._buffers = [leaf.buffer for leaf in leaves for _ in leaf.lanes]
        self.heavy_lanes = self.sequences % config.lanes if self._per_lane > 1 else 0
        # Workspaces are a large part of a small model's memory: no more rows than a lane has.
        self._rows = max(self._per_lane * config.seq_len, EVALUATION_ROWS)
        windows = spread_windows(len(self.tokens.val), config.seq_len, evaluation_tokens(config))
        self._eval_units = _evaluation_units(windows, config.seq_len, self._rows)
        marks = self.tokens.val_marks
        self.eval_tokens = sum(self._counted(marks, *unit) for unit in self._eval_units)
        self.eval_units = len(self._eval_units) if self.eval_tokens else 0
        self._has_base = False  # whether the weights that adapters belong to are in the arena
        self._extremes = (0.0, 0.0)  # of the |gradient| that was looked at last
        self._step_counts = (-1, 0)  # a step, and the targets that count in it

    def regions(self) -> list[Region]:
        """Return weights, moments, gradients, panels, workspaces, undo areas and token tables.

        Where adapters are trained, moments and gradients are theirs.
        A copy of weights and moments is there for checkpoints that are written meanwhile.
        Lanes that are computed together share a buffer; what cannot be added in place goes
        through the permit's side buffer (see `Transformer.compute`).  Where sums are taken in
        place (see `sums`), the first buffer becomes the gradient.
        """
        model, size = self.spec.model, self.table.size
        permits = self.spec.permits
        assert permits is not None
        precision = self.spec.precision
        workspace = -(-self._workspace_size() // 4096) * 4096
        packed = Transformer.packed_size(model, precision, self.adapter)
        frozen = 0 if self.adapter is None else parameter_table(model).size
        buffers, merges = self.sums.buffers, self.sums.merges
        side = Transformer.side_size(model, self._rows) if self._together > 1 else 0
        return [
            Region("base", "float32", (frozen,), align=4096),
            Region("weights", "float32", (size,), align=4096, spread="nodes"),
            Region("m", "float32", (size,), align=4096, spread="nodes"),
            Region("v", "float32", (size,), align=4096, spread="nodes"),
            Region("copy", "float32", (3, size if self.copies else 0), align=4096),
            Region(
                "grads",
                "float32",
                (size if self.sums.is_direct else 0,),
                align=4096,
                spread="nodes",
            ),
            Region("lanes", "float32", (buffers, size), align=4096, spread="nodes"),
            Region("sides", "float32", (permits, side), align=4096, spread="permits"),
            Region("packed", "float32", (packed,), align=4096, spread="nodes"),
            Region("workspaces", "uint8", (permits, workspace), align=4096, spread="permits"),
            Region("undo", "int64", (permits, UNDO_WORDS), align=4096, spread="permits"),
            Region("progress", "int64", (self.segment_count,)),
            self._diagnoser.region(),
            self._examiner.region(),
            Region("merged", "int64", (merges,)),
            *(self._crystal.regions() if self._crystal else ()),
        ]

    def bind(self, arena: Arena) -> None:
        """Take the views; one model per permit, all over the same weights."""
        config = self.spec.config
        self._weights, self._m, self._v = arena["weights"], arena["m"], arena["v"]
        direct = self.sums.is_direct
        self._lanes = arena["lanes"]
        self._grads = arena["grads"] if direct else self._lanes[0]
        self._progress = arena["progress"], arena["merged"]
        self._copy = arena["copy"]  # of weights, m and v
        self._sides = arena["sides"]
        features = None
        if self._crystal:
            self._crystal.bind(arena)
            features = self._crystal.features
        size = self._workspace_size()
        self._base = self._weights if self.adapter is None else arena["base"]
        self._models = [
            Transformer(
                self.spec.model,
                self._base,
                arena["packed"],
                workspace[:size],
                precision=self.spec.precision,
                rows=self._rows,
                features=features,
                adapter=self.adapter,
                adapters=None if self.adapter is None else self._weights,
                recompute=self.spec.recompute,
            )
            for workspace in arena["workspaces"]
        ]
        for model in self._models:
            model.freeze_lambda = config.freeze_lambda
            if self._crystal:
                self._crystal.attach(model)
        self._update = SegmentUpdate(
            self._models[0], self._lanes if direct else self._lanes[:1], self._grads, self._m,
            self._v, arena["undo"], arena["progress"], group=self.sums.group,
            optimizer=config.optimizer, beta1=config.beta1, beta2=config.beta2,
            weight_decay=config.decay,
        )  # fmt: skip
        self._diagnoser.bind(arena, self._weights, self._grads, self._update)
        self._examiner.bind(arena)
        self.examine, self.culprit = self._examiner.examine, self._examiner.culprit
        self.diagnose_segment = self._diagnoser.look
        self.diagnosis = self._diagnoser.diagnosis
        self._merges = Merges(self._lanes, arena["undo"], arena["merged"])
        # The compiled doors, without a Python frame in between.
        self.reduce_segment = self._update.reduce
        self.update_segment = self._update.update
        self.recover = self._update.recover
        self.pack_segment = self._models[0].pack_segment

    def record(self, marks: MarkRow) -> None:
        """Mark there what the passes of a lane take, with whatever permit."""
        for model in self._models:
            model.record(marks)

    def _workspace_size(self) -> int:
        spec = self.spec
        return Transformer.workspace_size(
            spec.model, spec.precision, self._rows, self.adapter, spec.recompute
        )

    def initialize(self) -> None:
        """Fill weights, moments and tables for step 0."""
        spec, embeddings = self.spec, None
        if self._crystal:
            if spec.crystal_path is None:
                raise ValueError("the config uses a crystal, and the spec names none")
            self._crystal.load(spec.crystal_path)
            if spec.config.init == "lattice":
                embeddings = self._crystal.embeddings(spec.model.embed_dim)
        if self.adapter is not None:
            self._load_base()
            initialize_adapters(spec.model, self.adapter, self._weights, spec.config.seed)
        elif spec.init_from is not None:
            open_source(spec.init_from).fill(spec.model, self._weights)
        else:
            initialize(
                spec.model,
                self._weights,
                spec.config.seed,
                embeddings=embeddings,
                positions=spec.config.positions,
            )
        self._m[:] = 0.0
        self._v[:] = 0.0

    def _load_base(self) -> None:
        """Load and pack the weights that adapters are trained beside."""
        if self.spec.init_from is None:
            raise ValueError("adapters need a model, and the spec names none")
        open_source(self.spec.init_from).fill(self.spec.model, self._base)
        self._models[0].pack_frozen()
        self._has_base = True

    def load(self, checkpoint: Path) -> Loaded:
        """Read a checkpoint, and make its tables."""
        loaded = load_checkpoint(checkpoint)
        if (loaded.model_config, loaded.adapter) != (self.spec.model, self.adapter):
            raise CheckpointError(
                f"the checkpoint {checkpoint} holds another model ({loaded.model_config})",
                advice="Resume it with the settings it was made with.",
            )
        if loaded.state.get("tokens_sha256", self.tokens.sha256) != self.tokens.sha256:
            raise CheckpointError(
                f"the checkpoint {checkpoint} was trained on another text",
                advice="Resume it with the text it was trained on.",
            )
        put_tables = None
        if self._crystal:
            if loaded.crystal_path is None:
                raise CheckpointError(
                    f"the checkpoint {checkpoint} has lost the primes of its tokens",
                    advice="Resume from another checkpoint, or start a new run.",
                )
            put_tables = self._crystal.read(loaded.crystal_path)

        def put() -> None:
            self._weights[:], self._m[:], self._v[:] = loaded.weights, loaded.m, loaded.v
            for words in self._progress:  # of steps that are taken once more
                words[:] = 0
            if self.adapter is not None and not self._has_base:
                self._load_base()
            if put_tables is not None:
                put_tables()
            # Where it goes on if it is killed before it saves: its metrics end here, too.
            run_dir = self.spec.run_dir
            is_ours = checkpoint.parent == run_dir / CHECKPOINTS
            if is_ours and pointer(run_dir, LATEST) != checkpoint:
                move_pointer(run_dir, LATEST, checkpoint)

        return Loaded(loaded.state, loaded.train_config, put)

    def find(self, name: str) -> Path:
        """Return the checkpoint of this run that a step or a name means."""
        run_dir = self.spec.run_dir
        found = resolve(run_dir, name)
        if found.parent != run_dir / CHECKPOINTS:
            raise CheckpointError(
                f"the checkpoint {found} lies outside of the run {run_dir}",
                advice="Copy it into the run's folder checkpoints/.",
            )
        return found

    def copy_segment(self, segment: int) -> None:
        """Copy weights and moments of a segment."""
        part = self._segments[segment]
        place = slice(part.start, part.stop)
        for copy, source in zip(self._copy, (self._weights, self._m, self._v), strict=True):
            copy[place] = source[place]

    def save(self, state: dict[str, Any], config: TrainConfig, *, copied: bool = False) -> Path:
        """Write a checkpoint of the arena or of its copy, and prune old ones."""
        spec = self.spec
        weights, m, v = self._copy if copied else (self._weights, self._m, self._v)
        path = save_checkpoint(
            spec.run_dir,
            step=state["step"],
            model_config=spec.model,
            train_config=config,
            weights=weights,
            moments=(m, v),
            adapter=self.adapter,
            tokenizer_path=spec.tokenizer_path,
            crystal=self._crystal.to_json() if self._crystal else None,
            state={**state, "tokens_sha256": self.tokens.sha256},
            facts=spec.facts,
        )
        self._prune()
        return path

    def mark_best(self, checkpoint: Path) -> None:
        """Point `best` to a checkpoint, and prune the one that it pointed to before."""
        move_pointer(self.spec.run_dir, BEST, checkpoint)
        self._prune()

    def mark_latest(self, checkpoint: Path) -> None:
        """Point `latest` to a checkpoint."""
        move_pointer(self.spec.run_dir, LATEST, checkpoint)

    def named(self) -> dict[str, int]:
        """Return the checkpoints that were given names, as their steps."""
        named = named_checkpoints(self.spec.run_dir)
        return {name: checkpoint_step(place) for name, place in named.items()}

    def name(self, checkpoint: Path, name: str) -> None:
        """Give a checkpoint a name, by which it is found, and kept for good."""
        name_checkpoint(self.spec.run_dir, name, checkpoint)

    def _prune(self) -> None:
        """Remove old checkpoints; a failure is told, since the new one is whole all the same."""
        run_dir = self.spec.run_dir
        try:
            prune(run_dir, self.spec.config.keep)
        except (OSError, CheckpointError) as error:
            _log.warning("old checkpoints of %s cannot be removed (%s)", run_dir, error)

    def lost_file(self) -> str | None:
        """Return how much of the token file is gone, if any is."""
        return self.tokens.lost()

    def weights_sha256(self) -> str:
        """Return the hash of the weights."""
        return weights_sha256(self._weights, self.table)

    def discover(self, commit: Callable[[], None]) -> Discovery | None:
        """Find roots anew with the embeddings of now; return what changed, if anything."""
        if self._crystal is None:
            return None
        wte = self.table.views(self._weights)["transformer.wte.weight"]
        return self._crystal.discover(wte, commit)

    def merge(self, merge: Merge, permit: int, step: int) -> None:
        """Add the gradient of some lanes to that of their neighbors."""
        start, stop = merge.slice(self.table.size)
        self._merges.merge(merge.number, merge.buffer, merge.right, start, stop, permit, step)

    def recover_merge(self, merge: Merge, permit: int, step: int) -> None:
        """Undo what a dead sphere left of `merge(merge, permit, step)`."""
        start, stop = merge.slice(self.table.size)
        self._merges.recover(merge.number, merge.buffer, start, stop, permit, step)

    def compute_lane(
        self, lane: int, permit: int, step: int, epsilon: float
    ) -> tuple[float, int, float, float]:
        """Run a lane's sequences forward and backward into the lane's gradient.

        The second lane of a unit is added to the first; the norm is then that of both.
        """
        grads = self._lanes[self._buffers[lane]]
        side = self._sides[permit] if lane % self._together else None
        loss = self.compute_into(lane, permit, step, epsilon, grads, side)
        config, marks = self.spec.config, self.tokens.train_marks
        counted = (
            self.sequences_in(lane) * config.seq_len
            if marks is None
            else self._counted(marks, self.lane_starts(lane, step), config.seq_len)
        )
        norm = 0.0
        # A pass over the gradient, so only for the steps that people look at.
        if (step + 1) % config.log_interval == 0:
            squares, _, largest, smallest, _, _ = magnitudes(grads)
            norm = math.sqrt(squares)
            self._extremes = largest, smallest if math.isfinite(smallest) else 0.0
        return loss, counted, norm, self._models[permit].smoothed_loss

    def sequences_in(self, lane: int) -> int:
        """Return how many sequences a lane has in a step."""
        return len(range(lane, self.sequences, self.spec.config.lanes))

    def extremes(self) -> tuple[float, float]:
        """Return the largest |gradient| of the lane that was computed last, for a logged step, and
        the smallest above 0.
        """
        return self._extremes

    def compute_into(
        self, lane: int, permit: int, step: int, epsilon: float,
        grads: npt.NDArray[np.float32], side: npt.NDArray[np.float32] | None,
    ) -> float:  # fmt: skip
        """Run a lane forward and backward into `grads`, or on top of them through `side`."""
        config = self.spec.config
        starts = self.lane_starts(lane, step)
        tokens = gather(self.tokens.train, starts, config.seq_len)
        return self._models[permit].compute(
            tokens,
            grads,
            scale=1.0 / max(1, self._targets_of(step)),
            seed=config.seed,
            step=step,
            first_sequence=lane * self._per_lane,
            side=side,
            epsilon=epsilon,
            targets=_targets(tokens, self.tokens.train_marks, starts),
        )

    def sequence_loss(self, lane: int, place: int, permit: int, step: int) -> float:
        """Return the loss of one of a lane's sequences by itself, forward only."""
        starts = self.lane_starts(lane, step)[place : place + 1]
        tokens = gather(self.tokens.train, starts, self.spec.config.seq_len)
        return self._models[permit].evaluate(
            tokens, _targets(tokens, self.tokens.train_marks, starts)
        )

    def evaluate_unit(self, unit: int, permit: int) -> tuple[float, int]:
        """Return the summed loss over some windows of the held-out split, and their tokens."""
        starts, length = self._eval_units[unit]
        tokens = gather(self.tokens.val, starts, length)
        targets = _targets(tokens, self.tokens.val_marks, starts)
        loss = self._models[permit].evaluate(tokens, targets)
        return loss, self._counted(self.tokens.val_marks, starts, length)

    def _targets_of(self, step: int) -> int:
        """Return the targets that count in a step, of all its lanes: what its mean is over."""
        marks = self.tokens.train_marks
        if marks is None:
            return self.tokens_per_step
        if self._step_counts[0] != step:
            lanes = (self.lane_starts(lane, step) for lane in range(self.lane_count))
            seq_len = self.spec.config.seq_len
            counts = (self._counted(marks, starts, seq_len) for starts in lanes)
            self._step_counts = (step, sum(counts))
        return self._step_counts[1]

    @staticmethod
    def _counted(marks: Marks | None, starts: npt.NDArray[np.int64], length: int) -> int:
        """Return how many targets of windows count."""
        if marks is None:
            return len(starts) * length
        return int(gather(marks, starts, length)[:, 1:].sum())

    def lane_starts(self, lane: int, step: int) -> npt.NDArray[np.int64]:
        """Return where the windows of a lane begin: of every `lanes`-th sequence of the step."""
        config, first = self.spec.config, step * self.sequences + lane
        count = len(range(lane, self.sequences, config.lanes))
        tokens = len(self.tokens.train)
        return train_starts(tokens, config.seq_len, config.seed, first, count, config.lanes)


def _crystal_tables(spec: RunSpec) -> CrystalTables | None:
    """Return the tables of a run that looks at the primes of its tokens."""
    if not spec.config.uses_crystal:
        return None
    # With it comes the exact mathematics, which a plain run neither waits nor pays for.
    from crystalline.train.crystalline import CrystalTables

    return CrystalTables(spec.config, spec.model.vocab_size, spec.token_path.parent)


def lanes_per_unit(lanes: int, permits: int, rows: int, most_rows: int) -> int:
    """Return 2 where pairs of neighbors, the leaves of the sum's tree, can share a buffer, else 1.

    A pair's buffer takes the second lane on top of the first, which is the first sum of the tree,
    provided that a lane has at most `most_rows` rows (`Transformer.side_rows`).  It must not make
    the last one wait.

    >>> lanes_per_unit(12, 2, 256, 512), lanes_per_unit(12, 4, 256, 512)
    (2, 1)
    >>> lanes_per_unit(12, 2, 999, 512)
    1
    """
    pairs = lanes // 2
    if lanes % 2 or rows > most_rows:
        return 1
    return 2 if -(-pairs // permits) * 2 <= -(-lanes // permits) else 1


def _evaluation_units(
    windows: list[tuple[int, int]], seq_len: int, rows: int
) -> list[tuple[npt.NDArray[np.int64], int]]:
    """Put windows of the held-out split into units of one chunk of at most `rows` rows.

    A unit is (starts of its windows, their common length).
    """
    group = max(1, min(rows, CHUNK_ROWS) // seq_len)
    full = [start for start, length in windows if length == seq_len]
    units = [(np.array(full[i : i + group], np.int64), seq_len) for i in range(0, len(full), group)]
    units += [
        (np.array([start], np.int64), length) for start, length in windows if length < seq_len
    ]
    return units


def _targets(
    tokens: npt.NDArray[np.int32], marks: Marks | None, starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32] | None:
    """Return the targets of windows, -1 where one does not count; None where all do."""
    if marks is None:
        return None
    counts = gather(marks, starts, tokens.shape[1] - 1)[:, 1:]
    return np.where(counts != 0, tokens[:, 1:], np.int32(-1))


def build(spec: RunSpec) -> TrainingProgram:
    """Return the program of a run; named by `RunSpec.program`."""
    return TrainingProgram(spec)
