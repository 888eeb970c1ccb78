"""Configurations: one page of Python per job, run by main.py."""
