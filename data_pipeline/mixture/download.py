"""Downloads a baked mixture from an object store.

    python -m data_pipeline.mixture.download s3://bucket/run/mixture-3f2a91c07b55 data/

downloads mixture.json and the files that it lists, and prints the local mixture directory. Complete
local files are not downloaded again, so that the same command continues an interrupted download.
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

PARALLEL_DOWNLOADS = 8
# Keys of a file and of its hash in mixture.json.
HASHED = (("file", "sha256"), ("spans", "spans_sha256"), ("tfrecord", "tfrecord_sha256"))


def download_mixture(mixture: Path, folder: Path) -> Path:
    """Downloads a mixture below `folder` and returns its local directory.

    A mixture on local disk is returned as it is.

    Raises:
      CorruptStageError: the sha256 of a file differs from mixture.json.
      FileNotFoundError: there is no mixture.json.
    """
    if not is_remote(mixture):
        return mixture
    local = folder / mixture.name
    text = (mixture / "mixture.json").read_bytes()
    files = list(_listed_files(json.loads(text)))

    def download_one(file: tuple[str, str]) -> None:
        name, sha256 = file
        download_file(mixture / name, (local / name).resolve(), sha256)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(download_one, files))
    _download(mixture / "mixture.json", local / "mixture.json", "")
    return local


def download_file(remote: Path, local: Path, sha256: str = "") -> Path:
    """Downloads a file to `local` and returns that path; returns a local file as it is.

    Args:
      remote: a file in an object store, or on local disk.
      local: where the copy is written.
      sha256: the expected hash; "" skips the check.

    Raises:
      CorruptStageError: the file has another hash.
    """
    if not is_remote(remote):
        return remote
    if not (sha256 and local.exists() and file_sha256(local) == sha256):
        _download(remote, local, sha256)
    return local


def _download(remote: Path, local: Path, sha256: str) -> None:
    with explain_disk_full(local), atomic_files([local]) as (temporary,):
        cast(ObjectStorePath, remote).download(temporary)
        if sha256 and (got := file_sha256(temporary)) != sha256:
            raise CorruptStageError(
                f"{remote} has changed since it was baked: got sha256 {got[:12]}..., expected "
                f"{sha256[:12]}... from its mixture.json. Delete its folder and bake it again."
            )


def _listed_files(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (name relative to the mixture, sha256) for every file, each once."""
    yield manifest["tokenizer"]["file"], manifest["tokenizer"]["sha256"]
    for source in manifest["sources"]:
        for file in source["files"]:
            for name, sha256 in HASHED:
                yield file[name], file[sha256]


if __name__ == "__main__":
    usage = "usage: python -m data_pipeline.mixture.download MIXTURE FOLDER"
    if "--help" in sys.argv:
        print(f"{__doc__}\n{usage}")
        sys.exit()
    if len(sys.argv) != 3:
        sys.exit(usage)
    print(download_mixture(storage_path(sys.argv[1]), Path(sys.argv[2])))
