"""Validates the leakage audit with three small models, in minutes on a CPU.

    nice python -m benchmarks.leakage_audit --benchmarks DIR --paraphrased DIR --corpus DIR \
        --out DIR

The same model is trained three times on the same text: with GSM8K's test items planted in it,
without them, and on what decontamination keeps of the planted text. Each model is audited for
GSM8K, ARC-C and OpenBookQA, with the items of their train splits as controls, which no model has
seen.

--benchmarks has a subfolder per benchmark with train and test files; --paraphrased has GSM8K's
{train,test}_original.jsonl.gz and {train,test}_rewritten_*.jsonl.gz (GAIR-NLP/benbench); ARC-C and
OpenBookQA are paraphrased by rules. --corpus has .jsonl, .jsonl.gz or .jsonl.zst files with a field
"text".

Writes leakage-audit.svg, leakage-audit.json and all intermediate results to --out. A second call
continues from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from benchmarks.decontamination import documents
from data_pipeline.config import Baking, Benchmark, Decontamination, Source
from data_pipeline.decontamination import benchmarks, index, rules
from data_pipeline.mixture import bake
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.storage.document import Document
from hare_jax.config import (
    Checkpointing,
    DType,
    LeakageAudit,
    Model,
    Optimizer,
    Stage,
    Training,
)
from hare_jax.evaluation import bar_chart
from hare_jax.evaluation.leakage import audit, chart, items
from hare_jax.training import train

PLANTED, VOCABULARY = "gsm8k", 4096
ROW = 512  # tokens, one row a step: many small steps learn by heart with the fewest tokens
CORPORA = ("planted", "clean", "decontaminated")
COLORS = dict(zip(CORPORA, bar_chart.SERIES, strict=False))
TITLES = {"gsm8k": "GSM8K", "arc_challenge": "ARC-C", "openbookqa": "OpenBookQA"}
MODEL = Model(
    vocab_size=VOCABULARY,
    num_layers=3,
    d_model=192,
    num_heads=6,
    num_kv_heads=3,
    head_dim=32,
    d_ff=512,
    compute_dtype=DType.FLOAT32,
)


def audits(args: argparse.Namespace) -> dict[str, LeakageAudit]:
    """Returns the audit config of each benchmark."""
    paraphrased, folder = Path(args.paraphrased), Path(args.benchmarks)
    common = LeakageAudit(max_items=args.items, batch_tokens=2048)
    found = {
        "gsm8k": dataclasses.replace(
            common,
            original=str(paraphrased / "test_original.jsonl.gz"),
            paraphrased=str(paraphrased / "test_rewritten_*.jsonl.gz"),
            control=str(paraphrased / "train_original.jsonl.gz"),
            control_paraphrased=str(paraphrased / "train_rewritten_*.jsonl.gz"),
        )
    }
    for name in ("arc_challenge", "openbookqa"):
        found[name] = dataclasses.replace(
            common,
            original=str(folder / name / "test.jsonl.gz"),
            control=str(folder / name / "train.jsonl.gz"),
            question="question.stem",
            choices="question.choices",
            answer="answerKey",
        )
    return found


def planted_texts(config: LeakageAudit, copies: int) -> list[str]:
    """Returns the texts of the audited items, `copies` times each."""
    (files,) = items.files_of(config)
    pair = audit.draw(audit.read(files, config), config)
    return [item.text for item in pair.original for _ in range(copies)]


def corpus(folder: str, characters: int) -> list[str]:
    """Returns `characters` characters of text in pieces of at most 4000, some of each file."""
    files = len(list(Path(folder).rglob("*.jsonl*")))
    texts = []
    for document in documents(folder, each=2 * characters / files):
        text = document.text
        texts += [text[k : k + 4000] for k in range(0, len(text), 4000)]
    order = np.random.default_rng(0).permutation(len(texts))
    sizes = np.cumsum([len(texts[k]) for k in order])
    return [texts[k] for k in order[: int(np.searchsorted(sizes, characters)) + 1]]


def decontaminated(texts: Sequence[str], folder: Path, names: Sequence[str]) -> list[str]:
    """Returns the texts that decontamination against all splits of the benchmarks keeps."""
    config = Decontamination().resolved()
    protected = [i for n in names for i in benchmarks.read_items(Benchmark(n, str(folder / n)))]
    decide = rules.build_decide(
        config, index.build_index(protected, config.ngram_words["D1"], config)
    )
    answers = decide([Document(str(k), text, "all", "all") for k, text in enumerate(texts)])
    return [answer.text for answer in answers if isinstance(answer, Document)]


def make_tokenizer(texts: Sequence[str], out: Path) -> Path:
    """Trains a small vocabulary, so that the embedding does not dominate a small model."""
    path = out / "tokenizer.model"
    if not path.is_file():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(" ".join(texts).split("\n")),
            model_prefix=str(path.with_suffix("")),
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    return path


def trained(texts: Sequence[str], tokenizer: Path, tokens: int, run_dir: Path) -> Path:
    """Packs the texts, trains a model on `tokens` tokens of them, and returns its run folder."""
    baked, config = run_dir / "baked", Baking(sequence_length=ROW, tokenizer=str(tokenizer))
    if not (baked / "mixture.json").is_file():
        baked.mkdir(parents=True, exist_ok=True)
        as_documents = (Document(f"all/{k}", text, "all", "all") for k, text in enumerate(texts))
        part = bake.bake_part("all-00000", "all", as_documents, baked, config)
        bake.write_manifest(baked, [Source("all")], [part], {"all": {"all": 1.0}}, config)
    training = Training(
        stages=[Stage("all", "all", tokens)],
        batch_size=1,
        optimizer=Optimizer(peak_lr=2e-3, warmup_steps=60, weight_decay=0.05),
        checkpointing=Checkpointing(every_steps=400, keep=1),
        loss_chunks=1,
    )
    train.run(MODEL, training, baked, run_dir)
    return run_dir


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns a Markdown table: accuracies in percent, intervals in brackets."""
    lines = [
        "| benchmark | trained on | original | paraphrased | excess | loss excess | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, by_corpus in results.items():
        for corpus_name, (one, _) in by_corpus.items():
            sides = [f"{100 * one[side]['accuracy']:.1f}" for side in ("original", "paraphrased")]
            cells = [TITLES[name], corpus_name, *sides]
            for measure, unit, digits in (("excess", 100, 1), ("loss_excess", 1, 2)):
                value, low, high = (
                    f"{unit * one[measure][k]:+.{digits}f}" for k in ("value", "low", "high")
                )
                cells.append(f"{value} [{low}, {high}]")
            lines.append(f"| {' | '.join([*cells, one['verdict']])} |")
    return "\n".join(lines)


def main() -> None:
    """Parses the options, trains, audits and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("benchmarks", "paraphrased", "corpus", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--items", type=int, default=80, help="of each set")
    parser.add_argument("--copies", type=int, default=20, help="of each planted item")
    parser.add_argument("--characters", type=int, default=600_000, help="of other text")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    configs = audits(args)
    clean = corpus(args.corpus, args.characters)
    leaks = planted_texts(configs[PLANTED], args.copies)
    mixed = [*clean, *leaks]
    mixed = [mixed[k] for k in np.random.default_rng(1).permutation(len(mixed))]
    texts = {"planted": mixed, "clean": clean}
    texts["decontaminated"] = decontaminated(mixed, Path(args.benchmarks), list(configs))
    print({name: f"{len(part):,} documents" for name, part in texts.items()}, flush=True)
    tokenizer = make_tokenizer(clean, out)
    tokens = sum(len(ids) + 1 for ids in map(MixtureTokenizer(tokenizer).encode, mixed))

    results: dict[str, dict[str, Any]] = {name: {} for name in configs}
    for corpus_name in CORPORA:
        run_dir = trained(texts[corpus_name], tokenizer, tokens, out / corpus_name)
        for name, config in configs.items():
            asked = dataclasses.replace(
                config, checkpoint=str(run_dir), out=str(out / corpus_name / "leakage" / name)
            )
            found = json.loads(audit.run(asked, out)["audit"].read_text("utf-8"))
            results[name][corpus_name] = found["sets"]
    (out / "leakage-audit.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    groups = {
        TITLES[name]: [
            chart.bar(COLORS[corpus_name], sets[0]["excess"], sets[0]["verdict"])
            for corpus_name, sets in by_corpus.items()
        ]
        for name, by_corpus in results.items()
    }
    title = "5-gram accuracy: original less paraphrased, less the same of unseen items (points)"
    picture = chart.bars(title, groups, threshold=LeakageAudit().threshold, legend=COLORS)
    (out / "leakage-audit.svg").write_text(picture, encoding="utf-8")
    print(table(results), flush=True)


if __name__ == "__main__":
    main()
