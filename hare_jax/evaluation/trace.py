"""The documents behind a training step, such as the step at which the loss jumped.

    step 1234, stage 2: 8 rows, 11 pieces of 10 documents
     row  source  record  offset  length  document
       0  web         17       0     312  web/00000-00041
       0  web         17     511     200  web/00000-00007
       1  code         3       0     513  code/asyncio/base_events.py

`record` is the number of a packed record within its source. `offset` and `length` count tokens of
the document, BOS and EOS included. The order of a run is a pure function of its config, so that
training writes nothing for this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hare_jax.config import Trace
from hare_jax.data import packed_dataset
from hare_jax.data.order import Order
from hare_jax.data.packed_dataset import PackedDataset, Span
from hare_jax.files import write_json
from hare_jax.inference.tokenizers import open_tokenizer
from hare_jax.training.run_dir import Run, open_run

COLUMNS = ("row", "source", "record_id", "offset", "length", "document_id")
TITLES = ("row", "source", "record", "offset", "length", "document")
TOKENS_PER_WORD = 6  # to decode for each word that is shown: more than most words have


@dataclass(slots=True)
class StepTrace:
    """A step, and the pieces of documents in its global batch."""

    step: int  # 1 for the first
    stage: str
    documents: list[Span]


def run(config: Trace, workdir: Path) -> dict[str, Path]:
    """Prints the documents of the steps as a table, and writes them to `config.json` if given.

        [{"step": 1234, "stage": "stage 2", "documents": [{"row": 0, "source": "web",
          "record_id": 17, "document_id": "web/00000-00041", "offset": 0, "length": 312}, ...]}]

    Args:
      config: the run, its steps, and what is shown of them.
      workdir: not used.

    Returns:
      {"trace": path}, or nothing if no file was written.

    Raises:
      FileNotFoundError: if the run or its mixture does not exist.
      ValueError: if the run has no such step, or the mixture is another one.
    """
    del workdir
    if not config.run_dir:
        raise ValueError("run_dir: got nothing, expected a run's folder: configs/trace.py:RUN_DIR")
    trained = open_run(config.run_dir)
    dataset, order = _data(trained, config.mixture)
    decode = open_tokenizer(trained.directory).decode if config.words else None
    steps = []
    for number in _numbers(config, order):
        step = StepTrace(
            number, order.stage(number - 1).name, packed_dataset.trace(dataset, order, number - 1)
        )
        words = _words(dataset, order, number, decode, config.words) if decode else None
        print(table(step, words), flush=True)
        steps.append(step)
    if not config.json:
        return {}
    path = Path(config.json)
    write_json(path, [asdict(step) for step in steps])
    return {"trace": path}


def table(step: StepTrace, words: list[str] | None = None) -> str:
    """Formats a step as a table; `words`: text to show after each piece."""
    spans = step.documents
    rows = [[str(getattr(span, name)) for name in COLUMNS] for span in spans]
    widths = [max(map(len, column)) for column in zip(TITLES, *rows, strict=True)]
    lines = [
        f"step {step.step}, {step.stage}: {len({span.row for span in spans})} rows, {len(spans)} "
        f"pieces of {len({(span.source, span.document_id) for span in spans})} documents"
    ]
    for row, text in zip([TITLES, *rows], ["", *(words or [""] * len(rows))], strict=True):
        *cells, document = (
            cell.ljust(width) if title == "source" else cell.rjust(width)
            for title, cell, width in zip(TITLES, row, [*widths[:-1], 0], strict=True)
        )
        lines.append(" " + "  ".join([*cells, document, text]).rstrip())
    return "\n".join(lines)


def _data(trained: Run, mixture: str) -> tuple[PackedDataset, Order]:
    """Opens the data of the run, and computes its order."""
    if trained.training is None:
        raise ValueError(f"{trained.directory} is an imported model: it has no steps to trace")
    directory = Path(mixture or trained.mixture["directory"])
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory}: no such folder; the run was trained on the data there: give its present "
            "place, --config.mixture=DIR"
        )
    dataset = PackedDataset(directory, cache_dir=trained.directory.parent)
    if dataset.fingerprint != trained.mixture["fingerprint"]:
        raise ValueError(
            f"{directory} has fingerprint {dataset.fingerprint}, the run was trained on "
            f"{trained.mixture['fingerprint']}: give that mixture, --config.mixture=DIR"
        )
    return dataset, packed_dataset.make_order(dataset, trained.training)


def _numbers(config: Trace, order: Order) -> range:
    """Returns the steps to trace, 1 for the first; raises ValueError for others than the run's."""
    last = config.last_step or config.step
    if not 1 <= config.step <= last <= order.steps:
        raise ValueError(
            f"got step={config.step} and last_step={config.last_step}, expected "
            f"1 <= step <= last_step <= {order.steps}, the run's last; last_step=0 means step only"
        )
    return range(config.step, last + 1)


def _words(
    dataset: PackedDataset,
    order: Order,
    number: int,
    decode: Callable[[list[int]], str],
    count: int,
) -> list[str]:
    """Returns the first words of each piece, in the order of packed_dataset.trace."""
    batch = dataset.batch(order.records_of_step(number - 1))
    pieces = []
    for tokens_T, segment_ids_T in zip(batch["tokens_BT"], batch["segment_ids_BT"], strict=True):
        for segment in range(1, segment_ids_T.max() + 1):
            ids = tokens_T[segment_ids_T == segment][: count * TOKENS_PER_WORD]
            pieces.append(" ".join(decode(ids.tolist()).split()[:count]))
    return pieces
