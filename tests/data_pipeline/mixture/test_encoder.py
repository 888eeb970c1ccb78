from __future__ import annotations

import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.mixture import encoder
from data_pipeline.mixture.encoder import Encoder
from data_pipeline.mixture.tokenizer import MixtureTokenizer, mistral_model
from data_pipeline.mixture.word_boundaries import word_begins
from tests.data_pipeline.mixture.tokenization_samples import (
    APOSTROPHES,
    PARTS,
    TEXTS,
    changed_model,
)

# A word, as a pattern: what is found by pairs of bytes.
SIGN = r"[\x00-\x09\x0b-\x1f!-/:-@\[-`{-\x7f]"
BEYOND_ASCII = "[\u0080-\u2580\u2582-\U0010ffff]+"
WORD = re.compile(
    "[ \u2581]*(?:"
    rf"(?:[A-Za-z]+|{SIGN}+)(?:{BEYOND_ASCII}(?:[A-Za-z]+|{SIGN}+)?)*"
    rf"|(?:{BEYOND_ASCII}(?:[A-Za-z]+|{SIGN}+)?)+"
    r"|\n|[0-9]"
    ")|[ \u2581]+"
)
PIECES = [*TEXTS, *PARTS]


@pytest.fixture(scope="module")
def tokenizer() -> MixtureTokenizer:
    return MixtureTokenizer()


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself."""
    return sentencepiece.SentencePieceProcessor(str(mistral_model()))


def split(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [own.tolist() for own in np.split(ids, np.cumsum(lengths)[:-1])]


@given(st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join), min_size=1))
def test_ids_are_those_of_sentencepiece(
    tokenizer: MixtureTokenizer, processor: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> None:
    whole = [[1, *processor.encode(text), 2] for text in texts]
    encode = encoder.encoder_of(tokenizer).encode  # which remembers the examples before this one
    for _ in range(2):
        assert split(*encode(texts)) == whole


def test_no_texts(tokenizer: MixtureTokenizer) -> None:
    ids, lengths = Encoder(tokenizer).encode([])
    assert (ids.tolist(), lengths.tolist()) == ([], [])


def test_the_cache_changes_no_ids(
    tokenizer: MixtureTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words share slots, and the cache is emptied when it is full."""
    rng = random.Random(0)
    batches = [["".join(rng.choices(PIECES[3:], k=30)) for _ in range(20)] for _ in range(8)]
    roomy = [Encoder(tokenizer).encode(batch) for batch in batches]
    monkeypatch.setattr(encoder, "_SLOT_BITS", 4)
    monkeypatch.setattr(encoder, "_MAX_CACHED", 500)
    narrow = Encoder(tokenizer)
    sizes = []
    for batch, (ids, lengths) in zip(batches * 3, roomy * 3, strict=True):
        own_ids, own_lengths = narrow.encode(batch)
        assert own_ids.tolist() == ids.tolist()
        assert own_lengths.tolist() == lengths.tolist()
        sizes.append(len(narrow._lengths_K))
    assert sizes != sorted(sizes)  # the cache was emptied


def test_an_interrupted_batch_leaves_no_word_without_ids(tokenizer: MixtureTokenizer) -> None:
    """After Ctrl-C in a notebook the same encoder is used again."""

    class Interrupted(np.ndarray):
        def __setitem__(self, *_: object) -> None:
            raise KeyboardInterrupt

    interrupted = Encoder(tokenizer)
    interrupted._word_T = interrupted._word_T.view(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        interrupted.encode(["Hares are fast."])
    assert interrupted.encode(["Hares"])[0].tolist() == [1, *tokenizer.encode("Hares"), 2]


def test_words_begin_where_the_pattern_says() -> None:
    rng = random.Random(1)
    texts = [*TEXTS, *("".join(rng.choices(PARTS, k=40)) for _ in range(300))]
    texts = [" " + text.replace("\u2581", " ") for text in texts]
    buffer, first = "".join(texts).encode(), np.cumsum([0, *(len(t.encode()) for t in texts)])
    begins = word_begins(buffer, first[:-1]).tolist()
    words = [word for text in texts for word in WORD.findall(text)]
    assert "".join(words) == "".join(texts)
    assert [buffer[a:b].decode() for a, b in zip(begins, [*begins[1:], None], strict=True)] == words


def test_a_vocabulary_with_pieces_across_words(tmp_path: Path) -> None:
    across = MixtureTokenizer(changed_model(tmp_path, {300: "'s"}))
    encode = Encoder(across).encode
    for texts in (TEXTS, TEXTS[::-1]):
        assert split(*encode(texts)) == [[1, *across.encode(text), 2] for text in texts]
    assert 300 in encode([APOSTROPHES])[0]


def test_a_lone_surrogate_is_refused(tokenizer: MixtureTokenizer) -> None:
    with pytest.raises(UnicodeEncodeError):
        Encoder(tokenizer).encode(["fine", "\ud800"])


def test_threads_may_share_an_encoder(tokenizer: MixtureTokenizer) -> None:
    """Beam runs several tasks of a stage in threads of one process."""
    rng = random.Random(5)
    batches = [["".join(rng.choices(PIECES, k=200)) for _ in range(4)] for _ in range(40)]
    expected = [split(*Encoder(tokenizer).encode(texts)) for texts in batches]
    shared = Encoder(tokenizer)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda texts: split(*shared.encode(texts)), batches))
    finally:
        sys.setswitchinterval(interval)
    assert found == expected
