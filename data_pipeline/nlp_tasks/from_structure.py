r"""Tasks from the structure of one document, without a teacher (tier D3).

The paper has a language model write such tasks as JSON (section 2.3). Here rules derive them from
what a document contains: a definition answers a question, a heading is the title of its passage, a
word that is left out can be inferred. The text of a task is the prompt, then the answer.

>>> make = build(NlpTasks(kinds=("question_answering",), per_document=1))
>>> document = Document("a", "Question: What is 2 + 3?\nAnswer: 2 + 3 = 5.", "math", "math")
>>> print(make(document)[0].text)
Exercise: What is 2 + 3?
<BLANKLINE>
Worked answer: 2 + 3 = 5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from data_pipeline.config import NlpTasks
from data_pipeline.nlp_tasks.kinds.choices import multiple_choice
from data_pipeline.nlp_tasks.kinds.cloze import cloze
from data_pipeline.nlp_tasks.kinds.questions import question_answering
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, SourceText
from data_pipeline.nlp_tasks.kinds.statements import true_false
from data_pipeline.nlp_tasks.kinds.summaries import summary, title
from data_pipeline.storage.document import Document
from data_pipeline.text.seeded_random import seeded

KINDS: dict[str, Callable[[SourceText, random.Random], Iterator[NlpTask]]] = {
    "question_answering": question_answering,
    "multiple_choice": multiple_choice,
    "cloze": cloze,
    "summary": summary,
    "true_false": true_false,
    "title": title,
}


def build(config: NlpTasks) -> Callable[[Document], list[Document]]:
    """Returns a pure function from a document to its tasks, at most `per_document` of each kind.

    A task's id is `SOURCE/KIND/DOCUMENT/NUMBER`. Its meta has the kind ("task"), the document and
    its source ("from", "from_source"), and the end of the text that is the answer ("answer").
    """

    def make(document: Document) -> list[Document]:
        if not config.enabled:
            return []
        source = SourceText.of(document.text, seeded(config.seed, "window", document.id))
        documents: list[Document] = []
        for kind in config.kinds:
            tasks: list[NlpTask] = []
            for task in KINDS[kind](source, seeded(config.seed, kind, document.id)):
                if len(task.text.split()) <= config.max_words:
                    tasks.append(task)
                if len(tasks) == config.per_document:
                    break
            documents += [
                _document(task, kind, number, document, config) for number, task in enumerate(tasks)
            ]
        return documents

    return make


def _document(
    task: NlpTask, kind: str, number: int, origin: Document, config: NlpTasks
) -> Document:
    """Returns a task as a document; `origin` is the document from which it was made."""
    meta = {
        "task": kind,
        "from": origin.id,
        "from_source": origin.source,
        "answer": task.answer,
    }
    name = f"{config.source}/{kind}/{origin.id}/{number}"
    return Document(name, task.text, config.source, "tasks", meta)
