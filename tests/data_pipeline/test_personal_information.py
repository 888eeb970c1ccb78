from __future__ import annotations

import pytest

from data_pipeline.config import Profile
from data_pipeline.curation.personal_information import (
    is_card_number,
    replace_personal_information,
)

PROSE, CODE = Profile.PROSE, Profile.CODE
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
    ],
)
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
        "std::fmt dead::beef 12:30:45",
    ],
)
def test_numbers_that_only_look_alike_stay(text: str) -> None:
    assert replace_personal_information(text, PROSE) == (text, {})


def test_code_keeps_its_numbers_and_products() -> None:
    code = "y = x@self.w + 202-274-1600 + 4111111111111111\nt = '(202) 274-1600'  # 123-45-6789"
    assert replace_personal_information(code, CODE) == (code, {})
    text, counts = replace_personal_information(f"# by jo@acme.com\nt = '{TOKEN}'", CODE)
    assert (text, counts) == ("# by <EMAIL>\nt = '<SECRET>'", {"email": 1, "secret": 1})


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
