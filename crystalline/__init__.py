"""Crystalline trains and runs small language models on ordinary CPUs.

    import crystalline as cl

    run = cl.train("notes/", minutes=5)
    model = cl.load(run)
    print(model.generate("Once", max_tokens=50))

`train` and `resume` return a `Run`, `load` a `Model`; docs/PYTHON.md tells of all of them.
Names are looked up when they are first used: to import the package costs next to nothing.
"""

__version__ = "0.1.0"

# What the package offers by name, and the module that has it; `__init__.pyi` has the types.
_HOMES = {
    "train": "crystalline.runs.door",
    "resume": "crystalline.runs.door",
    "load": "crystalline.runs.model",
    "Run": "crystalline.runs.run",
    "Model": "crystalline.runs.model",
    "Snapshot": "crystalline.train.stats",
    "TextScore": "crystalline.infer.perplexity",
    "Interrupted": "crystalline.runs.door",
    "CrystallineError": "crystalline.errors",
    "CheckpointError": "crystalline.errors",
    "DataError": "crystalline.errors",
    "DivergedError": "crystalline.errors",
    "EngineError": "crystalline.errors",
    "SaveError": "crystalline.errors",
    "StoppedError": "crystalline.errors",
    "UnsupportedError": "crystalline.errors",
    "UsageError": "crystalline.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    import importlib  # not before: most of what importing this package would cost

    if name == "train":  # the package of that name, which can be called
        return importlib.import_module("crystalline.train")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
