"""Evaluation of checkpoints: held-out documents, benchmarks, and leakage of benchmarks."""
