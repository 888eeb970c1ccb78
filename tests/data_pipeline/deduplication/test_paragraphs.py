"""Of equal paragraphs one stays, whichever way the documents are divided; nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_pipeline import pipeline
from data_pipeline.config import Cleaning, CleaningProfile, Recipe, RepeatedParagraphs, Source
from data_pipeline.deduplication import paragraphs
from data_pipeline.deduplication.paragraphs_stage import remove_repeated_paragraphs
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shuffle_file import pack_arrays, unpack_arrays
from data_pipeline.storage.document import Document, Dropped
from tests.data_pipeline.builders import (
    divided,
    document_files,
    dropped_by_id,
    kept_by_id,
    runner_at,
    stage_of_documents,
)

CONFIG = RepeatedParagraphs(min_words=5, min_words_left=8)
SOURCES = ("books", "web")
NOTICE = "All rights are reserved by the authors of this page."


def own(k: int, words: int = 12) -> str:
    return " ".join(random.Random(k).choices([f"w{n}" for n in range(2000)], k=words)) + "."


def corpus(seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    shared = [own(k) for k in range(1000, 1012)]
    made = []
    for k in range(120):
        pieces = [own(k), *rng.sample(shared, rng.randrange(5)), *([own(k + 200)] * (k % 3))]
        if k % 10 == 0:
            pieces = pieces[1:2]
        rng.shuffle(pieces)
        source = rng.choice(SOURCES)
        made.append(Document(f"{source}/{k}", "\n\n".join(pieces), source, source))
    return made


def find(shards: Sequence[Sequence[Document | None]], partitions: int = 1) -> dict[str, list[int]]:
    """Returns the positions of the paragraphs that are removed, by id of the document."""
    parts = [
        paragraphs.collect_paragraphs(shard, SOURCES, CONFIG).by_partition(partitions)
        for shard in shards
    ]
    found: dict[str, list[int]] = {}
    for p in range(partitions):
        own_parts = ((k, unpack_arrays(pack_arrays(part[p]))) for k, part in enumerate(parts))
        for number, place in zip(*map(list, paragraphs.find_repeated(own_parts)), strict=True):
            document = shards[int(number) >> 32][int(number) & 0xFFFFFFFF]
            assert document is not None
            found.setdefault(document.id, []).append(int(place))
    return {id: sorted(places) for id, places in found.items()}


def normal(paragraph: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in paragraph.lower()).split())


def test_of_equal_paragraphs_the_first_by_rank_stays_and_all_others_go() -> None:
    documents = corpus()
    found = find([documents])
    assert sum(map(len, found.values())) > 100
    holders: dict[str, list[tuple[int, int, str, int]]] = {}
    for d in documents:
        for place, paragraph in enumerate(paragraphs.paragraphs(d.text)):
            rank = (SOURCES.index(d.source), -len(d.text), d.id, place)
            holders.setdefault(normal(paragraph), []).append(rank)
    for text, ranks in holders.items():
        stays = [r for r in ranks if r[3] not in found.get(r[2], [])]
        assert len(stays) == 1, text
        # The hash of the id decides only between documents of one source and one length.
        assert stays[0][:2] == min(ranks)[:2]


@pytest.mark.parametrize("seed", range(3))
def test_what_goes_does_not_depend_on_order_shards_or_partitions(seed: int) -> None:
    documents = corpus(seed)
    expected = find([documents])
    rng = random.Random(seed)
    for number, partitions in ((1, 5), (3, 1), (7, 2)):
        rng.shuffle(documents)
        assert find([documents[k::number] for k in range(number)], partitions) == expected


def test_layout_case_and_punctuation_do_not_make_another_paragraph() -> None:
    one = Document("books/1", f"{own(1)}\n\n{NOTICE}", "books", "books")
    two = Document("web/1", f"{NOTICE.upper()[:-1]} !\n  \n{own(2)}", "web", "web")
    wrapped = Document("web/2", NOTICE.replace(" ", "\n") + f"\n\n\n{own(3)}", "web", "web")
    assert find([[one, two, wrapped]]) == {"web/1": [0], "web/2": [0]}


def test_a_short_paragraph_stays_everywhere() -> None:
    text = "four words are few\n\nbut five words are enough"
    pair = [Document("books/1", text, "books", ""), Document("web/1", text, "web", "")]
    assert find([pair]) == {"web/1": [1]}


def test_a_paragraph_stays_once_in_its_own_document() -> None:
    text = f"{NOTICE}\n\n{own(1)}\n\n{NOTICE}"
    assert find([[Document("books/1", text, "books", "")]]) == {"books/1": [2]}


def test_exempt_documents_neither_lose_nor_take() -> None:
    one = Document("books/1", NOTICE, "books", "")
    two = Document("web/1", NOTICE, "web", "")
    assert find([[one, None, two]]) == {"web/1": [0]}
    assert find([[None, two]]) == {}


@pytest.mark.parametrize(
    ("text", "places", "left"),
    [
        ("a\n\nb\n\nc", [], "a\n\nb\n\nc"),
        ("a\n\nb\n\nc", [0], "b\n\nc"),
        ("a\n\nb\n\n\nc", [1], "a\n\nc"),
        ("a\n\nb\n \nc\n", [2], "a\n\nb"),
        ("a\n\n  b\n  c\n\nd", [0, 2], "  b\n  c"),
        ("a\n\nb", [0, 1], ""),
    ],
)
def test_what_is_left_is_as_it_was(text: str, places: list[int], left: str) -> None:
    assert paragraphs.remove_paragraphs(text, places) == left


def test_a_document_left_with_too_little_is_dropped_with_what_was_seen() -> None:
    text = f"{NOTICE}\n\nOnly seven words are left in here."
    answer = paragraphs.remove(Document("web/1", text, "web", "web"), [0], CONFIG)
    assert isinstance(answer, Dropped)
    assert answer.reason == "repeated_paragraphs"
    assert answer.evidence == {"removed": 1, "words_left": 7, "first": NOTICE}
    assert answer.document.text == text
    kept = paragraphs.remove(Document("web/1", text + " Eight.", "web", "web"), [0], CONFIG)
    assert isinstance(kept, Document)
    assert kept.text == "Only seven words are left in here. Eight."


def test_a_short_document_that_repeats_nothing_stays() -> None:
    short = Document("web/1", "few words", "web", "web")
    assert paragraphs.remove(short, [], CONFIG) == short


# ---- the step


def run(root: Path, documents: list[Document], partitions: int, workers: int = 0) -> Directory:
    config = RepeatedParagraphs(True, CONFIG.min_words, CONFIG.min_words_left)
    config.partitions = partitions
    profiles = {"code": CleaningProfile.CODE, "qa": CleaningProfile.TASKS}
    recipe = Recipe(repeated_paragraphs=config, cleaning=Cleaning(profiles=profiles))
    with runner_at(root, workers) as runner:
        read = stage_of_documents(runner, divided(documents, 3))
        return remove_repeated_paragraphs(recipe, runner, read)


@pytest.mark.slow
def test_the_step_takes_out_what_the_functions_find(tmp_path: Path) -> None:
    documents = corpus()
    code = [Document(f"code/{k}", f"{NOTICE}\n\n{NOTICE}", "code", "code") for k in range(4)]
    everything = [*documents, *code]
    single = run(tmp_path / "1", everything, partitions=1)
    several = run(tmp_path / "7", everything, partitions=7, workers=2)
    assert document_files(several) == document_files(single)
    kept, dropped = kept_by_id(single), dropped_by_id(single)
    assert kept.keys() | dropped.keys() == {d.id for d in everything}
    assert not kept.keys() & dropped.keys()
    removed = find([documents])
    for d in documents:
        assert (kept | dropped)[d.id] == paragraphs.remove(d, removed.get(d.id, []), CONFIG)
    assert [kept[d.id] for d in code] == code
    counts = single.counts()
    assert counts["code"].changed == {}
    for name in SOURCES:
        assert counts[name].changed["repeated_paragraph"] > 20
        assert set(counts[name].dropped) == {"repeated_paragraphs"}


class ReachedError(Exception):
    pass


@pytest.mark.parametrize("enabled", [False, True])
def test_the_recipe_has_the_step_after_deduplication_if_asked_for(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def instead(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
        raise ReachedError(before.path.name)

    def next_step(*ignored: object) -> Directory:
        raise ReachedError("draw")

    monkeypatch.setattr(pipeline, "remove_repeated_paragraphs", instead)
    monkeypatch.setattr(pipeline, "draw", next_step)
    (tmp_path / "books.txt").write_text(own(1))
    recipe = Recipe(sources=[Source(path=str(tmp_path / "books.txt"))], workers=1)
    recipe.repeated_paragraphs.enabled = enabled
    with pytest.raises(ReachedError, match=r"^deduplicate-" if enabled else "^draw$"):
        pipeline.run(recipe, tmp_path / "run")
