"""Commits answers to the cache, all that arrived since the last commit at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from data_pipeline.teacher.cache import TeacherCache

Values = dict[bytes, bytes]


@dataclass(slots=True)
class Writer:
    """A writer in one event loop; a commit waits for the disk in another thread."""

    cache: TeacherCache
    model: str
    _waiting: list[tuple[Values, asyncio.Future[Values]]] = field(default_factory=list)
    _prompt_tokens: int = 0
    _completion_tokens: int = 0
    _task: asyncio.Task[None] | None = None

    async def keep(self, values: Values, prompt_tokens: int, completion_tokens: int) -> Values:
        """Waits until values are on disk, and returns what is stored under their keys.

        Raises what `TeacherCache.put` raises.
        """
        future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        self._waiting.append((values, future))
        self.spend(prompt_tokens, completion_tokens)
        return await future

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Counts tokens, of an answer or of an attempt without one, in the next commit."""
        self._prompt_tokens += prompt_tokens
        self._completion_tokens += completion_tokens
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit())

    async def close(self) -> None:
        """Waits until everything is on disk."""
        if self._task is not None:
            await self._task

    async def _commit(self) -> None:
        """Commits batches until nothing is waiting."""
        while self._waiting or self._prompt_tokens or self._completion_tokens:
            batch, self._waiting = self._waiting, []
            prompt, self._prompt_tokens = self._prompt_tokens, 0
            completion, self._completion_tokens = self._completion_tokens, 0
            together = {key: value for values, _ in batch for key, value in values.items()}
            try:
                kept = await asyncio.to_thread(
                    self.cache.put,
                    together,
                    model=self.model,
                    prompt_tokens=prompt,
                    completion_tokens=completion,
                )
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for values, future in batch:
                    if not future.done():
                        future.set_result({key: kept[key] for key in values})
