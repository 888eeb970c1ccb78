"""A prompt continued on the terminal: the text of `generate`, shown as it comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from hare_jax.config import DType, Generation, Model, plain
from hare_jax.inference import generate_job, tokenizers
from hare_jax.inference.generate import generate
from hare_jax.inference.sampling import Sampling
from hare_jax.model import decoder
from tests.hare_jax import builders


class Bytes:
    """Ids 3 to 258 are the bytes of UTF-8."""

    bos_id, eos_id, vocab_size = 1, 2, 259
    adds_bos, eos_ids = True, (2,)

    def __init__(self, path: Path, eos_ids: Sequence[int] = ()) -> None:
        assert path.name == "tokenizer.model"
        self.path = path

    def encode(self, text: str) -> list[int]:
        return [3 + byte for byte in text.encode()]

    def decode(self, ids: list[int]) -> str:
        return bytes(i - 3 for i in ids if i >= 3).decode(errors="replace")


@pytest.fixture
def byte_model(model: Model) -> Model:
    return replace(model, vocab_size=259)


def random_params(model: Model) -> decoder.Params:
    return builders.random_params(model, seed=5, spread=0.5, scale_mean=0.0)


@pytest.fixture
def run(byte_model: Model, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.model").touch()
    return builders.save_run(tmp_path, byte_model, random_params(byte_model))


@pytest.mark.slow
@pytest.mark.parametrize("trained_in", DType)
def test_shows_what_generate_has(
    run: Path,
    byte_model: Model,
    trained_in: DType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32, as fits a CPU, whatever it was trained in."""
    monkeypatch.setattr(tokenizers, "SentencePieceTokenizer", Bytes)
    trained = {"model": plain(replace(byte_model, compute_dtype=trained_in)), "mixture": {}}
    (run / "config.json").write_text(json.dumps(trained), encoding="utf-8")
    prompt, how = "h\u00e9 ", {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "seed": 4}
    config = Generation(checkpoint=str(run), prompt=prompt, max_tokens=20, **how)
    assert generate_job.run(config, run) == {}
    shown = capsys.readouterr()
    tokenizer = Bytes(run / "tokenizer.model")
    ids = tokenizer.encode(prompt)
    [tokens] = generate(
        decoder.Weights.of(byte_model, random_params(byte_model)),
        [[1, *ids]],
        max_new_tokens=20,
        eos_ids=[2],
        sampling=Sampling(**how),
    )
    assert len(tokens) == 20
    assert shown.out == tokenizer.decode(ids + tokens) + "\n"
    assert shown.err.startswith("20 tokens, ") and shown.err.endswith("until max_tokens\n")


def test_a_character_is_shown_when_it_is_whole() -> None:
    tokenizer = Bytes(Path("tokenizer.model"))
    text = "a\u00e9\U0001f407b"
    shown = list(
        generate_job.decode_stream(tokenizer.encode("x"), tokenizer.encode(text), tokenizer.decode)
    )
    assert shown == ["a", "\u00e9", "\U0001f407", "b"]
    half = tokenizer.encode("a\u00e9")[:-1]
    assert "".join(generate_job.decode_stream([], half, tokenizer.decode)) == "a\ufffd"


@pytest.mark.slow
def test_matrices_are_read_as_they_are_multiplied(byte_model: Model) -> None:
    model = replace(byte_model, compute_dtype=DType.BFLOAT16)
    params = jax.tree.map(jax.numpy.asarray, random_params(model))
    smaller = decoder.in_compute_dtype(params, model)
    assert smaller["embedding_VD"].dtype == "bfloat16"
    assert smaller["final_norm"]["scale"].dtype == "float32"

    @jax.jit
    def logits(weights: decoder.Weights) -> jax.Array:
        merged = decoder.merge(weights)
        tokens_BT = jax.numpy.arange(9)[None]
        return merged.logits(merged(tokens_BT, tokens_BT, None))

    weights, halved = (decoder.Weights.of(model, p) for p in (params, smaller))
    assert (logits(weights) == logits(halved)).all()


def test_mistakes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Larger(Bytes):
        vocab_size = 260

    with monkeypatch.context() as patched:
        patched.setattr(tokenizers, "SentencePieceTokenizer", Larger)
        with pytest.raises(ValueError, match="has 260 pieces, the model vocab_size=259"):
            generate_job.run(Generation(checkpoint=str(run)), run)
        patched.setattr(tokenizers, "SentencePieceTokenizer", Bytes)
        with pytest.raises(ValueError, match="temperature=-1"):
            generate_job.run(Generation(checkpoint=str(run), temperature=-1.0), run)
    (run / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model: no such file"):
        generate_job.run(Generation(checkpoint=str(run)), run)


@pytest.mark.parametrize(("max_length", "expected"), [(0, 8), (6, 6)])
def test_a_prompt_that_is_longer_than_the_context_is_refused(
    run: Path, byte_model: Model, monkeypatch: pytest.MonkeyPatch, max_length: int, expected: int
) -> None:
    monkeypatch.setattr(tokenizers, "SentencePieceTokenizer", Bytes)
    trained = {"model": plain(byte_model), "mixture": {"sequence_length": 8}}
    (run / "config.json").write_text(json.dumps(trained), encoding="utf-8")
    config = Generation(checkpoint=str(run), prompt="1234567", max_length=max_length)
    with pytest.raises(ValueError, match=f"got 8 tokens, expected fewer than {expected}, the len"):
        generate_job.run(config, run)


def test_generation_stops_at_the_end_of_the_context(
    run: Path,
    byte_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tokenizers, "SentencePieceTokenizer", Bytes)
    trained = {"model": plain(byte_model), "mixture": {"sequence_length": 8}}
    (run / "config.json").write_text(json.dumps(trained), encoding="utf-8")
    generate_job.run(Generation(checkpoint=str(run), prompt="123", max_tokens=20), run)
    assert capsys.readouterr().err.startswith("4 tokens, ")
