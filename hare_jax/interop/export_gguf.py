"""Export of a checkpoint as one GGUF file, which llama.cpp and programs built on it read.

llama.cpp calls Mistral and Llama models "llama" and has no sliding window for them. A model with a
window is therefore exported with the window as its context length; within it both compute the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import GgufExport, Model, Quantization, RopeMethod
from hare_jax.inference.tokenizers import HuggingFaceTokenizer, Tokenizer, open_fitting
from hare_jax.interop import byte_level, names, vocabulary
from hare_jax.interop.folders import new_file
from hare_jax.interop.names import Tensor
from hare_jax.interop.vocabulary import PieceKind, Vocabulary
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import TOKENIZER, Run, open_run

# A base model has no roles. Without a template, programs would put their own markers into a chat.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
BLOCK_SIZE = 32  # numbers of a row that share a scale
# Last key of a parameter's path -> its name in GGUF.
GGUF_NAMES = {
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


def run(config: GgufExport, workdir: Path) -> dict[str, Path]:
    """Writes a checkpoint as the file `config.out`, with one parameter in memory at a time.

    Args:
      config: the checkpoint, and how it is written.
      workdir: not used.

    Raises:
      FileNotFoundError: there is no such checkpoint, or it has no tokenizer.
      FileExistsError: `config.out` exists.
      ValueError: llama.cpp would tokenize differently, a width does not fit the quantization, or
        the architecture is not llama's.
    """
    del workdir
    import gguf

    c, source = config, open_run(config.checkpoint)
    check_architecture(source.model)
    check_widths(source.model, c.quantization)
    tokenizer = open_fitting(source.directory, source.model.vocab_size)
    pieces = read_pieces(source, tokenizer)
    check_pieces(pieces)
    pieces = pad(pieces, source.model.vocab_size)
    with new_file(c.out) as part:
        writer = gguf.GGUFWriter(part, "llama")
        try:
            writer.add_name(c.name or Path(c.out).stem)
            _add_hyperparameters(writer, source, c.quantization)
            _add_vocabulary(writer, pieces, tokenizer)
            _write_tensors(writer, source, c.quantization)
        finally:
            writer.close()
    return {"GGUF": Path(c.out)}


def _write_tensors(writer: Any, source: Run, quantization: Quantization) -> None:
    """Writes the header, then the numbers of each tensor."""
    import gguf

    for tensor in names.tensors(source.model):
        kind = _quantization_type(tensor, quantization)
        byte_shape = gguf.quant_shape_to_byte_shape(tensor.hf_shape, kind)
        size = int(np.prod(byte_shape))
        writer.add_tensor_info(gguf_name(tensor), byte_shape, np.dtype(np.uint8), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    params = checkpoint.stream_params(source.checkpoints, source.model, step=source.step)
    for tensor, array in names.hf_arrays(source.model, params):
        array = np.ascontiguousarray(interleave(tensor, array, source.model.head_dim))
        writer.write_tensor_data(gguf.quantize(array, _quantization_type(tensor, quantization)))


def gguf_name(tensor: Tensor) -> str:
    """Returns the name of a tensor in GGUF.

    >>> gguf_name(names.tensors(Model())[3])
    'blk.0.attn_k.weight'
    """
    path = [key for key in tensor.path if key != "scale"]
    layer = "" if tensor.layer is None else f"blk.{tensor.layer}."
    return f"{layer}{GGUF_NAMES[path[-1]]}.weight"


def interleave(tensor: Tensor, array: np.ndarray, head_dim: int) -> np.ndarray:
    """Reorders rows of q and k: llama.cpp rotates element 2 i with 2 i + 1, not i with i + K/2.

    >>> interleave(q, np.arange(4)[:, None], head_dim=4)[:, 0]  # doctest: +SKIP
    array([0, 2, 1, 3])

    Args:
      tensor: other tensors than q and k are returned unchanged.
      array: [heads * K, D].
      head_dim: K.
    """
    if tensor.path[-1] not in ("q_DHK", "k_DGK"):
        return array
    # [heads, half, K/2, D] -> [heads, K/2, half, D]: the halves of a head are interleaved.
    heads = array.reshape(-1, 2, head_dim // 2, array.shape[1])
    return heads.swapaxes(1, 2).reshape(array.shape)


def check_architecture(model: Model) -> None:
    """Raises ValueError for a model that is not of llama.cpp's architecture "llama"."""
    scaled = model.rope_scaling.method is not RopeMethod.NONE
    traits = {"qk_norm": model.qk_norm, "nope_every": model.nope_every, "rope_scaling": scaled}
    if other := [name for name, holds in traits.items() if holds]:
        raise ValueError(
            f"got a model with {' and '.join(other)}, expected one of the architecture llama: "
            "export it with configs/export_hf.py, and convert that folder with llama.cpp's "
            "convert_hf_to_gguf.py"
        )


def check_widths(model: Model, quantization: Quantization) -> None:
    """Raises ValueError if a row of a matrix cannot be split into blocks of BLOCK_SIZE numbers."""
    widths = {
        "d_model": model.d_model,
        "d_ff": model.d_ff,
        "num_heads * head_dim": model.num_heads * model.head_dim,
    }
    for name, width in widths.items():
        if quantization is not Quantization.F16 and width % BLOCK_SIZE:
            raise ValueError(
                f"{name} is {width}, expected a multiple of {BLOCK_SIZE}: {quantization.value} "
                "scales that many numbers of a row together; export with "
                "--config.quantization=F16"
            )


def read_pieces(source: Run, tokenizer: Tokenizer) -> Vocabulary:
    """Returns the pieces of a run's tokenizer.model, or else of its tokenizer.json.

    Tokens that a Hugging Face folder adds to tokenizer.model come after its pieces. Raises
    ValueError for a tokenizer that llama.cpp does not reproduce.
    """
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return vocabulary.read(source.tokenizer)
    if not (source.directory / TOKENIZER).is_file():
        return byte_level.read(tokenizer)
    pieces = vocabulary.read(source.directory / TOKENIZER)
    size = len(pieces.pieces)
    pieces = pad(pieces, max(size, tokenizer.vocab_size))
    for i, token in tokenizer.added_tokens().items():
        if i >= size:
            pieces.pieces[i] = token.content
            pieces.kinds[i] = PieceKind.CONTROL if token.special else PieceKind.USER_DEFINED
    return replace(pieces, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)


def check_pieces(pieces: Vocabulary) -> None:
    """Raises ValueError for a vocabulary to which llama.cpp would give other ids."""
    if not pieces.pre_tokenizer and PieceKind.USER_DEFINED in pieces.kinds:
        piece = pieces.pieces[pieces.kinds.index(PieceKind.USER_DEFINED)]
        raise ValueError(
            f"{pieces.path} has the piece {piece!r} of kind USER_DEFINED, expected none: llama.cpp "
            "puts a space after it, SentencePiece does not; export to Hugging Face instead"
        )


def pad(pieces: Vocabulary, vocab_size: int) -> Vocabulary:
    """Appends unused pieces up to `vocab_size`; raises ValueError if there are more pieces."""
    missing = vocab_size - len(pieces.pieces)
    if missing < 0:
        raise ValueError(
            f"{pieces.path} has {len(pieces.pieces)} pieces, the model vocab_size={vocab_size}; "
            "expected the tokenizer that the model was trained with"
        )
    return replace(
        pieces,
        pieces=[*pieces.pieces, *(f"[PAD{i}]" for i in range(missing))],
        scores=[*pieces.scores, *[-1e9] * missing],
        kinds=[*pieces.kinds, *[PieceKind.UNUSED] * missing],
    )


def _quantization_type(tensor: Tensor, quantization: Quantization) -> Any:
    """Returns gguf's type of a tensor: matrices are quantized, norms stay float32."""
    import gguf

    return gguf.GGMLQuantizationType[quantization.value if len(tensor.hf_shape) == 2 else "F32"]


def _add_hyperparameters(writer: Any, source: Run, quantization: Quantization) -> None:
    import gguf

    m = source.model
    context = source.mixture["sequence_length"]
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


def _add_vocabulary(writer: Any, pieces: Vocabulary, tokenizer: Tokenizer) -> None:
    writer.add_token_list(pieces.pieces)
    writer.add_token_types(pieces.kinds)
    if pieces.pre_tokenizer:
        writer.add_tokenizer_model("gpt2")  # byte-level BPE, by merges
        writer.add_tokenizer_pre(pieces.pre_tokenizer)
        writer.add_token_merges(pieces.merges)
    else:
        writer.add_tokenizer_model("llama")  # SentencePiece's BPE, by scores
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(pieces.scores)
    if pieces.unk_id is not None:
        writer.add_unk_token_id(pieces.unk_id)
    if pieces.bos_id is not None:
        writer.add_bos_token_id(pieces.bos_id)
    # llama.cpp stops at each of these, and at tokens that it knows by name, such as <|im_end|>.
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token_id in zip(ends, tokenizer.eos_ids, strict=False):
        add(token_id)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(not pieces.pre_tokenizer)
    writer.add_chat_template(_chat_template(tokenizer))


def _chat_template(tokenizer: Tokenizer) -> str:
    """Returns the template of a Hugging Face folder, or CHAT_TEMPLATE."""
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return CHAT_TEMPLATE
    file = tokenizer.path.with_name("chat_template.jinja")
    if file.is_file():
        return file.read_text("utf-8")
    template = tokenizer.settings.get("chat_template")
    if isinstance(template, list):  # of several, the one without tools
        template = {one["name"]: one["template"] for one in template}.get("default")
    return template or CHAT_TEMPLATE
