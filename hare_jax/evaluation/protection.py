"""Whether the training mixture was decontaminated against a benchmark, from its own files.

A mixture lies beside the stages that made it, and each stage's manifest names its inputs: from the
baked records one walks back to what was indexed when documents were checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def states(mixture: Path | None, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Benchmark -> {"state", ...} for benchmark -> its name in decontamination ("": it has none).

    decontaminated       every document was checked; "files" names what against
    not decontaminated   documents were not checked against it
    unknown              the mixture, or a manifest behind it, is not there to be read
    """
    indexed = None if mixture is None else _indexed(mixture)
    if indexed is None:
        return {name: {"state": "unknown"} for name in names}
    return {
        name: {"state": "decontaminated", "files": indexed[protected]}
        if protected in indexed
        else {"state": "not decontaminated"}
        for name, protected in names.items()
    }


def _indexed(mixture: Path) -> dict[str, list[str]] | None:
    """Benchmark -> "FILE SHA256" of each file that all documents were checked against."""
    manifest = _read(mixture / "mixture.json")
    if manifest is None:
        return None
    stages = {
        (mixture / file["file"]).resolve().parents[1]
        for source in manifest["sources"]
        for file in source["files"]
    }
    baked = [_read(stage / "manifest.json") for stage in stages]
    if not baked or any(stage is None for stage in baked):
        return None
    root = mixture.resolve().parent
    found: list[dict[str, list[str]]] = []
    for stage in baked:
        for name in stage["inputs"] if stage is not None else ():
            checked = _read(root / name / "manifest.json")
            if checked is None:
                return None
            against: dict[str, list[str]] = {}
            for behind in checked["inputs"] if checked["stage"].startswith("decontam") else ():
                index = _read(root / behind / "manifest.json") or {}
                if index.get("stage") == "index":
                    against |= dict(index["extra"])
            found.append(against)
    if not found:
        return None
    return {name: files for name, files in found[0].items() if all(name in f for f in found)}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
