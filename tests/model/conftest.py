"""Runs a test file again in a process of its own, on another instruction-set level.

The level is chosen once, at import, so one process can test one level only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

RERUN_TIMEOUT_S = 100


@pytest.fixture
def rerun_at_level(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that runs this file's other tests at a level and fails when one fails."""
    name = request.node.originalname
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [str(request.path), "-k", f"not {name}"]

    def rerun(level: str) -> None:
        result = subprocess.run(
            command,
            cwd=request.config.rootpath,
            env={**os.environ, "CRYSTALLINE_ISA": level},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RERUN_TIMEOUT_S,
            check=False,
        )
        assert result.returncode == 0, f"at level {level}:\n{result.stdout}"

    return rerun
