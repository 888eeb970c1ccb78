r"""Tests whether a checkpoint was trained on a benchmark, by 5-gram accuracy (arXiv 2404.18824).

    python main.py --config=configs/audit.py --config.checkpoint=RUN_DIR \
        --config.original=gsm8k_test.jsonl --config.paraphrased=gsm8k_test_rewritten.jsonl

The accuracy on the original items is compared with that on paraphrases of them. RUN_DIR is a folder
`training-HASH` of a run, one of its checkpoints, or a folder that configs/import_hf.py wrote.

    several paraphrases per item   --config.paraphrased='test_rewritten_*'
    several benchmarks             --config.folder=DIR, with NAME_original.jsonl and
                                   NAME_rewritten.jsonl for each
    a control                      --config.control and --config.control_paraphrased: items of the
                                   same kind that the model cannot have seen
    other field names              --config.question=problem --config.answer=solution
    multiple choice                --config.choices=choices

Without paraphrases they are made by rules; configs/paraphrase.py lets a teacher write them.
"""

from __future__ import annotations

from hare_jax.config import LeakageAudit


def get_config() -> LeakageAudit:
    """Returns the job, to be completed by overrides."""
    return LeakageAudit()
