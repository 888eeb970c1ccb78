"""Hugging Face: the same logits, the same text, the same bits there and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import (
    Architecture,
    DType,
    HuggingFaceExport,
    HuggingFaceImport,
    Model,
    RopeMethod,
    RopeScaling,
)
from hare_jax.inference.generate import generate
from hare_jax.inference.tokenizers import HUGGING_FACE_FOLDER
from hare_jax.interop import export_hf, hf_config, import_hf, names, shards
from hare_jax.model import decoder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import open_run
from tests.hare_jax.builders import equal_trees, random_params, save_run, saved_params

pytestmark = pytest.mark.slow

MISTRAL, LLAMA = Architecture.MISTRAL, Architecture.LLAMA
QWEN3, SMOLLM3 = Architecture.QWEN3, Architecture.SMOLLM3
LLAMA3_POSITIONS = RopeScaling(RopeMethod.LLAMA3, 8.0, 32)
YARN_POSITIONS = RopeScaling(RopeMethod.YARN, 4.0, 32, high_rotations=32.0, attention_factor=1.25)
PROMPTS = [[1, 7, 8, 9, 30, 31], [1, 50, 40]]


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function from a model to a run with one checkpoint of random parameters."""

    def write(model: Model, length: int = 128, tokenizer: bytes | None = None) -> Path:
        mixture = {"sequence_length": length, "tokenizer": {"bos_id": 1, "eos_id": 2}}
        folder = save_run(tmp_path / "a run", model, random_params(model), **mixture)
        # So that tests of tensors need no tokenizer: what was imported brings its own files.
        (folder / HUGGING_FACE_FOLDER).mkdir()
        return folder

    return write


def exported(run: Path, out: Path, **options: Any) -> Path:
    export_hf.run(HuggingFaceExport(checkpoint=str(run), out=str(out), **options), out.parent)
    return out


def ours(model: Model, params: decoder.Params, tokens_BT: np.ndarray) -> np.ndarray:
    @jax.jit
    def logits(weights: decoder.Weights) -> jax.Array:
        merged = decoder.merge(weights)
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        return merged.logits(merged(jnp.asarray(tokens_BT), positions_BT, None))

    return np.asarray(logits(decoder.Weights.of(model, params)))


def theirs(folder: Path, tokens_BT: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(torch.tensor(tokens_BT, dtype=torch.long)).logits.float().numpy()


@pytest.mark.parametrize(
    ("changes", "architecture", "length"),
    [
        ({}, MISTRAL, 24),
        ({}, LLAMA, 24),
        ({"tied_head": True}, MISTRAL, 24),
        ({"sliding_window": 5}, MISTRAL, 24),
        ({"num_kv_heads": 4}, LLAMA, 1024),
        ({"num_kv_heads": 1, "head_dim": 16, "rope_theta": 500.0, "norm_eps": 0.1}, MISTRAL, 24),
        ({"sliding_window": 700}, MISTRAL, 1024),
        ({"qk_norm": True, "tied_head": True, "rope_theta": 1e6}, QWEN3, 24),
        ({"qk_norm": True, "sliding_window": 5}, QWEN3, 24),
        ({"nope_every": 2, "tied_head": True}, SMOLLM3, 24),
        ({"rope_scaling": LLAMA3_POSITIONS}, LLAMA, 128),
        ({"rope_scaling": YARN_POSITIONS, "qk_norm": True}, QWEN3, 128),
        ({"rope_scaling": RopeScaling(RopeMethod.LINEAR, 2.0)}, MISTRAL, 24),
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(
    model: Model,
    write_run: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    architecture: Architecture,
    length: int,
) -> None:
    model = replace(model, **changes)
    folder = exported(write_run(model, length), tmp_path / "hf", architecture=architecture)
    tokens_BT = np.random.default_rng(1).integers(0, model.vocab_size, (1, length))
    got, expected = ours(model, random_params(model), tokens_BT), theirs(folder, tokens_BT)
    assert np.abs(expected).max() > 3
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_greedy_text_is_that_of_transformers(
    model: Model, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = exported(write_run(model), tmp_path / "hf")
    weights = decoder.Weights.of(model, random_params(model))
    got = generate(weights, PROMPTS, max_new_tokens=12, eos_ids=[64])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for prompt, tokens in zip(PROMPTS, got, strict=True):
        length = {"min_new_tokens": 12, "max_new_tokens": 12, "pad_token_id": 0}
        ids = torch.tensor([prompt])
        theirs.generation_config.eos_token_id = None
        full = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **length)
        assert full[0, len(prompt) :].tolist() == tokens
    assert len(set(map(tuple, got))) == 2


@pytest.mark.parametrize(
    ("changes", "architecture", "shard_gb", "files"),
    [
        ({}, MISTRAL, 1, ["model.safetensors"]),
        ({"tied_head": True, "sliding_window": 5}, MISTRAL, 1, ["model.safetensors"]),
        ({"rope_theta": 5e5, "norm_eps": 1e-6}, LLAMA, 2e-5, None),
        ({"rope_scaling": LLAMA3_POSITIONS}, Architecture.AUTO, 1, ["model.safetensors"]),
        ({"qk_norm": True, "rope_scaling": YARN_POSITIONS}, QWEN3, 1, ["model.safetensors"]),
        ({"nope_every": 2, "tied_head": True}, SMOLLM3, 1, ["model.safetensors"]),
    ],
    ids=str,
)
def test_there_and_back_is_bit_exact(
    model: Model,
    write_run: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    architecture: Architecture,
    shard_gb: float,
    files: list[str] | None,
) -> None:
    model = replace(model, **changes)
    out = exported(write_run(model), tmp_path / "hf", architecture=architecture, shard_gb=shard_gb)
    written = sorted(path.name for path in out.glob("*.safetensors"))
    if files is None:  # every file within the limit, together all tensors
        assert len(written) > 2 and written[0] == f"model-00001-of-{len(written):05d}.safetensors"
        assert max((out / name).stat().st_size for name in written) < 20_000 + 4000  # the header
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(written)
        assert index["metadata"]["total_size"] == 4 * decoder.num_params(model)
    else:
        assert written == files
    back = tmp_path / "back"
    import_hf.run(HuggingFaceImport(source=str(out), out=str(back)), tmp_path)
    run = open_run(back)
    assert run.model == model
    assert run.mixture["sequence_length"] == 128
    params, step = checkpoint.restore_params(run.checkpoints, run.model)
    assert step == 0 and equal_trees(params, random_params(model))


def test_files_are_what_the_library_reads_and_writes(
    model: Model, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    out = exported(write_run(model), tmp_path / "hf")
    read = safetensors.load_file(out / "model.safetensors")
    params = random_params(model)
    assert np.array_equal(
        read["model.layers.1.mlp.down_proj.weight"],
        params["layers"]["feed_forward"]["down_FD"][1].T,
    )
    # What another program wrote, in another order.
    mixed = dict(sorted(read.items(), reverse=True))
    safetensors.save_file(mixed, out / "model.safetensors", {"format": "pt"})
    import_hf.run(HuggingFaceImport(source=str(out), out=str(tmp_path / "back")), tmp_path)
    assert equal_trees(saved_params(tmp_path / "back", model), params)


def test_bfloat16_rounds_and_then_stays(
    model: Model, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    out = exported(write_run(model), tmp_path / "hf", dtype=DType.BFLOAT16)
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    import_hf.run(HuggingFaceImport(source=str(out), out=str(tmp_path / "back")), tmp_path)
    rounded = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16).astype(np.float32), random_params(model)
    )
    restored = saved_params(tmp_path / "back", model)
    assert equal_trees(restored, rounded)
    assert not equal_trees(restored, random_params(model))


def test_streamed_parameters_are_the_restored_ones(
    model: Model, write_run: Callable[..., Path]
) -> None:
    run = write_run(model)
    streamed = dict(checkpoint.stream_params(run / "checkpoints", model))
    assert list(streamed) == sorted({tensor.path for tensor in names.tensors(model)})
    params = random_params(model)
    for path, array in streamed.items():
        node: Any = params
        for key in path:
            node = node[key]
        assert np.array_equal(array, node), path


def test_partition_fills_files_in_order() -> None:
    shapes = [(str(i), (size,)) for i, size in enumerate([3, 3, 3, 9, 1])]
    parts = shards.partition(shapes, np.dtype("float32"), 7 * 4)
    assert [[int(name) for name, _ in part] for part in parts] == [[0, 1], [2], [3], [4]]


CONFIG = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def test_absent_values_are_those_that_transformers_takes() -> None:
    transformers = pytest.importorskip("transformers")
    for kind in ("mistral", "llama", "qwen3", "smollm3"):
        config = CONFIG | {"model_type": kind}
        theirs = transformers.AutoConfig.for_model(**config)
        got = hf_config.to_model(config, Path("config.json"))
        assert got.num_kv_heads == theirs.num_key_value_heads
        assert got.head_dim == getattr(theirs, "head_dim", 8)  # transformers divides, too
        assert got.sliding_window == getattr(theirs, "sliding_window", None)
        assert got.norm_eps == theirs.rms_norm_eps
        assert got.tied_head == theirs.tie_word_embeddings
        assert got.rope_theta == theirs.rope_parameters["rope_theta"]
        mixture = hf_config.mixture(config)
        assert mixture["sequence_length"] == theirs.max_position_embeddings
        ids = (mixture["tokenizer"]["bos_id"], mixture["tokenizer"]["eos_id"])
        assert ids == (theirs.bos_token_id, theirs.eos_token_id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', expected one of"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"attention_bias": True}, "attention_bias is True, expected False"),
        ({"mlp_bias": True}, "mlp_bias is True, expected False"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is {'type': 'dynamic"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 1.0}}, "without mscale"),
        ({"model_type": "smollm3", "no_rope_layers": [0, 1]}, r"no_rope_layers is \[0, 1\]"),
        ({"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": 1}, "max_window"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters is {'rope_type': 'llama3'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has"),
        ({"hidden_size": None}, "hidden_size is None, expected a whole number"),
    ],
    ids=str,
)
def test_what_a_model_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hf_config.to_model(CONFIG | changes, Path("config.json"))


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values), encoding="utf-8")


def refused(folder: Path, message: str, error: type[Exception] = ValueError) -> None:
    out = folder.parent / "refused"
    with pytest.raises(error, match=message):
        import_hf.run(HuggingFaceImport(source=str(folder), out=str(out)), out.parent)
    assert not out.exists() and not out.with_name("refused.part").exists()


def test_tensors_that_do_not_fit_are_refused_by_name(
    model: Model, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = exported(write_run(model), tmp_path / "hf")
    whole = (folder / "model.safetensors").read_bytes()

    change_config(folder, intermediate_size=40)
    refused(
        folder,
        r"model.layers.0.mlp.down_proj.weight has shape \[32, 48\], expected \[32, 40\]",
    )
    change_config(folder, intermediate_size=48, num_hidden_layers=3)
    refused(folder, r"no tensor model.layers.2.self_attn.k_proj.weight, expected one of shape")
    change_config(folder, num_hidden_layers=1)
    refused(folder, r"tensor model.layers.1.input_layernorm.weight \(and 8 more\) is in no model")
    change_config(folder, num_hidden_layers=2)
    tensors = safetensors.load(whole)
    integers = tensors | {"lm_head.weight": tensors["lm_head.weight"].astype(np.int8)}
    safetensors.save_file(integers, folder / "model.safetensors")
    refused(folder, "lm_head.weight is of dtype I8, expected one of F32, F16, BF16")
    (folder / "model.safetensors").write_bytes(whole[:-4])
    refused(folder, "model.safetensors: not a complete safetensors file")
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors: no such file", FileNotFoundError)
    (folder / "config.json").unlink()
    refused(folder, "has no config.json", FileNotFoundError)


def test_exports_that_cannot_be_are_refused(
    model: Model, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = write_run(replace(model, sliding_window=5))
    out = tmp_path / "hf"
    with pytest.raises(ValueError, match=r"'llama' cannot represent .*window=5.*=MISTRAL"):
        exported(run, out, architecture=LLAMA)
    with pytest.raises(ValueError, match=r"'qwen3' cannot represent .*=MISTRAL"):
        exported(run, out, architecture=QWEN3)
    both = replace(model, nope_every=2, qk_norm=True)
    with pytest.raises(ValueError, match=r"no architecture .* qk_norm=True, nope_every=2 together"):
        hf_config.from_model(both, open_run(run).mixture, Architecture.AUTO, "float32")
    with pytest.raises(ValueError, match="checkpoint: got nothing"):
        export_hf.run(HuggingFaceExport(out=str(out)), tmp_path)
    with pytest.raises(ValueError, match="out: got nothing"):
        export_hf.run(HuggingFaceExport(checkpoint=str(run)), tmp_path)
    assert not out.exists()
    exported(run, out)
    with pytest.raises(FileExistsError, match="exists already; remove it"):
        exported(run, out)
