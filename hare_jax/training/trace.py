"""The documents behind a step of a run: what was it learning from when the loss jumped?

    step 1234, stage 2: 8 rows, 11 pieces of 10 documents
     row  source  record  offset  length  document
       0  web         17       0     312  web/00000-00041
       0  web         17     511     200  web/00000-00007
       1  code         3       0     513  code/asyncio/base_events.py

`record` is the number of a baked row within its source; `offset` and `length` are in tokens of the
document, BOS and EOS counted. The order of a run is a pure function, so nothing was written down
for this during training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hare_jax.config import Trace
from hare_jax.data import packed_dataset
from hare_jax.data.order import Order
from hare_jax.data.packed_dataset import PackedDataset, Span
from hare_jax.files import write_json
from hare_jax.training.run_dir import Run, open_run

COLUMNS = ("row", "source", "record_id", "offset", "length", "document_id")
TITLES = ("row", "source", "record", "offset", "length", "document")
TOKENS_PER_WORD = 6  # to decode, of the few words that are shown: more than words have


@dataclass(slots=True)
class Step:
    """A step, 1 for the first, and what its global batch was made of."""

    step: int
    stage: str
    documents: list[Span]


def run(config: Trace, tokenizer: Callable[[Path], Any]) -> dict[str, Path]:
    """Prints the documents of the steps as a table; writes them to `config.json` if it is given.

        [{"step": 1234, "stage": "stage 2", "documents": [{"row": 0, "source": "web",
          "record_id": 17, "document_id": "web/00000-00041", "offset": 0, "length": 312}, ...]}]

    `tokenizer`: a SentencePiece model's path -> an object with `decode(ids)`; called only where
    words are asked for. Returns what was written, by what it is.

    Raises FileNotFoundError and ValueError where there is no such run, step or mixture.
    """
    if not config.run_dir:
        raise ValueError("run_dir: got nothing, expected a run's folder: configs/trace.py:RUN_DIR")
    trained = open_run(config.run_dir)
    baked, order = _data(trained, config.mixture)
    decode = tokenizer(trained.tokenizer).decode if config.words else None
    steps = []
    for number in _numbers(config, order):
        step = Step(
            number, order.stage(number - 1).name, packed_dataset.trace(baked, order, number - 1)
        )
        words = _words(baked, order, number, decode, config.words) if decode else None
        print(table(step, words), flush=True)
        steps.append(step)
    if not config.json:
        return {}
    path = Path(config.json)
    write_json(path, [asdict(step) for step in steps])
    return {"trace": path}


def table(step: Step, words: list[str] | None = None) -> str:
    """A step as lines to be read; `words`: what to show behind each piece."""
    spans = step.documents
    rows = [[str(getattr(span, name)) for name in COLUMNS] for span in spans]
    widths = [max(map(len, column)) for column in zip(TITLES, *rows, strict=True)]
    lines = [
        f"step {step.step}, {step.stage}: {len({span.row for span in spans})} rows, {len(spans)} "
        f"pieces of {len({(span.source, span.document_id) for span in spans})} documents"
    ]
    for row, more in zip([TITLES, *rows], ["", *(words or [""] * len(rows))], strict=True):
        *cells, document = (
            cell.ljust(width) if title == "source" else cell.rjust(width)
            for title, cell, width in zip(TITLES, row, [*widths[:-1], 0], strict=True)
        )
        lines.append(" " + "  ".join([*cells, document, more]).rstrip())
    return "\n".join(lines)


def _data(trained: Run, mixture: str) -> tuple[PackedDataset, Order]:
    """The run's data, in the run's order."""
    if trained.training is None:
        raise ValueError(f"{trained.directory} was not trained here: it has no steps to trace")
    directory = Path(mixture or trained.mixture["directory"])
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory}: no such folder; the run's baked data lay there: where it lies now, "
            "--config.mixture=DIR"
        )
    baked = PackedDataset(directory, memory=trained.directory.parent)
    if baked.fingerprint != trained.mixture["fingerprint"]:
        raise ValueError(
            f"{directory} has fingerprint {baked.fingerprint}, the run was trained on "
            f"{trained.mixture['fingerprint']}: give that mixture, --config.mixture=DIR"
        )
    return baked, packed_dataset.make_order(baked, trained.training)


def _numbers(config: Trace, order: Order) -> range:
    last = config.last_step or config.step
    if not 1 <= config.step <= last <= order.steps:
        raise ValueError(
            f"got step={config.step} and last_step={config.last_step}, expected "
            f"1 <= step <= last_step <= {order.steps}, the run's last; last_step=0 is step alone"
        )
    return range(config.step, last + 1)


def _words(
    baked: PackedDataset, order: Order, number: int, decode: Callable[[list[int]], str], count: int
) -> list[str]:
    """The first words of each piece, in the order of `input.trace`."""
    batch = baked.batch(order.records_of_step(number - 1))
    pieces = []
    for tokens_T, segment_ids_T in zip(batch["tokens_BT"], batch["segment_ids_BT"], strict=True):
        for segment in range(1, segment_ids_T.max() + 1):
            ids = tokens_T[segment_ids_T == segment][: count * TOKENS_PER_WORD]
            pieces.append(" ".join(decode(ids.tolist()).split()[:count]))
    return pieces
