"""Evaluation, generation, tracing and auditing need only the extras that the pages name.

Each job runs in a process in which no other library can be imported than those that
`pip install -e .` or `pip install -e '.[eval]'` brings.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from packaging.requirements import Requirement

from hare_jax.config import Stage, Training
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.model import decoder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import write_config
from tests.builders import ROOT, write_jsonl
from tests.hare_jax.builders import PIECES, tiny_model, train_sentencepiece

ROWS = [
    {"question": f"Who runs {k} fields?", "choices": ["a hare", "a stone"], "answer": "a hare"}
    for k in range(25)
]
TASK = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
# Hides modules from every import, as if they were not installed.
HIDE = """
import importlib.machinery, json, sys

hidden = set(json.loads(sys.argv[1]))

class Installed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in hidden:
            return importlib.machinery.PathFinder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(importlib.machinery.PathFinder, name)

machinery = importlib.machinery
sys.meta_path[:] = [machinery.BuiltinImporter, machinery.FrozenImporter, Installed()]
for name in ("tensorflow", "seqio", "mistral_common", "data_pipeline"):
    try:
        __import__(name)
        raise SystemExit(f"{name} can be imported")
    except ModuleNotFoundError:
        pass
"""
JOBS = """
from pathlib import Path
from hare_jax.config import *

run_dir, tasks, items, out = sys.argv[2:6]
from hare_jax.inference import generate_job
generate_job.run(Generation(checkpoint=run_dir, prompt="The hare", max_tokens=4), Path(out))
from hare_jax.evaluation import trace
trace.run(Trace(run_dir=run_dir, step=1, words=2), Path(out))
from hare_jax.evaluation.leakage import audit
audit.run(
    LeakageAudit(
        checkpoint=run_dir, original=items, choices="choices", max_length=96, resamples=100,
        out=out + "/audit",
    ),
    Path(out),
)
if tasks:
    from hare_jax.evaluation.benchmarks import evaluate
    config = BenchmarkEvaluation(
        checkpoint=run_dir, benchmarks=("hares",), task_folders=(tasks,), max_length=96
    )
    written = evaluate.run(config, Path(out))
    assert written["table"].is_file()
else:
    import lm_eval
"""


def installed_by(extras: set[str]) -> set[str]:
    """The top-level modules of all that `pip install -e '.[extras]'` installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pending = [(text, set[str]()) for text in project["dependencies"]]
    for extra in extras:
        pending += [(text, set[str]()) for text in project["optional-dependencies"][extra]]
    known: set[tuple[str, frozenset[str]]] = set()
    while pending:
        text, of_extras = pending.pop()
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": e}) for e in of_extras | {""}):
            continue
        name = _normalized(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key not in known:
            known.add(key)
            requires = importlib.metadata.distribution(name).requires or []
            pending += [(text, set(requirement.extras)) for text in requires]
    names = {name for name, _ in known}
    modules = importlib.metadata.packages_distributions().items()
    return {module for module, of in modules if names & set(map(_normalized, of))}


def hidden_from(extras: set[str]) -> list[str]:
    """All other modules that are installed here, and the package that needs the extra `data`."""
    installed = set(importlib.metadata.packages_distributions())
    return sorted((installed | {"data_pipeline"}) - installed_by(extras) - {"hare_jax"})


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, bake_at: Callable[..., Path]) -> Path:
    """A run's folder with random parameters and a real SentencePiece model."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny_model(PIECES)
    training = Training(stages=[Stage("one", "stage1", 8 * 8 * 16)], batch_size=8)
    baked = PackedDataset(bake_at(folder, vocab_size=PIECES))
    write_config(folder / "training-0", model, training, baked)
    params = jax.jit(lambda: decoder.init(model, 0))()
    checkpoint.save_params(folder / "training-0" / "checkpoints", model, params)
    train_sentencepiece(folder / "training-0", (ROOT / "README.md").read_text("utf-8"))
    return folder / "training-0"


@pytest.mark.parametrize("extras", [set(), {"eval"}], ids=["base", "eval"])
def test_jobs_need_only_their_extras(
    extras: set[str],
    run_dir: Path,
    write_tasks: Callable[[list[dict[str, Any]], dict[str, str]], Path],
    tmp_path: Path,
) -> None:
    pytest.importorskip("lm_eval")
    tasks = str(write_tasks(ROWS, {"hares": TASK})) if extras else ""
    items = write_jsonl(tmp_path / "items.jsonl", ROWS)
    hidden = hidden_from(extras)
    assert "sentencepiece" not in hidden and "tensorflow" in hidden
    arguments = [json.dumps(hidden), *map(str, (run_dir, tasks, items, tmp_path))]
    done = subprocess.run(
        [sys.executable, "-c", HIDE + JOBS, *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "datasets"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if extras:
        assert done.returncode == 0, done.stderr[-3000:]
    else:  # all but the benchmarks, which need the extra
        assert done.stderr.rstrip().endswith("No module named 'lm_eval'"), done.stderr[-3000:]
    assert "The hare" in done.stdout and "pieces of" in done.stdout and "verdict" in done.stdout
