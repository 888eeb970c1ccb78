"""The paper's whole data recipe: D1, D2 and D3 with their weights, decontaminated, as two mixtures.

    python main.py --config=configs/curate_hare.py:DIR --workdir=runs/hare \\
        --config.data.synthesis.teacher.base_url=http://HOST:8000/v1 \\
        --config.data.restructuring.teacher.base_url=http://OTHER:8000/v1

DIR holds a folder for each source, DIR/c4, DIR/arxiv and so on, of .jsonl, .parquet or .txt files,
plain, .gz or .zst; and DIR/benchmarks/mmlu and the others, in each SPLIT.jsonl. Two sources are
read from the Hugging Face hub where DIR has no folder of their name (extra `hub`). What is not
there is listed before any work starts, with how to get it. To go on without it, or without a
teacher, so that the others take the weights over:

    --config.data.allow_missing=True
    --config.data.synthesis.enabled=False --config.data.restructuring.enabled=False

Weights are those of Tables 3 to 5 (arXiv 2406.11410), in percent of stage 2; stage 1 is D1 alone.
Each source has a license of its own, and some are no longer offered by those who made them.
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

# Of two copies of a text the source that stands first keeps its own. "math problems" is math in
# Table 3: short exercises, which the cleaning rules for long texts would throw away.
D1 = {  # name: (category, per cent of stage 2)
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

RED_PAJAMA = "togethercomputer/RedPajama-Data-1T on the hub lists the files of its part"
PILE = "the component of The Pile (EleutherAI; its first host no longer offers it)"
OBTAIN = {
    "wiki": f"{RED_PAJAMA} wikipedia. CC BY-SA 3.0",
    "arxiv": f"{RED_PAJAMA} arxiv. Each paper has its own license",
    "pubmed": f"{PILE} PubMed Abstracts. Terms of the National Library of Medicine",
    "s2orc": "the API of Semantic Scholar (with a key), or its cleaned form allenai/peS2o. ODC-By",
    "philpapers": f"{PILE} PhilPapers. Each paper has its own license",
    "book": f"{RED_PAJAMA} book, withdrawn for copyright: another collection has to stand in",
    "pg19": "google-deepmind/pg19, .txt files. Apache-2.0; the books are in the public domain (US)",
    "stackexchange": f"{RED_PAJAMA} stackexchange. CC BY-SA",
    "hackernews": f"{PILE} HackerNews. The comments are their authors'",
    "freelaw": f"{PILE} FreeLaw, or CourtListener's bulk data. Court opinions, public domain (US)",
    "pile_of_law": "pile-of-law/pile-of-law on the hub, .xz repacked as .zst. CC BY-NC-SA 4.0",
    "amps": "hendrycks/math, the Khan Academy part of AMPS. MIT",
    "dm_mathematics": f"google-deepmind/mathematics_dataset, or {PILE} DM Mathematics. Apache-2.0",
    "orca_math": "microsoft/orca-math-word-problems-200k on the hub. MIT",
    "openwebmath": "open-web-math/open-web-math on the hub. ODC-By",
    "fanfics": "the paper names no collection; texts belong to their authors",
    "the_stack": "bigcode/the-stack on the hub, after accepting its terms. A license for each file",
    "stackoverflow": "the posts of stackoverflow.com in the data dump of Stack Exchange. CC BY-SA",
    "c4": f"{RED_PAJAMA} c4. ODC-By, and Common Crawl's terms",
    "cosmopedia": "HuggingFaceTB/cosmopedia on the hub, the files of all its parts. Apache-2.0",
    "openhermes": "teknium/OpenHermes-2.5 on the hub, openhermes2_5.json. Terms of many sets",
    "auto_cot": "amazon-science/auto-cot: question, rationale and answer. Apache-2.0",
    "dolly": "databricks/databricks-dolly-15k on the hub. CC BY-SA 3.0",
    "other_sft": "other instruction data (python -m benchmarks.formats shows what is understood)",
}
FIELDS = {"orca_math": ("question", "answer"), "the_stack": ("content",)}  # else "text"
HUB = {
    "orca_math": "microsoft/orca-math-word-problems-200k",
    "openwebmath": "open-web-math/open-web-math",
}

OWN_D2 = 7.7  # shared by the categories of Table 4
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
# Table 3's categories; those that are not here are prose.
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
    if not folder:
        raise ValueError("configs/curate_hare.py:DIR needs the folder of the sources")
    synthesis = Synthesis(
        enabled=True,
        documents=20_000_000,  # of about 1400 tokens: Table 4's 28 B
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
                # The paper: 10 to 15 for D2, 4 to 8 for D3, nothing said of D1.
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
    made = Source(
        name,
        category,
        tier,
        path=f"{folder}/{name}",
        text_fields=FIELDS.get(name, ("text",)),
        obtain=f"To get it: {OBTAIN[name]}",
    )
    if name in HUB and "://" not in folder and not Path(made.path).exists():
        made.reader, made.path, made.streaming = Reader.HUGGING_FACE, HUB[name], True
    return made


def weights_of_d1() -> dict[str, float]:
    """Table 3: 46.50 in all."""
    return {name: weight for name, (_, weight) in D1.items()}


def weights_of_d2(synthesis: Synthesis) -> dict[str, float]:
    """Table 4: the tokens of each category, as their share of the weight; 13.63 in all."""
    total = sum(synthesis.weights.values())
    own = {f"{synthesis.source}_{c}": OWN_D2 * t / total for c, t in synthesis.weights.items()}
    return own | {name: weight for name, (_, weight) in D2.items()}


def weights_of_d3(restructuring: Restructuring) -> dict[str, float]:
    """Table 5: 39.87 in all. Open SFT is what else there is of the tier."""
    return {restructuring.source: RESTRUCTURED, Tier.D3.value: OPEN_SFT}
