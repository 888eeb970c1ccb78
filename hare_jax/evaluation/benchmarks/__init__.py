"""Benchmarks of lm-evaluation-harness: scores, clean items, tables and charts."""
