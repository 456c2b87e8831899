"""Every setting of a training run, with its help text, default and cross-checks.

`TrainConfig` is stored whole in each checkpoint.  The docstring under a field
is the help text of its flag.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from crystalline.errors import UsageError
from crystalline.ipc.positions import POSITIONS
from crystalline.model.config import architecture_row
from crystalline.train.plan import Plan

if TYPE_CHECKING:
    from crystalline.model.adapters import AdapterConfig

LARGEST_SEED = 2**63 - 1
LARGEST_VOCABULARY = 10_000_000  # the trainer reserves memory for all of it at once
MOST_SEQUENCES = 1_000_000  # of one step
MOST_NEIGHBORS = 1024  # of one token
LENGTHS = ("plan", "max_steps", "epochs", "minutes")
# What may change in the middle of a run; all else decides its bits.
CHANGEABLE = frozenset(
    {*LENGTHS, "eval_interval", "patience", "save_interval", "save_epochs", "log_interval", "keep"}
)
LEAST_ALPHA, MOST_ALPHA = 1e-6, 1e6  # of adapters

TokenizerKind = Literal["bpe", "char", "word", "byte"]
Schedule = Literal["cosine", "linear", "step", "constant"]
Optimizer = Literal["adamw", "sgd"]
Precision = Literal["auto", "float32", "bf16"]
Similarity = Literal["primes", "morphology"]
EpsilonSchedule = Literal["constant", "linear"]
Init = Literal["normal", "lattice"]
Positions = Literal["learned", "twelvefold"]
Attention = Literal["standard", "crystalline"]
SaveWhileTraining = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings that decide the bits of a run, and how often it reports and saves."""

    tokenizer: TokenizerKind = "bpe"
    """How text becomes tokens: byte-level BPE, single characters, words, or bytes."""
    vocab_size: int = 8000
    """Largest vocabulary, in tokens (bpe and word; char and byte find their own)."""
    architecture: str = "gpt2"
    """Shape of the model: gpt2 (LayerNorm, learned positions, GELU), llama (RMSNorm, rotary
    positions, SwiGLU), or qwen3 (llama with normalized queries and keys)."""
    embed_dim: int | None = None
    """Channels per token; a multiple of --num-heads.  Default: sized from the corpus."""
    num_layers: int | None = None
    """Transformer blocks.  Default: sized from the corpus."""
    num_heads: int | None = None
    """Attention heads per block.  Default: sized from the corpus."""
    num_kv_heads: int = 0
    """Heads of keys and values that the attention heads share in equal groups (llama, qwen3): fewer
    make generation cheaper; 0 is one for each head."""
    head_size: int = 0
    """Channels of a head (llama, qwen3); 0 is --embed-dim over --num-heads."""
    mlp_dim: int = 0
    """Channels inside an MLP; 0 is 4 times --embed-dim in gpt2, 8/3 in llama and qwen3."""
    rope_theta: float = 0.0
    """Base of the rotary angles (llama, qwen3): larger ones suit longer contexts; 0 is 10,000 in
    llama and 1,000,000 in qwen3."""
    sliding_window: int = 0
    """Newest tokens that attention sees, itself included (llama, qwen3); 0 is all of them."""
    tie_embeddings: bool = True
    """Let the token embeddings be the head too, which saves memory; gpt2 always does."""
    seq_len: int = 128
    """Context length, in tokens."""
    dropout: float = 0.0
    """Share of activations dropped while training, 0 up to (not including) 1."""
    batch_size: int = 24
    """Sequences per micro-batch; see --accumulation-steps."""
    accumulation_steps: int = 1
    """Micro-batches summed into one optimizer step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    min_lr: float | None = None
    """Learning rate at the end of the schedule.  Default: a tenth of --learning-rate."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly from 0."""
    lr_schedule: Schedule = "cosine"
    """Shape of the learning rate after warm-up; 'step' divides it by 10 at 60 % and at 85 %."""
    optimizer: Optimizer = "adamw"
    """AdamW, or SGD with momentum --beta1."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only."""
    beta1: float = 0.9
    """Decay of the first moment (the momentum of SGD)."""
    beta2: float = 0.95
    """Decay of the second moment (AdamW)."""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    epochs: float | None = None
    """Passes over the training split.  Default: from --max-steps or --minutes, else 10."""
    max_steps: int | None = None
    """Optimizer steps; takes precedence over --epochs."""
    minutes: float | None = None
    """Time to train, in minutes, evaluations and saves included: the number of steps is fitted to
    it while the run goes on."""
    plan: str | None = None
    """Steps of the run as FROM_STEP:STEPS_IN_ALL,…; see `train.plan`.  Default: --max-steps."""
    eval_interval: int = 250
    """Steps between evaluations over the held-out split; 0 evaluates at the end only."""
    eval_tokens: int | None = None
    """Tokens of the held-out split that an evaluation predicts, in windows evenly spread over it
    and the same throughout the run; 0 is the whole split."""
    patience: int = 0
    """Evaluations in a row that may pass without a better one before the run ends; 0 never ends it
    early.  The best checkpoint is kept in any case."""
    save_interval: int = 500
    """Steps between checkpoints; 0 saves at the end only."""
    save_epochs: int = 0
    """Passes over the training split after which the run is saved and evaluated, besides what
    --save-interval and --eval-interval ask for; 0 is never."""
    log_interval: int = 10
    """Steps between progress lines in metrics.jsonl."""
    keep: int = 3
    """Newest checkpoints kept, besides the best."""
    val_fraction: float = 0.1
    """Share of the text held out for evaluation."""
    seed: int = 1337
    """Seed of initialization, data order and dropout."""
    lanes: int = POSITIONS
    """Gradient accumulators: a multiple of 12, fixed for the life of a run."""
    precision: Precision = "auto"
    """Operands of the matrix products; sums, weights and moments stay float32.  'auto' takes
    the fastest on this machine for this model, which it tries for a fraction of a second."""
    crystalline_epsilon: float = 0.0
    """Share of each target that goes to tokens similar to the right one (the crystalline loss),
    0 up to (not including) 1; 0 is plain cross-entropy."""
    crystalline_k: int = 16
    """Similar tokens that share a target, with --crystalline-epsilon."""
    crystalline_similarity: Similarity = "primes"
    """What makes tokens similar: common prime factors and places on the Ulam spiral, or a common
    root alone."""
    crystalline_schedule: EpsilonSchedule = "constant"
    """--crystalline-epsilon through the run: constant, or linear from there to 0 at the end."""
    init: Init = "normal"
    """Token embeddings to begin with: random, or the tokens' places in a lattice."""
    positions: Positions = "twelvefold"
    """Position embeddings of gpt2 to begin with: random ('learned'), or angles of a clock of twelve
    hours and of golden-angle rotations.  Both are learned from there on; other architectures have
    none."""
    attention: Attention = "standard"
    """Attention scores: products of queries and keys, or with the tokens' similarity added, which
    each head learns to weigh."""
    freeze_lambda: bool = False
    """Keep the heads' weights of --attention crystalline at 0; for experiments."""
    discovery_interval: int = 0
    """Evaluations from one root discovery to the next: with the embeddings learned so far, roots
    and affixes are found anew and the tokens' primes reassigned; 0 never does."""
    init_from: str | None = None
    """Model to begin from instead of random weights: a run, a checkpoint, a folder in Hugging
    Face's layout (gpt2, llama, qwen3) or a GGUF file.  Its tokenizer and its shape are kept;
    moments, schedule and text are new.  Its files are read at the start only."""
    lora_rank: int = 0
    """Train low-rank adapters (LoRA) beside the matrices of --init-from, which stay as they are:
    every matrix of a layer gains the product of two thin ones of this rank, all queries, keys and
    values sharing the first.  It takes less memory and time than training all weights, and what is
    learned is a small file beside the model; 8 to 64 are usual, 0 trains all weights."""
    lora_alpha: float | None = None
    """What the adapters' products count for: they are multiplied by it over --lora-rank.
    Default: twice --lora-rank."""

    def __post_init__(self) -> None:
        _at_least("--vocab-size", self.vocab_size, 2)
        if self.vocab_size > LARGEST_VOCABULARY:
            raise UsageError(
                f"--vocab-size is {self.vocab_size}",
                advice=f"It must be at most {LARGEST_VOCABULARY:,}.",
            )
        architecture_row(self.architecture)
        for name in ("num_kv_heads", "head_size", "mlp_dim", "sliding_window"):
            _at_least("--" + name.replace("_", "-"), getattr(self, name), 0)
        for name in ("embed_dim", "num_layers", "num_heads", "max_steps"):
            value = getattr(self, name)
            if value is not None:
                _at_least("--" + name.replace("_", "-"), value, 1)
        for name in ("seq_len", "batch_size", "accumulation_steps", "log_interval", "keep"):
            _at_least("--" + name.replace("_", "-"), getattr(self, name), 1)
        for name in (
            "warmup_steps",
            "eval_interval",
            "eval_tokens",
            "patience",
            "save_interval",
            "save_epochs",
            "weight_decay",
            "grad_clip",
            "seed",
            "discovery_interval",
        ):
            if getattr(self, name) is not None:
                _at_least("--" + name.replace("_", "-"), getattr(self, name), 0)
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(
                    f"--{name.replace('_', '-')} is {value}", advice="It must be a finite number."
                )
        if self.seed > LARGEST_SEED:
            raise UsageError(f"--seed is {self.seed}", advice=f"It must be at most {LARGEST_SEED}.")
        if self.sequences_per_step > MOST_SEQUENCES:
            raise UsageError(
                f"--batch-size {self.batch_size} and --accumulation-steps "
                f"{self.accumulation_steps} make {self.sequences_per_step:,} sequences a step",
                advice=f"The most is {MOST_SEQUENCES:,}.",
            )
        _positive("--learning-rate", self.learning_rate)
        for name in ("epochs", "minutes"):
            value = getattr(self, name)
            if value is not None:
                _positive("--" + name, value)
        if self.plan is not None:
            planned = Plan.parse(self.plan).max_steps
            if self.max_steps not in (None, planned):
                raise UsageError(
                    f"--plan {self.plan} ends at step {planned:,}, and --max-steps is "
                    f"{self.max_steps:,}",
                    advice="Leave one of them out.",
                )
        if self.min_lr is not None and not 0 <= self.min_lr <= self.learning_rate:
            raise UsageError(
                f"--min-lr is {self.min_lr}",
                advice=f"It must lie between 0 and --learning-rate ({self.learning_rate}).",
            )
        for name in ("beta1", "beta2", "dropout", "crystalline_epsilon"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} is {value}",
                    advice="It must be at least 0 and less than 1.",
                )
        if not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"--val-fraction is {self.val_fraction}",
                advice="It must be at least 0 and less than 1.",
            )
        if self.lanes < POSITIONS or self.lanes % POSITIONS:
            raise UsageError(
                f"--lanes is {self.lanes}", advice=f"It must be a multiple of {POSITIONS}."
            )
        if not 1 <= self.crystalline_k <= MOST_NEIGHBORS:
            raise UsageError(
                f"--crystalline-k is {self.crystalline_k}",
                advice=f"It must be between 1 and {MOST_NEIGHBORS}.",
            )
        if self.init_from is not None:
            self._check_beginning()
        self._check_adapters()
        if self.freeze_lambda and self.attention != "crystalline":
            raise UsageError(
                f"--freeze-lambda has nothing to freeze in --attention {self.attention}",
                advice="Add --attention crystalline, or leave it out.",
            )
        if self.patience and not self.eval_interval:
            raise UsageError(
                f"--patience {self.patience} counts evaluations, and --eval-interval 0 makes none",
                advice="Set --eval-interval.",
            )
        if self.discovery_interval and not self.eval_interval:
            raise UsageError(
                f"--discovery-interval {self.discovery_interval} counts evaluations, "
                "and --eval-interval 0 makes none",
                advice="Set --eval-interval.",
            )
        if self.discovery_interval and not (self.smooths or self.attention == "crystalline"):
            raise UsageError(
                f"--discovery-interval {self.discovery_interval} would change nothing: "
                "no part of training looks at the tokens' primes",
                advice="Add --crystalline-epsilon 0.1 or --attention crystalline.",
            )

    def _check_beginning(self) -> None:
        """Refuse what would put something in the place of the weights of --init-from."""
        if not self.init_from:
            raise UsageError(
                "--init-from names no model", advice="Name a run, a model folder or a GGUF file."
            )
        for name, usual in (("init", "normal"), ("positions", "twelvefold")):
            value = getattr(self, name)
            if value != usual:
                raise UsageError(
                    f"--{name} {value} would take the place of weights of --init-from "
                    f"{self.init_from}",
                    advice=f"Leave --{name} out, or leave out --init-from.",
                )

    def _check_adapters(self) -> None:
        """Refuse adapters that cannot be, or beside which something else would be trained."""
        _at_least("--lora-rank", self.lora_rank, 0)
        if self.lora_alpha is not None and not LEAST_ALPHA <= self.lora_alpha <= MOST_ALPHA:
            raise UsageError(
                f"--lora-alpha is {self.lora_alpha:g}",
                advice=f"It must be between {LEAST_ALPHA:g} and {MOST_ALPHA:g}; as much as "
                "--lora-rank or twice that is usual.",
            )
        if not self.lora_rank:
            if self.lora_alpha is not None:
                raise UsageError(
                    f"--lora-alpha {self.lora_alpha:g} weighs adapters, and --lora-rank 0 has none",
                    advice="Add --lora-rank 8, or leave it out.",
                )
            return
        if self.init_from is None:
            raise UsageError(
                f"--lora-rank {self.lora_rank} trains adapters of a model, and none is named",
                advice="Add --init-from MODEL, or leave --lora-rank out.",
            )
        wrong = {
            f"--crystalline-epsilon {self.crystalline_epsilon:g}": self.smooths,
            f"--attention {self.attention}": self.attention != "standard",
        }
        for what, is_there in wrong.items():
            if is_there:
                raise UsageError(
                    f"{what} teaches all weights of a model, and --lora-rank {self.lora_rank} "
                    "trains adapters alone",
                    advice="Leave one of them out.",
                )

    @property
    def adapter(self) -> AdapterConfig | None:
        """The adapters that are trained; None where all weights are."""
        if not self.lora_rank:
            return None
        from crystalline.model.adapters import AdapterConfig  # with NumPy, which --help need not

        alpha = 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
        return AdapterConfig(self.lora_rank, alpha)

    @property
    def smooths(self) -> bool:
        """Whether targets are shared with similar tokens."""
        return self.crystalline_epsilon > 0

    @property
    def uses_crystal(self) -> bool:
        """Whether training needs the arithmetic of the vocabulary."""
        return self.smooths or self.init == "lattice" or self.attention == "crystalline"

    @property
    def sequences_per_step(self) -> int:
        """Sequences that one optimizer step sums over."""
        return self.batch_size * self.accumulation_steps

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sums over."""
        return self.sequences_per_step * self.seq_len

    @property
    def final_lr(self) -> float:
        """Learning rate at the end of the schedule."""
        return self.learning_rate / 10 if self.min_lr is None else self.min_lr

    def planned(self, plan: Plan, *, spelled: bool) -> TrainConfig:
        """Return the settings with a plan; one of a single piece is just a number of steps.

        Unless it is to be `spelled` out: it was fitted to the time, or given as a plan.
        """
        text = str(plan) if spelled or len(plan.pieces) > 1 else None
        return replace(self, plan=text, max_steps=plan.max_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for files."""
        return asdict(self)


def _at_least(flag: str, value: float, least: float) -> None:
    if not value >= least:
        raise UsageError(f"{flag} is {value}", advice=f"It must be at least {least}.")


def _positive(flag: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{flag} is {value}", advice="It must be greater than 0.")
