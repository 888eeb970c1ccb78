"""Whether the training mixture was decontaminated against a benchmark, from its own files.

A mixture lies beside the stages that made it, and each stage's manifest names its inputs: from the
baked records one walks back to what was indexed when documents were checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class DecontaminationStatus:
    """What the documents of a mixture were checked against.

    `files`: benchmark -> "FILE SHA256" of each file that all documents were checked against.
    `stages`: the folders of the stages that checked them.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    stages: list[Path] = field(default_factory=list)


def status_by_benchmark(
    checked: DecontaminationStatus | None, names: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Benchmark -> {"state", ...} for benchmark -> its name in decontamination ("": it has none).

    decontaminated       every document was checked; "files" names what against
    not decontaminated   documents were not checked against it
    unknown              the mixture, or a manifest behind it, is not there to be read
    """
    if checked is None:
        return {name: {"state": "unknown"} for name in names}
    return {
        name: {"state": "decontaminated", "files": checked.files[protected]}
        if protected in checked.files
        else {"state": "not decontaminated"}
        for name, protected in names.items()
    }


def read_status(mixture: Path | None) -> DecontaminationStatus | None:
    """None where the mixture, or a manifest behind it, is not there to be read."""
    manifest = None if mixture is None else _read(mixture / "mixture.json")
    if mixture is None or manifest is None:
        return None
    baked = {
        (mixture / file["file"]).resolve().parents[1]
        for source in manifest["sources"]
        for file in source["files"]
    }
    ways = [_read(stage / "manifest.json") for stage in baked]
    root = mixture.resolve().parent
    found: dict[Path, dict[str, list[str]]] = {}
    for way in ways:
        for name in way["inputs"] if way is not None else ():
            stage = _read(root / name / "manifest.json")
            if stage is None:
                return None
            found[root / name] = _against(root, stage)
    if not found or any(way is None for way in ways):
        return None
    first, *others = found.values()
    files = {name: of for name, of in first.items() if all(name in other for other in others)}
    return DecontaminationStatus(
        files, sorted(stage for stage, against in found.items() if against)
    )


def _against(root: Path, stage: dict[str, Any]) -> dict[str, list[str]]:
    """Benchmark -> "FILE SHA256" of each of its files; {} of a stage that checks nothing."""
    against: dict[str, list[str]] = {}
    for behind in stage["inputs"] if stage["stage"].startswith("decontam") else ():
        index = _read(root / behind / "manifest.json") or {}
        if index.get("stage") == "index":
            against |= dict(index["extra"])
    return against


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
