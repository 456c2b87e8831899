"""A plain PyTorch GPT of the same shape as ours, from the library's best parts, and its timing.

The peer of `bench.peers.bench_torch`, which starts it as a process of its own:

    python bench/peers/torch_gpt.py '{"folder": …, "L": 4, …}'    # a Job; prints a line of JSON

It needs PyTorch and NumPy, and nothing of crystalline: weights and tokens come as .npy files.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CHECK_STEPS = 4  # on one batch: the loss must fall (at 1e-3 that of gpt2 rises first)
WARM_UP_STEPS = 1  # on a fresh batch, before the clock runs
LEAST_STEPS = 3
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0


class Job(TypedDict):
    """What to time.  `folder` holds tokens.npy and each parameter under its name in ours."""

    folder: str
    L: int
    H: int
    C: int
    T: int
    B: int
    V: int
    precision: str  # "float32" or "bf16", by autocast
    compiled: bool
    threads: int
    seconds: float


class Block(nn.Module):
    """Pre-LayerNorm attention and MLP."""

    def __init__(self, C: int, H: int) -> None:
        super().__init__()
        self.H = H
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C), "c_proj": nn.Linear(C, C)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C), "c_proj": nn.Linear(4 * C, C)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, T, C] to [B, T, C]."""
        B, T, C = x.shape
        qkv = self.attn["c_attn"](self.ln_1(x)).view(B, T, 3, self.H, C // self.H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](y.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2 with a tied head; parameters are named as in ours, without 'transformer.'."""

    def __init__(self, L: int, H: int, C: int, T: int, V: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.h = nn.ModuleList(Block(C, H) for _ in range(L))
        self.ln_f = nn.LayerNorm(C)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of targets [B, T] after ids [B, T], in nats."""
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def load(self, folder: Path) -> None:
        """Take the weights from `folder`; ours keep a linear layer as [inputs, outputs]."""
        for name, parameter in self.named_parameters():
            array = torch.from_numpy(np.load(folder / f"transformer.{name}.npy"))
            parameter.data.copy_(array.t() if ".c_" in name and array.dim() == 2 else array)


def measure(job: Job) -> dict[str, Any]:
    """Check that the model learns, then time its full training step."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    folder, T, B = Path(job["folder"]), job["T"], job["B"]
    model = GPT(job["L"], job["H"], job["C"], T, job["V"])
    model.load(folder)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors}],
        lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True,
    )  # fmt: skip
    run = torch.compile(model) if job["compiled"] else model
    tokens = torch.from_numpy(np.load(folder / "tokens.npy").astype(np.int64))
    offsets = torch.arange(T + 1)

    def step(starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows = tokens[starts[:, None] + offsets]
        with torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bf16"):
            loss = run(windows[:, :-1], windows[:, 1:])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def fresh() -> torch.Tensor:
        return torch.randint(len(tokens) - T, (B,))

    first = torch.arange(B) * T
    checks = [step(first) for _ in range(CHECK_STEPS)]
    for _ in range(WARM_UP_STEPS):
        step(fresh())
    steps, began = 0, time.perf_counter()
    while steps < LEAST_STEPS or time.perf_counter() - began < job["seconds"]:
        step(fresh())
        steps += 1
    took = time.perf_counter() - began
    return {
        "tokens_per_second": steps * B * T / took,
        "steps": steps,
        "first_loss": checks[0][0].item(),
        "first_norm": checks[0][1].item(),
        "last_loss": checks[-1][0].item(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
