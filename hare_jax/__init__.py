"""Training, inference and evaluation of decoder language models in JAX."""
