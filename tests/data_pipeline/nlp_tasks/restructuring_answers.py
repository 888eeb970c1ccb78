"""Answers of a teacher that restructures: for teacher_server.py, as its `answers`.

What it says depends on the request alone: a good object made from the passage, bare or framed, or
one of the ways in which answers are bad. `planned` tells which, and what has to become of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

GOOD = ("bare", "fenced", "framed", "trailing_comma", "several_equal", "thinking")
# What is wrong with an answer -> the reason for which it has to be dropped.
BAD = {
    "cut": "invalid_json",
    "refused": "invalid_json",
    "single_quotes": "invalid_json",
    "another_schema": "wrong_schema",
    "several_different": "several_answers",
    "unsupported": "",  # by kind: see DROPPED
}
UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "question_answering": ({"answer": "Zebras graze beside lighthouses."}, "unsupported"),
    "multiple_choice": ({"answer": "a fifth one"}, "answer_not_an_option"),
    "cloze": ({"answer": "zebras"}, "not_in_passage"),
    "summary": ({"summary": "Zebras graze beside several African lighthouses."}, "unsupported"),
    "true_false": ({"reason": "Zebras graze beside several lighthouses."}, "unsupported"),
    "paraphrase": (
        {"paraphrase": "Zebras graze beside some lighthouses at dawn."},
        "too_different",
    ),
    "keywords": ({"keywords": ["zebra", "giraffe", "lion"]}, "not_in_passage"),
    "title": ({"title": "Zebras beside Lighthouses"}, "off_topic"),
}


def passage_of(prompt: str) -> str:
    return prompt.rpartition("Passage:\n")[2].removesuffix("\n\nJSON:")


def planned(prompt: str) -> str:
    """One of GOOD and BAD; half of the prompts get a good answer."""
    number = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
    ways = [*GOOD, *BAD]
    return ways[number % len(ways)]


def expected(kind: str, prompt: str) -> str:
    """The reason for which the answer to a prompt is dropped; "" where it is kept."""
    way = planned(prompt)
    return UNSUPPORTED[kind][1] if way == "unsupported" else BAD.get(way, "")


def item(kind: str, passage: str) -> dict[str, Any]:
    """A good object of a kind, by rules that fit the passages of the tests."""
    sentence = re.findall(r"(?<=[.!?\n] )[A-Z][^.\n]+\.|^[A-Z][^.\n]+\.", passage, re.M)[0]
    words = sentence.removesuffix(".").split()
    first, last = " ".join(words[:3]), words[-1]
    names = list(dict.fromkeys(re.findall(r"\b(?!another)[a-z]{5,}", passage)))
    if kind == "question_answering":
        asked = f"What is told here of {names[0]} and {names[1]}?"
        return {"question": asked, "answer": sentence, "needs_passage": True}
    if kind == "multiple_choice":
        options = [last, "a first one", "a second one", "a third one"]
        asked = f"What does the passage end a sentence on {words[1]} with?"
        return {"question": asked, "options": options, "answer": last, "needs_passage": True}
    if kind == "cloze":
        return {"sentence": sentence.replace(f" {last}.", " ____."), "answer": last}
    if kind == "summary":
        return {"summary": "It tells of " + ", ".join(names[1:6]) + "."}
    if kind == "true_false":
        reason = f"It is told of {names[0]}, {names[1]} and {names[2]}."
        parts = {"statement": sentence, "verdict": True, "reason": reason}
        return parts | {"needs_passage": False}
    if kind == "paraphrase":
        turned = f"{last.capitalize()} is where it ends: {' '.join(words[:-1]).lower()}."
        return {"sentence": sentence, "paraphrase": turned}
    if kind == "keywords":
        return {"keywords": names[:4]}
    assert kind == "title", kind
    return {"title": f"{first} and {names[0]}"}


def answer(body: dict[str, Any]) -> str:
    schema = body["response_format"]["json_schema"]["schema"]
    (kind,) = [name for name, keys in KEYS.items() if keys == tuple(sorted(schema["properties"]))]
    prompt = body["messages"][-1]["content"]
    way, good = planned(prompt), item(kind, passage_of(prompt))
    text = json.dumps(good)
    if way == "unsupported":
        return json.dumps(good | UNSUPPORTED[kind][0])
    return {
        "bare": text,
        "fenced": f"```json\n{json.dumps(good, indent=2)}\n```",
        "framed": f"Here is the exercise you asked for:\n{text}\nLet me know if it {{fits}}.",
        "trailing_comma": text.removesuffix("}") + ",\n}",
        "several_equal": f"{text}\n{text}",
        "thinking": '<think>Perhaps {"title": "Another Sea"}?</think>' + text,
        "cut": text[: len(text) // 2],
        "refused": "I'm sorry, but I can't help with that.",
        "single_quotes": str({"task": kind}),
        "another_schema": json.dumps({"exercise": good}),
        "several_different": text + json.dumps(dict.fromkeys(good, "x")) + _other(good),
    }[way]


def _other(good: dict[str, Any]) -> str:
    """An object of the same schema that says something else."""
    changed = {}
    for key, value in good.items():
        changed[key] = f"{value} too" if isinstance(value, str) else value
    if "keywords" in good:
        changed["keywords"] = [*good["keywords"], "more"]
    return json.dumps(changed)


KEYS = {
    "question_answering": ("answer", "needs_passage", "question"),
    "multiple_choice": ("answer", "needs_passage", "options", "question"),
    "cloze": ("answer", "sentence"),
    "summary": ("summary",),
    "true_false": ("needs_passage", "reason", "statement", "verdict"),
    "paraphrase": ("paraphrase", "sentence"),
    "keywords": ("keywords",),
    "title": ("title",),
}
