"""Every command that a page or a docstring shows is run, or is held to a reason in HELD.

Pages are README.md, CONTRIBUTING.md and docs/*.md; docstrings are those of all product modules. The
commands of docs/tutorial.md are run by test_tutorial.py.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ROOT, prose, write_jsonl

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    path
    for folder in ("configs", "benchmarks", "data_pipeline", "hare_jax")
    for path in (ROOT / folder).rglob("*.py")
)
RUN_BY_OTHER_TEST = {"docs/tutorial.md"}

# ---------------------------------------------------------------- commands of a text

PROGRAMS = (
    r"/usr/bin/time|cd|docker|gcloud|git|llama-server|ls|make|mkdocs|mypy|nice|pip|pre-commit|pytest"
    r"|python|python3|ruff|srun|tensorboard|time|vllm|wandb"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{PROGRAMS}) \S|source \S*activate$")
OPTION = re.compile(r"""['"]?--[a-z]""")  # a line of settings to be added to a command
FENCE = re.compile(r"^ *```(\w*)")
INLINE = re.compile(r"`([^`\n]+)`")
SHELL = ("", "bash", "console", "sh", "shell", "text")  # languages of blocks with commands


@dataclass(frozen=True)
class Command:
    """A command or a line of settings, in one line and without comment, and where it is shown."""

    file: str
    text: str


def blocks(text: str) -> Iterator[list[str]]:
    """Yields the lines of each fenced or indented block that may contain commands."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if fence := FENCE.match(lines[at]):
            end = next(k for k in range(at + 1, len(lines)) if FENCE.match(lines[k]))
            if fence[1] in SHELL:
                yield lines[at + 1 : end]
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield lines[at:end]
            at = end
        else:
            at += 1


def commands_in(text: str) -> Iterator[str]:
    """Yields the commands of a page or docstring: those of blocks, then those inside sentences."""
    for block in blocks(text):
        joined = "\n".join(line.strip() for line in block).replace("\\\n", " ")
        for line in joined.split("\n"):
            # A comment, or an explanation that stands two spaces to the right.
            line = re.split(r"\s+#\s|\s{2,}(?!--|')", line.strip())[0]
            line = re.sub(r"\s+", " ", line)
            if COMMAND.match(line) or OPTION.match(line):
                yield line
    for span in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if COMMAND.match(span) or span.startswith("--config."):
            yield span


def docstrings_in(path: Path) -> Iterator[str]:
    """Yields the docstrings of a module, of its classes and of its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node)):
            yield docstring


def collect() -> list[Command]:
    """Returns all commands that the project shows, each once per file."""
    found: dict[Command, None] = {}
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if name not in RUN_BY_OTHER_TEST:
            for text in commands_in(page.read_text(encoding="utf-8")):
                found[Command(name, text)] = None
    for path in [ROOT / "main.py", *MODULES]:
        for docstring in docstrings_in(path):
            for text in commands_in(docstring):
                found[Command(str(path.relative_to(ROOT)), text)] = None
    return list(found)


COMMANDS = collect()
IDS = [f"{Path(command.file).name}: {command.text[:60]}" for command in COMMANDS]

# ---------------------------------------------------------------- what is done with each

# A command that matches is not run, for this reason. Its settings, options, extras, targets and
# files are checked nevertheless, by the tests below.
HELD = {
    r"make .*": "creates .venv and installs packages; .ci/run runs the targets",
    r"(/usr/bin/)?time (-v )?make .*": "creates .venv and installs packages; .ci/run runs it",
    r"pip install .*": "installs packages; the extras that it names are checked",
    r"source \.venv/bin/activate": "the environment of the tests is active",
    r"pip install pre-commit .*": "installs packages and git hooks",
    r"tensorboard .*": "a server that does not end; the extra that brings it is checked",
    r"wandb sync": "needs an account of Weights & Biases",
    r"vllm serve MODEL|llama-server -m model\.gguf": "a server of another project",
    r"gcloud .*": "needs a TPU pod",
    r"srun .*": "needs a Slurm cluster",
    r".*--config\.distributed\.coordinator=.*": (
        "needs two hosts; tests/hare_jax/runtime/test_two_processes.py starts two processes"
    ),
    r".*--config\.training\.continue_from=RUN.*": (
        "needs a long run; tests/hare_jax/training/test_identity.py continues a small one"
    ),
    r".*configs/aot\.py:.*": "needs the extra tpu or gpu; tests/hare_jax/aot compiles for the CPU",
    r".*configs/paraphrase\.py.*": (
        "needs a teacher; tests/data_pipeline/test_paraphrase_job.py starts one"
    ),
    r".*configs/curate_hare\.py:DIR .*teacher.*": (
        "needs two teachers and 19 sources; the same config is run without teachers, as its page "
        "shows, by test_the_papers_recipe_runs_on_what_is_there"
    ),
    r".*configs/my_corpus\.py.*": "a config of the reader; tests/data_pipeline/execution runs Beam",
    r".*--help": "run by test_help_prints_the_config",
    r".*\bbenchmarks[./].*": (
        "measures for minutes on large data; tests/benchmarks run the scripts on small data; "
        "options are checked by test_benchmarks_have_the_options"
    ),
    r"python (peers|torch_trainer)\.py .*": "started by benchmarks/curation.py and train_speed.py",
    r"python tests/docs/test_tutorial\.py": "rewrites a page; test_tutorial.py runs the same",
    r"python -m timeit .*": "measures a speed; nothing of the project takes part",
    r"python -m data_pipeline\.mixture\.download (gs|s3)://.*": (
        "needs a bucket; tests/data_pipeline/mixture has one on loopback"
    ),
    r"['\"]?--.*": "settings to be added to a command; the fields and values are checked",
}

SMALL_DATA = (
    *(
        f"--config.data.sources[{k}].max_documents={n}"
        for k, n in enumerate((30, 30, 30, 30, 30, 90))
    ),
    "--config.data.held_out.max_documents=4",
    "--config.data.held_out.items=4",
    "--config.data.baking.sequence_length=128",
    "--config.data.workers=1",
)
SMALL_MODEL = (
    "--config.model.num_layers=1",
    "--config.model.d_model=32",
    "--config.model.num_heads=2",
    "--config.model.num_kv_heads=1",
    "--config.model.head_dim=16",
    "--config.model.d_ff=32",
)
SMALL_TRAINING = (
    "--config.training.stages[0].tokens=5120",
    "--config.training.stages[1].tokens=5120",
    "--config.training.optimizer.warmup_steps=2",
    "--config.training.log_every=2",
    "--config.evaluation.samples=1",
    "--config.evaluation.sample_tokens=4",
)
ONE_STAGE = (
    *SMALL_MODEL,
    "--config.training.stages[0].tokens=2048",
    "--config.training.batch_size=8",
    "--config.training.optimizer.warmup_steps=1",
    "--config.training.loss_chunks=4",
)
NO_TRAINING = ("--config.training=None", "--config.data.workers=1")


@dataclass(frozen=True)
class Rule:
    """How the commands that match `pattern` are run: with these words replaced, and settings added.

    Words of `replace` stand for files of the reader; {names} in their replacements are those of the
    fixture `world`.
    """

    pattern: str
    replace: dict[str, str] = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()


RULES = [
    Rule(
        r"python main\.py --config=configs/quickstart\.py --workdir=runs/quickstart",
        settings=(*SMALL_DATA, *SMALL_MODEL, *SMALL_TRAINING),
    ),
    Rule(
        r".*--config\.data\.decontamination\.item_share=.*",
        settings=(*SMALL_DATA, "--config.training=None"),
    ),
    Rule(
        r".*configs/quickstart\.py .*in_loop.*",
        {"FOLDER": "{offline}"},
        (*SMALL_DATA, *SMALL_MODEL, *SMALL_TRAINING, "--config.training.in_loop.limit=4"),
    ),
    Rule(
        r".*configs/corpora\.py:(DIR|FOLDER).*",
        {
            "DIR": "{texts}",
            "FOLDER": "{texts}",
            "TASKS": "{tasks}",
            "BENCHMARKS": "{benchmarks}",
            # Training of it is shown by other commands.
            "--config.training.stages[0].tokens=1_600_000": "",
            "--config.training.stages[1].tokens=2_400_000": "",
            "--config.training=None": "",
        },
        NO_TRAINING,
    ),
    Rule(
        r".*configs/hare_1b\.py:MIXTURE.*",
        {"MIXTURE": "{mixture}"},
        (*ONE_STAGE, "--config.training.stages[1].tokens=2048"),
    ),
    Rule(r".*configs/hare_250m\.py:MIXTURE.*", {"MIXTURE": "{mixture}"}, ONE_STAGE),
    Rule(
        r".*configs/evaluate\.py .*",
        {
            "evaluate.py": "evaluate.py:arc_easy",
            "RUN_DIR": "{run}",
            "=DIR": "={run}",
            "--config.data=data/benchmarks": "",
        },
        ("--config.data={offline}", "--config.limit=4"),
    ),
    Rule(
        r".*configs/evaluate\.py:.*",
        {"hellaswag,piqa": "arc_easy,boolq", "=DIR": "={run}", "data/benchmarks": "{offline}"},
        ("--config.limit=4",),
    ),
    Rule(r".*configs/benchmarks\.py:SOURCE.*", {"SOURCE": "{benchmarks}"}),
    Rule(
        r".*configs/compare\.py:.*",
        {"A,B": "{scores}", "runs/a,runs/b/scores-0123456789ab.json": "{scores}"},
    ),
    Rule(
        r".*configs/audit\.py.*",
        {
            "RUN_DIR": "{run}",
            "gsm8k_test.jsonl": "{items}/gsm8k_original.jsonl",
            "gsm8k_test_rewritten.jsonl": "{items}/gsm8k_rewritten_1.jsonl",
            "gsm8k/test_original.jsonl": "{items}/gsm8k_original.jsonl",
            "gsm8k/train_original.jsonl": "{items}/gsm8k_original.jsonl",
            "gsm8k/test_rewritten_*.jsonl": "{items}/gsm8k_rewritten_*.jsonl",
            "gsm8k/train_rewritten_*.jsonl": "{items}/gsm8k_rewritten_*.jsonl",
            "runs/paraphrased/gsm8k_test_rewritten_*.jsonl": "{items}/gsm8k_rewritten_*.jsonl",
        },
    ),
    Rule(
        r".*configs/generate\.py.*",
        {"RUN_DIR": "{run}", "=RUN": "={run}", ":RUN": ":{run}"},
        ("--config.max_tokens=8",),
    ),
    Rule(
        r".*configs/export_(hf|gguf)\.py:.*",
        {"RUN_DIR": "{run}", ":RUN": ":{run}", "checkpoints/4000": "checkpoints/{step}"},
    ),
    Rule(r".*configs/import_hf\.py:.*", {"FOLDER": "{exported}", ":DIR": ":{exported}"}),
    Rule(
        r".*configs/trace\.py:.*",
        {
            "runs/real/training-HASH": "{run}",
            "RUN_DIR": "{run}",
            "step=500": "step=2",
            "last_step=1234": "last_step=2",
            "step=1234": "step=2",
            "step=1200": "step=1",
        },
    ),
]


def held_reason(command: str) -> str | None:
    """Returns the reason for which a command is not run, or None."""
    reasons = (reason for pattern, reason in HELD.items() if re.fullmatch(pattern, command))
    return next(reasons, None)


def rule_of(command: str) -> Rule | None:
    """Returns the first rule that matches a command, or None."""
    return next((rule for rule in RULES if re.fullmatch(rule.pattern, command)), None)


def applied(rule: Rule, command: str, world: dict[str, str]) -> list[str]:
    """Returns the words of the command that is run in place of `command`."""
    words = shlex.split(command)
    for old in sorted(rule.replace, key=len, reverse=True):
        new = rule.replace[old].format(**world)
        before = r"(?<![A-Za-z_])" if old[0].isalpha() else ""
        pattern = re.compile(rf"{before}{re.escape(old)}(?![A-Za-z_])")
        words = [new.join(pattern.split(word)) for word in words]
    return [w for w in words if w] + [setting.format(**world) for setting in rule.settings]


# ---------------------------------------------------------------- cheap checks of all of them


def test_every_command_is_run_or_held() -> None:
    unknown = [
        f"{command.file}: {command.text}"
        for command in COMMANDS
        if held_reason(command.text) is None and rule_of(command.text) is None
    ]
    assert not unknown, "add a rule to RULES, or a reason to HELD:\n" + "\n".join(unknown)


def test_no_rule_or_reason_is_left_over() -> None:
    texts = [command.text for command in COMMANDS]
    unused = [p for p in HELD if not any(re.fullmatch(p, text) for text in texts)]
    unused += [rule.pattern for rule in RULES if not any(rule_of(text) is rule for text in texts)]
    assert not unused


def test_commands_are_found_in_all_kinds_of_text() -> None:
    page = (
        "Run\n\n    python a.py \\\n      --b=1   # why\n    make c    what it is\n\n"
        "or `pip install d`.\n\n```bash\nmake e\n```\n\n```python\nmake = 1\n```\n"
    )
    assert list(commands_in(page)) == ["python a.py --b=1", "make c", "make e", "pip install d"]


PARSER = """
import json, os, sys
from configs import command_line

for line in sys.stdin:
    argv = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1), os.dup2(write, 2)
        sys.argv = argv
        try:
            command_line.parse(argv)
        except SystemExit as ended:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(ended.code or 0)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        output = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, output]), flush=True)
"""
Parse = Callable[[list[str]], tuple[int, str]]


@pytest.fixture(scope="module")
def parse() -> Iterator[Parse]:
    """Yields a function from arguments of main.py to exit status and output; nothing is run."""
    with subprocess.Popen(
        [sys.executable, "-c", PARSER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(arguments: list[str]) -> tuple[int, str]:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(["main.py", *arguments]) + "\n")
            process.stdin.flush()
            status, output = json.loads(process.stdout.readline())
            return status, output

        yield ask
        assert process.stdin is not None
        process.stdin.close()


def arguments_of(command: str, folder: Path) -> list[str]:
    """Returns the arguments of main.py in a command, with folders where a page requires some."""
    words = shlex.split(command)
    words = words[words.index("main.py") + 1 :]
    replaced = {
        "corpora.py:DIR": f"corpora.py:{folder}",
        "corpora.py:FOLDER": f"corpora.py:{folder}",
        "curate_hare.py:DIR": f"curate_hare.py:{folder}",
        "configs/my_corpus.py": "configs/quickstart.py",
        "FIELD=VALUE": "training.batch_size=8",
    }
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    return words


def jobs() -> list[str]:
    """Returns the config pages, each with an argument if it requires one."""
    pages = (
        path for path in (ROOT / "configs").glob("*.py") if "def get_config" in path.read_text()
    )
    needed = {
        "aot": ":v5e-8",
        "corpora": f":{ROOT}",
        "curate_hare": f":{ROOT}",
        "trace": ":RUN_DIR",
    }
    needed |= {"hare_1b": ":MIXTURE", "hare_250m": ":MIXTURE"}
    return sorted(f"configs/{path.name}{needed.get(path.stem, '')}" for path in pages)


MAIN_COMMANDS = [command for command in COMMANDS if re.search(r"python main\.py ", command.text)]
SETTINGS = [
    command
    for command in COMMANDS
    if OPTION.match(command.text) and command.text.lstrip("'\"").startswith("--config.")
]


def test_commands_of_main_can_be_parsed(parse: Parse, tmp_path: Path) -> None:
    assert len(MAIN_COMMANDS) > 40
    wrong = []
    for command in MAIN_COMMANDS:
        text = re.sub(r".*--command='cd hare-jax && (.*)'$", r"\1", command.text)  # gcloud
        status, output = parse(arguments_of(text, tmp_path))
        if status != 0:
            wrong.append(f"{command.file}: {command.text}\n    {output.strip()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_settings_can_be_parsed(parse: Parse) -> None:
    """Settings without a command belong to the config of their page, or else to some config."""
    assert len(SETTINGS) > 20
    wrong = []
    for command in SETTINGS:
        words = arguments_of(f"main.py {command.text}", ROOT)
        if "=" not in command.text:  # a field that is named without a value
            words.append("--help")
        own = [job for job in jobs() if command.file.startswith(job.partition(":")[0])]
        outputs = {job: parse([f"--config={job}", *words]) for job in own}
        if not any(status == 0 for status, _ in outputs.values()):
            outputs |= {job: parse([f"--config={job}", *words]) for job in jobs()}
        if not any(status == 0 for status, _ in outputs.values()):
            outputs_of_others = {o.strip() for _, o in outputs.values() if "no field" not in o}
            wrong.append("\n    ".join([f"{command.file}: {command.text}", *outputs_of_others]))
    assert not wrong, "\n".join(wrong)


def test_help_prints_the_config(parse: Parse) -> None:
    shown = [command for command in COMMANDS if command.text.endswith(" --help")]
    assert shown
    for command in shown:
        status, output = parse(shlex.split(command.text)[2:])
        assert status == 0 and "optimizer" in output, command


def test_benchmarks_have_the_options() -> None:
    scripts = (ROOT / "benchmarks").glob("*.py")  # some options are defined in a shared module
    source = "".join(script.read_text(encoding="utf-8") for script in scripts)
    for command in COMMANDS:
        if match := re.search(r"\bbenchmarks[./](\w+)(?:\.py)?( .*)?$", command.text):
            assert (ROOT / "benchmarks" / f"{match[1]}.py").is_file(), command
            for option in re.findall(r"(?<![\w-])--([\w-]+)", match[2] or ""):
                assert re.search(rf"""["'](--)?{option}["']""", source), f"{command}: --{option}"


def test_extras_and_targets_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for page in [*PAGES, ROOT / "main.py", *MODULES]:
        text = page.read_text(encoding="utf-8")
        for names in re.findall(r"\bpip install [^\n]*?\.\[([\w,]+)\]", text):
            assert set(names.split(",")) <= extras, f"{page}: {names}"
    for command in COMMANDS:
        if match := re.search(r"\bmake ([a-z -]+)(?: [A-Z]+=.*)?$", command.text):
            assert set(match[1].split()) <= targets, command


# ---------------------------------------------------------------- fields, paths and Python of pages


def field_paths(kind: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted paths of all fields below a dataclass: "optimizer.peak_lr"."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        inner = [hints[field.name], *typing.get_args(hints[field.name])]
        for one in inner:
            if dataclasses.is_dataclass(one):
                yield from field_paths(one, f"{prefix}{field.name}.")


def config_classes() -> dict[str, Any]:
    """Returns the dataclasses and enums of all config modules by name."""
    import configs.experiment
    import data_pipeline.config
    import hare_jax.config

    modules = (data_pipeline.config, hare_jax.config, configs.experiment)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if dataclasses.is_dataclass(value)
        or (isinstance(value, type) and issubclass(value, enum.Enum))
    }


def test_fields_that_pages_name_exist() -> None:
    """`optimizer.peak_lr`, `training.max_epochs`: the end of the path of some field."""
    tails = set()
    for kind in filter(dataclasses.is_dataclass, config_classes().values()):
        for path in field_paths(kind):
            parts = path.split(".")
            tails |= {".".join(parts[k:]) for k in range(len(parts))}
    # The part of a job's config in front of them is not the name of a field.
    beginnings = {"data", "training", "model", "evaluation", "teacher", "config"}
    dotted = re.compile(r"([a-z_]+(?:\.[a-z_0-9]+)+)(?:=[^`]*)?")
    other = re.compile(
        r".*\.(py|md|json|jsonl|html|svg|toml|npz|gguf|model|txt|sqlite|cpp)"
        r"|(jax|numpy|seqio|data_pipeline|hare_jax|configs|benchmarks|tests|apache)\..*"
    )
    wrong = []
    for page in PAGES:
        if page.name in ("comparison.md", "CHANGELOG.md"):  # names of other projects, and old ones
            continue
        for span in INLINE.findall(page.read_text(encoding="utf-8")):
            match = dotted.fullmatch(span)
            if match is None or other.fullmatch(match[1]):
                continue
            first, _, rest = match[1].partition(".")
            if match[1] not in tails and not (first in beginnings and rest in tails):
                wrong.append(f"{page.name}: {span}")
    assert not wrong, "\n".join(wrong)


def test_paths_that_pages_name_exist() -> None:
    folders = "|".join(p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("."))
    path = re.compile(rf"((?:{folders})/[\w./-]*\w/?)(?::\w+)?")
    reader = re.compile(  # files of the reader, and of a run
        r"runs/.*|data/.*|build/site.*|docs/api/.*|configs/my_corpus\.py"
        r"|benchmarks/NAME.*"  # curves of trackers
    )
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        spans = [*INLINE.findall(text), *re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
        for span in spans:
            if span.startswith("../"):
                span = span[3:]
            match = path.fullmatch(span)
            if match and not reader.fullmatch(match[1]) and not (ROOT / match[1]).exists():
                wrong.append(f"{page.name}: {span}")
    assert not wrong, "\n".join(wrong)


def test_python_of_pages_fits_the_configs() -> None:
    """Classes, fields and values of config classes in ```python blocks exist."""
    kinds = config_classes()
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    name = node.func.id
                    if name in kinds:
                        known = {field.name for field in dataclasses.fields(kinds[name])}
                        given = {word.arg for word in node.keywords if word.arg}
                        wrong += [f"{page.name}: {name}({w}=)" for w in given - known]
                    elif name[0].isupper():
                        wrong.append(f"{page.name}: {name}")
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    kind = kinds.get(node.value.id)
                    if kind is not None and not hasattr(kind, node.attr):
                        wrong.append(f"{page.name}: {node.value.id}.{node.attr}")
    assert not wrong, "\n".join(wrong)


def test_modules_that_the_changelog_names_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    modules = text[text.index("#### Modules") : text.index("### Fixed")]
    rows = re.findall(r"^\| (`.*`) \| (`.*`) \|$", modules, re.MULTILINE)
    assert len(rows) > 100
    for old, new in rows:
        assert not _module_exists(old.strip("`")), f"{old} is listed as moved"
        for name in re.findall(r"`([\w.]+)`", new):
            assert _module_exists(name), f"{old} -> {name}"


def _module_exists(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_modules_that_pages_name_print_help() -> None:
    """`python -m MODULE --help`; that of benchmarks is tested in tests/benchmarks."""
    texts = " ".join(command.text for command in COMMANDS)
    modules = set(re.findall(r"python -m ([\w.]+)", texts)) - {"timeit", "http.server"}
    others = {name for name in modules if not name.startswith("benchmarks.")}
    assert others == {"data_pipeline.mixture.download"}
    for name in others:
        result = subprocess.run(
            [sys.executable, "-m", name, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0 and name in result.stdout, result.stderr


# ---------------------------------------------------------------- the commands themselves

NOUNS = ("river", "valley", "garden", "bridge", "teacher", "village", "harbor", "winter", "letter")
VERBS = ("shows", "explains", "carries", "measures", "follows", "protects", "changes", "repairs")


def write_inputs(folder: Path) -> dict[str, str]:
    """Writes what readers bring themselves; returns the path of each."""
    paths = {n: folder / n for n in ("texts", "tasks", "benchmarks", "items", "papers_sources")}
    for source in ("web", "wiki"):
        rows = [{"text": prose(f"{source} {k}", 12), "title": prose(f"{k}", 1)} for k in range(40)]
        write_jsonl(paths["texts"] / f"{source}.jsonl", rows)
        write_jsonl(paths["papers_sources"] / source / "a.jsonl", rows)
    asked = [{"instruction": f"Add {k} and 5.", "output": f"It is {k + 5}."} for k in range(30)]
    write_jsonl(paths["tasks"] / "alpaca.jsonl", asked)
    for split in ("train", "test"):
        questions = [
            {
                "id": f"{split} {k}",
                "question": f"{prose(f'{split} {k}', 1)} How many?",
                "choices": {"text": ["seven", "ten", "two"], "label": ["A", "B", "C"]},
                "answerKey": "ABC"[k % 3],
            }
            for k in range(8)
        ]
        write_jsonl(paths["benchmarks"] / "arc_easy" / f"{split}.jsonl", questions)
        for name in ("arc_easy", "arc_challenge"):
            write_jsonl(paths["papers_sources"] / "benchmarks" / name / f"{split}.jsonl", questions)
    yes_or_no = [
        {"question": "is it so", "passage": prose(f"boolq {k}", 3), "label": k % 2, "idx": k}
        for k in range(8)
    ]
    for split in ("train", "validation"):
        write_jsonl(paths["benchmarks"] / "boolq" / f"{split}.jsonl", yes_or_no)
    pairs = [
        {
            "question": f"{prose(f'audit {k}', 1)} How many are there?",
            "answer": f"There are {k} of them.\n#### {k}",
        }
        for k in range(24)
    ]
    write_jsonl(paths["items"] / "gsm8k_original.jsonl", pairs)
    sentence, choices = prose("an item", 1), ["seven", "ten", "two", "none"]
    answers = {"choices": choices, "labels": [1, 0, 0, 0]}
    rows_of_others: dict[str, dict[str, Any]] = {
        "gsm8k": pairs[0],
        "mmlu": {"question": sentence, "subject": "history", "choices": choices, "answer": 0},
        "truthfulqa": {"question": sentence, "mc1_targets": answers, "mc2_targets": answers},
        "winogrande": {"sentence": f"{sentence} _ was it.", "option1": "He", "option2": "She"},
        "hellaswag": {"ctx": sentence, "endings": choices, "label": 1},
    }
    for name, row in rows_of_others.items():
        write_jsonl(paths["papers_sources"] / "benchmarks" / name / "test.jsonl", [row])
    paraphrases = [
        row
        | {"rewritten_question": f"How many? {row['question']}", "rewritten_answer": row["answer"]}
        for row in pairs
    ]
    write_jsonl(paths["items"] / "gsm8k_rewritten_1.jsonl", paraphrases)
    return {name: str(path) for name, path in paths.items()}


class World:
    """A working folder in which commands are run, and the files that readers have there."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        """Writes the inputs and links the project into the folder."""
        self.folder, self._process = folder, process
        for name in ("main.py", "configs", "data_pipeline", "hare_jax", "benchmarks"):
            (folder / name).symlink_to(ROOT / name)
        self.paths = write_inputs(folder)
        self.number = 0

    def run(self, argv: list[str]) -> str:
        """Runs `python ARGV` and returns what it prints; fails if its exit status is not 0."""
        self.number += 1
        log = self.folder / f"{self.number}.log"
        request = {"argv": argv, "cwd": str(self.folder), "log": str(log)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        printed = log.read_text(encoding="utf-8")
        assert status == 0, f"{shlex.join(argv)}\nended with {status}:\n{printed[-4000:]}"
        return printed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a trained model, its mixture, prepared benchmarks, scores and an export."""
    folder = tmp_path_factory.mktemp("reader")
    variables = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / ".datasets"),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forking_runner.py"))],
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        world = World(folder, process)
        quickstart = ["main.py", "--config=configs/quickstart.py", "--workdir=runs/quickstart"]
        world.run([*quickstart, *SMALL_DATA, *SMALL_MODEL, *SMALL_TRAINING])
        (run,) = folder.glob("runs/quickstart/training-*")
        (mixture,) = folder.glob("runs/quickstart/data/mixture-*")
        (step,) = (path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit())
        world.paths |= {"run": str(run), "mixture": str(mixture), "step": step}
        job = f"--config=configs/benchmarks.py:{world.paths['benchmarks']}"
        world.run(["main.py", job, f"--config.out={folder}/offline"])
        world.run(
            ["main.py", f"--config=configs/export_hf.py:{run}", f"--config.out={folder}/exported"]
        )
        world.paths |= {n: str(folder / n) for n in ("offline", "exported", "scores")}
        evaluate = [
            "main.py",
            "--config=configs/evaluate.py:arc_easy",
            f"--config.checkpoint={run}",
        ]
        world.run([*evaluate, f"--config.data={folder}/offline", f"--workdir={folder}/scores"])
        yield world
        assert process.stdin is not None
        process.stdin.close()


RUN = [command for command in COMMANDS if held_reason(command.text) is None]


@pytest.mark.slow
@pytest.mark.parametrize("text", dict.fromkeys(command.text for command in RUN))
def test_commands_run(text: str, world: World) -> None:
    rule = rule_of(text)
    assert rule is not None
    words = applied(rule, text, world.paths)
    for word in words:  # results of other commands of the same name
        if match := re.match(r"--config\.out=(.*)", word):
            words[words.index(word)] = f"--config.out=out-{world.number}/{match[1]}"
    printed = world.run(words[words.index("python") + 1 :])
    assert "Traceback" not in printed


@pytest.mark.slow
def test_the_papers_recipe_runs_on_what_is_there(world: World) -> None:
    """configs/curate_hare.py with the settings that its docstring gives for missing sources."""
    page = ast.get_docstring(ast.parse((ROOT / "configs" / "curate_hare.py").read_text("utf-8")))
    settings = [text for text in commands_in(str(page)) if OPTION.match(text)]
    assert any("allow_missing" in text for text in settings)
    command = ["main.py", f"--config=configs/curate_hare.py:{world.paths['papers_sources']}"]
    command += [word for text in settings for word in shlex.split(text)]
    world.run(
        [
            *command,
            "--workdir=runs/hare",
            "--config.data.workers=1",
        ]
    )
