from __future__ import annotations

import colorsys
import decimal
import inspect
import ipaddress
import re
import statistics
import sys
from pydoc_data.topics import topics

import pytest

from data_pipeline.cleaning.personal_information import (
    iban_end,
    is_card_number,
    replace_personal_information,
)
from data_pipeline.config import CleaningProfile

PROSE, CODE = CleaningProfile.PROSE, CleaningProfile.CODE
TOKEN = "ghp_" + "a1B2" * 9  # assembled, so that nothing that looks like a token is in this file
AMAZON = "AKIA" + "ABCDEFGH12345678"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIE" * 20 + "\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected", "counts"),
    [
        ("Mail jo.do+x@mail.acme.io!", "Mail <EMAIL>!", {"email": 1}),
        ("Ann <ann@acme.io>, Bo <bo at acme.org>", "Ann <EMAIL>, Bo <EMAIL>", {"email": 2}),
        ("jo (at) acme.org or jo[at]acme.org", "<EMAIL> or <EMAIL>", {"email": 2}),
        ("mailto:jo@acme.io", "<EMAIL>", {"email": 1}),
        ("Call (202) 274-1600 or 1-888-407-4747.", "Call <PHONE> or <PHONE>.", {"phone": 2}),
        ("Call +44 20 7946 0958 now", "Call <PHONE> now", {"phone": 1}),
        ("FAX: [994] 4488-4298", "FAX: <PHONE>", {"phone": 1}),
        ("from 195.54.228.42 - -", "from <IP_ADDRESS> - -", {"ip_address": 1}),
        ("at 2001:4860:4001:801::1011.", "at <IP_ADDRESS>.", {"ip_address": 1}),
        ("card 4111 1111 1111 1111.", "card <CARD_NUMBER>.", {"card_number": 1}),
        ("card 378282246310005", "card <CARD_NUMBER>", {"card_number": 1}),
        ("SSN 123-45-6789", "SSN <SSN>", {"ssn": 1}),
        (f"token {TOKEN} and {AMAZON}", "token <SECRET> and <SECRET>", {"secret": 2}),
        (f"a\n{PRIVATE_KEY}\nb", "a\n<SECRET>\nb", {"secret": 1}),
        (f'api_key = "{TOKEN}"', 'api_key = "<SECRET>"', {"secret": 1}),  # found twice
        ('api_key = "' + "q7" * 16 + '"', 'api_key = "<SECRET>"', {"secret": 1}),
        ("josé.núñez@correo.es, 用户@例子.中国", "<EMAIL>, <EMAIL>", {"email": 2}),
        ("jo at acme dot org or jo[at]acme[dot]co[dot]uk", "<EMAIL> or <EMAIL>", {"email": 2}),
        ("o'brien@acme.io", "<EMAIL>", {"email": 1}),
        ("Please call 18008608747 or call us at 404 639 1075.",
         "Please call <PHONE> or call us at <PHONE>.", {"phone": 2}),
        ("TTY-1-866-411-1010, tel: (+598) 1770-2000", "TTY-<PHONE>, tel: <PHONE>", {"phone": 2}),
        ("Social Security number: 123 45 6789", "Social Security number: <SSN>", {"ssn": 1}),
        ("Pay to DE89 3704 0044 0532 0130 00, please", "Pay to <IBAN>, please", {"iban": 1}),
        ("IBAN:GB82WEST12345698765432.", "IBAN:<IBAN>.", {"iban": 1}),
        ("NO93 8601 1117 947, MT84MALT011000012345MTLCAST001S", "<IBAN>, <IBAN>", {"iban": 2}),
        ("amqp://ann:h4Rd2guess@db.acme.io/x", "amqp://ann:<SECRET>@db.acme.io/x", {"secret": 1}),
    ],
)  # fmt: skip
def test_replaced(text: str, expected: str, counts: dict[str, int]) -> None:
    assert replace_personal_information(text, PROSE) == (expected, counts)
    assert replace_personal_information(expected, PROSE) == (expected, {})  # and stays so


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3.4 of driver 10.36.45.77 and firmware 192.45.67.89 and v72.45.67.89",
        "Rule 34.56.78.90.12, sections 12.10.3.4 and 1.3.6.1.4.1",
        "Listen on 127.0.0.1, 192.168.33.44, 10.99.88.77 or 0.0.0.0; mask 255.255.255.0",
        "Resolvers 8.8.8.8 and 1.1.1.1, network 223.255.254.0, documentation 2001:db8::1",
        "Mail user@example.com, root@localhost or git@github.com:a/b.git",
        "On 2004-05-06 12:30:45, pages 1990-1995, ISBN 978-0-596-00025-1, ISSN 1234-5678",
        "3.14159265358979 and 1,000,000,000 and 1234567890123456 and 4111 1111 1111 1112",
        "CAS 107-21-1, 000-12-3456, 666-12-3456, 900-12-3456, 1-123-45-6789",
        "phone (0) 12, part 555-0100 and $2024-05",
        'key = "' + "ab" * 20 + '"',  # nothing says that it is secret
        "std::fmt dead::beef 12:30:45 and the year 2262:: of Python",
        "DE88 3704 0044 0532 0130 00 and ZZ89370400440532013000 and GB82WEST1234569876543",
        "1990 4506 4543 4111 1111 1111 1111 4667, a row of a table",
        "Multicast to 239.255.12.42, host 111.22.33.44, proxy 40.50.60.5, target 100.200.0.212",
        "arXiv 2112.11446, doi 10.1038/s41586-021-03819-2, RFC 2119, 2024-01-31T12:30:45Z",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "call 911, call 199 97.0 1.5 1.0 0.5, call it 3.14159265",
        "We met at noon dot by dot in the end",
        "https://user:password@host/x mysql://benutzer:passwort@host/x http://a:${PASS}@host",
        "AKIA"
        + "IOSFODNN7EXAMPLE and ghp_"
        + "x" * 36
        + " and sk-learn-is-a-library-for-machine-learning",
        'private_key = "path/to/the/private/key/file" and api_token = "YOUR_API_TOKEN_GOES_HERE"',
    ],
)
def test_numbers_that_only_look_alike_stay(text: str) -> None:
    assert replace_personal_information(text, PROSE) == (text, {})


def test_code_keeps_its_numbers_and_products() -> None:
    code = "y = x@self.w + 202-274-1600 + 4111111111111111\nt = '(202) 274-1600'  # 123-45-6789"
    assert replace_personal_information(code, CODE) == (code, {})
    text, counts = replace_personal_information(f"# by jo@acme.com\nt = '{TOKEN}'", CODE)
    assert (text, counts) == ("# by <EMAIL>\nt = '<SECRET>'", {"email": 1, "secret": 1})


# The parts of tokens in the form of their issuers, joined here so that no scanner takes fright.
MIXED = "aB3" * 40
TOKENS = [
    ("AS" + "IA", "ABCDEFGH12345678"),
    ("AI" + "za", MIXED[:35]),
    ("ya29" + ".", MIXED[:60]),
    ("GOC" + "SPX-", MIXED[:28]),
    ("gho" + "_", MIXED[:36]),
    ("github" + "_pat_", MIXED[:82]),
    ("glpat" + "-", MIXED[:20]),
    ("xox" + "b-", "123456789012-123456789012-" + MIXED[:24]),
    ("sk_" + "live_", MIXED[:24]),
    ("sk-" + "proj-", MIXED[:48]),
    ("sk-" + "ant-api03-", MIXED[:93] + "AA"),
    ("hf" + "_", MIXED[:34]),
    ("npm" + "_", MIXED[:36]),
    ("pypi" + "-AgE", MIXED[:80]),
    ("SG" + ".", MIXED[:22] + "." + MIXED[:43]),
    ("dop" + "_v1_", "0a" * 32),
    ("hvs" + ".", MIXED[:24]),
    ("ey" + "J", MIXED[:17] + ".eyJ" + MIXED[:30] + "." + MIXED[:43]),
    ("Account" + "Key=", MIXED[:86] + "=="),
    ("12345678" + "90:AA", MIXED[:33]),
]


@pytest.mark.parametrize("token", TOKENS, ids=[sign.rstrip("-_.=") for sign, _ in TOKENS])
def test_tokens_of_many_issuers(token: tuple[str, str]) -> None:
    whole = "".join(token)
    for profile in (PROSE, CODE):
        for text in (f"use {whole} here", f"TOKEN='{whole}'", f"é\n{whole}\n", whole):
            expected = text.replace(whole, "<SECRET>")
            assert replace_personal_information(text, profile) == (expected, {"secret": 1})
        short = f"use {whole[:-9].rstrip('=')} here"  # cut: not the form of the issuer
        if token[1][:1] != "1" and not whole.startswith(
            ("ya29", "github", "xox", "sk-", "pypi", "ey")
        ):
            assert replace_personal_information(short, profile) == (short, {})


@pytest.mark.parametrize("kind", ["RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY",
                                  "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK"])  # fmt: skip
def test_private_keys(kind: str) -> None:
    text = f"a\n-----BEGIN {kind}-----\n" + "MIIE\n" * 20 + f"-----END {kind}-----\nb"
    assert replace_personal_information(text, CODE) == ("a\n<SECRET>\nb", {"secret": 1})
    public = text.replace("PRIVATE", "PUBLIC")
    assert replace_personal_information(public, CODE) == (public, {})


@pytest.mark.parametrize(
    "before", ["AWS_SECRET_ACCESS_KEY=", "export API_TOKEN=", "Authorization: Bearer "]
)
def test_a_key_without_a_format_is_recognized_by_its_label(before: str) -> None:
    key = "wJalrXUtnFEMIK7MDENGbPxRfiCYab12cd34"
    assert replace_personal_information(before + key, CODE) == (f"{before}<SECRET>", {"secret": 1})
    assert replace_personal_information(f"the hash {key}", CODE) == (f"the hash {key}", {})


def test_iban_check_digits() -> None:
    iban = "FR1420041010050500013M02606"
    assert iban_end(iban, 0) == len(iban)
    for position in range(2, len(iban)):  # any one digit changed is wrong
        if iban[position].isdigit():
            other = str((int(iban[position]) + 1) % 10)
            assert iban_end(iban[:position] + other + iban[position + 1 :], 0) == -1
    assert iban_end(iban[:-1], 0) == iban_end(iban + "7", 0) == -1
    assert iban_end("FR14 2004 1010 0505 0001 3M02 606", 0) == 33
    assert iban_end("FR142 0041010050500013M02606", 0) == -1  # spaces stand between groups of four


def test_real_text_without_personal_information_stays() -> None:
    """Code points, versions, grammar: the language reference, and mathematics of the library."""
    for name in sorted(topics):
        assert replace_personal_information(topics[name], PROSE)[1] == {}, name
    for module in (decimal, colorsys, statistics, ipaddress):
        # Networks, of which Python 3.13 lists public ones, are not addresses of a person.
        source = re.sub(r"'[0-9a-f:.]+/\d+'", "''", inspect.getsource(module))
        assert replace_personal_information(source, CODE)[1] == {}, module.__name__


def test_digits_of_every_script_are_digits() -> None:
    scripts = [c for c in map(chr, range(128, sys.maxunicode + 1)) if c.isdecimal()]
    assert len(scripts) > 600
    for digit in scripts:
        found = replace_personal_information(f"“Fax”: fax {digit * 9}.", PROSE)
        assert found == ("“Fax”: fax <PHONE>.", {"phone": 1}), digit


def test_numbers_are_found_behind_characters_of_any_length() -> None:
    text = "Ça – 日本 \U0001f407?! {} é {}"
    numbers, kinds = ("(415) 362-1234", "84.113.55.210"), ("<PHONE>", "<IP_ADDRESS>")
    assert replace_personal_information(text.format(*numbers), PROSE)[0] == text.format(*kinds)
    text = text.replace("\U0001f407", "")  # of which some scripts' digits have the first byte
    assert replace_personal_information(text.format(*numbers), PROSE)[0] == text.format(*kinds)


def test_luhn() -> None:
    # test numbers that the card networks publish
    for number in (
        "4242424242424242",
        "5555 5555 5555 4444",
        "378282246310005",
        "6011000990139424",
    ):
        assert is_card_number(number)
        for step in range(1, 10):  # any other check digit is wrong
            assert not is_card_number(number[:-1] + str((int(number[-1]) + step) % 10))
    assert not is_card_number("9999 9999 9999 9995")  # right digit, no issuer
