"""Curation: from raw text to packed training data. Never imports JAX or hare_jax."""
