"""What holds for every test."""


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are no name of a test: gzip's header holds the time, so two processes would differ."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None
