"""Requests to a teacher for tasks about the passages of a document."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.config import Restructuring
from data_pipeline.nlp_tasks.restructure.prompts import prompt
from data_pipeline.storage.document import Document
from data_pipeline.text import passages
from data_pipeline.text.passages import Passage
from data_pipeline.text.seeded_random import seeded

# Words of these categories have more tokens. A passage of the maximum length, in words, would leave
# no tokens for the task, so its maximum is multiplied by this factor.
_LENGTH_FACTOR = {"code": 0.6, "math": 0.7, "law": 0.8}


def build(config: Restructuring) -> Callable[[Document, str], list[Document]]:
    """Returns a pure function from a document and its topic ("" for none) to requests.

    A request is a document whose text is the prompt. Its id is `SOURCE/KIND/DOCUMENT@START`, where
    START is the position of the passage in characters. Its meta has the kind ("task"), the
    "passage", the "category" of the prompt, and the document and its source ("from",
    "from_source").
    """

    def make(document: Document, topic: str) -> list[Document]:
        category = config.categories.get(document.category)
        if category is None:
            return []
        max_words = max(1, int(config.max_words * _LENGTH_FACTOR.get(category, 1)))
        chosen = passages.draw(
            document.text,
            (min(config.min_words, max_words), max_words),
            config.per_document,
            seeded(config.seed, "passage", document.id),
            code=category == "code",
        )
        return [
            _request(config, kind, document, passage, (category, topic))
            for passage in chosen
            for kind in _kinds(config, _name(document, passage))
        ]

    return make


def _name(document: Document, passage: Passage) -> str:
    """Returns DOCUMENT@START."""
    return f"{document.id}@{passage.start}"


def _kinds(config: Restructuring, name: str) -> list[str]:
    """Returns the kinds of tasks that are requested for a passage."""
    count = min(config.per_passage, len(config.kinds))
    return seeded(config.seed, "kinds", name).sample(config.kinds, count)


def _request(
    config: Restructuring,
    kind: str,
    document: Document,
    passage: Passage,
    category_and_topic: tuple[str, str],
) -> Document:
    """Returns the request for a task of one kind about a passage."""
    category, topic = category_and_topic
    name = _name(document, passage)
    random_ = seeded(config.seed, "prompt", kind, name)
    text = prompt(kind, passage.text, category, topic, random_)
    meta = {
        "task": kind,
        "from": document.id,
        "from_source": document.source,
        "category": category,
        "passage": passage.text,
    }
    if topic:
        meta["topic"] = topic
    return Document(f"{config.source}/{kind}/{name}", text, config.source, "tasks", meta)
