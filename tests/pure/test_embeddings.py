"""Creation, the basis and its inverse, reduction, crystals, and that memory comes back."""

from __future__ import annotations

import gc
import random
import weakref
from fractions import Fraction
from typing import Any

import numpy as np
import psutil
import pytest

from crystalline.data.crystal.affixes import Affix, Derivations
from crystalline.data.crystal.tokens import Crystal
from crystalline.errors import DataError
from crystalline.exact import BigFixedArray, nth_prime, prime_array
from crystalline.exact.lattice import LatticeBasis
from crystalline.pure import CrystallineEmbeddings, coordinates

UNIT = Fraction(1, 2**192)


def embed(count: int, dimension: int = 3, basis: Any = None) -> CrystallineEmbeddings:
    tokens = CrystallineEmbeddings(dimension, basis)
    primes = prime_array(nth_prime(count) + 1).tolist()
    tokens.add_tokens([f"t{i}" for i in range(count)], primes)
    return tokens


def skewed(dimension: int, seed: int) -> list[list[int]]:
    """A basis of the integer lattice with a large orthogonality defect."""
    rng = random.Random(seed)
    rows = [[int(i == j) for j in range(dimension)] for i in range(dimension)]
    for _ in range(3 * dimension):
        i, j = rng.sample(range(dimension), 2)
        factor = rng.choice([-3, -2, 2, 3])
        rows[i] = [a + factor * b for a, b in zip(rows[i], rows[j], strict=True)]
    return rows


def test_a_hundred_tokens_in_three_dimensions() -> None:
    tokens = embed(100)
    assert len(tokens) == 100
    assert tokens.positions.shape == tokens.lattice_positions.shape == (100, 3)
    assert tokens.positions.width_bits == 256
    assert [token.id for token in tokens] == list(range(100))
    assert [token.symmetry_group for token in tokens] == [i % 12 for i in range(100)]
    assert all(token.is_root and token.factors == (token.number,) for token in tokens)
    for token, row in zip(tokens, tokens.positions.to_bigfixed(), strict=True):
        assert token.coordinates == tuple(row) == coordinates(token.number, 3)
    assert len({token.coordinates for token in tokens}) == 100
    assert tokens["t99"].number == 541


def test_ten_tokens_with_the_first_primes() -> None:
    tokens = CrystallineEmbeddings(dimension=3)
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    for i, prime in enumerate(primes):
        token = tokens.add_token(f"token {i}", prime)
        assert (token.id, token.number, token.prime, token.is_root) == (i, prime, prime, True)
        assert token.clock == divmod(prime, 12)
    assert [token.number for token in tokens] == primes


def test_no_memory_is_lost() -> None:
    process = psutil.Process()

    def run(count: int) -> None:
        for i in range(count):
            tokens = embed(100, 3, skewed(3, i))
            tokens.optimize_basis()
            tokens.k_nearest([i, 1, 2], 3)
            tokens.nearest_many(tokens.positions)
            tokens.similarities([[0, 1], [2, 3]])
            tokens.phase_alignments([[4, 5]])
            tokens.closest_lattice_vector([i, 0, 0.5])

    run(20)
    gc.collect()
    before = process.memory_info().rss
    run(100)
    gc.collect()
    # The 100 would hold 30 kB each in positions alone.
    assert process.memory_info().rss - before < 1 << 20


def test_no_cycle_keeps_embeddings_alive() -> None:
    gc.disable()
    try:
        tokens = embed(10)
        tokens.nearest([0, 0, 0])
        positions = weakref.ref(tokens.positions.limbs)
        del tokens
        assert positions() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("dimension", [1, 2, 3, 8])
def test_identity_basis_and_its_inverse(dimension: int) -> None:
    tokens = embed(10, dimension)
    identity = np.eye(dimension, dtype=int).tolist()
    assert tokens.basis.to_fractions() == identity
    assert tokens.inverse.to_fractions() == identity
    assert tokens.lattice_positions.mantissas() == tokens.positions.mantissas()


@pytest.mark.parametrize("basis", [[[2, 0, 1], [1, 3, 0], [0, "0.1", 4]], skewed(3, 1)])
def test_inverse(basis: list[list[Any]]) -> None:
    tokens = embed(10, 3, basis)
    b, exact = tokens.lattice_basis.fractions(), tokens.exact_inverse
    product = [[sum(b[i][k] * exact[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
    assert product == np.eye(3, dtype=int).tolist()
    for row, want in zip(tokens.inverse.to_fractions(), exact, strict=True):
        assert all(abs(x - y) <= UNIT / 2 for x, y in zip(row, want, strict=True))


def check_lattice_positions(tokens: CrystallineEmbeddings, exact: bool) -> None:
    b = tokens.lattice_basis.fractions()
    d = tokens.dimension
    for c, x in zip(
        tokens.lattice_positions.to_fractions(), tokens.positions.to_fractions(), strict=True
    ):
        for j in range(d):
            gap = abs(sum(c[k] * b[k][j] for k in range(d)) - x[j])
            assert gap <= (0 if exact else UNIT / 2 * sum(abs(b[k][j]) for k in range(d)))


BASES = {
    "halves": [[2, 0, 0], [0, -4, 0], [0, 2, 8]],  # half units are ties
    "sixteenths": [[Fraction(1, 16), 0, 0], [0, 1, 0], [3, 0, 1]],
    "thirds": [[3, 0, 0], [0, 1, 0], [1, 0, -6]],
    "unimodular": skewed(3, 5),
    "fractions": [["0.1", 1, 2], ["7.25", "-0.3", 0], [1, 1, "1e-9"]],
}


@pytest.mark.parametrize("name", BASES)
def test_lattice_positions_are_the_exact_ones_rounded_to_even(name: str) -> None:
    tokens = embed(60, 3, BASES[name])
    inverse = tokens.exact_inverse
    for found, x in zip(tokens.lattice_positions.mantissas(), tokens.mantissas(), strict=True):
        want = [round(sum(x[k] * inverse[k][j] for k in range(3))) for j in range(3)]
        assert found == want


@pytest.mark.parametrize("dimension", [2, 3, 6])
def test_reduction_improves_the_basis_and_positions_follow(dimension: int) -> None:
    tokens = embed(100, dimension, skewed(dimension, dimension))
    places, before = tokens.positions.mantissas(), tokens.lattice_basis
    coordinates_before = tokens.lattice_positions.mantissas()
    check_lattice_positions(tokens, exact=True)
    reduction = tokens.optimize_basis()
    reduction.certificate().verify()
    after = tokens.lattice_basis
    assert after.orthogonality_defect() < before.orthogonality_defect() / 2
    assert after.same_lattice(before)
    assert after == reduction.basis
    assert tokens.positions.mantissas() == places
    assert tokens.lattice_positions.mantissas() != coordinates_before
    check_lattice_positions(tokens, exact=True)


def test_reduction_of_a_basis_with_fractions() -> None:
    rows = embed(40, 4).positions[np.array([7, 15, 22, 39])]
    tokens = embed(100, 4, rows)
    before = tokens.lattice_basis
    check_lattice_positions(tokens, exact=False)
    tokens.optimize_basis().certificate().verify()
    assert tokens.lattice_basis.orthogonality_defect() < before.orthogonality_defect()
    assert tokens.lattice_basis.same_lattice(before)
    check_lattice_positions(tokens, exact=False)


def test_closest_lattice_vector() -> None:
    tokens = embed(5, 3, skewed(3, 4))
    found = tokens.closest_lattice_vector([Fraction(26, 10), -3.25, 8])
    assert found.vector == (3, -3, 8)  # the lattice is that of the integers
    found.verify()


def test_from_a_crystal() -> None:
    derivations = Derivations(
        parent=np.array([0, 0, 0, 3, 1], np.int32),
        affix=np.array([-1, 0, 1, -1, 1], np.int32),
        affixes=(Affix("ing", "suffix"), Affix("s", "suffix")),
    )
    texts = ("run", "running", "runs", None, "runnings")
    crystal = Crystal.of(texts, np.array([9, 5, 2, 1, 1]), derivations)
    tokens = CrystallineEmbeddings.from_crystal(crystal, 4)
    assert [token.text for token in tokens] == list(texts)
    assert [token.number for token in tokens] == crystal.numbers.tolist()
    assert [token.factors for token in tokens] == [crystal.factors(i) for i in range(5)]
    assert tokens.morphology.root.tolist() == crystal.root.tolist()
    assert tokens.morphology.parent.tolist() == crystal.parent.tolist()
    assert [token.is_root for token in tokens] == [crystal.is_root(i) for i in range(5)]
    assert [token.text for token in tokens.derived("run")] == ["running", "runs", "runnings"]
    later = tokens.add_token("reruns", 15 * 101)  # its parent follows from factors
    assert tokens.morphology.parent[later.id] == 2


def test_texts_may_repeat_and_the_first_is_found() -> None:
    tokens = CrystallineEmbeddings(2)
    tokens.add_tokens(["a", None, "a", None], [2, 3, 5, 7])
    assert tokens["a"].id == 0


def test_largest_numbers() -> None:
    tokens = CrystallineEmbeddings(3)
    tokens.add_tokens(["a", "b"], [2**64 - 1, 2**64 - 59])
    assert tokens["a"].factors == (3, 5, 17, 257, 641, 65537, 6700417)
    assert tokens["b"].is_root
    assert tokens.nearest(tokens["b"].coordinates).token.text == "b"
    assert 0 < tokens.similarity("a", "b") < 0.4


@pytest.mark.parametrize("number", [0, 1, -7, 2**64])
def test_numbers_out_of_range(number: int) -> None:
    with pytest.raises(DataError, match=f"token 'x' has the number {number}"):
        CrystallineEmbeddings(3).add_token("x", number)


def test_nothing_is_added_where_one_is_refused() -> None:
    tokens = embed(3)
    with pytest.raises(DataError, match=r"two tokens have the number 5, one of them 'b'"):
        tokens.add_tokens(["a", "b"], [7, 5])
    with pytest.raises(DataError, match="two tokens have the number 7"):
        tokens.add_tokens(["a", "b"], [7, 7])
    with pytest.raises(ValueError, match="1 texts and 2 numbers"):
        tokens.add_tokens(["a"], [7, 11])
    assert len(tokens) == 3
    with pytest.raises(TypeError):
        tokens.add_token("a", 7.0)  # type: ignore[arg-type]


def test_bad_bases_and_ids() -> None:
    with pytest.raises(ValueError, match=r"the basis has the shape \(2, 2\), expected \(3, 3\)"):
        CrystallineEmbeddings(3, [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="depend on each other"):
        CrystallineEmbeddings(2, [[1, 2], [2, 4]])
    with pytest.raises(ValueError, match="dimension is 0, expected 1 or more"):
        CrystallineEmbeddings(0)
    tokens = embed(3)
    with pytest.raises(IndexError, match="there is no token 3, only 0 to 2"):
        tokens[3]
    with pytest.raises(IndexError, match="there is no token -1"):
        tokens.root_of(-1)


def test_what_is_handed_out_is_read_only() -> None:
    tokens = embed(3)
    for array in (tokens.positions, tokens.lattice_positions, tokens.basis, tokens.inverse):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    mine = BigFixedArray.of([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    tokens.set_basis(mine)
    mine[0, 0] = 5
    assert tokens.lattice_basis == LatticeBasis([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
