"""The command line: --config, its overrides, --help, and mistakes reported in one line each."""

from __future__ import annotations

import difflib
import fcntl
import importlib.util
import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from configs import config_tree

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job: a file of configs/, e.g. configs/quickstart.py", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/default", "The folder for all output; an interrupted run in it is continued"
)
EXAMPLE = "python main.py --config=configs/quickstart.py --workdir=runs/quickstart"
DEFAULT_CONFIG = "configs/quickstart.py"  # the fields that --help prints where no --config is given
NO_PAGES = {"__init__", "command_line", "config_tree", "experiment", "jobs"}  # files without a job
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
HELP = """\
  --config=FILE[:ARGUMENT]  the job: a page of Python, such as those in configs/ (required)
  --config.FIELD=VALUE      sets a field: --config.training.optimizer.peak_lr=5e-4
                            an element of a list: --config.training.stages[0].tokens=1000000
                            an entry of a dict, which may be new: --config.data.budgets.stage1=1e9
                            a tuple, by one flag per element: --config.x=a --config.x=b
  --workdir=DIR             the folder for all output (runs/default)
  --help                    this page; --config.training --help prints one part of the config
"""


def refuse(message: str, status: int = 2) -> NoReturn:
    """Prints one line and ends the program with an exit status."""
    print(f"main.py: {message}", file=sys.stderr)
    raise SystemExit(status)


def parse(argv: list[str]) -> list[str]:
    """Reads the flags: `app.run(main, flags_parser=parse)`.

    Whatever is wrong with them is reported before any work starts.
    """
    wants_help = any(re.fullmatch(r"--?(h|help|helpfull|helpshort)", a) for a in argv[1:])
    given = [m.group(1) for a in argv if (m := re.fullmatch(r"--?config=(.*)", a))]
    if given:
        _check_file(given[-1])
    parts = [m.group(1) for a in argv if (m := re.fullmatch(r"--?config\.([^=]+)", a))]
    if wants_help:
        argv = [a for a in argv if not re.fullmatch(r"--?(h|help|helpfull|helpshort)", a)]
        argv = [a for a in argv if not re.fullmatch(r"--?config\.[^=]+", a)]
        if not given:
            argv.append(f"--config={DEFAULT_CONFIG}")
            given = [DEFAULT_CONFIG]
    new_entries, argv = _split_new_entries(argv, given[-1] if given else "")
    flags.FLAGS["config"].parser.parse = _load  # type: ignore[method-assign]
    typed, sys.argv = sys.argv, argv  # where ml_collections looks for overrides
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        refuse(_explain(error, argv, given))
    finally:
        sys.argv = typed
    for path, value in new_entries:
        _set_entry(CONFIG.value, path, value)
    if wants_help:
        _print_help(parts[-1] if parts else "")
        raise SystemExit(0)
    if len(rest) > 1:
        refuse(f"stray argument {rest[1]!r}: write an override as --config.FIELD=VALUE")
    if not given:
        refuse(f"--config is required, for example: {EXAMPLE}")
    return rest


def _print_help(path: str) -> None:
    """Prints the usage and the configuration, or only its part at `path`, as a tree."""
    try:
        tree = config_tree.describe(CONFIG.value, re.findall(r"\w+", path))
    except LookupError:
        refuse(f"--config.{path}: {_find_unknown_field(CONFIG.value, path)}")
    summary = sys.modules["__main__"].__doc__ or "hare-jax"
    usage = "" if path else f"{summary.splitlines()[0]}\n\n    {EXAMPLE}\n\n{HELP}\n"
    try:
        print(f"{usage}{tree}", flush=True)
    except BrokenPipeError:  # `--help | head` reads a part only
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cache
def _load(config: str) -> Any:
    """Returns the configuration of `configs/corpora.py:DIR`; runs the page only the first time.

    The flags set their overrides in the same object.
    """
    file, _, argument = config.partition(":")
    loader = SourceFileLoader("config_page", file)
    spec = importlib.util.spec_from_loader("config_page", loader)
    assert spec is not None
    page = importlib.util.module_from_spec(spec)
    sys.modules["config_page"] = page  # classes of the page can be pickled
    loader.exec_module(page)
    return page.get_config(*[argument] if argument else [])


def _check_file(config: str) -> None:
    """Ends the program if the file of a config is missing or raises."""
    file = config.partition(":")[0]
    if Path(file).is_file():
        try:
            _load(config)
        except Exception as error:  # whatever a config's own code may raise
            refuse(f"{file}: {' '.join(str(error).split())} ({type(error).__name__})")
        return
    known = sorted(str(p) for p in Path("configs").rglob("*.py") if p.stem not in NO_PAGES)
    close = difflib.get_close_matches(file, known, n=1)
    refuse(f"--config: there is no file {file!r}{_did_you_mean(close)}")


def _split_new_entries(
    argv: list[str], config: str
) -> tuple[list[tuple[list[str], str]], list[str]]:
    """Takes overrides that add an entry to a dict out of the flags, which only know old entries.

    Returns:
      ([(path, value as text)], the other arguments)
    """
    new, others = [], []
    node = _load(config) if config else None
    for argument in argv:
        match = re.fullmatch(r"--?config\.([^=]+)=(.*)", argument, re.DOTALL)
        path = re.findall(r"\w+", match.group(1)) if match else []
        if match and node is not None and _adds_entry(node, path):
            new.append((path, match.group(2)))
        else:
            others.append(argument)
    return new, others


def _adds_entry(node: Any, path: list[str]) -> bool:
    for position, name in enumerate(path):
        if isinstance(node, dict) and name not in node:
            return position >= len(path) - 2  # `mixtures.stage1.web` may add two levels
        try:
            node, _ = config_tree.step_into(node, name)
        except LookupError:
            return False
    return False


def _set_entry(node: Any, path: list[str], text: str) -> None:
    """Sets config[path] = text, as the type that the dict's annotation has for its values."""
    hint: Any = None
    *parents, last = path
    for name in parents:
        if isinstance(node, dict) and name not in node:
            node[name] = {}
        node, hint = config_tree.step_into(node, name, hint)
    try:
        node[last] = config_tree.parse_value(text, hint)
    except ValueError as error:
        refuse(f"--config.{'.'.join(path)}: {error}")


def _explain(error: Exception, argv: list[str], given: list[str]) -> str:
    """Returns one line for what absl and ml_collections raise while they read the flags."""
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([\w.\[\]]+)", argument)
        if given and match:
            unknown = _find_unknown_field(_load(given[-1]), match.group(1))
            if unknown:
                return f"{argument}: {unknown}"
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, ["config", "workdir", "help"])
        return f"unknown flag --{error.flagname}{_did_you_mean(['--' + name for name in close])}"
    message = " ".join(str(error).split())
    return f"{message}; python main.py --help lists the fields"


def _find_unknown_field(node: Any, path: str) -> str | None:
    """Returns a message about the first name in `optimizer.peak_lr` that is no field, or None."""
    for name in re.findall(r"\w+", path):
        try:
            node, _ = config_tree.step_into(node, name)
        except LookupError:
            names = config_tree.field_names(node)
            if not names and not isinstance(node, dict | list | tuple):
                return f"{type(node).__name__} {node!r} has no fields"
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = _did_you_mean(close) or f"; there are: {', '.join(names) or 'none'}"
            return f"no field {name!r} in {type(node).__name__}{hint}"
    return None


def _did_you_mean(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


@contextmanager
def only_run_in(workdir: Path) -> Iterator[None]:
    """Holds the lock of a work folder; ends the program if another run holds it.

    Two runs in one folder would treat each other's files as leftovers of an interrupted run.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse(f"another run is using {workdir}: wait for it, or give another --workdir")
        yield


@contextmanager
def one_line_errors(workdir: Path | None) -> Iterator[None]:
    """Reports any exception in one line; the traceback is written to error.txt.

    The file lies in `workdir` if that folder exists, else in the folder for temporary files.
    Errors that a user can mend (ValueError, OSError, RuntimeError) are shown by their message.
    Others are faults of the program: they are shown with their type and the line that raised them.
    """
    try:
        yield
    except KeyboardInterrupt:
        refuse("interrupted; the same command continues from here", INTERRUPTED)
    except Exception as error:
        folder = workdir if workdir and workdir.is_dir() else Path(tempfile.gettempdir())
        details = folder / "error.txt"
        with suppress(OSError):  # the disk may be full
            details.write_text(traceback.format_exc(), encoding="utf-8")
        refuse(f"{_in_short(error)}  [details: {details}]")


def _in_short(error: BaseException) -> str:
    """Returns the message of an error in one line, or as one line and a list of indented ones.

    Notes (PEP 678) that were added on the way, such as the stage and the shard, follow.
    """
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    if not isinstance(error, ValueError | OSError | RuntimeError) or not str(error).strip():
        message = " ".join(str(error).split())
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        return f"{type(error).__name__}: {message}{where}{notes}"
    first, *others = str(error).splitlines() or [""]
    if others and all(line.startswith("  ") for line in others):
        return "\n".join([first, *others]) + notes
    return " ".join(str(error).split()) + notes


def command() -> str:
    """Returns the command of this process, as it can be typed again."""
    return " ".join(["python", *map(shlex.quote, sys.argv)])
