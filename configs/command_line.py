"""The command line: --config, its overrides, and mistakes as one line that says what to do."""

from __future__ import annotations

import dataclasses
import difflib
import fcntl
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job: a file of configs/, e.g. configs/quickstart.py", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/default", "The folder for everything that is written; an old one is continued"
)
EXAMPLE = "python main.py --config=configs/quickstart.py --workdir=runs/quickstart"


def refuse(message: str) -> NoReturn:
    """Ends the program with one line and exit status 2."""
    print(f"main.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(argv: list[str]) -> list[str]:
    """For `app.run(main, flags_parser=parse)`: whatever is wrong is said before any work starts."""
    given = [m.group(1) for a in argv if (m := re.fullmatch(r"--?config=(.*)", a))]
    if given:
        _check_file(given[-1])
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        refuse(_explain(error, argv, given))
    if len(rest) > 1:
        refuse(f"stray argument {rest[1]!r}: write an override as --config.FIELD=VALUE")
    if not given:
        refuse(f"--config is required, for example: {EXAMPLE}")
    return rest


def _load(config: str) -> Any:
    """What the file of `configs/corpora.py:DIR` returns, before any override."""
    file, _, argument = config.partition(":")
    return runpy.run_path(file)["get_config"](*[argument] if argument else [])


def _check_file(config: str) -> None:
    file = config.partition(":")[0]
    if Path(file).is_file():
        try:
            _load(config)
        except Exception as error:  # whatever a config's own code may raise
            refuse(f"{file}: {' '.join(str(error).split())} ({type(error).__name__})")
        return
    house = {"__init__", "command_line", "experiment"}
    known = sorted(str(p) for p in Path("configs").rglob("*.py") if p.stem not in house)
    close = difflib.get_close_matches(file, known, n=1)
    refuse(f"--config: there is no file {file!r}{_did_you_mean(close)}")


def _explain(error: Exception, argv: list[str], given: list[str]) -> str:
    """One line for what absl and ml_collections raise while they read the flags."""
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([\w.\[\]]+)", argument)
        if given and match and (unknown := _unknown_field(given[-1], match.group(1))):
            return f"{argument}: {unknown}"
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, ["config", "workdir", "help"])
        return f"unknown flag --{error.flagname}{_did_you_mean(['--' + name for name in close])}"
    message = " ".join(str(error).split())
    return f"{message}; see the fields in hare_jax/config.py and data_pipeline/config.py"


def _unknown_field(config: str, path: str) -> str | None:
    """Walks `optim.peak_lr` down the config; says where it leaves it, or None where it does not."""
    node = _load(config)
    for name in re.findall(r"\w+", path):
        if dataclasses.is_dataclass(node):
            names = [field.name for field in dataclasses.fields(node)]
        elif isinstance(node, dict):
            names = [str(key) for key in node]
        elif isinstance(node, list | tuple):
            names = [str(i) for i in range(len(node))]
        else:
            return f"nothing lies below {type(node).__name__} {node!r}"
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = _did_you_mean(close) or f"; there are: {', '.join(names)}"
            return f"no field {name!r} in {type(node).__name__}{hint}"
        node = (
            node[int(name)]
            if isinstance(node, list | tuple)
            else (node[name] if isinstance(node, dict) else getattr(node, name))
        )
    return None


def _did_you_mean(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


@contextmanager
def only_run_in(workdir: Path) -> Iterator[None]:
    """Two runs in one folder would take each other's files for leftovers; the second is refused."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse(f"another run is at work in {workdir}: wait for it, or give another --workdir")
        yield


@contextmanager
def one_line_errors(workdir: Path) -> Iterator[None]:
    """What goes wrong with input, disk or settings is one line; where it came from, in a file."""
    try:
        yield
    except KeyboardInterrupt:
        refuse("interrupted; the same command goes on from here")
    except (ValueError, OSError, RuntimeError) as error:
        details = workdir / "error.txt"
        with suppress(OSError):  # the disk may be full
            details.write_text(traceback.format_exc(), encoding="utf-8")
        refuse(f"{_in_short(error)}  [details: {details}]")


def _in_short(error: BaseException) -> str:
    """One line, or one and a list of indented ones; libraries' paragraphs are run together."""
    first, *others = str(error).splitlines() or [""]
    if others and all(line.startswith("  ") for line in others):
        return "\n".join([first, *others])
    return " ".join(str(error).split())


def shown() -> str:
    """The command, as it can be typed again."""
    return " ".join(["python", *map(shlex.quote, sys.argv)])
