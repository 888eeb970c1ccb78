"""Lead sentences, conclusions and titles, each with the text that it sums up."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, SourceText, content, fill
from data_pipeline.text import distractors, prose
from data_pipeline.text.word_lists import GENERIC_TITLE

_CONCLUSION = re.compile(r"\bCONCLUSIONS?\s*:\s*(\S.{60,})\Z", re.S)
_PASSAGE_WORDS = 40, 180
_LEAD_WORDS = 9, 35
_LABELLED = re.compile(r"[A-Z][A-Z /]{3,}:|Abstract |ABSTRACT ")
_TITLE_SHARE = 0.6  # of the tasks ask for the title, the others for the text
_MIN_SHARED = 4  # content words that a summary shares with what it sums up


def summary(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """The conclusion of a structured abstract, then lead sentences in random order."""
    if match := _CONCLUSION.search(material.text):
        before = material.text[: match.start()].strip()
        if len(before.split()) >= _PASSAGE_WORDS[0]:
            yield fill(templates.CONCLUSION, match[1].strip(), random_, text=before)
    for section in random_.sample(material.sections, len(material.sections)):
        yield from _lead(section, random_)


def title(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """A section's heading for its text, or, more rarely, the text for its heading."""
    for section in random_.sample(material.sections, len(material.sections)):
        text = _passage_of(section.paragraphs)
        if not text or not _is_telling(section.heading, text):
            continue
        if random_.random() < _TITLE_SHARE:
            yield rendering.title(text, section.heading, random_)
        else:
            yield fill(templates.TEXT_OF_TITLE, text, random_, title=section.heading)


def _lead(section: prose.Section, random_: random.Random) -> Iterator[NlpTask]:
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
            yield fill(templates.LEAD, lead, random_, text=rest)
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
    return bool(telling) and any(distractors.contains_stem(word, text) for word in telling)
