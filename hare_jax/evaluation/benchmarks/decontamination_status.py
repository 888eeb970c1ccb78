"""The benchmarks against which a training mixture was decontaminated, read from its own files.

A mixture lies beside the stages that made it, and the manifest of each stage names its inputs:

    mixture-1/mixture.json -> bake-1 -> decontaminate-1 -> index-1, which lists the benchmark files
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class DecontaminationStatus:
    """The benchmarks that the documents of a mixture were compared with.

    Attributes:
      files: benchmark -> "FILE SHA256" of each file that all documents were compared with.
      stages: the folders of the stages that compared them.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    stages: list[Path] = field(default_factory=list)


def status_by_benchmark(
    status: DecontaminationStatus | None, names: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Returns the state of each benchmark.

    decontaminated       every document was compared with it; "files" lists its files
    not decontaminated   not all documents were compared with it
    unknown              the mixture, or a manifest of its stages, cannot be read

    Args:
      status: of the mixture, or None.
      names: benchmark -> its name in decontamination ("": it has none).

    Returns:
      benchmark -> {"state", "files" if it is decontaminated}
    """
    if status is None:
        return {name: {"state": "unknown"} for name in names}
    return {
        name: {"state": "decontaminated", "files": status.files[decontaminated_as]}
        if decontaminated_as in status.files
        else {"state": "not decontaminated"}
        for name, decontaminated_as in names.items()
    }


def read_status(mixture: Path | None) -> DecontaminationStatus | None:
    """Reads the status of a mixture; None if it, or a manifest of its stages, cannot be read."""
    manifest = None if mixture is None else _read(mixture / "mixture.json")
    if mixture is None or manifest is None:
        return None
    # mixture-1/../bake-1/shards/FILE: the stages whose records the mixture lists.
    bake_stages = {
        (mixture / file["file"]).resolve().parents[1]
        for source in manifest["sources"]
        for file in source["files"]
    }
    bake_manifests = [_read(stage / "manifest.json") for stage in bake_stages]
    root = mixture.resolve().parent
    files_by_stage: dict[Path, dict[str, list[str]]] = {}
    for bake_manifest in bake_manifests:
        for name in bake_manifest["inputs"] if bake_manifest is not None else ():
            stage = _read(root / name / "manifest.json")
            if stage is None:
                return None
            files_by_stage[root / name] = _indexed_files(root, stage)
    if not files_by_stage or any(bake_manifest is None for bake_manifest in bake_manifests):
        return None
    # Only what every input of the mixture was compared with counts.
    first, *others = files_by_stage.values()
    files = {name: of for name, of in first.items() if all(name in other for other in others)}
    return DecontaminationStatus(
        files, sorted(stage for stage, indexed in files_by_stage.items() if indexed)
    )


def _indexed_files(root: Path, stage: dict[str, Any]) -> dict[str, list[str]]:
    """Returns benchmark -> "FILE SHA256"; {} for a stage that compares nothing."""
    indexed: dict[str, list[str]] = {}
    for name in stage["inputs"] if stage["stage"].startswith("decontam") else ():
        index = _read(root / name / "manifest.json") or {}
        if index.get("stage") == "index":
            indexed |= dict(index["extra"])
    return indexed


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
