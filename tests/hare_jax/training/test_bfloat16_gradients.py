"""Gradients in bfloat16 beside those in float32, parameter by parameter.

On a CPU every run is float32, so only a test in bfloat16 sees what accelerators compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import gradient_precision
from benchmarks.gradient_precision import errors, gradient, zipf_batch
from hare_jax.config import DType, Matmul, Mesh, Model, Remat
from hare_jax.data.batch import Batch
from hare_jax.model import decoder
from hare_jax.training.step import make_gradient, make_loss

BOUND = 0.03  # of |bfloat16 - float32| / |float32|, for each parameter
MODEL = gradient_precision.model()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return zipf_batch(MODEL.vocab_size, 64, 128)


@pytest.fixture(scope="module")
def exact(batch: Batch) -> dict[str, np.ndarray]:
    return gradient(MODEL, batch)


CASES = {
    "one device": (None, {}, 1),
    "in four parts": (None, {}, 4),
    "recomputed, not scanned": (None, {"remat": Remat.DOTS, "scan_layers": False}, 1),
    "data": (Mesh(data=8, fsdp=1), {}, 1),
    "fsdp in two parts": (Mesh(fsdp=8), {}, 2),
    "all axes, tied head": (Mesh(data=2, fsdp=2, tensor=2), {"tied_head": True}, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_float32(
    case: str, batch: Batch, exact: dict[str, np.ndarray]
) -> None:
    mesh, changes, accumulation = CASES[case]
    config = replace(MODEL, compute_dtype=DType.BFLOAT16, **changes)
    expected = gradient(replace(MODEL, tied_head=True), batch) if config.tied_head else exact
    found = errors(gradient(config, batch, mesh, accumulation), expected)
    assert max(found.values()) < BOUND, found


@pytest.mark.slow
def test_the_gradient_of_a_frequent_token_is_not_lost(
    batch: Batch, exact: dict[str, np.ndarray]
) -> None:
    """A sum in bfloat16 stops to grow: the most frequent token shows it first."""
    found = gradient(replace(MODEL, compute_dtype=DType.BFLOAT16), batch)
    (name,) = (name for name in exact if "embedding" in name)
    frequent = np.bincount(batch["tokens_BT"].ravel()).argmax()
    error = found[name][frequent] - exact[name][frequent]
    assert np.linalg.norm(error) < BOUND * np.linalg.norm(exact[name][frequent])


def products(jaxpr: Any) -> Iterator[Any]:
    """Yields the equations of a program that sum products or rows, those of its parts included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "scatter-add", "scatter_add"):
            yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def equations_of_gradient(config: Model, batch: Batch) -> list[Any]:
    loss = make_loss(config, chunks=2, z_loss=1e-4)
    compute = make_gradient(loss, 1, lambda step, part: None)
    params = jax.eval_shape(lambda: decoder.init(config, 0))
    return list(products(jax.make_jaxpr(compute)(params, batch, 0).jaxpr))


@pytest.mark.parametrize("matmul", Matmul)
@pytest.mark.parametrize("reduce", DType)
def test_gradients_are_summed_over_devices_in_the_dtype_of_the_field(
    matmul: Matmul, reduce: DType, batch: Batch
) -> None:
    """What is summed over rows on a device is summed over devices in the same dtype."""
    config = replace(MODEL, compute_dtype=DType.BFLOAT16, matmul=matmul, reduce_dtype=reduce)
    tokens = batch["tokens_BT"].size
    dtypes: dict[str, set[str]] = {"layers": set(), "embedding": set()}
    for equation in equations_of_gradient(config, batch):
        (result,) = (str(out.aval.dtype) for out in equation.outvars)
        if equation.primitive.name != "dot_general":
            dtypes["embedding"].add(result)
            continue
        (contracted, _), (batched, _) = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        if not batched and [shape[axis] for axis in contracted] == [tokens]:
            dtypes["layers"].add(result)
    assert dtypes == {"layers": {reduce.value}, "embedding": {"float32"}}


@pytest.mark.parametrize("matmul", Matmul)
def test_products_in_float32_are_exact(matmul: Matmul, batch: Batch) -> None:
    """Not TF32 and not one pass in bfloat16, which are what XLA chooses on GPUs and TPUs."""
    equations = equations_of_gradient(replace(MODEL, matmul=matmul), batch)
    precisions = [e.params["precision"] for e in equations if e.primitive.name == "dot_general"]
    assert len(precisions) > 20
    highest = jax.lax.Precision.HIGHEST
    assert set(precisions) == {(highest, highest)}
