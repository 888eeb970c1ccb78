"""Removal of evaluation data from training data, and recall on planted leaks."""
