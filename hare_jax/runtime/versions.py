"""The versions of the libraries that a run's results depend on."""

from __future__ import annotations

from importlib import metadata

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def library_versions() -> dict[str, str | None]:
    """Returns the version of each of LIBRARIES; None: not installed."""
    return {name: version_of(name) for name in LIBRARIES}


def version_of(distribution: str) -> str | None:
    """Returns the version of an installed distribution; None: not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
