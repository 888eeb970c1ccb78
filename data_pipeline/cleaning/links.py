"""Removal of web links: addresses are deleted, link texts are kept (paper, section 2.1).

>>> text = "See [the guide](https://a.org/g) or https://a.org/x (www.a.org)."
>>> remove_links(text, CleaningProfile.PROSE)
('See the guide or.', 3)
"""

from __future__ import annotations

import re

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.config import CleaningProfile

# Marks a removed link until its line has been tidied; normalized text contains no NUL.
_REMOVED = "\x00"

# Substrings of links by a character in them; searching for one character takes almost no time.
_SIGNS = {":": ("://", "mailto:"), "w": ("www.",), "]": ("](", "]:"), "<": ("<a ", "<img ")}
_FENCED_CODE = re.compile(r"(^[ \t]*(?:```|~~~)[^\n]*\n.*?^[ \t]*(?:```|~~~)[ \t]*$)", re.M | re.S)

# A bare address. Excluded are addresses in quotes or after "+" or "=", which are program text
# (git+https://...), and the placeholder hosts of documentation (localhost, example.com). The first
# letter is matched before the lookbehind because a search for letters is four times as fast.
_BARE = re.compile(
    r"""[hfwHFW](?<![\w"'`=+/@].)(?i:(?:(?<=h)ttps?|(?<=f)tp)://|(?<=w)ww\.(?=\w))"""
    r"""(?i:(?!(?:[\w.-]+@)?"""
    r"""(?:localhost|127\.0|0\.0\.0|(?:[\w-]+\.)*example\.(?:com|org|net)\b)))"""
    r"""(?:[^\s<>"'`(){}|\\^\[\]\x00]|\([^\s()\x00]*\))*(?<![.,;:!?*_])"""
)
# Parts of a line: a command or an inline code span, which keeps its addresses, or an address.
_CODE_OR_BARE = re.compile(
    r"^[ \t]*(?:\$|>>>|\.\.\.) [^\n]*|`[^`\n]+`|(?P<link>" + _BARE.pattern + ")"
)
# The rest of a Markdown link after its text: (address "title") or (<address>).
_DESTINATION = re.compile(
    r"""\]\(\s*(?:<[^<>\n]*>|(?:[^\s()]|\([^\s()]*\))*)(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)"""
)
_MAX_LINK_TEXT = 600  # characters
_IMAGE_REFERENCE = re.compile(r"!\[[^\[\]]{0,200}\]\[[^\[\]\n]{0,80}\]")
_EMPTY_REFERENCE = re.compile(r"\[\x00\]\[[^\[\]\n]{0,80}\]")
_DEFINITION = re.compile(
    r"""^[ ]{0,3}\[([^\[\]\n]+)\]:[ \t]*\n?[ \t]*<?[^\s<>]*[/.#][^\s<>]*>?"""
    r"""(?:[ \t]+["'(][^\n]*["')])?[ \t]*$""",
    re.M,
)
_REFERENCE = re.compile(r"\[([^\[\]]{1,200})\](?:\[([^\[\]\n]{0,80})\])?")
_RST_TARGET = re.compile(r"^[ \t]*\.\. (?:_[^:\n]+|_`[^`\n]+`|_):[ \t]+\S+://\S+$", re.M)
_RST_IMAGE = re.compile(r"^[ \t]*\.\. (?:\|[^|\n]+\| )?image::[^\n]*(?:\n[ \t]+:[^\n]*)*$", re.M)
_RST_LINK = re.compile(r"`([^`<>]+?)\s*<(?:https?|ftp|mailto):[^<>`]*>`__?")
_ANCHOR = re.compile(r"<a\b[^<>]*>(.*?)</a>", re.S | re.IGNORECASE)
_HTML_IMAGE = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)
_AUTOLINK = re.compile(r"<(?:https?|ftp|mailto):[^<>\s]*>", re.IGNORECASE)
_LATEX_LINK = re.compile(r"\\href\s*\{[^{}]*\}\s*\{([^{}]*)\}")
_LATEX_URL = re.compile(r"\\url\s*\{[^{}]*\}")

_BRACKETED = re.compile(
    r"[(\[<](?:[\s,;:]|see|at|via|from)*\x00(?:[\s,;\x00]|and|or|see)*[)\]>]", re.IGNORECASE
)
# "documented at LINK." and "(see LINK)": the word that introduces the link is removed with it.
_POINTER = re.compile(
    r"[ \t]+(?:at|from|via|see|visit|here):?[ \t]*\x00+(?=[ \t]*(?:[.,;)\]]|$))", re.I
)
_DOUBLED_COMMA = re.compile(r"([,;:.][\"”’]?)[ \t]*\x00+[ \t]*[,;.]")
_CODE_COMMENT = re.compile(r"^[ \t]*(?:#|//|\*(?!/))[^\n]*?://[^\n]*", re.M)
_MAX_LABEL_WORDS = 4  # "Project home page: https://..." is removed as a whole


def remove_links(text: str, profile: CleaningProfile) -> tuple[str, int]:
    """Removes web addresses and returns the text and the number of links.

    Markdown, reStructuredText, HTML and LaTeX links keep their text. Images and badges are removed,
    and so is a line that contained only links and a label. Fenced code is unchanged. In source
    code, addresses are removed from comment lines only: in a string literal they are part of the
    program.
    """
    if not any(sign in text for c, signs in _SIGNS.items() if c in text for sign in signs):
        return text, 0
    if profile is CleaningProfile.CODE:
        return _remove_from_comments(text)
    total = 0
    while True:  # removing an address can complete a link around it, which the next pass removes
        text, count = _remove_outside_code(text)
        total += count
        if not count or "](" not in text:
            return text, total


def _remove_outside_code(text: str) -> tuple[str, int]:
    """Removes links outside fenced code; returns the text and the number of links."""
    # Prose, code, prose, ...: the pattern has one group, so the pieces alternate.
    pieces = _FENCED_CODE.split(text) if may_have_fences(text) else [text]
    names: set[str] = set()
    if "]:" in text:
        names = {n.casefold() for piece in pieces[::2] for n in _DEFINITION.findall(piece)}
    count = 0
    for i in range(0, len(pieces), 2):
        pieces[i], num_links = _remove(pieces[i], names)
        count += num_links
    return "".join(pieces), count


def _remove(text: str, names: set[str]) -> tuple[str, int]:
    """Removes links from text without fenced code; returns the text and the number of links.

    `names`: names of the document's link definitions `[name]: address`, in lower case.
    """
    count = 0

    def substitute(pattern: re.Pattern[str], replacement: str) -> None:
        nonlocal text, count
        text, num_links = pattern.subn(replacement, text)
        count += num_links

    if "<a " in text or "<img " in text:
        substitute(_HTML_IMAGE, _REMOVED)
        substitute(_ANCHOR, r"\1")
    if ".. " in text:
        substitute(_RST_TARGET, _REMOVED)
        substitute(_RST_IMAGE, _REMOVED)
    if ">`_" in text:
        substitute(_RST_LINK, r"\1")
    if "<" in text:
        substitute(_AUTOLINK, _REMOVED)
    if "\\href" in text or "\\url" in text:
        substitute(_LATEX_LINK, r"\1")
        substitute(_LATEX_URL, _REMOVED)
    if names:
        substitute(_DEFINITION, _REMOVED)
    if "](" in text or names:
        text, images = _unwrap(text, images=True) if "![" in text else (text, 0)
        substitute(_IMAGE_REFERENCE, _REMOVED)
        substitute(_EMPTY_REFERENCE, _REMOVED)  # a badge: an image as the text of a link
        text, links = _unwrap(text, images=False)
        count += images + links
    if names:
        text = _REFERENCE.sub(
            lambda match: match[1] if (match[2] or match[1]).casefold() in names else match[0], text
        )
    if "://" in text or "www." in text:
        text, bare = _remove_bare(text)
        count += bare
    return _tidy(text), count


def _remove_bare(text: str) -> tuple[str, int]:
    """Removes bare addresses, except in commands and inline code."""
    if "`" not in text and "$ " not in text and ">>> " not in text:
        return _BARE.subn(_REMOVED, text)
    count = 0

    def keep_code(match: re.Match[str]) -> str:
        nonlocal count
        count += match["link"] is not None
        return match[0] if match["link"] is None else _REMOVED

    lines = text.split("\n")
    for k, line in enumerate(lines):
        if _BARE.search(line):  # a fast test; neither inline code nor an address spans lines
            lines[k] = _CODE_OR_BARE.sub(keep_code, line)
    return "\n".join(lines), count


def _unwrap(text: str, *, images: bool) -> tuple[str, int]:
    """Removes Markdown images `![text](address)` or replaces links `[text](address)` by their text.

    The search is backward from each "](", because a forward search from each "[" takes quadratic
    time in texts with many brackets.

    Args:
      text: the text.
      images: whether to remove images; otherwise links are replaced.

    Returns:
      The text and the number of images or links.
    """
    pieces, end, count = [], 0, 0
    for match in _DESTINATION.finditer(text):
        opening = _opening_bracket(text, max(end, match.start() - _MAX_LINK_TEXT), match.start())
        if opening < 0:
            continue
        before = text[opening - 1] if opening > end else " "
        if images != (before == "!"):
            continue
        # handlers[name](event) is a call and [0, 1](x) is mathematics; an address contains one of
        # the characters "/.#:".
        address = match[0][2:-1]
        if not images and (before.isalnum() or before in "_)]"):
            continue
        if not images and address and not any(sign in address for sign in "/.#:"):
            continue
        link_text = _REMOVED if images else text[opening + 1 : match.start()]
        # `opening - images`: the "!" before an image is removed too.
        pieces += [text[end : opening - images], link_text or _REMOVED]
        end = match.end()
        count += 1
    return "".join(pieces) + text[end:], count


def _opening_bracket(text: str, start: int, close: int) -> int:
    """Returns the index of the "[" that the "]" at `close` closes, or -1 if it is before `start`.

    A blank line between the brackets also gives -1.
    """
    paragraph = text.rfind("\n\n", max(start - 1, 0), close)
    start = paragraph + 2 if paragraph >= 0 else start
    depth, end = 1, close
    while (opening := text.rfind("[", start, end)) >= 0:
        depth += text.count("]", opening, end) - 1  # brackets that close between this "[" and `end`
        if not depth:
            return opening
        end = opening
    return -1


def _remove_from_comments(text: str) -> tuple[str, int]:
    """Removes links from the comment lines of source code."""
    count = 0

    def clean_line(match: re.Match[str]) -> str:
        nonlocal count
        line, num_links = _unwrap(match[0], images=False)
        line, num_autolinks = _AUTOLINK.subn(_REMOVED, line)
        line, num_bare = _BARE.subn(_REMOVED, line)
        count += num_links + num_autolinks + num_bare
        return line

    text = _CODE_COMMENT.sub(clean_line, text)
    return _tidy(text), count


def _tidy(text: str) -> str:
    """Removes the remains of removed links: brackets, spaces, and lines with nothing else."""
    if _REMOVED not in text:
        return text
    lines = [_tidy_line(line) if _REMOVED in line else line for line in text.split("\n")]
    return "\n".join([line for line in lines if line is not None])


def _tidy_line(line: str) -> str | None:
    """Tidies a line with removed links; returns None if the whole line is removed."""
    line = _BRACKETED.sub(_REMOVED, line)
    ends_with_link = line.rstrip(" \t.,;)*_|").endswith(_REMOVED)
    line = _POINTER.sub(_REMOVED, line)
    line = _DOUBLED_COMMA.sub(r"\1", line)
    line = re.sub(r"[ \t]*\x00+", "", line)
    label = line.strip(" \t.*_|")
    is_label = ends_with_link and label.endswith(":") and len(label.split()) <= _MAX_LABEL_WORDS
    return None if is_label or not any(map(str.isalnum, label)) else line
