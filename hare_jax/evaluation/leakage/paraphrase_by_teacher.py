r"""Paraphrases by a teacher: the requests, and the checks of its replies.

Both an open question and its worked answer are paraphrased. Choices, and answers of a few words,
are kept word for word, with the choices in another order, so that the right answer stays right
whatever the teacher writes. A reply is rejected for one of these reasons:

    no_answer               the teacher gave no reply
    no_object, wrong_fields it is not one JSON object with the requested fields
    overlap                 it copies the item
    different, length       it is about something else, or much shorter or longer
    numbers                 its numbers are not those of the item
    result                  its answer has another result: "#### 72", \boxed{72}, ...

A rejected item is requested again, as another sample, and left out after `max_attempts`. Every
rejected reply is written to a file with the reason. This module does not call a teacher: `ask` is
passed in by configs/jobs.py, and caches replies, so that a killed job continues.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hare_jax.config import LeakageAudit, LeakageParaphrasing
from hare_jax.evaluation.leakage import items as item_files
from hare_jax.evaluation.leakage import paraphrase_by_rules
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.files import write_jsonl

Values = dict[str, Any]  # JSON

SHORT_ANSWER = 5  # words; an answer of at most 5 is kept word for word
MAX_OVERLAP = 0.5  # share of the word n-grams of a paraphrase that also occur in the item
MIN_KEPT = 0.25  # share of the item's words of more than 3 letters that its paraphrase keeps
LENGTHS = (1 / 3, 3.0)  # words of the paraphrase per word of the item
SYSTEM = (
    "You rewrite the items of a test, so that they ask and answer exactly the same in other words. "
    "You answer with one JSON object and nothing else."
)
_TASK = (
    "Rewrite the question below. Change the structure of its sentences and the order in which it "
    "tells things, not only single words. Keep all names, numbers, units and conditions, so that "
    "its answer stays right. Neither answer it nor explain, add or leave out anything."
)
_ANSWER_TOO = (
    "Rewrite the answer as well, step by step, in other sentences. Keep its numbers and its result"
)
_NUMBER = re.compile(r"(?<![\w.])\.\d+|\d+(?:[.,]\d+)*")
_RESULT = re.compile(
    r"####\s*(?P<hashes>.+?)\s*\Z|\\boxed\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}", re.S
)
_UP_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_NAMED = {word: number for number, word in enumerate(_UP_TO_TWENTY.split())}
_NAMED |= {"dozen": 12, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100}
# Numbers with many names (once, both, pair, half, third, quarter), which are not compared.
_MANY_NAMES = {0.0, 1.0, 2.0, 3.0, 4.0}


class ParaphraseRequest(NamedTuple):
    """A request to a teacher.

    Attributes:
      id: of the item.
      messages: (role, content) of each.
      max_tokens: of the reply.
      schema: the JSON schema of the reply.
      sample: a number; the same request with another one gets another reply.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    schema: Values
    sample: int


class ParaphraseReply(NamedTuple):
    """The JSON objects in a teacher's reply, or the `error` because of which there is none."""

    objects: Sequence[Values]
    error: str = ""


class RejectedParaphrase(NamedTuple):
    """The reason for which a reply is rejected, a stable identifier, and its evidence."""

    reason: str
    evidence: Values


# Sends requests to a teacher; yields one reply per request, in order.
Ask = Callable[[Sequence[ParaphraseRequest]], Iterable[ParaphraseReply]]


def run(config: LeakageParaphrasing, ask: Ask, out: Path, made_by: str) -> dict[str, Path]:
    """Writes NAME_rewritten_1.jsonl, ... to `out`, for configs/audit.py, and NAME_rejected.jsonl.

    A line is that of the original item with the fields "rewritten_question", "rewritten_answer",
    for multiple choice "rewritten_choices" (names as in benbench), and "paraphrased_by".

    Args:
      config: the items, and how they are paraphrased.
      ask: sends requests to the teacher.
      out: an existing folder.
      made_by: the name of the teacher's model.

    Raises:
      FileNotFoundError: there is no file of items.
      ValueError: the file or a setting is invalid, or no item could be paraphrased.
    """
    check(config)
    fields = LeakageAudit(
        **{n: getattr(config, n) for n in ("id", "question", "answer", "choices")}
    )
    path = Path(config.original)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected items, one JSON object per line: "
            "--config.items.original"
        )
    items = item_files.draw(item_files.read_original(path, fields), config.max_items, config.seed)
    rows = item_files.rows_by_key(path, fields)
    name = item_files.name_of(path)
    written: dict[str, Path] = {}
    all_rejected: list[Values] = []
    for version in range(1, config.versions + 1):
        paraphrases, rejected = paraphrase(items, ask, config, version)
        all_rejected += [{"version": version} | line for line in rejected]
        print(_summary(name, version, len(items), paraphrases, rejected), flush=True)
        lines = [
            rows[key] | item_files.paraphrased_fields(item) | {"paraphrased_by": made_by}
            for key, item in paraphrases.items()
        ]
        written[f"version {version}"] = out / f"{name}_rewritten_{version}.jsonl"
        write_jsonl(written[f"version {version}"], lines)
        written["rejected"] = out / f"{name}_rejected.jsonl"
        write_jsonl(written["rejected"], all_rejected)
        if not paraphrases:
            reasons = Counter(line["reason"] for line in rejected).most_common(3)
            raise ValueError(
                f"{path}: got no paraphrase that can be used, of {len(items)} items "
                f"({', '.join(f'{n} {reason}' for reason, n in reasons)}), expected some; see "
                f"{written['rejected']}, and name another model by --config.teacher.model"
            )
    return written


def check(config: LeakageParaphrasing) -> None:
    """Raises ValueError if a number of the config is out of range."""
    for name in ("versions", "max_attempts", "answer_tokens"):
        if getattr(config, name) < 1:
            raise ValueError(f"items.{name}: got {getattr(config, name)}, expected at least 1")


def paraphrase(
    items: Sequence[AuditItem], ask: Ask, config: LeakageParaphrasing, version: int
) -> tuple[dict[str, AuditItem], list[Values]]:
    """Has one version of each item paraphrased.

    Args:
      items: the originals.
      ask: sends requests to the teacher.
      config: attempts and tokens of a reply.
      version: its number, from 1.

    Returns:
      (key -> paraphrase, in the order of `items`; one line per rejected reply)
    """
    paraphrases: dict[str, AuditItem] = {}
    rejected: list[Values] = []
    remaining = list(items)
    for attempt in range(1, config.max_attempts + 1):
        sample = (version - 1) * config.max_attempts + attempt - 1
        requests = [_request(item, config.answer_tokens, sample) for item in remaining]
        for item, reply in zip(remaining, ask(requests), strict=True):
            result = read(item, reply, config.seed + version)
            if isinstance(result, AuditItem):
                paraphrases[item.key] = result
            else:
                line = {"id": item.key, "attempt": attempt, **result._asdict()}
                rejected.append(line | {"answer": list(reply.objects)})
        remaining = [item for item in remaining if item.key not in paraphrases]
        if not remaining:
            break
    in_order = {item.key: paraphrases[item.key] for item in items if item.key in paraphrases}
    return in_order, rejected


def keeps_answer(item: AuditItem) -> bool:
    """Returns whether only the question is paraphrased: the answer is a choice or a few words."""
    return bool(item.choices) or len(item.answer.split()) <= SHORT_ANSWER


def _fields_to_paraphrase(item: AuditItem) -> list[str]:
    return ["question"] if keeps_answer(item) else ["question", "answer"]


def _request(item: AuditItem, max_tokens: int, sample: int) -> ParaphraseRequest:
    """Returns the request for the paraphrase of an item."""
    fields = _fields_to_paraphrase(item)
    prompt = f"{_TASK}\n\nQuestion:\n{item.question}"
    if item.choices:
        options = "\n".join(f"- {choice}" for choice in item.choices)
        prompt += f"\n\nOptions, which are not to be rewritten:\n{options}"
    elif "answer" in fields:
        marked = _RESULT.search(item.answer)
        end = f", and write {marked.group()} as it stands there" if marked else ""
        prompt += f"\n\nAnswer:\n{item.answer}\n\n{_ANSWER_TOO}{end}."
    names = " and ".join(f'"{field}"' for field in fields)
    prompt += f"\n\nAnswer with a JSON object with the new {names}."
    schema = {
        "type": "object",
        "properties": {field: {"type": "string", "minLength": 1} for field in fields},
        "required": fields,
        "additionalProperties": False,
    }
    return ParaphraseRequest(
        item.key, (("system", SYSTEM), ("user", prompt)), max_tokens, schema, sample
    )


def read(item: AuditItem, reply: ParaphraseReply, seed: int) -> AuditItem | RejectedParaphrase:
    """Returns the paraphrase in a reply, or the reason for which the reply is rejected.

    >>> item = AuditItem("1", "Ann has 3 hares. She buys 5 more. How many now?", "8")
    >>> question = "If Ann has 3 hares and buys 5, how many has she then?"
    >>> read(item, ParaphraseReply([{"question": question}]), seed=0).answer
    '8'

    Args:
      item: the original.
      reply: of the teacher.
      seed: of the order of choices.
    """
    if reply.error:
        return RejectedParaphrase("no_answer", {"error": reply.error})
    if len(reply.objects) != 1:
        return RejectedParaphrase("no_object", {"objects": len(reply.objects)})
    (values,) = reply.objects
    fields = _fields_to_paraphrase(item)
    texts = [text.strip() for text in map(values.get, fields) if isinstance(text, str)]
    if sorted(values) != sorted(fields) or len(texts) < len(fields) or "" in texts:
        return RejectedParaphrase("wrong_fields", {"expected": fields})
    paraphrased = dataclasses.replace(item, question=texts[0], answer=[*texts, item.answer][1])
    for field in fields:
        for rejected in _objections(getattr(item, field), getattr(paraphrased, field), field):
            return rejected
    if not item.choices:
        return paraphrased
    choices = paraphrase_by_rules.shuffle_choices(item, seed)
    return dataclasses.replace(paraphrased, choices=choices)


def _objections(old: str, new: str, field: str) -> Iterator[RejectedParaphrase]:
    """Yields the reasons against a paraphrased text; `field`: "question" or "answer"."""
    ratio = round(len(_words(new)) / max(1, len(_words(old))), 3)
    if not LENGTHS[0] <= ratio <= LENGTHS[1]:
        yield RejectedParaphrase("length", {"field": field, "times": ratio})
    if field == "answer":
        expected, got = result(old), result(new)
        if expected != got:
            yield RejectedParaphrase("result", {"expected": expected, "got": got})
        return
    if (share := round(paraphrase_by_rules.overlap(new, old), 3)) > MAX_OVERLAP:
        yield RejectedParaphrase("overlap", {"share": share})
    long_words = {word for word in _words(old) if len(word) > 3}
    kept = round(len(long_words & set(_words(new))) / max(1, len(long_words)), 3)
    if long_words and kept < MIN_KEPT:
        yield RejectedParaphrase("different", {"share": kept})
    lost, added = figures(old) - figures(new), figures(new) - figures(old)
    if lost or added:
        yield RejectedParaphrase("numbers", {"lost": sorted(lost), "added": sorted(added)})


def figures(text: str) -> set[float]:
    """Returns the numbers of a text, in digits or in words, without those that have many names.

    >>> figures("Seven bottles cost $1,021.00, twice as much as 2."), figures("1/2 of v2.1.0")
    ({1021.0, 7.0}, set())
    """
    numbers = {_number(match) for match in _NUMBER.findall(text)}
    numbers |= {float(_NAMED[word]) for word in _words(text) if word in _NAMED}
    return {number for number in numbers if number is not None} - _MANY_NAMES


def result(answer: str) -> str:
    r"""Returns the result of an answer: what is marked as such, else its last number, else "".

    >>> result("So 3 + 4 = 7.\n#### 1,007"), result("It is \\boxed{x + 1}."), result("It is 12.")
    ('#### 1007', 'boxed x + 1', '12')
    """
    marked = list(_RESULT.finditer(answer))
    if marked and (hashes := marked[-1]["hashes"]) is not None:
        return f"#### {_plain(hashes)}"
    if marked:
        return f"boxed {_plain(marked[-1]['boxed'])}"
    numbers = _NUMBER.findall(answer)
    return _plain(numbers[-1]) if numbers else ""


def _plain(text: str) -> str:
    """Returns a number in one spelling, any other text unchanged."""
    number = _number(text)
    return text if number is None else f"{number:.12g}"


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _words(text: str) -> list[str]:
    return paraphrase_by_rules.WORD.findall(text.lower())


def _summary(
    name: str,
    version: int,
    num_items: int,
    paraphrases: dict[str, AuditItem],
    rejected: Sequence[Values],
) -> str:
    """Returns the console line of a version: items paraphrased, and left out by reason."""
    left_out = {line["id"]: line["reason"] for line in rejected if line["id"] not in paraphrases}
    reasons = Counter(left_out.values()).most_common()
    text = f"  {name}, version {version}: {len(paraphrases):,} of {num_items:,} items paraphrased"
    if left_out:
        listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons)
        text += f"; {len(left_out):,} left out: {listed}"
    return text
