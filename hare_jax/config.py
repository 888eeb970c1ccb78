"""Every knob of training and evaluation, typed, with units. Standard library only.

Built in Python (see configs/) and overridden from the command line:
`--config.training.optimizer.peak_lr=5e-4`. Nothing here is frozen, since overrides assign.
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")


class DType(enum.Enum):
    """What matrix products are computed in. Parameters, norms, softmax and loss stay float32."""

    FLOAT32 = "float32"  # on CPU, where bfloat16 is slower
    BFLOAT16 = "bfloat16"


class AttentionKernel(enum.Enum):
    AUTO = "auto"  # the first of splash, cudnn and xla that can do what is asked, here
    XLA = "xla"  # everywhere; holds the scores of a layer in memory
    CUDNN = "cudnn"  # GPU, bfloat16; packed rows from Hopper on
    SPLASH = "splash"  # TPU; sequences of a multiple of 128 tokens


class Matmul(enum.Enum):
    """What the matrix products of the layers are computed in; never those of embedding and head."""

    COMPUTE_DTYPE = "compute_dtype"
    FP8 = "fp8"  # e4m3, gradients e5m2, each tensor scaled by its largest number; for Hopper on


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
    max_segments: int = 32  # documents of a row that kernel cudnn has room for; padding counts as 1
    matmul: Matmul = Matmul.COMPUTE_DTYPE
    remat: Remat = Remat.NONE
    # False compiles every layer apart: longer, for somewhat less memory, and on a CPU up to a third
    # less time a step.
    scan_layers: bool = True
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
class Slices:
    """How many slices of TPUs, or hosts of GPUs, each axis of the mesh goes across.

    Between them the network is slow, so what speaks least goes across: 0 is as many as the axis
    can be cut in, data first, then fsdp, then tensor. Together they multiply to all there are.
    """

    data: int = 0
    fsdp: int = 0
    tensor: int = 0


@dataclass(slots=True)
class Mesh:
    """Devices along each axis; one of them may be -1: all the devices that the others leave."""

    data: int = 1  # copies of the parameters
    fsdp: int = -1  # parameters cut in as many parts, the batch too
    tensor: int = 1  # heads, feed-forward and vocabulary cut in as many parts
    slices: Slices = field(default_factory=Slices)  # matters where there are several


@dataclass(slots=True)
class Checkpointing:
    every_steps: int = 1000  # besides the last step, and the step at which a signal came
    keep: int = 2  # the latest so many
    keep_every: int = 0  # those of steps that are multiples of it stay for good; 0: none


class OnFault(enum.Enum):
    STOP = "stop"  # the run ends; the last checkpoint is intact
    SKIP = "skip"  # neither parameters nor moments change; the schedule goes on
    IGNORE = "ignore"


@dataclass(slots=True)
class Faults:
    """What to do about steps that should not be learned from, and about steps that do not end.

    The documents of each such step are written down, whether it stops the run or is left out.
    """

    not_finite: OnFault = OnFault.STOP  # no number for the loss, or for the gradient's norm
    spike: OnFault = OnFault.IGNORE  # a loss far above those before it
    spike_z: float = 6.0  # above the mean of the losses before it, in their standard deviations
    spike_window: int = 128  # losses before it, of good steps of the same stage
    spike_warmup: int = 32  # losses that must be known before any is judged
    max_skipped: int = 20  # so many left out in a row stop the run
    hang_seconds: float = 0.0  # a step, save or batch that takes longer is told, with all stacks
    hang_abort: bool = False  # and ends the process, for what started it to start it again


@dataclass(slots=True)
class ProfilerWindow:
    """A trace of the steps first_step to last_step, both included, 1 for the first; 0: none."""

    first_step: int = 0
    last_step: int = 0


class Protocol(enum.Enum):
    """How a benchmark is run; see evaluation/benchmarks/protocols.py for each difference."""

    CURRENT = "current"  # as the installed lm-evaluation-harness does
    LEADERBOARD_V1 = "leaderboard_v1"  # as the Open LLM Leaderboard did in 2023


@dataclass(slots=True)
class InLoopConfig:
    """Benchmarks of the parameters of the moment, as a run goes on; as configs/evaluate.py scores.

    A look at a run changes neither its name nor its numbers.
    """

    every_steps: int = 0  # and after the last step; 0: never
    benchmarks: tuple[str, ...] = ("hellaswag", "arc_easy", "piqa")
    protocol: Protocol = Protocol.CURRENT
    data: str = ""  # a folder laid out by configs/benchmarks.py; "": the Hugging Face hub
    task_folders: tuple[str, ...] = ()  # further task files of lm-eval (YAML)
    shots: int = -1  # examples before each question; -1: each benchmark's own number
    limit: int = 200  # items of each task; 0: all
    max_length: int = 0  # tokens the model reads at most; 0: as many as in training
    batch_tokens: int = 8192  # tokens a batch on each device, padding included
    compute_dtype: DType = DType.FLOAT32


@dataclass(slots=True)
class Training:
    stages: list[Stage] = field(default_factory=list)
    batch_size: int = 1024  # sequences a step, over all devices
    accumulation: int = 1  # the batch is computed in so many parts, one after the other
    seed: int = 0  # of the initial parameters and of the order of the data
    start_from: str = ""  # parameters of a run or an import, in place of random ones; "": random
    optimizer: Optimizer = field(default_factory=Optimizer)
    mesh: Mesh = field(default_factory=Mesh)
    checkpointing: Checkpointing = field(default_factory=Checkpointing)
    faults: Faults = field(default_factory=Faults)
    z_loss: float = 0.0  # weight of log(Z)^2 in the loss; 1e-4 is usual
    loss_chunks: int = 8  # a sequence is cut in so many; the logits of one exist at one time
    max_epochs: float = 20.0  # a plan that repeats a source more often is refused
    log_every: int = 10  # steps a row of metrics.jsonl is the mean of
    profile: ProfilerWindow = field(default_factory=ProfilerWindow)
    wandb_project: str = ""  # of Weights & Biases (extra `wandb`); "": none
    in_loop: InLoopConfig = field(default_factory=InLoopConfig)


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


@dataclass(slots=True)
class BenchmarkEvaluation:
    """A checkpoint on benchmarks: configs/evaluate.py."""

    checkpoint: str = ""  # a run's folder, a checkpoint of it, or a folder of Hugging Face
    benchmarks: list[str] = field(
        default_factory=lambda: [
            "mmlu",
            "arc_challenge",
            "truthfulqa",
            "winogrande",
            "hellaswag",
            "gsm8k",
        ]
    )
    protocol: Protocol = Protocol.CURRENT
    data: str = ""  # a folder laid out by configs/benchmarks.py; "": the Hugging Face hub
    task_folders: list[str] = field(default_factory=list)  # further task files of lm-eval (YAML)
    shots: int = -1  # examples before each question; -1: each benchmark's own number
    limit: int = 0  # items of each task; 0: all
    max_length: int = 0  # tokens the model reads at most; 0: as many as in training
    batch_tokens: int = 8192  # tokens a batch on each device, padding included
    compute_dtype: DType = DType.FLOAT32


@dataclass(slots=True)
class ResultComparison:
    """Results of configs/evaluate.py side by side: configs/compare.py."""

    results: list[str] = field(default_factory=list)  # scores-*.json, or folders that hold some


@dataclass(slots=True)
class OfflineBenchmarkData:
    """Benchmark files where lm-eval's task files find them: configs/benchmarks.py."""

    source: str = ""  # a folder with SPLIT.jsonl.gz, .jsonl or .parquet for each benchmark
    out: str = ""  # a new folder, to be given to configs/evaluate.py as `data`


class LeakageDefinition(enum.Enum):
    """What the model reads before it continues a benchmark's text."""

    BENBENCH = "benbench"  # the text so far, tokenized anew, as GAIR-NLP/benbench has it
    IDS = "ids"  # the text's own ids so far


@dataclass(slots=True)
class LeakageAudit:
    """Were a benchmark's items in the training data? configs/audit.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    original: str = ""  # the items: a file of JSON lines, .gz too
    rewritten: str = ""  # the same in other words; of several files a pattern; "": made by rules
    folder: str = ""  # instead: NAME_original.jsonl[.gz] of several sets, NAME_rewritten* beside
    control: str = ""  # items of the kind that the model cannot have seen: what the rest is held to
    control_rewritten: str = ""
    id: str = "id"  # this and the next: names of fields
    question: str = "question"
    answer: str = "answer"
    choices: str = ""  # where it is multiple choice
    rewritten_question: str = "rewritten_question"
    rewritten_answer: str = "rewritten_answer"
    rewritten_choices: str = "rewritten_choices"
    definition: LeakageDefinition = LeakageDefinition.BENBENCH
    ngram: int = 5  # tokens to be continued
    num_prefixes: int = 5  # of a text, at which it is continued
    threshold: float = 0.05  # excess accuracy above which a set counts as leaked
    confidence: float = 0.95  # of the intervals
    resamples: int = 10_000  # of the bootstrap
    max_items: int = 0  # of a set, drawn by `seed`; 0: all
    max_length: int = 0  # tokens the model reads at most; 0: as many as in training
    batch_tokens: int = 8192  # tokens a batch, padding included
    seed: int = 0  # of the bootstrap, of `max_items` and of options' order
    out: str = ""  # a folder for what is written; "": leakage/ beside the checkpoints


@dataclass(slots=True)
class LeakageParaphrasing:
    """A benchmark's items, to be told in other words by a teacher: configs/paraphrase.py."""

    original: str = ""  # the items: a file of JSON lines, .gz too
    id: str = "id"  # this and the next: names of fields
    question: str = "question"
    answer: str = "answer"
    choices: str = ""  # where it is multiple choice
    versions: int = 1  # of each item
    max_attempts: int = 3  # answers that are asked for, until one can be used
    max_items: int = 0  # drawn by `seed`, the same as an audit's; 0: all
    answer_tokens: int = 1024  # of the teacher's answer, at most
    seed: int = 0  # of `max_items` and of options' order


@dataclass(slots=True)
class Trace:
    """The documents of a step, or of several: configs/trace.py."""

    run_dir: str = ""
    step: int = 0  # 1 for the first, as in metrics.jsonl
    last_step: int = 0  # the last of several; 0: `step` alone
    mixture: str = ""  # where the run's mixture lies now; "": where it lay in training
    json: str = ""  # a file for all of it, besides the table; "": none
    words: int = 0  # of each piece's text in the table (extra `data`)


class Launch(enum.Enum):
    """How this process finds the others of its run."""

    AUTO = "auto"  # by `coordinator` where it is given, else SLURM, a TPU pod, or there are none
    ALONE = "alone"  # there are none, whatever the machine says


@dataclass(slots=True)
class Distributed:
    """The processes of one run. SLURM and TPU pods tell all of this themselves."""

    launch: Launch = Launch.AUTO
    coordinator: str = ""  # HOST:PORT of process 0; the same for all, like `processes`
    processes: int = 0
    process: int = -1  # this one: 0 to processes - 1
    timeout: int = 300  # seconds to wait for one another at the start


class Architecture(enum.Enum):
    """What a Hugging Face checkpoint is called; the tensors are the same."""

    MISTRAL = "mistral"
    LLAMA = "llama"  # knows no sliding window


class Quantization(enum.Enum):
    """How GGUF stores matrices; norms stay float32."""

    F16 = "F16"
    Q8_0 = "Q8_0"  # 8 bits a number, and a float16 scale for 32 of them
    Q4_0 = "Q4_0"  # 4 bits a number, and a float16 scale for 32 of them


@dataclass(slots=True)
class HuggingFaceExport:
    """A checkpoint as transformers reads it: configs/export_hf.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    out: str = ""  # a new folder
    architecture: Architecture = Architecture.MISTRAL
    dtype: DType = DType.FLOAT32  # of the tensors; BFLOAT16 halves the files and rounds
    shard_gb: float = 5.0  # 10^9 bytes a file at most, unless one tensor is larger


@dataclass(slots=True)
class HuggingFaceImport:
    """A Mistral or Llama checkpoint as one of ours: configs/import_hf.py."""

    source: str = ""  # a folder with config.json and safetensors
    out: str = ""  # a new folder, to be given wherever a run's folder is asked for


@dataclass(slots=True)
class AheadOfTime:
    """Compiles the train step for hardware that is not there: configs/aot.py."""

    hardware: str  # as aot/hardware.py has it: v5e-8, 2xv5e-16, h200
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    sequence_length: int = 2048  # tokens
    largest: bool = True  # look for the largest batch that fits too: three to six compilations


@dataclass(slots=True)
class GgufExport:
    """A checkpoint as one file for llama.cpp: configs/export_gguf.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    out: str = ""  # a new file
    quantization: Quantization = Quantization.F16
    name: str = ""  # what programs show; "": the file's


@dataclass(slots=True)
class Generation:
    """A prompt continued on the terminal: configs/generate.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    prompt: str = ""
    max_tokens: int = 256
    temperature: float = 0.8  # 0 takes the most probable token
    top_k: int = 0  # 0: all tokens
    top_p: float = 0.95
    seed: int = 0


def plain(config: Any) -> dict[str, Any]:
    """A config as JSON has it: nested dicts, enums by their values."""
    return _plain(asdict(config))


def from_plain(kind: type[T], value: dict[str, Any]) -> T:
    """The config that `plain` was given; what `value` lacks keeps its default.

    >>> from_plain(Slices, {"data": 2})
    Slices(data=2, fsdp=0, tensor=0)

    Raises ValueError for a field that `kind` does not have, and for an unknown value of an enum.
    """
    known = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(value) - set(known):
        raise ValueError(f"got {sorted(unknown)}, which are no fields of {kind.__name__}")
    return kind(**{name: _typed(known[name], item) for name, item in value.items()})


def _typed(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return from_plain(kind, value)  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if get_origin(kind) in (list, tuple):
        return get_origin(kind)(_typed(get_args(kind)[0], item) for item in value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
