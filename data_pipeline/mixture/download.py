"""A mixture that was baked into an object store, on the machine that trains on it.

    python -m data_pipeline.mixture.download s3://bucket/run/mixture-3f2a91c07b55 data/

downloads mixture.json and all that it lists and prints the local mixture directory. What is there
already, whole, is not fetched again, so the same command continues an interrupted one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from data_pipeline.execution.manifest import CorruptStageError, file_sha256
from data_pipeline.storage.atomic import atomic_files, explain_disk_full
from data_pipeline.storage.object_store import ObjectStorePath, is_remote, storage_path

FILES_AT_ONCE = 8
HASHED = (("file", "sha256"), ("spans", "spans_sha256"), ("tfrecord", "tfrecord_sha256"))


def download_mixture(mixture: Path, folder: Path) -> Path:
    """The mixture directory below `folder`, with all files that its mixture.json lists.

    A local mixture is left where it is. Raises CorruptStageError for a file whose sha256 is not the one
    in mixture.json, FileNotFoundError where there is no mixture.json.
    """
    if not is_remote(mixture):
        return mixture
    here = folder / mixture.name
    text = (mixture / "mixture.json").read_bytes()
    wanted = list(_listed(json.loads(text)))

    def one(file: tuple[str, str]) -> None:
        name, sha256 = file
        download_file(mixture / name, (here / name).resolve(), sha256)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(one, wanted))
    _put(mixture / "mixture.json", here / "mixture.json", "")
    return here


def download_file(remote: Path, local: Path, sha256: str = "") -> Path:
    """A copy of a remote file at `local`, checked if its hash is known; a local file as it is."""
    if not is_remote(remote):
        return remote
    if not (sha256 and local.exists() and file_sha256(local) == sha256):
        _put(remote, local, sha256)
    return local


def _put(remote: Path, local: Path, sha256: str) -> None:
    with explain_disk_full(local), atomic_files([local]) as (partial,):
        cast(ObjectStorePath, remote).download(partial)
        if sha256 and (got := file_sha256(partial)) != sha256:
            raise CorruptStageError(
                f"{remote} has changed since it was baked: got sha256 {got[:12]}..., its "
                f"mixture.json says {sha256[:12]}.... Delete its folder and bake it again."
            )


def _listed(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name relative to the mixture, sha256) of every file, each once."""
    yield manifest["tokenizer"]["file"], manifest["tokenizer"]["sha256"]
    for source in manifest["sources"]:
        for file in source["files"]:
            for name, sha256 in HASHED:
                yield file[name], file[sha256]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m data_pipeline.mixture.download MIXTURE FOLDER")
    print(download_mixture(storage_path(sys.argv[1]), Path(sys.argv[2])))
