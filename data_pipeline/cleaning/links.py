"""Web links: the address goes, the words that carried it stay (paper, section 2.1).

>>> remove_links("See [the guide](https://a.org/g) or https://a.org/x (www.a.org).", Profile.PROSE)
('See the guide or.', 3)
"""

from __future__ import annotations

import re

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.config import CleaningProfile

# Stands where a link was until its line has been tidied; no normalized text holds a NUL.
_GONE = "\x00"

# What a link has, by a character that it has: to look for one character takes next to no time.
_SIGNS = {":": ("://", "mailto:"), "w": ("www.",), "]": ("](", "]:"), "<": ("<a ", "<img ")}
_FENCED_CODE = re.compile(r"(^[ \t]*(?:```|~~~)[^\n]*\n.*?^[ \t]*(?:```|~~~)[ \t]*$)", re.M | re.S)

# A bare address. Not one in quotes or after "+" or "=": that is program text (git+https://...); and
# not one that leads nowhere, as documentation uses them. Its first letter stands before what looks
# behind it: a search for letters is four times as fast.
_BARE = re.compile(
    r"""[hfwHFW](?<![\w"'`=+/@].)(?i:(?:(?<=h)ttps?|(?<=f)tp)://|(?<=w)ww\.(?=\w))"""
    r"""(?i:(?!(?:[\w.-]+@)?"""
    r"""(?:localhost|127\.0|0\.0\.0|(?:[\w-]+\.)*example\.(?:com|org|net)\b)))"""
    r"""(?:[^\s<>"'`(){}|\\^\[\]\x00]|\([^\s()\x00]*\))*(?<![.,;:!?*_])"""
)
# Of a line: a command or an inline code span keeps its addresses.
_CODE_OR_BARE = re.compile(
    r"^[ \t]*(?:\$|>>>|\.\.\.) [^\n]*|`[^`\n]+`|(?P<link>" + _BARE.pattern + ")"
)
# What follows the words of a Markdown link: (address "title") or (<address>).
_DESTINATION = re.compile(
    r"""\]\(\s*(?:<[^<>\n]*>|(?:[^\s()]|\([^\s()]*\))*)(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)"""
)
_MAX_WORDS = 600  # characters of a link's words
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
# "documented at LINK." and "(see LINK)": the word that pointed at it goes with it
_POINTER = re.compile(
    r"[ \t]+(?:at|from|via|see|visit|here):?[ \t]*\x00+(?=[ \t]*(?:[.,;)\]]|$))", re.I
)
_DOUBLED_COMMA = re.compile(r"([,;:.][\"”’]?)[ \t]*\x00+[ \t]*[,;.]")
_CODE_COMMENT = re.compile(r"^[ \t]*(?:#|//|\*(?!/))[^\n]*?://[^\n]*", re.M)
_MAX_LABEL_WORDS = 4  # "Project home page: https://..." goes as a whole


def remove_links(text: str, profile: CleaningProfile) -> tuple[str, int]:
    """`text` without web addresses, and how many links there were.

    Markdown, reStructuredText, HTML and LaTeX links keep their words; images and badges go; a line
    that was nothing but links and a label goes. Fenced code stays as it is. In code, addresses go
    from comment lines only: in a string literal they are part of the program.
    """
    if not any(sign in text for c, signs in _SIGNS.items() if c in text for sign in signs):
        return text, 0
    if profile is CleaningProfile.CODE:
        return _remove_from_comments(text)
    total = 0
    while True:  # a removed address may leave a link whole that was broken before
        text, count = _remove_outside_code(text)
        total += count
        if not count or "](" not in text:
            return text, total


def _remove_outside_code(text: str) -> tuple[str, int]:
    # prose, code, prose, ...
    pieces = _FENCED_CODE.split(text) if may_have_fences(text) else [text]
    names: set[str] = set()
    if "]:" in text:
        names = {n.casefold() for piece in pieces[::2] for n in _DEFINITION.findall(piece)}
    count = 0
    for i in range(0, len(pieces), 2):
        pieces[i], found = _remove(pieces[i], names)
        count += found
    return "".join(pieces), count


def _remove(text: str, names: set[str]) -> tuple[str, int]:
    """`names`: of the link definitions `[name]: address` of the document, in lower case."""
    count = 0

    def substitute(pattern: re.Pattern[str], by: str) -> None:
        nonlocal text, count
        text, found = pattern.subn(by, text)
        count += found

    if "<a " in text or "<img " in text:
        substitute(_HTML_IMAGE, _GONE)
        substitute(_ANCHOR, r"\1")
    if ".. " in text:
        substitute(_RST_TARGET, _GONE)
        substitute(_RST_IMAGE, _GONE)
    if ">`_" in text:
        substitute(_RST_LINK, r"\1")
    if "<" in text:
        substitute(_AUTOLINK, _GONE)
    if "\\href" in text or "\\url" in text:
        substitute(_LATEX_LINK, r"\1")
        substitute(_LATEX_URL, _GONE)
    if names:
        substitute(_DEFINITION, _GONE)
    if "](" in text or names:
        text, images = _unwrap(text, images=True) if "![" in text else (text, 0)
        substitute(_IMAGE_REFERENCE, _GONE)
        substitute(_EMPTY_REFERENCE, _GONE)  # a badge: an image that was a link
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
    if "`" not in text and "$ " not in text and ">>> " not in text:
        return _BARE.subn(_GONE, text)
    count = 0

    def keep_code(match: re.Match[str]) -> str:
        nonlocal count
        count += match["link"] is not None
        return match[0] if match["link"] is None else _GONE

    lines = text.split("\n")
    for k, line in enumerate(lines):
        if _BARE.search(line):  # a quick look; neither code nor an address goes over a line's end
            lines[k] = _CODE_OR_BARE.sub(keep_code, line)
    return "\n".join(lines), count


def _unwrap(text: str, *, images: bool) -> tuple[str, int]:
    """`![words](address)` goes, or `[words](address)` becomes its words; and how many did.

    Looks back from each "](": looking forward from each "[" is quadratic in texts full of them.
    """
    pieces, end, count = [], 0, 0
    for match in _DESTINATION.finditer(text):
        opening = _opening(text, max(end, match.start() - _MAX_WORDS), match.start())
        if opening < 0:
            continue
        before = text[opening - 1] if opening > end else " "
        if images != (before == "!"):
            continue
        # handlers[name](event) is a call and [0, 1](x) is mathematics: an address has one of these
        address = match[0][2:-1]
        if not images and (before.isalnum() or before in "_)]"):
            continue
        if not images and address and not any(sign in address for sign in "/.#:"):
            continue
        words = _GONE if images else text[opening + 1 : match.start()]
        pieces += [text[end : opening - images], words or _GONE]
        end = match.end()
        count += 1
    return "".join(pieces) + text[end:], count


def _opening(text: str, start: int, close: int) -> int:
    """Where the bracket opens that closes at `close`, or -1 if that is not after `start`."""
    paragraph = text.rfind("\n\n", max(start - 1, 0), close)
    start = paragraph + 2 if paragraph >= 0 else start
    depth, end = 1, close
    while (opening := text.rfind("[", start, end)) >= 0:
        depth += text.count("]", opening, end) - 1
        if not depth:
            return opening
        end = opening
    return -1


def _remove_from_comments(text: str) -> tuple[str, int]:
    count = 0

    def clean_line(match: re.Match[str]) -> str:
        nonlocal count
        line, words = _unwrap(match[0], images=False)
        line, angled = _AUTOLINK.subn(_GONE, line)
        line, bare = _BARE.subn(_GONE, line)
        count += words + angled + bare
        return line

    text = _CODE_COMMENT.sub(clean_line, text)
    return _tidy(text), count


def _tidy(text: str) -> str:
    """Takes away what a removed link leaves: its brackets, its space, and its line if nothing else
    is on it."""
    if _GONE not in text:
        return text
    lines = [_tidy_line(line) if _GONE in line else line for line in text.split("\n")]
    return "\n".join([line for line in lines if line is not None])


def _tidy_line(line: str) -> str | None:
    line = _BRACKETED.sub(_GONE, line)
    ends_with_link = line.rstrip(" \t.,;)*_|").endswith(_GONE)
    line = _POINTER.sub(_GONE, line)
    line = _DOUBLED_COMMA.sub(r"\1", line)
    line = re.sub(r"[ \t]*\x00+", "", line)
    label = line.strip(" \t.*_|")
    is_label = ends_with_link and label.endswith(":") and len(label.split()) <= _MAX_LABEL_WORDS
    return None if is_label or not any(map(str.isalnum, label)) else line
