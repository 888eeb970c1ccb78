"""The kinds of tasks, each a generator over one document in an order that its random numbers decide.

Rules that hold for all: only plain, whole sentences (see prose.py); a sentence that opens with a pronoun
comes with the one before it; what is asked for is nowhere in the prompt, unless the prompt holds the
passage that one is told to read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_pipeline.curation import prose, words

_MAX_CHARACTERS = 40_000  # of a long document: one stretch of it
_MAX_CONTEXT_WORDS = 120
_BLANK = "____"
_LETTERS = "ABCD"


class Task(NamedTuple):
    text: str  # prompt and answer
    answer: str  # the end of the text


class Place(NamedTuple):
    """A sentence and where it stands."""

    sentence: str
    before: list[str]  # of its paragraph
    after: list[str]
    heading: str


@dataclass(slots=True)
class Material:
    """A document as the tasks see it."""

    text: str
    sections: list[prose.Section]
    places: list[Place]  # the plain sentences
    vocabulary: words.Vocabulary

    @classmethod
    def of(cls, text: str, random_: random.Random) -> Material:
        if len(text) > _MAX_CHARACTERS:
            start = random_.randrange(len(text) - _MAX_CHARACTERS)
            start = text.find("\n\n", start) + 2 if "\n\n" in text[start:] else 0
            text = text[start : start + _MAX_CHARACTERS]
        sections = prose.sections(text)
        places = [
            Place(sentence, paragraph[:i], paragraph[i + 1 :], section.heading)
            for section in sections
            for paragraph in section.paragraphs
            for i, sentence in enumerate(paragraph)
            if prose.is_plain(sentence)
        ]
        return cls(text, sections, places, words.Vocabulary.of(place.sentence for place in places))


def fill(templates: Sequence[str], answer: str, random_: random.Random, **parts: str) -> Task:
    """One of the phrasings, in which {answer} comes last."""
    template = random_.choice(templates)
    assert template.endswith("{answer}"), template
    return Task(template.format(answer=answer, **parts), answer)


# --- question answering ----------------------------------------------------------------------------

_PAIRS = re.compile(
    r"^[ \t]*(?:Question|Q)[ \t]*[:.][ \t]*(?P<question>\S[^\n]{5,600}?)[ \t]*\n+[ \t]*(?:Answer|A)[ \t]*[:.]"
    r"[ \t]*(?P<answer>\S.*?)(?=\n\s*(?:Question|Q)[ \t]*[:.]|\Z)",
    re.M | re.S,
)
_PAIR_FORMS = (
    "Question: {question}\nAnswer: {answer}",
    "Q: {question}\nA: {answer}",
    "{question}\n\n{answer}",
    "Answer the question.\n\n{question}\n\nAnswer: {answer}",
    "User: {question}\nAssistant: {answer}",
)
_PROBLEM_FORMS = (
    "Problem: {question}\nSolution: {answer}",
    "Solve the problem step by step.\n\n{question}\n\n{answer}",
    "{question} Let us work it out. {answer}",
    "User: {question}\nAssistant: {answer}",
    "Exercise: {question}\n\nWorked answer: {answer}",
)
_MAX_ANSWER_WORDS = 200

_DEFINITION = re.compile(
    r"(?P<subject>(?:An? |The )?[A-Z`a-z][\w`’-]*(?: (?:of (?:the )?|the |and )?[\w`’-]+){0,3}?) (?P<verb>is|are|was|were) "
    r"(?P<predicate>(?:an? |one of |any |the (?:[\w-]+ ){1,4}(?:of|that|which|who|for|by|to|in) )[^;:]{15,})\Z"
)
# "a better plan", "the same thing", "a lot of": a judgement or a phrase, and no definition
_NO_DEFINITION = re.compile(
    r"(?:an?|the|one of the|any) (?:\w+ly |very |more |most |less )?(?:bad|best|better|big|bit|case|cases|central|common|critical|crucial|"
    r"difficult|easy|excellent|example|few|first|good|great|huge|ideal|important|key|large|larger|last|latest|little|lot|main|"
    r"major|matter|mistake|more|most|must|need|next|number|only|other|part|popular|pretty|primary|problem|question|reason|recent|"
    r"result|right|same|[a-z]+ (?:one|thing|factor|group|way)|second|serious|significant|similar|simple|small|subject|useful|variety|very|way|ways|well|year|years)\b"
)
_PERSON = re.compile(
    r"\b(?:\w{4,}(?:ist|ian)|writer|author|poet|philosopher|president|king|queen|leader|actor|actress|singer|"
    r"player|officer|politician|painter|composer|lawyer|minister|professor|inventor|founder|engineer)\b"
)
_READ_FORMS = (
    "Read the text and answer the question.\n\n{context}\n\nQuestion: {question}\nAnswer: {answer}",
    "{context}\n\nAccording to the passage, {lower_question}\n\n{answer}",
    "Passage: {context}\nQuestion: {question}\nAnswer: {answer}",
    "Use the following text to answer: {question}\n\nText: {context}\n\nAnswer: {answer}",
)
_ASK_FORMS = (
    "Question: {question}\nAnswer: {answer}",
    "Q: {question}\nA: {answer}",
    "{question}\n\n{answer}",
    "User: {question}\nAssistant: {answer}",
)
_WHEN = re.compile(
    r"(?P<subject>(?:The )?[A-Z][\w'’-]*(?: (?:of |the |de |and )?[\w'’-]+){0,5}) (?P<be>was|were) (?P<verb>born|founded|"
    r"published|released|established|introduced|completed|signed|built|created|discovered|invented|elected|"
    r"adopted|opened|formed|enacted|launched|added|deprecated|removed)\b[^.;:]*? "
    r"(?P<when>(?:in|on) (?:(?:January|February|March|April|May|June|July|August|September|October|November|"
    r"December)(?: \d{1,2},?)? )?(?:1[0-9]|20)\d\d|in (?:version |Python )\d+(?:\.\d+)+)(?![\w])"
)
_HOW_MANY = re.compile(
    r"(?P<subject>(?:The )?[A-Z][\w'’-]*(?: (?:of |the )?[\w'’-]+){0,3}) (?P<verb>has|have|had|contains?|contained) "
    r"(?P<count>\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty) (?P<noun>[a-z]+s)(?=[,.]| that| which| and)"
)
_PYTHON_FUNCTION = re.compile(
    r"^(?P<indent>[ \t]*)(?:async )?def (?P<name>[a-z]\w*)\([^\n]*(?:\n(?![ \t]*(?:async )?(?:def|class) |[^\n]*\"\"\")[^\n]*){0,6}?:\n[ \t]+[rRuU]?\"\"\"(?P<doc>[^\"\\]{20,900}?)\"\"\"[ \t]*\n"
    r"(?P<body>(?:(?P=indent)[ \t]+[^\n]*\n|[ \t]*\n){1,40})",
    re.M,
)
_COMMENTED_FUNCTION = re.compile(
    r"(?P<doc>(?:^[ \t]*///?[ \t][^\n]*\n){1,6})(?P<body>^[ \t]*(?:func|fn|pub fn)[ \t](?:\([^)]*\)[ \t])?(?P<name>\w+)[^\n]*\n"
    r"(?:[^\n]+\n|\n(?=[ \t]))+?^\}[ \t]*$)",
    re.M,
)
_CODE_FORMS = (
    "What does this function do?\n\n{code}\n\n{answer}",
    "{code}\n\nExplain in one sentence what `{name}` does.\n\n{answer}",
    "Write a comment for the following code.\n\n{code}\n\nComment: {answer}",
    "Code:\n{code}\n\nQuestion: What is `{name}` for?\nAnswer: {answer}",
)
_NAMED = re.compile(r"`?([A-Za-z_]\w*(?:\.\w+)*)`?(?:\([^)]*\))?\Z")


def question_answering(material: Material, random_: random.Random) -> Iterator[Task]:
    """Written-out questions first; then functions, definitions, dates and counts."""
    pairs = list(_PAIRS.finditer(material.text))
    random_.shuffle(pairs)
    for pair in pairs:
        question = re.sub(r" \((?:is|are|was|were)\)| (?=\?$)", "", pair["question"].strip())
        answer = shorten(pair["answer"].strip(), _MAX_ANSWER_WORDS)
        forms = _PROBLEM_FORMS if re.search(r"\d = \d|= [\d(]", answer) else _PAIR_FORMS
        if answer:
            yield fill(forms, answer, random_, question=question)
    yield from _functions(material, random_)
    places = list(material.places)
    random_.shuffle(places)
    for place in places:
        yield from _question(place, material, random_)


def _question(place: Place, material: Material, random_: random.Random) -> Iterator[Task]:
    sentence = place.sentence
    if not prose.stands_alone(sentence):
        return
    if match := _DEFINITION.match(sentence):
        if _defines(match):
            answer = random_.choice((sentence, _capital(match["predicate"])))
            yield from _ask(_what_is(match, material), answer, place, random_)
    elif match := _WHEN.match(sentence):
        if _names_something(match["subject"]):
            asked = f"When {match['be']} {_inside(match['subject'], material)} {match['verb']}?"
            yield from _ask(asked, _capital(match["when"]) + ".", place, random_, must_read=True)
    elif (match := _HOW_MANY.match(sentence)) and _names_something(match["subject"]):
        do = {"has": "does", "have": "do", "had": "did"}.get(match["verb"], "does")
        verb = "contain" if match["verb"].startswith("contain") else "have"
        asked = f"How many {match['noun']} {do} {_inside(match['subject'], material)} {verb}?"
        yield from _ask(asked, _capital(match["count"]) + ".", place, random_, must_read=True)


def _ask(
    question: str, answer: str, place: Place, random_: random.Random, must_read: bool = False
) -> Iterator[Task]:
    """With the passage, where that is more than the answer; alone only where it need not be read."""
    context = passage(place)
    must_read = must_read or re.match(r"\w+ \w+ the ", question) is not None
    is_more = len(context) > len(place.sentence) + 40
    if is_more and (must_read or random_.random() < 0.5):
        lower = question[0].lower() + question[1:]
        parts = {"context": context, "question": question, "lower_question": lower}
        yield fill(_READ_FORMS, answer, random_, **parts)
    elif not must_read:
        yield fill(_ASK_FORMS, answer, random_, question=question)


def _what_is(match: re.Match[str], material: Material) -> str:
    subject = match["subject"]
    person = subject.istitle() and " " in subject and _PERSON.search(match["predicate"][:60])
    return f"{'Who' if person else 'What'} {match['verb']} {_inside(subject, material)}?"


def _defines(match: re.Match[str]) -> bool:
    return (
        _names_something(match["subject"])
        and not _NO_DEFINITION.match(match["predicate"])
        and not words.occurs(match["subject"].split()[-1].strip("`"), match["predicate"])
    )


def _functions(material: Material, random_: random.Random) -> Iterator[Task]:
    """What a function or class does, by its docstring or by the comment above it."""
    for section in random_.sample(material.sections, len(material.sections)):
        named, first = _NAMED.match(section.heading), section.paragraphs[0][0]
        if named and ("." in named[1] or "_" in named[1] or "(" in section.heading) and _explains(first):
            forms = (
                "Question: What does `{name}` do?\nAnswer: {answer}",
                "What is `{name}`?\n\n{answer}",
                "Explain `{name}` in one sentence.\n\n{answer}",
                "User: What is `{name}` for?\nAssistant: {answer}",
            )
            yield fill(forms, first, random_, name=named[1])
    functions = [
        *_PYTHON_FUNCTION.finditer(material.text),
        *_COMMENTED_FUNCTION.finditer(material.text),
    ]
    random_.shuffle(functions)
    for match in functions:
        doc = re.sub(r"\s*\n\s*(?:///?)?\s*", " ", re.sub(r"^\s*///?\s*", "", match["doc"].strip()))
        first = prose.sentences(re.split(r"\s{2,}|>>>|:param|Args:|@", doc)[0])
        if not first or not _explains(first[0]):
            continue
        code = match["body"]
        if match.re is _PYTHON_FUNCTION:
            head = match[0][: match.start("doc") - match.start()]
            code = head[: head.rindex("\n")] + "\n" + match["body"]
        answer = first[0].replace("``", "`")
        yield fill(_CODE_FORMS, answer, random_, name=match["name"], code=_dedent(code))


def _dedent(code: str) -> str:
    lines = code.strip("\n").rstrip().split("\n")
    margin = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


def _explains(sentence: str) -> bool:
    return (
        4 <= len(sentence.split()) <= 45
        and sentence[0].isupper()
        and sentence[-1] == "."
        and prose.first_word(sentence) not in _NO_EXPLANATION
        and prose.stands_alone(sentence)
        and not re.search(r"[<>{}\\]|TODO|XXX|[a-z]\.[A-Z]", sentence)
    )


_NO_EXPLANATION = frozenset(
    "author authors copyright date deprecated input like license note same see similar source todo version".split()
)
_VAGUE = frozenset(
    "aim answer case difference example fact former goal idea last latter main method most number "
    "objective only other point problem purpose question reason rest result same solution thing time value what if when where "
    "who why how as on at with all each every no not by from here once note see above below before after "
    "although because since while whereas whether do does did is are in to for best worst good bad new old few many several any "
    "chapter section figure table below following".split()
)
_CONNECTORS = frozenset("a an the of and".split())


def _names_something(subject: str) -> bool:
    """A term or a name; not "The reason", "What follows", "Tribalism in this sense"."""
    names = [name.strip("`").lower() for name in subject.split()]
    names = names[1:] if names[0] in _CONNECTORS else names
    if not names or names[0] in prose.LEANING or names[0].endswith("ing"):
        return False
    return not any(
        name in _VAGUE
        or (name in words.STOP_WORDS and name not in _CONNECTORS)
        or name.endswith("ly")
        for name in names
    )


def _inside(subject: str, material: Material) -> str:
    """A subject inside a sentence: "The hare" -> "the hare", "Coffee" -> "coffee", "Berlin" stays."""
    first = subject.split()[0]
    if first in ("A", "An", "The") or f" {first.lower()} " in material.text:
        return subject[0].lower() + subject[1:]
    return subject


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


# --- multiple choice -------------------------------------------------------------------------------

_CHOOSE_WORD_FORMS = (
    "{context}Which word completes the sentence?\n{sentence}\n{options}\nAnswer: {answer}",
    "{context}Choose the word that fits the blank.\n\n{sentence}\n\n{options}\n\nThe answer is {answer}",
    "{context}{sentence}\n\nWhat is missing?\n{options}\nCorrect answer: {answer}",
)
_NEXT_FORMS = (
    "Which sentence comes next?\n\n{context}\n\n{options}\n\nAnswer: {answer}",
    "{context}\n\nHow does the text go on?\n{options}\nAnswer: {answer}",
    "Read the beginning of a text and choose its continuation.\n\n{context}\n\n{options}\n\nThe answer is {answer}",
)
_WHAT_IS_FORMS = (
    "{question}\n{options}\nAnswer: {answer}",
    "Question: {question}\n\n{options}\n\nThe answer is {answer}",
    "Choose the correct answer.\n\n{question}\n{options}\nCorrect answer: {answer}",
)
_MARKS = ("{}. ", "{}) ", "({}) ")


def multiple_choice(material: Material, random_: random.Random) -> Iterator[Task]:
    """Definitions, the next sentence and missing words in turn, four options each."""
    makers = [
        _choose_definition(material, random_),
        _choose_next(material, random_),
        _choose_word(material, random_),
    ]
    while makers:
        for maker in list(makers):
            task = next(maker, None)
            if task is None:
                makers.remove(maker)
            else:
                yield task


def _choose_word(material: Material, random_: random.Random) -> Iterator[Task]:
    for place, match, context in _gaps(material, random_):
        word, sentence = match[0], place.sentence
        before = words.WORD.findall(sentence, 0, match.start())[-1:]
        others = material.vocabulary.stand_ins(
            word, before[0] if before else "", f"{context} {sentence}", 3, random_
        )
        if others:
            yield _choice(
                _CHOOSE_WORD_FORMS,
                word,
                others,
                random_,
                context=f"{context}\n\n" if context else "",
                sentence=_with_blank(sentence, match),
            )


def _choose_next(material: Material, random_: random.Random) -> Iterator[Task]:
    places = [p for p in material.places if p.before and all(map(prose.is_plain, p.before[-3:]))]
    for place in random_.sample(places, len(places)):
        length = len(place.sentence)
        others = [
            p.sentence
            for p in material.places
            if p.sentence != place.sentence
            and p.sentence not in place.before + place.after
            and 0.6 * length <= len(p.sentence) <= 1.6 * length
        ]
        if len(set(others)) >= 3:
            others = random_.sample(sorted(set(others)), 3)
            context = _trim(place.before, _MAX_CONTEXT_WORDS)
            if len(context.split()) >= 12:
                yield _choice(_NEXT_FORMS, place.sentence, others, random_, context=context)


def _choose_definition(material: Material, random_: random.Random) -> Iterator[Task]:
    found: dict[str, tuple[str, str]] = {}
    for place in material.places:
        match = _DEFINITION.match(place.sentence)
        if match and prose.stands_alone(place.sentence) and _defines(match):
            predicate = match["predicate"]
            if len(predicate.split()) <= 30 and not match["subject"].startswith("The "):
                question = _what_is(match, material)
                found[question] = (match["verb"], _capital(predicate))
    for question in random_.sample(sorted(found), len(found)):
        verb, predicate = found[question]
        others = sorted({p for v, p in found.values() if v == verb and p != predicate})
        if len(others) >= 3:
            others = random_.sample(others, 3)
            yield _choice(_WHAT_IS_FORMS, predicate, others, random_, question=question)


def _choice(
    forms: Sequence[str], right: str, wrong: list[str], random_: random.Random, **parts: str
) -> Task:
    options = [right, *wrong]
    random_.shuffle(options)
    mark = random_.choice(_MARKS)
    lines = [mark.format(letter) + option for letter, option in zip(_LETTERS, options, strict=True)]
    letter = _LETTERS[options.index(right)]
    answer = random_.choice((letter, mark.format(letter) + right))
    return fill(forms, answer, random_, options="\n".join(lines), **parts)


# --- cloze -----------------------------------------------------------------------------------------

_CLOZE_FORMS = (
    "Fill in the blank.\n\n{text}\n\nAnswer: {answer}",
    "Complete the text with the missing word.\n\n{text}\n\nMissing word: {answer}",
    "{text}\n\nWhich word belongs in the gap? {answer}",
    "In this passage one word is missing:\n{text}\nThe word is: {answer}",
    "Text: {text}\nBlank: {answer}",
)


def cloze(material: Material, random_: random.Random) -> Iterator[Task]:
    """A sentence with a gap, after the sentences before it."""
    for place, match, context in _gaps(material, random_):
        text = f"{context} {_with_blank(place.sentence, match)}".strip()
        if len(text.split()) >= 12:
            yield fill(_CLOZE_FORMS, match[0], random_, text=text)


def _gaps(
    material: Material, random_: random.Random
) -> Iterator[tuple[Place, re.Match[str], str]]:
    """Sentences in random order, each with one word to leave out and a context that does not hold it."""
    for place in random_.sample(material.places, len(material.places)):
        before = place.before[-2:]
        if not all(map(prose.is_plain, before)):
            before = []
        if not before and not prose.stands_alone(place.sentence):
            continue
        context = _trim(before, _MAX_CONTEXT_WORDS)
        # Not in the first third, where nothing leads up to it; numbers only where they can be known.
        matches = [
            match
            for match in words.blanks(place.sentence)
            if match.start() > len(place.sentence) / 3
            and not words.occurs(match[0], context)
            and (not match[0][0].isdigit() or material.text.count(match[0]) > 1)
        ]
        if matches:
            yield place, random_.choice(matches), context


def _with_blank(sentence: str, match: re.Match[str]) -> str:
    return sentence[: match.start()] + _BLANK + sentence[match.end() :]


# --- summary ---------------------------------------------------------------------------------------

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
_GENERIC = frozenset(
    "introduction abstract summary overview conclusion conclusions license licence installation usage contents "
    "table index references notes note see also background history discussion preface appendix rationale motivation "
    "acknowledgements acknowledgments copyright examples example features changelog documentation requirements "
    "description status contributing authors author support quickstart testing development "
    "results methods exercises exercise chapter section part details specification definition proof remarks".split()
)
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
    """The first paragraphs, or as many sentences of the first as fit; "" if it is no good passage."""
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
    bare = re.sub(r"^(?:(?:chapter|section|part|appendix)\b\s*)?[\dIVX]*[.:)\s]*", "", heading, flags=re.I)
    names = bare.split()
    if not 2 <= len(names) <= 12 or not re.fullmatch(r"[\w ,:'’?!&()–—-]+", bare) or "_" in bare:
        return False
    telling = content(bare) - _GENERIC
    return bool(telling) and any(words.occurs(word, text) for word in telling)


# --- pieces of text --------------------------------------------------------------------------------


def content(text: str) -> set[str]:
    """The words of a text that carry its meaning, in lower case."""
    found = {word.lower() for word in words.WORD.findall(text)}
    return {word for word in found if len(word) > 3 and word not in words.STOP_WORDS}


def passage(place: Place) -> str:
    """The sentence within its paragraph, up to the limit of a context."""
    before = _trim(place.before, _MAX_CONTEXT_WORDS - len(place.sentence.split()))
    taken = [before, place.sentence] if before else [place.sentence]
    room = _MAX_CONTEXT_WORDS - len(" ".join(taken).split())
    for sentence in place.after:
        room -= len(sentence.split())
        if room < 0 or not prose.is_plain(sentence):
            break
        taken.append(sentence)
    return " ".join(taken)


def _trim(sentences: list[str], most: int) -> str:
    """The last of the sentences that fit together."""
    taken: list[str] = []
    for sentence in reversed(sentences):
        most -= len(sentence.split())
        if most < 0 or not prose.is_plain(sentence):
            break
        taken.insert(0, sentence)
    return " ".join(taken)


def shorten(text: str, most: int) -> str:
    """Whole sentences from the beginning, at most so many words; "" if not even one fits."""
    if len(text.split()) <= most:
        return text
    taken = 0
    for match in re.finditer(r"[.!?][\"”’)]*\s", text):
        if len(text[: match.end()].split()) > most:
            break
        taken = match.end()
    return text[:taken].strip()
