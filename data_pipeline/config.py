"""Every knob of curation, in the order a document meets them. Standard library only.

A `Recipe` is built in Python (see configs/) and may be overridden from the command line:
`--config.data.dedup.threshold=0.8`. Lengths are counted in the unit that the field's name says.
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import dataclass, field, replace


class Reader(enum.Enum):
    """Where the raw text of a source comes from."""

    FILES = "files"  # a file or a folder of .jsonl .json .parquet .txt .md .html, plain, .gz, .zst
    PYTHON_READMES = "python_readmes"  # long descriptions of the installed distributions
    PYTHON_REFERENCE = "python_reference"  # the language reference that pydoc shows
    PYTHON_DOCSTRINGS = "python_docstrings"  # of the standard library, one document a module
    PYTHON_CODE = "python_code"  # source files of the standard library
    PYTHON_LICENSES = "python_licenses"  # license and notice files of the installed distributions
    SCHOOL_MATH = "school_math"  # generated word problems with worked answers
    TFDS = "tfds"  # a prepared TensorFlow dataset
    HUGGING_FACE = "hugging_face"  # a dataset of the hub, or a folder of one (extra `hub`)


class Tier(enum.Enum):
    """The paper's three kinds of data (section 2): cleaned, synthesized, NLP tasks."""

    D1 = "D1"
    D2 = "D2"
    D3 = "D3"


class CleaningProfile(enum.Enum):
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
    `path`: a file or folder; a TFDS name (my_corpus/config:1.0.0) or the folder of a version; a
    hub id or the folder of a Hugging Face dataset.
    `text_fields`: the fields of a row that make the text, joined by a blank line. In TFDS and
    Hugging Face datasets "a/b" is the field b inside a.
    """

    name: str = ""
    category: str = ""  # "" takes each row's own `category`, or the source's name where it has none
    tier: Tier = Tier.D1
    reader: Reader = Reader.FILES
    path: str = ""
    exclude: tuple[str, ...] = ()  # patterns of files in the path that are not read: "drafts/*"
    text_fields: tuple[str, ...] = ("text",)
    id_field: str = "id"
    label_fields: tuple[str, ...] = ("intent",)  # D3: what labels a row's text; both are rendered
    source_field: str = "source"
    category_field: str = "category"
    max_documents: int = 0  # 0 reads everything
    obtain: str = ""  # where it comes from and its license, in words; shown where it is missing
    split: str = "train"  # TFDS and Hugging Face, with slices: "train[:10%]", "train+test"
    data_dir: str = ""  # TFDS: the folder of prepared datasets; "" is TFDS's own
    subset: str = ""  # Hugging Face: the configuration of a dataset that has several
    revision: str = ""  # Hugging Face: a commit or tag of the hub; "" is the newest
    streaming: bool = False  # Hugging Face: read the dataset's files without a copy of them


@dataclass(slots=True)
class Reading:
    # Raw bytes of a shard: small files are put together, large .jsonl and .parquet files cut up.
    shard_bytes: int = 4 << 20
    max_line_bytes: int = 32 << 20  # a longer line or file is quarantined as `line_too_long`
    max_bad_fraction: float = 0.01  # a shard with a larger share of bad rows fails the run


@dataclass(slots=True)
class RepeatedLines:
    """Lines that many documents of one source have: menus, notices, the frame of a template.

    A line is repeated if more than `min_documents` documents and more than `min_share` of all
    documents of its source have it, whatever the source's size; which of them go is said in
    cleaning/repeated_lines.py. Documents of other profiles are not counted, nor changed.
    """

    enabled: bool = True
    min_documents: int = 20
    min_share: float = 0.05
    profiles: tuple[CleaningProfile, ...] = (CleaningProfile.PROSE,)
    partitions: int = 1  # of the hash space, each counted by one worker; changes no result


@dataclass(slots=True)
class C4:
    """C4's heuristics with their published constants (arXiv 1910.10683, section 2.2).

    The word length and the policy phrases are in the authors' code only, not in the paper.
    """

    min_words_per_line: int = 5
    min_sentences: int = 3
    max_word_characters: int = 1000  # lines with a longer word go
    bad_words: str = ""  # a text file, a word or phrase a line, that no page may hold; "" is none


@dataclass(slots=True)
class GopherQuality:
    """MassiveText's quality filter with its published constants (arXiv 2112.11446, A.1.1)."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_symbols_per_word: float = 0.1  # hash signs, and ellipses, each for itself
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2  # different ones of the, be, to, of, and, that, have, with


@dataclass(slots=True)
class GopherRepetition:
    """MassiveText's repetition filter with its published constants (arXiv 2112.11446, table A1)."""

    max_duplicate_lines: float = 0.30
    max_duplicate_paragraphs: float = 0.30
    max_duplicate_line_characters: float = 0.20
    max_duplicate_paragraph_characters: float = 0.20
    # number of words -> largest share of characters in the most frequent n-gram
    max_top_ngram: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    # number of words -> largest share of characters in n-grams that were there before
    max_duplicate_ngrams: dict[int, float] = field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )


@dataclass(slots=True)
class FineWeb:
    """FineWeb's own filters with their published constants (arXiv 2406.17557, section 3.6)."""

    min_punctuated_lines: float = 0.12  # a document goes if its share is this or less
    max_duplicate_line_characters: float = 0.1  # ... if its share is this or more
    short_line_characters: int = 30
    max_short_lines: float = 0.67  # ... if its share is this or more


RuleSet = C4 | GopherQuality | GopherRepetition | FineWeb


@dataclass(slots=True)
class Cleaning:
    """D1's heuristic rules (paper, section 2.1).

    `rule_sets` come after the rules of this class, in their order, for `rule_set_profiles` only:
    (GopherRepetition(), GopherQuality(), C4(), FineWeb()) is FineWeb's recipe.
    """

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
    drop_unfinished: bool = True  # lists, fences, environments, tags, code that break off
    rule_sets: tuple[RuleSet, ...] = ()
    rule_set_profiles: tuple[CleaningProfile, ...] = (CleaningProfile.PROSE,)
    profiles: dict[str, CleaningProfile] = field(
        default_factory=lambda: {
            "code": CleaningProfile.CODE,
            "math": CleaningProfile.MARKUP,
            "academic": CleaningProfile.MARKUP,
            "law": CleaningProfile.MARKUP,
            "reference": CleaningProfile.MARKUP,
            "docs": CleaningProfile.MARKUP,
            "tech_docs": CleaningProfile.MARKUP,
            "qa": CleaningProfile.TASKS,
            "tasks": CleaningProfile.TASKS,
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
    partitions: int = 0  # what is compared at once, memory only; 0: one for each 256 MiB of text


@dataclass(slots=True)
class RepeatedParagraphs:
    """Paragraphs that documents have in common, word for word: notices, introductions, quotations.

    One stays: in the document of the earliest source, of these the longest, and there the first.
    """

    enabled: bool = False
    min_words: int = 20  # a shorter paragraph stays wherever it stands
    min_words_left: int = 20  # a document that is left with fewer words goes
    exempt: tuple[CleaningProfile, ...] = (
        CleaningProfile.CODE,
        CleaningProfile.TASKS,
    )  # neither changed nor compared
    partitions: int = 0  # as above


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
    kinds: tuple[str, ...] = (
        "question_answering",
        "multiple_choice",
        "cloze",
        "summary",
        "true_false",
        "title",
    )
    per_document: int = 4  # tasks of each kind from one document, at most
    max_words: int = 340  # of one task; a longer one gives way to the next
    max_tokens: int = 512  # of one task, by the tokenizer that bakes it (paper, A.4)
    seed: int = 0


class Structure(enum.Enum):
    """How a teacher's server is asked for JSON where a request has a schema; servers differ."""

    NONE = "none"  # by the prompt alone
    JSON_OBJECT = "json_object"  # any JSON object
    JSON_SCHEMA = "json_schema"  # only what fits the schema: vLLM, llama.cpp, many hosted ones


@dataclass(slots=True)
class TeacherConfig:
    """A server that speaks OpenAI's /v1/chat/completions: vLLM, llama.cpp's server, or hosted.

    Its key is read from the environment and written nowhere. Prices and costs are in the currency
    that the prices are given in. Model, sampling, `structure` and `extra_body` determine an answer;
    the other fields may change without any answer being asked for again.

    `extra_body`: further fields of each request; one whose value is None is left out, for servers
    that refuse it: {"chat_template_kwargs": {"enable_thinking": False}, "seed": None}.
    """

    base_url: str = ""  # as far as /v1: "http://127.0.0.1:8000/v1"; "" is no teacher
    model: str = ""  # as the server names it
    api_key_variable: str = ""  # the environment variable that holds the key; "" sends none
    temperature: float = 0.7
    top_p: float = 0.95
    seed: int = 0  # sample k of a prompt is asked for with seed + k
    structure: Structure = Structure.JSON_SCHEMA
    extra_body: dict[str, object] = field(default_factory=dict)
    max_tokens_field: str = "max_tokens"  # some hosted models want "max_completion_tokens"
    concurrency: int = 16  # requests in flight
    requests_per_minute: float = 0.0  # 0 is no limit
    tokens_per_minute: float = 0.0  # prompt and completion; 0 is no limit
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 120.0  # without a byte, before the first one or between two
    answer_timeout_s: float = 900.0  # for a whole answer
    max_retries: int = 8  # of a request; waits double up to max_backoff_s, about five minutes
    max_unanswered: float = 0.01  # a shard with a larger share of unanswered requests is refused
    first_backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    prompt_price: float = 0.0  # of a million tokens
    completion_price: float = 0.0  # of a million tokens
    max_cost: float = 0.0  # of all answers that the cache has of this model; 0 is no limit
    cache: str = ""  # a folder to share answers between runs; "" is one among the run's data


@dataclass(slots=True)
class Benchmark:
    """What must not leak. `path` is a folder of `SPLIT.jsonl[.gz|.zst]` or one such file.

    `parts`: field names whose texts are indexed apart, since a leaked question need not bring its
    answer. Empty: the layout registered under `name` in decontamination/benchmarks.py.
    `paraphrases`: files of paraphrased items, in rows of the same shape or with fields
    "rewritten_NAME" beside each NAME. They are planted to measure recall, never indexed.
    """

    name: str
    path: str
    parts: tuple[str, ...] = ()
    absolute_hits: bool = True  # whether the absolute-hits rule applies (not to long documents)
    paraphrases: tuple[str, ...] = ()


class Rules(enum.Enum):
    """Which rules tell that a document holds evaluation data."""

    FIELDS = "fields"  # those of the fields of Decontamination, by default all three
    PAPER = "paper"  # A.4 to the letter: see Decontamination.resolved


@dataclass(slots=True)
class ParaphraseRule:
    """Paraphrased items: passages that share an item's rare words, names and numbers.

    A passage of about an item's length is compared with it as a bag of word stems, weighted by
    inverse document frequency (TF-IDF). decontamination/paraphrases.py lists what it cannot find.
    """

    enabled: bool = False
    similarity: float = 0.65  # least cosine of a passage and an item
    min_words: int = 25  # of an item: of shorter ones others of their kind say as much
    max_items_per_word: int = 1000  # a word of more items points at none, it only counts


@dataclass(slots=True)
class CutSpans:
    """Takes matching passages out of a long document, with all of each sentence that they touch.

    What is left is looked at again, until no rule finds anything; a document of fewer than
    `min_words` words, or one that would lose more than `max_share` of its words, goes as a whole.
    """

    enabled: bool = False
    min_words: int = 400
    max_share: float = 0.2
    margin_sentences: int = 1  # on both sides, that go as well: an answer follows its question


@dataclass(slots=True)
class Decontamination:
    """Drops documents that share word n-grams with an evaluation item (paper, A.4).

    A document goes when any of three rules says so; 0 switches a rule off.

    - sample share: more than `sample_share` of its own n-grams occur in the benchmarks.
    - absolute hits: it has at least `absolute_hits` different n-grams of one part of an item.
    - item share: a passage no longer than a part of an item holds at least `item_share` of what the
      part says, words weighted by their rarity, and runs of `item_ngram_words` words in common
      with it worth `item_bits` bits. This one sees short, edited and embedded items.

    `ngram_words`: n of the first two rules, by tier, or by source where a source is named.
    `max_tokens`: by tier, of a document (A.4 has 2048 for D2 and 512 for D3); longer ones go first.
    """

    enabled: bool = True
    rules: Rules = Rules.FIELDS
    benchmarks: list[Benchmark] = field(default_factory=list)
    folder: str = ""  # where each known benchmark has a subfolder or file of its name; "" is none
    held_out: bool = True  # the held-out documents and the items made from them are benchmarks too
    max_tokens: dict[str, int] = field(default_factory=lambda: {"D2": 2048, "D3": 512})
    ngram_words: dict[str, int] = field(default_factory=lambda: {"D1": 13, "D2": 13, "D3": 8})
    sample_share: float = 0.5
    absolute_hits: int = 8  # with n = 13, twenty words in a row
    item_share: float = 0.75
    item_ngram_words: int = 5
    item_bits: float = 34.0  # three rare words in a row; all that a part has where that is less
    max_items_per_ngram: int = 10  # an n-gram of more items than this is a phrase, not evidence
    paraphrases: ParaphraseRule = field(default_factory=ParaphraseRule)
    cut_spans: CutSpans = field(default_factory=CutSpans)

    def resolved(self) -> "Decontamination":
        """With `rules` spelled out in the other fields.

        The paper's rule: a document goes when more than half of its n-grams occur in the
        benchmarks, N = 10 .. 15 for D2 and 4 .. 8 for D3; the smallest N finds what any of them
        does. D1, of which the paper says nothing, gets 13. Nothing is excused as a phrase.
        """
        if self.rules is Rules.FIELDS:
            return self
        return replace(
            self,
            ngram_words={"D1": 13, "D2": 10, "D3": 4},
            sample_share=0.5,
            absolute_hits=0,
            item_share=0.0,
            max_items_per_ngram=1 << 30,
            paraphrases=replace(self.paraphrases, enabled=False),
        )


class Features(enum.Enum):
    """What topics are found from."""

    TERMS = "terms"  # TF-IDF, brought to fewer dimensions by SVD
    EMBEDDINGS = "embeddings"  # vectors of the `embedder`


@dataclass(slots=True)
class Topics:
    """Clusters of the documents that passed decontamination: for seeds, and to show diversity.

    They are found once, in a sample; then every document gets the nearest one.
    """

    enabled: bool = True
    features: Features = Features.TERMS
    embedder: TeacherConfig = field(default_factory=TeacherConfig)  # a server of /v1/embeddings
    count: int = 0  # topics; 0 is the square root of half the sample's documents
    most_topics: int = 200  # where `count` is 0
    sample_documents: int = 2000  # of each source, about so many
    max_characters: int = 6000  # of a document that are read: its beginning, middle and end
    max_terms: int = 50_000
    dimensions: int = 100
    restarts: int = 3
    covered_documents: int = 10  # a topic with so many documents counts as covered
    seed: int = 0


@dataclass(slots=True)
class OutputFilters:
    """What a synthetic document must pass; 0 switches a share's gate off."""

    language: str = "en"  # ISO 639-1
    min_foreign_score: float = 0.25  # a text goes if another language is this certain [0, 1]
    min_words: int = 80
    max_words: int = 3000
    repair_truncated: bool = (
        True  # an answer cut at `max_tokens` ends at its last sentence; else it goes
    )
    max_duplicate_lines: float = 0.3  # share of text in lines seen before (as in cleaning)
    max_repeated_ngrams: float = 0.2  # share of its 6-grams of words that it had before
    max_copied: float = 0.3  # share of its 8-grams that are the passage's
    max_passage_coverage: float = 0.6  # share of the passage's 8-grams that it has


@dataclass(slots=True)
class Synthesis:
    """D2: a teacher writes texts inspired by passages of D1 (paper, section 2.2).

    Passages are spread evenly over the topics of a category; categories share `documents` by
    `weights`, those that have passages at all. A source's category that `categories` does not know
    is prompted for as web.
    """

    enabled: bool = False
    source: str = "synthetic"  # the documents of law are the source synthetic_law
    documents: int = 10_000  # that are asked for; gates drop some
    weights: dict[str, float] = field(  # billions of tokens of Table 4
        default_factory=lambda: {
            "web": 4.5,
            "wiki": 8.16,
            "news": 4.5,
            "academic": 4.62,
            "books": 4.08,
            "law": 2.16,
            "code": 0.06,
            "math": 0.12,
        }
    )
    categories: dict[str, str] = field(  # a source's category, in lower case -> that of its prompts
        default_factory=lambda: {
            "encyclopedia": "wiki",
            "reference": "wiki",
            "hackernews": "news",
            "speeches": "news",
            "arxiv": "academic",
            "references": "academic",
            "open research corpus": "academic",
            "philosophy": "academic",
            "textbooks": "academic",
            "book": "books",
            "docs": "code",
            "tech_docs": "code",
            "net": "code",
            "khan academy": "math",
        }
    )
    per_document: int = 4  # seeds of one document, at most, each with another prompt
    min_passage_words: int = 40
    max_passage_words: int = 250
    max_tokens: int = 2048  # of an answer
    shard_requests: int = 1000  # about so many in one shard
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    output_filters: OutputFilters = field(default_factory=OutputFilters)


@dataclass(slots=True)
class Restructuring:
    """D3 by a teacher: passages become exercises as JSON, then natural language (paper, 2.3).

    Passages are cut from documents of D1 and D2 that passed decontamination and whose category
    `categories` knows; each is asked for `per_passage` of the kinds, in turn of a hash.
    """

    enabled: bool = False
    source: str = "restructured"
    kinds: tuple[str, ...] = (
        "question_answering",
        "multiple_choice",
        "cloze",
        "summary",
        "true_false",
        "paraphrase",
        "keywords",
        "title",
    )
    categories: dict[str, str] = field(  # category of a source -> category of its prompts
        default_factory=lambda: {
            "wiki": "wiki",
            "encyclopedia": "wiki",
            "reference": "wiki",
            "docs": "wiki",
            "tech_docs": "wiki",
            "code": "code",
            "math": "math",
            "khan academy": "math",
            "book": "books",
            "books": "books",
            "textbooks": "books",
            "law": "law",
        }
    )
    per_document: int = 2  # passages of one document, at most
    per_passage: int = 2  # kinds of task that a passage is asked for
    min_words: int = 60  # of a passage
    max_words: int = 220  # of a passage of prose; of code, mathematics and law fewer
    answer_tokens: int = 400  # of a reply, at most
    max_tokens: int = 512  # of a task, by the tokenizer that bakes it (paper, A.4)
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)


@dataclass(slots=True)
class Baking:
    sequence_length: int = 2048
    tokenizer: str = ""  # a SentencePiece model; "" is the Mistral 32k tokenizer
    part_bytes: int = 256 << 20  # text that one worker bakes into one file


class EngineKind(enum.Enum):
    """What runs the shards of a stage; the bytes that are written are the same."""

    LOCAL = "local"  # processes on this machine
    BEAM = "beam"  # Apache Beam, on this machine or a cluster (extra `beam`)


@dataclass(slots=True)
class Recipe:
    """The way of a document, top to bottom.

    `mixtures`: name -> {source or tier: weight}. A tier's weight is shared among those of its
    sources that the mixture does not name, by their tokens. Weights need not sum to one.
    `budgets`: for the epochs that are printed; training has a limit of its own.
    """

    sources: list[Source] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)
    repeated_lines: RepeatedLines = field(default_factory=RepeatedLines)
    cleaning: Cleaning = field(default_factory=Cleaning)
    dedup: Deduplication = field(default_factory=Deduplication)
    repeated_paragraphs: RepeatedParagraphs = field(default_factory=RepeatedParagraphs)
    held_out: HeldOut = field(default_factory=HeldOut)
    decontamination: Decontamination = field(default_factory=Decontamination)
    topics: Topics = field(default_factory=Topics)
    synthesis: Synthesis = field(default_factory=Synthesis)
    nlp_tasks: NlpTasks = field(default_factory=NlpTasks)
    restructuring: Restructuring = field(default_factory=Restructuring)
    baking: Baking = field(default_factory=Baking)
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)
    budgets: dict[str, float] = field(default_factory=dict)  # mixture -> tokens taken from it
    allow_missing: bool = False  # go on without sources that are not there, the others weigh more
    workers: int = 0  # 0 is one for each processor
    engine: EngineKind = EngineKind.LOCAL
    beam_options: tuple[str, ...] = ()  # as Beam takes them: ("--runner=DataflowRunner", ...)
    output: str = ""  # where stages are written, gs:// or s3:// for a cluster; "" is WORKDIR/data
