"""The crystalline layer in training: a run's crystal, its tables in the arena, root discovery.

Node Zero makes the tables from the crystal at the start and after each discovery, while
nobody computes; the models of all permits read them where they lie:

    neighbors         int32    (V, k)         with --crystalline-epsilon
    neighbor_weights  float32  (V, k)
    features          float32  (V, FEATURES)  with --attention crystalline

What the tables mean is told in `crystalline.data.crystal`, what the model makes of them in
`crystalline.model`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal.discovery import changes, discover
from crystalline.data.crystal.features import FEATURES, token_features
from crystalline.data.crystal.neighbors import load_or_build, neighbor_table
from crystalline.data.crystal.positions import lattice_positions
from crystalline.data.crystal.tokens import Crystal
from crystalline.errors import DataError
from crystalline.ipc.arena import Arena, Region
from crystalline.model.transformer import Transformer
from crystalline.train.config import TrainConfig
from crystalline.train.protocol import Discovery


class CrystalTables:
    """The crystal of a run and what is made from it."""

    def __init__(self, config: TrainConfig, vocab_size: int, cache: Path) -> None:
        """`cache` is the folder of the tokens, where the table of their first crystal is kept."""
        self.crystal: Crystal | None = None
        self._cache = cache
        self._config = config
        self._vocab_size = vocab_size
        self._views: dict[str, npt.NDArray[Any]] = {}

    def regions(self) -> list[Region]:
        """Return what the tables need in the arena."""
        config, V = self._config, self._vocab_size
        found = []
        if config.smooths:
            shape = (V, config.crystalline_k)
            found.append(Region("neighbors", "int32", shape, align=4096))
            found.append(Region("neighbor_weights", "float32", shape, align=4096))
        if config.attention == "crystalline":
            found.append(Region("features", "float32", (V, FEATURES), align=4096))
        return found

    def bind(self, arena: Arena) -> None:
        """Take the views."""
        self._views = {region.name: arena[region.name] for region in self.regions()}

    @property
    def features(self) -> npt.NDArray[np.float32] | None:
        """The table for `Transformer(features=...)`, float32 [V, FEATURES], or None."""
        return self._views.get("features")

    def attach(self, model: Transformer) -> None:
        """Give a model the tables that it takes after its making."""
        if self._config.smooths:
            model.set_neighbors(self._views["neighbors"], self._views["neighbor_weights"])

    def load(self, path: Path) -> None:
        """Take the crystal of a file.  Raises `DataError`."""
        self.read(path)()

    def read(self, path: Path) -> Callable[[], None]:
        """Make the tables of the crystal of a file; return what takes it.  Raises `DataError`."""
        return self.made(Crystal.load(path))

    def embeddings(self, dim: int) -> npt.NDArray[np.float32]:
        """Return where tokens may begin, float32 [V, dim] of unit variance."""
        if self.crystal is None:
            raise ValueError("no crystal has been taken")
        return lattice_positions(self.crystal, dim)

    def to_json(self) -> str | None:
        """Return the content of crystal.json; None before a crystal is taken."""
        return None if self.crystal is None else self.crystal.to_json()

    def take(self, crystal: Crystal, commit: Callable[[], None] = lambda: None) -> None:
        """Make the tables of `crystal`, and after `commit` write them and keep it.

        Raises `DataError` for the crystal of another vocabulary.
        """
        put = self.made(crystal)
        commit()
        put()

    def made(self, crystal: Crystal) -> Callable[[], None]:
        """Make the tables of `crystal`; return what writes them and keeps it.

        Raises `DataError` for the crystal of another vocabulary.
        """
        config = self._config
        if crystal.vocab_size != self._vocab_size:
            raise DataError(
                f"the primes are of {crystal.vocab_size:,} tokens, the model has "
                f"{self._vocab_size:,}",
                advice="The files belong to different runs; start a new run.",
            )
        tables: dict[str, npt.NDArray[Any]] = {}
        if config.smooths:
            k, similarity = config.crystalline_k, config.crystalline_similarity
            if crystal.generation == 0:
                found = load_or_build(self._cache, crystal, k, similarity)
            else:  # this run's alone
                found = neighbor_table(crystal, k, similarity=similarity)
            tables["neighbors"], tables["neighbor_weights"] = found
        if config.attention == "crystalline":
            tables["features"] = token_features(crystal)

        def put() -> None:
            for name, table in tables.items():
                self._views[name][...] = table
            self.crystal = crystal

        return put

    def discover(
        self, embeddings: npt.NDArray[np.float32], commit: Callable[[], None]
    ) -> Discovery | None:
        """Find roots anew with the evidence of `embeddings`, float32 [V, C]; see the protocol."""
        before = self.crystal
        if before is None or not np.isfinite(embeddings).all():
            return None
        after = discover(before, embeddings)
        if after is before:
            return None
        self.take(after, commit)
        found = changes(before, after)
        return Discovery(
            generation=after.generation,
            roots_changed=len(found.rooted),
            affixes_gained=len(found.gained),
            affixes_lost=len(found.lost),
            words=str(found),
        )
