"""Runs MinHash deduplication by datatrove, datasketch or rensa, in an interpreter that has them.

    python peers.py PEER < request > answer

The request is one JSON object: {"documents": a .jsonl file of {"id", "text"}, "repeats", "scratch":
an empty folder, "ngram_words", "permutations", "bands", "rows", "threshold"}. The answer is the
last line of output: CPU seconds of each run without imports, the number of documents dropped, and
versions. This file imports nothing of hare-jax.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORD = re.compile(r"\w+")


def shingles(text: str, n: int) -> list[str]:
    """Returns the word n-grams of a text as strings."""
    found = WORD.findall(text.lower())
    return [" ".join(found[k : k + n]) for k in range(max(1, len(found) - n + 1))]


def groups(pairs: Any, number: int) -> int:
    """Returns how many of `number` documents are dropped if one of each connected group is kept."""
    parent = list(range(number))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for i, j in pairs:
        parent[max(root(i), root(j))] = min(root(i), root(j))
    return sum(root(k) != k for k in range(number))


def datasketch(request: dict[str, Any], texts: list[str], hash_name: str = "") -> Callable[[], int]:
    """Runs datasketch with a hash function."""
    from datasketch import MinHash, MinHashLSH

    hash_function = None
    if hash_name:
        import xxhash

        hash_function = xxhash.xxh32_intdigest

    def run() -> int:
        sets = [[s.encode() for s in shingles(text, request["ngram_words"])] for text in texts]
        sketches = MinHash.bulk(
            sets, num_perm=request["permutations"], scheme="affine32", hashfunc=hash_function
        )
        lsh = MinHashLSH(
            num_perm=request["permutations"], params=(request["bands"], request["rows"])
        )
        for k, sketch in enumerate(sketches):
            lsh.insert(k, sketch)
        pairs = ((k, other) for k, sketch in enumerate(sketches) for other in lsh.query(sketch))
        return groups(pairs, len(texts))

    return run


def rensa(request: dict[str, Any], texts: list[str]) -> Callable[[], int]:
    """Runs rensa."""
    from rensa import RMinHash, RMinHashLSH

    def run() -> int:
        sets = [shingles(text, request["ngram_words"]) for text in texts]
        sketches = RMinHash.from_token_sets(sets, request["permutations"], 1)
        lsh = RMinHashLSH(request["threshold"], request["permutations"], request["rensa_bands"])
        lsh.insert_many(sketches)
        found = lsh.query_all(sketches)
        return groups(
            ((k, other) for k, others in enumerate(found) for other in others), len(texts)
        )

    # It wants as many permutations in each band, all of them used.
    request["rensa_bands"] = max(
        b for b in range(1, request["bands"] + 3) if request["permutations"] % b == 0
    )
    return run


def datatrove(request: dict[str, Any], texts: list[str]) -> Callable[[], int]:
    """Runs its four steps on files: signatures, buckets, clusters, filter."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import minhash as steps
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    load_word_tokenizer("eng").word_tokenize("Loads the model.")
    path, scratch = Path(request["documents"]), Path(request["scratch"])
    config = steps.MinhashConfig(
        n_grams=request["ngram_words"],
        num_buckets=request["bands"],
        hashes_per_bucket=request["rows"],
    )

    def execute(pipeline: list[Any], number: int, tasks: int = 1) -> None:
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=1, logging_dir=str(scratch / f"logs-{number}")
        ).run()

    def run() -> int:
        shutil.rmtree(scratch)
        scratch.mkdir()
        folders = [str(scratch / name) for name in ("signatures", "buckets", "removed", "kept")]
        signatures, buckets, removed, kept = folders
        reader = JsonlReader(str(path.parent), glob_pattern=path.name)
        execute([reader, steps.MinhashDedupSignature(signatures, config)], 1)
        execute(
            [steps.MinhashDedupBuckets(signatures, buckets, config=config)], 2, config.num_buckets
        )
        execute([steps.MinhashDedupCluster(buckets, removed, config=config)], 3)
        execute([reader, steps.MinhashDedupFilter(removed), JsonlWriter(kept)], 4)
        left = [
            line
            for f in Path(kept).iterdir()
            for line in gzip.decompress(f.read_bytes()).splitlines()
        ]
        return len(texts) - len(left)

    return run


PEERS = {
    "datatrove": datatrove,
    "datasketch": datasketch,
    "datasketch_xxh32": lambda request, texts: datasketch(request, texts, "xxh32"),
    "rensa": rensa,
}


def main() -> None:
    """Reads the request, runs the peer, and writes the answer."""
    description, _, epilog = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("peer", choices=PEERS)
    name = parser.parse_args().peer
    request = json.load(sys.stdin)
    with Path(request["documents"]).open() as file:
        texts = [json.loads(line)["text"] for line in file]
    run = PEERS[name](request, texts)
    seconds, dropped = [], 0
    for _ in range(request["repeats"]):
        begin = time.process_time()
        dropped = run()
        seconds.append(time.process_time() - begin)
    library = name.partition("_")[0]
    answer = {
        "seconds": seconds,
        "dropped": dropped,
        "version": importlib.metadata.version(library),
    }
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
