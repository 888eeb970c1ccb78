"""Restructuring: a teacher turns passages into tasks as JSON, which is checked and rendered."""
