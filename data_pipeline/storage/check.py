"""The check of the address that a run writes to."""

from __future__ import annotations

from data_pipeline.config_problems import Problems
from data_pipeline.storage.object_store import is_remote, storage_path


def check(output: str, problems: Problems) -> None:
    """Checks `recipe.output`: a folder or a new one, or an address of an object store."""
    if not output:
        return
    try:
        path = storage_path(output)
    except ValueError as error:
        problems.messages.append(f"{problems.path}.output: {error}")
        return
    if not is_remote(path) and path.exists() and not path.is_dir():
        problems.add("output", output, "a folder; this is a file")
