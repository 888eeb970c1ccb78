r"""Lets a teacher paraphrase the items of a benchmark, for configs/audit.py.

    python main.py --config=configs/paraphrase.py --config.items.original=gsm8k_test.jsonl \
        --config.teacher.base_url=http://127.0.0.1:8000/v1 --config.teacher.model=MODEL \
        --workdir=runs/paraphrased
    python main.py --config=configs/audit.py --config.checkpoint=RUN_DIR \
        --config.original=gsm8k_test.jsonl \
        --config.paraphrased='runs/paraphrased/gsm8k_test_rewritten_*.jsonl'

The teacher is any server with OpenAI's /v1/chat/completions. Several paraphrases per item:
--config.items.versions=3. A sample of the items: --config.items.max_items=200, and the same number
for the audit. Other field names and multiple choice: --config.items.question and so on, as for the
audit. The same command continues after an interruption, and requests only what is missing.
"""

from __future__ import annotations

from configs.experiment import Paraphrasing


def get_config() -> Paraphrasing:
    """Returns the job, to be completed by overrides."""
    return Paraphrasing()
