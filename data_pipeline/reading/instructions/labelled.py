"""Labelled messages as text: what somebody wants (intents), and the details they gave (slots)."""

from __future__ import annotations

from data_pipeline.reading.instructions.row_fields import Row, dictionaries, is_text

OUT_OF_SCOPE = "oos"  # as CLINC150 calls it (arXiv 1909.02027)


def label_field(row: Row, fields: tuple[str, ...]) -> str:
    """The first of `fields` that labels the row's text, "" where none does."""
    return next((key for key in fields if is_text(row, "text", key)), "")


def labelled_text(row: Row, field: str) -> str:
    """
    >>> print(labelled_text({"text": "Where is my card?", "intent": "card_arrival"}, "intent"))
    Message: Where is my card?
    Intent: card arrival
    """
    label = row[field].strip()
    label = "out of scope" if label == OUT_OF_SCOPE else label.replace("_", " ")
    return f"Message: {row['text'].strip()}\n{field.replace('_', ' ').capitalize()}: {label}"


def has_slots(row: Row) -> bool:
    """A message with spans of it as `labels`, or with none where there is nothing to be found."""
    message = row.get("userInput")
    if not (isinstance(message, dict) and is_text(message, "text")):
        return False
    labels = row.get("labels", [])
    found = [_span(label, message["text"]) for label in dictionaries(labels)]
    return isinstance(labels, list) and len(found) == len(labels) and all(found)


def slots(row: Row) -> str:
    """
    >>> print(slots({"userInput": {"text": "A table for 9 on Monday"},
    ...              "labels": [{"slot": "people", "valueSpan": {"startIndex": 12, "endIndex": 13}},
    ...                         {"slot": "date", "valueSpan": {"startIndex": 17, "endIndex": 23}}],
    ...              "context": {"requestedSlots": ["date"]}}))
    Asked for: date
    Message: A table for 9 on Monday
    Details: people = 9; date = Monday
    """
    text = row["userInput"]["text"]
    lines = [f"Message: {text.strip()}"]
    context = row.get("context")
    asked = context.get("requestedSlots") if isinstance(context, dict) else None
    if isinstance(asked, list) and asked and all(isinstance(name, str) for name in asked):
        lines.insert(0, f"Asked for: {', '.join(asked)}")
    found = [f"{label['slot']} = {_span(label, text)}" for label in row.get("labels", [])]
    lines.append(f"Details: {'; '.join(found) or 'none'}")
    return "\n".join(lines)


def _span(label: Row, text: str) -> str:
    """What a label marks in the text, "" where that is nothing. A start of 0 may be left out."""
    span = label.get("valueSpan")
    if not (isinstance(span, dict) and is_text(label, "slot")):
        return ""
    start, end = span.get("startIndex", 0), span.get("endIndex")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        return ""
    return text[start:end].strip()
