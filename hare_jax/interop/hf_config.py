"""Conversion between a Model and the config.json of a Hugging Face checkpoint.

The architectures are Mistral, Llama, Qwen3 and SmolLM3.

A setting that a Model cannot represent is refused by name, so that a checkpoint never computes
something else than it was trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hare_jax.config import Architecture, DType, Model, RopeMethod, RopeScaling
from hare_jax.model.rope import attention_factor

CLASSES = {
    Architecture.MISTRAL: "MistralForCausalLM",
    Architecture.LLAMA: "LlamaForCausalLM",
    Architecture.QWEN3: "Qwen3ForCausalLM",
    Architecture.SMOLLM3: "SmolLM3ForCausalLM",
}
# What transformers assumes for fields that config.json does not have.
DEFAULTS: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DEFAULTS_OF: dict[str, dict[str, Any]] = {
    "mistral": {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "llama": {"num_key_value_heads": None, "max_position_embeddings": 2048},
    "qwen3": {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "smollm3": {
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_theta": 2_000_000.0,
        "no_rope_layer_interval": 4,
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
    },
}
# Values that do not change the logits; any other value does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
}


def from_model(
    model: Model, mixture: Mapping[str, Any], architecture: Architecture, dtype: str
) -> dict[str, Any]:
    """Returns the content of config.json for a Model.

    Args:
      model: the model to describe.
      mixture: its sequence length and the ids of <s> and </s>, see training/run_dir.py.
      architecture: the Hugging Face architecture to name.
      dtype: of the tensors, such as "float32".

    Raises:
      ValueError: the architecture cannot represent the model.
    """
    m = model
    architecture = _architecture(m, architecture)
    config = {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture.value,
        "vocab_size": m.vocab_size,
        "num_hidden_layers": m.num_layers,
        "hidden_size": m.d_model,
        "intermediate_size": m.d_ff,
        "num_attention_heads": m.num_heads,
        "num_key_value_heads": m.num_kv_heads,
        "head_dim": m.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": m.norm_eps,
        **_rope_fields(m),
        "max_position_embeddings": mixture["sequence_length"],
        "tie_word_embeddings": m.tied_head,
        "bos_token_id": mixture["tokenizer"]["bos_id"],
        "eos_token_id": mixture["tokenizer"]["eos_id"],
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
    }
    if architecture is Architecture.MISTRAL:
        config["sliding_window"] = m.sliding_window  # a missing field means 4096
    elif architecture is Architecture.QWEN3:
        config |= {
            "attention_bias": False,
            "use_sliding_window": m.sliding_window is not None,
            "sliding_window": m.sliding_window,
            "max_window_layers": 0,  # layers before this one have no window
        }
    else:
        config |= {"attention_bias": False, "mlp_bias": False}
    if architecture is Architecture.SMOLLM3:
        config |= {
            "no_rope_layers": [int((i + 1) % m.nope_every != 0) for i in range(m.num_layers)],
            "no_rope_layer_interval": m.nope_every,
            "use_sliding_window": False,
            "pad_token_id": None,  # a missing field means 128004
        }
    return config


def _architecture(model: Model, requested: Architecture) -> Architecture:
    """Returns an architecture that represents the model: `requested` if it is not AUTO.

    Raises ValueError if it does not, or if none does.
    """
    window = model.sliding_window is not None
    traits = {
        f"qk_norm={model.qk_norm}": (model.qk_norm, {Architecture.QWEN3}),
        f"nope_every={model.nope_every}": (bool(model.nope_every), {Architecture.SMOLLM3}),
        f"sliding_window={model.sliding_window}": (
            window,
            {Architecture.MISTRAL, Architecture.QWEN3},
        ),
    }
    supported = set(CLASSES)
    for holds, architectures in traits.values():
        if holds:
            supported &= architectures
    if not model.qk_norm:
        supported -= {Architecture.QWEN3}
    if not model.nope_every:
        supported -= {Architecture.SMOLLM3}
    present = ", ".join(name for name, (holds, _) in traits.items() if holds)
    if not supported:
        raise ValueError(
            f"no architecture of Hugging Face has {present} together: train without one of them"
        )
    if requested is Architecture.AUTO:
        return next(architecture for architecture in CLASSES if architecture in supported)
    if requested not in supported:
        names = " or ".join(f"{a.name}" for a in CLASSES if a in supported)
        raise ValueError(
            f"architecture {requested.value!r} cannot represent the model with "
            f"{present or 'neither qk_norm nor nope_every'}: export it with "
            f"--config.architecture={names}"
        )
    return requested


def _rope_fields(model: Model) -> dict[str, Any]:
    """Returns the fields of rotary positions, as transformers 4 and 5 read them."""
    scaling = model.rope_scaling
    if scaling.method is RopeMethod.NONE:
        return {"rope_theta": model.rope_theta}
    fields: dict[str, Any] = {
        "rope_type": scaling.method.value,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_length,
    }
    if scaling.method is RopeMethod.LLAMA3:
        fields["low_freq_factor"] = scaling.low_rotations
        fields["high_freq_factor"] = scaling.high_rotations
    if scaling.method is RopeMethod.YARN:
        fields["beta_slow"] = scaling.low_rotations
        fields["beta_fast"] = scaling.high_rotations
        fields["attention_factor"] = attention_factor(scaling)
    return {"rope_theta": model.rope_theta, "rope_scaling": fields}


def to_model(config: Mapping[str, Any], file: Path) -> Model:
    """Returns the Model that a config.json describes.

    `file` is named in errors. Raises ValueError for a setting that a Model cannot represent.
    """
    kind = config.get("model_type")
    if kind not in DEFAULTS_OF:
        raise ValueError(
            f"{file}: model_type is {kind!r}, expected one of {sorted(DEFAULTS_OF)}: other "
            "architectures have other layers"
        )
    values = DEFAULTS | DEFAULTS_OF[kind] | dict(config)
    for name, neutral in NEUTRAL.items():
        if values.get(name) not in neutral:
            raise ValueError(
                f"{file}: {name} is {values[name]!r}, expected {neutral[-1]!r}: a Model cannot "
                "represent another value"
            )
    for name in ("vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size"):
        _required(values, name, file)
    heads = _required(values, "num_attention_heads", file)
    theta, scaling = _rope(values, file)
    return Model(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        d_model=values["hidden_size"],
        num_heads=heads,
        num_kv_heads=values["num_key_value_heads"] or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        d_ff=values["intermediate_size"],
        rope_theta=theta,
        rope_scaling=scaling,
        nope_every=_nope_every(values, file) if kind == "smollm3" else 0,
        qk_norm=kind == "qwen3",
        norm_eps=values["rms_norm_eps"],
        tied_head=values["tie_word_embeddings"],
        sliding_window=_window(values, file) if kind in ("mistral", "qwen3") else None,
        compute_dtype=_compute_dtype(values),
    )


def mixture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the "mixture" entry of a run's config.json for an imported model."""
    values = DEFAULTS | DEFAULTS_OF[config["model_type"]] | dict(config)
    eos_id = values["eos_token_id"]
    return {
        "sequence_length": values["max_position_embeddings"],
        "tokenizer": {
            "vocab_size": values["vocab_size"],
            "bos_id": values["bos_token_id"],
            "eos_id": eos_id[0] if isinstance(eos_id, list) else eos_id,
        },
    }


def _required(values: Mapping[str, Any], name: str, file: Path) -> int:
    """Returns an integer field; raises ValueError if it is missing or not an integer."""
    if not isinstance(values.get(name), int):
        raise ValueError(f"{file}: {name} is {values.get(name)!r}, expected a whole number")
    return values[name]


def _compute_dtype(values: Mapping[str, Any]) -> DType:
    """Returns float32 for float32 tensors, as transformers computes, else bfloat16."""
    named = values.get("torch_dtype") or values.get("dtype") or "float32"
    return DType.FLOAT32 if named == "float32" else DType.BFLOAT16


def _rope(values: Mapping[str, Any], file: Path) -> tuple[float, RopeScaling]:
    """Returns the rotary base and scaling.

    They are in `rope_theta` and `rope_scaling` (transformers 4) or in `rope_parameters` (5).
    """
    theta, scaling = values.get("rope_theta"), RopeScaling()
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name) or {}
        theta = rope.get("rope_theta", theta)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            scaling = _rope_scaling(kind, rope, values, f"{file}: {name}")
        if rope.get("partial_rotary_factor") not in NEUTRAL["partial_rotary_factor"]:
            raise ValueError(
                f"{file}: {name} is {rope}, expected positions over the whole head: a Model cannot "
                "represent a partial_rotary_factor"
            )
    return float(theta if theta is not None else 10_000.0), scaling


def _rope_scaling(
    kind: str, rope: Mapping[str, Any], values: Mapping[str, Any], where: str
) -> RopeScaling:
    """Returns the scaling that a rope_type names; raises ValueError for other ones."""
    methods = {m.value: m for m in RopeMethod if m is not RopeMethod.NONE}
    # They change the factor of YaRN, or its ramp.
    unknown = [name for name in ("mscale", "mscale_all_dim") if rope.get(name)]
    needed = ["factor"]
    if kind == RopeMethod.LLAMA3.value:
        needed += ["low_freq_factor", "high_freq_factor"]
    missing = [name for name in needed if not isinstance(rope.get(name), int | float)]
    if kind not in methods or unknown or missing or rope.get("truncate") is False:
        raise ValueError(
            f"{where} is {dict(rope)}, expected rope_type 'default' or one of {sorted(methods)} "
            f"with {', '.join(needed)} and without mscale and truncate: a Model cannot represent "
            "other scalings"
        )
    scaling = RopeScaling(
        method=methods[kind],
        factor=float(rope["factor"]),
        original_length=rope.get("original_max_position_embeddings")
        or values.get("original_max_position_embeddings")
        or values["max_position_embeddings"],
    )
    if scaling.method is RopeMethod.LLAMA3:
        scaling.low_rotations = float(rope["low_freq_factor"])
        scaling.high_rotations = float(rope["high_freq_factor"])
    if scaling.method is RopeMethod.YARN:
        scaling.low_rotations = float(rope.get("beta_slow") or 1)
        scaling.high_rotations = float(rope.get("beta_fast") or 32)
        scaling.attention_factor = float(rope.get("attention_factor") or 0)
    return scaling


def _nope_every(values: Mapping[str, Any], file: Path) -> int:
    """Returns n where each n-th layer has no rotary positions, 0 where all have."""
    layers = values["num_hidden_layers"]
    rotary = values.get("no_rope_layers")
    if rotary is None:
        return values["no_rope_layer_interval"]
    if all(rotary[:layers]):
        return 0
    every = rotary.index(0) + 1
    if rotary[:layers] != [int((i + 1) % every != 0) for i in range(layers)]:
        raise ValueError(
            f"{file}: no_rope_layers is {rotary}, expected a 0 for each n-th layer: a Model cannot "
            "represent another order"
        )
    return every


def _window(values: Mapping[str, Any], file: Path) -> int | None:
    """Returns the sliding window in tokens, or None if all layers attend to everything."""
    kinds = set(values.get("layer_types") or [])
    if len(kinds) > 1:
        raise ValueError(
            f"{file}: layer_types has {sorted(kinds)}, expected one kind: all layers of a Model "
            "have the same window"
        )
    if kinds == {"full_attention"} or values.get("use_sliding_window") is False:
        return None
    if not kinds and 0 < values.get("max_window_layers", 0) < values["num_hidden_layers"]:
        raise ValueError(
            f"{file}: max_window_layers is {values['max_window_layers']}, expected 0: all layers "
            "of a Model have the same window"
        )
    if not kinds and values.get("max_window_layers", 0):
        return None
    return values["sliding_window"]
