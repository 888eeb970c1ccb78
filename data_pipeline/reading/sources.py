"""A shard of raw input as documents: the first step of every document.

Nothing is lost without a word: a row that cannot become a document is yielded as `Bad`, and what
makes it unknown how much is missing raises (see `read`).

    reason             the row or file
    -----------------  ---------------------------------------------------------------------
    invalid_utf8       is not UTF-8, nor in the encoding that an HTML page declares
    invalid_json       does not parse
    not_an_object      is JSON, but no {...}
    missing_text       lacks one of the source's text fields, or has null there
    text_not_a_string  has something else there
    unknown_format     D3 without text fields: fits no format of reading/instructions/formats.py
    no_answer          D3: a request without an answer
    template           D3: a prompt template without the data that fills it
    description        D3: a schema or list, in which nothing is asked or answered
    empty_text         has only white space as its text
    nul_character      holds a NUL
    lone_surrogate     holds half of a surrogate pair, which no UTF-8 can hold
    line_too_long      is longer than reading.max_line_bytes
    empty_file         is a file without rows
    no_main_text       is an HTML page without main text
    invalid_python     is a module of the standard library that does not parse
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from data_pipeline.config import Reader, Reading, Source, Tier
from data_pipeline.reading.demo import python_installation, school_math
from data_pipeline.reading.files import RawRow, read_file
from data_pipeline.reading.input_shards import DATASETS, InputShard, check_unchanged, folder_of
from data_pipeline.reading.instructions import formats, labelled
from data_pipeline.storage.compressed import HEAD_BYTES
from data_pipeline.storage.document import BadInput, Document

LICENSE_FIELDS = ("licence", "license")  # data sets use both spellings
# A row's own source names a SeqIO task; anything else in that field (an address, say) is metadata.
_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
META_CHARACTERS = 300  # a longer license or address is not copied into meta


def read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | BadInput]:
    """Yields the documents of a shard in their order.

    Ids are `source/id` with the row's own id, or `source/file:offset` where it has none, or
    `source/file` for a file that is one document. `meta` says where it is found again: file and
    byte offset in the decompressed content (Parquet: row, from 0). Neither depends on how the
    source was partitioned.

    Raises TruncatedInput or CorruptInput with the file, and ValueError for a Parquet file without
    the source's text fields or a file that changed after `partition` saw it.
    """
    left = shard.limit
    for document in _read(shard, source, reading):
        if left == 0:
            return
        if left is not None and isinstance(document, Document):
            left -= 1
        yield document


def _read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | BadInput]:
    if source.reader is Reader.SCHOOL_MATH:
        yield from school_math.read(range(shard.start, shard.stop), source)
    elif source.reader in DATASETS:
        check_unchanged(shard, source)
        for name, row in DATASETS[source.reader].read(shard.items, source):
            if isinstance(row, BadInput):
                yield row
            else:
                yield _document(row, name, _named(source, row, shard), reading)
    elif source.reader is not Reader.FILES:
        yield from python_installation.read(source.reader, shard.items, source)
    else:
        folder = folder_of(source, shard.items[0])
        check_unchanged(shard, source)
        has_formats = source.tier is Tier.D3
        for item in shard.items:
            name = _printable(item)
            columns = () if has_formats else source.text_fields
            rows = read_file(folder / item, name, reading.max_line_bytes, columns, shard.piece)
            for row in rows:
                if isinstance(row, BadInput):
                    yield row
                else:
                    yield _document(row, name, _named(source, row, shard), reading)


def _named(source: Source, row: RawRow, shard: InputShard) -> Source:
    """The source under the name that this row's document gets."""
    own = None if source.name else row.fields.get(source.source_field)
    if not (isinstance(own, str) and _NAME.fullmatch(own)):
        own = shard.source
    return replace(source, name=own)


def _document(row: RawRow, name: str, source: Source, reading: Reading) -> Document | BadInput:
    """The row as a document, or why it is none."""
    fields = row.fields
    text, reason, detail = _text(fields, source)
    if not reason and len(text) > reading.max_line_bytes:
        reason, detail = "line_too_long", f"the text has {len(text):,} characters"
    if not reason:
        document = Document(
            id=f"{source.name}/{_row_id(row, name, source)}",
            text=text,
            source=source.name,
            category=_category(fields, source),
            meta={"file": name} | row.place | _provenance(fields, source),
        )
        reason, detail = _unwritable(document)
    if not reason:
        return document
    raw = row.raw or json.dumps(fields, default=str).encode()
    place = row.place.get("offset", row.place.get("row", 0))
    return BadInput(reason, name, place, detail, raw[:HEAD_BYTES])


def _text(fields: dict[str, Any], source: Source) -> tuple[str, str, str]:
    """(text, "", "") or ("", reason, detail)."""
    texts = [fields.get(key) for key in source.text_fields]
    is_labelled = labelled.label_field(fields, source.label_fields)
    if source.tier is Tier.D3 and (None in texts or is_labelled):
        rendered = formats.render(fields, source.label_fields)
        if isinstance(rendered, formats.UnusableRow):
            return "", rendered.reason, rendered.detail
        return rendered.text, "", ""
    for key, text in zip(source.text_fields, texts, strict=True):
        if text is None:
            return "", "missing_text", f"no {key!r} among {', '.join(fields)}"
        if not isinstance(text, str):
            return "", "text_not_a_string", f"{key!r} is {type(text).__name__}: {text!r:.100}"
    if all(not text or text.isspace() for text in texts if isinstance(text, str)):
        return "", "empty_text", f"{' and '.join(source.text_fields)}: nothing but white space"
    return "\n\n".join(text for text in texts if text), "", ""


def _unwritable(document: Document) -> tuple[str, str]:
    """(reason, detail) where a document cannot be handed on as UTF-8 text, else ("", "")."""
    if (at := document.text.find("\0")) >= 0:
        return "nul_character", f"a NUL after {at:,} characters of text"
    try:
        for text in (document.id, document.text, document.category, *document.meta.values()):
            if isinstance(text, str) and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        return "lone_surrogate", str(error)
    return "", ""


def _row_id(row: RawRow, name: str, source: Source) -> str:
    value = row.fields.get(source.id_field)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    return name if row.number is None else f"{name}:{row.number}"


def _category(fields: dict[str, Any], source: Source) -> str:
    own = fields.get(source.category_field)
    return source.category or (own if isinstance(own, str) and own else source.name)


def _provenance(fields: dict[str, Any], source: Source) -> dict[str, str]:
    license = next((fields[key] for key in LICENSE_FIELDS if fields.get(key)), None)
    origin = fields.get(source.source_field)
    found = {
        "license": license,
        "url": fields.get("url"),
        "source": None if origin == source.name else origin,
    }
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str) and 0 < len(value) <= META_CHARACTERS
    }


def _printable(item: str) -> str:
    """A file name that is not UTF-8 has its odd bytes written as escapes."""
    return os.fsencode(item).decode("utf-8", "backslashreplace")
