"""Conversion between a Model and the config.json of a Hugging Face Mistral or Llama checkpoint.

A setting that a Model cannot represent is refused by name, so that a checkpoint never computes
something else than it was trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hare_jax.config import Architecture, DType, Model

CLASSES = {
    Architecture.MISTRAL: "MistralForCausalLM",
    Architecture.LLAMA: "LlamaForCausalLM",
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
      ValueError: the architecture has no sliding window, and the model has one.
    """
    m = model
    if architecture is Architecture.LLAMA and m.sliding_window is not None:
        raise ValueError(
            f"architecture 'llama' has no sliding window, but the model has sliding_window="
            f"{m.sliding_window}: export it with --config.architecture=mistral"
        )
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
        "rope_theta": m.rope_theta,
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
    else:
        config |= {"attention_bias": False, "mlp_bias": False}
    return config


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
    return Model(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        d_model=values["hidden_size"],
        num_heads=heads,
        num_kv_heads=values["num_key_value_heads"] or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        d_ff=values["intermediate_size"],
        rope_theta=_rope_theta(values, file),
        norm_eps=values["rms_norm_eps"],
        tied_head=values["tie_word_embeddings"],
        sliding_window=_window(values, file) if kind == "mistral" else None,
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


def _rope_theta(values: Mapping[str, Any], file: Path) -> float:
    """Returns the rotary base, from `rope_theta` (transformers 4) or `rope_parameters` (5)."""
    theta = values.get("rope_theta")
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        factor = rope.get("partial_rotary_factor")
        if kind != "default" or factor not in NEUTRAL["partial_rotary_factor"]:
            raise ValueError(
                f"{file}: {name} is {rope}, expected rope_type 'default' over the whole head: "
                "a Model cannot represent scaled rotary positions"
            )
        theta = rope.get("rope_theta", theta)
    return float(theta if theta is not None else 10_000.0)


def _window(values: Mapping[str, Any], file: Path) -> int | None:
    """Returns the sliding window in tokens, or None if all layers attend to everything."""
    kinds = set(values.get("layer_types") or [])
    if len(kinds) > 1:
        raise ValueError(
            f"{file}: layer_types has {sorted(kinds)}, expected one kind: all layers of a Model "
            "have the same window"
        )
    return None if kinds == {"full_attention"} else values["sliding_window"]
