from __future__ import annotations

import unicodedata

import pytest

from data_pipeline.cleaning.normalize import normalize
from data_pipeline.config import CleaningProfile

PROSE, CODE = CleaningProfile.PROSE, CleaningProfile.CODE


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It\u00e2\u20ac\u2122s na\u00c3\u00afve.", "It\u2019s na\u00efve."),  # mojibake
        ("cafe\u0301", "caf\u00e9"),  # composed
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        ("a\u00a0b\u3000c\u00ad\u200b\ufeffd", "a b cd"),
        ("\ufb01ve \ufb02ags", "five flags"),
        ("NUL\x00 bell\x07 \x1b[31mred\x1b[0m", "NUL bell red"),
        ("a pair \ud83d\ude00", "a pair \U0001f600"),
        ("half \ud83d a pair", "half \ufffd a pair"),
        ("\x93quoted\x94", "\u201cquoted\u201d"),  # Windows-1252 read as Latin-1
        ("a  \nb\t\n\n\n\nc\n", "a\nb\n\nc"),
        ("Tom &amp;amp; Ann&nbsp;&#8217;s", "Tom & Ann \u2019s"),
        (
            "<b>a &lt; b &#8217;</b>",
            "<b>a &lt; b \u2019</b>",
        ),  # about HTML: what it escapes is meant
        ("\u201cquotes\u201d \u2013 and dashes", "\u201cquotes\u201d \u2013 and dashes"),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467", None),  # its joiners stay
    ],
)
def test_prose(raw: str, clean: str | None) -> None:
    assert normalize(raw, PROSE) == (raw if clean is None else clean)


def test_code_keeps_its_layout() -> None:
    code = '    x = "&amp;"\n\n\ndef f():\n\treturn 1'
    assert normalize(code + "  \n\n", CODE) == code
    assert normalize("a\n\n\n\n\nb", CODE) == "a\n\n\nb"
    assert normalize("a\n\n\n\n\nb", PROSE) == "a\n\nb"


def test_normalized_text_is_valid_and_composed() -> None:
    everything = "".join(
        map(chr, [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFB00, 0x10000)])
    )
    for profile in CleaningProfile:
        text = normalize(everything, profile)
        text.encode()
        assert unicodedata.is_normalized("NFC", text)
        assert "\x00" not in text and "\r" not in text
        assert normalize(text, profile) == text
