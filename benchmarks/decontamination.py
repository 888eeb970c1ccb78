"""Measures decontamination: recall on planted leaks, false positives, and speed.

    python -m benchmarks.decontamination --benchmarks DIR --clean DIR [--paraphrases DIR] [--train]

--benchmarks is a folder with a subfolder or file per known benchmark; --clean one with .jsonl,
.jsonl.gz or .jsonl.zst files with a field "text". --paraphrases is a folder of
test_rewritten*.jsonl with "rewritten_question" and "rewritten_answer" of GSM8K rows; the paraphrase
rule is then measured beside the default rules. --train indexes all splits but the train splits and
treats the train items as documents. Copies of test items among them are no false positives and are
counted separately.

Items are chosen by a hash of their ids, so that the same input gives the same table. Times are CPU
seconds of this process.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipeline.config import Benchmark, Decontamination, ParaphraseRule
from data_pipeline.decontamination import benchmarks, paraphrases, planted_leaks, rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import NgramIndex, build_index
from data_pipeline.decontamination.paraphrases import ParaphraseIndex
from data_pipeline.storage.compressed import read_chunks, split_lines
from data_pipeline.storage.document import Document, Dropped

Decide = Callable[[Sequence[Document]], list[Document | Dropped]]
N = 13
CLEAN_CHARACTERS = 400_000  # characters of each file around and inside what is planted


def documents(folder: str, each: float = float("inf")) -> Iterator[Document]:
    """Yields the texts in a folder; of each file the first `each` characters."""
    paths = sorted(p for p in Path(folder).rglob("*.jsonl*") if p.is_file())
    if not paths:
        raise SystemExit(f"no .jsonl, .jsonl.gz or .jsonl.zst files in {folder}")
    for path in paths:
        left = each
        for number, (_, line, _) in enumerate(split_lines(read_chunks(path))):
            text = json.loads(line)["text"]
            left -= len(text)
            if left < 0:
                break
            yield Document(f"{path.name}/{number}", text, path.name.split(".")[0], "")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], title: str) -> None:
    """Prints a table with a title."""
    print(f"\n{title}")
    lines = [
        list(head),
        *([f"{c:.3f}" if isinstance(c, float) else str(c) for c in r] for r in rows),
    ]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    for line in lines:
        print("  " + "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)), flush=True)


def recall(
    items: list[BenchmarkItem],
    paraphrased: list[BenchmarkItem],
    clean: list[Document],
    config: Decontamination,
    index: NgramIndex,
    paraphrase_index: ParaphraseIndex | None,
    max_items: int,
) -> None:
    """Prints the recall by kind of leak and benchmark."""
    measured = planted_leaks.measure_recall(
        items,
        clean,
        config,
        index,
        paraphrase_index=paraphrase_index,
        paraphrases=paraphrased,
        max_items=max_items,
    )
    cells: dict[tuple[str, str], dict[str, Any]] = {
        (row["kind"], row["benchmark"]): row for row in measured["results"]
    }
    names = list(dict.fromkeys(name for _, name in cells))
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in cells):
        found = [cells.get((kind, name)) for name in names]
        shares = [row["recall"] if row else "" for row in found]
        known = [row for row in found if row]
        mean = sum(row["recall"] for row in known) / len(known)
        generic = sum(row["generic"] for row in known)
        rows.append([kind, *shares, mean, generic])
    rules_on = "default rules" + (" and paraphrases" if paraphrase_index is not None else "")
    title = f"Recall of planted leaks, up to {max_items} items of each benchmark, {rules_on}"
    table(["kind", *names, "mean", "generic"], rows, title)
    print(
        "  generic: not found, and the question is too short or common to be told from other text"
    )


def alarms(decide: Decide, clean: Iterable[Document], shown: int) -> None:
    """Prints the share of clean documents that are dropped, and some of them."""
    number = size = 0
    seconds = 0.0
    found: list[Dropped] = []
    for batch in _batches(clean):
        begin = time.process_time()
        answers = decide(batch)
        seconds += time.process_time() - begin
        found += [answer for answer in answers if isinstance(answer, Dropped)]
        number += len(batch)
        size += sum(len(d.text.encode("utf-8", "surrogatepass")) for d in batch)
    print(
        f"  {len(found)} of {number} documents, {len(found) / number:.4%}; "
        f"{size / 1e6:.1f} MB at {size / 1e6 / seconds:.1f} MB/s of CPU"
    )
    print(f"  by rule: {dict(Counter(d.evidence['rule'] for d in found))}")
    for dropped in found[:shown]:
        evidence = dropped.evidence
        said = f"{evidence['rule']} {evidence['share']:.2f} {evidence['item']} {evidence['part']}"
        print(f"    {dropped.document.id}: {said} | {' '.join(evidence['span'].split())[:100]}")


def train_items(items: list[BenchmarkItem], config: Decontamination, shown: int) -> None:
    """Prints the share of train items that are dropped with all other splits indexed."""
    train = [item for item in items if item.id.split("/")[1].startswith("train")]
    rest = [item for item in items if not item.id.split("/")[1].startswith("train")]
    by_id = {item.id: item for item in items}
    index = build_index(rest, N, config)
    decide = rules.build_decide(config, index)
    paraphrase_index = paraphrases.build_index(rest, ParaphraseRule())
    on = replace(config, paraphrases=ParaphraseRule(enabled=True))
    decide_with_paraphrases = rules.build_decide(on, index, paraphrase_index)
    rows = []
    examples: list[str] = []

    def of_test(dropped: Dropped) -> BenchmarkItem:
        return by_id[dropped.evidence["item"]]

    for name in dict.fromkeys(item.benchmark for item in train):
        # Winogrande's smaller train splits are parts of the large one.
        mine = [i for i in train if i.benchmark == name and i.id.split("/")[1][6:] not in _PARTS]
        texts = [Document(item.id, planted_leaks.whole_text(item), "", "") for item in mine]
        found = [answer for answer in decide(texts) if isinstance(answer, Dropped)]
        more = sum(isinstance(answer, Dropped) for answer in decide_with_paraphrases(texts))
        others = [d for d in found if _agreement(by_id[d.document.id], of_test(d)) < _COPY]
        shares = [f"{len(some) / len(texts):.2%}" for some in (found, others)]
        rows.append([name, len(texts), len(found), shares[0], len(others), shares[1], more])
        for dropped in others[:shown]:
            other = planted_leaks.whole_text(of_test(dropped))
            examples.append(f"    {dropped.document.text[:150]!r}\n      {other[:150]!r}")
    head = ["benchmark", "items", "found", "share", "no copies", "share", "with paraphrases"]
    table(head, rows, "Items of the train split, with the other splits indexed")
    print(
        f"  a copy: of the words of both questions, or of both whole items, {_COPY:.0%} agree in "
        "order. The others:"
    )
    print("\n".join(examples))


_PARTS = ("xs", "s", "m")
_COPY = 0.8


def _agreement(one: BenchmarkItem, other: BenchmarkItem) -> float:
    """Returns the share of words that agree in order (difflib), of the questions or of all text."""

    def ratio(one: str, other: str) -> float:
        a, b = (re.findall(r"\w+", text.lower()) for text in (one, other))
        return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()

    questions = [next(iter(item.parts.values())) for item in (one, other)]
    return max(
        ratio(*questions), ratio(planted_leaks.whole_text(one), planted_leaks.whole_text(other))
    )


def _batches(clean: Iterable[Document], number: int = 256) -> Iterator[list[Document]]:
    """Yields documents in lists of `number`."""
    batch: list[Document] = []
    for document in clean:
        batch.append(document)
        if len(batch) == number:
            yield batch
            batch = []
    if batch:
        yield batch


def main() -> None:
    """Parses the options and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarks", required=True)
    parser.add_argument("--clean", required=True)
    parser.add_argument("--paraphrases", default="")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--all", action="store_true", help="all known benchmarks, not the default")
    parser.add_argument("--items", type=int, default=300, help="planted of each benchmark")
    parser.add_argument("--megabytes", type=float, default=0, help="of each clean file; 0 is all")
    parser.add_argument("--show", type=int, default=20, help="false alarms that are printed")
    arguments = parser.parse_args()

    config = Decontamination()
    known = benchmarks.find_benchmarks(arguments.benchmarks)
    chosen = [b for b in known if arguments.all or b.name in benchmarks.DEFAULT_BENCHMARKS]
    items = [item for benchmark in chosen for item in benchmarks.read_items(benchmark)]
    begin = time.process_time()
    index = build_index(items, N, config)
    print(
        f"{len(items)} items of {len(chosen)} benchmarks; index {time.process_time() - begin:.1f} s"
    )
    print(f"not decontaminated against: {', '.join(benchmarks.unprotected(chosen)) or 'none'}")
    print(f"found only as a whole document: {index.unindexed or 'no item'}")
    around = list(documents(arguments.clean, CLEAN_CHARACTERS))
    paraphrased = _read_paraphrases(arguments.paraphrases)
    recall(items, paraphrased, around, config, index, None, arguments.items)

    each = arguments.megabytes * 1e6 or float("inf")
    print(f"\nFalse positives of the default rules, n = {N}: clean text of {arguments.clean}")
    alarms(rules.build_decide(config, index), documents(arguments.clean, each), arguments.show)
    if arguments.train:
        train_items(items, config, arguments.show)
    if paraphrased:
        on = replace(config, paraphrases=ParaphraseRule(enabled=True))
        paraphrase_index = paraphrases.build_index(items, on.paraphrases)
        recall(items, paraphrased, around, on, index, paraphrase_index, arguments.items)
        print("\nFalse positives with the paraphrase rule")
        few = documents(arguments.clean, min(each, CLEAN_CHARACTERS))
        alarms(rules.build_decide(on, index, paraphrase_index), few, arguments.show)


def _read_paraphrases(folder: str) -> list[BenchmarkItem]:
    """Returns the paraphrased items of a folder; [] for ""."""
    if not folder:
        return []
    files = sorted(str(p) for p in Path(folder).glob("test_rewritten*.jsonl*"))
    if not files:
        raise SystemExit(f"no test_rewritten*.jsonl files in {folder}")
    return list(benchmarks.read_paraphrases(Benchmark("gsm8k", folder, paraphrases=tuple(files))))


if __name__ == "__main__":
    main()
