"""Conversion of a shard of raw input to documents.

Every row is accounted for: a row that cannot become a document is yielded as `BadInput`, and damage
that makes it unknown how much is missing raises an error (see `read`).

    reason             meaning
    -----------------  -----------------------------------------------------------------------
    invalid_utf8       not UTF-8, and not in the encoding that an HTML page declares
    invalid_json       does not parse as JSON
    not_an_object      JSON, but not an object {...}
    missing_text       a text field of the source is missing or null
    text_not_a_string  a text field of the source is not a string
    unknown_format     D3 without text fields: no format of reading/instructions/formats.py matches
    no_answer          D3: a request without an answer
    template           D3: a prompt template without the data for its placeholders
    description        D3: a schema or a list of services, without a request and an answer
    empty_text         the text is empty or white space
    nul_character      contains a NUL character
    lone_surrogate     contains half of a surrogate pair, which UTF-8 cannot encode
    line_too_long      longer than reading.max_line_bytes
    empty_file         a file without rows
    no_main_text       an HTML page without main text
    invalid_python     a module of the standard library that does not parse
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
from data_pipeline.reading.instructions import formats, labeled
from data_pipeline.reading.listing import LICENSE_FIELDS
from data_pipeline.storage.compressed import HEAD_BYTES
from data_pipeline.storage.document import BadInput, Document

# The form of a source name, which is a name of a SeqIO task. A row's source field with another
# content (an address, for example) is metadata.
_SOURCE_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
MAX_META_CHARACTERS = 300  # a longer license or address is not copied into meta


def read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | BadInput]:
    """Yields the documents of a shard in input order.

    An id is `source/id` with the id of the row, `source/file:offset` for a row without an id, or
    `source/file` for a file that is one document. `meta` has the location: the file and the byte
    offset in the decompressed content (Parquet: the row index, from 0). Both are independent of the
    division into shards.

    Args:
      shard: the shard, one of `list_shards`.
      source: the source that it belongs to.
      reading: limits of reading.

    Raises:
      TruncatedInputError: a file ends early.
      CorruptInputError: a file is damaged.
      ValueError: a Parquet file lacks a text field, or a file has changed since it was listed.
    """
    remaining = shard.limit
    for document in _read(shard, source, reading):
        if remaining == 0:
            return
        if remaining is not None and isinstance(document, Document):
            remaining -= 1
        yield document


def _read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | BadInput]:
    """Yields the documents of a shard without its limit."""
    if source.reader is Reader.SCHOOL_MATH:
        yield from school_math.read(range(shard.start, shard.stop), source)
    elif source.reader in DATASETS:
        check_unchanged(shard, source)
        for name, row in DATASETS[source.reader].read(shard.items, source):
            if isinstance(row, BadInput):
                yield row
            else:
                yield _document(row, name, _with_row_name(source, row, shard), reading)
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
                    yield _document(row, name, _with_row_name(source, row, shard), reading)


def _with_row_name(source: Source, row: RawRow, shard: InputShard) -> Source:
    """Returns the source with the name that applies to a row.

    An unnamed source takes the name from the row's source field, or else from the shard.
    """
    name = None if source.name else row.fields.get(source.source_field)
    if not (isinstance(name, str) and _SOURCE_NAME.fullmatch(name)):
        name = shard.source
    return replace(source, name=name)


def _document(row: RawRow, name: str, source: Source, reading: Reading) -> Document | BadInput:
    """Converts a row of the file `name` to a document."""
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
            meta={"file": name} | row.location | _provenance(fields, source),
        )
        reason, detail = _unwritable(document)
    if not reason:
        return document
    raw = row.raw or json.dumps(fields, default=str).encode()
    offset = row.location.get("offset", row.location.get("row", 0))
    return BadInput(reason, name, offset, detail, raw[:HEAD_BYTES])


def _text(fields: dict[str, Any], source: Source) -> tuple[str, str, str]:
    """Returns (text, "", "") for usable fields, else ("", reason, detail)."""
    texts = [fields.get(key) for key in source.text_fields]
    is_labeled = labeled.label_field(fields, source.label_fields)
    if source.tier is Tier.D3 and (None in texts or is_labeled):
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
    """Returns (reason, detail) if a document cannot be written as UTF-8 text, else ("", "")."""
    if (position := document.text.find("\0")) >= 0:
        return "nul_character", f"a NUL after {position:,} characters of text"
    try:
        for text in (document.id, document.text, document.category, *document.meta.values()):
            if isinstance(text, str) and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        return "lone_surrogate", str(error)
    return "", ""


def _row_id(row: RawRow, name: str, source: Source) -> str:
    """Returns the id of a row within its source."""
    value = row.fields.get(source.id_field)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    return name if row.number is None else f"{name}:{row.number}"


def _category(fields: dict[str, Any], source: Source) -> str:
    """Returns the category of the source, else that of the row, else the source's name."""
    own = fields.get(source.category_field)
    return source.category or (own if isinstance(own, str) and own else source.name)


def _provenance(fields: dict[str, Any], source: Source) -> dict[str, str]:
    """Returns license, address and origin of a row, if they are short strings."""
    license = next((fields[key] for key in LICENSE_FIELDS if fields.get(key)), None)
    origin = fields.get(source.source_field)
    values = {
        "license": license,
        "url": fields.get("url"),
        "source": None if origin == source.name else origin,
    }
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, str) and 0 < len(value) <= MAX_META_CHARACTERS
    }


def _printable(item: str) -> str:
    """Returns a file name with its bytes that are not UTF-8 as escapes."""
    return os.fsencode(item).decode("utf-8", "backslashreplace")
