"""Bad steps: detected on the device, skipped or stopping the run, their documents written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hare_jax.config import (
    Algorithm,
    Checkpointing,
    Faults,
    Model,
    OnFault,
    Optimizer,
    Training,
)
from hare_jax.data.packed_dataset import Span
from hare_jax.training import faults, optim, train
from hare_jax.training import step as step_module
from hare_jax.training.checkpoint import restore_params
from hare_jax.training.faults import (
    BadSteps,
    LossHistory,
    LossSpikeError,
    NonFiniteError,
    StepVerdict,
    TooManySkippedError,
    classify_step,
)
from hare_jax.training.step import _select
from tests.hare_jax.builders import (
    B,
    equal_trees,
    metric_rows,
    one_device,
    saved_params,
    tiny_training,
)

pytestmark = pytest.mark.slow

GOOD, NOT_FINITE, SPIKE = StepVerdict.GOOD, StepVerdict.NOT_FINITE, StepVerdict.SPIKE
SKIPS = Faults(
    not_finite=OnFault.SKIP,
    spike=OnFault.SKIP,
    spike_z=4.0,
    spike_window=6,
    spike_warmup=3,
    max_skipped=3,
)


def _judged(
    losses: list[float], config: Faults = SKIPS, new_stages: tuple[int, ...] = ()
) -> tuple[list[int], LossHistory]:
    """The verdicts on these losses, one after the other."""

    @jax.jit
    def one(recent: LossHistory, loss: jax.Array, new_stage: jax.Array) -> Any:
        verdict, _, recent = classify_step(recent, loss, jnp.ones(()), config, new_stage=new_stage)
        return verdict, recent

    recent, verdicts = LossHistory.empty(faults.window(config)), []
    for step, loss in enumerate(losses):
        verdict, recent = one(recent, jnp.float32(loss), jnp.array(step in new_stages))
        verdicts.append(int(verdict))
    assert one._cache_size() == 1
    return verdicts, recent


def test_a_spike_is_so_many_standard_deviations_above_the_good_losses_of_the_window() -> None:
    random = np.random.default_rng(0)
    losses = (5 + 0.1 * random.standard_normal(60)).astype(np.float32)
    losses[[20, 21, 40]] += 0.5
    losses[50] -= 2  # far below is no spike
    verdicts, recent = _judged(losses.tolist())
    good: list[float] = []  # the oracle
    for loss, verdict in zip(losses, verdicts, strict=True):
        before = np.array(good[-SKIPS.spike_window :], np.float64)
        spike = len(before) >= 3 and (loss - before.mean()) / before.std(ddof=1) > 4.0
        assert verdict == (SPIKE if spike else GOOD)
        if not spike:
            good.append(float(loss))
    assert [k for k, v in enumerate(verdicts) if v == SPIKE][:2] == [20, 21]
    np.testing.assert_array_equal(recent.losses_W, np.float32(good[-6:]))


def test_no_loss_is_judged_before_enough_are_known() -> None:
    assert _judged([1.0, 1.1, 50.0])[0] == [GOOD] * 3
    assert _judged([1.0, 1.1, 0.9, 50.0])[0] == [GOOD] * 3 + [SPIKE]


def test_a_stage_is_not_measured_by_the_one_before_it() -> None:
    losses = [1.0, 1.1, 0.9, 50.0, 51.0, 52.0, 90.0]
    assert _judged(losses, new_stages=(3,))[0] == [GOOD] * 6 + [SPIKE]


def test_a_nan_loss_does_not_enter_the_history() -> None:
    verdicts, recent = _judged([1.0, math.nan, 1.1, math.inf, -math.inf, 0.9])
    assert verdicts == [GOOD, NOT_FINITE, GOOD, NOT_FINITE, NOT_FINITE, GOOD]
    np.testing.assert_array_equal(recent.losses_W, np.float32([np.nan] * 3 + [1.0, 1.1, 0.9]))
    assert int(recent.skipped) == 0
    assert int(_judged([1.0, math.nan, math.nan])[1].skipped) == 2


def test_a_nan_gradient_is_a_bad_step() -> None:
    verdict, _, _ = classify_step(
        LossHistory.empty(0),
        jnp.ones(()),
        jnp.float32(jnp.inf),
        Faults(),
        new_stage=jnp.array(False),
    )
    assert int(verdict) == NOT_FINITE


def test_without_spikes_nothing_is_remembered() -> None:
    verdicts, recent = _judged([1.0, 1.1, 0.9, 1.0, 50.0, math.nan], Faults())
    assert verdicts == [GOOD] * 5 + [NOT_FINITE]
    assert recent.losses_W.shape == (0,)


def test_another_window_takes_the_newest_losses() -> None:
    losses = [1.0, 2.0, 3.0]
    for window, expected in ((0, []), (2, [2, 3]), (3, [1, 2, 3]), (4, [np.nan, 1, 2, 3])):
        recent = LossHistory.restored(losses, 5, LossHistory.empty(window))
        np.testing.assert_array_equal(recent.losses_W, np.float32(expected))
        assert recent.losses_W.dtype == np.float32 and recent.skipped == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"not_finite": OnFault.IGNORE}, "not_finite=ignore: .* choose stop or skip"),
        ({"spike_warmup": 1}, "spike_warmup=1: expected at least 2, and at most spike_window=6"),
        ({"spike_warmup": 7}, "spike_warmup=7: expected at least 2, and at most spike_window=6"),
        ({"spike_z": 0.0}, "spike_z=0.0 and max_skipped=3: expected above 0"),
        ({"spike_z": math.nan}, "spike_z=nan and max_skipped=3: expected above 0"),
        ({"max_skipped": 0}, "spike_z=4.0 and max_skipped=0: expected above 0, and at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    settings = {name: getattr(SKIPS, name) for name in SKIPS.__slots__}
    with pytest.raises(ValueError, match=f"training.faults.*{message}"):
        faults.window(Faults(**{**settings, **change}))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_skipped_step_changes_only_the_step_of_the_schedule(
    algorithm: Algorithm,
) -> None:
    config = Optimizer(algorithm=algorithm, warmup_steps=10)
    optimizer = optim.build(config, 100)
    params = {"q_DHK": jnp.ones((1, 4, 2, 2)), "scale": jnp.ones(4)}
    before = optimizer.init(params)
    _, after = optimizer.update(params, before, params)
    for good in (True, False):
        chosen = _select(jnp.array(good), after, before)
        assert optax.tree.get_all_with_path(chosen, "count") is not None
        counts = _schedule_counts(chosen)
        assert counts and counts == {1}
        want = after if good else before
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(chosen), jax.tree.leaves(want), strict=True
        ):
            if not _of_schedule(path, chosen):
                np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def _schedules(state: Any) -> list[tuple[Any, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(
        state, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
    )
    return [(path, x) for path, x in leaves if isinstance(x, optax.ScaleByScheduleState)]


def _schedule_counts(state: Any) -> set[int]:
    return {int(schedule.count) for _, schedule in _schedules(state)}


def _of_schedule(path: Any, state: Any) -> bool:
    return any(path[: len(prefix)] == prefix for prefix, _ in _schedules(state))


# ------------------------------------------------------------------------------------ on the host
def _values(verdict: StepVerdict, **changes: float) -> dict[str, Any]:
    values = {"loss": 9.5, "grad_norm": 1.5, "param_norm": 3.0, "loss_z": 7.25, "skipped": 1}
    return {"verdict": int(verdict), **values, **changes}


def _bad_steps(directory: Path, **changes: Any) -> BadSteps:
    spans = [Span(0, "web", 3, "web/7", 0, 9), Span(1, "code", 0, "code/2", 4, 5)]
    return BadSteps(directory, Faults(**changes), lambda step: (f"stage of {step}", spans))


def test_a_bad_step_is_written_down_with_its_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad_steps = _bad_steps(tmp_path / "bad", spike=OnFault.SKIP)
    assert bad_steps.is_learned(5, _values(GOOD)) and not (tmp_path / "bad").exists()
    assert not bad_steps.is_learned(6, _values(SPIKE))
    file = tmp_path / "bad" / "step-7.json"
    assert json.loads(file.read_text()) == {
        "step": 7,
        "stage": "stage of 6",
        "verdict": "spike",
        "action": "skip",
        "loss": 9.5,
        "grad_norm": 1.5,
        "loss_z": 7.25,
        "documents": [
            {"row": 0, "source": "web", "record_id": 3, "document_id": "web/7"}
            | {"offset": 0, "length": 9},
            {"row": 1, "source": "code", "record_id": 0, "document_id": "code/2"}
            | {"offset": 4, "length": 5},
        ],
    }
    assert capsys.readouterr().err == (
        "!!! step 7 skipped: loss 9.5, gradient norm 1.5, 7.2 standard deviations above the "
        f"mean of the losses before; its 2 documents (web/7, code/2, ...) are in {file}\n"
    )


def test_non_finite_values_are_strings_in_json(tmp_path: Path) -> None:
    values = _values(NOT_FINITE, loss=math.nan, grad_norm=math.inf, loss_z=math.nan)
    assert not _bad_steps(tmp_path, not_finite=OnFault.SKIP).is_learned(0, values)
    case = json.loads((tmp_path / "step-1.json").read_text())
    assert (case["loss"], case["grad_norm"], case["verdict"]) == ("nan", "inf", "not_finite")


@pytest.mark.parametrize(
    ("verdict", "kind", "advice"),
    [(SPIKE, LossSpikeError, "spike=skip"), (NOT_FINITE, NonFiniteError, "not_finite=skip")],
)
def test_a_bad_step_stops_the_run(
    tmp_path: Path, verdict: StepVerdict, kind: type[Exception], advice: str
) -> None:
    bad_steps = _bad_steps(tmp_path, spike=OnFault.STOP)
    message = rf"step 7: loss 9\.5.* are in .*step-7\.json; .* intact; training\.faults\.{advice}"
    with pytest.raises(kind, match=message):
        bad_steps.is_learned(6, _values(verdict))
    assert json.loads((tmp_path / "step-7.json").read_text())["action"] == "stop"


def test_too_many_consecutive_skipped_steps_stop_the_run(tmp_path: Path) -> None:
    bad_steps = _bad_steps(tmp_path, spike=OnFault.SKIP, max_skipped=3)
    assert not bad_steps.is_learned(6, _values(SPIKE, skipped=2))
    message = r"the last 3 steps were all skipped \(training.faults.max_skipped=3\): lower the"
    with pytest.raises(TooManySkippedError, match=message):
        bad_steps.is_learned(7, _values(SPIKE, skipped=3))
    assert (tmp_path / "step-8.json").is_file()


def test_nan_parameters_always_stop_the_run(tmp_path: Path) -> None:
    bad_steps = _bad_steps(tmp_path, not_finite=OnFault.SKIP)
    with pytest.raises(NonFiniteError, match="step 7: the norm of the parameters is nan"):
        bad_steps.is_learned(6, _values(GOOD, param_norm=math.nan))


# ---------------------------------------------------------------------------------- in a whole run
@pytest.fixture
def training() -> Training:
    """12 steps; a row every 3, a checkpoint every 4, another stage from step 10 on."""
    return tiny_training(10, 2, faults=SKIPS)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Returns a function that scales losses by step from 0: {6: 3.0} triples that of step 6."""
    make_step, loss_by_source = train.make_step, step_module.loss_by_source

    def of_one(per_example_B: Any, mask_BT: Any, *others: Any) -> Any:
        return loss_by_source(per_example_B, jnp.minimum(mask_BT, 1), *others)

    def spoil(factors: dict[int, float]) -> None:
        def spoiled(*arguments: Any) -> Any:
            step = make_step(*arguments)

            def run_step(state: Any, batch: Any) -> Any:
                factor = jnp.ones(())
                for at, value in factors.items():
                    factor = jnp.where(state.step == at, value, factor)
                return step(state, {**batch, "loss_mask_BT": batch["loss_mask_BT"] * factor})

            return run_step

        monkeypatch.setattr(train, "make_step", spoiled)
        monkeypatch.setattr(step_module, "loss_by_source", of_one)

    return spoil


def test_bad_steps_are_skipped_and_resumed_equals_uninterrupted(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    spoil: Callable[[dict[int, float]], None],
) -> None:
    # Counted from 1, steps 7 and 10 are spikes, 9 is no number; 12 would be a spike to stage one.
    spoil({6: 3.0, 8: math.nan, 9: 3.0, 11: 3.0})
    directory, whole, cut = bake(), tmp_path / "whole", tmp_path / "cut"
    training.checkpointing = Checkpointing(every_steps=1, keep=12)
    train.run(model, training, directory, whole, one_device())
    params = {n: saved_params(whole, model, n) for n in range(6, 12)}
    assert [n for n in range(7, 12) if equal_trees(params[n - 1], params[n])] == [7, 9, 10]
    rows = metric_rows(whole)
    skipped = [(row["step"], row["skipped"]) for row in rows]
    assert skipped == [(3, 0), (6, 0), (9, 2), (12, 1)], "step 10 alone has no row"
    assert all(row["loss"] < 5 for row in rows[:3])
    cases = sorted(path.name for path in (whole / "bad-steps").iterdir())
    assert cases == ["step-10.json", "step-7.json", "step-9.json"]
    case = json.loads((whole / "bad-steps" / "step-7.json").read_text())
    assert (case["verdict"], case["stage"]) == ("spike", "one") and case["loss_z"] > 4
    assert {span["row"] for span in case["documents"]} == set(range(B))

    shutil.copytree(whole, cut)
    for step in range(9, 13):
        shutil.rmtree(cut / "checkpoints" / str(step))
    shutil.rmtree(cut / "bad-steps")
    assert train.run(model, training, directory, cut, one_device()).resumed_from == 8
    assert metric_rows(cut) == rows
    assert equal_trees(saved_params(cut, model), saved_params(whole, model))
    for name in ("step-9.json", "step-10.json"):
        files = [(run / "bad-steps" / name).read_bytes() for run in (cut, whole)]
        assert files[0] == files[1]


def test_a_spike_stops_before_anything_after_it_is_saved(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    spoil: Callable[[dict[int, float]], None],
) -> None:
    spoil({6: 3.0})
    training.faults.spike = OnFault.STOP
    with pytest.raises(
        LossSpikeError, match=r"step 7: loss .* standard deviations above .*7\.json"
    ):
        train.run(model, training, bake(), tmp_path / "run", one_device())
    assert restore_params(tmp_path / "run" / "checkpoints", model)[1] == 4
    case = json.loads((tmp_path / "run" / "bad-steps" / "step-7.json").read_text())
    assert case["action"] == "stop" and case["documents"]
