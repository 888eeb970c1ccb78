"""A benchmark's items in other words, written by a teacher, for configs/audit.py to compare with.

    python main.py --config=configs/paraphrase.py --config.items.original=gsm8k_test.jsonl \\
        --config.teacher.base_url=http://127.0.0.1:8000/v1 --config.teacher.model=MODEL \\
        --workdir=runs/rewritten
    python main.py --config=configs/audit.py --config.checkpoint=RUN_DIR \\
        --config.original=gsm8k_test.jsonl \\
        --config.rewritten='runs/rewritten/gsm8k_test_rewritten_*.jsonl'

Any server that speaks OpenAI's /v1/chat/completions. Several versions of each item:
--config.items.versions=3. Some of the items: --config.items.max_items=200, and the same number for
the audit. Other fields and multiple choice: --config.items.question and so on, as for the audit.
The same command goes on after a kill, and asks only for what has no answer yet.
"""

from __future__ import annotations

from configs.experiment import Paraphrasing


def get_config() -> Paraphrasing:
    return Paraphrasing()
