"""What is kept of a page, and in which encoding it is read."""

import codecs
import doctest

import pytest

from data_pipeline.reading import html
from data_pipeline.reading.html import NoMainTextError, decode, main_text

PAGE = """<!DOCTYPE html><html><head><title>Hares</title><style>p {color: red}</style></head><body>
<nav><ul><li><a href="/">Home page</a></li><li><a href="/about">The authors</a></li></ul></nav>
<main><h1>How hares run</h1>
<p>Hares live in open fields, where they outrun foxes; see <a href="http://x.y/z">the book</a> by
two of the people who have watched them at night for many years, in snow and rain.</p>
<pre><code class="language-python">def run(hare):
    for leg in hare.legs:  # all of them
        leg.move(a_b * c[0] &lt; 2)
</code></pre>
<p>Speeds are in kilometres an hour, over level ground and short distances; x_1 &lt; x_2 [sic] holds
for <code>x_1</code> as it does for all the others that were measured in the same summer.</p>
<table><tr><th>Animal</th><th>Speed</th></tr><tr><td>Hare</td><td>70</td></tr></table>
<ul><li>the first point</li><li>the second point</li></ul>
<script>track("visitor")</script></main>
<footer>Copyright. <a href="/privacy">Privacy policy</a></footer></body></html>"""


def test_the_main_text_keeps_headings_code_tables_and_lists():
    text = main_text(PAGE)
    assert text.startswith("# How hares run\n")
    assert (
        "```\ndef run(hare):\n    for leg in hare.legs:  # all of them\n"
        "        leg.move(a_b * c[0] < 2)\n```" in text
    )
    assert "| Hare | 70 |" in text
    assert "- the first point\n- the second point" in text
    assert "see the book by" in text


def test_text_around_the_main_text_is_removed():
    text = main_text(PAGE)
    for gone in ("Home page", "Privacy", "track(", "color", "http://"):
        assert gone not in text


def test_signs_are_not_escaped():
    assert "x_1 < x_2 [sic] holds" in main_text(PAGE)
    assert "`x_1`" in main_text(PAGE)


@pytest.mark.parametrize(
    "page", ["<html></html>", "<body><nav><a href='/'></a></nav></body>", "<p> </p>"]
)
def test_a_page_without_main_text_raises(page):
    with pytest.raises(NoMainTextError):
        main_text(page)


@pytest.mark.parametrize(
    ("declaration", "encoding", "word"),
    [
        ("<meta charset=utf-8>", "utf-8", "Häsin 兎"),
        ('<META CHARSET="Windows-1251">', "cp1251", "заяц"),
        ("<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>", "koi8-r", "заяц"),
        ("<html><meta name=a><meta charset='Shift_JIS'>", "shift_jis", "野兎"),
        ('<?xml version="1.0" encoding="ISO-8859-2"?>', "iso8859-2", "zając"),
        ("<meta charset=iso-8859-1>", "cp1252", "“Häsin” €"),  # as browsers do
        ("<meta charset=utf-16>", "utf-8", "Häsin"),  # which it cannot be: it was read as ASCII
        ("<meta charset=no-such-thing>", "utf-8", "Häsin"),
        ("<meta charset=undefined>", "utf-8", "Häsin"),
        ("<meta charset=rot13>", "utf-8", "Häsin"),
        ("<meta charset=ascii>" + " " * 2000 + "<meta charset=cp1251>", "cp1252", "Häsin"),
        ("", "utf-8", "Häsin"),
    ],
)
def test_declared_encodings(declaration, encoding, word):
    page = f"{declaration}<p>{word}</p>"
    assert decode(page.encode(encoding)) == page


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_a_byte_order_mark_goes_before_a_declaration(mark, encoding):
    page = "<meta charset=cp1251><p>Häsin</p>"
    assert decode(mark + page.encode(encoding)) == page


@pytest.mark.parametrize("page", [b"<p>caf\xe9</p>", b"<meta charset=utf-8><p>caf\xe9</p>"])
def test_invalid_encodings_raise(page):
    with pytest.raises(UnicodeDecodeError):
        decode(page)


def test_an_xml_declaration_does_not_stop_the_extraction():
    page = b'<?xml version="1.0" encoding="utf-8"?><html><body><p>Hares run.</p></body></html>'
    assert main_text(decode(page)) == "Hares run."


def test_examples_in_docstrings():
    assert doctest.testmod(html).failed == 0
