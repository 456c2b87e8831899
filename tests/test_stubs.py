"""The .pyi beside every compiled module names its functions, classes and parameters as they are."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "crystalline").rglob("*.pyx"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]


def _stub_parameters(node: ast.FunctionDef) -> list[tuple[str, bool]]:
    """Names in order, each with whether it has a default."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    required = len(positional) - len(a.defaults)
    found = [(arg.arg, i >= required) for i, arg in enumerate(positional)]
    found += [(a.vararg.arg, False)] if a.vararg else []
    found += [
        (arg.arg, default is not None)
        for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
    ]
    return found + ([(a.kwarg.arg, False)] if a.kwarg else [])


def _parameters(function: object) -> list[tuple[str, bool]]:
    assert callable(function)
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    return [(p.name, p.default is not empty) for p in signature.parameters.values()]


def _init_parameters(signature: str) -> list[tuple[str, bool]]:
    """The same of a constructor, from the line that Cython puts at the head of the docstring."""
    inside = re.sub(r"\[[^\]]*\]", "", signature.partition("(")[2][:-1])
    names = [item.partition("=") for item in inside.split(", ") if item != "*"]
    return [(name.split()[-1], bool(equals)) for name, equals, _ in names]


def _public(names: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in names.items() if not name.startswith("_")}


def _functions(members: dict[str, object], module: str) -> dict[str, list[tuple[str, bool]]]:
    kinds = {"cython_function_or_method", "staticmethod"}
    return {
        name: _parameters(getattr(value, "__func__", value))
        for name, value in _public(members).items()
        if type(value).__name__ in kinds and value.__module__ == module
    }


def _is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)


def _check_class(cls: type, stub: ast.ClassDef) -> None:
    methods = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    init = methods.pop("__init__")
    signature = (cls.__doc__ or "").partition("\n")[0]
    if signature.startswith(f"{cls.__name__}("):  # written for __init__, not for __cinit__
        assert sorted(_stub_parameters(init)[1:]) == sorted(_init_parameters(signature))
    attributes = {name for name, node in methods.items() if _is_property(node)}
    assert [name for name in methods if not hasattr(cls, name)] == []
    declared = {
        name: _stub_parameters(node)
        for name, node in methods.items()
        if name not in attributes and not name.startswith("__")  # slots have no parameters
    }
    assert declared == _functions(dict(vars(cls)), cls.__module__)
    attributes |= {
        node.target.id
        for node in stub.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    members = _public(dict(vars(cls))).items()
    assert attributes == {name for name, v in members if inspect.isdatadescriptor(v)}


@pytest.mark.parametrize("name", MODULES)
def test_stub_matches_its_module(name: str) -> None:
    module = importlib.import_module(name)
    stub = ast.parse((ROOT / name.replace(".", "/")).with_suffix(".pyi").read_text("utf-8"))
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    declared = {key: _stub_parameters(node) for key, node in functions.items()}
    assert declared == _functions(vars(module), name)
    constants = [node.target for node in stub.body if isinstance(node, ast.AnnAssign)]
    assert all(isinstance(node, ast.Name) and hasattr(module, node.id) for node in constants)
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    own = {
        key: value
        for key, value in _public(vars(module)).items()
        if isinstance(value, type) and value.__module__ == name
    }
    assert set(classes) == set(own)
    for key, value in own.items():
        _check_class(value, classes[key])
