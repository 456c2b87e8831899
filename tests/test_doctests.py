"""The examples in compiled modules are run too; pytest finds those in `.py` by itself."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "crystalline").rglob("*.pyx")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_compiled_module(name: str) -> None:
    module = importlib.import_module(name)
    assert str(module.__file__).endswith(".so"), "the module is not compiled"
    assert module.__doc__, "the module does not say what it is"
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_examples_in_compiled_modules_are_found() -> None:
    """Had the finder passed over Cython's functions, the tests above would say nothing."""
    isa = importlib.import_module("crystalline._kernels.isa")
    tests = doctest.DocTestFinder(exclude_empty=True).find(isa)
    names = {test.name for test in tests if test.examples}
    assert "crystalline._kernels.isa.available_levels" in names
