"""Tasks about code: the purpose of a function, from its docstring or the comment above it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import templates
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, SourceText, render
from data_pipeline.text import prose
from data_pipeline.text.word_lists import NO_EXPLANATION

_PYTHON_FUNCTION = re.compile(
    r"""
    ^(?P<indent>[ \t]*)(?:async\ )?def\ (?P<name>[a-z]\w*)\([^\n]*      # a signature
    (?:\n(?![ \t]*(?:async\ )?(?:def|class)\ |[^\n]*\"\"\")[^\n]*){0,6}?  # on up to seven lines
    :\n[ \t]+[rRuU]?\"\"\"(?P<doc>[^"\\]{20,900}?)\"\"\"[ \t]*\n          # its docstring
    (?P<body>(?:(?P=indent)[ \t]+[^\n]*\n|[ \t]*\n){1,40}+)            # its indented lines,
    (?!(?P=indent)[ \t]+\S)                                            # to its end
    """,
    re.M | re.X,
)
_COMMENTED_FUNCTION = re.compile(  # Go and Rust
    r"""
    (?P<doc>(?:^[ \t]*///?[ \t][^\n]*\n){1,6})
    (?P<body>^[ \t]*(?:func|fn|pub\ fn)[ \t](?:\([^)]*\)[ \t])?(?P<name>\w+)[^\n]*\n
    (?:[^\n]+\n|\n(?=[ \t]))+?^\}[ \t]*$)
    """,
    re.M | re.X,
)
_NAME = re.compile(r"`?([A-Za-z_]\w*(?:\.\w+)*)`?(?:\([^)]*\))?\Z")


def functions(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields names with the first sentence below their heading, then functions with their code."""
    for section in random_.sample(source.sections, len(source.sections)):
        match, first = _NAME.match(section.heading), section.paragraphs[0][0]
        is_name = match and ("." in match[1] or "_" in match[1] or "(" in section.heading)
        if match and is_name and _explains(first):
            yield render(templates.NAME, first, random_, name=match[1])
    matches = [
        *_PYTHON_FUNCTION.finditer(source.text),
        *_COMMENTED_FUNCTION.finditer(source.text),
    ]
    random_.shuffle(matches)
    for match in matches:
        first = _first_sentence(match["doc"])
        if _explains(first):
            code = match["body"]
            if match.re is _PYTHON_FUNCTION:  # the code without its docstring
                signature = match[0][: match.start("doc") - match.start()]
                code = signature[: signature.rindex("\n") + 1] + code
            yield render(templates.CODE, first, random_, name=match["name"], code=_dedent(code))


def _first_sentence(doc: str) -> str:
    """Returns the first sentence of a docstring or comment, or "" if it has none.

    Examples and lists of arguments are not searched.
    """
    text = re.sub(r"\s*\n\s*(?:///?)?\s*", " ", re.sub(r"\A\s*///?\s*", "", doc.strip()))
    sentences = prose.sentences(re.split(r"\s{2,}|>>>|:param|Args:|@", text)[0])
    return sentences[0].replace("``", "`") if sentences else ""


def _dedent(code: str) -> str:
    """Removes the indentation that all lines share, and blank lines at the start and end."""
    lines = code.strip("\n").rstrip().split("\n")
    margin = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


def _explains(sentence: str) -> bool:
    """Returns whether a sentence is a short explanation that is readable without its context."""
    return (
        4 <= len(sentence.split()) <= 45
        and sentence[0].isupper()
        and sentence[-1] == "."
        and prose.first_word(sentence) not in NO_EXPLANATION
        and prose.stands_alone(sentence)
        and not re.search(r"[<>{}\\]|TODO|XXX|[a-z]\.[A-Z]", sentence)
    )
