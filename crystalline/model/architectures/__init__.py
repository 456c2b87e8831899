"""The architectures that models can have: one row each, in `ARCHITECTURES`.

An architecture says in a file of its own which tensors a model has and what they are called in
files, and which norm, positions and MLP it computes with (see `table`).  A new one is a file, its
test and a row here; what it computes with stands in `crystalline/model/layers`.
"""

from __future__ import annotations

from crystalline.model.architectures.gpt2 import GPT2
from crystalline.model.architectures.llama import LLAMA
from crystalline.model.architectures.qwen3 import QWEN3
from crystalline.model.architectures.table import Architecture

ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in (GPT2, LLAMA, QWEN3)}
