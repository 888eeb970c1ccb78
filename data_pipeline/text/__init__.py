"""Helpers for text: hashed n-grams, prose, passages, distractor words and seeded randomness."""
