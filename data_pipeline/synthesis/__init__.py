"""Synthetic text (tier D2): a teacher writes texts from passages, and output filters select."""
