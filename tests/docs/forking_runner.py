"""A process that runs commands of the pages, each in a fork of itself, so that imports cost once.

    python forking_runner.py < requests > answers

A request is one line of JSON, {"argv", "cwd", "log"}. `python ARGV` is run in the folder `cwd`,
with standard output and standard error in the file `log`. The answer is one line, the exit status.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
import warnings

PRELOADED = (  # no module of the project: its flags are defined where a command imports them
    "flax.nnx",
    "grain",
    "jax",
    "lm_eval.api.task",
    "lm_eval.evaluator",
    "lm_eval.tasks",
    "numpy",
    "optax",
    "orbax.checkpoint",
    "pyarrow",
    "sentencepiece",
)


def run(argv: list[str], cwd: str, log: str) -> int:
    """Runs `python ARGV` in this process, and returns its exit status."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Answers requests until the input ends."""
    warnings.simplefilter("ignore")
    for name in PRELOADED:
        __import__(name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            status = run(request["argv"], request["cwd"], request["log"])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
