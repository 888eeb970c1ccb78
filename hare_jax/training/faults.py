"""Steps that must not be learned from: no number for a loss, or one far above the losses before it.

The train step judges itself, on the device, and may leave everything as it was; the host learns of
it when it fetches the step's values, and writes the step's documents down.
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

INTACT = "; the checkpoints before it are intact"


class StepVerdict(enum.IntEnum):
    """On a step, as its values have it."""

    GOOD = 0
    NOT_FINITE = 1  # the loss or the gradient's norm
    SPIKE = 2  # a loss more than `spike_z` standard deviations above the mean of those before


class BadStepError(RuntimeError):
    """A step that stops the run; `step` counts from 0."""

    def __init__(self, step: int, message: str):
        super().__init__(f"step {step + 1}: {message}")
        self.step = step


class NonFiniteError(BadStepError):
    """A loss, or a norm of gradient or parameters, that is not a number."""


class LossSpikeError(BadStepError):
    """A loss far above the losses before it."""


class TooManySkippedError(BadStepError):
    """So many steps in a row were left out that training no longer learns."""


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class LossHistory:
    """What a verdict rests on. A part of the training state: resumed, a run judges the same."""

    losses_W: Any  # float32 [W]: of the latest good steps of the stage, newest last; NaN: none yet
    skipped: Any  # int32 []: bad steps in a row, up to this one

    @staticmethod
    def none(window: int) -> LossHistory:
        """Before the first step."""
        return LossHistory(jnp.full(window, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))

    @staticmethod
    def of(losses: list[float], skipped: int, like: LossHistory) -> LossHistory:
        """From a checkpoint; of `losses`, the newest that the window of `like` has room for."""
        window = like.losses_W.size
        losses_W = np.full(window, np.nan, np.float32)
        newest = losses[max(0, len(losses) - window) :]
        losses_W[window - len(newest) :] = newest
        return LossHistory(losses_W, np.int32(skipped))


def window(config: Faults) -> int:
    """How many losses to remember. Raises ValueError for settings that make no sense."""
    c = config
    if c.not_finite is OnFault.IGNORE:
        raise ValueError(
            "training.faults.not_finite=ignore: a step without a number for its loss cannot be "
            "learned from, choose stop or skip"
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


def judge(
    recent: LossHistory, loss: Array, grad_norm: Array, config: Faults, *, new_stage: Array
) -> tuple[Array, Array, LossHistory]:
    """(Verdict, z, what the next verdict rests on), on the device.

        z = (loss - mean of losses_W) / standard deviation of losses_W         (NaN: nothing known)

    A stage is not measured by the one before it: other data have another loss.
    """
    losses_W = jnp.where(new_stage, jnp.nan, recent.losses_W)
    known = jnp.isfinite(losses_W).sum()
    z = (loss - jnp.nanmean(losses_W)) / jnp.nanstd(losses_W, ddof=1)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    spike = (known >= config.spike_warmup) & (z > config.spike_z)
    verdict = jnp.where(
        finite, jnp.where(spike, StepVerdict.SPIKE, StepVerdict.GOOD), StepVerdict.NOT_FINITE
    )
    good = verdict == StepVerdict.GOOD
    losses_W = jnp.where(good, jnp.append(losses_W, loss)[1:], losses_W)
    return verdict, z, LossHistory(losses_W, jnp.where(good, 0, recent.skipped + 1))


class BadSteps:
    """What the host does about bad steps: writes their documents down, then goes on or raises.

    `directory`/step-7.json, for step 7 counted from 1:

        {"step": 7, "stage": "one", "verdict": "not_finite", "action": "skip", "loss": "nan",
         "grad_norm": "nan", "loss_z": "nan", "documents": [{"row": 0, "source": "web", ...}, ...]}

    `documents`: step from 0 -> its stage's name, and its spans (input.Span).
    """

    def __init__(
        self, directory: Path, config: Faults, documents: Callable[[int], tuple[str, list[Any]]]
    ):
        self.directory = directory
        self.config = config
        self._documents = documents

    def counts(self, step: int, values: dict[str, Any]) -> bool:
        """Whether a step, from 0, was learned from; `values` are what it returned, on the host.

        Raises NonFiniteError or LossSpikeError where the config says stop, TooManySkippedError after so many.
        """
        verdict = StepVerdict(values["verdict"])
        c, param_norm = self.config, values["param_norm"]
        if verdict is StepVerdict.GOOD and not math.isfinite(
            param_norm
        ):  # nothing left to go on with
            raise NonFiniteError(step, f"the norm of the parameters is {param_norm}{INTACT}")
        if verdict is StepVerdict.GOOD:
            return True
        action = c.spike if verdict is StepVerdict.SPIKE else c.not_finite
        what = f"loss {values['loss']}, gradient norm {values['grad_norm']}"
        if verdict is StepVerdict.SPIKE:
            what += f", {values['loss_z']:.1f} standard deviations above the losses before it"
        what += self._write(step, values, verdict, action)
        if action is OnFault.STOP:
            kind = LossSpikeError if verdict is StepVerdict.SPIKE else NonFiniteError
            name = verdict.name.lower()
            raise kind(step, f"{what}{INTACT}; training.faults.{name}=skip leaves such steps out")
        if values["skipped"] >= c.max_skipped:
            raise TooManySkippedError(
                step,
                f"{what}; the {values['skipped']} latest steps were all left out "
                f"(training.faults.max_skipped={c.max_skipped}): lower the learning rate, or look "
                f"at the documents in {self.directory}",
            )
        if distributed.is_process_zero():
            print(f"!!! step {step + 1} is left out: {what}", file=sys.stderr, flush=True)
        return False

    def _write(
        self, step: int, values: dict[str, Any], verdict: StepVerdict, action: OnFault
    ) -> str:
        """The step's file, and words that say where it is."""
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
