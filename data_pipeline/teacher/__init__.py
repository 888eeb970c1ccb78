"""A client for teacher models behind OpenAI-compatible servers."""
