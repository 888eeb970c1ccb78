"""Ahead of time: the printed costs are those of the program; the search finds the largest batch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.aot import compile, hardware
from hare_jax.aot.collectives import collectives
from hare_jax.config import AheadOfTime, Model, Optimizer, Stage, Training
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.training import optim
from hare_jax.training.state import place_state

T = 16


def training(**changes: object) -> Training:
    values = {
        "stages": [Stage("only", mixture="any", tokens=10_000, weights={"web": 2.0})],
        "batch_size": 16,
        "loss_chunks": 2,
        "optimizer": Optimizer(warmup_steps=1),
    }
    return Training(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_program_for_eight_devices(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = AheadOfTime("cpu", model, training(), sequence_length=T, largest=False)
    path = compile.run(config, tmp_path)["compiled"]
    program = json.loads(path.read_text())["configured"]
    out = capsys.readouterr().out
    mesh = sharding.make_mesh(config.training.mesh)
    placed = place_state(model, optim.build(config.training.optimizer, 40), mesh, 128)

    def held(tree: object) -> int:
        return sum(a.dtype.itemsize * a.size // _parts(a) for a in jax.tree.leaves(tree))

    assert program["parameters"] == held(placed.params)
    assert program["optimizer"] == held(placed.optimizer)
    assert program["state"] > program["parameters"] + program["optimizer"]
    assert program["donated"] == program["state"]  # all of it is updated in place
    assert program["batch"] == 2 * (5 * T + 1) * 4  # two rows a device; their ids are not read
    assert program["temporaries"] > 2 * T * model.vocab_size / 2 * 4  # logits of a chunk at least
    assert program["collectives"]["all-gather"]["count"] >= 7 * model.num_layers
    assert program["rows"] == 2
    flops = 16 * T * decoder.flops_per_token(model, T)
    assert f"{flops:.3e}" in out and "by formula" in out
    assert "fits" in out and "all-gather" in out and "donated" in out


def _parts(a: jax.ShapeDtypeStruct) -> int:
    return a.size // max(1, jnp.prod(jnp.array(a.sharding.shard_shape(a.shape))).item())


def test_the_largest_batch_is_searched(
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = AheadOfTime("cpu", model, training(batch_size=96), sequence_length=T)
    limit = 1000
    found = hardware.Hardware("cpu", jax.devices(), limit)

    def compile_for(
        model: Model, training: Training, length: int, mesh: jax.sharding.Mesh, limit: int
    ) -> compile.Program:
        """Compilation takes seconds; what memory is like is known: 300 and 125 a row."""
        rows = sharding.rows_at_a_time(mesh, training.batch_size, training.accumulation)
        size, parts = 300 + 125 * rows, training.accumulation
        return compile.Program(rows, training.batch_size, parts, 0.0, size, limit, 0, 0)

    monkeypatch.setattr(hardware, "find", lambda _: found)
    monkeypatch.setattr(compile, "compile_for", compile_for)
    values = json.loads(compile.run(config, tmp_path)["compiled"].read_text())
    assert values["configured"]["rows"] == 12 and values["configured"]["total"] > limit
    assert values["largest"]["rows"] == 5 and values["largest"]["total"] <= limit
    assert values["largest"]["accumulation"] == 2  # one part adds no gradients up: less memory
    out = capsys.readouterr().out
    assert "does not fit" in out
    # Five rows at a time do not divide the twelve of a device; four do.
    assert "--config.training.accumulation=3 (4 per device at a time)" in out


@pytest.mark.parametrize("offset", [0, 7_000, 500_000])
@pytest.mark.parametrize("slope", [1_000, 97_003])
@pytest.mark.parametrize("bend", [0.0, 0.002, -0.0005])
@pytest.mark.parametrize("start", [None, 1, 40, 2000])
def test_the_search_is_right_and_short(
    offset: int, slope: int, bend: float, start: int | None
) -> None:
    limit, asked = 1_000_000, []

    def size(n: int) -> int:
        return round(offset + slope * n * (1 + bend * n)) if n < 1000 else 10 * limit

    def measure(n: int) -> int:
        asked.append(n)
        return size(n)

    expected = max((n for n in range(1, 1000) if size(n) <= limit), default=0)
    found = compile.largest_below(measure, limit, {} if start is None else {start: size(start)})
    assert len(asked) == len(set(asked)) <= compile.MAX_COMPILATIONS + 1
    if bend or expected == 999:  # what a line says of a curve or a cliff: near, never too many
        assert expected * 0.8 - 1 <= found <= expected
    else:
        assert found == expected and len(asked) <= 5


def test_nothing_fits() -> None:
    assert compile.largest_below(lambda n: 10 + n, 10, {}) == 0


def test_loops_count_as_often_as_they_run() -> None:
    layers, width = 5, 16
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    weights = jax.ShapeDtypeStruct(
        (layers, width, width), jnp.float32, sharding=NamedSharding(mesh, P(None, "x", None))
    )
    x = jax.ShapeDtypeStruct((4, width), jnp.float32, sharding=NamedSharding(mesh, P()))

    def compiled(unroll: bool) -> str:
        def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            y = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, "x"))) @ w
            return jnp.tanh(jax.lax.with_sharding_constraint(y, NamedSharding(mesh, P()))), None

        def run(weights: jax.Array, x: jax.Array) -> jax.Array:
            return jax.lax.scan(layer, x, weights, unroll=unroll)[0]

        return jax.jit(run).lower(weights, x).compile().as_text()

    scanned, unrolled = collectives(compiled(False)), collectives(compiled(True))
    assert scanned["all-reduce"].count == layers
    assert scanned["all-reduce"].bytes == layers * 4 * width * 4
    assert scanned == unrolled


HLO = """HloModule step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[8]) -> f32[4] {
  %input = f32[8]{0:T(8)} parameter(0)
  %all-reduce.3 = f32[8]{0:T(8)} all-reduce(%input), replica_groups={{0,1}}, to_apply=%add.1
  %zero = s32[] constant(0)
  ROOT %slice = f32[4]{0} dynamic-slice(%all-reduce.3, %zero), dynamic_slice_sizes={4}
}

%condition.1 (state: (s32[], bf16[64])) -> pred[] {
  %state = (s32[]{:T(128)}, bf16[64]{0}) parameter(0)
  %limit = s32[]{:T(128)} constant(6), metadata={op_name="jit(step)/while"}
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body.1 (state.1: (s32[], bf16[64])) -> (s32[], bf16[64]) {
  %state.1 = (s32[]{:T(128)}, bf16[64]{0}) parameter(0)
  %two = s32[] constant(2)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %next = s32[] add(%i.1, %two)
  %x = bf16[64]{0} get-tuple-element(%state.1), index=1
  %start = (bf16[64]{0}, bf16[64]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=1
  %done = bf16[64]{0} collective-permute-done(%start)
  ROOT %tuple.1 = (s32[], bf16[64]{0}) tuple(%next, %done)
}

ENTRY %main.1 (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %part = f32[4]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %init = (s32[], bf16[64]{0}) tuple(%zero.1, %x.1)
  %loop = (s32[], bf16[64]{0}) while(%init), condition=%condition.1, body=%body.1
  %again = (s32[], bf16[64]{0}) while(%loop), condition=%condition.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"10"}}
  ROOT %whole = f32[8]{0} all-gather(%part), channel_id=2, dimensions={0}
}
"""


def test_traffic_of_a_program_for_tpus() -> None:
    found = collectives(HLO)
    assert {kind: (t.count, t.bytes) for kind, t in found.items()} == {
        "all-gather": (1, 8 * 4),
        "reduce-scatter": (1, 8 * 4),  # of which each device keeps a half
        "collective-permute": (3 + 10, 13 * (64 * 2 + 4 + 4)),  # 0, 2, 4; and what the backend says
    }


def test_the_memory_in_a_compilers_error_is_parsed() -> None:
    gib = 1 << 30
    used = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm."
    assert compile.memory_in_error(used, 3 * gib, 16 * gib) == 20.5 * gib
    held = "total memory required for HLO temporaries (512.00M) exceeds available HBM (15.75G)."
    assert compile.memory_in_error(held, 3 * gib, 16 * gib) == 3.5 * gib
    assert compile.memory_in_error("RESOURCE_EXHAUSTED: no", 3, 16 * gib) == 16 * gib + 1


def test_unknown_hardware_is_refused() -> None:
    for name in ("v5e-9", "0xv5e-8", "x", "2x", ""):
        with pytest.raises(ValueError, match=r"is not known; there are v5e-4, .* and cpu"):
            hardware.find(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [("v5e-8", r"needs libtpu: pip install -e '.\[tpu\]'"), ("h200", r"pip install -e '.\[gpu\]'")],
)
def test_a_missing_plugin_is_named_with_its_extra(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=said):
        hardware.find(name)


def test_a_batch_that_cannot_be_shared_is_refused(model: Model, tmp_path: Path) -> None:
    config = AheadOfTime("cpu", model, training(batch_size=12), sequence_length=T)
    with pytest.raises(ValueError, match=r"training.batch_size=12 cannot be divided equally"):
        compile.run(config, tmp_path)


@pytest.mark.parametrize("name", ["v5e-8", "2xv5e-4"])
def test_a_tpu_that_is_not_there(model: Model, tmp_path: Path, name: str) -> None:
    pytest.importorskip("libtpu")
    config = AheadOfTime(name, model, training(), sequence_length=T, largest=False)
    program = json.loads(compile.run(config, tmp_path)["compiled"].read_text())["configured"]
    assert program["donated"] >= program["state"]
    assert 0 < program["total"] < program["limit"] == int(15.75 * (1 << 30))
    assert program["collectives"]
