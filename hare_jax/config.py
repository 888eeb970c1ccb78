"""All settings of training and evaluation, typed, with units.

Configs are built in Python (see configs/) and overridden from the command line:
`--config.training.optimizer.peak_lr=5e-4`. Overrides assign fields, so no class is frozen. This
module imports the standard library only.
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")


class DType(enum.Enum):
    """The dtype of matrix products; parameters, norms, softmax and loss are always float32."""

    FLOAT32 = "float32"  # on CPU, where bfloat16 is slower
    BFLOAT16 = "bfloat16"  # on GPU and TPU


class AttentionKernel(enum.Enum):
    """The implementation of attention in training."""

    AUTO = "auto"  # the first of splash, cudnn and xla that supports the platform and the shapes
    XLA = "xla"  # every platform; holds the attention scores of a layer in memory
    CUDNN = "cudnn"  # GPU, bfloat16; packed rows from Hopper on
    SPLASH = "splash"  # TPU; sequences of a multiple of 128 tokens


class Matmul(enum.Enum):
    """The precision of the layers' matrix products; embedding and head always use DType."""

    COMPUTE_DTYPE = "compute_dtype"  # Model.compute_dtype
    FP8 = "fp8"  # e4m3, gradients e5m2, each tensor scaled by its maximum; from Hopper on


class Remat(enum.Enum):
    """The values of a layer that are saved for the backward pass; the others are recomputed."""

    NONE = "none"  # save everything
    DOTS = "dots"  # save the results of matrix products with parameters
    ATTENTION = "attention"  # save q, k, v, gate, up, and the residuals of a fused attention kernel
    FULL = "full"  # save only each layer's input


class Algorithm(enum.Enum):
    """The optimizer; see training/optim.py for the papers."""

    ADAMW = "adamw"
    LION = "lion"  # needs a learning rate 3 to 10 times lower than AdamW, and that much more decay
    MUON = "muon"  # for the layers' matrices; AdamW at the same learning rate for all others


class Schedule(enum.Enum):
    """The learning rate after the warmup, from peak to `final_lr_fraction` of it."""

    COSINE = "cosine"  # half a cosine over all steps after the warmup
    WSD = "wsd"  # constant, then linear over the last `decay_fraction` of the steps
    CONSTANT = "constant"  # always peak


class RopeMethod(enum.Enum):
    """How rotary positions are scaled for a context longer than in training."""

    NONE = "none"  # not scaled
    LINEAR = "linear"  # all positions are divided by the factor (arXiv 2306.15595)
    LLAMA3 = "llama3"  # low frequencies are divided by the factor, high ones kept (Llama 3.1)
    YARN = "yarn"  # likewise, by another rule, and scores are scaled too (arXiv 2309.00071)


@dataclass(slots=True, unsafe_hash=True)  # hashed as a part of the model's static graph
class RopeScaling:
    """The scaling of rotary positions."""

    method: RopeMethod = RopeMethod.NONE  # rule
    factor: float = 1.0  # length of the new context, in lengths of the original one; at least 1
    original_length: int = 8192  # LLAMA3, YARN: tokens of the context before scaling
    # LLAMA3, YARN: a frequency with fewer rotations within the original context is divided by the
    # factor; one with more than `high_rotations` is kept.
    low_rotations: float = 1.0
    high_rotations: float = 4.0  # usually 4 for LLAMA3 and 32 for YARN
    attention_factor: float = 0.0  # YARN: factor of cos and sin; 0: 0.1 ln(factor) + 1


@dataclass(slots=True, unsafe_hash=True)  # hashed as a part of the model's static graph
class Model:
    """The Mistral architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    With `qk_norm` it is that of Qwen3, with `nope_every=4` that of SmolLM3.
    """

    vocab_size: int = 32_000  # tokens; must equal that of the tokenizer of the data
    num_layers: int = 22  # at least 1
    d_model: int = 2048  # width of the residual stream
    num_heads: int = 32  # query heads
    num_kv_heads: int = 8  # key-value heads; must divide num_heads
    head_dim: int = 64  # width of a head, even
    d_ff: int = 5632  # width of the feed-forward layer
    rope_theta: float = 10_000.0  # base of the wavelengths of rotary positions
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)  # for longer contexts
    nope_every: int = 0  # each layer of this number has no rotary positions; 0: all layers have
    qk_norm: bool = False  # True: RMSNorm of each head's queries and keys, before the rotation
    norm_eps: float = 1e-5  # added to the mean square in RMSNorm
    tied_head: bool = False  # True: the output head is the transposed embedding
    sliding_window: int | None = None  # tokens that a token attends to, itself included; None: all
    attention: AttentionKernel = AttentionKernel.AUTO  # implementation; results differ by rounding
    # Segments per row that kernel cudnn reserves memory for; a run of padding counts as one.
    max_segments: int = 32
    matmul: Matmul = Matmul.COMPUTE_DTYPE  # precision of the layers' matrix products
    remat: Remat = Remat.NONE  # what is recomputed in the backward pass, to save memory
    # True compiles one layer and scans over it. False compiles each layer separately: longer
    # compilation, somewhat less memory, and on a CPU up to a third less time per step.
    scan_layers: bool = True
    compute_dtype: DType = DType.BFLOAT16  # dtype of matrix products
    # Dtype in which the gradients of the layers' matrices are summed over devices. BFLOAT16 halves
    # what is sent. Those of embedding, head and norms are always summed in float32.
    reduce_dtype: DType = DType.FLOAT32


@dataclass(slots=True)
class Optimizer:
    """The optimizer and its learning rate; defaults follow the paper where it states them."""

    algorithm: Algorithm = Algorithm.ADAMW  # update rule
    peak_lr: float = 3e-4  # learning rate after the warmup
    schedule: Schedule = Schedule.COSINE  # learning rate after the warmup
    warmup_steps: int = 2000  # steps of linear increase to peak_lr; 0: none; less than all steps
    final_lr_fraction: float = 0.1  # final learning rate, as a fraction of peak_lr
    decay_fraction: float = 0.2  # for Schedule.WSD: share of all steps with decay, in (0, 1]
    b1: float = 0.9  # AdamW, Lion: decay of the first moment, in [0, 1)
    b2: float = 0.95  # AdamW, Lion: decay of the second moment, in [0, 1)
    eps: float = 1e-8  # AdamW: added to the denominator of an update
    momentum: float = 0.95  # Muon: decay of the momentum, in [0, 1)
    weight_decay: float = 0.1  # per step, times the learning rate; all matrices, not norm scales
    clip_norm: float = 1.0  # maximum global norm of the gradient


@dataclass(slots=True)
class Stage:
    """A number of training steps on one mixture; sources continue where the last stage stopped."""

    name: str  # unique within the run; in logs and metrics
    mixture: str  # name of a mixture in the packed data
    tokens: int  # training tokens, rounded up to whole steps; more than 0
    # Source -> weight that replaces its weight in the mixture, without baking again: {"web": 2.0}.
    weights: dict[str, float] = field(default_factory=dict)
    dropout: float = 0.0  # dropout rate on what each layer adds to the residual stream, in [0, 1)


@dataclass(slots=True)
class Slices:
    """The number of TPU slices, or GPU hosts, that each mesh axis spans.

    The network between slices is slow, so axes with little communication should span them. The
    numbers multiply to all slices. 0 is inferred: as many slices as divide the axis, first for
    data, then fsdp, then tensor.
    """

    data: int = 0  # 0: inferred
    fsdp: int = 0  # 0: inferred
    tensor: int = 0  # 0: inferred


@dataclass(slots=True)
class Mesh:
    """The number of devices along each mesh axis; at most one is -1, all remaining devices."""

    data: int = 1  # copies of the parameters; the batch is sharded; -1: all remaining devices
    fsdp: int = -1  # shards of the parameters and of the batch; -1: all remaining devices
    tensor: int = 1  # shards of heads, feed-forward and vocabulary; -1: all remaining devices
    slices: Slices = field(default_factory=Slices)  # matters only with several slices or hosts


@dataclass(slots=True)
class Checkpointing:
    """The schedule of checkpoints, and the number that is kept."""

    every_steps: int = 1000  # steps between saves, at least 1; also at the last step and at SIGTERM
    every_minutes: float = 0.0  # minutes after which to save besides; 0: by steps only
    keep: int = 2  # latest checkpoints that are kept, at least 1
    keep_every: int = 0  # checkpoints of multiples of this step are kept permanently; 0: none


class OnFault(enum.Enum):
    """The action at a bad step."""

    STOP = "stop"  # stop the run; the last checkpoint is intact
    SKIP = "skip"  # keep parameters and moments; the learning rate schedule advances
    IGNORE = "ignore"  # treat it like any other step


@dataclass(slots=True)
class Faults:
    """The handling of bad steps and of stalled steps.

    The documents of each bad step are written to bad-steps/, whether it stops the run or is
    skipped.
    """

    not_finite: OnFault = OnFault.STOP  # loss or gradient norm is NaN or infinite; not IGNORE
    spike: OnFault = OnFault.IGNORE  # loss is far above the recent losses
    spike_z: float = 6.0  # threshold of a spike, in standard deviations above the recent mean
    spike_window: int = 128  # recent losses: of this many latest good steps of the stage
    spike_warmup: int = 32  # losses that must be known before spikes are detected, at least 2
    max_skipped: int = 20  # consecutive skipped steps that stop the run, at least 1
    hang_seconds: float = 0.0  # time limit of a step, save or batch, then all stacks; 0: no limit
    hang_abort: bool = False  # True: also exit with status 75 at the time limit


@dataclass(slots=True)
class ProfilerWindow:
    """The steps that the profiler traces."""

    first_step: int = 0  # 1 is the first step; 0: no trace
    last_step: int = 0  # included; 0: no trace


class Protocol(enum.Enum):
    """The version of lm-evaluation-harness to follow; evaluation/benchmarks/protocols.py."""

    CURRENT = "current"  # as the installed lm-evaluation-harness does
    LEADERBOARD_V1 = "leaderboard_v1"  # as the Open LLM Leaderboard did in 2023


@dataclass(slots=True)
class BenchmarkOptions:
    """Options of benchmarks, during training and after it."""

    protocol: Protocol = Protocol.CURRENT  # version of lm-evaluation-harness to follow
    data: str = ""  # a folder that configs/benchmarks.py has written; "": the Hugging Face hub
    task_folders: tuple[str, ...] = ()  # folders of further lm-eval task files (YAML)
    shots: int = -1  # examples before each question; -1: each benchmark's own number
    limit: int = 0  # items per task; 0: all
    max_length: int = 0  # tokens that the model reads at most; 0: as in training
    batch_tokens: int = 8192  # tokens per batch on each device, padding included
    compute_dtype: DType = DType.FLOAT32  # of matrix products


@dataclass(slots=True)
class InLoopConfig(BenchmarkOptions):
    """Benchmarks during training, scored as configs/evaluate.py does.

    In-loop evaluation changes neither the run's fingerprint nor its results.
    """

    every_steps: int = 0  # steps between evaluations, and after the last step; 0: never
    benchmarks: tuple[str, ...] = ("hellaswag", "arc_easy", "piqa")  # as in configs/evaluate.py
    limit: int = 200  # items per task; 0: all


@dataclass(slots=True)
class Training:
    """A training run."""

    stages: list[Stage] = field(default_factory=list)  # in order; at least one
    batch_size: int = 1024  # sequences per step, over all devices
    accumulation: int = 1  # parts of the batch, computed one after the other to save memory
    seed: int = 0  # of the initial parameters and of the order of the data
    start_from: str = ""  # run, import or checkpoint whose parameters to start from; "": random
    # Run or checkpoint whose whole state a new run begins with: parameters, optimizer, place in the
    # data. These settings then hold from its step on. "": none.
    continue_from: str = ""
    name: str = ""  # of the run's folder, training-NAME; "": named by a hash of its settings
    optimizer: Optimizer = field(default_factory=Optimizer)  # update rule and learning rate
    mesh: Mesh = field(default_factory=Mesh)  # how devices share the model and the batch
    checkpointing: Checkpointing = field(default_factory=Checkpointing)  # when to save and keep
    faults: Faults = field(default_factory=Faults)  # handling of bad and stalled steps
    # GPU: only kernels that give the same bits each time; slower. CPU and TPU need no setting.
    deterministic: bool = False
    z_loss: float = 0.0  # weight of log(Z)^2 in the loss; 1e-4 is common; 0: none
    loss_chunks: int = 8  # chunks of a sequence, of which one has logits at a time; divides T
    max_epochs: float = 20.0  # maximum repetitions of a source; a plan with more is refused
    log_every: int = 10  # steps per row of metrics.jsonl
    profile: ProfilerWindow = field(default_factory=ProfilerWindow)  # steps to trace
    wandb_project: str = ""  # project of Weights & Biases (extra `wandb`); "": none
    in_loop: InLoopConfig = field(default_factory=InLoopConfig)  # benchmarks during training


@dataclass(slots=True)
class Evaluation:
    """Evaluation on held-out data after training."""

    batch_tokens: int = 8192  # tokens per batch, padding included
    baseline_records: int = 10_000  # rows per source for the unigram baseline, at most
    samples: int = 8  # held-out prompts to complete; 0: none
    prompt_tokens: int = 32  # tokens of a prompt, at most
    sample_tokens: int = 64  # tokens of a completion, at most
    temperature: float = 0.8  # 0: the most probable token
    top_k: int = 0  # sample from this many most probable tokens; 0: all
    top_p: float = 0.95  # sample from the most probable tokens of this total probability; 1: all
    seed: int = 0  # of the sampling


@dataclass(slots=True)
class BenchmarkEvaluation(BenchmarkOptions):
    """Scores of a checkpoint on benchmarks: configs/evaluate.py."""

    checkpoint: str = ""  # a run's folder, one checkpoint of it, or a Hugging Face folder
    # Names of hare_jax/evaluation/benchmarks/registry.py, or tasks of lm-evaluation-harness.
    benchmarks: tuple[str, ...] = (
        "mmlu",
        "arc_challenge",
        "truthfulqa",
        "winogrande",
        "hellaswag",
        "gsm8k",
    )


@dataclass(slots=True)
class ResultComparison:
    """A comparison of results of configs/evaluate.py: configs/compare.py."""

    results: list[str] = field(default_factory=list)  # scores-*.json files, or folders with them


@dataclass(slots=True)
class OfflineBenchmarkData:
    """Benchmark files in the layout that lm-eval reads: configs/benchmarks.py."""

    source: str = ""  # a folder with SPLIT.jsonl.gz, .jsonl or .parquet for each benchmark
    out: str = ""  # a new folder, for the field `data` of configs/evaluate.py


class LeakageDefinition(enum.Enum):
    """The prefix that the model continues in the audit."""

    BENBENCH = "benbench"  # the text before, decoded and tokenized again, like GAIR-NLP/benbench
    IDS = "ids"  # the token ids before


@dataclass(slots=True)
class LeakageAudit:
    """An audit of whether benchmark items were in the training data: configs/audit.py.

    The default names of fields and files are those of GAIR-NLP/benbench.
    """

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    original: str = ""  # the items: a JSON Lines file, .gz too
    # The paraphrased items; a pattern for several files; "": paraphrased by rules.
    paraphrased: str = ""
    # Several sets instead: a folder with NAME_original.jsonl[.gz] and NAME_rewritten*; "": one set.
    folder: str = ""
    control: str = ""  # similar items that the model cannot have seen, as a reference; "": none
    control_paraphrased: str = ""  # their paraphrases; "": paraphrased by rules
    id: str = "id"  # name of the items' field with the id
    question: str = "question"  # name of the field with the question
    answer: str = "answer"  # name of the field with the answer
    choices: str = ""  # name of the field with the choices; "": not multiple choice
    paraphrased_question: str = "rewritten_question"  # name of the field in the paraphrased items
    paraphrased_answer: str = "rewritten_answer"  # name of the field in the paraphrased items
    paraphrased_choices: str = "rewritten_choices"  # name of the field in the paraphrased items
    definition: LeakageDefinition = LeakageDefinition.BENBENCH  # prefix that the model continues
    ngram: int = 5  # tokens to predict after each prefix
    num_prefixes: int = 5  # prefixes per text
    threshold: float = 0.05  # excess accuracy above which a set counts as contaminated, in (0, 1)
    confidence: float = 0.95  # of the intervals, in (0, 1)
    resamples: int = 10_000  # of the bootstrap
    max_items: int = 0  # items per set, drawn by `seed`; 0: all
    max_length: int = 0  # tokens that the model reads at most; 0: as in training
    batch_tokens: int = 8192  # tokens per batch, padding included
    seed: int = 0  # of the bootstrap, of `max_items` and of the order of choices
    out: str = ""  # folder for the results; "": leakage/NAME in the run's folder


@dataclass(slots=True)
class LeakageParaphrasing:
    """Paraphrases of benchmark items by a teacher: configs/paraphrase.py."""

    original: str = ""  # the items: a JSON Lines file, .gz too
    id: str = "id"  # name of the items' field with the id
    question: str = "question"  # name of the field with the question
    answer: str = "answer"  # name of the field with the answer
    choices: str = ""  # name of the field with the choices; "": not multiple choice
    versions: int = 1  # paraphrases per item
    max_attempts: int = 3  # requests per paraphrase, until a reply passes the checks
    max_items: int = 0  # items, drawn by `seed`, the same as in an audit; 0: all
    answer_tokens: int = 1024  # tokens of a reply, at most
    seed: int = 0  # of `max_items` and of the order of choices


@dataclass(slots=True)
class Trace:
    """The documents of one or more training steps: configs/trace.py."""

    run_dir: str = ""  # a run's folder
    step: int = 0  # 1 is the first step, as in metrics.jsonl
    last_step: int = 0  # last of several steps, included; 0: only `step`
    mixture: str = ""  # folder of the run's mixture, if it was moved; "": as in training
    json: str = ""  # file for the result, besides the table; "": none
    words: int = 0  # words of each piece's text in the table; 0: none


class Launch(enum.Enum):
    """The way in which this process finds the others of its run."""

    AUTO = "auto"  # by `coordinator` if it is given, else by SLURM or a TPU pod, else single
    ALONE = "alone"  # a single process, whatever SLURM or a TPU pod reports


@dataclass(slots=True)
class Distributed:
    """The processes of a multi-process run; SLURM and TPU pods provide all of this."""

    launch: Launch = Launch.AUTO  # how this process finds the others
    coordinator: str = ""  # HOST:PORT of process 0, the same in all processes; "": see `launch`
    processes: int = 0  # number of processes, the same in all; 0: not given
    process: int = -1  # number of this process, 0 to processes - 1; -1: not given
    timeout: int = 300  # seconds that processes wait for each other at the start


class Architecture(enum.Enum):
    """The architecture that a Hugging Face checkpoint names."""

    AUTO = "auto"  # the first of these that supports the model
    MISTRAL = "mistral"
    LLAMA = "llama"  # no sliding window
    QWEN3 = "qwen3"  # normalized queries and keys
    SMOLLM3 = "smollm3"  # some layers without rotary positions; no sliding window


class Quantization(enum.Enum):
    """The format of matrices in a GGUF file; norms stay float32."""

    F16 = "F16"
    Q8_0 = "Q8_0"  # 8 bits per weight, and a float16 scale per 32 weights
    Q4_0 = "Q4_0"  # 4 bits per weight, and a float16 scale per 32 weights


@dataclass(slots=True)
class HuggingFaceExport:
    """An export of a checkpoint for transformers: configs/export_hf.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    out: str = ""  # a new folder
    architecture: Architecture = Architecture.AUTO  # name in config.json
    dtype: DType = DType.FLOAT32  # of the tensors; BFLOAT16 halves the files and rounds
    shard_gb: float = 5.0  # 10^9 bytes per file at most, unless one tensor is larger


@dataclass(slots=True)
class HuggingFaceImport:
    """An import of a Mistral or Llama checkpoint: configs/import_hf.py."""

    source: str = ""  # a folder with config.json and safetensors
    out: str = ""  # a new folder, which can be used like a run's folder


@dataclass(slots=True)
class AheadOfTime:
    """A compilation of the train step for hardware that is not attached: configs/aot.py."""

    hardware: str  # a name of aot/hardware.py: v5e-8, 2xv5e-16, h200
    model: Model = field(default_factory=Model)  # the model
    training: Training = field(default_factory=Training)  # batch, mesh and stages
    sequence_length: int = 2048  # tokens per sequence
    largest: bool = True  # also search the largest batch that fits: three to six compilations


@dataclass(slots=True)
class GgufExport:
    """An export of a checkpoint as one file for llama.cpp: configs/export_gguf.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    out: str = ""  # a new file
    quantization: Quantization = Quantization.F16  # format of the matrices
    name: str = ""  # model name that programs display; "": the file's name


@dataclass(slots=True)
class Generation:
    """A prompt, continued on the terminal: configs/generate.py."""

    checkpoint: str = ""  # a run's folder, or one checkpoint of it
    prompt: str = ""  # text to continue
    max_tokens: int = 256  # new tokens, at most
    max_length: int = 0  # tokens of prompt and continuation together, at most; 0: as in training
    temperature: float = 0.8  # 0: the most probable token
    top_k: int = 0  # sample from this many most probable tokens; 0: all
    top_p: float = 0.95  # sample from the most probable tokens of this total probability; 1: all
    seed: int = 0  # of the sampling


def plain(config: Any) -> dict[str, Any]:
    """Converts a config for JSON: dataclasses to dicts, enums to their values."""
    return _plain(asdict(config))


def from_plain(kind: type[T], value: dict[str, Any]) -> T:
    """Converts the result of `plain` back; missing fields keep their defaults.

    >>> from_plain(Slices, {"data": 2})
    Slices(data=2, fsdp=0, tensor=0)

    Raises ValueError for an unknown field or an unknown value of an enum.
    """
    known = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(value) - set(known):
        raise ValueError(f"got {sorted(unknown)}, which are not fields of {kind.__name__}")
    return kind(**{name: _typed(known[name], item) for name, item in value.items()})


def _typed(kind: Any, value: Any) -> Any:
    """Converts a JSON value to the type of a field."""
    if is_dataclass(kind):
        return from_plain(kind, value)  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if get_origin(kind) in (list, tuple):
        return get_origin(kind)(_typed(get_args(kind)[0], item) for item in value)
    return value


def _plain(value: Any) -> Any:
    """Replaces enums by their values, and tuples by lists."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
