"""Training: the loop, the step, the loss, the optimizer, checkpoints and run folders."""
