"""What D2 and D3 have in common: a shard of prompts goes out, a shard of answers returns."""

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

SPENT = "spent"  # a folder: what each shard cost in the run that made it, which is no result


def ask_shard(
    task: AnyTask,
    stage: str,
    teacher_config: config.TeacherConfig,
    cache: Path,
    request_of: Callable[[Document], TeacherRequest],
    told: Callable[[Document, TeacherReply], Document],
) -> Ledger:
    """`told`: a prompt that became its reply. One that got no reply, or none that can be written
    as UTF-8, is dropped, so that what came is what was kept and what was dropped.

    Raises TeacherError where more than `teacher.max_unanswered` of the requests got no answer.
    """
    waiting: deque[Document] = deque()

    def requests() -> Iterator[TeacherRequest]:
        for document in documents_of(task):
            waiting.append(document)
            yield request_of(document)

    with ShardOutput(task, stage) as output, TeacherClient(teacher_config, cache) as teacher:
        for reply in teacher.ask(requests()):
            document = waiting.popleft()
            assert reply.id == document.id, f"asked {document.id!r}, got a reply to {reply.id!r}"
            output.count_input(document)
            output.write(_answer(document, reply, told))
        assert not waiting, f"no reply to {len(waiting)} requests, {waiting[0].id!r} the first"
        teacher.check_answered(task.shard)
        output.ledger.extra = {"usage": teacher.usage.to_json()}
        spent = {name: getattr(teacher.usage, name) for name in ("cached", "retries", "paid")}
    write_text(task.out / SPENT / f"{task.shard}.json", json.dumps(spent))
    return output.ledger


def _answer(
    document: Document, reply: TeacherReply, told: Callable[[Document, TeacherReply], Document]
) -> Decision:
    if reply.error:
        return Dropped(document, "no_answer", {"error": reply.error})
    text = reply.text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    answer = replace(told(document, reply), text=text)
    return answer if text == reply.text else Dropped(answer, "invalid_unicode")
