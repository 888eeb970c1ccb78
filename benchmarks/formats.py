"""Lists which rows of instruction data are rendered as text, and why others are not.

    python -m benchmarks.formats DIR
    python -m benchmarks.formats DIR --labels intent category --show 1

Rows with a `text` field and without a label are taken as they are.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.config import Reading, Source, Tier
from data_pipeline.reading.files import content_suffix, read_file
from data_pipeline.reading.instructions.formats import UnusableRow, render
from data_pipeline.reading.instructions.labeled import label_field
from data_pipeline.storage.document import BadInput


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options and prints a table per file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", nargs="*", default=list(Source(tier=Tier.D3).label_fields))
    parser.add_argument("--show", type=int, default=0, help="examples of each outcome of a file")
    options = parser.parse_args(arguments)
    print(f"{'file':<36} {'rows':>7}  {'format or reason':<28} {'rendered':>8} {'refused':>8}")
    for path in sorted(path for path in options.folder.iterdir() if content_suffix(path)):
        outcomes, examples = survey(path, tuple(options.labels), options.show)
        total = sum(outcomes.values())
        for number, ((name, is_text), count) in enumerate(outcomes.most_common()):
            head = f"{path.name:<36} {total:>7,}" if number == 0 else " " * 44
            print(f"{head}  {name:<28} {count if is_text else 0:>8,} {0 if is_text else count:>8,}")
            for example in examples.get(name, []):
                print("\n".join(f"      | {line}" for line in example.splitlines()))


def survey(
    path: Path, labels: tuple[str, ...], show: int = 0
) -> tuple[Counter[tuple[str, bool]], dict[str, list[str]]]:
    """Returns ({(format or reason, is rendered): rows}, examples) of one file."""
    outcomes: Counter[tuple[str, bool]] = Counter()
    examples: dict[str, list[str]] = {}
    for row in read_file(path, path.name, Reading().max_line_bytes):
        if isinstance(row, BadInput):
            name, is_text, example = row.reason, False, row.detail
        elif isinstance(row.fields.get("text"), str) and not label_field(row.fields, labels):
            name, is_text, example = "text as it is", True, row.fields["text"]
        else:
            found = render(row.fields, labels)
            is_text = not isinstance(found, UnusableRow)
            name, example = found[0], found[1]
        outcomes[name, is_text] += 1
        if len(examples.setdefault(name, [])) < show:
            examples[name].append(example)
    return outcomes, examples


if __name__ == "__main__":
    main()
