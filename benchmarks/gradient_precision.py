"""Prints how far gradients in bfloat16 are from those in float32, for each parameter.

    python -m benchmarks.gradient_precision [--devices 8] [--rows 64] [--length 128] [--d_model 64]

The model of two layers is random, and its tokens follow Zipf's law, as those of a language do. The
error of a parameter is |bfloat16 - float32| / |float32| of its gradient. On a CPU the devices are
parts of it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from hare_jax.config import DType, Mesh, Model
from hare_jax.data.batch import Batch
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.training.step import make_gradient, make_loss


def model(d_model: int = 32) -> Model:
    """Returns a float32 model of two layers with 128 tokens."""
    return Model(
        vocab_size=128,
        num_layers=2,
        d_model=d_model,
        num_heads=4,
        num_kv_heads=2,
        head_dim=d_model // 4,
        d_ff=2 * d_model,
        compute_dtype=DType.FLOAT32,
    )


def zipf_batch(vocab_size: int, rows: int, length: int) -> Batch:
    """Returns rows of one document each; token i is drawn with a probability of 1 / (i + 1)."""
    share = 1 / np.arange(1, vocab_size + 1)
    tokens = np.random.default_rng(0).choice(vocab_size, (rows, length + 1), p=share / share.sum())
    return {
        "tokens_BT": tokens[:, :-1].astype(np.int32),
        "targets_BT": tokens[:, 1:].astype(np.int32),
        "loss_mask_BT": np.ones((rows, length), np.float32),
        "segment_ids_BT": np.ones((rows, length), np.int32),
        "positions_BT": np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)),
        "source_id_B": np.zeros(rows, np.int32),
    }


def gradient(
    config: Model, batch: Batch, mesh: Mesh | None = None, accumulation: int = 1
) -> dict[str, np.ndarray]:
    """Returns the gradient of each parameter, on the mesh of all devices; None: on one device."""
    loss = make_loss(config, chunks=2, z_loss=1e-4)
    compute = jax.jit(make_gradient(loss, accumulation, lambda step, part: None))
    params = jax.jit(decoder.init, static_argnums=(0, 1))(config, 0)
    if mesh is None:
        grads, _ = compute(params, batch, 0)
    else:
        devices = sharding.make_mesh(mesh)
        with jax.set_mesh(devices):
            params = jax.device_put(params, sharding.params_sharding(devices, params))
            rows = batch["tokens_BT"].shape[0]
            grads, _ = compute(params, sharding.place(batch, devices, rows, slice(0, rows)), 0)
    leaves: list[tuple[Any, Any]] = jax.tree_util.tree_leaves_with_path(grads)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def errors(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the relative error of each parameter's gradient."""
    return {
        name: float(np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name]))
        for name in exact
    }


def main() -> None:
    """Computes the gradients with both values of `reduce_dtype`, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8, help="of a CPU; GPUs and TPUs: all")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--d_model", type=int, default=64)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    exact_model = model(options.d_model)
    batch = zipf_batch(exact_model.vocab_size, options.rows, options.length)
    exact = gradient(exact_model, batch)
    columns = []
    for reduce_dtype in (DType.FLOAT32, DType.BFLOAT16):
        config = replace(exact_model, compute_dtype=DType.BFLOAT16, reduce_dtype=reduce_dtype)
        columns.append(errors(gradient(config, batch, Mesh(fsdp=-1)), exact))
    devices, tokens = jax.devices(), batch["tokens_BT"].size
    print(f"{len(devices)} devices ({devices[0].device_kind}), {tokens:,} tokens")
    print(f"{'error of the gradient, %':<36} {'float32':>9} {'bfloat16':>9}  = reduce_dtype")
    for name in exact:
        print(f"{name:<36} {100 * columns[0][name]:>9.2f} {100 * columns[1][name]:>9.2f}")


if __name__ == "__main__":
    main()
