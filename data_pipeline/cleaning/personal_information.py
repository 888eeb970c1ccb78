"""Replacement of personal identifiers and credentials with typed placeholders such as <EMAIL>.

>>> text = "Mail jo@acme.io or call (415) 362-1234."
>>> replace_personal_information(text, CleaningProfile.PROSE)
('Mail <EMAIL> or call <PHONE>.', {'email': 1, 'phone': 1})

Kinds: email, phone, ip_address, card_number, iban, ssn, secret. In code only e-mail addresses,
public IP addresses and secrets are replaced. Addresses that identify nobody (example.com, private
and documentation networks) are kept, and so are numbers of a similar form (versions, sections,
dates).

Speed: a regular expression that has to try every character processes 50 MB per second, and there
are eight of them. Each kind is therefore searched for only around a cheap sign of it: an "@", a run
of digits, a known prefix.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from data_pipeline.cleaning import credentials
from data_pipeline.config import CleaningProfile

Span = tuple[int, int, str]  # start, end, kind

# Letters of any script, because of internationalized addresses (RFC 6531).
_AFTER_AT = re.compile(r"@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,18})\b>?")
_BEFORE_AT = re.compile(r"<?(?:mailto:)?(?<![\w.+-])\w[\w.+%'-]{0,63}\Z")
_PLACEHOLDER_DOMAIN = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|localdomain)$"
)
# In code `a@b.c` may be a matrix product of attributes, so only these domains are addresses there.
_CODE_DOMAIN = re.compile(
    r"\.(?:com|org|net|edu|gov|mil|info|io|dev|de|uk|fr|jp|cn|ru|ch|nl|se|ca|au|br|pl|cz|[a-z]{2}\.[a-z]{2})$"
)
# jo (at) acme.org, and <jo at acme.org> as in archives of mailing lists
_BRACKETED_AT = re.compile(r"[(\[<]at[)\]>] ?[\w-]+(?:\.[\w-]+)+", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9_][\w.+-]{0,63} ?\Z", re.ASCII)
_ANGLED_AT = re.compile(r"<[\w.+-]+ at [\w-]+(?:\.[\w-]+)+>", re.ASCII)
# jo at acme dot org, jo [at] acme [dot] org. Its middle part is a far faster first test.
_MIDDLE = re.compile(r"[aA][tT][)\]]? ?[\w-]+ ?[(\[]?[dD][oO][tT]", re.ASCII)
_SPELLED_OUT = re.compile(
    r"\b[\w.+-]+ ?(?:[(\[]at[)\]]|\bat\b) ?(?:[\w-]+ ?(?:[(\[]dot[)\]]|\bdot\b) ?)+"
    r"(?:com|org|net|edu|gov|mil|info|io|dev|uk|de|fr|ch|nl|eu|ca|au|jp|cn|ru)\b",
    re.ASCII | re.IGNORECASE,
)

_MIN_DIGITS, _MAX_DIGITS = 7, 15  # of a telephone number (ITU E.164)
_DIGITS = re.compile(r"\d[\d().+ -]{6,}\d")  # a sign of a phone, card, social security or IP number
# The same search on bytes, four times as fast. `_BYTE_CLASSES` translates each byte to its class:
# "0" digits, "-" separators between digits, "?" the first bytes in UTF-8 of digits of other
# scripts, "x" all others.
_DIGIT_CLASSES = re.compile(rb"0[0-]{6,}0")
_OTHER_DIGITS = b"\xd9\xdb\xdf\xe0\xe1\xea\xef\xf0"
_BYTE_CLASSES = bytes(
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
# Numbers in other layouts are telephone numbers after such a label: "FAX: [994] 4488-4298".
_PHONE_BEFORE = re.compile(
    r"(?:phone|tel|fax|mobile|cell|tty)(?: number| no)?[.:-]{0,2}\s{0,3}"
    r"((?:[(\[]\+?\d{1,3}[)\]] {0,2})?[+(\[]{0,2})\Z",
    re.IGNORECASE,
)
_CALL_BEFORE = re.compile(r"\bcall(?:ing)?(?: us| me)?(?: at)?:? \Z", re.IGNORECASE)
_NUMBER_AFTER_CALL = re.compile(r"1?[ -]?[2-9]\d\d[ -]?[2-9]\d\d[ -]?\d{4}")
# A number next to other numbers does not match: a table of years has many groups of four digits.
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
_MIN_ROUND_OCTETS = 3  # multiples of ten or repetitions of one digit, in an invented address
_DOTS = 3  # of an IPv4 address
_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d)")
_VERSION_BEFORE = re.compile(
    r"(?:version|ver|release|build|firmware|driver|kernel|section|sec|chapter|rule|§|\bv)[\s.:=]*\Z",
    re.IGNORECASE,
)
# Public addresses are in 2000::/3, so 12:30:45 and dead::beef do not match.
_IPV6 = re.compile(
    r"[23](?<![\w:.].)[0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])"
)
_TWO_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_MIN_GROUPS = 3  # of hexadecimal digits

# Length of an IBAN in characters -> countries (ISO 13616, the registry of SWIFT).
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
_MAX_IBAN_PREFIX = 44  # characters before a run of digits in which its IBAN can begin


def replace_personal_information(text: str, profile: CleaningProfile) -> tuple[str, dict[str, int]]:
    """Replaces personal information; returns the text and the number of replacements by kind."""
    spans = find(text, profile)
    if not spans:
        return text, {}
    counts: dict[str, int] = {}
    pieces, end = [], 0
    for start, stop, kind in spans:
        pieces += [text[end:start], f"<{kind.upper()}>"]
        counts[kind] = counts.get(kind, 0) + 1
        end = stop
    return "".join(pieces) + text[end:], dict(sorted(counts.items()))


def find(text: str, profile: CleaningProfile) -> list[Span]:
    """Returns the spans that would be replaced, in text order and without overlap."""
    in_code = profile is CleaningProfile.CODE
    secrets = ((start, stop, "secret") for start, stop in credentials.spans(text))
    spans = sorted([*secrets, *_emails(text, in_code), *_numbers(text, in_code), *_ipv6(text)])
    disjoint: list[Span] = []
    for span in spans:
        if not disjoint or span[0] >= disjoint[-1][1]:  # of overlapping spans the first is used
            disjoint.append(span)
    return disjoint


def is_card_number(digits: str) -> bool:
    """Checks the issuer's prefix and the check digit of a card number (Luhn, ISO/IEC 7812-1).

    >>> is_card_number("4111 1111 1111 1111"), is_card_number("4111 1111 1111 1112")
    (True, False)
    """
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    # Luhn: every second digit from the right is doubled, and the digits of the result are added.
    doubled = [sum(divmod(2 * number, 10)) for number in numbers[-2::-2]]
    issuer = _CARD_ISSUER.match("".join(map(str, numbers)))
    return issuer is not None and (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


def iban_end(text: str, start: int) -> int:
    """Returns the end of the IBAN that begins at `start`, or -1 if there is none.

    The country determines the length. The check digits make the number equal to 1 modulo 97, with
    letters read as 10 .. 35 (ISO 7064). The characters may be printed in groups of four.

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
    # The country and the check digits are moved to the end before the division (ISO 13616).
    number = int("".join(str(int(c, 36)) for c in characters[4:] + characters[:4]))
    return end if number % 97 == 1 else -1


def _emails(text: str, in_code: bool) -> Iterator[Span]:
    """Yields e-mail addresses, also spelled with "at" and "dot"; may overlap."""
    for domain in _AFTER_AT.finditer(text) if "@" in text else ():
        local = _BEFORE_AT.search(text, max(0, domain.start() - 80), domain.start())
        if local is None or local[0] == "git" or _PLACEHOLDER_DOMAIN.search(domain[1].lower()):
            continue
        if in_code and not _CODE_DOMAIN.search(domain[1].lower()):
            continue
        # The brackets of <jo@acme.io> are replaced too, but only as a pair.
        opened, closed = local[0].startswith("<"), domain[0].endswith(">")
        start = local.start() + (opened and not closed)
        yield start, domain.end() - (closed and not opened), "email"
    if "(at)" in text or "[at]" in text or "<at>" in text:
        for domain in _BRACKETED_AT.finditer(text):
            if local := _LOCAL_PART.search(text, max(0, domain.start() - 66), domain.start()):
                yield local.start(), domain.end(), "email"
    if "dot" in text and (" dot " in text or "(dot)" in text or "[dot]" in text):
        for match in _SPELLED_OUT.finditer(text) if _MIDDLE.search(text) else ():
            yield match.start(), match.end(), "email"
    if "<" in text and " at " in text:
        for match in _ANGLED_AT.finditer(text):
            yield match.start(), match.end(), "email"


def _numbers(text: str, in_code: bool) -> Iterator[Span]:
    """Yields IPv4 addresses and, outside code, IBANs, phone, card and social security numbers."""
    for start, end in _digit_runs(text):
        run = text[start:end]
        # Two more characters on each side: for "+" and "(", and for the patterns' lookahead.
        window = max(0, start - 2), min(len(text), end + 2)
        if run.count(".") >= _DOTS:
            for match in _IPV4.finditer(text, *window):
                if _is_public_ipv4(match):
                    yield match.start(), match.end(), "ip_address"
        if in_code:
            continue
        for match in _IBAN_START.finditer(text, max(0, start - _MAX_IBAN_PREFIX), end):
            if (stop := iban_end(text, match.start())) >= 0:
                yield match.start(), stop, "iban"
        yield from _phones(text, start, end)
        if len(run) >= _CARD_DIGITS:
            for match in _CARD.finditer(text, *window):
                if is_card_number(match[0]):
                    yield match.start(), match.end(), "card_number"
        yield from _ssns(text, start, end)


def _digit_runs(text: str) -> Iterator[tuple[int, int]]:
    """Yields the spans of `_DIGITS` in the text, by a faster search on bytes if possible."""
    classes = text.encode().translate(_BYTE_CLASSES)
    if b"?" in classes:  # the text may contain digits of other scripts
        return (run.span() for run in _DIGITS.finditer(text))
    if len(classes) > len(text):  # not ASCII: encode again with one byte per character
        classes = text.encode("ascii", "replace").translate(_BYTE_CLASSES)
    return (run.span() for run in _DIGIT_CLASSES.finditer(classes))


def _phones(text: str, start: int, end: int) -> Iterator[Span]:
    """Yields telephone numbers in the run of digits `text[start:end]`; may overlap."""
    label = _PHONE_BEFORE.search(text, max(0, start - 30), start)
    if label and _MIN_DIGITS <= _digits(label[1] + text[start:end]) <= _MAX_DIGITS:
        yield label.start(1), end, "phone"
    number = _NUMBER_AFTER_CALL.match(text, start)
    if number and _CALL_BEFORE.search(text, max(0, start - 20), start):
        yield number.start(), number.end(), "phone"
    for match in _PHONE.finditer(text, max(0, start - 2), min(len(text), end + 2)):
        if _MIN_DIGITS <= _digits(match[0]) <= _MAX_DIGITS:
            yield match.start(), match.end(), "phone"


def _ssns(text: str, start: int, end: int) -> Iterator[Span]:
    """Yields US social security numbers in the run of digits `text[start:end]`."""
    # Nine digits in any layout count after a label; without one the layout has to be 123-45-6789.
    is_candidate = end - start <= _SSN_DIGITS + 2 and _digits(text[start:end]) == _SSN_DIGITS
    if is_candidate and _SSN_BEFORE.search(text, max(0, start - 30), start):
        yield start, end, "ssn"
    elif text.find("-", start, end) >= 0:
        for match in _SSN.finditer(text, max(0, start - 2), min(len(text), end + 2)):
            yield match.start(), match.end(), "ssn"


def _digits(text: str) -> int:
    """Returns the number of digits in a text."""
    return sum(map(str.isdigit, text))


def _ipv6(text: str) -> Iterator[Span]:
    """Yields public IPv6 addresses."""
    if not _TWO_COLONS.search(text):
        return
    for match in _IPV6.finditer(text):
        # "2262::" is a valid address too, but in a text it is a year.
        if len(match[0].replace(":", " ").split()) >= _MIN_GROUPS and _is_public(match[0]):
            yield match.start(), match.end(), "ip_address"


def _is_public(address: str) -> bool:
    """Returns whether an address is valid and belongs to a host on the public Internet."""
    try:
        parsed = ipaddress.ip_address(address)
        return parsed.is_global and not parsed.is_multicast
    except ValueError:
        return False


def _is_public_ipv4(match: re.Match[str]) -> bool:
    """Returns whether four numbers are the address of a public host, and not a version or section.

    Versions and sections have small numbers, while 99 % of addresses have two octets above 31.
    Networks and masks end in 0 or 255.
    """
    octets = [int(octet) for octet in match[0].split(".")]
    if sum(octet > 31 for octet in octets) < 2 or octets[-1] in (0, 255):
        return False
    if (
        sum(octet % 10 == 0 or (octet > 9 and len(set(str(octet))) == 1) for octet in octets)
        >= _MIN_ROUND_OCTETS
    ):
        return False  # 111.22.33.44 and 100.200.0.1 are examples in manuals
    before = match.string[max(0, match.start() - 16) : match.start()]
    return not _VERSION_BEFORE.search(before) and _is_public(match[0])
