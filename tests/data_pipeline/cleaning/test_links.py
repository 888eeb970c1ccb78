from __future__ import annotations

import pytest

from data_pipeline.cleaning.links import remove_links
from data_pipeline.config import CleaningProfile

PROSE, MARKUP, CODE = CleaningProfile.PROSE, CleaningProfile.MARKUP, CleaningProfile.CODE


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("See [the guide](https://a.org/b_(c)) now.", "See the guide now.", 1),
        ('A [link](http://a.org "with a title") here.', "A link here.", 1),
        ("Read [the *long*\nname](../guide.md#top).", "Read the *long*\nname.", 1),
        ("![diagram](img/a.png)\n\nText.", "\nText.", 1),
        ("[![build](https://ci/x.svg)](https://ci/x) [![v](b.svg)](c.html)\nHi.", "Hi.", 4),
        ("See [RFC 1][rfc] and [rfc].\n\n[rfc]: https://a.org/1", "See RFC 1 and rfc.\n", 1),
        ("More at https://a.org/x?y=1, or www.b.org.", "More, or.", 2),
        ("Docs (see <https://a.org>) are good.", "Docs are good.", 1),
        ("Home page: https://a.org\nText.", "Text.", 1),
        ("- https://a.org\n- b", "- b", 1),
        ('Go <a href="https://a.org">there</a>.', "Go there.", 1),
        ('<img src="a.png" alt="x"> Text.', " Text.", 1),
        (r"See \href{https://a.org}{Kronecker}\url{https://b.org}.", "See Kronecker.", 2),
        ("See `the docs <https://a.org>`_ for it.", "See the docs for it.", 1),
        (".. image:: https://a.org/b.svg\n   :alt: x\n\nText.", "\nText.", 1),
        (".. _docs: https://a.org\n\nText.", "\nText.", 1),
        ("A, https://a.org, B", "A, B", 1),
        ("See HTTP://A.ORG/X, Www.b.org and hTTps://c.d/e.", "See, and.", 3),
        ("See [a [b] c](http://a.org).", "See a [b] c.", 1),
        ("a\n\n[b\nc](http://a.org) d", "a\n\nb\nc d", 1),
        ("[a\n\nb](http://a.org)", "[a\n\nb]", 1),  # a link is in one paragraph
        (
            "`curl a` or\n$ curl http://a.org `\nsee http://b.org, `c` and http://c.org.",
            "`curl a` or\n$ curl http://a.org `\nsee, `c` and.",
            2,
        ),
    ],
)
def test_addresses_go_and_words_stay(text: str, expected: str, count: int) -> None:
    assert remove_links(text, PROSE) == (expected, count)


@pytest.mark.parametrize(
    "text",
    [
        "No link at all: a.b.c, e.g. this, 10:30.",
        "handlers[name](event.type) and f(x)[0, 1](y.z) and [0, 1](2)",
        "```sh\ncurl https://a.org\n```",
        "Run `curl https://a.org` first.",
        "    $ lynx http://a.org/download\n>>> urlopen('https://a.org')",
        'Set url="https://a.org" or git+https://a.org/b.git',
        "Open http://localhost:8000 and https://www.example.com/x in turn.",
        "broken](a.b/c) and [brackets",
        "[Note]: important words that are no address",
    ],
)
def test_program_text_is_kept(text: str) -> None:
    assert remove_links(text, MARKUP) == (text, 0)


def test_in_code_only_comments_lose_their_addresses() -> None:
    code = (
        "# Source: https://a.org/x\n"
        "# By [Ann](https://a.org/ann), 2020\n"
        'URL = "https://a.org/api"  # https://a.org\n'
        "x = a[i](b.c)\n"
    )
    expected = '# By Ann, 2020\nURL = "https://a.org/api"  # https://a.org\nx = a[i](b.c)\n'
    assert remove_links(code, CODE) == (expected, 2)


def test_a_reference_is_resolved_across_a_code_block() -> None:
    text = "See [it][1].\n\n```\nx\n```\n\n[1]: https://a.org"
    assert remove_links(text, PROSE)[0] == "See it.\n\n```\nx\n```\n"


def test_many_brackets_take_linear_time() -> None:
    text = "[" * 20_000 + "x](y.z) " + "](" * 5_000  # quadratic search would take minutes
    assert remove_links(text, PROSE)[1] == 1
