"""The audit of whether benchmarks were in the training data of a checkpoint."""
