"""Build of the compiled kernels: one table of extensions, one of flags; levels have their own.

Every primitive is compiled once per instruction-set level of `crystalline/machine/levels.py`:
`level_*.c` selects the instructions by `#pragma GCC target` and includes the shared source, so a
built package runs on any x86-64 or aarch64 Linux and picks its level at import.

    python setup.py build_ext --inplace            # what `tools/dev.py build` runs
    CRYSTALLINE_DEBUG=1 python setup.py build_ext --inplace --force   # bounds checks on

CRYSTALLINE_SANITIZE=1 adds the address and undefined-behavior sanitizers (`tools/dev.py sanitize`).
CRYSTALLINE_PLAIN_TILES=1 makes the level `amx` of plain C with the same bits, so that its tests run
on any machine with AVX-512; tools/dev.py sets it where the machine has no tiles.
"""

import os
import re
import runpy
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("CRYSTALLINE_DEBUG", "0") == "1"
SANITIZE = os.environ.get("CRYSTALLINE_SANITIZE", "0") == "1"
PLAIN_TILES = os.environ.get("CRYSTALLINE_PLAIN_TILES", "0") == "1"
KERNELS = "crystalline/_kernels"
PRIMITIVES = f"{KERNELS}/primitives"

MACHINE = "crystalline/machine"
HEADERS = (PRIMITIVES, MACHINE)

# Each level of this architecture is one translation unit.
levels = runpy.run_path(f"{MACHINE}/levels.py", run_name="levels")


def units(kind: str, table: str) -> list[str]:
    """Return the translation units of a table of levels."""
    return [f"{PRIMITIVES}/{kind}_{level.name}.c" for level in levels["compiled"](levels[table])]


# module -> C sources linked into it beside its own .pyx
EXTENSIONS = {
    "crystalline.machine.cpu": [],
    "crystalline._kernels.isa": units("level", "LEVELS"),
    "crystalline._kernels.exact_isa": units("exact", "EXACT_LEVELS"),
    "crystalline._kernels.bigint.interrupt": [],
    "crystalline._kernels.bigint.limbs": [],
    "crystalline._kernels.bigint.tuning": [],
    "crystalline._kernels.bigint.mul": [],
    "crystalline._kernels.bigint.ntt": [],
    "crystalline._kernels.bigint.div": [],
    "crystalline._kernels.bigint.radix": [],
    "crystalline._kernels.bigint.powmod": [],
    "crystalline._kernels.bigint.gcd": [],
    "crystalline._kernels.bigint.roots": [],
    "crystalline._kernels.primes.counting": [],
    "crystalline._kernels.primes.ecm": [],
    "crystalline._kernels.primes.factor": [],
    "crystalline._kernels.primes.gcd": [],
    "crystalline._kernels.primes.primality": [],
    "crystalline._kernels.primes.sieve": [],
    "crystalline._kernels.primes.spiral": [],
    "crystalline._kernels.bigint.literal": [],
    "crystalline._kernels.bigint.signed": [],
    "crystalline._kernels.headroom": [],
    "crystalline.exact.arithmetic": [],
    "crystalline.exact.integer": [],
    "crystalline._kernels.lattice.babai": [],
    "crystalline._kernels.lattice.basis": [],
    "crystalline._kernels.lattice.gso": [],
    "crystalline._kernels.lattice.lll": [],
    "crystalline._kernels.fixedarray.arithmetic": [],
    "crystalline._kernels.fixedarray.convert": [],
    "crystalline._kernels.fixedarray.division": [],
    "crystalline._kernels.lattice.enumerate": [],
    "crystalline._kernels.bigfixed.series": [],
    "crystalline._kernels.bigfixed.splitting": [],
    "crystalline._kernels.bigfixed.constants": [],
    "crystalline._kernels.bigfixed.tables": [],
    "crystalline._kernels.bigfixed.unit": [],
    "crystalline._kernels.bigfixed.elementary": [],
    "crystalline.exact.fixed": [],
    "crystalline.exact.functions": [],
    "crystalline._kernels.fixedarray.functions": [],
    "crystalline._kernels.fixedarray.roots": [],
    "crystalline._kernels.atomics": [],
    "crystalline._kernels.memory": [],
    "crystalline._kernels.formats": [],
    "crystalline._kernels.matmul": [],
    "crystalline._kernels.kept": [],
    "crystalline._kernels.attention": [],
    "crystalline._kernels.team": [],
    "crystalline._kernels.cache": [],
    "crystalline._kernels.rows": [],
    "crystalline._kernels.crossentropy": [],
    "crystalline._kernels.neighbors": [],
    "crystalline._kernels.optimizer": [],
    "crystalline._kernels.vecmath": [],
    "crystalline._kernels.similarity": [],
    "crystalline._kernels.boxtree": [],
    "crystalline._kernels.random": [],
    "crystalline._kernels.windows": [],
    "crystalline.model.layers.buffers": [],
    "crystalline.model.layers.linear": [],
    "crystalline.model.layers.norm": [],
    "crystalline.model.layers.adapter": [],
    "crystalline.model.layers.attention": [],
    "crystalline.model.layers.mlp": [],
    "crystalline.model.layers.head": [],
    "crystalline.model.layers.bind": [],
    "crystalline.model.transformer": [],
    "crystalline.model.decode": [],
    "crystalline.model.merge": [],
    "crystalline.model.update": [],
}

# -ffp-contract=off: fused multiply-adds are written, never guessed, so a level's bits do not
# depend on what the compiler finds.  No -march=native, no -ffast-math.
COMPILE_ARGS = [
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-semantic-interposition",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
    "-Wno-unused-function",
    *(["-O1", "-g"] if DEBUG or SANITIZE else ["-O3", "-g0"]),
    *(["-DCL_PLAIN_TILES"] if PLAIN_TILES else []),
]
# The runtime is preloaded by whoever runs the tests, so the linker need not find it.
SANITIZE_ARGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COMPILE_ARGS += [*SANITIZE_ARGS, "-fno-omit-frame-pointer"] if SANITIZE else []

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "freethreading_compatible": False,
}

if not sys.platform.startswith("linux"):
    sys.exit("Crystalline runs on Linux only: its processes meet on futexes. Build it there.")


def headers(*sources: str) -> list[str]:
    """Return our headers that these files see, through cimports and includes of any depth."""
    seen: dict[str, None] = {}
    unread = list(sources)
    while unread:
        path = unread.pop()
        if path in seen or not Path(path).is_file():
            continue
        seen[path] = None
        text = Path(path).read_text("utf-8")
        unread += [f"{at}/{name}" for name in re.findall(r'"(\w+\.h)"', text) for at in HEADERS]
        if not path.endswith((".c", ".h")):
            unread.append(str(Path(path).with_suffix(".pxd")))
            for package, names in re.findall(r"^from ([\w.]+) cimport (.*)", text, re.M):
                folder = package.replace(".", "/")
                unread.append(f"{folder}.pxd")
                unread += [f"{folder}/{name}.pxd" for name in re.findall(r"\w+", names)]
    return sorted(path for path in seen if path.endswith(".h"))


setup(
    ext_modules=cythonize(
        [
            Extension(
                name,
                [name.replace(".", "/") + ".pyx", *sources],
                include_dirs=[*HEADERS],
                depends=headers(name.replace(".", "/") + ".pyx", *sources),
                extra_compile_args=COMPILE_ARGS,
                extra_link_args=SANITIZE_ARGS if SANITIZE else [],
            )
            for name, sources in EXTENSIONS.items()
        ],
        compiler_directives=DIRECTIVES,
        nthreads=0,
    ),
)
