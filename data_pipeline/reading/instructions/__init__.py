"""Conversion of instruction data in common formats to plain text."""
