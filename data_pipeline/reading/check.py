"""Checks of the sources of a recipe, and the listing of their input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data_pipeline.config import Reader, Reading, Recipe, Source, Tier
from data_pipeline.config_problems import Problems, check_minimum, check_share
from data_pipeline.execution.progress import console
from data_pipeline.reading import input_shards
from data_pipeline.reading.input_shards import DATASETS, InputShard
from data_pipeline.reading.listing import MissingSourceError

# Readers that take their text from fields of rows.
_ROW_READERS = {Reader.FILES, *DATASETS}


def check(recipe: Recipe, problems: Problems) -> list[tuple[Source, InputShard]]:
    """Checks the sources and how they are read, and lists their input.

    A dataset of TFDS or the Hugging Face hub is opened, which may download it, only if there are
    no problems so far.

    Args:
      recipe: `sources`, `reading` and `allow_missing` are used.
      problems: receives the messages: one for all missing sources.

    Returns:
      The input shards of all sources, in their order. Incomplete if there are problems.
    """
    own = Problems(problems.path)
    check_minimum(own.at("reading"), 1, recipe.reading, "shard_bytes", "max_line_bytes")
    check_share(own.at("reading"), recipe.reading, "max_bad_fraction")
    sources = []
    for number, source in enumerate(recipe.sources):
        if source.name or source.path:
            sources.append(source)
            _check_source(source, own.at(f"sources[{number}]"))
    if not sources:
        own.add("sources", recipe.sources, "at least one source with a name or a path")
    _check_names(sources, own)
    problems.messages += own.messages
    if own:  # these settings determine what is listed, and how
        return []
    listed = [source for source in sources if not (problems and source.reader in DATASETS)]
    inputs, missing = list_inputs(listed, recipe.reading, problems)
    _report_missing(missing, bool(inputs), len(sources), recipe.allow_missing, problems)
    names = Counter(shard.name for _, shard in inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        problems.messages.append(
            f"{problems.path}.sources: two sources have one name: both would write shard "
            f"{twice[0]!r}. Give one of them a `name`, or rename a file or folder in their paths."
        )
    return inputs


def _check_source(source: Source, problems: Problems) -> None:
    """Checks the fields of one source, without its input."""
    check_minimum(problems, 0, source, "max_documents")
    if "/" in source.name:
        problems.add("name", source.name, "no '/': files are named by it")
    if source.reader in _ROW_READERS and source.tier is not Tier.D3 and not source.text_fields:
        problems.add("text_fields", source.text_fields, "the fields that make the text of a row")
    if source.reader in DATASETS and not source.split:
        problems.add("split", source.split, "a split of the dataset, such as 'train[:10%]'")


def _check_names(sources: Sequence[Source], problems: Problems) -> None:
    """Checks that sources of one name are of one tier: mixtures weigh tiers by their sources."""
    tier_of: dict[str, Tier] = {}
    for source in sources:
        if source.name and tier_of.setdefault(source.name, source.tier) is not source.tier:
            tiers = f"{tier_of[source.name].value} and {source.tier.value}"
            problems.add("sources", source.name, f"one tier for each name; it has {tiers}")


def list_inputs(
    sources: Sequence[Source], reading: Reading, problems: Problems
) -> tuple[list[tuple[Source, InputShard]], list[str]]:
    """Lists the input of sources, and prints how many files of other formats are beside it.

    Args:
      sources: sources with a name or a path.
      reading: the size of a shard.
      problems: of the recipe; receives a message for each source that cannot be used.

    Returns:
      The input shards of the sources that were found, in the order of the sources, and a message
      for each missing source.
    """
    inputs, missing = [], []
    for source in sources:
        unread: Counter[str] = Counter()
        try:
            shards = input_shards.list_shards(source, reading, unread)
            inputs += [(source, shard) for shard in shards]
        except MissingSourceError as error:
            missing.append(f"{error}. {source.obtain}".rstrip(". ") + ".")
        except ValueError as error:
            problems.messages.append(f"{problems.path}.sources: {error}")
        if unread:
            counts = sorted(unread.items())
            what = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts)
            console.print(f"  {source.path}: unsupported files are ignored: {what}")
    return inputs, missing


def _report_missing(
    missing: list[str], some_found: bool, total: int, allow_missing: bool, problems: Problems
) -> None:
    """Makes one problem of all missing sources, or prints them if they are allowed to be missing.

    Args:
      missing: a message for each missing source.
      some_found: whether there is any input; a recipe without any is always refused.
      total: number of sources of the recipe.
      allow_missing: as in the recipe.
      problems: of the recipe.
    """
    if not missing:
        return
    head = f"{len(missing)} of {total} sources are missing"
    if allow_missing and some_found:
        console.print("\n    ".join([f"  {head}:", *missing]), markup=False)
        return
    if len(missing) == 1:
        problems.messages.append(f"{problems.path}.sources: {missing[0]}")
        return
    advice = f"Get them, or continue with the others alone by --{problems.path}.allow_missing=True:"
    line = f"{problems.path}.sources: {head}. {advice if some_found else 'Get them:'}"
    problems.messages.append("\n  ".join([line, *missing]))
