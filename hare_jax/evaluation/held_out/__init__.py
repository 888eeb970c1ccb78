"""Held-out documents: loss, multiple choice and samples, beside baselines."""
