"""Measures the speed of curation beside other projects, on one core, in one run.

    python -m benchmarks.curation FOLDER                 a folder of .jsonl, .jsonl.gz, .jsonl.zst
    python -m benchmarks.curation FOLDER --benchmarks B  B has a subfolder for each known benchmark
    python -m benchmarks.curation FOLDER --peer-python P an interpreter with datatrove and rensa
    python -m benchmarks.curation                        the sources of this Python installation

Reads at most --megabytes (20) of the field "text", an equal share of each file. Times are CPU
seconds, the lowest of --repeats (3); "x" is the ratio to the first row of a table. Programs that
are not installed are skipped and named. --only selects minhash, decontamination, recipe or workers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import recipe
from benchmarks.corpus import SpeedTable, arguments, load, megabytes_of
from benchmarks.peers import shingles
from data_pipeline.config import Decontamination, Deduplication
from data_pipeline.decontamination import benchmarks, rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import build_index
from data_pipeline.deduplication import candidate_groups, signatures, survivors
from data_pipeline.storage.document import Document, Dropped

PEERS = {
    "datatrove": "datatrove {}: signature, buckets, cluster, filter",
    "datasketch": "datasketch {}, as it comes (sha1)",
    "datasketch_xxh32": "datasketch {} with xxh32",
    "rensa": "rensa {}",
}


def duplicates(documents: list[Document], config: Deduplication) -> int:
    """Runs all steps of deduplication in memory, over one shard and one partition."""
    (keys,) = signatures.compute_signatures(documents, config).by_partition(1)
    connected = candidate_groups.connect([candidate_groups.find_links([(0, keys)])])
    members = survivors.collect_members(documents, connected, config)
    return len(survivors.decide([members], [], config)[0].dropped) if members.ids else 0


def ask_peer(python: str, name: str, request: dict[str, Any]) -> dict[str, Any] | str:
    """Returns the reply of benchmarks/peers.py, or the reason why there is none."""
    done = subprocess.run(
        [python, str(Path(__file__).with_name("peers.py")), name],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def minhash(documents: list[Document], repeats: int, python: str) -> None:
    """Prints rates from text to duplicates; only hare-jax verifies candidate pairs."""
    config = Deduplication()
    megabytes = megabytes_of(documents)
    about = f"word {config.ngram_words}-grams, {config.permutations} permutations"
    table = SpeedTable(f"MinHash from text to duplicates, {about}", megabytes, repeats)
    drops: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input", "documents.jsonl")
        path.parent.mkdir()
        with path.open("w") as file:
            file.writelines(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in documents)
        (scratch := Path(folder, "scratch")).mkdir()
        request = asdict(config) | {"documents": str(path), "scratch": str(scratch)}
        for name, title in PEERS.items():
            # The slowest needs no second time.
            request["repeats"] = 1 if name == "datatrove" else repeats
            answer = ask_peer(python, name, request)
            if isinstance(answer, str):
                print(f"  {name} is left out: {answer}")
                continue
            table.timed(title.format(answer["version"]), min(answer["seconds"]))
            drops[name] = answer["dropped"]
    drops["hare-jax"] = table.row(
        "hare-jax: verified by exact Jaccard", lambda: duplicates(documents, config)
    )
    seconds = recipe.deduplication(documents, repeats)
    table.timed("hare-jax: its six stages, shards in, shards out", seconds)
    print(f"  documents to drop: {', '.join(f'{name} {drops[name]}' for name in drops)}")
    table = SpeedTable("Of that, signatures", megabytes, repeats)
    table.row(
        "signatures and exact hashes", lambda: signatures.compute_signatures(documents, config)
    )


def decontamination(documents: list[Document], items: list[BenchmarkItem], repeats: int) -> None:
    """Prints rates of a plain set of n-grams and of all rules."""
    config = Decontamination()
    n = config.ngram_words["D1"]
    table = SpeedTable(
        f"Decontamination, n = {n}, {len(items)} items", megabytes_of(documents), repeats
    )
    of_items = {
        gram for item in items for part in item.parts.values() for gram in shingles(part, n)
    }
    index = build_index(items, n, config)
    decide = rules.build_decide(config, index)

    def by_set() -> int:
        flagged = 0
        for document in documents:
            grams = shingles(document.text, n)
            hits = sum(gram in of_items for gram in grams)
            flagged += hits > config.sample_share * len(grams)
        return flagged

    def by_rules() -> int:
        return sum(isinstance(answer, Dropped) for answer in decide(documents))

    few = table.row("Python set of n-grams, sample share only", by_set)
    more = table.row("hare-jax, all rules with their evidence", by_rules)
    print(f"  {few} and {more} of {len(documents)} documents are contaminated")


def make_items(documents: list[Document]) -> list[BenchmarkItem]:
    """Returns items made of a passage of every twentieth document, for lack of benchmarks."""
    texts = (" ".join(d.text.split()[20:80]) for d in documents[::20])
    return [
        BenchmarkItem(f"made/{k}", "made", {"question": text})
        for k, text in enumerate(texts)
        if text
    ]


def main() -> None:
    """Parses the options and prints the tables."""
    options = arguments(
        str(__doc__),
        benchmarks=("", "a folder with a subfolder for each known benchmark"),
        repeats=(3, "the best of so many runs counts"),
        peer_python=(sys.executable, "an interpreter that has datatrove, datasketch and rensa"),
        only=("", "minhash, decontamination, recipe or workers"),
    )
    documents = load(options.folder, options.field, options.megabytes)
    if options.only in ("", "minhash"):
        minhash(documents, options.repeats, options.peer_python)
    if options.only in ("", "decontamination"):
        known = benchmarks.find_benchmarks(options.benchmarks)
        items = [item for benchmark in known for item in benchmarks.read_items(benchmark)]
        decontamination(documents, items or make_items(documents), options.repeats)
    if options.only in ("", "recipe"):
        recipe.print_rates(documents, options.benchmarks, options.repeats)
    if options.only in ("", "workers"):
        recipe.print_workers(documents, options.benchmarks, options.repeats)


if __name__ == "__main__":
    main()
