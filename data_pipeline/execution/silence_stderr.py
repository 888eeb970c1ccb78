"""Silence for libraries that write to standard error before they read any of their settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Discards everything written to standard error inside the context; exceptions pass."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)
