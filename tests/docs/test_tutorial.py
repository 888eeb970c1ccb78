"""docs/tutorial.md: its commands are run, and their output is compared with the page.

    python tests/docs/test_tutorial.py            # runs it, reduced, and rewrites its outputs
    python -m pytest tests/docs/test_tutorial.py  # runs it, reduced, and compares

Blocks of the page that are fenced as `bash` are run, in their order, by one shell. A block fenced
as `text` that follows one is its output. Text, numbers, hashes and times of an output depend on the
Python installation that is read, and are replaced by placeholders before the comparison.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
NEEDED = ("main.py", "configs", "data_pipeline", "hare_jax", "pyproject.toml", "constraints.txt")
SHOWN_FOLDER = "/home/you/hare-jax"  # stands on the page for the folder of the run
# The commands that prepare the environment; the tests have one.
NOT_RUN = ("python3 -m venv", "source .venv", "pip install")
# Settings that the test adds to every command with configs/quickstart.py, so that it takes seconds.
REDUCED = [
    *(
        f"--config.data.sources[{k}].max_documents={n}"
        for k, n in enumerate((80, 60, 200, 80, 150, 200))
    ),
    "--config.data.held_out.max_documents=4",
    "--config.data.held_out.items=6",
    "--config.model.num_layers=1",
    "--config.model.d_model=32",
    "--config.model.num_heads=2",
    "--config.model.num_kv_heads=1",
    "--config.model.head_dim=16",
    "--config.model.d_ff=32",
    "--config.training.stages[0].tokens=20480",
    "--config.training.stages[1].tokens=20480",
    "--config.training.optimizer.warmup_steps=2",
    "--config.evaluation.samples=1",
    "--config.evaluation.sample_tokens=4",
]
BLOCK = re.compile(r"^```(?P<kind>bash|text)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
END = "=== end of block"


@dataclass(frozen=True)
class Step:
    """A block of commands and the output that the page shows for it, None where it shows none."""

    commands: str
    output: str | None


def read_steps(page: str) -> list[Step]:
    """Returns the blocks of commands in their order, each with its output."""
    steps: list[Step] = []
    end_of_commands = -1
    for match in BLOCK.finditer(page):
        if match["kind"] == "bash":
            steps.append(Step(match["body"], None))
            end_of_commands = match.end()
        elif page[end_of_commands : match.start()].strip() == "":
            steps[-1] = Step(steps[-1].commands, match["body"])
    return steps


def is_run(step: Step) -> bool:
    """Returns whether the commands of a step are run, not only shown."""
    return not step.commands.startswith(NOT_RUN)


def with_settings(commands: str, settings: list[str]) -> str:
    """Returns the commands with settings added to those that run configs/quickstart.py."""
    if "--config.training=None" in commands:
        settings = [s for s in settings if not s.startswith("--config.training.")]
    quickstart = "--config=configs/quickstart.py"
    quoted = " ".join(f"'{setting}'" for setting in settings)
    return commands.replace(quickstart, f"{quickstart} {quoted}".strip())


def run_steps(steps: list[Step], folder: Path, settings: list[str]) -> list[str]:
    """Runs the steps in a copy of the project in `folder`.

    Returns:
      The output of each step, standard output and standard error together; "" for one not run.
    """
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    script = ["set -euo pipefail"]
    for step in steps:
        if is_run(step):
            script.append(with_settings(step.commands, settings))
        script.append(f"echo '{END}'")
    result = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / ".datasets"),
            "COLUMNS": "100",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outputs = result.stdout.split(f"{END}\n")
    assert result.returncode == 0, (
        f"step {len(outputs)} of {len(steps)} fails:\n{outputs[-1][-4000:]}"
    )
    return [output.replace(str(folder), SHOWN_FOLDER) for output in outputs[:-1]]


# ---------------------------------------------------------------- what may differ between two runs

# Lines that show progress: how many there are depends on time.
PROGRESS = re.compile(
    r"^(?: *[\w ]+: +\d+%,.* left|step [\d,]+/.*|compiled the train step.*"
    r"|\s+\w+ +(?:held-out text|multiple choice): .*|.*\brequests\b.*left.*)$"
)
PLACEHOLDERS = [
    (re.compile(r"-[0-9a-f]{12}\b"), "-HASH"),
    (re.compile(r"\[(?:\d+:)?\d+:\d\d\]"), "[TIME]"),
    (re.compile(r"\b(?:reference|docs|code|web|law|math|nlp_tasks)/[^\s'\"]+"), "DOCUMENT"),
    # The reasons that occur, most frequent first, and the number of documents of each.
    (re.compile(r"\b(dropped|changed): \w+ [\d,]+(?:, \w+ [\d,]+)*(?:, \.{3})?"), r"\1: REASONS"),
    (re.compile(r"[-+±]?\b\d[\d,]*(?:\.\d+)?(?:e-?\d+)?%?"), "N"),
    (re.compile(r"\bN (?:[kMG]B?|B)\b"), "N"),  # a unit that follows from the number
    (re.compile(r"-{3,}"), "---"),  # the rule of a table, as long as its column is wide
    (re.compile(r"[ \t]+"), " "),
]


def normalize(output: str) -> list[str]:
    """Returns the lines of an output without progress, numbers, hashes, times and text names."""
    lines = []
    for line in output.splitlines():
        if PROGRESS.match(line):
            continue
        for pattern, placeholder in PLACEHOLDERS:
            line = pattern.sub(placeholder, line)
        if line.strip():
            lines.append(line.strip())
    return lines


def without_progress(output: str) -> str:
    """Returns an output without the lines that show progress, as the page shows it."""
    kept = [line.rstrip() for line in output.splitlines() if not PROGRESS.match(line)]
    return "\n".join(kept).strip("\n") + "\n"


def write_outputs(page: str, steps: list[Step], outputs: list[str]) -> str:
    """Returns the page with the outputs of a run in place of those that it shows."""
    for step, output in zip(steps, outputs, strict=True):
        if step.output is not None:
            old = f"```bash\n{step.commands}```\n\n```text\n{step.output}```"
            new = f"```bash\n{step.commands}```\n\n```text\n{without_progress(output)}```"
            assert page.count(old) == 1, step.commands
            page = page.replace(old, new)
    return page


PROMPT = (
    "The function returns"  # of the step that generates text, which no two models continue alike
)


def test_every_block_has_an_output() -> None:
    steps = read_steps(PAGE.read_text(encoding="utf-8"))
    assert len(steps) > 10
    for step in steps:
        assert (step.output is None) is not is_run(step), step.commands
        assert step.output is None or step.output.strip(), f"run {__file__}:\n{step.commands}"


@pytest.mark.slow
def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    steps = read_steps(PAGE.read_text(encoding="utf-8"))
    outputs = run_steps(steps, tmp_path, REDUCED)
    for step, output in zip(steps, outputs, strict=True):
        if step.output is None:
            continue
        shown, printed = normalize(step.output), normalize(output)
        if PROMPT in step.commands:  # the text is between the prompt and the line about speed
            assert shown[0].startswith(PROMPT) and printed[0].startswith(PROMPT)
            shown, printed = shown[-1:], printed[-1:]
        assert printed == shown, step.commands


def test_normalized_lines_keep_words() -> None:
    line = "clean: 60 in, 41 kept (1.2 MB -> 830.0 kB), dropped: too_short 19  [0:07]"
    assert normalize(line) == ["clean: N in, N kept (N -> N), dropped: REASONS [TIME]"]
    assert normalize("ls runs/read-0123456789ab") == ["ls runs/read-HASH"]
    assert normalize("  read: 45%, 1.1 MB/s, 0:14 left") == []
    assert normalize("already complete: step 400") != normalize("complete: step 400")


def main() -> None:
    """Runs the tutorial at a reduced size and rewrites the outputs of the page."""
    page = PAGE.read_text(encoding="utf-8")
    steps = read_steps(page)
    with tempfile.TemporaryDirectory() as folder:
        outputs = run_steps(steps, Path(folder).resolve(), REDUCED)
    PAGE.write_text(write_outputs(page, steps, outputs), encoding="utf-8")


if __name__ == "__main__":
    main()
