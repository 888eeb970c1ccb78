"""llama.cpp's own server, from the wheel xllamacpp, with a small model that is made here.

Run as a process of its own: `python llama_server.py MODEL.gguf` writes the model, prints the
address, and serves chat and embeddings until it is killed. The model is a Llama with random weights
and a vocabulary of single characters: it says nothing, but all of the server is real.
"""

from __future__ import annotations

import sys
import time

import gguf
import numpy as np
import xllamacpp

WIDTH, HIDDEN, LAYERS, HEADS, CONTEXT = 64, 128, 2, 4, 1024
SLOTS = 4
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """SentencePiece's specials and bytes, then a space and the printable characters of ASCII."""
    kind = gguf.TokenType
    return [
        ("<unk>", kind.UNKNOWN),
        ("<s>", kind.CONTROL),
        ("</s>", kind.CONTROL),
        *((f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)),
        ("\u2581", kind.NORMAL),
        *((chr(code), kind.NORMAL) for code in range(33, 127)),
    ]


def write_model(path: str, seed: int = 0) -> None:
    pieces = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(pieces))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([kind for _, kind in pieces])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

    rng = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns)) / np.sqrt(columns)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", len(pieces), WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            ones(f"blk.{layer}.{name}")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_gate", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_up", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_down", WIDTH, HIDDEN)
    ones("output_norm")
    matrix("output", len(pieces), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(path: str) -> None:
    write_model(path)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = CONTEXT * SLOTS
    parameters.n_parallel = SLOTS
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.embedding = True  # chat is answered all the same
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(f"{server.listening_address}/v1", flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
