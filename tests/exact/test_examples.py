"""Every public name of the exact mathematics says what it is, with an example that is run."""

from __future__ import annotations

import pytest

from crystalline import exact
from crystalline.exact import lattice

PUBLIC = [(module, name) for module in (exact, lattice) for name in module.__all__]


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda x: getattr(x, "__name__", x))
def test_public_name_has_an_example(module: object, name: str) -> None:
    thing = getattr(module, name)
    if isinstance(thing, type) and issubclass(thing, Exception):
        assert thing.__doc__
        return
    documented = [thing.__doc__ or ""]
    if isinstance(thing, type):  # for a result, the function that returns it may show it
        documented += [getattr(thing, member).__doc__ or "" for member in dir(thing)]
    assert any(">>>" in text for text in documented)
