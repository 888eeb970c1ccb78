r"""Rules that detect truncated documents: announced lists, open code fences, environments and tags.

Each rule takes a `Text` and returns evidence or None, like the rules of quality.py. A truncation at
the end of a long document costs it little, so a document is only flagged if the broken part is at
least a fifth of the text.

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
_TAIL = 400  # characters at the end in which a last line or tag is searched for

# Words before a final colon that announce a list: "such as:", "the following steps:".
_ANNOUNCEMENT = re.compile(
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
_MAX_ENVIRONMENT = 2000  # characters from a last \begin to the end of the text
_DEFINES = re.compile(r"\\(?:re)?new(?:environment|command)|\\def\b|\\let\b")
_OPEN_TAG = re.compile(
    r"<(?:[a-zA-Z][\w-]*(?:[ \t\n]+[\w:-]+=(?:\"[^\"<]*\"?|'[^'<]*'?)?)+[ \t\n]*|/[a-zA-Z]*)\Z"
)
_COMMENT = "<!--"


def truncated_list(text: Text) -> Evidence | None:
    """Flags a text that ends with "as follows:", an empty item, or "2." after an item "1."."""
    end = text.prose.rstrip().rstrip("*_ ")
    start = max(end.rfind("\n"), end.rfind(". "), 0)
    last = end[start:].strip(". \n")  # the last sentence or line
    is_announcement = end.endswith(":") and _ANNOUNCEMENT.search(end[-_TAIL:])
    if is_announcement and len(last) >= _MAX_BROKEN_SHARE * len(end):
        return {"end": last[-80:]}
    lines = text.lines
    if len(lines) < 2:
        return None
    number = _NUMBER.fullmatch(lines[-1])
    if number and not number[3] and number[1] != "1":
        previous = f"{int(number[1]) - 1}{number[2]}"
        if any(line.startswith(previous) for line in lines[:-1]):
            return {"end": lines[-1]}
    is_item = _BULLET.fullmatch(lines[-1]) and lines[-2].startswith(f"{lines[-1]} ")
    return {"end": f"{lines[-2][-60:]} {lines[-1]}"} if is_item else None


def open_fence(text: Text) -> Evidence | None:
    """Flags a fenced code block that is never closed and is a large part of the text."""
    if not may_have_fences(text.text):
        return None
    fence, fence_start, position, line_before = "", 0, 0, ""
    for line in text.text.split("\n"):
        if match := _FENCE.match(line):
            mark, rest = match[1], match[2].strip()
            if fence:
                fence = "" if mark.startswith(fence) and not rest else fence
            # A mark opens a fence unless it is ```code``` on one line or underlines a heading.
            elif mark[0] not in rest and not _is_underline(line_before, mark):
                fence, fence_start = mark, position
        position += len(line) + 1
        line_before = line.strip()
    if not fence or len(text.text) - fence_start < _MAX_BROKEN_SHARE * len(text.text):
        return None
    return {"open": text.text[fence_start : fence_start + 60].split("\n")[0]}


def _is_underline(line: str, mark: str) -> bool:
    """Returns whether a mark underlines a reStructuredText heading: it is as long as the line."""
    return bool(line) and (mark[0] == "~" or len(mark) >= max(4, len(line)))


def open_environment(text: Text) -> Evidence | None:
    r"""Flags a text that ends inside a LaTeX environment: a last \begin, near the end, has no \end.

    If the \begin is more than 2000 characters before the end, the \end was probably lost in
    conversion, and the text is complete.
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
            return None  # the source is split over files, or the commands are examples
    if not stack or len(source) - stack[-1][1] > _MAX_ENVIRONMENT:
        return None
    return {"open": f"\\begin{{{stack[-1][0]}}}"}


def open_tag(text: Text) -> Evidence | None:
    """Flags a text that ends inside an HTML tag or comment: `... <a href="http`."""
    end = text.prose.rstrip()[-_TAIL:]
    if "<" not in end:
        return None
    if match := _OPEN_TAG.search(end):
        return {"open": match[0][:80]}
    start = text.prose.rfind(_COMMENT)
    if (
        start >= 0
        and "-->" not in text.prose[start:]
        and len(text.prose) - start >= _MAX_BROKEN_SHARE * len(text.prose)
    ):
        return {"open": text.prose[start : start + 60]}
    return None


# Brackets in strings and comments are ignored: those of Python, and those of C, Go, Java and Rust.
_STRINGS = r'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\''
_NOT_PYTHON = re.compile(
    r'"""[\s\S]*?(?:"""|\Z)|\'\'\'[\s\S]*?(?:\'\'\'|\Z)|#[^\n]*'
    + _STRINGS
    + r"|'(?:\\.|[^'\\\n])*'"
)
_NOT_C = re.compile(r"/\*[\s\S]*?(?:\*/|\Z)|//[^\n]*" + _STRINGS + r"|`[^`]*`")
_MIN_C_LINE_SHARE = 0.2  # of the lines end in one of `_C_LINE_ENDS`
_C_LINE_ENDS = (";", "{", "}", "},", ");")
_PYTHON_KEYWORDS = ("def ", "class ", "if ", "for ", "while ", "with ", "else:", "try:")
_BRACKETS = re.compile(r"[\[\](){}]")
_CLOSES = {")": "(", "]": "[", "}": "{"}


def open_bracket(text: Text) -> Evidence | None:
    """Flags code that ends inside a bracket, and therefore inside a function or a call.

    Returns None if a bracket closes that never opened: the language is then an unsupported one.
    """
    if all(text.text.count(a) == text.text.count(b) for a, b in _CLOSES.items()):
        return None  # the usual case; it needs no parsing
    is_python = any(line.endswith(":") and line.startswith(_PYTHON_KEYWORDS) for line in text.lines)
    is_c = not is_python and (
        any(line.startswith("// ") for line in text.lines)
        or sum(line.endswith(_C_LINE_ENDS) for line in text.lines)
        >= _MIN_C_LINE_SHARE * len(text.lines)
    )
    stack: list[str] = []
    for match in _BRACKETS.finditer((_NOT_C if is_c else _NOT_PYTHON).sub(" ", text.text)):
        if match[0] in _CLOSES:
            if not stack or stack.pop() != _CLOSES[match[0]]:
                return None
        else:
            stack.append(match[0])
    return {"open": "".join(stack)[-20:], "end": text.text[-60:]} if stack else None
