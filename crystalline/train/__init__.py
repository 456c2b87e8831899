"""The training engine: Node Zero, the spheres, and the step protocol between them.

`crystalline.train(...)` trains: the package bears the name of the Python door's function, so it
can be called, and hands the call on to `crystalline.runs.door`, which stands above it.
"""

import importlib
import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    # A package that is also the function of its name, for `help` as well.

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function()(*arguments, **keywords)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self._function())

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        import inspect

        words = inspect.getdoc(self._function())
        return f"{self.__dict__['__doc__']}\ntrain{self.__signature__}\n\n{words}"

    @staticmethod
    def _function() -> Any:
        # By name, as the caller looked it up: nothing here depends on what stands above.
        return importlib.import_module("crystalline.runs.door").train


sys.modules[__name__].__class__ = _CallablePackage
