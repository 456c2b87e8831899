"""CPython's own tests of int, run against BigInt.

The sources are those of CPython 3.11 (tests/third_party/cpython).  Before they run, every integer
literal in them is made a BigInt and the name `int` means BigInt, so that both sides of every
operation are ours unless a library function makes an int.  SKIPPED lists what does not apply.
"""

from __future__ import annotations

import ast
import contextlib
import math
import random
import re
import types
import unittest
from pathlib import Path
from typing import Any

import pytest

from crystalline.exact import BigInt

SOURCES = Path(__file__).resolve().parent.parent / "third_party" / "cpython"
SUBCLASS = "BigInt is final: no subclasses of it to convert"
LIMIT = "BigInt has no limit on decimal digits: its conversion is not quadratic"
CACHED = "identity of small ints, an implementation detail of CPython"
HUGE = "needs 2^63 bits, which BigInt refuses at once"
SKIPPED = {
    "test_int.IntTestCases.test_small_ints": CACHED,
    "test_int.IntTestCases.test_int_subclass_with_index": SUBCLASS,
    "test_int.IntTestCases.test_int_subclass_with_int": SUBCLASS,
    "test_int.IntTestCases.test_int_returns_int_subclass": SUBCLASS,
    "test_int.IntStrDigitLimitsTests": LIMIT,
    "test_int.IntSubclassStrDigitLimitsTests": LIMIT,
    "test_long.LongTest.test_small_ints_in_huge_calculation": CACHED,
    "test_long.LongTest.test_pow_uses_cached_small_ints": CACHED,
    "test_long.LongTest.test_divmod_uses_cached_small_ints": CACHED,
    "test_long.LongTest.test_small_ints": CACHED,
    "test_long.LongTest.test_from_bytes_small": CACHED,
    "test_long.LongTest.test_access_to_nonexistent_digit_0": SUBCLASS,
    "test_long.LongTest.test_as_integer_ratio": "asks type int of the ratio of a bool",
    "test_long.LongTest.test_huge_lshift": HUGE,
    "test_long.LongTest.test_huge_rshift_of_huge": HUGE,
    "test_int.IntTestCases.test_int_base_indexable": "its __index__ returns a literal's BigInt",
}


VALID = (
    *("0_0_0", "4_2", "1_0000_0000", "0b1001_0100", "0xffff_ffff", "0o5_7_7", "0b_0"),
    *("0x_f", "0o_5", "1_00_00.5", "1_00_00.5e5", "1e1_0", ".1_4", "1_00_00j"),
)
INVALID = (
    *("0_", "42_", "0x_", "0b1_", "0xf_", "0o5_", "0_b0", "0_xf", "0_o5", "0_7", "09_99"),
    *("4_______2", "0b1001__0100", "0xffff__ffff", "0x___", "0o5__77", "1e1__0", "1_.4"),
    *("._5", "1.0e+_1", "(1+1.5_j_)"),
)


class _Substitute(ast.NodeTransformer):
    """Makes BigInts of integer literals; leaves real ints where the language needs them."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):  # in messages
            node.value = node.value.replace("for int() with", "for BigInt() with")
        if type(node.value) is not int:
            return node
        call = ast.Call(ast.Name("BigInt", ast.Load()), [ast.Constant(node.value)], [])
        return ast.copy_location(call, node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in ("__int__", "__index__"):  # Python wants an int from these
            return node
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "__new__" and isinstance(node.value, ast.Name) and node.value.id == "int":
            node.value.id = "builtin_int"
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        for base in node.bases:  # BigInt cannot be a base
            if isinstance(base, ast.Name) and base.id == "int":
                base.id = "builtin_int"
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        if node.names[0].name in ("math", "random"):  # see _namespace
            return ast.copy_location(ast.Pass(), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module in ("test", "test.test_grammar"):  # see _namespace
            return ast.copy_location(ast.Pass(), node)
        return node


def _plain(value: Any) -> Any:
    return int(value) if type(value) is BigInt else value


def _with_plain(function: Any) -> Any:
    return lambda *arguments: function(*map(_plain, arguments))


def _namespace() -> dict[str, Any]:
    """What the sources import from CPython's `test` package, and `math` taking BigInt for int."""

    def decorator(*_arguments: object, **_named: object) -> Any:
        return lambda function: function

    def bigmemtest(size: int, **_named: object) -> Any:
        def decorate(function: Any) -> Any:
            def test(self: Any) -> None:
                function(self, size)

            return test

        return decorate

    functions = {
        name: _with_plain(f) if callable(f) else f
        for name, f in vars(math).items()
        if not name.startswith("_")
    }
    return {
        "BigInt": BigInt,
        "builtin_int": int,
        "__name__": "vendored",
        "int": BigInt,
        # real ints from elsewhere count as ours too
        "isinstance": lambda x, kind: isinstance(BigInt(x) if type(x) is int else x, kind),
        "random": types.SimpleNamespace(
            random=random.random,
            choice=random.choice,
            randrange=lambda *a: BigInt(random.randrange(*map(_plain, a))),
            randint=lambda *a: BigInt(random.randint(*map(_plain, a))),
            getrandbits=lambda k: BigInt(random.getrandbits(_plain(k))),
        ),
        "repr": lambda x: str(x) if type(x) is BigInt else repr(x),
        "math": types.SimpleNamespace(**functions),
        "support": types.SimpleNamespace(
            cpython_only=lambda function: function,
            requires_IEEE_754=lambda function: function,
            bigmemtest=bigmemtest,
            adjust_int_max_str_digits=lambda _n: contextlib.nullcontext(),
        ),
        "VALID_UNDERSCORE_LITERALS": list(VALID),
        "INVALID_UNDERSCORE_LITERALS": list(INVALID),
    }


def _cases() -> dict[str, unittest.TestCase]:
    cases = {}
    for path in sorted(SOURCES.glob("*.py.txt")):
        tree = _Substitute().visit(ast.parse(path.read_text("utf-8")))
        namespace = _namespace()
        exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), namespace)
        for key, value in namespace.items():
            if isinstance(value, type) and issubclass(value, unittest.TestCase):
                for name in unittest.defaultTestLoader.getTestCaseNames(value):
                    cases[f"{path.name.partition('.')[0]}.{key}.{name}"] = value(name)
    return cases


CASES = _cases()


def _reason(name: str) -> str | None:
    return SKIPPED.get(name) or SKIPPED.get(name.rpartition(".")[0])


def test_every_skip_names_a_test() -> None:
    names = set(CASES) | {name.rpartition(".")[0] for name in CASES}
    assert set(SKIPPED) <= names
    assert sum(_reason(name) is None for name in CASES) > 45


@pytest.mark.parametrize("name", [name for name in CASES if _reason(name) is None])
def test_of_cpython(name: str) -> None:
    result = unittest.TestResult()
    CASES[name].run(result)
    problems = [re.sub(r"\s+$", "", text) for _, text in result.failures + result.errors]
    assert not problems, problems[0]
    assert result.testsRun == 1
