"""Personal information: what identifies a person or opens a door becomes a typed placeholder.

>>> replace_personal_information("Mail jo@acme.io or call (415) 362-1234.", Profile.PROSE)
('Mail <EMAIL> or call <PHONE>.', {'email': 1, 'phone': 1})

Kept: addresses that name nobody (example.com, private and documentation networks) and numbers that
only look alike (versions, sections, dates). Code loses e-mail addresses, public IP addresses and
secrets, and keeps its numbers.

A regular expression that has to try every character reads 50 MB/s, and there are eight of them: so
each kind is searched for only around a cheap sign of it (an "@", a run of digits, a known prefix).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from data_pipeline.config import Profile

Span = tuple[int, int, str]  # start, end, kind

_AFTER_AT = re.compile(r"@((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,18})\b>?", re.ASCII)
_BEFORE_AT = re.compile(
    r"<?(?:mailto:)?(?<![A-Za-z0-9.+-])[A-Za-z0-9_][A-Za-z0-9_.+%-]{0,63}\Z", re.ASCII
)
_NOBODY = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|localdomain)$"
)
# In code `a@b.c` may be a matrix product of attributes: only these endings are addresses there.
_CODE_DOMAIN = re.compile(
    r"\.(?:com|org|net|edu|gov|mil|info|io|dev|de|uk|fr|jp|cn|ru|ch|nl|se|ca|au|br|pl|cz|[a-z]{2}\.[a-z]{2})$"
)
# jo (at) acme.org, and <jo at acme.org> as in mailing list archives
_BRACKETED_AT = re.compile(r"[(\[<]at[)\]>] ?[\w-]+(?:\.[\w-]+)+", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9_][\w.+-]{0,63} ?\Z", re.ASCII)
_ANGLED_AT = re.compile(r"<[\w.+-]+ at [\w-]+(?:\.[\w-]+)+>", re.ASCII)

_MIN_DIGITS, _MAX_DIGITS = 7, 15  # of a telephone number (ITU E.164)
_DIGITS = re.compile(r"\d[\d().+ -]{6,}\d")  # a sign of each of the next four
# North American (area and exchange begin with 2 to 9) and international numbers with a plus sign.
_PHONE = re.compile(
    r"(?<![\w.$+/=-])(?:"
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"
    r"|\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]\d{2,4}){2,4}"
    r"|\+[1-9]\d{9,13}"
    r")(?![\w/=]|[.-]\d)"
)
# Other layouts are telephone numbers where the text says so: "FAX: [994] 4488-4298".
_PHONE_BEFORE = re.compile(
    r"(?:phone|tel|fax|mobile|cell)(?: number| no)?[.:]{0,2}\s{0,3}((?:\[\d{1,3}\] ?)?[+(\[]?)\Z",
    re.IGNORECASE,
)
_CARD = re.compile(
    r"(?<![\w.-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5}|\d{15,16})"
    r"(?![\w-]|\.\d)"
)
_CARD_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|5)")
_SSN = re.compile(
    r"(?<![\w.-])(?<![\])] )(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-]|\.\d)"
)
_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d)")
_VERSION_BEFORE = re.compile(
    r"(?:version|ver|release|build|firmware|driver|kernel|section|sec|chapter|rule|§|\bv)[\s.:=]*\Z",
    re.IGNORECASE,
)
# Public addresses begin with 2000::/3, so that 12:30:45 and dead::beef are never looked at.
_IPV6 = re.compile(
    r"[23](?<![\w:.].)[0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])"
)

_SECRET_SIGNS = ("PRIVATE KEY-----", "AKIA", "ASIA", "AIza", "eyJ", "glpat-", "sk-", "xox")
_UNDERSCORED_SIGNS = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("k_live_", "hf_", "npm_"),
)
_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{40,8000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\b(?:"
    r"A(?:KIA|SIA)[0-9A-Z]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[\w-]{20}"  # GitHub, GitLab
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|[sr]k_live_[A-Za-z0-9]{20,}|hf_[A-Za-z]{34}"
    r"|AIza[\w-]{35}|xox[abprs]-[A-Za-z0-9-]{20,}|npm_[A-Za-z0-9]{36}"  # Google, Slack, npm
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # JSON web token
    r")(?![\w-])"
)
_LONG_LITERAL = re.compile(r"""["']([A-Za-z0-9+/_=-]{24,})["']""")
_KEY_BEFORE = re.compile(
    r"""(?:api|access|auth|secret|private)[_-]?(?:key|token)["']?\s*[:=]\s*\Z""", re.IGNORECASE
)


def replace_personal_information(text: str, profile: Profile) -> tuple[str, dict[str, int]]:
    """`text` with placeholders, and how many of each kind (only kinds that occurred)."""
    in_code = profile is Profile.CODE
    spans = [*_secrets(text), *_emails(text, in_code), *_numbers(text, in_code), *_ipv6(text)]
    if not spans:
        return text, {}
    counts: dict[str, int] = {}
    pieces, end = [], 0
    for start, stop, kind in sorted(spans):
        if start < end:
            continue  # inside what was already replaced
        pieces += [text[end:start], f"<{kind.upper()}>"]
        counts[kind] = counts.get(kind, 0) + 1
        end = stop
    return "".join(pieces) + text[end:], dict(sorted(counts.items()))


def is_card_number(digits: str) -> bool:
    """A known issuer's prefix and a right check digit (Luhn, ISO/IEC 7812-1).

    >>> is_card_number("4111 1111 1111 1111"), is_card_number("4111 1111 1111 1112")
    (True, False)
    """
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * number, 10)) for number in numbers[-2::-2]]
    issuer = _CARD_ISSUER.match("".join(map(str, numbers)))
    return issuer is not None and (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


def _secrets(text: str) -> Iterator[Span]:
    signs = (*_SECRET_SIGNS, *_UNDERSCORED_SIGNS) if "_" in text else _SECRET_SIGNS
    if any(sign in text for sign in signs):
        for match in _SECRET.finditer(text):
            yield match.start(), match.end(), "secret"
    names_keys = any(part in text for part in ("key", "Key", "KEY", "oken", "OKEN"))
    for match in _LONG_LITERAL.finditer(text) if names_keys else ():
        if _KEY_BEFORE.search(text, max(0, match.start() - 30), match.start()):
            yield match.start(1), match.end(1), "secret"


def _emails(text: str, in_code: bool) -> Iterator[Span]:
    for domain in _AFTER_AT.finditer(text) if "@" in text else ():
        local = _BEFORE_AT.search(text, max(0, domain.start() - 80), domain.start())
        if local is None or local[0] == "git" or _NOBODY.search(domain[1].lower()):
            continue
        if in_code and not _CODE_DOMAIN.search(domain[1].lower()):
            continue
        opened, closed = local[0].startswith("<"), domain[0].endswith(">")  # <jo@acme.io>
        start = local.start() + (opened and not closed)
        yield start, domain.end() - (closed and not opened), "email"
    if "(at)" in text or "[at]" in text or "<at>" in text:
        for domain in _BRACKETED_AT.finditer(text):
            if local := _LOCAL_PART.search(text, max(0, domain.start() - 66), domain.start()):
                yield local.start(), domain.end(), "email"
    if "<" in text and " at " in text:
        for match in _ANGLED_AT.finditer(text):
            yield match.start(), match.end(), "email"


def _numbers(text: str, in_code: bool) -> Iterator[Span]:
    for run in _DIGITS.finditer(text):
        # Two characters more on each side: for "+", "(" and for what must not follow.
        near = max(0, run.start() - 2), min(len(text), run.end() + 2)
        for match in _IPV4.finditer(text, *near):
            if _is_public_ipv4(match):
                yield match.start(), match.end(), "ip_address"
        if in_code:
            continue
        label = _PHONE_BEFORE.search(text, max(0, run.start() - 30), run.start())
        if label and _MIN_DIGITS <= sum(map(str.isdigit, run[0])) <= _MAX_DIGITS:
            yield label.start(1), run.end(), "phone"
        for match in _PHONE.finditer(text, *near):
            if _MIN_DIGITS <= sum(map(str.isdigit, match[0])) <= _MAX_DIGITS:
                yield match.start(), match.end(), "phone"
        for match in _CARD.finditer(text, *near):
            if is_card_number(match[0]):
                yield match.start(), match.end(), "card_number"
        for match in _SSN.finditer(text, *near):
            yield match.start(), match.end(), "ssn"


def _ipv6(text: str) -> Iterator[Span]:
    for match in _IPV6.finditer(text):
        if _is_public(match[0]):
            yield match.start(), match.end(), "ip_address"


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_public_ipv4(match: re.Match[str]) -> bool:
    """A host on the Internet: versions and sections have small numbers, 99 % of addresses have two
    octets above 31; networks and masks end in 0 or 255."""
    octets = [int(octet) for octet in match[0].split(".")]
    if sum(octet > 31 for octet in octets) < 2 or octets[-1] in (0, 255):
        return False
    before = match.string[max(0, match.start() - 16) : match.start()]
    return not _VERSION_BEFORE.search(before) and _is_public(match[0])
