"""Removal of exact and near duplicates, and of repeated paragraphs."""
