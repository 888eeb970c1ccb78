"""Has a checkpoint seen a benchmark? 5-gram accuracy on the items and on the same in other words.

    python main.py --config=configs/audit.py --config.checkpoint=RUN_DIR \\
        --config.original=gsm8k_test.jsonl --config.rewritten=gsm8k_test_rewritten.jsonl

RUN_DIR is the folder `training-HASH` that a run has written, one of its checkpoints, or what
configs/import_hf.py has written. Several rewritten versions: --config.rewritten='test_rewritten_*'.
Several sets: --config.folder=DIR with NAME_original.jsonl and NAME_rewritten.jsonl of each. Items
that the model cannot have seen, as a measure: --config.control and --config.control_rewritten.
Fields of other names: --config.question=problem --config.answer=solution. Multiple choice:
--config.choices=choices. Without rewritten items they are made by rules; configs/paraphrase.py has
them written by a teacher.
"""

from __future__ import annotations

from hare_jax.config import LeakageAudit


def get_config() -> LeakageAudit:
    return LeakageAudit()
