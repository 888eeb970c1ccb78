"""Profiling of some training steps by jax.profiler: device activity and idle time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import ProfilerWindow


class Profiler:
    """A profile of the steps config.first_step to config.last_step, under `run_dir`/profile.

    A run that resumes within the range traces the rest of it; a run that resumes after the range
    traces nothing. The end of the context ends a running trace.

        with profiler:
            for step in range(first_step, steps):
                profiler.at(step, state)
                state, values = step_fn(state, batch)
    """

    def __init__(self, config: ProfilerWindow, run_dir: Path):
        """Stores the range; raises ValueError if it is not 1 <= first <= last or 0, 0."""
        first, last = config.first_step, config.last_step
        if (first or last) and not 1 <= first <= last:
            raise ValueError(
                f"training.profile has first_step={first} and last_step={last}: expected "
                "1 <= first_step <= last_step, or 0 and 0 for no trace"
            )
        self.directory = run_dir / "profile"
        self._steps = range(first - 1, last) if first else range(0)
        self._tracing = False
        self._annotated = ExitStack()

    def __enter__(self) -> Profiler:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends a running trace."""
        self._stop()

    def at(self, step: int, state: Any) -> None:
        """Starts or ends the trace; called before each step, 0 for the first.

        Waits for `state` where a trace starts or ends, so that it covers whole steps.
        """
        self._annotated.close()
        if self._tracing and step not in self._steps:
            jax.block_until_ready(state)
            self._stop()
        if not self._tracing and step in self._steps:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self.directory))
            self._tracing = True
        if self._tracing:
            annotation = jax.profiler.StepTraceAnnotation("train", step_num=step + 1)
            self._annotated.enter_context(annotation)

    def _stop(self) -> None:
        """Ends a running trace, and prints where it is and how to open it."""
        self._annotated.close()
        if not self._tracing:
            return
        self._tracing = False
        jax.profiler.stop_trace()
        if jax.process_index() == 0:
            traces = sorted(self.directory.rglob("*.trace.json.gz"))
            print(
                f"profile of steps {self._steps.start + 1} to {self._steps.stop}: open "
                f"{traces[-1] if traces else self.directory} in https://ui.perfetto.dev, or "
                f"pip install xprof and run xprof {self.directory}",
                flush=True,
            )
