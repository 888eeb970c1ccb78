"""Multiple-choice evaluation items from held-out documents, scored as (context, continuation).

Three tasks, so that every kind of text gives some:

    cloze         the text up to a word; that word, or such words from other documents
    continuation  50 words; the words that follow, or words from such places in other documents
    arithmetic    a worked problem up to "The answer is"; the answer, or other numbers

>>> text = "Question: What is 12 + 3?\\nAnswer: 12 + 3 = 15. The answer is 15."
>>> document = Document("math/1", text, "math", "math")
>>> item, = make([document], HeldOut())
>>> item.context[-13:], item.choices, item.answer
('The answer is', [' 12', ' 3', ' 30', ' 15'], 3)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from data_pipeline.config import HeldOut
from data_pipeline.storage.document import Document
from data_pipeline.text import distractors, seeded_random, shared_ngrams
from data_pipeline.text.ngrams import U64

_MAX_CHARACTERS = 20_000  # of a long document: its beginning
_CLOZE_CONTEXT, _CONTINUATION_CONTEXT = (20, 60), (50, 50)  # words, least and most
_CONTINUATION = 12, 20  # words, least and most
_MOST_SHARED = 0.25  # of an item's 8-grams may stand in other documents too: a dozen words or so
_PLACES = 40  # of one document that are looked at
_WORKED = re.compile(r"\A(.+\bThe answer is) (-?\d[\d,]*(?:\.\d+)?)\.?\s*\Z", re.S)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")
_TOKEN = re.compile(r"\S+")


@dataclass(slots=True)
class MultipleChoiceItem:
    """`choices` are ready to be appended to `context`; `choices[answer]` is right.

    >>> Item("a", "cloze", "web", "web/7", "Hares run", [" fast", " blue"], 0).to_json()["choices"]
    [' fast', ' blue']
    """

    id: str
    task: str
    source: str
    document: str  # the id of the document that it was made from
    context: str
    choices: list[str]
    answer: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class GapPosition(NamedTuple):
    """The gap before a word, where a text may be cut."""

    document: Document
    at: int  # offset of the gap, a single space
    start: int  # offset at which the context begins


def make(
    documents: Iterable[Document], config: HeldOut, sample: Iterable[Document] = ()
) -> list[MultipleChoiceItem]:
    """At most `config.items` of each task from each source, spread over its documents.

    `sample`: documents of the run, the held-out ones among them; no item is made of a text that
    several of them have (see boilerplate.py). Worked problems are templates, and exempt.

    Which items, their choices and the place of the right one follow from the documents' ids and
    texts and from the seed, whatever the order of the documents. Sorted by source, task and id.
    """
    by_source: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda document: document.id):
        by_source.setdefault(document.source, []).append(document)
    shared = shared_ngrams.shared_ngrams(sample)
    items: list[MultipleChoiceItem] = []
    for source in sorted(by_source):
        for kind in (_arithmetic, _cloze, _continuation):
            made = kind(by_source[source], config)
            if kind is not _arithmetic:
                made = _distinctive(list(made), shared)
            items += sorted(_spread(made, config), key=lambda item: item.id)
    return items


def _distinctive(items: list[MultipleChoiceItem], shared: U64) -> Iterator[MultipleChoiceItem]:
    """The items of which one document alone has the most part."""
    texts = [item.context + item.choices[item.answer] for item in items]
    common = shared_ngrams.shares(texts, shared)
    return (item for item, share in zip(items, common, strict=True) if share <= _MOST_SHARED)


def _spread(items: Iterator[MultipleChoiceItem], config: HeldOut) -> list[MultipleChoiceItem]:
    """The first of every document, then the second of every document, and so on; by hash within."""
    of_document: dict[str, list[tuple[int, MultipleChoiceItem]]] = {}
    for item in items:
        hashed = seeded_random.hash64(config.seed, "item", item.id)
        of_document.setdefault(item.document, []).append((hashed, item))
    ranked = [
        (rank, hashed, item)
        for found in of_document.values()
        for rank, (hashed, item) in enumerate(sorted(found, key=lambda pair: pair[0]))
    ]
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])[: config.items]]


def _item(
    task: str, document: Document, name: str, context: str, right: str, wrong: list[str], seed: int
) -> MultipleChoiceItem:
    identity = f"{task}/{document.id}/{name}"
    answer = seeded_random.hash64(seed, "answer", identity) % (len(wrong) + 1)
    choices = [f" {choice}" for choice in (*wrong[:answer], right, *wrong[answer:])]
    return MultipleChoiceItem(
        identity, task, document.source, document.id, context, choices, answer
    )


def _arithmetic(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    for document in documents:
        if match := _WORKED.match(document.text):
            wrong = _other_numbers(match[2], match[1], document, config)
            yield _item("arithmetic", document, "answer", match[1], match[2], wrong, config.seed)


def _other_numbers(right: str, text: str, document: Document, config: HeldOut) -> list[str]:
    """Numbers of the problem, so that copying is no way to the answer, and near misses."""
    random_ = seeded_random.seeded(config.seed, "numbers", document.id)
    value = float(right.replace(",", ""))
    given = sorted({number for number in _NUMBER.findall(text) if number != right})
    near = [value + step for step in (1, -1, 2, 10, -2, -10, 3, 5)] + [2 * value]
    misses = [
        f"{number:,.10g}" if "," in right else f"{number:.10g}" for number in near if number >= 0
    ]
    random_.shuffle(given)
    random_.shuffle(misses)
    wrong: list[str] = []
    for number in (*given[: config.choices // 2], *misses):
        if number not in (right, *wrong) and len(wrong) < config.choices - 1:
            wrong.append(number)
    return wrong


def _cloze(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    texts = {document.id: document.text[:_MAX_CHARACTERS] for document in documents}
    vocabulary = distractors.DistractorPool.from_sentences(
        line for text in texts.values() for line in text.split("\n")
    )
    own = {name: set(distractors.WORD.findall(text)) for name, text in texts.items()}
    for document in documents:
        elsewhere = set().union(*(own[name] for name in own if name != document.id))
        for place in _places(document, _CLOZE_CONTEXT, config):
            match = distractors.WORD.match(document.text, place.at + 1)
            context = document.text[place.start : place.at]
            if (
                match is None
                or not distractors.shape(match[0])
                or distractors.contains_stem(match[0], context)
            ):
                continue
            if context.rstrip("\"'”’)")[-1:] in ".!?":
                continue  # a capital at the beginning of a sentence says nothing
            wrong = vocabulary.distractors(
                match[0],
                (distractors.WORD.findall(context) or [""])[-1],
                context,
                config.choices - 1,
                seeded_random.seeded(config.seed, "cloze", document.id, str(place.at)),
                excluded=own[document.id] - elsewhere if len(documents) > 1 else frozenset(),
            )
            if wrong:
                yield _item("cloze", document, str(place.at), context, match[0], wrong, config.seed)


def _continuation(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    """Wrong choices come from gaps of other documents that follow the same kind of sign."""
    places = [p for d in documents for p in _places(d, _CONTINUATION_CONTEXT, config)]
    alternatives: dict[str, list[GapPosition]] = {}
    for place in places:
        alternatives.setdefault(_sign(place), []).append(place)
    for place in places:
        random_ = seeded_random.seeded(
            config.seed, "continuation", place.document.id, str(place.at)
        )
        length = random_.randint(*_CONTINUATION)
        right = _following(place, length)
        wrong: list[str] = []
        for other in seeded_random.shuffled(alternatives[_sign(place)], random_):
            own = other.document.id == place.document.id
            text = "" if own else _following(other, length)
            if text and all(text.split()[:2] != known.split()[:2] for known in (right, *wrong)):
                wrong.append(text)
            if len(wrong) == config.choices - 1:
                break
        if right and len(wrong) == config.choices - 1:
            context = place.document.text[place.start : place.at]
            yield _item(
                "continuation", place.document, str(place.at), context, right, wrong, config.seed
            )


def _places(document: Document, context: tuple[int, int], config: HeldOut) -> list[GapPosition]:
    """Gaps of a single space with enough text before them, chosen by hash."""
    if _WORKED.match(document.text):
        return []  # a worked problem has an item of its own
    least, most = context
    tokens = list(_TOKEN.finditer(document.text, 0, _MAX_CHARACTERS))[:-1]  # the last may be cut
    gaps = [
        i
        for i in range(least, len(tokens))
        if tokens[i].start() - tokens[i - 1].end() == 1
        and document.text[tokens[i - 1].end()] == " "
    ]
    random_ = seeded_random.seeded(config.seed, "places", document.id, str(most))
    chosen = random_.sample(gaps, min(_PLACES, len(gaps)))
    return [
        GapPosition(document, tokens[i].start() - 1, tokens[max(0, i - most)].start())
        for i in chosen
    ]


def _sign(place: GapPosition) -> str:
    before = place.document.text[place.at - 1]
    return "end of sentence" if before in ".!?" else "comma" if before in ",;:" else "word"


def _following(place: GapPosition, length: int) -> str:
    """The next words, as they stand; "" if the document has fewer."""
    tokens = _TOKEN.finditer(place.document.text, place.at + 1)
    last = [match.end() for match, _ in zip(tokens, range(length), strict=False)]
    return place.document.text[place.at + 1 : last[-1]] if len(last) == length else ""
