"""Attention kernels: plain XLA, cuDNN and splash."""
