"""What the teacher of test_synthesize.py answers: texts of all qualities, by a hash of the prompt.

Read by teacher_server.py as `answers`; the quality of an answer is in none of its words, so the
tests call `quality` too.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

QUALITIES = (
    "good",
    "framed",
    "cut_off",
    "refusal",
    "loop",
    "copied",
    "language",
    "too_short",
    "meta_talk",
    "prompt_leak",
    "twin",
    "leak",
)

LEAKED = (
    "A grocer stacks forty seven pomegranates in pyramids beside nineteen crates of quinces, sells "
    "eleven pomegranates before noon and trades six quinces for a lantern; how many fruits remain?"
)


def _words(text: str) -> list[str]:
    return text.split()


NOUNS = _words(
    "river valley garden bridge teacher village harbour winter letter engine market window "
    "kitchen mountain journey doctor library captain blanket orchard"
)
VERBS = _words("shows explains carries measures follows protects changes reaches answers repairs")
QUALIFIERS = _words("careful early distant modern quiet honest narrow useful ancient gentle")

FRENCH = (
    "Les lièvres vivent dans les champs et les forêts de toute l'Europe, où ils trouvent de "
    "l'herbe et des racines pendant une grande partie de l'année. Pendant la journée, ils se "
    "reposent dans un creux peu profond, et ils sortent à la tombée de la nuit pour chercher leur "
    "nourriture. "
)


def prompt_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def quality(prompt: str) -> str:
    return QUALITIES[hashlib.sha256(prompt.encode()).digest()[0] % len(QUALITIES)]


def essay(seed: str, sentences: int = 30) -> str:
    """English sentences that no other seed has."""
    rng = random.Random(seed)
    lines = []
    for _ in range(sentences):
        a, b, c = rng.sample(NOUNS, 3)
        lines.append(
            f"When the {rng.choice(QUALIFIERS)} {a} {rng.choice(VERBS)} the {b}, people notice "
            f"that number {rng.randrange(10_000)} of every {c} was {rng.choice(QUALIFIERS)} and "
            f"{rng.choice(QUALIFIERS)} after all."
        )
    return "\n\n".join(" ".join(lines[k : k + 5]) for k in range(0, len(lines), 5))


def finish(body: dict[str, Any]) -> str:
    return "length" if quality(prompt_of(body)) == "cut_off" else "stop"


def answer(body: dict[str, Any]) -> str:
    prompt = prompt_of(body)
    passage = prompt.partition("<passage>\n")[2].partition("\n</passage>")[0]
    text = essay(prompt)
    return {
        "good": text,
        "framed": f"Certainly! Here is the textbook section:\n\n{text}\n\nI hope this helps!",
        "cut_off": f"{text}\n\nIn the last part of the story, the",
        "refusal": "I'm sorry, but I can't help with that request.",
        "loop": f"{text}\n\n" + "The hare ran over the hill and back to its form. " * 60,
        "copied": f"{passage}\n\n{passage}\n\n" + essay(prompt, 3),
        "language": FRENCH * 4,
        "too_short": "Hares are fast.",
        "meta_talk": f"{text}\n\nAs an AI language model, I have never met a hare.",
        "prompt_leak": f"{text}\n\n{prompt.partition('</passage>')[2]}",
        "twin": essay("one and the same"),
        "leak": f"{text}\n\n{LEAKED}",
    }[quality(prompt)]
