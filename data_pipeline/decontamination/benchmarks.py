"""The one list of what is evaluated, and how a row of each benchmark gives the texts to look for.

    >>> LAYOUTS["winogrande"]({"sentence": "The hare beat the fox because _ was fast.",
    ...                        "option1": "the hare", "option2": "the fox"})["with_option1"]
    'The hare beat the fox because the hare was fast.'

An *item* is one row, its *parts* are texts that may leak apart from each other: a question without
its answer, an answer without its question. A layout accepts the rows of the original files and
those of the copies on the Hugging Face hub. Texts too short to be recognized alone are also part
of a longer part: the question with its right answer.

`DEFAULT` names what the models are compared on, with its title. A further benchmark is an entry in
LAYOUTS, or only a `Benchmark` with its field names:

    Benchmark("trivia", "data/trivia.jsonl.gz", parts=("question", "answer"))

Nothing is skipped: a file that cannot be read to its end, or a row without the fields, is an error,
because decontamination against half a benchmark would look like decontamination.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.config import Benchmark
from data_pipeline.execution.manifest import file_sha256
from data_pipeline.storage.atomic import list_names
from data_pipeline.storage.compressed import read_chunks, split_lines
from data_pipeline.storage.object_store import storage_path

Row = dict[str, Any]
Parts = dict[str, str]

# What is evaluated unless a run says otherwise (paper, Table 2, and ARC-E): name -> title.
DEFAULT = {
    "mmlu": "MMLU",
    "arc_challenge": "ARC-C",
    "arc_easy": "ARC-E",
    "truthfulqa": "TruthfulQA",
    "winogrande": "Winogrande",
    "hellaswag": "HellaSwag",
    "gsm8k": "GSM8K",
}
REWRITES = "rewrites"  # subfolder of a known benchmark with items told in other words


@dataclass(slots=True)
class BenchmarkItem:
    """Item("gsm8k/test/17", "gsm8k", {"question": "Janet's ducks ...", "answer": "..."})"""

    id: str
    benchmark: str
    parts: Parts
    absolute_hits: bool = True  # whether the absolute-hits rule applies


def is_option(part: str) -> bool:
    """Whether a part is one of several answers to choose from, which alone is often any phrase."""
    return part.startswith(("choice", "ending"))


# Parts that hold an item from its beginning to its end, in the order of preference.
WHOLE = (
    "question_answer",
    "context_ending",
    "context_answer",
    "context_question",
    "with_option1",
    "with_option2",
)


def is_whole(part: str) -> bool:
    """Whether a part is a whole item, the question with its answer."""
    return part in WHOLE


def read(benchmark: Benchmark) -> Iterator[BenchmarkItem]:
    """Yields the items of all splits; their ids are name/split/row, rows counted from 0.

    Raises ValueError for a benchmark that is unknown, missing, empty, damaged, or of another shape.
    """
    layout = _layout(benchmark)
    for path in files(benchmark):
        yield from _items(benchmark, path, layout)


def check(benchmark: Benchmark) -> None:
    """Raises ValueError for a benchmark that is unknown, or of which a file is missing."""
    _layout(benchmark)
    files(benchmark)
    for name in benchmark.paraphrases:
        if not Path(name).is_file():
            raise ValueError(f"benchmark {benchmark.name!r}, rewrites: {name} is no file")


def rewritten(benchmark: Benchmark) -> Iterator[BenchmarkItem]:
    """Yields the items of `benchmark.rewrites`, which are told in other words; raises as `read`."""
    layout = _layout(benchmark)

    check(benchmark)

    def told_anew(row: Row) -> Parts:
        return layout({name: row.get(f"rewritten_{name}", value) for name, value in row.items()})

    for name in benchmark.paraphrases:
        yield from _items(benchmark, Path(name), told_anew)


def _items(
    benchmark: Benchmark, path: Path, layout: Callable[[Row], Parts]
) -> Iterator[BenchmarkItem]:
    split = path.name.split(".")[0]
    row_number = -1
    for row_number, row in enumerate(_rows(path)):
        try:
            parts = layout(row)
            if not any(parts.values()):
                raise ValueError("all parts are empty")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path}, row {row_number}: not an item of {benchmark.name!r} "
                f"({type(error).__name__}: {error}). Its fields are {sorted(row)}; say which "
                f"to look for with Benchmark({benchmark.name!r}, path, parts=(...))."
            ) from error
        name = f"{benchmark.name}/{split}/{row_number}"
        yield BenchmarkItem(name, benchmark.name, parts, benchmark.absolute_hits)
    if row_number < 0 and benchmark.name not in OWN:
        raise ValueError(f"{path} has no rows: a benchmark without items protects nothing")


def files(benchmark: Benchmark) -> list[Path]:
    """The files of a benchmark, by name. Raises ValueError where there is none."""
    path = storage_path(benchmark.path)
    if path.is_file():
        return [path]
    found = sorted(path / name for name in list_names(path) if name.endswith(_SUFFIXES))
    if not found:
        raise ValueError(
            f"benchmark {benchmark.name!r}: {path} is neither a file nor a folder of "
            f"SPLIT{{{','.join(_SUFFIXES)}}}"
        )
    return found


def known(folder: str) -> list[Benchmark]:
    """Every known benchmark that has a subfolder or a file of its name in `folder`; "" gives none.

    Files in the subfolder's own subfolder `rewrites` are its rewrites.

    Raises ValueError for a folder without any.
    """
    if not folder:
        return []
    found = []
    for name in LAYOUTS:
        paths = [storage_path(folder) / (name + suffix) for suffix in ("", *_SUFFIXES)]
        found += [
            Benchmark(name, str(path), paraphrases=_rewrites(path))
            for path in paths
            if path.exists()
        ][:1]
    if not found:
        raise ValueError(
            f"decontamination.folder: no benchmark in {folder}; expected subfolders or files named "
            f"{', '.join(name for name in LAYOUTS if name not in OWN)}"
        )
    return found


def _rewrites(path: Path) -> tuple[str, ...]:
    found = (path / REWRITES).glob("*")
    return tuple(sorted(str(file) for file in found if file.name.endswith(_SUFFIXES)))


def unprotected(protected: Sequence[Benchmark]) -> list[str]:
    """The titles of the default benchmarks that are not among these."""
    names = {benchmark.name for benchmark in protected}
    return [title for name, title in DEFAULT.items() if name not in names]


def fingerprint(benchmark: Benchmark) -> list[str]:
    """["test.jsonl.gz 9f3c...", ...]: the name and sha256 of each file, of rewrites too."""
    everything = [*files(benchmark), *map(Path, benchmark.paraphrases)]
    return [f"{path.name} {file_sha256(path)}" for path in everything]


# Made by this pipeline and verified by their manifests; a run may well hold out nothing.
OWN = ("held_out_items", "held_out_documents")

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        try:
            with path.open("rb") as file:
                yield from parquet.read_table(file).to_pylist()
        except OSError as error:  # ArrowInvalid, a ValueError, says enough itself
            raise ValueError(f"{path} cannot be read to its end: {error}") from error
        return
    for line_number, (_, line, _) in enumerate(split_lines(read_chunks(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {line_number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {line_number}: expected an object, got {row!r:.60}")
        yield row


def _layout(benchmark: Benchmark) -> Callable[[Row], Parts]:
    if benchmark.parts:
        return lambda row: _fields(row, benchmark.parts)
    if benchmark.name in LAYOUTS:
        return LAYOUTS[benchmark.name]
    close = difflib.get_close_matches(benchmark.name, LAYOUTS, n=3)
    raise ValueError(
        f"unknown benchmark {benchmark.name!r}: known are {', '.join(LAYOUTS)}"
        + (f" (did you mean {' or '.join(close)}?)" if close else "")
        + "; of any other, name the fields to look for: Benchmark(name, path, parts=(...))"
    )


# ---- Layouts: a row -> its parts, in the order in which a reader would meet them.


def _fields(row: Row, names: Sequence[str]) -> Parts:
    """Each named field; a list of texts becomes name_0, name_1 ..."""
    parts: Parts = {}
    for name in names:
        value = row[name]
        if isinstance(value, list):
            parts |= {f"{name}_{k}": _text(v) for k, v in enumerate(value)}
        else:
            parts[name] = _text(value)
    return parts


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.60}")
    return value


def _multiple_choice(question: str, choices: Sequence[str], answer: int) -> Parts:
    """Question, choices, and the question with its right answer (answer < 0: not published)."""
    parts = {"question": _text(question)}
    parts |= {f"choice_{k}": _text(choice) for k, choice in enumerate(choices)}
    if answer >= 0:
        parts["question_answer"] = f"{question} {choices[answer]}"
    return parts


def _gsm8k(row: Row) -> Parts:
    """Answers hold calculator notes: "5 + 4 = <<5+4=9>>9". They leak with the notes or without."""
    solution = row["answer"].split("####")[0]
    plain = re.sub(r"<<.*?>>", "", solution)
    parts = {"question": _text(row["question"]), "answer": plain}
    return parts if plain == solution else {**parts, "annotated_answer": solution}


def _math(row: Row) -> Parts:
    return {"question": _text(row["problem"]), "answer": _text(row["solution"])}


def _mmlu(row: Row) -> Parts:
    answer = row["answer"]  # a letter in the original files, a number on the hub
    index = "ABCD".index(answer) if isinstance(answer, str) else answer
    return _multiple_choice(row["question"], row["choices"], index)


def _arc(row: Row) -> Parts:
    """ARC, OpenBookQA, CommonsenseQA: {"question": {"stem", "choices": [{"text", "label"}]}}.

    On the hub {"question" or "question_stem", "choices": {"text": [...], "label": [...]}}.
    """
    question = row["question"] if "question" in row else row["question_stem"]
    if isinstance(question, dict):
        texts = [choice["text"] for choice in question["choices"]]
        labels = [choice["label"] for choice in question["choices"]]
        question = question["stem"]
    else:
        texts, labels = row["choices"]["text"], row["choices"]["label"]
    key = row.get("answerKey") or ""
    return _multiple_choice(question, texts, labels.index(key) if key else -1)


def _truthfulqa(row: Row) -> Parts:
    """The CSV's columns, the hub's generation and multiple_choice rows, or mc_task.json's."""
    if "Question" in row:
        question, best = row["Question"], row["Best Answer"]
        answers = [*row["Correct Answers"].split("; "), *row["Incorrect Answers"].split("; ")]
    elif "mc1_targets" in row:
        question, answers = row["question"], []
        for name in ("mc1_targets", "mc2_targets"):
            targets = row[name]
            answers += targets["choices"] if "choices" in targets else list(targets)
        best = answers[0]  # the right answer of mc1 stands first
    else:
        question, best = row["question"], row["best_answer"]
        answers = [*row["correct_answers"], *row["incorrect_answers"]]
    return _multiple_choice(question, list(dict.fromkeys([best, *answers])), 0)


def _winogrande(row: Row) -> Parts:
    """The sentence with either option in its gap."""
    before, gap, after = _text(row["sentence"]).partition("_")
    if not gap:
        raise ValueError("the sentence has no gap '_'")
    return {f"with_{name}": before + row[name] + after for name in ("option1", "option2")}


def _hellaswag(row: Row) -> Parts:
    """WikiHow contexts carry marks as "[header]" and "[step]", which the harness takes out."""
    context = _text(row["ctx"] if "ctx" in row else row["query"])
    endings = row["endings"] if "endings" in row else row["choices"]
    label = row["label"] if "label" in row else row.get("gold", "")
    context, *endings = (re.sub(r"\[.*?\]", " ", text) for text in (context, *endings))
    parts = {"context": context} | {f"ending_{k}": text for k, text in enumerate(endings)}
    if label != "":
        parts["context_ending"] = f"{context} {endings[int(label)]}"
    return parts


def _boolq(row: Row) -> Parts:
    return _fields(row, ("question", "passage"))


def _humaneval(row: Row) -> Parts:
    return {"prompt": _text(row["prompt"]), "solution": _text(row["canonical_solution"])}


def _bbh(row: Row) -> Parts:
    return {"question": _text(row["input"]), "question_answer": f"{row['input']} {row['target']}"}


def _socialiqa(row: Row) -> Parts:
    together = f"{_text(row['context'])} {_text(row['question'])}"
    answers = [_text(row[f"answer{letter}"]) for letter in "ABC"]
    parts = {"context": row["context"], "context_question": together}
    return parts | {f"choice_{k}": answer for k, answer in enumerate(answers)}


def _held_out_items(row: Row) -> Parts:
    """Items made from held-out documents: {"context", "choices", "answer": index}."""
    context = _text(row["context"])
    return {"context": context, "context_answer": context + _text(row["choices"][row["answer"]])}


def _held_out_documents(row: Row) -> Parts:
    return {"document": _text(row["text"])}


LAYOUTS: dict[str, Callable[[Row], Parts]] = {
    "gsm8k": _gsm8k,
    "mmlu": _mmlu,
    "arc_challenge": _arc,
    "arc_easy": _arc,
    "truthfulqa": _truthfulqa,
    "winogrande": _winogrande,
    "hellaswag": _hellaswag,
    "openbookqa": _arc,
    "commonsenseqa": _arc,
    "boolq": _boolq,
    "humaneval": _humaneval,
    "math": _math,
    "bbh": _bbh,
    "socialiqa": _socialiqa,
    "held_out_items": _held_out_items,
    "held_out_documents": _held_out_documents,
}
