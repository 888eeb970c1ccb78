"""The check of a run's settings on its devices, before the data is hashed.

hare_jax/config_check.py checks settings earlier, before curation, without JAX. This check covers
what depends on the devices as well: the mesh, the sharding of each parameter, the attention kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import optax

from hare_jax.config import AttentionKernel, Model, Training
from hare_jax.data.order import schedule_without_data
from hare_jax.model.attention import kernel_of
from hare_jax.runtime import accelerator, sharding
from hare_jax.tracking.profiler import Profiler
from hare_jax.tracking.trackers import check_wandb
from hare_jax.training import checkpoint, faults, optim
from hare_jax.training.in_loop_evaluation import InLoopEvaluation
from hare_jax.training.loss import check_chunks
from hare_jax.training.state import State, place_state
from hare_jax.training.step import dropout_of


@dataclass(slots=True)
class Layout:
    """What the settings of a run become on its devices."""

    mesh: jax.sharding.Mesh
    rows: slice  # of the global batch, on the devices of this process
    optimizer: optax.GradientTransformation
    placed: State  # jax.ShapeDtypeStruct with shardings
    kernel: AttentionKernel  # that runs for the batches


def validate(
    model: Model,
    training: Training,
    sequence_length: int,
    devices: Sequence[jax.Device] | None = None,
) -> Layout:
    """Checks that the settings of a run fit together; reads and writes nothing.

    Names of sources and mixtures are checked later, against the data.

    Args:
      model: the model.
      training: the settings.
      sequence_length: tokens per row of the data.
      devices: devices of the mesh; None: all.

    Returns:
      What was built for the check, which training uses.

    Raises:
      ValueError: a setting cannot be used, or not on these devices.
    """
    c = training
    window = faults.window(c.faults)
    mesh = sharding.make_mesh(c.mesh, devices)
    if c.deterministic:
        accelerator.check_deterministic(mesh.devices.flat[0].platform)
    rows = sharding.local_rows(mesh, c.batch_size, c.accumulation)
    order = schedule_without_data(c, sequence_length)
    optimizer = optim.build(c.optimizer, order.steps)
    placed = place_state(model, optimizer, mesh, window)
    with jax.set_mesh(mesh):
        kernel = kernel_of(model, c.batch_size // c.accumulation, sequence_length)
    check_chunks(sequence_length, c.loss_chunks)
    dropout_of(order, c)
    checkpoint.preservation_policy(c.checkpointing)
    Profiler(c.profile, Path())
    InLoopEvaluation(c.in_loop, Path(), order.steps)
    check_wandb(c.wandb_project)
    if c.log_every < 1:
        raise ValueError(f"training.log_every={c.log_every}: expected at least 1")
    return Layout(mesh, rows, optimizer, placed, kernel)
