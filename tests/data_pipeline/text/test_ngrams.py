"""The vectorized hashes are those of a plain definition, on any text and in any company."""

import random
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pytest
import xxhash

from data_pipeline.text.ngrams import batches, excerpt, ngrams, ngrams_at, words
from tests.builders import python_output

MASK = (1 << 64) - 1


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def plain_words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    text = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return re.findall(r"[^\W_]+", text)


def word_hash(word: str) -> int:
    data = word.encode()
    if len(data) > 32:
        return mix(xxhash.xxh3_64_intdigest(data))
    x = int.from_bytes(data[:8], "little")
    for k in range(8, len(data), 8):
        x = (mix(x) + int.from_bytes(data[k : k + 8], "little")) & MASK
    return mix(x)


def ngram_hashes(hashes: list[int], n: int) -> list[int]:
    n = min(n, len(hashes))
    result = []
    for begin in range(len(hashes) - n + 1) if n else ():
        x = 0
        for value in hashes[begin : begin + n]:
            x = (x * 0x9E3779B97F4A7C15 + value) & MASK
        result.append(mix(x))
    return result


def random_text(rng: random.Random) -> str:
    alphabets = (
        "abcXYZ019 _-.,'\n\t",
        "éÅßİıſﬁΣςДд ’“”—",
        "漢字かなกำ हिन्दी",
        "\u00ad\u200b\u0301\ufeff\x00\x1f ",
        "🐇🏽\U0010ffff\U000e0041 a",
    )
    pieces = []
    for _ in range(rng.randrange(60)):
        alphabet = rng.choice(alphabets)
        pieces.append("".join(rng.choice(alphabet) for _ in range(rng.choice((1, 3, 9, 50)))))
    return rng.choice((" ", "", "\n")).join(pieces)


@pytest.mark.parametrize("seed", range(20))
def test_hashes_equal_the_plain_definition(seed: int) -> None:
    rng = random.Random(seed)
    texts = [random_text(rng) for _ in range(30)]
    found = words(texts)
    by_n = {n: ngrams(found, n) for n in (1, 2, 5, 8, 13)}
    for d, text in enumerate(texts):
        expected = [word_hash(word) for word in plain_words(text)]
        assert found.hashes_W[found.offsets_D[d] : found.offsets_D[d + 1]].tolist() == expected
        for n, grams in by_n.items():
            got = grams.hashes_S[grams.offsets_D[d] : grams.offsets_D[d + 1]].tolist()
            assert got == ngram_hashes(expected, n), (n, text)


def test_a_text_has_the_same_hashes_alone_and_in_company() -> None:
    rng = random.Random(1)
    texts = [random_text(rng) for _ in range(40)]
    together = ngrams(words(texts), 5)
    for d, text in enumerate(texts):
        alone = ngrams(words([text]), 5).hashes_S
        mine = together.hashes_S[together.offsets_D[d] : together.offsets_D[d + 1]]
        assert np.array_equal(alone, mine)


def test_layout_case_punctuation_and_accents_written_apart_do_not_matter() -> None:
    plain = words(["the hare's café ran 10 miles"]).hashes_W
    for other in (
        "  THE hare’s\r\n_café_ … (ran) 10\tmiles!",
        "The hare's cafe\u0301 ran 10 miles",
        "the hare's ca\u00adfé ran １０ miles",
    ):
        assert np.array_equal(words([other]).hashes_W, plain), other


def test_a_short_text_is_one_ngram_and_an_empty_one_none() -> None:
    grams = ngrams(words(["one two three", "", "...", "one"]), 5)
    assert grams.offsets_D.tolist() == [0, 1, 1, 1, 2]
    assert ngrams(words([]), 5).offsets_D.tolist() == [0]


def test_texts_of_every_small_length() -> None:
    for number in range(20):
        text = " ".join(f"w{k}" for k in range(number))
        expected = [word_hash(word) for word in text.split()]
        for n in range(1, 17):
            assert ngrams(words([text]), n).hashes_S.tolist() == ngram_hashes(expected, n)


def test_ngrams_at_gives_the_hash_of_the_ngram_that_begins_there() -> None:
    found = words(["a b c d e f g h", "i j k l m n o"])
    grams = ngrams(found, 3)
    assert np.array_equal(ngrams_at(found, grams.starts_S, 3), grams.hashes_S)


def test_no_ngram_crosses_from_one_text_into_the_next() -> None:
    together, joined = ngrams(words(["a b c", "d e f"]), 2), ngrams(words(["a b c d e f"]), 2)
    assert len(together.hashes_S) == 4
    assert set(together.hashes_S.tolist()) < set(joined.hashes_S.tolist())


def test_ngrams_of_no_words_are_refused() -> None:
    with pytest.raises(ValueError, match="n: got 0, expected"):
        ngrams(words(["a"]), 0)


def test_excerpt_counts_words_as_the_hashes_do() -> None:
    rng = random.Random(3)
    for _ in range(100):
        text = random_text(rng)
        expected = plain_words(text)
        for first in range(0, len(expected), 7):
            got = excerpt(text, first, 3, max_characters=10_000)
            assert plain_words(got) == expected[first : first + 3]


def test_excerpt_keeps_the_writing_and_is_limited() -> None:
    assert excerpt("Hares (Lepus) are FAST;\n\nhares hop.", 1, 4) == "Lepus) are FAST; hares"
    assert len(excerpt("word " * 500, 0, 500)) == 200
    assert excerpt("one two", 7, 2) == ""


@dataclass
class Text:
    text: str


def test_batches_keep_order_and_bound_their_size() -> None:
    texts = [Text("x" * size) for size in (10, 90, 5, 300, 1, 1)]
    groups = list(batches(texts, characters=100))
    assert [t for group in groups for t in group] == texts
    assert [len(group) for group in groups] == [2, 2, 2]


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from data_pipeline.text.ngrams import words, ngrams;"
        "print(ngrams(words(['Hares — and Ångström — are fast, ' * 9]), 5).hashes_S.sum())"
    )
    assert len({python_output(code, hash_seed=seed) for seed in ("0", "7")}) == 1
