"""The decoder, its attention and its matrix products."""
