"""What several documents say makes no evaluation item: keeping it out would cost them all."""

from __future__ import annotations

from data_pipeline.config import HeldOut
from data_pipeline.held_out import multiple_choice
from data_pipeline.storage.document import Document
from data_pipeline.text import shared_ngrams

FRAME = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software "
    "and associated documentation files, to deal in the software without restriction, including "
    "without limitation the rights to use, copy, modify, merge, publish and distribute copies. "
)


def own(k: int) -> str:
    """Sixty sentences that no other document has."""
    names = ("Anna", "Boris", "Clara", "David", "Ella", "Felix", "Greta", "Hugo")
    return " ".join(
        f"In {1500 + 61 * k + n} the gardener {names[(k + n) % 8]} planted {n + 2} tall trees "
        f"beside the river near village number {k * 1000 + n}, and watered them at night."
        for n in range(60)
    )


def documents(frames: int) -> list[Document]:
    return [Document(f"law/{k}", FRAME * frames + own(k), "law", "law") for k in range(4)]


def test_an_ngram_counts_once_a_document() -> None:
    one = Document("a", FRAME * 3, "law", "law")
    assert len(shared_ngrams.shared_ngrams([one])) == 0
    shared = shared_ngrams.shared_ngrams([one, Document("b", "x " + FRAME.upper(), "law", "law")])
    assert shared_ngrams.shares([FRAME, own(1), "short"], shared).tolist() == [1.0, 0.0, 0.0]


def test_items_are_made_of_text_of_one_document() -> None:
    config = HeldOut(items=1000)
    everything = documents(frames=6)
    without = multiple_choice.make_items(everything, config)
    with_sample = multiple_choice.make_items(everything, config, sample=everything)
    assert any("Permission is hereby granted" in item.context for item in without)
    assert with_sample
    assert not any(
        "hereby granted, free of charge, to any person" in i.context for i in with_sample
    )
    assert {item.id for item in with_sample} < {item.id for item in without}
