"""Names, things and numbers for word problems, and a reproducible way to draw them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Person(NamedTuple):
    """A name with its pronouns ("he" or "she", "his" or "her")."""

    name: str
    he: str
    his: str


class Thing(NamedTuple):
    """The singular and the plural of a noun."""

    one: str
    many: str


def _people(names: str, he: str, his: str) -> list[Person]:
    """Returns people from names separated by spaces."""
    return [Person(name, he, his) for name in names.split()]


def _things(words: str) -> list[Thing]:
    """Returns things from singulars separated by spaces, or "one/many" for irregular plurals."""
    pairs = [word.partition("/") for word in words.split()]
    return [Thing(one, many or f"{one}s") for one, _, many in pairs]


PEOPLE = _people(
    "Amara Beatriz Chloe Dalia Emilia Farah Greta Hana Ingrid Jasmine Keiko Lucia Maya Nadia "
    "Olivia Priya Rosa Sofia Tamar Uma Valeria Wanda Ximena Yara Zoe Abigail Bridget Carmen",
    "she",
    "her",
) + _people(
    "Ahmed Bruno Carlos David Elias Felix Gabriel Hugo Ivan Jonas Kofi Liam Mateo Noah Omar "
    "Pablo Quentin Ravi Samuel Tomas Uri Viktor Wei Yusuf Zane Arthur Benedict Chidi",
    "he",
    "his",
)
THINGS = _things(
    "apple pear orange marble sticker postcard pencil button stamp bead coin balloon cookie muffin "
    "tomato/tomatoes peach/peaches notebook ribbon seashell chestnut walnut eraser crayon badge "
    "magnet toy bracelet photo feather acorn flower key lemon plum brick"
)
GOODS = _things(
    "notebook sandwich/sandwiches ticket plant mug scarf/scarves book candle ball brush/brushes "
    "pie cap puzzle basket poster whistle"
)
FURNISHINGS = _things("lamp desk coat chair drum radio jacket carpet clock kettle")
CONTAINERS = _things("box/boxes bag jar basket crate tray drawer")
PLACES = ["the market", "a school fair", "the library", "a summer camp", "the beach", "a farm"]


class Draw:
    """Random choices that are equal on every version of Python.

    Only `random.Random.random` guarantees this, so all choices are derived from it.
    """

    def __init__(self, index: int, seed: int):
        """Seeds the choices of problem `index`."""
        digest = hashlib.sha256(f"school mathematics/{seed}/{index}".encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))

    def number(self, low: int, high: int, step: int = 1) -> int:
        """Returns one of low, low + step, ..., high."""
        return low + step * int(self._random.random() * ((high - low) // step + 1))

    def one_of(self, options: Sequence[T]) -> T:
        """Returns one of the options."""
        return options[self.number(0, len(options) - 1)]

    def some_of(self, options: Sequence[T], count: int) -> list[T]:
        """Returns `count` different options."""
        remaining = list(options)
        return [remaining.pop(self.number(0, len(remaining) - 1)) for _ in range(count)]
