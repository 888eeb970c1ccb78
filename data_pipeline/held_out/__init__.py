"""Held-out documents, and multiple-choice items made from them."""
