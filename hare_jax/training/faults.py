"""Detection of bad steps: a non-finite loss or gradient norm, or a loss spike.

The train step classifies itself on the device, and may return the state unchanged. The host sees
the verdict when it fetches the metrics of the step, and writes the documents of a bad step to a
file.
"""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.config import Faults, OnFault
from hare_jax.files import write_json
from hare_jax.runtime import distributed

INTACT = "; the checkpoints before it are intact"  # ends the message of an error


class StepVerdict(enum.IntEnum):
    """The class of a step, in its metrics as an integer."""

    GOOD = 0
    NOT_FINITE = 1  # the loss or the gradient norm is NaN or infinite
    SPIKE = 2  # the loss is more than `spike_z` standard deviations above the mean of the history


class BadStepError(RuntimeError):
    """A bad step that stops the run."""

    def __init__(self, step: int, message: str):
        """Stores `step`, 0 for the first; the message counts steps from 1."""
        super().__init__(f"step {step + 1}: {message}")
        self.step = step


class NonFiniteError(BadStepError):
    """A loss, gradient norm or parameter norm that is NaN or infinite."""


class LossSpikeError(BadStepError):
    """A loss far above the recent losses."""


class TooManySkippedError(BadStepError):
    """More consecutive bad steps than `training.faults.max_skipped` allows."""


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class LossHistory:
    """The losses that a verdict depends on.

    It is part of the training state, so that a resumed run has the same verdicts.
    """

    losses_W: Any  # float32 [W]: latest good steps of the stage, newest last; NaN: no step yet
    skipped: Any  # int32 []: consecutive bad steps, up to the latest step

    @staticmethod
    def empty(window: int) -> LossHistory:
        """Returns the history before the first step."""
        return LossHistory(jnp.full(window, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))

    @staticmethod
    def restored(losses: list[float], skipped: int, like: LossHistory) -> LossHistory:
        """Returns the history from a checkpoint, in the window size of `like`.

        Args:
          losses: finite losses, newest last; the oldest are dropped if the window is smaller.
          skipped: consecutive bad steps.
          like: gives the window size.
        """
        window = like.losses_W.size
        losses_W = np.full(window, np.nan, np.float32)
        newest = losses[max(0, len(losses) - window) :]
        losses_W[window - len(newest) :] = newest
        return LossHistory(losses_W, np.int32(skipped))


def window(config: Faults) -> int:
    """Returns the length of the loss history; raises ValueError for settings that do not fit."""
    c = config
    if c.not_finite is OnFault.IGNORE:
        raise ValueError(
            "training.faults.not_finite=ignore: a step with a non-finite loss cannot be learned "
            "from, choose stop or skip"
        )
    if not 2 <= c.spike_warmup <= c.spike_window:
        raise ValueError(
            f"training.faults.spike_warmup={c.spike_warmup}: expected at least 2, and at most "
            f"spike_window={c.spike_window}"
        )
    if not c.spike_z > 0 or c.max_skipped < 1:
        raise ValueError(
            f"training.faults has spike_z={c.spike_z} and max_skipped={c.max_skipped}: expected "
            "above 0, and at least 1"
        )
    return 0 if c.spike is OnFault.IGNORE else c.spike_window


def classify_step(
    history: LossHistory, loss: Array, grad_norm: Array, config: Faults, *, new_stage: Array
) -> tuple[Array, Array, LossHistory]:
    """Classifies a step as good, non-finite or spike, on the device.

        z = (loss - mean of losses_W) / standard deviation of losses_W     (NaN: too few losses)

    Args:
      history: the losses before this step.
      loss: float32 [], nats per token.
      grad_norm: float32 [].
      config: `spike_z` and `spike_warmup` are read.
      new_stage: bool [], whether this is the first step of a stage. The history is then emptied,
        since other data has another level of loss.

    Returns:
      (verdict, z, history): int32 [] of StepVerdict, float32 [], and the history with this step.
    """
    losses_W = jnp.where(new_stage, jnp.nan, history.losses_W)
    known = jnp.isfinite(losses_W).sum()
    # ddof=1: the unbiased estimate, over the losses known so far.
    z = (loss - jnp.nanmean(losses_W)) / jnp.nanstd(losses_W, ddof=1)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    spike = (known >= config.spike_warmup) & (z > config.spike_z)
    verdict = jnp.where(
        finite, jnp.where(spike, StepVerdict.SPIKE, StepVerdict.GOOD), StepVerdict.NOT_FINITE
    )
    good = verdict == StepVerdict.GOOD
    # A good loss replaces the oldest one; a bad one must not shift the mean.
    losses_W = jnp.where(good, jnp.append(losses_W, loss)[1:], losses_W)
    return verdict, z, LossHistory(losses_W, jnp.where(good, 0, history.skipped + 1))


class BadSteps:
    """The handling of bad steps on the host: it writes their documents, then continues or raises.

    `directory`/step-7.json, for the seventh step of the run:

        {"step": 7, "stage": "one", "verdict": "not_finite", "action": "skip", "loss": "nan",
         "grad_norm": "nan", "loss_z": "nan", "documents": [{"row": 0, "source": "web", ...}, ...]}
    """

    def __init__(
        self, directory: Path, config: Faults, documents: Callable[[int], tuple[str, list[Any]]]
    ):
        """Stores the settings.

        Args:
          directory: where the files are written; created at the first bad step.
          config: what to do with a bad step.
          documents: step (0 for the first) -> the name of its stage and its packed_dataset.Spans.
        """
        self.directory = directory
        self.config = config
        self._documents = documents

    def is_learned(self, step: int, values: dict[str, Any]) -> bool:
        """Returns True for a good step and False for a skipped one.

        Args:
          step: 0 for the first.
          values: the metrics of the step, on the host.

        Raises:
          NonFiniteError: if the action for non-finite steps is stop, or the parameters are
            non-finite.
          LossSpikeError: if the action for spikes is stop.
          TooManySkippedError: if `max_skipped` consecutive steps were skipped.
        """
        verdict = StepVerdict(values["verdict"])
        c, param_norm = self.config, values["param_norm"]
        if verdict is StepVerdict.GOOD and not math.isfinite(param_norm):  # cannot recover
            raise NonFiniteError(step, f"the norm of the parameters is {param_norm}{INTACT}")
        if verdict is StepVerdict.GOOD:
            return True
        action = c.spike if verdict is StepVerdict.SPIKE else c.not_finite
        what = f"loss {values['loss']}, gradient norm {values['grad_norm']}"
        if verdict is StepVerdict.SPIKE:
            what += (
                f", {values['loss_z']:.1f} standard deviations above the mean of the losses before"
            )
        what += self._write(step, values, verdict, action)
        if action is OnFault.STOP:
            kind = LossSpikeError if verdict is StepVerdict.SPIKE else NonFiniteError
            name = verdict.name.lower()
            raise kind(step, f"{what}{INTACT}; training.faults.{name}=skip skips such steps")
        if values["skipped"] >= c.max_skipped:
            raise TooManySkippedError(
                step,
                f"{what}; the last {values['skipped']} steps were all skipped "
                f"(training.faults.max_skipped={c.max_skipped}): lower the learning rate, or "
                f"inspect the documents in {self.directory}",
            )
        if distributed.is_process_zero():
            print(f"!!! step {step + 1} skipped: {what}", file=sys.stderr, flush=True)
        return False

    def _write(
        self, step: int, values: dict[str, Any], verdict: StepVerdict, action: OnFault
    ) -> str:
        """Writes the file of a bad step; returns its path and first documents as text."""
        stage, spans = self._documents(step)
        numbers = {name: values[name] for name in ("loss", "grad_norm", "loss_z")}
        case = {
            "step": step + 1,
            "stage": stage,
            "verdict": verdict.name.lower(),
            "action": action.value,
            **{k: v if math.isfinite(v) else str(v) for k, v in numbers.items()},
            "documents": [asdict(span) for span in spans],
        }
        path = self.directory / f"step-{step + 1}.json"
        if distributed.is_process_zero():
            self.directory.mkdir(exist_ok=True)
            write_json(path, case)
        names = ", ".join(dict.fromkeys(span.document_id for span in spans[:4]))
        return f"; its {len(spans)} documents ({names}, ...) are in {path}"
