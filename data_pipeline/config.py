"""All settings of curation, in the order in which a document meets them. Standard library only.

A `Recipe` is built in Python (see configs/) and can be overridden from the command line:
`--config.data.dedup.threshold=0.8`. Every field has a comment: what it is, its unit, its range. A
share is a number from 0 to 1. All settings are checked before any work (data_pipeline/validate.py).
"""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
import enum
from dataclasses import dataclass, field, replace


class Reader(enum.Enum):
    """The origin of a source's raw text."""

    FILES = "files"  # a file or a folder of .jsonl .json .parquet .txt .md .html, plain, .gz, .zst
    PYTHON_READMES = "python_readmes"  # long descriptions of the installed distributions
    PYTHON_REFERENCE = "python_reference"  # the language reference that pydoc shows
    PYTHON_DOCSTRINGS = "python_docstrings"  # of the standard library, one document per module
    PYTHON_CODE = "python_code"  # source files of the standard library
    PYTHON_LICENSES = "python_licenses"  # license and notice files of the installed distributions
    SCHOOL_MATH = "school_math"  # generated word problems with worked answers
    TFDS = "tfds"  # a prepared TensorFlow dataset
    HUGGING_FACE = "hugging_face"  # a dataset of the hub, or the folder of one (extra `hub`)


class Tier(enum.Enum):
    """The paper's three kinds of data (section 2)."""

    D1 = "D1"  # cleaned text
    D2 = "D2"  # synthetic text
    D3 = "D3"  # NLP tasks


class CleaningProfile(enum.Enum):
    """The cleaning rules of a category: rules for prose would destroy code and mathematics."""

    PROSE = "prose"  # all rules
    CODE = "code"  # no rules about language, sentences or symbols
    MARKUP = "markup"  # LaTeX, tables, reference works: text with structure that must survive
    TASKS = "tasks"  # short question-answer texts: no length or completeness rules


@dataclass(slots=True)
class Source:
    """The origin of documents; a source's name is also the name of its SeqIO task.

    An entry with neither a name nor a path is ignored: config pages use it as a slot for a folder.
    """

    name: str = ""  # "": each row's own `source`, or the name of its file or folder in the path
    category: str = ""  # "": each row's own `category`, or else the source's name
    tier: Tier = Tier.D1  # of all its documents
    reader: Reader = Reader.FILES  # what reads the path
    # File or folder; TFDS name (my_corpus/config:1.0.0) or the folder of a version; hub id, or the
    # folder of a Hugging Face dataset.
    path: str = ""
    exclude: tuple[str, ...] = ()  # patterns of files in the path that are not read: "drafts/*"
    # Fields of a row that make the text, joined by a blank line. In TFDS and Hugging Face datasets
    # "a/b" is the field b inside a.
    text_fields: tuple[str, ...] = ("text",)
    id_field: str = "id"  # field of a row that identifies it; rows without it are numbered
    label_fields: tuple[str, ...] = ("intent",)  # D3: fields that label a row's text; both are kept
    source_field: str = "source"  # field of a row that names its source, if `name` is ""
    category_field: str = "category"  # field of a row that names its category, if `category` is ""
    max_documents: int = 0  # documents that are read, spread over the source; 0: all
    obtain: str = ""  # how to get the source, and its license; printed if it is missing
    split: str = "train"  # TFDS and Hugging Face, with slices: "train[:10%]", "train+test"
    data_dir: str = ""  # TFDS: folder of prepared datasets; "": TFDS's default
    subset: str = ""  # Hugging Face: configuration of a dataset that has several
    revision: str = ""  # Hugging Face: commit or tag of the hub; "": the newest
    streaming: bool = False  # Hugging Face: read the dataset's files without a local copy


@dataclass(slots=True)
class Reading:
    """The division of raw input into shards, and the share of it that may be bad."""

    # Raw bytes per shard, at least 1: small files are combined, large .jsonl and .parquet are cut.
    shard_bytes: int = 4 << 20
    max_line_bytes: int = 32 << 20  # a longer line or file is quarantined as `line_too_long`
    max_bad_fraction: float = 0.01  # share of bad rows above which a shard is refused


@dataclass(slots=True)
class RepeatedLines:
    """Removal of lines that many documents of one source share: menus, notices, template frames.

    A line is repeated if more than `min_documents` documents and more than `min_share` of all
    documents of its source have it. cleaning/repeated_lines.py explains which of them are removed.
    """

    enabled: bool = True  # whether such lines are counted and removed
    min_documents: int = 20  # documents of a source, at least 0
    min_share: float = 0.05  # share of a source's documents
    # Documents of other profiles are neither counted nor changed.
    profiles: tuple[CleaningProfile, ...] = (CleaningProfile.PROSE,)
    partitions: int = 1  # of the hash space, each counted by one worker; the result is the same


@dataclass(slots=True)
class C4:
    """C4's heuristics with their published constants (arXiv 1910.10683, section 2.2).

    The word length and the policy phrases are only in the authors' code, not in the paper.
    """

    min_words_per_line: int = 5  # a line with fewer words is removed
    min_sentences: int = 3  # a document with fewer sentences is dropped
    max_word_characters: int = 1000  # a line with a longer word is removed
    # Text file with one word or phrase per line; a document with one of them is dropped. "": none.
    bad_words: str = ""


@dataclass(slots=True)
class GopherQuality:
    """MassiveText's quality filter with its published constants (arXiv 2112.11446, A.1.1)."""

    min_words: int = 50  # words of a document
    max_words: int = 100_000  # words of a document
    min_mean_word_length: float = 3.0  # characters
    max_mean_word_length: float = 10.0  # characters
    max_symbols_per_word: float = 0.1  # hash signs per word, and ellipses per word, each on its own
    max_bullet_lines: float = 0.9  # share of lines that begin with a bullet
    max_ellipsis_lines: float = 0.3  # share of lines that end with an ellipsis
    min_alphabetic_words: float = 0.8  # share of words with a letter
    min_stop_words: int = 2  # different ones of: the, be, to, of, and, that, have, with


@dataclass(slots=True)
class GopherRepetition:
    """MassiveText's repetition filter with its published constants (arXiv 2112.11446, table A1)."""

    max_duplicate_lines: float = 0.30  # share of lines
    max_duplicate_paragraphs: float = 0.30  # share of paragraphs
    max_duplicate_line_characters: float = 0.20  # share of characters
    max_duplicate_paragraph_characters: float = 0.20  # share of characters
    # Words of an n-gram -> largest share of characters in the most frequent n-gram.
    max_top_ngram: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    # Words of an n-gram -> largest share of characters in n-grams that occurred before.
    max_duplicate_ngrams: dict[int, float] = field(
        default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )


@dataclass(slots=True)
class FineWeb:
    """FineWeb's own filters with their published constants (arXiv 2406.17557, section 3.6)."""

    min_punctuated_lines: float = 0.12  # a document with this share or less is dropped
    max_duplicate_line_characters: float = 0.1  # a document with this share or more is dropped
    short_line_characters: int = 30  # characters of a short line, at most
    max_short_lines: float = 0.67  # a document with this share of short lines or more is dropped


RuleSet = C4 | GopherQuality | GopherRepetition | FineWeb


@dataclass(slots=True)
class Cleaning:
    """D1's heuristic rules (paper, section 2.1)."""

    language: str = "en"  # expected language, ISO 639-1
    # Probability of another language from which on a document is dropped; above 1: never.
    min_foreign_score: float = 0.25
    min_words: int = 20  # words of a document
    max_words: int = 500_000  # words of a document; a long novel has 250 000
    replace_personal_information: bool = True  # e-mail addresses, keys and the like, by <EMAIL> ...
    remove_links: bool = True  # link targets are removed, their texts stay
    min_complete_lines: float = 0.3  # prose: share of text in lines that end as sentences do
    max_symbol_to_word: float = 0.1  # "#" and ellipses per word (Gopher, arXiv 2112.11446, A1)
    min_alphabetic_words: float = 0.6  # prose: share of words with a letter (Gopher has 0.8)
    max_duplicate_lines: float = 0.3  # share of text in lines that occurred before (Gopher)
    drop_unfinished: bool = True  # drop documents that end inside a list, fence, environment or tag
    # Published rules, after those above, in this order: (GopherRepetition(), GopherQuality(), C4(),
    # FineWeb()) is FineWeb's recipe.
    rule_sets: tuple[RuleSet, ...] = ()
    # Profiles that the published rules apply to.
    rule_set_profiles: tuple[CleaningProfile, ...] = (CleaningProfile.PROSE,)
    profiles: dict[str, CleaningProfile] = field(  # category -> its rules; others are prose
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
    """Removal of exact and near duplicates across all sources.

    The survivor comes from the earliest source. `permutations`, `seed` and the scheme define
    MinHash as datasketch does. Pairs that agree in one of `bands` runs of `rows` values are
    candidates; every candidate pair is verified by its exact Jaccard similarity.
    """

    enabled: bool = True  # whether duplicates are removed
    ngram_words: int = 5  # words of an n-gram, at least 1
    permutations: int = 128  # values of a MinHash signature, at least bands x rows
    bands: int = 14  # runs of a signature that are compared, at least 1
    rows: int = 9  # values per run, at least 1
    threshold: float = 0.7  # Jaccard similarity of word n-grams of two duplicates, in (0, 1]
    seed: int = 1  # of the permutations, from 0 to 2^32 - 1
    partitions: int = 0  # of the work; more need less memory each; 0: one per 256 MiB of text


@dataclass(slots=True)
class RepeatedParagraphs:
    """Removal of paragraphs that documents share word for word: notices, introductions, quotations.

    One copy stays: in the document of the earliest source, of these the longest, its first one.
    """

    enabled: bool = False  # whether such paragraphs are removed
    min_words: int = 20  # a shorter paragraph is never removed; at least 1
    min_words_left: int = 20  # a document that is left with fewer words is dropped
    exempt: tuple[CleaningProfile, ...] = (  # profiles that are neither changed nor compared
        CleaningProfile.CODE,
        CleaningProfile.TASKS,
    )
    partitions: int = 0  # of the work; 0: one per 256 MiB of text


@dataclass(slots=True)
class HeldOut:
    """Documents kept for evaluation, chosen by a hash of their id, and the items made from them."""

    fraction: float = 0.02  # share of all documents that are candidates
    max_documents: int = 40  # held-out documents of one source, at most
    items: int = 40  # multiple-choice items of each kind from one source, at most
    choices: int = 4  # options of an item, at least 2
    seed: int = 0  # of the choice of documents and items


@dataclass(slots=True)
class NlpTasks:
    """D3 without a teacher: tasks in natural language from the structure of documents."""

    enabled: bool = True  # whether such tasks are written
    source: str = "nlp_tasks"  # name of the source that the tasks become
    kinds: tuple[str, ...] = (  # kinds of tasks that are written
        "question_answering",
        "multiple_choice",
        "cloze",
        "summary",
        "true_false",
        "title",
    )
    per_document: int = 4  # tasks of each kind from one document, at most
    max_words: int = 340  # words of a task; a longer one is skipped
    max_tokens: int = 512  # tokens of a task, by the baking tokenizer (paper, A.4)
    seed: int = 0  # of all random choices


class Structure(enum.Enum):
    """The way in which JSON is requested of a server if there is a schema; servers differ."""

    NONE = "none"  # by the prompt alone
    JSON_OBJECT = "json_object"  # any JSON object
    JSON_SCHEMA = "json_schema"  # only what fits the schema: vLLM, llama.cpp, many hosted ones


@dataclass(slots=True)
class TeacherConfig:
    """A server with OpenAI's /v1/chat/completions: vLLM, llama.cpp's server, or a hosted one.

    Replies are cached. Model, sampling, `structure` and `extra_body` determine a reply; the other
    fields can change without any request being sent again. The key is read from the environment and
    never written. Prices and costs are in one currency.
    """

    base_url: str = ""  # up to /v1: "http://127.0.0.1:8000/v1"; "": cached replies alone
    model: str = ""  # the model's name on the server
    api_key_variable: str = ""  # environment variable that holds the key; "": no key is sent
    temperature: float = 0.7  # of sampling, at least 0
    top_p: float = 0.95  # of sampling, in (0, 1]
    seed: int = 0  # sample k of a prompt is requested with seed + k
    structure: Structure = Structure.JSON_SCHEMA  # how JSON is requested
    # Further fields of each request; a field of value None is left out, for servers that refuse it:
    # {"chat_template_kwargs": {"enable_thinking": False}, "seed": None}.
    extra_body: dict[str, object] = field(default_factory=dict)
    max_tokens_field: str = "max_tokens"  # some hosted models need "max_completion_tokens"
    concurrency: int = 16  # requests in flight, at least 1
    requests_per_minute: float = 0.0  # 0: no limit
    tokens_per_minute: float = 0.0  # of prompts and completions; 0: no limit
    connect_timeout_s: float = 10.0  # seconds to open a connection
    stall_timeout_s: float = 120.0  # seconds without a byte of a reply
    answer_timeout_s: float = 900.0  # seconds for a whole reply
    max_retries: int = 8  # of one request; waits double up to max_backoff_s: about five minutes
    max_unanswered: float = 0.01  # share of unanswered requests above which a shard is refused
    first_backoff_s: float = 1.0  # seconds before the first retry
    max_backoff_s: float = 60.0  # seconds before a later retry, at most
    prompt_price: float = 0.0  # per million tokens
    completion_price: float = 0.0  # per million tokens
    max_cost: float = 0.0  # of all replies of this model in the cache; 0: no limit
    cache: str = ""  # folder of replies, to share them between runs; "": in the run's folder


@dataclass(slots=True)
class Benchmark:
    """Evaluation data that must not occur in the training data."""

    name: str  # of a layout in decontamination/benchmarks.py, or any name with `parts`
    path: str  # a folder of `SPLIT.jsonl[.gz|.zst]` or .parquet files, or one such file
    # Fields whose texts are indexed separately, since a question can leak without its answer. ():
    # the layout that is registered under `name`.
    parts: tuple[str, ...] = ()
    absolute_hits: bool = True  # whether the absolute-hits rule applies (not to long documents)
    # Files with paraphrases of its items, in rows of the same shape or with a field
    # "rewritten_NAME" for each NAME. They are planted to measure recall, never indexed.
    paraphrases: tuple[str, ...] = ()


class Rules(enum.Enum):
    """The rules that find evaluation data in documents."""

    FIELDS = "fields"  # those of the fields of Decontamination, by default all three
    PAPER = "paper"  # the paper's A.4 to the letter: see Decontamination.resolved


@dataclass(slots=True)
class ParaphraseRule:
    """Paraphrased items: passages that share an item's rare words, names and numbers.

    A passage of about an item's length is compared with it as a bag of word stems, each weighted by
    how few items have it (TF-IDF). decontamination/paraphrases.py lists what this cannot find.
    """

    enabled: bool = False  # whether the rule applies
    similarity: float = 0.65  # least cosine of a passage and an item, in (0, 1]
    min_words: int = 25  # of an item; shorter ones resemble other items of their kind
    max_items_per_word: int = 1000  # a word of more items does not start a comparison


@dataclass(slots=True)
class CutSpans:
    """Removal of the matching passages of a long document, with the sentences that they touch.

    The rest is searched again until no rule finds anything.
    """

    enabled: bool = False  # False: a document with a match is dropped
    min_words: int = 400  # a document with fewer words is dropped
    max_share: float = 0.2  # a document that would lose more of its words is dropped; in (0, 1]
    margin_sentences: int = 1  # removed on both sides too: an answer follows its question


@dataclass(slots=True)
class Decontamination:
    """Drops documents that share word n-grams with an evaluation item (paper, A.4).

    A document is dropped if any of three rules applies; 0 switches a rule off.

    - sample share: more than `sample_share` of its own n-grams occur in the benchmarks.
    - absolute hits: it has at least `absolute_hits` different n-grams of one part of an item.
    - item share: a passage no longer than a part of an item contains at least `item_share` of it,
      its words weighted by their rarity, and runs of `item_ngram_words` words in common with it
      that are worth `item_bits` bits. This rule finds short, edited and embedded items.
    """

    enabled: bool = True  # False: held-out documents are still dropped
    rules: Rules = Rules.FIELDS  # the fields below, or the paper's rule
    benchmarks: list[Benchmark] = field(default_factory=list)  # evaluation data, by name and path
    folder: str = ""  # folder with a subfolder or file for each known benchmark; "": none
    held_out: bool = True  # whether held-out documents and items made from them are benchmarks too
    # Tier -> tokens of a document; longer ones are dropped first (A.4: 2048 for D2, 512 for D3). 0
    # or none: any length.
    max_tokens: dict[str, int] = field(default_factory=lambda: {"D2": 2048, "D3": 512})
    # Tier, or source -> words of the n-grams of the first two rules; every tier is needed.
    ngram_words: dict[str, int] = field(default_factory=lambda: {"D1": 13, "D2": 13, "D3": 8})
    sample_share: float = 0.5  # share of a document's n-grams; 0: the rule is off
    absolute_hits: int = 8  # n-grams; with n = 13, twenty words in a row; 0: the rule is off
    item_share: float = 0.75  # share of a part of an item; 0: the rule is off
    item_ngram_words: int = 5  # words of a run that a passage and an item have in common
    item_bits: float = 34.0  # about three rare words in a row; a part with less needs all it has
    max_items_per_ngram: int = 10  # an n-gram of more items is a phrase and no evidence
    paraphrases: ParaphraseRule = field(default_factory=ParaphraseRule)  # a fourth rule
    cut_spans: CutSpans = field(default_factory=CutSpans)  # cutting instead of dropping

    def resolved(self) -> "Decontamination":
        """Returns these settings with `rules` written out in the other fields.

        The paper's rule: a document is dropped if more than half of its n-grams occur in the
        benchmarks, N = 10 .. 15 for D2 and 4 .. 8 for D3; the smallest N finds what any of them
        does. D1, which the paper does not mention, gets 13. No n-gram counts as a phrase.
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
    """The vectors that topics are clusters of."""

    TERMS = "terms"  # TF-IDF, reduced to fewer dimensions by SVD
    EMBEDDINGS = "embeddings"  # vectors of the `embedder`


@dataclass(slots=True)
class Topics:
    """Clusters of the decontaminated documents: to spread synthesis, and to measure diversity.

    They are found once, in a sample; then every document gets the nearest one.
    """

    enabled: bool = True  # whether topics are found
    features: Features = Features.TERMS  # terms of the texts, or vectors of a server
    embedder: TeacherConfig = field(default_factory=TeacherConfig)  # server with /v1/embeddings
    count: int = 0  # topics; 0: the square root of half the number of sampled documents
    max_topics: int = 200  # limit if `count` is 0
    sample_documents: int = 2000  # sampled from each source, about
    max_characters: int = 6000  # of a document that are read: its beginning, middle and end
    max_terms: int = 50_000  # size of the vocabulary
    dimensions: int = 100  # of the vectors after the SVD
    restarts: int = 3  # of k-means; the best one is kept
    covered_documents: int = 10  # the report counts a topic with as many documents as covered
    seed: int = 0  # of the sample, the SVD and k-means


@dataclass(slots=True)
class OutputFilters:
    """The filters of synthetic documents; 0 switches a filter of a share off."""

    language: str = "en"  # expected language, ISO 639-1
    # Probability of another language from which on a text is dropped; above 1: never.
    min_foreign_score: float = 0.25
    min_words: int = 80  # words of a text
    max_words: int = 3000  # words of a text
    # A reply that was cut at `max_tokens` is shortened to its last sentence; False: it is dropped.
    repair_truncated: bool = True
    max_duplicate_lines: float = 0.3  # share of text in lines that occurred before (as in cleaning)
    max_repeated_ngrams: float = 0.2  # share of its 6-grams of words that occurred before
    max_copied: float = 0.3  # share of its 8-grams that are the passage's
    max_passage_coverage: float = 0.6  # share of the passage's 8-grams that it contains


@dataclass(slots=True)
class Synthesis:
    """D2: a teacher writes texts inspired by passages of D1 (paper, section 2.2).

    Passages are spread evenly over the topics of a category. Needs `topics`.
    """

    enabled: bool = False  # whether D2 is made
    source: str = "synthetic"  # the documents of category law become the source synthetic_law
    documents: int = 10_000  # documents that are requested; the output filters drop some
    # Category of prompts -> its share of `documents`; of those that have passages. Defaults:
    # billions of tokens in the paper's Table 4.
    weights: dict[str, float] = field(
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
    # Category of a source, in lower case -> category of its prompts; others are web.
    categories: dict[str, str] = field(
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
    per_document: int = 4  # passages of one document, at most, each with another prompt
    min_passage_words: int = 40  # words of a passage, at least 1
    max_passage_words: int = 250  # words of a passage
    max_tokens: int = 2048  # of a reply
    shard_requests: int = 1000  # requests per shard, about
    seed: int = 0  # of all random choices
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # the server that writes
    output_filters: OutputFilters = field(default_factory=OutputFilters)  # of its replies


@dataclass(slots=True)
class Restructuring:
    """D3 by a teacher: passages become exercises as JSON, then natural language (paper, 2.3).

    Passages are cut from decontaminated documents of D1 and D2.
    """

    enabled: bool = False  # whether these tasks are made
    source: str = "restructured"  # name of the source that the tasks become
    kinds: tuple[str, ...] = (  # kinds of tasks that are requested
        "question_answering",
        "multiple_choice",
        "cloze",
        "summary",
        "true_false",
        "paraphrase",
        "keywords",
        "title",
    )
    # Category of a source -> category of its prompts; documents of other categories are skipped.
    categories: dict[str, str] = field(
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
    per_passage: int = 2  # kinds of task that are requested for a passage, chosen by a hash
    min_words: int = 60  # words of a passage, at least 1
    max_words: int = 220  # words of a passage of prose; fewer of code, mathematics and law
    answer_tokens: int = 400  # tokens of a reply, at most
    max_tokens: int = 512  # tokens of a task, by the baking tokenizer (paper, A.4)
    seed: int = 0  # of all random choices
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # the server that writes


@dataclass(slots=True)
class Baking:
    """The packing of documents into token rows."""

    sequence_length: int = 2048  # tokens of a row
    tokenizer: str = ""  # path of a SentencePiece model; "": the Mistral tokenizer of 32k pieces
    part_bytes: int = 256 << 20  # bytes of text that one worker bakes into one file


class EngineKind(enum.Enum):
    """What runs the shards of a stage; the bytes that are written are the same."""

    LOCAL = "local"  # processes on this machine
    BEAM = "beam"  # Apache Beam, on this machine or a cluster (extra `beam`)


@dataclass(slots=True)
class Recipe:
    """All settings of curation, from raw input to mixtures."""

    sources: list[Source] = field(default_factory=list)  # raw input, the most valuable first
    reading: Reading = field(default_factory=Reading)  # raw input to documents
    repeated_lines: RepeatedLines = field(default_factory=RepeatedLines)  # boilerplate lines
    cleaning: Cleaning = field(default_factory=Cleaning)  # heuristic rules per document
    dedup: Deduplication = field(default_factory=Deduplication)  # exact and near duplicates
    # Paragraphs that several documents share.
    repeated_paragraphs: RepeatedParagraphs = field(default_factory=RepeatedParagraphs)
    held_out: HeldOut = field(default_factory=HeldOut)  # documents for evaluation
    decontamination: Decontamination = field(default_factory=Decontamination)  # no evaluation data
    topics: Topics = field(default_factory=Topics)  # clusters of documents
    synthesis: Synthesis = field(default_factory=Synthesis)  # D2
    nlp_tasks: NlpTasks = field(default_factory=NlpTasks)  # D3 from the structure of documents
    restructuring: Restructuring = field(default_factory=Restructuring)  # D3 by a teacher
    baking: Baking = field(default_factory=Baking)  # packed token rows
    # Name -> {source or tier: weight}. A tier's weight is divided, by tokens, among those of its
    # sources that the mixture does not name. Weights need not sum to one.
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)
    # Mixture -> tokens drawn from it, to print its epochs; training has a limit of its own.
    budgets: dict[str, float] = field(default_factory=dict)
    allow_missing: bool = False  # continue without missing sources; the others get their weight
    workers: int = 0  # worker processes of the local engine; 0: one per processor
    engine: EngineKind = EngineKind.LOCAL  # what runs the stages
    beam_options: tuple[str, ...] = ()  # Beam's own flags: ("--runner=DataflowRunner", ...)
    output: str = ""  # folder of the stages; gs:// or s3:// for a cluster; "": WORKDIR/data
