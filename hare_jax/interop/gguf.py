"""Checkpoints of ours as one GGUF file, which llama.cpp and what is built on it read.

llama.cpp calls Mistral and Llama models "llama". It knows no sliding window for them, so that a
model with one is given the window as its context: within that there is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import GgufExport, Model, Quantization
from hare_jax.interop import names, vocabulary
from hare_jax.interop.names import Tensor
from hare_jax.interop.vocabulary import Kind, Vocabulary
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import Run, open_run

# A base model knows no roles; without a template programs would put their own marks into a chat.
CHAT = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
BLOCK = 32  # numbers of a row that share a scale
NAMES = {  # by the part of our path that says what a parameter is
    "embedding_VD": "token_embd",
    "final_norm": "output_norm",
    "head_DV": "output",
    "attention_norm": "attn_norm",
    "q_DHK": "attn_q",
    "k_DGK": "attn_k",
    "v_DGK": "attn_v",
    "o_HKD": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate_DF": "ffn_gate",
    "up_DF": "ffn_up",
    "down_FD": "ffn_down",
}


def export(config: GgufExport) -> dict[str, Path]:
    """Writes a checkpoint of ours as a GGUF file, with one parameter in memory at a time.

    Raises ValueError or OSError where there is no such checkpoint, its tokenizer is one that
    llama.cpp cannot repeat, a width does not fit the quantization, or `config.out` is there.
    """
    import gguf

    c, run = config, open_run(config.checkpoint)
    check_widths(run.model, c.quantization)
    pieces = padded(readable(vocabulary.read(run.tokenizer)), run.model.vocab_size)
    with _new_file(c.out) as part:
        writer = gguf.GGUFWriter(part, "llama")
        try:
            writer.add_name(c.name or Path(c.out).stem)
            _describe(writer, run, c.quantization)
            _add_vocabulary(writer, pieces)
            for tensor in names.tensors(run.model):
                kind = _kind(tensor, c.quantization)
                shape = gguf.quant_shape_to_byte_shape(tensor.theirs, kind)
                size = int(np.prod(shape))
                writer.add_tensor_info(name(tensor), shape, np.dtype(np.uint8), size, kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            params = checkpoint.stream_params(run.checkpoints, run.model, step=run.step)
            for tensor, array in names.each(run.model, params):
                array = np.ascontiguousarray(interleaved(tensor, array, run.model.head_dim))
                writer.write_tensor_data(gguf.quantize(array, _kind(tensor, c.quantization)))
        finally:
            writer.close()
    return {"GGUF": Path(c.out)}


def name(tensor: Tensor) -> str:
    """
    >>> name(tensors(Model())[3])
    'blk.0.attn_k.weight'
    """
    path = [key for key in tensor.path if key != "scale"]
    layer = "" if tensor.layer is None else f"blk.{tensor.layer}."
    return f"{layer}{NAMES[path[-1]]}.weight"


def interleaved(tensor: Tensor, array: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of q and k in the order that llama.cpp rotates: it pairs 2 i with 2 i + 1, not i + K/2.

    >>> interleaved(q, np.arange(4)[:, None], head_dim=4)[:, 0]
    array([0, 2, 1, 3])
    """
    if tensor.path[-1] not in ("q_DHK", "k_DGK"):
        return array
    heads = array.reshape(-1, 2, head_dim // 2, array.shape[1])
    return heads.swapaxes(1, 2).reshape(array.shape)


def check_widths(model: Model, quantization: Quantization) -> None:
    """Raises ValueError where a row of a matrix does not divide into blocks."""
    widths = {
        "d_model": model.d_model,
        "d_ff": model.d_ff,
        "num_heads * head_dim": model.num_heads * model.head_dim,
    }
    for what, width in widths.items():
        if quantization is not Quantization.F16 and width % BLOCK:
            raise ValueError(
                f"{what} is {width}, expected a multiple of {BLOCK}: {quantization.value} scales "
                f"so many numbers of a row together; export with --config.quantization=F16"
            )


def readable(pieces: Vocabulary) -> Vocabulary:
    """`pieces`; raises ValueError for those that llama.cpp would give other ids."""
    if Kind.USER_DEFINED in pieces.kinds:
        piece = pieces.pieces[pieces.kinds.index(Kind.USER_DEFINED)]
        raise ValueError(
            f"{pieces.path} has the piece {piece!r} of kind USER_DEFINED, expected none: llama.cpp "
            "puts a space after it, SentencePiece does not; export to Hugging Face instead"
        )
    return pieces


def padded(pieces: Vocabulary, size: int) -> Vocabulary:
    """With unused pieces up to the model's vocabulary."""
    missing = size - len(pieces.pieces)
    if missing < 0:
        raise ValueError(
            f"{pieces.path} has {len(pieces.pieces)} pieces, the model vocab_size={size}; put the "
            "tokenizer that the model was trained with there"
        )
    return replace(
        pieces,
        pieces=[*pieces.pieces, *(f"[PAD{i}]" for i in range(missing))],
        scores=[*pieces.scores, *[-1e9] * missing],
        kinds=[*pieces.kinds, *[Kind.UNUSED] * missing],
    )


def _kind(tensor: Tensor, quantization: Quantization) -> Any:
    """Matrices as asked for, norms in float32."""
    import gguf

    return gguf.GGMLQuantizationType[quantization.value if len(tensor.theirs) == 2 else "F32"]


def _describe(writer: Any, run: Run, quantization: Quantization) -> None:
    import gguf

    m = run.model
    context = run.mixture["sequence_length"]
    writer.add_context_length(min(context, m.sliding_window or context))
    writer.add_embedding_length(m.d_model)
    writer.add_feed_forward_length(m.d_ff)
    writer.add_block_count(m.num_layers)
    writer.add_head_count(m.num_heads)
    writer.add_head_count_kv(m.num_kv_heads)
    writer.add_key_length(m.head_dim)
    writer.add_value_length(m.head_dim)
    writer.add_rope_dimension_count(m.head_dim)
    writer.add_rope_freq_base(m.rope_theta)
    writer.add_layer_norm_rms_eps(m.norm_eps)
    writer.add_vocab_size(m.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantization.value}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_vocabulary(writer: Any, pieces: Vocabulary) -> None:
    writer.add_tokenizer_model("llama")  # SentencePiece's BPE, by scores
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces.pieces)
    writer.add_token_scores(pieces.scores)
    writer.add_token_types(pieces.kinds)
    writer.add_unk_token_id(pieces.unk_id)
    writer.add_bos_token_id(pieces.bos_id)
    writer.add_eos_token_id(pieces.eos_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT)


@contextmanager
def _new_file(out: str) -> Iterator[Path]:
    """A file beside `out`, which becomes it at the end."""
    if not out:
        raise ValueError("out: got nothing, expected a new file: --config.out=model.gguf")
    path = Path(out).absolute()
    if path.exists():
        raise FileExistsError(f"out: {path} is there already; remove it, or give a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
