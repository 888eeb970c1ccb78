r"""The complete data recipe of the paper: tiers D1, D2 and D3 with their weights, as two mixtures.

    python main.py --config=configs/curate_hare.py:DIR --workdir=runs/hare \
        --config.data.synthesis.teacher.base_url=http://HOST:8000/v1 \
        --config.data.restructuring.teacher.base_url=http://OTHER:8000/v1

DIR contains one folder per source (DIR/c4, DIR/arxiv, ...) with .jsonl, .parquet or .txt files,
plain, .gz or .zst, and one folder per benchmark (DIR/benchmarks/mmlu, ...) with files SPLIT.jsonl.
Two sources are read from the Hugging Face hub if DIR has no folder of their name (extra `hub`).

Before any work starts, one error lists all missing sources, each with the way to obtain it, all
missing benchmarks and all teachers without an address. To continue without the missing sources, or
without teachers, so that the remaining sources take over their weights:

    --config.data.allow_missing=True
    --config.data.synthesis.enabled=False --config.data.restructuring.enabled=False

The weights are those of Tables 3 to 5 (arXiv 2406.11410), in percent of stage 2. Stage 1 uses D1
only. Each source has a license of its own, and some are no longer offered by their publishers.
"""

from __future__ import annotations

from pathlib import Path

from configs.experiment import Experiment
from data_pipeline.config import (
    Baking,
    Benchmark,
    Cleaning,
    CleaningProfile,
    Decontamination,
    NlpTasks,
    Reader,
    Reading,
    Recipe,
    Restructuring,
    Source,
    Synthesis,
    TeacherConfig,
    Tier,
)

# Name -> (category, percent of stage 2). Of two copies of a text, the one of the earlier source is
# kept. The category "math problems" is math in Table 3: short exercises, which the cleaning rules
# for long texts would drop.
D1 = {
    "wiki": ("wiki", 7.78),
    "arxiv": ("arxiv", 1.42),
    "pubmed": ("references", 0.65),
    "s2orc": ("open research corpus", 1.68),
    "philpapers": ("philosophy", 0.06),
    "book": ("book", 1.73),
    "pg19": ("book", 1.46),
    "stackexchange": ("net", 1.10),
    "hackernews": ("news", 0.10),
    "freelaw": ("law", 0.46),
    "pile_of_law": ("law", 0.34),
    "amps": ("khan academy", 0.96),
    "dm_mathematics": ("math problems", 0.5),
    "orca_math": ("math problems", 2.56),
    "openwebmath": ("math", 3.88),
    "fanfics": ("book", 1.32),
    "the_stack": ("code", 5.5),
    "stackoverflow": ("code", 4.0),
    "c4": ("web", 11.0),
}
D2 = {"cosmopedia": ("textbooks", 5.93)}
SFT = ("openhermes", "auto_cot", "dolly", "other_sft")  # Table 5 has one weight for all of them

RED_PAJAMA = "of togethercomputer/RedPajama-Data-1T on the hub, which lists its files"
PILE = "of The Pile (EleutherAI; its original host no longer offers it)"
# Source -> how to obtain it, and its license.
OBTAIN = {
    "wiki": f"the part wikipedia {RED_PAJAMA}. CC BY-SA 3.0",
    "arxiv": f"the part arxiv {RED_PAJAMA}. Each paper has its own license",
    "pubmed": f"the component PubMed Abstracts {PILE}. Terms of the National Library of Medicine",
    "s2orc": "the API of Semantic Scholar (with a key), or its cleaned form allenai/peS2o. ODC-By",
    "philpapers": f"the component PhilPapers {PILE}. Each paper has its own license",
    "book": f"the part book {RED_PAJAMA}; withdrawn for copyright, so use other books",
    "pg19": "google-deepmind/pg19, .txt files. Apache-2.0; the books are in the public domain (US)",
    "stackexchange": f"the part stackexchange {RED_PAJAMA}. CC BY-SA",
    "hackernews": f"the component HackerNews {PILE}. Comments belong to their authors",
    "freelaw": f"the component FreeLaw {PILE}, or CourtListener's bulk data. Court opinions are in "
    "the public domain (US)",
    "pile_of_law": "pile-of-law/pile-of-law on the hub, .xz converted to .zst. CC BY-NC-SA 4.0",
    "amps": "hendrycks/math, the Khan Academy part of AMPS. MIT",
    "dm_mathematics": "google-deepmind/mathematics_dataset, or the component DM Mathematics "
    f"{PILE}. Apache-2.0",
    "orca_math": "microsoft/orca-math-word-problems-200k on the hub. MIT",
    "openwebmath": "open-web-math/open-web-math on the hub. ODC-By",
    "fanfics": "a collection of your choice (the paper names none); texts belong to their authors",
    "the_stack": "bigcode/the-stack on the hub, after accepting its terms. A license for each file",
    "stackoverflow": "the posts of stackoverflow.com in the data dump of Stack Exchange. CC BY-SA",
    "c4": f"the part c4 {RED_PAJAMA}. ODC-By, and Common Crawl's terms",
    "cosmopedia": "HuggingFaceTB/cosmopedia on the hub, the files of all its parts. Apache-2.0",
    "openhermes": "teknium/OpenHermes-2.5 on the hub, openhermes2_5.json. Terms of many sets",
    "auto_cot": "amazon-science/auto-cot: question, rationale and answer. Apache-2.0",
    "dolly": "databricks/databricks-dolly-15k on the hub. CC BY-SA 3.0",
    "other_sft": "other instruction data (python -m benchmarks.formats lists the known formats)",
}
FIELDS = {"orca_math": ("question", "answer"), "the_stack": ("content",)}  # others have "text"
HUB = {
    "orca_math": "microsoft/orca-math-word-problems-200k",
    "openwebmath": "open-web-math/open-web-math",
}

# Weights of Tables 3 and 5 in percent of stage 2.
SYNTHETIC_D2 = 7.7  # divided among the categories of Table 4
RESTRUCTURED = 23.5
OPEN_SFT = 16.37
STAGES = {"stage1": 52e9, "stage2": 548e9}  # tokens
BENCHMARKS = (
    "mmlu",
    "arc_challenge",
    "arc_easy",
    "truthfulqa",
    "winogrande",
    "hellaswag",
    "gsm8k",
)
# Cleaning profiles of the categories of Table 3; all others are prose.
PROFILES = {
    "code": CleaningProfile.CODE,
    "arxiv": CleaningProfile.MARKUP,
    "open research corpus": CleaningProfile.MARKUP,
    "net": CleaningProfile.MARKUP,
    "law": CleaningProfile.MARKUP,
    "math": CleaningProfile.MARKUP,
    "khan academy": CleaningProfile.TASKS,
    "math problems": CleaningProfile.TASKS,
    "tasks": CleaningProfile.TASKS,
}


def get_config(folder: str = "") -> Experiment:
    """Returns the experiment for a folder of sources.

    Raises:
      ValueError: no folder is named.
    """
    if not folder:
        raise ValueError("configs/curate_hare.py:DIR needs the folder of the sources, got nothing")
    synthesis = Synthesis(
        enabled=True,
        documents=20_000_000,  # of about 1400 tokens: the 28 B tokens of Table 4
        teacher=TeacherConfig(model="mistralai/Mixtral-8x7B-Instruct-v0.1"),
    )
    synthesis.categories["math problems"] = "math"
    restructuring = Restructuring(
        enabled=True, teacher=TeacherConfig(model="Qwen/Qwen1.5-32B-Chat")
    )
    restructuring.categories["math problems"] = "math"
    return Experiment(
        data=Recipe(
            sources=[
                *(source(name, category, Tier.D1, folder) for name, (category, _) in D1.items()),
                *(source(name, category, Tier.D2, folder) for name, (category, _) in D2.items()),
                *(source(name, "tasks", Tier.D3, folder) for name in SFT),
            ],
            reading=Reading(shard_bytes=256 << 20),
            cleaning=Cleaning(profiles=dict(PROFILES)),
            decontamination=Decontamination(
                benchmarks=[Benchmark(name, f"{folder}/benchmarks/{name}") for name in BENCHMARKS],
                # The paper uses 10 to 15 for D2 and 4 to 8 for D3, and does not mention D1.
                ngram_words={"D1": 13, "D2": 13, "D3": 8},
            ),
            synthesis=synthesis,
            nlp_tasks=NlpTasks(enabled=False),  # the teacher writes them
            restructuring=restructuring,
            baking=Baking(sequence_length=2048),
            mixtures={
                "stage1": weights_of_d1(),
                "stage2": weights_of_d1() | weights_of_d2(synthesis) | weights_of_d3(restructuring),
            },
            budgets=dict(STAGES),
        )
    )


def source(name: str, category: str, tier: Tier, folder: str) -> Source:
    """Returns a source of DIR, or of the Hugging Face hub if DIR has no folder of its name.

    Args:
      name: its name, also that of its folder.
      category: its category, which selects cleaning profile and synthesis prompts.
      tier: its tier.
      folder: DIR, a folder or an address in an object store.
    """
    result = Source(
        name,
        category,
        tier,
        path=f"{folder}/{name}",
        text_fields=FIELDS.get(name, ("text",)),
        obtain=f"To get it: {OBTAIN[name]}",
    )
    if name in HUB and "://" not in folder and not Path(result.path).exists():
        result.reader, result.path, result.streaming = Reader.HUGGING_FACE, HUB[name], True
    return result


def weights_of_d1() -> dict[str, float]:
    """Returns the weights of Table 3, 46.50 in total."""
    return {name: weight for name, (_, weight) in D1.items()}


def weights_of_d2(synthesis: Synthesis) -> dict[str, float]:
    """Returns the weights of D2, 13.63 in total, divided by the tokens of Table 4's categories."""
    total = sum(synthesis.weights.values())
    own = {
        f"{synthesis.source}_{c}": SYNTHETIC_D2 * t / total for c, t in synthesis.weights.items()
    }
    return own | {name: weight for name, (_, weight) in D2.items()}


def weights_of_d3(restructuring: Restructuring) -> dict[str, float]:
    """Returns the weights of Table 5, 39.87 in total.

    The weight of tier D3 is divided among its other sources, the open instruction data.
    """
    return {restructuring.source: RESTRUCTURED, Tier.D3.value: OPEN_SFT}
