"""Titles, lead sentences and conclusions, each with the text that it sums up."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.curation import prose, words
from data_pipeline.curation.task_kinds.material import Material, Task, content, fill
from data_pipeline.curation.word_lists import GENERIC_TITLE

_TITLE_FORMS = (
    "Give the following text a title.\n\n{text}\n\nTitle: {answer}",
    "{text}\n\nWhat is a good heading for this passage?\n{answer}",
    "What is this text about? Answer with a heading.\n\n{text}\n\n{answer}",
)
_WRITE_FORMS = (
    'Write a paragraph with the title "{title}".\n\n{answer}',
    "Topic: {title}\nText: {answer}",
    "Write a short passage about the topic below.\n\nTopic: {title}\n\n{answer}",
)
_LEAD_FORMS = (
    "Summarize the text in one sentence.\n\n{text}\n\nSummary: {answer}",
    "{text}\n\nIn one sentence: {answer}",
    "Which sentence could introduce the following paragraph?\n\n{text}\n\n{answer}",
    "Text: {text}\n\nMain point: {answer}",
)
_CONCLUSION_FORMS = (
    "Read the abstract and state its conclusion.\n\n{text}\n\nConclusion: {answer}",
    "{text}\n\nWhat do the authors conclude?\n{answer}",
)
_CONCLUSION = re.compile(r"\bCONCLUSIONS?\s*:\s*(\S.{60,})\Z", re.S)
_PASSAGE_WORDS = 40, 180
_LEAD_WORDS = 9, 35
_LABELLED = re.compile(r"[A-Z][A-Z /]{3,}:|Abstract |ABSTRACT ")
_MIN_SHARED = 4  # content words that a summary shares with what it sums up


def summary(material: Material, random_: random.Random) -> Iterator[Task]:
    """Conclusions of structured abstracts, then titles and lead sentences in random order."""
    if match := _CONCLUSION.search(material.text):
        before = material.text[: match.start()].strip()
        if len(before.split()) >= _PASSAGE_WORDS[0]:
            yield fill(_CONCLUSION_FORMS, match[1].strip(), random_, text=before)
    for section in random_.sample(material.sections, len(material.sections)):
        forms = [_title, _lead]
        random_.shuffle(forms)
        for form in forms:
            yield from form(section, random_)


def _title(section: prose.Section, random_: random.Random) -> Iterator[Task]:
    text = _passage_of(section.paragraphs)
    if not text or not _is_telling(section.heading, text):
        return
    if random_.random() < 0.6:
        yield fill(_TITLE_FORMS, section.heading, random_, text=text)
    else:
        yield fill(_WRITE_FORMS, text, random_, title=section.heading)


def _lead(section: prose.Section, random_: random.Random) -> Iterator[Task]:
    for paragraph in random_.sample(section.paragraphs, len(section.paragraphs)):
        lead, rest = paragraph[0], _passage_of([paragraph[1:]])
        if (
            rest
            and prose.is_plain(lead)
            and prose.stands_alone(lead)
            and not _LABELLED.match(lead)
            and _LEAD_WORDS[0] <= len(lead.split()) <= _LEAD_WORDS[1]
            and len(content(lead) & content(rest)) >= _MIN_SHARED
        ):
            yield fill(_LEAD_FORMS, lead, random_, text=rest)
            return


def _passage_of(paragraphs: list[list[str]]) -> str:
    """The first paragraphs, as many whole sentences as fit; "" if they make no good passage."""
    least, most = _PASSAGE_WORDS
    taken: list[str] = []
    count = 0
    for paragraph in paragraphs:
        if not paragraph or sum(map(prose.is_plain, paragraph)) < 0.7 * len(paragraph):
            break
        fitting: list[str] = []
        for sentence in paragraph:
            count += len(sentence.split())
            if count > most:
                break
            fitting.append(sentence)
        if fitting:
            taken.append(" ".join(fitting))
        if count > most:
            break
    text = "\n\n".join(taken)
    return text if len(text.split()) >= least else ""


def _is_telling(heading: str, text: str) -> bool:
    """A title in words that has something to do with the text."""
    bare = re.sub(
        r"^(?:(?:chapter|section|part|appendix)\b\s*)?[\dIVX]*[.:)\s]*", "", heading, flags=re.I
    )
    names = bare.split()
    if not 2 <= len(names) <= 12 or not re.fullmatch(r"[\w ,:'’?!&()–—-]+", bare) or "_" in bare:
        return False
    telling = content(bare) - GENERIC_TITLE
    return bool(telling) and any(words.occurs(word, text) for word in telling)
