"""Conversion of labeled messages to text: classifications (intents) and marked spans (slots)."""

from __future__ import annotations

from data_pipeline.reading.instructions.row_fields import Row, dictionaries, is_text

OUT_OF_SCOPE = "oos"  # the label in CLINC150 (arXiv 1909.02027)


def label_field(row: Row, fields: tuple[str, ...]) -> str:
    """Returns the first of `fields` that has a label for the row's text, or ""."""
    return next((key for key in fields if is_text(row, "text", key)), "")


def labeled_text(row: Row, field: str) -> str:
    """Renders a text and its label.

    >>> print(labeled_text({"text": "Where is my card?", "intent": "card_arrival"}, "intent"))
    Message: Where is my card?
    Intent: card arrival
    """
    label = row[field].strip()
    label = "out of scope" if label == OUT_OF_SCOPE else label.replace("_", " ")
    return f"Message: {row['text'].strip()}\n{field.replace('_', ' ').capitalize()}: {label}"


def has_slots(row: Row) -> bool:
    """Returns whether a row is a message with a (possibly empty) list of valid spans as labels."""
    message = row.get("userInput")
    if not (isinstance(message, dict) and is_text(message, "text")):
        return False
    labels = row.get("labels", [])
    spans = [_span(label, message["text"]) for label in dictionaries(labels)]
    return isinstance(labels, list) and len(spans) == len(labels) and all(spans)


def slots(row: Row) -> str:
    """Renders a message and its labeled spans.

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
    requested = context.get("requestedSlots") if isinstance(context, dict) else None
    if isinstance(requested, list) and requested and all(isinstance(n, str) for n in requested):
        lines.insert(0, f"Asked for: {', '.join(requested)}")
    details = [f"{label['slot']} = {_span(label, text)}" for label in row.get("labels", [])]
    lines.append(f"Details: {'; '.join(details) or 'none'}")
    return "\n".join(lines)


def _span(label: Row, text: str) -> str:
    """Returns the text that a label marks, or "" for an invalid label; a missing start is 0."""
    span = label.get("valueSpan")
    if not (isinstance(span, dict) and is_text(label, "slot")):
        return ""
    start, end = span.get("startIndex", 0), span.get("endIndex")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        return ""
    return text[start:end].strip()
