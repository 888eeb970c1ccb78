"""D1, one document at a time: repair it, take out links and personal information, keep or drop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replaced
from functools import partial

from data_pipeline.config import Cleaning, Profile
from data_pipeline.curation import language, quality
from data_pipeline.curation.links import remove_links
from data_pipeline.curation.normalise import normalise, tidy_whitespace
from data_pipeline.curation.personal_information import replace_personal_information
from data_pipeline.document import Document, Dropped

Rule = Callable[[quality.Text], quality.Evidence | None]
