"""Shows what cleaning drops and replaces in a folder, and measures language identification.

    python -m benchmarks.cleaning FOLDER                            counts by rule, language, speed
    python -m benchmarks.cleaning FOLDER --rule cut_off             20 documents that a rule drops
    python -m benchmarks.cleaning FOLDER --rule phone --samples 50  what is replaced as a number
    python -m benchmarks.cleaning FOLDER --rule repeated_line       lines by number of documents
    python -m benchmarks.cleaning FOLDER --rule-sets C4,FineWeb     published rule sets as well
    python -m benchmarks.cleaning FOLDER --rule C4 --prose 150      what C4 alone drops of the rest

FOLDER is read as the recipe reads it. Stages are kept in --workdir, so that a second call is fast.
Samples are drawn by --seed. --prose N restricts the measurement to N documents of each source with
the prose profile, drawn by --seed. Language is measured where ids name it (tldr pages such as
pages.de/tar.md, manuals such as bind.html.fr.utf8): precision and recall of English, for documents
of at least --characters (200) characters.
"""

from __future__ import annotations

import argparse
import heapq
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_pipeline import config as settings
from data_pipeline.cleaning import personal_information, rules
from data_pipeline.cleaning.links import remove_links
from data_pipeline.cleaning.normalize import normalize
from data_pipeline.cleaning.repeated_lines_stage import find_repeated_lines
from data_pipeline.cleaning.stage import clean as clean_all
from data_pipeline.config import Cleaning, CleaningProfile, Recipe, Source
from data_pipeline.execution.local_engine import LocalEngine
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.reading import input_shards, sources
from data_pipeline.reading.stage import read
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import BadInput, Document, Dropped
from data_pipeline.storage.shards import read_dropped, read_shard
from data_pipeline.text import seeded_random

KINDS = ("email", "phone", "ip_address", "card_number", "iban", "ssn", "secret")
RULE_SETS = {  # and what their reasons begin with
    "GopherRepetition": "gopher_",
    "GopherQuality": "gopher_",
    "C4": "c4_",
    "FineWeb": "fineweb_",
}
AROUND = 50  # characters around what is replaced
SPEED_BYTES = 2_000_000  # of each category
# pages.pt_BR/common/tar.md, pages/common/tar.md; bind.html.fr.utf8, bind.html.en
_PAGES = re.compile(r"(?:^|/)pages(?:\.([a-z]{2,3})(?:_[A-Z]{2})?)?/")
_SUFFIX = re.compile(r"\.html\.([a-z]{2})(?:-[a-z]{2})?(?:\.[\w-]+)?$")


def documents(directory: Directory) -> Iterator[Document]:
    """Yields the kept documents of a stage."""
    for file in directory.files():
        yield from read_shard(file.path)


def dropped(directory: Directory) -> Iterator[Dropped]:
    """Yields the dropped documents of a stage."""
    for file in directory.files("dropped"):
        for _, answer in read_dropped(file.path):
            yield answer


def language_of(document_id: str) -> str | None:
    """Returns the language that an id names, or None.

    >>> language_of("pages.pt_BR/common/tar.md"), language_of("pages/linux/apt.md")
    ('pt', 'en')
    >>> language_of("docs/manual/bind.html.fr.utf8"), language_of("chapter-1")
    ('fr', None)
    """
    if match := _PAGES.search(document_id):
        return match[1] or "en"
    match = _SUFFIX.search(document_id)
    return match[1] if match else None


def draw(folder: str, each: int, seed: int, into: Path) -> None:
    """Writes `each` documents of every source of prose to a file, drawn by their ids."""
    drawn: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    reading, profiles = Recipe().reading, Cleaning().profiles
    source = Source(path=folder)
    for shard in input_shards.list_shards(source, reading):
        for found in sources.read(shard, source, reading):
            if isinstance(found, BadInput) or profiles.get(found.category) not in (
                None,
                CleaningProfile.PROSE,
            ):
                continue
            heap = drawn[found.source]
            place = -seeded_random.hash64(seed, found.id)  # a heap drops its smallest
            if len(heap) < each or place > heap[0][0]:
                row = {"id": found.id.removeprefix(f"{found.source}/"), "text": found.text}
                row |= {"source": found.source, "category": found.category}
                heapq.heappush(heap, (place, found.id, json.dumps(row)))
                if len(heap) > each:
                    heapq.heappop(heap)
    rows = [row for _, heap in sorted(drawn.items()) for *_, row in sorted(heap)]
    write_text(into, "".join(f"{row}\n" for row in rows))


def counts(cleaned: Directory) -> None:
    """Prints the documents kept and dropped by reason, and replacements by kind."""
    by_rule: dict[str, Counter[str]] = defaultdict(Counter)
    replaced: dict[str, Counter[str]] = defaultdict(Counter)
    for source, account in cleaned.counts().items():
        for reason, number in account.dropped.items():
            by_rule[reason][source] = number
        for what, number in account.changed.items():
            replaced[what][source] = number
    for title, table in (("dropped by", by_rule), ("replaced", replaced)):
        print(f"\n{title}")
        for name, per in sorted(table.items(), key=lambda item: -item[1].total()):
            most = ", ".join(f"{source} {number}" for source, number in per.most_common(5))
            print(f"  {name:<28} {per.total():>9,}  {most}")


def speed(before: Directory, config: Cleaning) -> None:
    """Prints MB per CPU second of the rules, on the first documents of each category."""
    taken: dict[str, list[Document]] = defaultdict(list)
    size: Counter[str] = Counter()
    for document in documents(before):
        if size[document.category] < SPEED_BYTES:
            taken[document.category].append(document)
            size[document.category] += len(document.text.encode())
    decide = rules.build(config)
    print("\nMB/s of CPU time, without repeated lines")
    total = 0.0
    for category, some in taken.items():
        begin = time.process_time()
        for document in some:
            decide(document)
        seconds = time.process_time() - begin
        total += seconds
        print(f"  {category:<28} {size[category] / 1e6 / seconds:9.1f}")
    print(f"  {'all, the same of each':<28} {size.total() / 1e6 / total:9.1f}")


def language(before: Directory, config: Cleaning, least: int) -> None:
    """Prints precision and recall of "is English" where ids name the language."""
    decide = rules.build(replace(config, min_words=1, rule_sets=()))
    table: dict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for document in documents(before):
        if named := language_of(document.id):
            answer = decide(document)
            text = answer.document.text if isinstance(answer, Dropped) else answer.text
            if len(text) >= least:
                taken = not isinstance(answer, Dropped) or answer.reason != "language"
                table[document.source][named == config.language, taken] += 1
    print(f"\nin {config.language!r}, documents of {least} characters and more after cleaning")
    for source, count in table.items():
        right, missed, wrong = count[True, True], count[True, False], count[False, True]
        others = wrong + count[False, False]
        if right and others:
            print(
                f"  {source:<28} precision {right / (right + wrong):.4f}, "
                f"recall {right / (right + missed):.4f}, of {right + missed} and {others} others"
            )


def show_dropped(
    cleaned: Directory, rule: str, begins: str, samples: int, seed: int, shown: int
) -> None:
    """Prints documents that were dropped for reasons with a prefix, drawn by a seed."""
    found = [answer for answer in dropped(cleaned) if answer.reason.startswith(begins)]
    found.sort(key=lambda d: seeded_random.hash64(seed, rule, d.document.source, d.document.id))
    print(f"\n{rule}: {len(found)} documents, {min(samples, len(found))} of them")
    for number, answer in enumerate(found[:samples], start=1):
        text = answer.document.text
        print(f"\n{number}. {answer.document.source} {answer.document.id}, {len(text)} characters")
        print(f"   {answer.reason} {answer.evidence}")
        ends = [text] if len(text) <= 2 * shown else [text[:shown], text[-shown:]]
        print("   " + "\n   [...]\n   ".join(end.replace("\n", "\n   ") for end in ends))


def show_rule_set(cleaned: Directory, name: str, samples: int, seed: int, shown: int) -> None:
    """Prints how many documents a rule set drops of those that the other rules keep, and some."""
    begins = RULE_SETS[name]
    accounts = cleaned.counts().values()
    reasons = sum((Counter(account.dropped) for account in accounts), Counter[str]())
    reasons = Counter({why: n for why, n in reasons.items() if why.startswith(begins)})
    print(f"\n{name} drops {reasons.total()} of {sum(a.kept for a in accounts) + reasons.total()}")
    for why, number in reasons.most_common():
        print(f"  {why:<28} {number:>9,}")
    show_dropped(cleaned, name, begins, samples, seed, shown)


def show_replaced(before: Directory, kind: str, samples: int, seed: int) -> None:
    """Prints texts that were replaced by a placeholder, drawn by a seed."""
    profiles = Cleaning().profiles
    found = []
    for document in documents(before):
        profile = profiles.get(document.category, CleaningProfile.PROSE)
        text, _ = remove_links(normalize(document.text, profile), profile)
        for start, end, found_kind in personal_information.find(text, profile):
            if found_kind == kind:
                near = f"{text[max(0, start - AROUND) : start]}[[{text[start:end]}]]"
                found.append((document.source, document.id, f"{near}{text[end : end + AROUND]}"))
    found.sort(key=lambda row: seeded_random.hash64(seed, kind, *row))
    print(f"\n{kind}: {len(found)} places, {min(samples, len(found))} of them")
    for source, name, near in found[:samples]:
        print(f"  {source} {name}\n    {near!r}")


def show_lines(cleaned: Directory, samples: int) -> None:
    """Prints the repeated lines that were removed, the most frequent first."""
    lines: dict[str, dict[str, int]] = defaultdict(dict)
    for ledger in cleaned.ledgers():
        for source, found in ledger.extra.get("repeated_lines", {}).items():
            lines[source].update((line, number) for line, number in found)
    for source, table in lines.items():
        print(f"\n{source}")
        for line, number in sorted(table.items(), key=lambda i: (-i[1], i[0]))[:samples]:
            print(f"  {number:>7,}  {line[:100]}")


def main() -> None:
    """Parses the options and prints what they ask for."""
    description, _, epilog = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder")
    parser.add_argument("--rule", default="")
    parser.add_argument("--rule-sets", default="", help=f"of {', '.join(RULE_SETS)}")
    parser.add_argument("--prose", type=int, default=0, help="documents of each source of prose")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--shown", type=int, default=160, help="characters of both ends of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--characters", type=int, default=200)
    parser.add_argument("--workdir", default="runs/cleaning")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    rule = arguments.rule
    names = [rule] if rule in RULE_SETS else [n for n in arguments.rule_sets.split(",") if n]
    if unknown := set(names) - set(RULE_SETS):
        parser.error(f"--rule-sets: got {sorted(unknown)}, expected some of {', '.join(RULE_SETS)}")
    if arguments.prose < 0:
        parser.error(f"--prose: got {arguments.prose}, expected a number of documents, 0 for all")
    folder = arguments.folder
    if arguments.prose:
        into = Path(arguments.workdir) / f"prose-{arguments.prose}-{arguments.seed}.jsonl"
        draw(folder, arguments.prose, arguments.seed, into)
        folder = str(into)
    recipe = Recipe(
        sources=[Source(path=folder)],
        cleaning=Cleaning(rule_sets=tuple(getattr(settings, name)() for name in names)),
    )
    with LocalEngine(arguments.workers) as engine:
        runner = Runner(Path(arguments.workdir), engine)
        before = read(recipe, runner)
        cleaned = clean_all(recipe, runner, before, find_repeated_lines(recipe, runner, before))
    if rule in KINDS:
        show_replaced(before, rule, arguments.samples, arguments.seed)
    elif rule == "repeated_line":
        show_lines(cleaned, arguments.samples)
    elif rule in RULE_SETS:
        show_rule_set(cleaned, rule, arguments.samples, arguments.seed, arguments.shown)
    elif rule:
        show_dropped(cleaned, rule, rule, arguments.samples, arguments.seed, arguments.shown)
    else:
        counts(cleaned)
        language(before, recipe.cleaning, arguments.characters)
        speed(before, recipe.cleaning)


if __name__ == "__main__":
    main()
