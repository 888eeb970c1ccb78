r"""Documents that break off: a list that never comes, a fence, an environment or a tag left open.

Each rule gets a `Text` and answers with evidence or None, as those of quality.py do. What breaks
off at the end of a long document costs it little: such a document stays unless what is broken is a
good part of it.

>>> truncated_list(Text("Hares eat many plants. Their food in winter includes the following:"))
{'end': 'Their food in winter includes the following:'}
>>> open_environment(Text("\\begin{proof} Let $x$ be a"))
{'open': '\\begin{proof}'}
"""

from __future__ import annotations

import re

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.cleaning.quality import Evidence, Text

_MAX_BROKEN_SHARE = 0.2  # of the text
_TAIL = 400  # characters in which a last line or tag is looked for

# What is promised by the last words of a document and does not come.
_PROMISE = re.compile(
    r"\b(?:following|follows|include[sd]?|including|such as|as|below|these|are|is|namely|e\.g\.|"
    r"examples?|steps?|reasons?|options?|items?|things|points|ways|types|kinds|questions)\b"
    r"[^.:!?\n]{0,40}:\Z",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[ \t]*(\d{1,3})([.)])[ \t]*(.*)")
_BULLET = re.compile(r"[ \t]*[-*+•][ \t]*\Z")

_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})(.*)")
_ENVIRONMENT = re.compile(r"\\(begin|end)[ \t]*\{([A-Za-z]+\*?)\}")
_LATEX_COMMENT = re.compile(r"(?<!\\)%[^\n]*")
_VERBATIM = re.compile(
    r"\\begin\{(verbatim|lstlisting|minted|sageexample|sageverbatim|Verbatim)\*?\}.*?\\end\{\1\*?\}",
    re.S,
)
_LONGEST_ENVIRONMENT = 2000  # characters; one that holds others is not the last
_DEFINES = re.compile(r"\\(?:re)?new(?:environment|command)|\\def\b|\\let\b")
_OPEN_TAG = re.compile(
    r"<(?:[a-zA-Z][\w-]*(?:[ \t\n]+[\w:-]+=(?:\"[^\"<]*\"?|'[^'<]*'?)?)+[ \t\n]*|/[a-zA-Z]*)\Z"
)
_COMMENT = "<!--"


def truncated_list(text: Text, most: float = _MAX_BROKEN_SHARE) -> Evidence | None:
    """Ends with "as follows:", with an empty item, or with "2." of a list that had a first item."""
    end = text.prose.rstrip().rstrip("*_ ")
    start = max(end.rfind("\n"), end.rfind(". "), 0)
    last = end[start:].strip(". \n")
    if end.endswith(":") and _PROMISE.search(end[-_TAIL:]) and len(last) >= most * len(end):
        return {"end": last[-80:]}
    lines = text.lines
    if len(lines) < 2:
        return None
    number = _NUMBER.fullmatch(lines[-1])
    if number and not number[3] and number[1] != "1":
        before = f"{int(number[1]) - 1}{number[2]}"
        if any(line.startswith(before) for line in lines[:-1]):
            return {"end": lines[-1]}
    is_item = _BULLET.fullmatch(lines[-1]) and lines[-2].startswith(f"{lines[-1]} ")
    return {"end": f"{lines[-2][-60:]} {lines[-1]}"} if is_item else None


def open_fence(text: Text, most: float = _MAX_BROKEN_SHARE) -> Evidence | None:
    """A fenced code block that is never closed, where it is a good part of the text."""
    if not may_have_fences(text.text):
        return None
    fence, at, position, before = "", 0, 0, ""
    for line in text.text.split("\n"):
        if match := _FENCE.match(line):
            mark, rest = match[1], match[2].strip()
            if fence:
                fence = "" if mark.startswith(fence) and not rest else fence
            elif mark[0] not in rest and not _underlines(before, mark):  # nor `code` on one line
                fence, at = mark, position
        position += len(line) + 1
        before = line.strip()
    if not fence or len(text.text) - at < most * len(text.text):
        return None
    return {"open": text.text[at : at + 60].split("\n")[0]}


def _underlines(line: str, mark: str) -> bool:
    """A heading of reStructuredText: marks as long as the line above."""
    return bool(line) and (mark[0] == "~" or len(mark) >= max(4, len(line)))


def open_environment(text: Text, most: int = _LONGEST_ENVIRONMENT) -> Evidence | None:
    r"""Ends inside an environment of LaTeX: the last \begin without its \end is near the end.

    Far from it, the \end was lost in conversion, and the text goes on.
    """
    if text.text.count("\\begin{") <= text.text.count("\\end{") or _DEFINES.search(text.text):
        return None
    source = _VERBATIM.sub("", text.text)
    source = _LATEX_COMMENT.sub("", source) if "%" in source else source
    stack: list[tuple[str, int]] = []
    for match in _ENVIRONMENT.finditer(source):
        if match[1] == "begin":
            stack.append((match[2], match.start()))
        elif stack and stack[-1][0] == match[2]:
            stack.pop()
        else:
            return None  # split over files, or shown and not meant
    if not stack or len(source) - stack[-1][1] > most:
        return None
    return {"open": f"\\begin{{{stack[-1][0]}}}"}


def open_tag(text: Text) -> Evidence | None:
    """Ends inside an HTML tag or comment: `... <a href="http`."""
    end = text.prose.rstrip()[-_TAIL:]
    if "<" not in end:
        return None
    if match := _OPEN_TAG.search(end):
        return {"open": match[0][:80]}
    at = text.prose.rfind(_COMMENT)
    if (
        at >= 0
        and "-->" not in text.prose[at:]
        and len(text.prose) - at >= _MAX_BROKEN_SHARE * len(text.prose)
    ):
        return {"open": text.prose[at : at + 60]}
    return None


# Brackets in strings and comments do not count: those of Python, and those of C, Go, Java, Rust.
_STRINGS = r'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\''
_NOT_PYTHON = re.compile(
    r'"""[\s\S]*?(?:"""|\Z)|\'\'\'[\s\S]*?(?:\'\'\'|\Z)|#[^\n]*'
    + _STRINGS
    + r"|'(?:\\.|[^'\\\n])*'"
)
_NOT_C = re.compile(r"/\*[\s\S]*?(?:\*/|\Z)|//[^\n]*" + _STRINGS + r"|`[^`]*`")
_MIN_C_LINES = 0.2  # of the lines end in one of
_C_ENDS = (";", "{", "}", "},", ");")
_PYTHON = ("def ", "class ", "if ", "for ", "while ", "with ", "else:", "try:")
_BRACKETS = re.compile(r"[\[\](){}]")
_CLOSES = {")": "(", "]": "[", "}": "{"}


def open_bracket(text: Text) -> Evidence | None:
    """Code that ends inside a bracket, and so inside a function or a call.

    Where brackets close that never opened, the language is not one that this reads: None.
    """
    if all(text.text.count(a) == text.text.count(b) for a, b in _CLOSES.items()):
        return None  # as in almost every file
    is_python = any(line.endswith(":") and line.startswith(_PYTHON) for line in text.lines)
    is_c = not is_python and (
        any(line.startswith("// ") for line in text.lines)
        or sum(line.endswith(_C_ENDS) for line in text.lines) >= _MIN_C_LINES * len(text.lines)
    )
    stack: list[str] = []
    for match in _BRACKETS.finditer((_NOT_C if is_c else _NOT_PYTHON).sub(" ", text.text)):
        if match[0] in _CLOSES:
            if not stack or stack.pop() != _CLOSES[match[0]]:
                return None
        else:
            stack.append(match[0])
    return {"open": "".join(stack)[-20:], "end": text.text[-60:]} if stack else None
