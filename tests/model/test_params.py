"""Where parameters begin: the bits of old, embeddings and positions that are given; segments."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.twelvefold import twelvefold_positions

CONFIG = ModelConfig(vocab_size=37, seq_len=13, num_layers=2, num_heads=3, embed_dim=24)
TABLE = parameter_table(CONFIG)
WTE, WPE = "transformer.wte.weight", "transformer.wpe.weight"
PLAIN = "f3c6708f159b94f34576849aa4cec188e3950e62bc8eff1eb051ab03b893a7b7"


def filled(seed: int = 1234, **options: object) -> np.ndarray:
    flat = np.full(TABLE.size, np.nan, np.float32)
    initialize(CONFIG, flat, seed, **options)  # type: ignore[arg-type]
    return flat


def unit_rows() -> np.ndarray:
    rows = np.random.default_rng(5).standard_normal((37, 24))
    return ((rows - rows.mean()) / rows.std()).astype(np.float32)


def test_without_options_the_bits_are_those_of_old() -> None:
    assert hashlib.sha256(filled().tobytes()).hexdigest() == PLAIN
    assert (filled(embeddings=None, positions="learned") == filled()).all()


def test_given_tensors_begin_as_given_and_the_others_as_ever() -> None:
    embeddings = unit_rows()
    plain = TABLE.views(filled())
    given = TABLE.views(filled(embeddings=embeddings, positions="twelvefold"))
    for name, view in given.items():
        if name == WTE:
            want = np.float32(0.02) * embeddings
        elif name == WPE:
            want = np.float32(0.02) * twelvefold_positions(13, 24)
        else:
            want = plain[name]
        assert (view == want).all(), name
    for name in (WTE, WPE):
        rms = np.sqrt((given[name].astype(np.float64) ** 2).mean())
        assert rms == pytest.approx(0.02, rel=1e-5)


def test_one_option_leaves_the_other_tensor_alone() -> None:
    plain = TABLE.views(filled())
    assert (TABLE.views(filled(embeddings=unit_rows()))[WPE] == plain[WPE]).all()
    assert (TABLE.views(filled(positions="twelvefold"))[WTE] == plain[WTE]).all()


def test_the_seed_still_decides_the_rest() -> None:
    options = {"embeddings": unit_rows(), "positions": "twelvefold"}
    first, second = (TABLE.views(filled(seed, **options)) for seed in (1, 2))
    for p in TABLE.parameters:
        same = bool((first[p.name] == second[p.name]).all())
        assert same == (p.name in (WTE, WPE) or p.init != "normal"), p.name


def test_what_does_not_fit_is_refused() -> None:
    for wrong in (unit_rows()[:-1], unit_rows().T.copy(), unit_rows().astype(np.float64)):
        with pytest.raises(ValueError, match=r"the model needs float32\[37, 24\]"):
            filled(embeddings=wrong)
    with pytest.raises(ValueError, match="positions is 'spiral', expected 'learned' or"):
        filled(positions="spiral")


@pytest.mark.parametrize(
    ("shape", "fewest", "most"),
    [
        ((37, 13, 2, 3, 24), 8, 12),  # no segment without a tensor
        ((65, 64, 4, 4, 128), 25, 40),  # 0.8 million, some for every core
        ((50257, 256, 12, 12, 768), 900, 1400),  # 124 million: no more claims than needed
    ],
)
def test_segments_are_neither_too_few_nor_too_many(
    shape: tuple[int, int, int, int, int], fewest: int, most: int
) -> None:
    table = parameter_table(ModelConfig(*shape))
    segments = sorted((s.start, s.stop) for s in table.segments())
    assert fewest <= len(segments) <= most
    gaps = [start - stop for (_, stop), (start, _) in itertools.pairwise(segments)]
    assert (segments[0][0], segments[-1][1]) == (0, table.size)
    assert min(gaps) >= 0
    assert max(gaps) < 16  # alignment
