"""The job of configs/benchmarks.py: benchmark files for evaluation without the Hugging Face hub.

Files are written in the layout in which the `datasets` library reads a local folder in place of a
dataset of the hub: a folder of the same name, with a README.md whose front matter lists its files.

    OUT/allenai/ai2_arc/README.md
    OUT/allenai/ai2_arc/ARC-Challenge/test.jsonl
    OUT/layout.json                              the source of every file

The source has a folder for each benchmark (registry.py) with SPLIT.jsonl, .jsonl.gz or .parquet.
Rows are those of the original publication or of the hub; the former are converted to the fields of
the latter. Each row gets one more field, `item`: the name that it has in decontamination, which is
BENCHMARK/SPLIT/ROW of its file. Nothing else is changed.
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
# Split -> possible names of its file; of several training files the first is used.
SPLITS = {
    "train": ("train", "train_xl", "train_l", "train_m", "train_s", "train_xs"),
    "validation": ("validation", "dev", "val", "mc_task"),
    "test": ("test",),
}
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
LAYOUT_FILE = "layout.json"
EXAMPLE_ROWS = 100  # of validation, if there is no training file


def run(config: OfflineBenchmarkData, workdir: Path) -> dict[str, Path]:
    """Writes the folder `config.out`, layout.json last.

    Args:
      config: source and output folder.
      workdir: not used.

    Raises:
      FileNotFoundError: the source has no benchmark, or a benchmark has no file to evaluate, or
        none with the examples that it needs.
      ValueError: a file has no rows, a row is not one of its benchmark, or the output folder is not
        empty.
    """
    del workdir
    if not config.source or not config.out:
        raise ValueError(
            "expected a source and a folder to write: --config=configs/benchmarks.py:SOURCE "
            "--config.out=DIR"
        )
    source, out = Path(config.source), Path(config.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists already; name a new folder")
    folders = {name: source / name for name in BENCHMARKS if (source / name).is_dir()}
    if not folders:
        raise FileNotFoundError(
            f"{source} has no folder of a benchmark; expected {', '.join(BENCHMARKS)}"
        )
    layout = {name: _convert(name, folder, out) for name, folder in folders.items()}
    for dataset in sorted({BENCHMARKS[name].dataset for name in folders}):
        _write_readme(out / dataset)
    write_json(out / LAYOUT_FILE, layout)
    for name, entry in layout.items():
        rows = ", ".join(f"{split} {n:,}" for split, n in entry["rows"].items())
        print(f"  {name:<14} {rows}" + "".join(f"; {note}" for note in entry["notes"]))
    return {"benchmarks": out}


def read_layout(data: Path | None) -> dict[str, Any]:
    """Returns the content of layout.json in a folder; {} if `data` is None (the hub)."""
    path = data / LAYOUT_FILE if data is not None else None
    return json.loads(path.read_text("utf-8")) if path is not None and path.is_file() else {}


def _convert(name: str, folder: Path, out: Path) -> dict[str, Any]:
    """Converts the files of a benchmark; returns its entry of layout.json.

    {"dataset", "files": {file: sha256}, "splits": {split: file}, "rows": {split: number}, "notes"}
    """
    benchmark, notes = BENCHMARKS[name], []
    files = _mmlu_files(folder) if name == "mmlu" else _files(folder)
    rows = {split: _read_rows(name, path) for split, path in files.items()}
    if "train" in files and (kind := _stem(files["train"])) != "train":
        notes.append(f"train is {kind}")
    if benchmark.shots and "train" not in rows and name != "mmlu":
        # Without few-shot examples it would be another benchmark.
        if len(rows.get("validation", ())) <= EXAMPLE_ROWS:
            raise FileNotFoundError(
                f"{folder}: no training file, from which {benchmark.title} takes its examples, and "
                f"no validation file with more than {EXAMPLE_ROWS} rows to take them from; add "
                f"train{{{','.join(SUFFIXES)}}}"
            )
        rows["train"] = rows["validation"][-EXAMPLE_ROWS:]
        rows["validation"] = rows["validation"][:-EXAMPLE_ROWS]
        notes.append(
            f"no training file: the last {EXAMPLE_ROWS} rows of validation are the examples, and "
            "are not evaluated"
        )
    if name == "hellaswag" and not all("ind" in row for row in rows.get("validation", ())):
        notes.append("contexts without ctx_a and ctx_b, which a rule has split")
    for split, of_split in rows.items():
        for subset, of_subset in _by_subset(name, of_split).items():
            _write_rows(out / benchmark.dataset / subset / f"{split}.jsonl", of_subset)
    return {
        "dataset": benchmark.dataset,
        "files": {path.name: _sha256(path) for path in files.values()},
        "splits": {split: path.name for split, path in files.items()},
        "rows": {split: len(of_split) for split, of_split in rows.items()},
        "notes": notes,
    }


def _read_rows(name: str, path: Path) -> list[Row]:
    """Reads and converts the rows of one file of a benchmark."""
    convert = CONVERTERS.get(name, _unchanged)
    rows = []
    for number, row in enumerate(_rows(path)):
        try:
            rows.append(convert(row) | {"item": f"{name}/{_stem(path)}/{number}"})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{path}, row {number}: not a row of {BENCHMARKS[name].title} as it was published "
                f"or as the hub has it ({type(error).__name__}: {error}); its fields are "
                f"{sorted(row)}"
            ) from error
    if not rows:
        raise ValueError(f"{path}: no rows; give one with the rows of the split, or remove it")
    return rows


def _stem(path: Path) -> str:
    """Returns the name of a file without its suffixes."""
    return path.name.split(".")[0]


def _mmlu_files(folder: Path) -> dict[str, Path]:
    """Returns the files of MMLU, whose few-shot examples are the split dev."""
    files = {
        ("dev" if p.name.startswith("dev") else split): p for split, p in _files(folder).items()
    }
    if (val := _find(folder, ("val", "validation"))) is not None:
        files["validation"] = val
    return files


def _files(folder: Path) -> dict[str, Path]:
    """Returns split -> file; raises FileNotFoundError if there is nothing to evaluate."""
    paths = {split: _find(folder, names) for split, names in SPLITS.items()}
    files = {split: path for split, path in paths.items() if path is not None}
    if not files.keys() & {"validation", "test"}:
        raise FileNotFoundError(
            f"{folder}: no validation or test file; expected SPLIT{{{','.join(SUFFIXES)}}}"
        )
    return files


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Returns the first existing file with one of these names and a known suffix."""
    paths = [folder / (name + suffix) for name in names for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def _rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a JSON Lines or Parquet file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        yield from parquet.read_table(path).to_pylist()
        return
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in content.decode("utf-8").split("\n"):
        if line.strip():
            yield json.loads(line)


def _by_subset(name: str, rows: list[Row]) -> dict[str, list[Row]]:
    """Returns subset of the dataset -> its rows; MMLU has a subset per subject."""
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


def _write_readme(dataset: Path) -> None:
    """Writes the README.md that tells the `datasets` library which files belong to which split."""
    lines = ["---", "configs:"]
    for subset in sorted(path for path in dataset.iterdir() if path.is_dir()):
        lines += [f"- config_name: {subset.name}", "  data_files:"]
        for file in sorted(subset.glob("*.jsonl")):
            lines += [f"  - split: {file.stem}", f"    path: {subset.name}/{file.name}"]
    (dataset / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- Rows as they were published -> rows of the hub. Rows of the hub are not changed.


def _unchanged(row: Row) -> Row:
    return row


def _choices(row: Row) -> Row:
    """Converts ARC, OpenBookQA and CommonsenseQA, where the question contains the choices."""
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
    """Adds ctx_a and ctx_b if they are missing: ctx_b is the unfinished sentence of the context."""
    row = dict(row) | {"label": str(row["label"])}
    if "ctx_a" not in row:
        complete, separator, unfinished = row["ctx"].rpartition(". ")
        if row["ctx"].rstrip().endswith((".", "!", "?")) or not separator:
            complete, unfinished = row["ctx"], ""
        row |= {"ctx_a": complete + "." if unfinished else complete, "ctx_b": unfinished}
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
