"""The .pyi beside every compiled module names its functions and their parameters as they are."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "crystalline" / "_kernels"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.pyx"))


def _parameters(node: ast.FunctionDef) -> list[tuple[str, bool]]:
    """Names in order, each with whether it has a default."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    required = len(positional) - len(a.defaults)
    found = [(arg.arg, i >= required) for i, arg in enumerate(positional)]
    found += [(a.vararg.arg, False)] if a.vararg else []
    return found + [
        (arg.arg, default is not None)
        for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_stub_matches_its_module(name: str) -> None:
    module = importlib.import_module(f"crystalline._kernels.{name}")
    stub = ast.parse((PACKAGE / f"{name}.pyi").read_text())
    declared = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    defined = {
        key: inspect.signature(value)
        for key, value in vars(module).items()
        if type(value).__name__ == "cython_function_or_method" and not key.startswith("_")
    }
    assert set(declared) == set(defined)
    for key, signature in defined.items():
        actual = [
            (p.name, p.default is not inspect.Parameter.empty)
            for p in signature.parameters.values()
        ]
        assert _parameters(declared[key]) == actual, key
