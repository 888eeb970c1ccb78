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
from configs.overrides import annotation_of, set_field, split_address

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job: a file of configs/, e.g. configs/quickstart.py", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/default", "The folder for all output; an interrupted run in it is continued"
)
EXAMPLE = "python main.py --config=configs/quickstart.py --workdir=runs/quickstart"
DEFAULT_CONFIG = "configs/quickstart.py"  # the fields that --help prints where no --config is given
NO_PAGES = {  # files without a job
    "__init__",
    "command_line",
    "config_tree",
    "experiment",
    "experiment_check",
    "jobs",
    "overrides",
}
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
HELP = """\
  --config=FILE[:ARGUMENT]  the job: a page of Python, such as those in configs/ (required)
  --config.FIELD=VALUE      sets a field: --config.training.optimizer.peak_lr=5e-4
                            an element of a list: --config.training.stages[0].tokens=1000000
                            an entry of a dict, which may be new: --config.data.budgets.stage1=1e9
                            a tuple or list, by one flag per element: --config.x=a --config.x=b
                            anything whole, as in a page: --config.x="{'web': 2.0}",
                            --config.training.stages="[Stage('one', 'stage1', tokens=1000)]"
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
    if wants_help:
        argv = [a for a in argv if not re.fullmatch(r"--?(h|help|helpfull|helpshort)", a)]
        if not given:
            argv.append(f"--config={DEFAULT_CONFIG}")
            given = [DEFAULT_CONFIG]
    if not given:
        refuse(f"--config is required, for example: {EXAMPLE}")
    argv, overrides, part = _split_overrides(argv, _load(given[-1]), wants_help)
    flags.FLAGS["config"].parser.parse = _load  # type: ignore[method-assign]
    typed, sys.argv = sys.argv, argv  # where ml_collections looks for overrides
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        refuse(_explain(error))
    finally:
        sys.argv = typed
    for address, texts in overrides.items():
        _override(CONFIG.value, address, texts)
    if wants_help:
        _print_help(part)
        raise SystemExit(0)
    if len(rest) > 1:
        refuse(f"stray argument {rest[1]!r}: write an override as --config.FIELD=VALUE")
    return rest


def _print_help(path: str) -> None:
    """Prints the usage and the configuration, or only its part at `path`, as a tree."""
    try:
        tree = config_tree.describe(CONFIG.value, split_address(path))
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


def _split_overrides(
    argv: list[str], config: Any, wants_help: bool
) -> tuple[list[str], dict[str, list[str]], str]:
    """Takes the overrides out of the arguments.

    Returns:
      (the other arguments, {address: the texts that were given for it}, the part of the config that
      --help prints)
    """
    others: list[str] = []
    overrides: dict[str, list[str]] = {}
    part = ""
    rest = iter(argv)
    for argument in rest:
        match = re.fullmatch(r"--?(no)?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if match is None:
            others.append(argument)
            continue
        no, address, text = match.groups()
        is_switch = _annotation(config, address) is bool
        if text is None and wants_help:
            part = address
            continue
        if text is None:
            text = str(not no) if is_switch else next(rest, None)
        if text is None or (no and text != "False"):
            refuse(f"{argument}: expected --config.{address}=VALUE")
        overrides.setdefault(address, []).append(text)
    return others, overrides, part


def _annotation(config: Any, address: str) -> Any:
    try:
        return annotation_of(config, split_address(address))
    except LookupError:
        return None


def _override(config: Any, address: str, texts: list[str]) -> None:
    """Sets one field; ends the program if there is none, or if the text is no value of it."""
    try:
        set_field(config, split_address(address), texts)
    except LookupError:
        refuse(f"--config.{address}: {_find_unknown_field(config, address)}")
    except ValueError as error:
        refuse(f"--config.{address}: {error}")


def _explain(error: Exception) -> str:
    """Returns one line for what absl raises while it reads the flags."""
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, ["config", "workdir", "help"])
        return f"unknown flag --{error.flagname}{_did_you_mean(['--' + name for name in close])}"
    message = " ".join(str(error).split())
    return f"{message}; python main.py --help lists the fields"


def _find_unknown_field(node: Any, path: str) -> str | None:
    """Returns a message about the first name in `optimizer.peak_lr` that is no field, or None."""
    for name in split_address(path):
        try:
            node = config_tree.step_into(node, name)
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
