"""Tracking: metrics, TensorBoard and Weights & Biases, and the profiler."""
