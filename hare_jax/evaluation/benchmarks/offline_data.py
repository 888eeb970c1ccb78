"""Lays benchmark files out so that lm-eval's own task files find them, without the hub.

A folder named like a dataset of the hub, with a README.md whose front matter lists its files, is
loaded in the hub's place from the folder above it:

    OUT/allenai/ai2_arc/README.md
    OUT/allenai/ai2_arc/ARC-Challenge/test.jsonl
    OUT/layout.json                              what every file was made of

The source has a folder for each benchmark (benchmark_list.py), in it SPLIT.jsonl, .jsonl.gz or
.parquet. Rows are those of the original publication or of the hub; the former are rewritten into
the fields of the latter. Each gets the name that decontamination knows it by, BENCHMARK/SPLIT/ROW
of its file, as one more field, `item`. Nothing else is changed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hare_jax.config import OfflineBenchmarkData
from hare_jax.evaluation.benchmarks.registry import BENCHMARKS
from hare_jax.files import write_json

Row = dict[str, Any]
# The names that a split's file may have; of several training files the first is taken.
SPLITS = {
    "train": ("train", "train_xl", "train_l", "train_m", "train_s", "train_xs"),
    "validation": ("validation", "dev", "val", "mc_task"),
    "test": ("test",),
}
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
LAYOUT = "layout.json"
STAND_IN_ROWS = 100


def run(config: OfflineBenchmarkData) -> dict[str, Path]:
    """Writes `config.out`, layout.json last.

    Raises FileNotFoundError where the source holds no benchmark, ValueError where a row is not one
    of its benchmark or the folder is there already.
    """
    if not config.source or not config.out:
        raise ValueError(
            "expected a source and a folder to write: --config=configs/benchmarks.py:SOURCE "
            "--config.out=DIR"
        )
    source, out = Path(config.source), Path(config.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: is there already; give a new folder")
    found = {name: source / name for name in BENCHMARKS if (source / name).is_dir()}
    if not found:
        raise FileNotFoundError(
            f"{source}: no folder of a benchmark in it; expected {', '.join(BENCHMARKS)}"
        )
    layout = {name: _lay_out(name, folder, out) for name, folder in found.items()}
    for dataset in sorted({BENCHMARKS[name].dataset for name in found}):
        _write_front_matter(out / dataset)
    write_json(out / LAYOUT, layout)
    for name, made in layout.items():
        rows = ", ".join(f"{split} {n:,}" for split, n in made["rows"].items())
        print(f"  {name:<14} {rows}" + "".join(f"; {note}" for note in made["notes"]))
    return {"benchmarks": out}


def layout_of(data: Path | None) -> dict[str, Any]:
    """What layout.json says; {} for the hub."""
    path = data / LAYOUT if data is not None else None
    return json.loads(path.read_text("utf-8")) if path is not None and path.is_file() else {}


def _lay_out(name: str, folder: Path, out: Path) -> dict[str, Any]:
    """{"files": {file: sha256}, "splits": {split: file}, "rows": {split: number}, "notes"}."""
    benchmark = BENCHMARKS[name]
    convert = CONVERTERS.get(name, _unchanged)
    files, notes = _files(folder), []
    if name == "mmlu":
        splits = {("dev" if path.name.startswith("dev") else s): path for s, path in files.items()}
        if (val := _find(folder, ("val", "validation"))) is not None:
            splits["validation"] = val
        files = splits
    rows: dict[str, list[Row]] = {}
    for split, path in files.items():
        rows[split] = []
        for number, row in enumerate(_rows(path)):
            try:
                item = f"{name}/{path.name.split('.')[0]}/{number}"
                rows[split].append(convert(row) | {"item": item})
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ValueError(
                    f"{path}, row {number}: not a row of {benchmark.title} as it was published or "
                    f"as the hub has it ({type(error).__name__}: {error}); it has {sorted(row)}"
                ) from error
        if split == "train" and (kind := path.name.split(".")[0]) != "train":
            notes.append(f"train is {kind}")
    if benchmark.shots and "train" not in rows and name != "mmlu":
        # Evaluation without examples would be another benchmark.
        rows["train"] = rows["validation"][-STAND_IN_ROWS:]
        rows["validation"] = rows["validation"][:-STAND_IN_ROWS]
        notes.append(
            f"no training file: the last {STAND_IN_ROWS} rows of validation are the examples, and "
            "not evaluated"
        )
    if name == "hellaswag" and not all("ind" in row for row in rows["validation"]):
        notes.append("contexts from a copy without ctx_a and ctx_b, cut apart by rule")
    for split, of_split in rows.items():
        for subset, part in _by_subset(name, of_split).items():
            _write_rows(out / benchmark.dataset / subset / f"{split}.jsonl", part)
    return {
        "dataset": benchmark.dataset,
        "files": {path.name: _sha256(path) for path in files.values()},
        "splits": {split: path.name for split, path in files.items()},
        "rows": {split: len(of_split) for split, of_split in rows.items()},
        "notes": notes,
    }


def _files(folder: Path) -> dict[str, Path]:
    found = {split: _find(folder, names) for split, names in SPLITS.items()}
    files = {split: path for split, path in found.items() if path is not None}
    if not files.keys() & {"validation", "test"}:
        raise FileNotFoundError(
            f"{folder}: no validation or test file; expected SPLIT{{{','.join(SUFFIXES)}}}"
        )
    return files


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    paths = [folder / (name + suffix) for name in names for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        yield from parquet.read_table(path).to_pylist()
        return
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in content.decode("utf-8").split("\n"):
        if line.strip():
            yield json.loads(line)


def _by_subset(name: str, rows: list[Row]) -> dict[str, list[Row]]:
    if name != "mmlu":
        return {BENCHMARKS[name].subset: rows}
    subjects: dict[str, list[Row]] = {}
    for row in rows:
        subjects.setdefault(row["subject"], []).append(row)
    return subjects


def _write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _write_front_matter(dataset: Path) -> None:
    lines = ["---", "configs:"]
    for subset in sorted(path for path in dataset.iterdir() if path.is_dir()):
        lines += [f"- config_name: {subset.name}", "  data_files:"]
        for file in sorted(subset.glob("*.jsonl")):
            lines += [f"  - split: {file.stem}", f"    path: {subset.name}/{file.name}"]
    (dataset / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- Rows as they were published -> rows of the hub; the latter stay as they are.


def _unchanged(row: Row) -> Row:
    return row


def _choices(row: Row) -> Row:
    """ARC, OpenBookQA, CommonsenseQA: the question with its choices inside."""
    question = row["question"] if "question" in row else row["question_stem"]
    if not isinstance(question, dict):
        return row
    choices = {
        "text": [choice["text"] for choice in question["choices"]],
        "label": [choice["label"] for choice in question["choices"]],
    }
    return {
        "id": row["id"],
        "question": question["stem"],
        "choices": choices,
        "answerKey": row.get("answerKey", ""),
    }


def _openbookqa(row: Row) -> Row:
    row = dict(_choices(row))
    if "question" in row:
        row["question_stem"] = row.pop("question")
    return row


def _mmlu(row: Row) -> Row:
    answer = row["answer"]
    answer = "ABCD".index(answer) if isinstance(answer, str) else answer
    return {name: row[name] for name in ("question", "subject", "choices")} | {"answer": answer}


def _truthfulqa(row: Row) -> Row:
    def targets(value: Row) -> Row:
        if "labels" in value:
            return value
        return {"choices": list(value), "labels": list(value.values())}

    return {
        "question": row["question"],
        "mc1_targets": targets(row["mc1_targets"]),
        "mc2_targets": targets(row["mc2_targets"]),
    }


def _winogrande(row: Row) -> Row:
    kept = {name: row[name] for name in ("sentence", "option1", "option2")}
    return kept | {"answer": row.get("answer", "")}


def _hellaswag(row: Row) -> Row:
    """Without ctx_a and ctx_b: the second is the sentence that the context breaks off in."""
    row = dict(row) | {"label": str(row["label"])}
    if "ctx_a" not in row:
        before, gap, broken = row["ctx"].rpartition(". ")
        if row["ctx"].rstrip().endswith((".", "!", "?")) or not gap:
            before, broken = row["ctx"], ""
        row |= {"ctx_a": before + "." if broken else before, "ctx_b": broken}
    return row


def _boolq(row: Row) -> Row:
    if "label" in row:
        return row
    return {
        "question": row["question"],
        "passage": row["passage"],
        "label": int(row["answer"]),
    }


CONVERTERS: dict[str, Callable[[Row], Row]] = {
    "mmlu": _mmlu,
    "arc_challenge": _choices,
    "arc_easy": _choices,
    "truthfulqa": _truthfulqa,
    "winogrande": _winogrande,
    "hellaswag": _hellaswag,
    "openbookqa": _openbookqa,
    "boolq": _boolq,
    "commonsenseqa": _choices,
}
