"""Items in other words by a teacher: what is asked of it, and what of its answers is taken.

An open question and its worked answer are both told anew. Options, and answers of a few words, stay
word for word, the options in another order: so the right answer stays right whatever is written.
Of each answer it is checked that

    it is one JSON object with the fields that were asked for      no_object, wrong_fields
    it is no copy of the item                                      copied
    it is about the same, of like length, with the same numbers    different, length, numbers
    it comes to the same result: "#### 72", \\boxed{72}, ...        result

An item whose answer fails is asked for again, as another sample, and left out after `tries`; all
that was refused is written down with the reason. Whom `ask` asks, how often it tries and what it
remembers is not known here (main.py hands it over): one that remembers its answers makes a second
call go on from where a first one was killed.
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

SHORT_ANSWER = 5  # words: so few are kept as they are
MAX_COPIED = 0.5  # share of a text's word n-grams that the item's has, too
MIN_KEPT = 0.25  # share of the item's telling words that come again
LENGTHS = (1 / 3, 3.0)  # words of the new text for one of the item's
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
_MANY_WAYS = {0.0, 1.0, 2.0, 3.0, 4.0}  # to be written: once, both, pair, half, third, quarter


class ParaphraseRequest(NamedTuple):
    """What a teacher is asked. `messages`: (role, content); `schema`: JSON schema of the answer.

    `sample`: another one asks the same again for another answer.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    schema: Values
    sample: int


class ParaphraseReply(NamedTuple):
    """The JSON objects in a teacher's reply, or the `error` for which there is no reply."""

    objects: Sequence[Values]
    error: str = ""


class RejectedParaphrase(NamedTuple):
    """Why an answer is not taken: a stable word, and what shows it."""

    reason: str
    evidence: Values


Ask = Callable[
    [Sequence[ParaphraseRequest]], Iterable[ParaphraseReply]
]  # answers in the order of the questions


def run(config: LeakageParaphrasing, ask: Ask, out: Path, made_by: str) -> dict[str, Path]:
    """Writes NAME_rewritten_1.jsonl, ... to `out`, for configs/audit.py, and NAME_refused.jsonl.

    A line is the item's own with "rewritten_question", "rewritten_answer", for multiple choice
    "rewritten_choices", and `made_by` as "rewritten_by".

    Raises ValueError or OSError where the file or a setting is not what it must be, where the
    teacher fails, and where not one item could be rewritten.
    """
    check(config)
    fields = LeakageAudit(
        **{n: getattr(config, n) for n in ("id", "question", "answer", "choices")}
    )
    path = Path(config.original)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected items, one JSON object a line: --config.items.original"
        )
    found = item_files.read_original(path, fields)
    drawn = item_files.drawn(found, config.max_items, config.seed)
    rows = item_files.rows_by_key(path, fields)
    name = item_files.name_of(path)
    written: dict[str, Path] = {}
    refused: list[Values] = []
    for version in range(1, config.versions + 1):
        told, not_taken = paraphrase(drawn, ask, config, version)
        refused += [{"version": version} | line for line in not_taken]
        print(_said(name, version, len(drawn), told, not_taken), flush=True)
        lines = [
            rows[key] | item_files.rewritten_fields(item) | {"rewritten_by": made_by}
            for key, item in told.items()
        ]
        written[f"version {version}"] = out / f"{name}_rewritten_{version}.jsonl"
        write_jsonl(written[f"version {version}"], lines)
        written["refused"] = out / f"{name}_refused.jsonl"
        write_jsonl(written["refused"], refused)
        if not told:
            reasons = Counter(line["reason"] for line in not_taken).most_common(3)
            raise ValueError(
                f"{path}: got no item in other words that can be used, of {len(drawn)} "
                f"({', '.join(f'{n} {reason}' for reason, n in reasons)}), expected some; see "
                f"{written['refused']}, and name another model by --config.teacher.model"
            )
    return written


def check(config: LeakageParaphrasing) -> None:
    """Raises ValueError for a number out of range."""
    for name in ("versions", "tries", "answer_tokens"):
        if getattr(config, name) < 1:
            raise ValueError(f"items.{name}: got {getattr(config, name)}, expected at least 1")


def paraphrase(
    items: Sequence[AuditItem], ask: Ask, config: LeakageParaphrasing, version: int
) -> tuple[dict[str, AuditItem], list[Values]]:
    """(key -> item in other words, in the order of `items`; what was refused, and why)."""
    told: dict[str, AuditItem] = {}
    refused: list[Values] = []
    waiting = list(items)
    for attempt in range(1, config.max_attempts + 1):
        sample = (version - 1) * config.max_attempts + attempt - 1
        questions = [_question(item, config.answer_tokens, sample) for item in waiting]
        for item, answer in zip(waiting, ask(questions), strict=True):
            new = read(item, answer, config.seed + version)
            if isinstance(new, AuditItem):
                told[item.key] = new
            else:
                objects = list(answer.objects)
                refused.append({"id": item.key, "try": attempt, **new._asdict(), "answer": objects})
        waiting = [item for item in waiting if item.key not in told]
        if not waiting:
            break
    return {item.key: told[item.key] for item in items if item.key in told}, refused


def keeps_answer(item: AuditItem) -> bool:
    """Whether only the question is told anew: the answer is an option, or of a few words."""
    return bool(item.choices) or len(item.answer.split()) <= SHORT_ANSWER


def _question(item: AuditItem, max_tokens: int, sample: int) -> ParaphraseRequest:
    fields = ["question"] if keeps_answer(item) else ["question", "answer"]
    told = f"{_TASK}\n\nQuestion:\n{item.question}"
    if item.choices:
        options = "\n".join(f"- {choice}" for choice in item.choices)
        told += f"\n\nOptions, which are not to be rewritten:\n{options}"
    elif "answer" in fields:
        found = _RESULT.search(item.answer)
        end = f", and write {found.group()} as it stands there" if found else ""
        told += f"\n\nAnswer:\n{item.answer}\n\n{_ANSWER_TOO}{end}."
    asked = " and ".join(f'"{field}"' for field in fields)
    told += f"\n\nAnswer with a JSON object with the new {asked}."
    schema = {
        "type": "object",
        "properties": {field: {"type": "string", "minLength": 1} for field in fields},
        "required": fields,
        "additionalProperties": False,
    }
    return ParaphraseRequest(
        item.key, (("system", SYSTEM), ("user", told)), max_tokens, schema, sample
    )


def read(item: AuditItem, answer: ParaphraseReply, seed: int) -> AuditItem | RejectedParaphrase:
    """The item in the answer's words, or why these are not taken; `seed`: of options' order.

    >>> told = Answer([{"question": "If Ann has 3 hares and buys 5, how many has she then?"}])
    >>> read(Item("1", "Ann has 3 hares. She buys 5 more. How many now?", "8"), told, seed=0).answer
    '8'
    """
    if answer.error:
        return RejectedParaphrase("no_answer", {"error": answer.error})
    if len(answer.objects) != 1:
        return RejectedParaphrase("no_object", {"objects": len(answer.objects)})
    (found,) = answer.objects
    fields = ["question"] if keeps_answer(item) else ["question", "answer"]
    values = [text.strip() for text in map(found.get, fields) if isinstance(text, str)]
    if sorted(found) != sorted(fields) or len(values) < len(fields) or "" in values:
        return RejectedParaphrase("wrong_fields", {"expected": fields})
    told = dataclasses.replace(item, question=values[0], answer=[*values, item.answer][1])
    for field in fields:
        objection = next(_objections(getattr(item, field), getattr(told, field), field), None)
        if objection:
            return objection
    return (
        dataclasses.replace(told, choices=paraphrase_by_rules.shuffled(item, seed))
        if item.choices
        else told
    )


def _objections(old: str, new: str, field: str) -> Iterator[RejectedParaphrase]:
    ratio = round(len(_words(new)) / max(1, len(_words(old))), 3)
    if not LENGTHS[0] <= ratio <= LENGTHS[1]:
        yield RejectedParaphrase("length", {"field": field, "times": ratio})
    if field == "answer":
        expected, got = result(old), result(new)
        if expected != got:
            yield RejectedParaphrase("result", {"expected": expected, "got": got})
        return
    if (share := round(paraphrase_by_rules.copied(new, old), 3)) > MAX_COPIED:
        yield RejectedParaphrase("copied", {"share": share})
    telling = {word for word in _words(old) if len(word) > 3}
    kept = round(len(telling & set(_words(new))) / max(1, len(telling)), 3)
    if telling and kept < MIN_KEPT:
        yield RejectedParaphrase("different", {"share": kept})
    lost, added = figures(old) - figures(new), figures(new) - figures(old)
    if lost or added:
        yield RejectedParaphrase("numbers", {"lost": sorted(lost), "added": sorted(added)})


def figures(text: str) -> set[float]:
    """The numbers of a text, in digits or in words, without those that have many names.

    >>> figures("Seven bottles cost $1,021.00, twice as much as 2."), figures("1/2 of v2.1.0")
    ({1021.0, 7.0}, set())
    """
    found = {_number(match) for match in _NUMBER.findall(text)}
    found |= {float(_NAMED[word]) for word in _words(text) if word in _NAMED}
    return {number for number in found if number is not None} - _MANY_WAYS


def result(answer: str) -> str:
    """What an answer comes to: what is marked as its result, or else its last number.

    >>> result("So 3 + 4 = 7.\\n#### 1,007"), result("It is \\\\boxed{x + 1}."), result("It is 12.")
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
    number = _number(text)
    return text if number is None else f"{number:.12g}"


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _words(text: str) -> list[str]:
    return paraphrase_by_rules.WORD.findall(text.lower())


def _said(
    name: str, version: int, asked: int, told: dict[str, AuditItem], refused: Sequence[Values]
) -> str:
    lost = {line["id"]: line["reason"] for line in refused if line["id"] not in told}
    why = ", ".join(f"{n:,} {reason}" for reason, n in Counter(lost.values()).most_common())
    left_out = f"; {len(lost):,} left out: {why}" if lost else ""
    return f"  {name}, version {version}: {len(told):,} of {asked:,} items rewritten{left_out}"
