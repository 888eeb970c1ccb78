"""From a document to what a teacher is asked about its passages."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.config import Restructuring
from data_pipeline.nlp_tasks.restructure.prompts import WORDINGS, prompt
from data_pipeline.storage.document import Document
from data_pipeline.text import passages
from data_pipeline.text.seeded_random import seeded

# A word of these takes more tokens, so that a passage of the most words would leave a task no room.
_FEWER_WORDS = {"code": 0.6, "math": 0.7, "law": 0.8}


def build(config: Restructuring) -> Callable[[Document, str], list[Document]]:
    """A pure function from a document and its topic ("" for none) to requests, most often a few.

    A request is a document whose text is the prompt; its id is `SOURCE/KIND/DOCUMENT@START`, where
    the passage starts at that character. Its meta tells the kind ("task"), the "passage", the
    "category" of the prompt, and the document and its source ("from", "from_source").

    Raises ValueError for a kind that does not exist, or numbers that leave nothing to ask.
    """
    if unknown := sorted(set(config.kinds) - set(WORDINGS)):
        raise ValueError(
            f"restructuring.kinds: there is no kind {', '.join(unknown)}. Kinds are "
            f"{', '.join(WORDINGS)}."
        )
    if not config.kinds:
        raise ValueError("restructuring.kinds is empty: expected at least one kind")
    for name in ("per_document", "per_passage", "answer_tokens", "max_tokens"):
        if getattr(config, name) < 1:
            raise ValueError(f"restructuring.{name}={getattr(config, name)}: expected 1 or more")
    if not 0 < config.min_words <= config.max_words:
        raise ValueError(
            f"restructuring.min_words={config.min_words}, max_words={config.max_words}: expected "
            "0 < min_words <= max_words"
        )

    def make(document: Document, topic: str) -> list[Document]:
        category = config.categories.get(document.category)
        if category is None:
            return []
        most = max(1, int(config.max_words * _FEWER_WORDS.get(category, 1)))
        found = passages.draw(
            document.text,
            (min(config.min_words, most), most),
            config.per_document,
            seeded(config.seed, "passage", document.id),
            code=category == "code",
        )
        made = []
        for passage in found:
            name = f"{document.id}@{passage.start}"
            number = min(config.per_passage, len(config.kinds))
            for kind in seeded(config.seed, "kinds", name).sample(config.kinds, number):
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
                identity = f"{config.source}/{kind}/{name}"
                made.append(Document(identity, text, config.source, "tasks", meta))
        return made

    return make
