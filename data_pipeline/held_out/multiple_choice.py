r"""Multiple-choice evaluation items from held-out documents, scored as (context, continuation).

There are three tasks, so that every kind of text gives some items:

    task          context                               choices
    cloze         the text before a word                the word, or similar words
    continuation  50 words                              the next words, or words of other documents
    arithmetic    a worked problem to "The answer is"   the answer, or other numbers

>>> text = "Question: What is 12 + 3?\nAnswer: 12 + 3 = 15. The answer is 15."
>>> document = Document("math/1", text, "math", "math")
>>> item, = make_items([document], HeldOut())
>>> item.context[-13:], item.choices, item.answer
('The answer is', [' 12', ' 3', ' 30', ' 15'], 3)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from data_pipeline.config import HeldOut
from data_pipeline.storage.document import Document
from data_pipeline.text import distractors, seeded_random, shared_ngrams
from data_pipeline.text.ngrams import U64

_MAX_CHARACTERS = 20_000  # of a long document, from its beginning
_CLOZE_CONTEXT, _CONTINUATION_CONTEXT = (20, 60), (50, 50)  # words, minimum and maximum
_CONTINUATION = 12, 20  # words, minimum and maximum
_MAX_SHARED = 0.25  # share of an item's 8-grams that other documents may have: about a dozen words
_POSITIONS = 40  # of one document that are tried
_WORKED = re.compile(r"\A(.+\bThe answer is) (-?\d[\d,]*(?:\.\d+)?)\.?\s*\Z", re.S)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")
_TOKEN = re.compile(r"\S+")


@dataclass(slots=True)
class MultipleChoiceItem:
    """A context and its possible continuations.

    `choices` are ready to be appended to `context`; `choices[answer]` is correct.

    >>> item = MultipleChoiceItem("a", "cloze", "web", "web/7", "Hares run", [" fast", " blue"], 0)
    >>> item.to_json()["choices"]
    [' fast', ' blue']
    """

    id: str
    task: str
    source: str
    document: str  # the id of the document that the item was made from
    context: str
    choices: list[str]
    answer: int

    def to_json(self) -> dict[str, Any]:
        """Returns the item as a row of items.jsonl."""
        return asdict(self)


class SplitPosition(NamedTuple):
    """A position between two words at which a document is split into context and continuation."""

    document: Document
    at: int  # offset of the single space between the words
    start: int  # offset at which the context begins


def make_items(
    documents: Iterable[Document], config: HeldOut, sample: Iterable[Document] = ()
) -> list[MultipleChoiceItem]:
    """Returns at most `config.items` of each task from each source, spread over its documents.

    The items, their choices and the index of the correct one follow from the documents' ids and
    texts and from the seed. They do not depend on the order of the documents.

    Args:
      documents: the held-out documents.
      config: the number of items and choices, and the seed.
      sample: documents of the run, including the held-out ones. No item is made from a text that
        several of them share (text/shared_ngrams.py). Worked problems are templates, and exempt.

    Returns:
      The items, sorted by source, task and id.
    """
    by_source: dict[str, list[Document]] = {}
    for document in sorted(documents, key=lambda document: document.id):
        by_source.setdefault(document.source, []).append(document)
    shared = shared_ngrams.shared_ngrams(sample)
    items: list[MultipleChoiceItem] = []
    for source in sorted(by_source):
        for make_task in (_arithmetic, _cloze, _continuation):
            candidates = make_task(by_source[source], config)
            if make_task is not _arithmetic:
                candidates = _without_shared(list(candidates), shared)
            items += sorted(_spread(candidates, config), key=lambda item: item.id)
    return items


def _without_shared(items: list[MultipleChoiceItem], shared: U64) -> Iterator[MultipleChoiceItem]:
    """Yields the items of which other documents share at most _MAX_SHARED."""
    texts = [item.context + item.choices[item.answer] for item in items]
    shares = shared_ngrams.shares(texts, shared)
    return (item for item, share in zip(items, shares, strict=True) if share <= _MAX_SHARED)


def _spread(items: Iterator[MultipleChoiceItem], config: HeldOut) -> list[MultipleChoiceItem]:
    """Returns `config.items` items: the first of every document, then the second, and so on.

    The items of a document, and documents of equal rank, are ordered by hash.
    """
    of_document: dict[str, list[tuple[int, MultipleChoiceItem]]] = {}
    for item in items:
        hashed = seeded_random.hash64(config.seed, "item", item.id)
        of_document.setdefault(item.document, []).append((hashed, item))
    ranked = [
        (rank, hashed, item)
        for hashed_items in of_document.values()
        for rank, (hashed, item) in enumerate(sorted(hashed_items, key=lambda pair: pair[0]))
    ]
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])[: config.items]]


def _item(
    task: str,
    document: Document,
    name: str,
    context: str,
    choices: list[str],
    seed: int,
) -> MultipleChoiceItem:
    """Returns an item, with the correct choice at a pseudorandom index.

    Args:
      task: the name of the task.
      document: the document that the item is made from.
      name: distinguishes the items of one document and task.
      context: the text before the choices.
      choices: the correct choice, then the wrong ones, without the space before them.
      seed: of the index.
    """
    identity = f"{task}/{document.id}/{name}"
    correct, *wrong = choices
    answer = seeded_random.hash64(seed, "answer", identity) % len(choices)
    shown = [f" {choice}" for choice in (*wrong[:answer], correct, *wrong[answer:])]
    return MultipleChoiceItem(identity, task, document.source, document.id, context, shown, answer)


def _arithmetic(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    """Yields an item for each worked problem that ends in "The answer is NUMBER"."""
    for document in documents:
        if match := _WORKED.match(document.text):
            wrong = _wrong_numbers(match[2], match[1], document, config)
            choices = [match[2], *wrong]
            yield _item("arithmetic", document, "answer", match[1], choices, config.seed)


def _wrong_numbers(correct: str, text: str, document: Document, config: HeldOut) -> list[str]:
    """Returns numbers of the problem, so that copying is not enough, and near misses.

    Args:
      correct: the answer.
      text: the problem and its solution.
      document: its id seeds the choice.
      config: the number of choices, and the seed.
    """
    random_ = seeded_random.seeded(config.seed, "numbers", document.id)
    value = float(correct.replace(",", ""))
    given = sorted({number for number in _NUMBER.findall(text) if number != correct})
    near = [value + step for step in (1, -1, 2, 10, -2, -10, 3, 5)] + [2 * value]
    misses = [
        f"{number:,.10g}" if "," in correct else f"{number:.10g}" for number in near if number >= 0
    ]
    random_.shuffle(given)
    random_.shuffle(misses)
    wrong: list[str] = []
    for number in (*given[: config.choices // 2], *misses):
        if number not in (correct, *wrong) and len(wrong) < config.choices - 1:
            wrong.append(number)
    return wrong


def _cloze(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    """Yields items whose correct choice is the next word of the text."""
    texts = {document.id: document.text[:_MAX_CHARACTERS] for document in documents}
    pool = distractors.DistractorPool.from_sentences(
        line for text in texts.values() for line in text.split("\n")
    )
    words_of = {name: set(distractors.WORD.findall(text)) for name, text in texts.items()}
    num_documents = Counter(word for words in words_of.values() for word in words)
    for document in documents:
        # Words that only this document has are no wrong choices.
        excluded: set[str] = set()
        if len(documents) > 1:
            excluded = {word for word in words_of[document.id] if num_documents[word] == 1}
        for position in _positions(document, _CLOZE_CONTEXT, config):
            match = distractors.WORD.match(document.text, position.at + 1)
            context = document.text[position.start : position.at]
            if (
                match is None
                or not distractors.shape(match[0])
                or distractors.contains_stem(match[0], context)
            ):
                continue
            if context.rstrip("\"'”’)")[-1:] in ".!?":
                continue  # at the beginning of a sentence every word is capitalized
            wrong = pool.distractors(
                match[0],
                (distractors.WORD.findall(context) or [""])[-1],
                context,
                config.choices - 1,
                seeded_random.seeded(config.seed, "cloze", document.id, str(position.at)),
                excluded=excluded,
            )
            if wrong:
                name = str(position.at)
                yield _item("cloze", document, name, context, [match[0], *wrong], config.seed)


def _continuation(documents: list[Document], config: HeldOut) -> Iterator[MultipleChoiceItem]:
    """Yields items whose correct choice is the next words of the text.

    Wrong choices are the next words at positions of other documents after the same kind of
    character.
    """
    positions = [p for d in documents for p in _positions(d, _CONTINUATION_CONTEXT, config)]
    of_kind: dict[str, list[SplitPosition]] = {}
    for position in positions:
        of_kind.setdefault(_kind_before(position), []).append(position)
    for position in positions:
        document = position.document
        random_ = seeded_random.seeded(config.seed, "continuation", document.id, str(position.at))
        length = random_.randint(*_CONTINUATION)
        correct = _next_words(position, length)
        wrong: list[str] = []
        for other in seeded_random.shuffled(of_kind[_kind_before(position)], random_):
            is_own = other.document.id == document.id
            text = "" if is_own else _next_words(other, length)
            if text and all(text.split()[:2] != known.split()[:2] for known in (correct, *wrong)):
                wrong.append(text)
            if len(wrong) == config.choices - 1:
                break
        if correct and len(wrong) == config.choices - 1:
            context, name = document.text[position.start : position.at], str(position.at)
            choices = [correct, *wrong]
            yield _item("continuation", document, name, context, choices, config.seed)


def _positions(
    document: Document, context: tuple[int, int], config: HeldOut
) -> list[SplitPosition]:
    """Returns pseudorandom positions at a single space with enough text before them.

    `context`: minimum and maximum number of words.
    """
    if _WORKED.match(document.text):
        return []  # a worked problem has an item of its own
    min_words, max_words = context
    tokens = list(_TOKEN.finditer(document.text, 0, _MAX_CHARACTERS))[:-1]  # the last may be cut
    spaces = [
        i
        for i in range(min_words, len(tokens))
        if tokens[i].start() - tokens[i - 1].end() == 1
        and document.text[tokens[i - 1].end()] == " "
    ]
    # "places" is a part of the seed: another name would choose other positions.
    random_ = seeded_random.seeded(config.seed, "places", document.id, str(max_words))
    chosen = random_.sample(spaces, min(_POSITIONS, len(spaces)))
    return [
        SplitPosition(document, tokens[i].start() - 1, tokens[max(0, i - max_words)].start())
        for i in chosen
    ]


def _kind_before(position: SplitPosition) -> str:
    """Returns the kind of the character before a position."""
    before = position.document.text[position.at - 1]
    return "end of sentence" if before in ".!?" else "comma" if before in ",;:" else "word"


def _next_words(position: SplitPosition, length: int) -> str:
    """Returns the next words, with the white space between them; "" if there are too few."""
    tokens = _TOKEN.finditer(position.document.text, position.at + 1)
    ends = [match.end() for match, _ in zip(tokens, range(length), strict=False)]
    return position.document.text[position.at + 1 : ends[-1]] if len(ends) == length else ""
