"""Cleaning of documents: normalization, repeated lines, personal information, quality rules."""
