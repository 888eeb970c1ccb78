"""Checkpoints to and from Hugging Face, and to GGUF."""
