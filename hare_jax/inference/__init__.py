"""Inference: scores and completions of token ids, tokenizers, generation on the terminal."""
