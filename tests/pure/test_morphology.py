"""What derives from what, from factors and from given parents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import DataError
from crystalline.pure import CrystallineEmbeddings, Morphology
from tests.oracles import tokens as oracle


def embed(**numbers: int) -> CrystallineEmbeddings:
    tokens = CrystallineEmbeddings(3)
    for text, number in numbers.items():
        tokens.add_token(text, number)
    return tokens


def test_run_running_runs() -> None:
    tokens = embed(run=5, running=2 * 5, runs=3 * 5)
    assert [token.is_root for token in tokens] == [True, False, False]
    assert [token.factors for token in tokens] == [(5,), (2, 5), (3, 5)]
    assert [token.prime for token in tokens] == [5, 5, 5]
    assert [tokens.root_of(token.text or "").text for token in tokens] == ["run"] * 3
    assert [token.text for token in tokens.derived("run")] == ["running", "runs"]
    assert tokens.derived("runs") == []
    assert tokens.morphology.family(2) == (0, 1, 2)


def test_order_of_addition_does_not_matter() -> None:
    tokens = embed(runs=15, runnings=2 * 3 * 5, sit=7, running=10, run=5)
    assert tokens.root_of("runnings").text == "run"
    assert tokens.morphology.parent.tolist() == [4, 0, 2, 4, 4]  # 15 divides 30, as 10 does
    assert tokens.morphology.depth.tolist() == [1, 2, 0, 1, 0]
    assert [token.text for token in tokens.derived("run")] == ["runs", "runnings", "running"]
    assert tokens.morphology.derived(4, direct=True) == (0, 3)


def test_root_is_the_largest_prime_that_is_a_root() -> None:
    tokens = embed(a=2, b=7, ab=2 * 7, abx=2 * 7 * 11, other=11 * 13)
    assert [tokens.root_of(i).text for i in range(5)] == ["a", "b", "b", "b", "other"]
    assert tokens.morphology.parent.tolist() == [0, 1, 1, 2, 4]
    assert tokens.morphology.roots == (0, 1, 4)
    assert not tokens["other"].is_root  # alone, but no prime


def test_powers_of_a_root() -> None:
    tokens = embed(a=5, aaa=125, aa=25)
    assert tokens.morphology.parent.tolist() == [0, 2, 0]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_steps_and_roots(choices: list[int]) -> None:
    parent = [min(choice, i) for i, choice in enumerate(choices)]
    graph = Morphology.of_parents(parent)
    for token in range(len(parent)):
        root = graph.root_of(token)
        assert parent[root] == root
        assert oracle.steps(parent, token, root) == graph.depth[token]
        below = {t for t in range(len(parent)) if _is_above(parent, token, t)}
        assert set(graph.derived(token)) == below
        assert token in graph.family(root)


def _is_above(parent: list[int], above: int, token: int) -> bool:
    while token != parent[token]:
        token = parent[token]
        if token == above:
            return True
    return False


def test_long_chain_is_walked_once() -> None:
    graph = Morphology.of_parents(np.maximum(np.arange(20_000) - 1, 0))
    assert graph.depth[-1] == 19_999


@pytest.mark.parametrize("parent", [[1, 0], [0, 2, 3, 1], [1, 2, 0, 3]])
def test_circles_are_refused(parent: list[int]) -> None:
    with pytest.raises(DataError, match=r"derives from itself by a detour\. Derivations must end"):
        Morphology.of_parents(parent)


def test_unknown_parents_are_refused() -> None:
    with pytest.raises(DataError, match="token 1 derives from token 2, which does not exist"):
        Morphology.of_parents([0, 2])
    with pytest.raises(DataError, match="token 0 derives from token -1"):
        Morphology.of_parents([-1])
