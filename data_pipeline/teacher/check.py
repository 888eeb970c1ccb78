"""The check of a teacher's configuration, without any request."""

from __future__ import annotations

import json
from pathlib import Path

from data_pipeline.config import TeacherConfig
from data_pipeline.config_problems import Problems, check_above, check_minimum, check_share
from data_pipeline.teacher.cache import FILE
from data_pipeline.teacher.settings import api_key, base_url


def check_teacher(teacher: TeacherConfig, problems: Problems) -> None:
    """Checks the fields of a teacher; needs neither a server nor a key.

    Args:
      teacher: the configuration.
      problems: of this teacher: `problems.path` is its address in the configuration.
    """
    if not teacher.model:
        problems.add("model", teacher.model, "the model's name on its server")
    try:
        json.dumps(teacher.extra_body, allow_nan=False)
    except (TypeError, ValueError) as error:
        problems.add("extra_body", teacher.extra_body, "values that JSON has", str(error))
    check_minimum(problems, 1, teacher, "concurrency")
    check_minimum(
        problems,
        0,
        teacher,
        "max_retries",
        "temperature",
        "seed",
        "requests_per_minute",
        "tokens_per_minute",
        "first_backoff_s",
        "max_backoff_s",
        "prompt_price",
        "completion_price",
        "max_cost",
    )
    check_above(problems, 0, teacher, "connect_timeout_s", "stall_timeout_s", "answer_timeout_s")
    check_share(problems, teacher, "top_p", zero=False)
    check_share(problems, teacher, "max_unanswered")
    if teacher.max_cost and not (teacher.prompt_price or teacher.completion_price):
        problems.add(
            "max_cost",
            teacher.max_cost,
            "prices to count the cost with",
            "Set prompt_price and completion_price, each per million tokens",
        )


def check_reachable_teacher(
    teacher: TeacherConfig, cache: Path, problems: Problems, without: str
) -> None:
    """Checks a teacher as `check_teacher`, and that it has a server or a cache of replies.

    Whether the cached replies suffice is not known before the first request that they lack.

    Args:
      teacher: the configuration.
      cache: folder of the replies, unless `teacher.cache` names one.
      problems: of this teacher.
      without: the setting with which a run needs no teacher: "config.data.synthesis.enabled=False".
    """
    check_teacher(teacher, problems)
    folder = Path(teacher.cache) if teacher.cache else cache
    has_replies = (folder / FILE).exists()
    if teacher.base_url:
        try:
            base_url(teacher)
            if not has_replies:  # cached replies need no key
                api_key(teacher)
        except ValueError as error:
            problems.messages.append(f"{problems.path}{str(error).removeprefix('teacher')}")
    elif not has_replies:
        problems.add(
            "base_url",
            teacher.base_url,
            f"a server, for example http://127.0.0.1:8000/v1, since {folder} has no replies of an "
            f"earlier run ({FILE})",
            f"{problems.path}.cache names another folder of replies. To do without: {without}",
        )
