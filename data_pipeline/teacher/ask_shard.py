"""Sends a shard of prompts to a teacher and writes a shard of its answers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from data_pipeline import config
from data_pipeline.execution.manifest import Ledger
from data_pipeline.execution.shard_output import Decision, ShardOutput, documents_of
from data_pipeline.execution.task import AnyTask
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.teacher.client import TeacherClient
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest

# Folder with the cost of each shard in the run that produced it; not part of the stage's output.
SPENT = "spent"


def ask_shard(
    task: AnyTask,
    stage: str,
    teacher_config: config.TeacherConfig,
    cache: Path,
    request_of: Callable[[Document], TeacherRequest],
    with_reply: Callable[[Document, TeacherReply], Document],
) -> Ledger:
    """Sends each prompt of a shard to the teacher and writes the replies as documents.

    A prompt without a reply is dropped as `no_answer`, and one whose reply is not valid Unicode as
    `invalid_unicode`, so that documents in = kept + dropped.

    Args:
      task: a shard of prompts.
      stage: name of the stage, for dropped documents.
      teacher_config: the teacher.
      cache: the folder of answers.
      request_of: returns the request of a prompt.
      with_reply: returns the document of a prompt and its reply.

    Returns:
      The ledger of the shard.

    Raises:
      TeacherError: more than `teacher.max_unanswered` of the requests got no answer.
    """
    waiting: deque[Document] = deque()

    def requests() -> Iterator[TeacherRequest]:
        for document in documents_of(task):
            waiting.append(document)
            yield request_of(document)

    with ShardOutput(task, stage) as output, TeacherClient(teacher_config, cache) as teacher:
        for reply in teacher.ask(requests()):
            document = waiting.popleft()
            assert reply.id == document.id, (
                f"expected a reply to {document.id!r}, got one to {reply.id!r}"
            )
            output.count_input(document)
            output.write(_answer(document, reply, with_reply))
        assert not waiting, f"no reply to {len(waiting)} requests, {waiting[0].id!r} the first"
        teacher.check_answered(task.shard)
        output.ledger.extra = {"usage": teacher.usage.to_json()}
        spent = {name: getattr(teacher.usage, name) for name in ("cached", "retries", "paid")}
    write_text(task.out / SPENT / f"{task.shard}.json", json.dumps(spent))
    return output.ledger


def _answer(
    document: Document,
    reply: TeacherReply,
    with_reply: Callable[[Document, TeacherReply], Document],
) -> Decision:
    """Returns the document of a reply, or the dropped prompt."""
    if reply.error:
        return Dropped(document, "no_answer", {"error": reply.error})
    text = reply.text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    answer = replace(with_reply(document, reply), text=text)
    return answer if text == reply.text else Dropped(answer, "invalid_unicode")
