"""Packed datasets, the order of their records, and batches."""
