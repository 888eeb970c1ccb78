"""GGUF: llama.cpp reads the same model and the same words."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import DType, GgufExport, HuggingFaceExport, Model, Quantization
from hare_jax.inference.generate import generate
from hare_jax.interop import export_gguf, export_hf, vocabulary
from hare_jax.interop.names import tensors
from hare_jax.model import decoder
from tests.builders import ROOT
from tests.hare_jax import builders
from tests.hare_jax.builders import save_run, train_sentencepiece

pytestmark = pytest.mark.slow

gguf = pytest.importorskip("gguf")
sentencepiece = pytest.importorskip("sentencepiece")
VOCABULARY = 420  # 20 more than there are pieces
# A text that does not change: other pieces give other ids, and the completion other near ties.
LICENSE = (ROOT / "LICENSE").read_text("utf-8")[:5000]
TEXT = "The checkpoint is read\n  by <round_start> another program: é \U0001f407."
MODEL = Model(
    vocab_size=VOCABULARY,
    num_layers=2,
    d_model=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,  # together more than d_model
    d_ff=96,
    rope_theta=500.0,
    compute_dtype=DType.FLOAT32,
)
MIXTURE = {"sequence_length": 256, "tokenizer": {"bos_id": 1, "eos_id": 2}}


def random_params() -> decoder.Params:
    return builders.random_params(MODEL, spread=0.2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = train_sentencepiece(tmp_path_factory.mktemp("pieces"), LICENSE)
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module")
def run(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with random parameters, in which q and k matter."""
    folder = tmp_path_factory.mktemp("a run")
    (folder / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    return save_run(folder, MODEL, random_params(), **MIXTURE)


def exported(run: Path, out: Path, quantization: Quantization) -> Path:
    export_gguf.run(
        GgufExport(checkpoint=str(run), out=str(out), quantization=quantization), out.parent
    )
    return out


class Served:
    """llama.cpp's server on a file, in this process."""

    def __init__(self, path: Path) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel = 256, 1
        parameters.hostnames, parameters.port = ["127.0.0.1"], 0
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.warmup = False
        self.server = xllamacpp.Server(parameters)

    def ask(self, what: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{what}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def logprobs(self, tokens: list[int]) -> np.ndarray | None:
        """Returns log p of every next token, [V].

        None where the most probable one is a byte: the server waits for the whole character.
        """
        options = {"n_predict": 1, "n_probs": VOCABULARY, "temperature": 0.0}
        answer = self.ask("completion", prompt=tokens, **options)
        if "completion_probabilities" not in answer:
            return None
        found = answer["completion_probabilities"][0]["top_logprobs"]
        logprobs_V = np.full(VOCABULARY, -math.inf)
        logprobs_V[[token["id"] for token in found]] = [token["logprob"] for token in found]
        return logprobs_V


@pytest.fixture(scope="module")
def f16(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield Served(exported(run, tmp_path_factory.mktemp("f16") / "m.gguf", Quantization.F16))


def test_text_and_chat_have_the_ids_of_sentencepiece(f16: Served, tokenizer: Any) -> None:
    for text in [TEXT, "", " ", "  two", "<s>", *(" " * n + "x" for n in range(20)), "a\n\n\tb"]:
        plain_text = f16.ask("tokenize", content=text, add_special=True, parse_special=False)
        assert plain_text["tokens"] == [1, *tokenizer.encode(text)], text
    messages = [{"role": "user", "content": "How fast?"}, {"role": "assistant", "content": "So."}]
    answer = f16.ask("apply-template", messages=messages)
    assert answer["prompt"] == "How fast?\nSo."
    chat = f16.ask("chat/completions", messages=messages, max_tokens=1, __verbose=True)
    assert chat["usage"]["prompt_tokens"] == 1 + len(tokenizer.encode(answer["prompt"]))


def test_greedy_text_is_ours(f16: Served, tokenizer: Any) -> None:
    prompt = [1, *tokenizer.encode(TEXT)]
    weights = decoder.Weights.of(MODEL, random_params())
    [expected] = generate(weights, [prompt], max_new_tokens=24, eos_ids=[-1])
    answer = f16.ask(
        "completion",
        prompt=prompt,
        n_predict=24,
        temperature=0.0,
        return_tokens=True,
        logit_bias=[[2, False]],
    )
    assert 2 not in expected
    assert answer["tokens"] == expected


def our_logprobs(tokens: list[int]) -> np.ndarray:
    """[T, V]."""

    @jax.jit
    def logprobs(weights: decoder.Weights) -> jax.Array:
        model = decoder.merge(weights)
        x_BTD = model(jnp.array([tokens]), jnp.arange(len(tokens))[None], None)
        return jax.nn.log_softmax(model.logits(x_BTD[0]))

    return np.asarray(logprobs(decoder.Weights.of(MODEL, random_params())))


@pytest.mark.parametrize(
    ("quantization", "error"),
    [(Quantization.F16, 0.006), (Quantization.Q8_0, 0.12), (Quantization.Q4_0, 1.2)],
)
def test_logits_are_within_the_error_of_the_format(
    run: Path,
    f16: Served,
    tokenizer: Any,
    tmp_path: Path,
    quantization: Quantization,
    error: float,
) -> None:
    served = f16
    if quantization is not Quantization.F16:
        served = Served(exported(run, tmp_path / "m.gguf", quantization))
    tokens = [1, *tokenizer.encode(TEXT)]
    expected_TV = our_logprobs(tokens)
    assert expected_TV.std(axis=1).mean() > 1.5  # logits differ by more than the error
    differences = []
    for t, expected_V in enumerate(expected_TV):
        if (got_V := served.logprobs(tokens[: t + 1])) is not None:
            differences.append(np.abs(got_V - expected_V).mean())
    assert len(differences) > 5
    assert np.mean(differences) < error


def test_size_and_kinds(run: Path, tmp_path: Path) -> None:
    parameters = {t.name: math.prod(t.hf_shape) for t in tensors(MODEL) if len(t.hf_shape) == 2}
    for quantization, bits in (("F16", 16), ("Q8_0", 8.5), ("Q4_0", 4.5)):
        path = exported(run, tmp_path / f"{quantization}.gguf", Quantization[quantization])
        reader = gguf.GGUFReader(path)
        matrices = [t for t in reader.tensors if t.tensor_type.name == quantization]
        assert sum(t.n_bytes for t in matrices) == sum(parameters.values()) * bits / 8
        assert {t.tensor_type.name for t in reader.tensors} == {quantization, "F32"}
        assert len(reader.tensors) == 9 * MODEL.num_layers + 3


def test_rows_of_heads_are_interleaved() -> None:
    [q, v] = [t for t in tensors(MODEL) if t.layer == 0 and t.path[-1] in ("q_DHK", "v_DGK")]
    rows = np.arange(128)[:, None]
    assert export_gguf.interleave(q, rows, 32)[:5, 0].tolist() == [0, 16, 1, 17, 2]
    assert export_gguf.interleave(q, rows, 32)[32, 0] == 32
    assert export_gguf.interleave(v, rows, 32) is rows


def test_a_window_becomes_the_context(run: Path, tmp_path: Path) -> None:
    model = replace(MODEL, sliding_window=100)
    folder = save_run(tmp_path / "windowed", model, random_params(), **MIXTURE)
    (folder / "tokenizer.model").write_bytes((run / "tokenizer.model").read_bytes())
    path = exported(folder, tmp_path / "m.gguf", Quantization.F16)
    field = gguf.GGUFReader(path).get_field("llama.context_length")
    assert field.contents() == 100


def test_what_cannot_be_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="d_ff is 40, expected a multiple of 32: Q4_0 scales"):
        export_gguf.check_widths(replace(MODEL, d_ff=40), Quantization.Q4_0)
    export_gguf.check_widths(replace(MODEL, d_ff=40), Quantization.F16)
    changed = replace(MODEL, qk_norm=True)
    other = save_run(tmp_path / "other", changed, builders.random_params(changed), **MIXTURE)
    with pytest.raises(ValueError, match=r"model with qk_norm, expected one of .*convert_hf_to_gg"):
        exported(other, tmp_path / "other.gguf", Quantization.F16)
    with pytest.raises(ValueError, match="has 400 pieces, the model vocab_size=399"):
        export_gguf.pad(vocabulary.read(run / "tokenizer.model"), 399)
    chat = train_sentencepiece(tmp_path, LICENSE, user_defined_symbols="<round_start>")
    with pytest.raises(ValueError, match="piece '<round_start>' of kind USER_DEFINED"):
        export_gguf.check_pieces(vocabulary.read(chat))
    with pytest.raises(ValueError, match="out: got nothing, expected a new file"):
        export_gguf.run(GgufExport(checkpoint=str(run)), tmp_path)
    (tmp_path / "m.gguf").touch()
    with pytest.raises(FileExistsError, match="exists already"):
        exported(run, tmp_path / "m.gguf", Quantization.F16)


def byte_level_run(folder: Path, pre_tokenizer: Any) -> Path:
    """An imported model with the tokenizer.json of byte-level BPE, and three ends of a text."""
    import tokenizers

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = pre_tokenizer
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<start>", "<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(LICENSE.splitlines(), trainer)
    bpe.enable_truncation(max_length=3)
    original = folder / "huggingface"
    original.mkdir(parents=True)
    bpe.save(str(original / "tokenizer.json"))
    for name, content in (
        (
            "tokenizer_config",
            {"eos_token": "<|end|>", "bos_token": "<start>", "chat_template": "x"},
        ),
        ("config", {"eos_token_id": [2, 0], "bos_token_id": 1}),
        ("generation_config", {"eos_token_id": [2, 0]}),
    ):
        (original / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return save_run(folder, MODEL, random_params(), **MIXTURE)


def test_a_tokenizer_json_is_exported(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    from hare_jax.inference.tokenizers import open_tokenizer

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    for name, step in (
        ("smollm", pre_tokenizers.Sequence([digits, byte_level])),
        ("gpt-2", byte_level),
    ):
        folder = byte_level_run(tmp_path / name, step)
        path = exported(folder, tmp_path / f"{name}.gguf", Quantization.F16)
        reader, tokenizer = gguf.GGUFReader(path), open_tokenizer(folder)
        for key, expected in (
            ("pre", name),
            ("eos_token_id", 2),
            ("eot_token_id", 0),
            ("add_bos_token", False),
        ):
            field = reader.get_field(f"tokenizer.ggml.{key}")
            assert field is not None and field.contents() == expected, key
        served = Served(path)
        for text in (TEXT, "", "  1234 don't<|end|>x", "\n\n\t a  b"):
            got = served.ask("tokenize", content=text, add_special=True, parse_special=True)
            assert got["tokens"] == tokenizer.encode(text), text
    export_hf.run(HuggingFaceExport(str(folder), str(tmp_path / "hf")), tmp_path)
    assert json.loads((tmp_path / "hf/config.json").read_text())["eos_token_id"] == [2, 0]
    folder = byte_level_run(tmp_path / "other", pre_tokenizers.Whitespace())
    with pytest.raises(ValueError, match="expected no normalizer and that of one of gpt-2"):
        exported(folder, tmp_path / "other.gguf", Quantization.F16)
