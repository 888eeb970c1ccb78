"""Personal information: what identifies a person or opens a door becomes a typed placeholder.

>>> replace_personal_information("Mail jo@acme.io or call (415) 362-1234.", Profile.PROSE)
('Mail <EMAIL> or call <PHONE>.', {'email': 1, 'phone': 1})

Kept: addresses that name nobody (example.com, private and documentation networks) and numbers that
only look alike (versions, sections, dates). Code loses e-mail addresses, public IP addresses and
secrets, and keeps its numbers. Kinds: email, phone, ip_address, card_number, iban, ssn, secret.

A regular expression that has to try every character reads 50 MB/s, and there are eight of them: so
each kind is searched for only around a cheap sign of it (an "@", a run of digits, a known prefix).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from data_pipeline.cleaning import credentials
from data_pipeline.config import CleaningProfile

Span = tuple[int, int, str]  # start, end, kind

# Letters of any script: internationalised addresses (RFC 6531) are addresses too.
_AFTER_AT = re.compile(r"@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,18})\b>?")
_BEFORE_AT = re.compile(r"<?(?:mailto:)?(?<![\w.+-])\w[\w.+%'-]{0,63}\Z")
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
# jo at acme dot org, jo [at] acme [dot] org; what is in the middle of it is found far quicker
_MIDDLE = re.compile(r"[aA][tT][)\]]? ?[\w-]+ ?[(\[]?[dD][oO][tT]", re.ASCII)
_SPELT_OUT = re.compile(
    r"\b[\w.+-]+ ?(?:[(\[]at[)\]]|\bat\b) ?(?:[\w-]+ ?(?:[(\[]dot[)\]]|\bdot\b) ?)+"
    r"(?:com|org|net|edu|gov|mil|info|io|dev|uk|de|fr|ch|nl|eu|ca|au|jp|cn|ru)\b",
    re.ASCII | re.IGNORECASE,
)

_MIN_DIGITS, _MAX_DIGITS = 7, 15  # of a telephone number (ITU E.164)
_DIGITS = re.compile(r"\d[\d().+ -]{6,}\d")  # a sign of each of the next four
# The same, four times as fast, in bytes of which `_KINDS` makes "0" of each digit, "-" of what may
# stand between digits, "?" of how digits of other scripts begin in UTF-8, and "x" of the others.
_DIGIT_KINDS = re.compile(rb"0[0-]{6,}0")
_OTHER_DIGITS = b"\xd9\xdb\xdf\xe0\xe1\xea\xef\xf0"
_KINDS = bytes(
    ord(
        "0" if c in b"0123456789" else "-" if c in b"().+ -" else "?" if c in _OTHER_DIGITS else "x"
    )
    for c in range(256)
)
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
    r"(?:phone|tel|fax|mobile|cell|tty)(?: number| no)?[.:-]{0,2}\s{0,3}"
    r"((?:[(\[]\+?\d{1,3}[)\]] {0,2})?[+(\[]{0,2})\Z",
    re.IGNORECASE,
)
_CALL_BEFORE = re.compile(r"\bcall(?:ing)?(?: us| me)?(?: at)?:? \Z", re.IGNORECASE)
_CALLED = re.compile(r"1?[ -]?[2-9]\d\d[ -]?[2-9]\d\d[ -]?\d{4}")
# Not one of a row of numbers: a table of years is full of groups of four.
_CARD = re.compile(
    r"(?<![\w.-])(?<!\d )"
    r"(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d\d([ -])\d{6}\2\d{5}|\d{15,16})"
    r"(?![\w-]|\.\d| \d)"
)
_CARD_DIGITS = 15
_CARD_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|5)")
_SSN = re.compile(
    r"(?<![\w.-])(?<![\])] )(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-]|\.\d)"
)
_SSN_BEFORE = re.compile(r"(?:\bSSN|social security (?:number|no\.?))[ :#is]{0,6}\Z", re.IGNORECASE)
_SSN_DIGITS = 9
_INVENTED = 3  # octets of one digit repeated, or of tens
_DOTS = 3  # of an IPv4 address
_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d)")
_VERSION_BEFORE = re.compile(
    r"(?:version|ver|release|build|firmware|driver|kernel|section|sec|chapter|rule|§|\bv)[\s.:=]*\Z",
    re.IGNORECASE,
)
# Public addresses begin with 2000::/3, so that 12:30:45 and dead::beef are never looked at.
_IPV6 = re.compile(
    r"[23](?<![\w:.].)[0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])"
)
_TWO_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_MIN_GROUPS = 3  # of hexadecimal digits

# Length of an IBAN -> countries (ISO 13616, the registry of SWIFT).
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {c: n for n, countries in _IBAN_COUNTRIES.items() for c in countries.split()}
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?=[ A-Z0-9])")
_IBAN_REACH = 44  # characters before the end of a run of digits in which an IBAN may begin


def replace_personal_information(text: str, profile: CleaningProfile) -> tuple[str, dict[str, int]]:
    """`text` with placeholders, and how many of each kind (only kinds that occurred)."""
    found = find(text, profile)
    if not found:
        return text, {}
    counts: dict[str, int] = {}
    pieces, end = [], 0
    for start, stop, kind in found:
        pieces += [text[end:start], f"<{kind.upper()}>"]
        counts[kind] = counts.get(kind, 0) + 1
        end = stop
    return "".join(pieces) + text[end:], dict(sorted(counts.items()))


def find(text: str, profile: CleaningProfile) -> list[Span]:
    """What would be replaced, in order; none overlap."""
    in_code = profile is CleaningProfile.CODE
    secrets = ((start, stop, "secret") for start, stop in credentials.spans(text))
    spans = sorted([*secrets, *_emails(text, in_code), *_numbers(text, in_code), *_ipv6(text)])
    apart: list[Span] = []
    for span in spans:
        if not apart or span[0] >= apart[-1][1]:  # else inside what was already found
            apart.append(span)
    return apart


def is_card_number(digits: str) -> bool:
    """A known issuer's prefix and a right check digit (Luhn, ISO/IEC 7812-1).

    >>> is_card_number("4111 1111 1111 1111"), is_card_number("4111 1111 1111 1112")
    (True, False)
    """
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * number, 10)) for number in numbers[-2::-2]]
    issuer = _CARD_ISSUER.match("".join(map(str, numbers)))
    return issuer is not None and (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


def iban_end(text: str, start: int) -> int:
    """Where the IBAN that begins at `start` ends, or -1 if there is none.

    Its country sets its length; its check digits make it 1 modulo 97, letters read as 10 .. 35
    (ISO 7064). It may be printed in groups of four.

    >>> iban_end("DE89 3704 0044 0532 0130 00.", 0), iban_end("DE88 3704 0044 0532 0130 00", 0)
    (27, -1)
    """
    length = _IBAN_LENGTHS.get(text[start : start + 2], 0)
    characters, end = "", start
    while len(characters) < length and end < len(text):
        if "0" <= text[end] <= "9" or "A" <= text[end] <= "Z":
            characters += text[end]
        elif text[end] != " " or len(characters) % 4:
            return -1
        end += 1
    if not length or len(characters) < length or text[end : end + 1].isalnum():
        return -1
    return (
        end
        if int("".join(str(int(c, 36)) for c in characters[4:] + characters[:4])) % 97 == 1
        else -1
    )


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
    if "dot" in text and (" dot " in text or "(dot)" in text or "[dot]" in text):
        for match in _SPELT_OUT.finditer(text) if _MIDDLE.search(text) else ():
            yield match.start(), match.end(), "email"
    if "<" in text and " at " in text:
        for match in _ANGLED_AT.finditer(text):
            yield match.start(), match.end(), "email"


def _numbers(text: str, in_code: bool) -> Iterator[Span]:
    for start, end in _digit_runs(text):
        found = text[start:end]
        # Two characters more on each side: for "+", "(" and for what must not follow.
        near = max(0, start - 2), min(len(text), end + 2)
        if found.count(".") >= _DOTS:
            for match in _IPV4.finditer(text, *near):
                if _is_public_ipv4(match):
                    yield match.start(), match.end(), "ip_address"
        if in_code:
            continue
        for match in _IBAN_START.finditer(text, max(0, start - _IBAN_REACH), end):
            if (stop := iban_end(text, match.start())) >= 0:
                yield match.start(), stop, "iban"
        yield from _phones(text, start, end)
        if len(found) >= _CARD_DIGITS:
            for match in _CARD.finditer(text, *near):
                if is_card_number(match[0]):
                    yield match.start(), match.end(), "card_number"
        yield from _ssns(text, start, end)


def _digit_runs(text: str) -> Iterator[tuple[int, int]]:
    """Where `_DIGITS` matches."""
    kinds = text.encode().translate(_KINDS)
    if b"?" in kinds:
        return (run.span() for run in _DIGITS.finditer(text))
    if len(kinds) > len(text):  # then a byte for each character
        kinds = text.encode("ascii", "replace").translate(_KINDS)
    return (run.span() for run in _DIGIT_KINDS.finditer(kinds))


def _phones(text: str, start: int, end: int) -> Iterator[Span]:
    """In a run of digits from `start` to `end`."""
    label = _PHONE_BEFORE.search(text, max(0, start - 30), start)
    if label and _MIN_DIGITS <= _digits(label[1] + text[start:end]) <= _MAX_DIGITS:
        yield label.start(1), end, "phone"
    called = _CALLED.match(text, start)
    if called and _CALL_BEFORE.search(text, max(0, start - 20), start):
        yield called.start(), called.end(), "phone"
    for match in _PHONE.finditer(text, max(0, start - 2), min(len(text), end + 2)):
        if _MIN_DIGITS <= _digits(match[0]) <= _MAX_DIGITS:
            yield match.start(), match.end(), "phone"


def _ssns(text: str, start: int, end: int) -> Iterator[Span]:
    labelled = end - start <= _SSN_DIGITS + 2 and _digits(text[start:end]) == _SSN_DIGITS
    if labelled and _SSN_BEFORE.search(text, max(0, start - 30), start):
        yield start, end, "ssn"
    elif text.find("-", start, end) >= 0:
        for match in _SSN.finditer(text, max(0, start - 2), min(len(text), end + 2)):
            yield match.start(), match.end(), "ssn"


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _ipv6(text: str) -> Iterator[Span]:
    if not _TWO_COLONS.search(text):
        return
    for match in _IPV6.finditer(text):
        # "2262::" is an address too, but in a text it is a year
        if len(match[0].replace(":", " ").split()) >= _MIN_GROUPS and _is_public(match[0]):
            yield match.start(), match.end(), "ip_address"


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
        return found.is_global and not found.is_multicast
    except ValueError:
        return False


def _is_public_ipv4(match: re.Match[str]) -> bool:
    """A host on the Internet: versions and sections have small numbers, 99 % of addresses have two
    octets above 31; networks and masks end in 0 or 255."""
    octets = [int(octet) for octet in match[0].split(".")]
    if sum(octet > 31 for octet in octets) < 2 or octets[-1] in (0, 255):
        return False
    if (
        sum(octet % 10 == 0 or (octet > 9 and len(set(str(octet))) == 1) for octet in octets)
        >= _INVENTED
    ):
        return False  # 111.22.33.44 and 100.200.0.1 stand in manuals
    before = match.string[max(0, match.start() - 16) : match.start()]
    return not _VERSION_BEFORE.search(before) and _is_public(match[0])
