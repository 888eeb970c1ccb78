"""Every knob of training and evaluation, typed, with units. Standard library only.

Built in Python (see configs/) and overridden from the command line:
`--config.training.optimizer.peak_lr=5e-4`. Nothing here is frozen, since overrides assign.
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import asdict, dataclass, field
from typing import Any


class DType(enum.Enum):
    """What matrix products are computed in. Parameters, norms, softmax and loss stay float32."""

    FLOAT32 = "float32"  # on CPU, where bfloat16 is slower
    BFLOAT16 = "bfloat16"


class AttentionKernel(enum.Enum):
    AUTO = "auto"  # the fastest kernel of this platform that honours segments
    XLA = "xla"
    CUDNN = "cudnn"  # GPU; rows of one document only, packed rows are refused


class Remat(enum.Enum):
    """What of a layer is kept for the backward pass; the rest is computed again."""

    NONE = "none"  # keep everything
    DOTS = "dots"  # keep the results of matrix products with parameters
    ATTENTION = "attention"  # keep q, k, v, gate, up, and what a fused attention kernel returns
    FULL = "full"  # keep each layer's input only


class Algorithm(enum.Enum):
    ADAMW = "adamw"
    LION = "lion"  # wants a rate 3 to 10 times lower than AdamW's, and as much more decay
    MUON = "muon"  # the matrices of the layers; embedding, head and norms by AdamW at the same rate


class Schedule(enum.Enum):
    """The learning rate after the warm-up, from peak to `final_lr_fraction` of it."""

    COSINE = "cosine"
    WSD = "wsd"  # constant, then linear over the last `decay_fraction` of the steps
    CONSTANT = "constant"


@dataclass(slots=True, unsafe_hash=True)  # hashed as a part of the model's static graph
class Model:
    """The Mistral architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    vocab_size: int = 32_000
    num_layers: int = 22
    d_model: int = 2048
    num_heads: int = 32  # query heads
    num_kv_heads: int = 8  # key-value heads; each serves num_heads / num_kv_heads query heads
    head_dim: int = 64
    d_ff: int = 5632
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied_head: bool = False  # whether the output head is the embedding, transposed
    sliding_window: int | None = None  # tokens that a token sees, itself included; None: all before
    attention: AttentionKernel = AttentionKernel.AUTO
    remat: Remat = Remat.NONE
    scan_layers: bool = True  # False compiles every layer apart: longer, for somewhat less memory
    compute_dtype: DType = DType.BFLOAT16


@dataclass(slots=True)
class Optimizer:
    """Defaults follow the paper where it speaks (peak learning rate 3e-4)."""

    algorithm: Algorithm = Algorithm.ADAMW
    peak_lr: float = 3e-4
    schedule: Schedule = Schedule.COSINE
    warmup_steps: int = 2000
    final_lr_fraction: float = 0.1  # of peak_lr
    decay_fraction: float = 0.2  # of all steps, for Schedule.WSD
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95  # of Algorithm.MUON
    weight_decay: float = 0.1  # of every matrix, the embedding too; not of norm scales
    clip_norm: float = 1.0  # of the gradient, over all parameters


@dataclass(slots=True)
class Stage:
    """A stretch of training on one mixture. Sources go on where the stage before left them.

    `weights` replaces the baked weights of the mixture, without baking again: {"web": 2.0}.
    """

    name: str
    mixture: str
    tokens: int  # rounded up to whole steps
    weights: dict[str, float] = field(default_factory=dict)
    dropout: float = 0.0  # share of numbers that are left out of what a layer adds, in [0, 1)


@dataclass(slots=True)
class Mesh:
    """Devices along each axis; one of them may be -1: all the devices that the others leave."""

    data: int = 1  # copies of the parameters
    fsdp: int = -1  # parameters cut in as many parts, the batch too
    tensor: int = 1  # heads, feed-forward and vocabulary cut in as many parts


@dataclass(slots=True)
class Checkpointing:
    every_steps: int = 1000  # besides the last step, and the step at which a signal came
    keep: int = 2  # the latest so many


@dataclass(slots=True)
class Training:
    stages: list[Stage] = field(default_factory=list)
    batch_size: int = 1024  # sequences a step, over all devices
    accumulation: int = 1  # the batch is computed in so many parts, one after the other
    seed: int = 0  # of the initial parameters and of the order of the data
    optimizer: Optimizer = field(default_factory=Optimizer)
    mesh: Mesh = field(default_factory=Mesh)
    checkpointing: Checkpointing = field(default_factory=Checkpointing)
    z_loss: float = 0.0  # weight of log(Z)^2 in the loss; 1e-4 is usual
    loss_chunks: int = 8  # a sequence is cut in so many; the logits of one exist at one time
    max_epochs: float = 20.0  # a plan that repeats a source more often is refused
    log_every: int = 10  # steps a row of metrics.jsonl is the mean of


@dataclass(slots=True)
class Evaluation:
    batch_tokens: int = 8192  # tokens a batch, padding included
    baseline_records: int = 10_000  # rows of a source that the unigram baseline counts, at most
    samples: int = 8  # completions of held-out prompts
    prompt_tokens: int = 32
    sample_tokens: int = 64
    temperature: float = 0.8  # 0 takes the most probable token
    top_k: int = 0  # 0: all tokens
    top_p: float = 0.95
    seed: int = 0


def plain(config: Any) -> dict[str, Any]:
    """A config as JSON has it: nested dicts, enums by their values."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
