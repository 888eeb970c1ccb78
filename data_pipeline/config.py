"""Every knob of curation, in the order a document meets them. Standard library only.

A `Recipe` is built in Python (see configs/) and may be overridden from the command line:
`--config.data.dedup.threshold=0.8`. Lengths are counted in the unit that the field's name says.
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import dataclass, field


class Reader(enum.Enum):
    """Where the raw text of a source comes from."""

    FILES = "files"  # a file or a folder of .jsonl .json .parquet .txt .md .html, plain, .gz, .zst
    PYTHON_READMES = "python_readmes"  # long descriptions of the installed distributions
    PYTHON_REFERENCE = "python_reference"  # the language reference that pydoc shows
    PYTHON_DOCSTRINGS = "python_docstrings"  # of the standard library, one document a module
    PYTHON_CODE = "python_code"  # source files of the standard library
    PYTHON_LICENCES = "python_licences"  # licence and notice files of the installed distributions
    SCHOOL_MATH = "school_math"  # generated word problems with worked answers


class Tier(enum.Enum):
    """The paper's three kinds of data (section 2): cleaned, synthesised, NLP tasks."""

    D1 = "D1"
    D2 = "D2"
    D3 = "D3"


class Profile(enum.Enum):
    """Which cleaning rules a category gets: prose rules would destroy code and mathematics."""

    PROSE = "prose"
    CODE = "code"
    MARKUP = "markup"  # LaTeX, tables, reference works: text with structure that must survive
    TASKS = "tasks"  # short question-answer texts: no length or completeness rules


@dataclass(slots=True)
class Source:
    """Where documents come from; a source's name is also the name of its SeqIO task.

    `name`: "" takes each row's own `source`, or the name of the file or folder that it lies in;
    without a path too, the entry is only a place for a folder, and left out.
    `text_fields`: the fields of a JSON or Parquet row that make the text, joined by a blank line.
    """

    name: str = ""
    category: str = ""  # "" takes each row's own `category`, or the source's name where it has none
    tier: Tier = Tier.D1
    reader: Reader = Reader.FILES
    path: str = ""
    exclude: tuple[str, ...] = ()  # patterns of files in the path that are not read: "drafts/*"
    text_fields: tuple[str, ...] = ("text",)
    id_field: str = "id"
    source_field: str = "source"
    category_field: str = "category"
    max_documents: int = 0  # 0 reads everything


@dataclass(slots=True)
class Reading:
    shard_bytes: int = 4 << 20  # raw bytes of small files put together in one shard
    max_line_bytes: int = 32 << 20  # a longer line or file is quarantined as `line_too_long`
    max_bad_fraction: float = 0.01  # a shard with a larger share of bad rows fails the run


@dataclass(slots=True)
class Cleaning:
    """D1's heuristic rules (paper, section 2.1)."""

    language: str = "en"  # ISO 639-1
    min_foreign_score: float = 0.25  # a document goes if another language is this certain [0, 1]
    min_words: int = 20
    max_words: int = 500_000  # a long novel has 250 000
    replace_personal_information: bool = True
    remove_links: bool = True
    min_complete_lines: float = 0.3  # prose: least share of text in lines that end as sentences do
    max_symbol_to_word: float = 0.1  # Gopher: "#" and ellipses for each word (arXiv 2112.11446, A1)
    min_alphabetic_words: float = 0.6  # prose: least share of words with a letter (Gopher has 0.8)
    max_duplicate_lines: float = 0.3  # Gopher repetition: share of text in lines seen before
    profiles: dict[str, Profile] = field(
        default_factory=lambda: {
            "code": Profile.CODE,
            "math": Profile.MARKUP,
            "academic": Profile.MARKUP,
            "law": Profile.MARKUP,
            "reference": Profile.MARKUP,
            "docs": Profile.MARKUP,
            "tech_docs": Profile.MARKUP,
            "qa": Profile.TASKS,
            "tasks": Profile.TASKS,
        }
    )


@dataclass(slots=True)
class Deduplication:
    """Exact and near duplicates across all sources; the survivor comes from the earliest source.

    `permutations`, `seed` and the scheme define MinHash as datasketch does; `bands` x `rows` of the
    signature are compared, and every candidate pair is verified by its exact Jaccard similarity.
    """

    enabled: bool = True
    ngram_words: int = 5
    permutations: int = 128
    bands: int = 14
    rows: int = 9
    threshold: float = 0.7  # Jaccard similarity of word n-grams from which on two documents are one
    seed: int = 1


@dataclass(slots=True)
class HeldOut:
    """Documents kept for evaluation, chosen by a hash of their id, and the items made from them."""

    fraction: float = 0.02
    max_documents: int = 40  # of one source
    items: int = 40  # multiple-choice items of each kind from one source, at most
    choices: int = 4
    seed: int = 0


@dataclass(slots=True)
class NlpTasks:
    """D3 without a teacher: tasks in natural language from the structure of documents."""

    enabled: bool = True
    source: str = "nlp_tasks"
    kinds: tuple[str, ...] = ("question_answering", "multiple_choice", "cloze", "summary")
    per_document: int = 4  # tasks of each kind from one document, at most
    max_words: int = 340  # of one task, about the paper's 512 tokens
    seed: int = 0


@dataclass(slots=True)
class Benchmark:
    """What must not leak. `path` is a folder of `SPLIT.jsonl[.gz|.zst]` or one such file.

    `parts`: field names whose texts are indexed apart, since a leaked question need not bring its
    answer. Empty: the layout registered under `name` in decontamination/benchmarks.py.
    """

    name: str
    path: str
    parts: tuple[str, ...] = ()
    absolute_hits: bool = True  # whether the absolute-hits rule applies (not to long documents)


@dataclass(slots=True)
class Decontamination:
    """Drops documents that share word n-grams with an evaluation item (paper, A.4).

    A document goes when any of three rules says so; 0 switches a rule off.

    - sample share: more than `sample_share` of its own n-grams occur in the benchmarks. With
      n = 10 .. 15 for D2, 4 .. 8 for D3 and the other two rules off, this is the paper's rule.
    - absolute hits: it has at least `absolute_hits` different n-grams of one part of an item.
    - item share: a passage no longer than a part of an item holds at least `item_share` of what the
      part says, words weighted by their rarity, and runs of `item_ngram_words` words in common
      with it worth `item_bits` bits. This one sees short, edited and embedded items.
    """

    enabled: bool = True
    benchmarks: list[Benchmark] = field(default_factory=list)
    folder: str = ""  # where each known benchmark has a subfolder or file of its name; "" is none
    held_out: bool = True  # the held-out documents and the items made from them are benchmarks too
    ngram_words: dict[str, int] = field(default_factory=lambda: {"D1": 13, "D2": 13, "D3": 8})
    sample_share: float = 0.5
    absolute_hits: int = 8  # with n = 13, twenty words in a row
    item_share: float = 0.75
    item_ngram_words: int = 5
    item_bits: float = 34.0  # three rare words in a row; all that a part has where that is less
    max_items_per_ngram: int = 10  # an n-gram of more items than this is a phrase, not evidence


@dataclass(slots=True)
class Baking:
    sequence_length: int = 2048
    tokenizer: str = ""  # a SentencePiece model; "" is the Mistral 32k tokenizer
    part_bytes: int = 256 << 20  # text that one worker bakes into one file


@dataclass(slots=True)
class Recipe:
    """The way of a document, top to bottom.

    `mixtures`: name -> {source or tier: weight}. A tier's weight is shared among those of its
    sources that the mixture does not name, by their tokens. Weights need not sum to one.
    """

    sources: list[Source] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)
    cleaning: Cleaning = field(default_factory=Cleaning)
    dedup: Deduplication = field(default_factory=Deduplication)
    held_out: HeldOut = field(default_factory=HeldOut)
    decontamination: Decontamination = field(default_factory=Decontamination)
    nlp_tasks: NlpTasks = field(default_factory=NlpTasks)
    baking: Baking = field(default_factory=Baking)
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)
    workers: int = 0  # 0 is one for each processor
