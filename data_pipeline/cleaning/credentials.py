"""Detection of API keys, tokens and passwords by the published formats of their issuers.

>>> token = "ghp_" + "a1B2" * 9
>>> [token == "x = ghp_..."[4:] or (start, end) for start, end in spans(f"x = {token}")]
[(4, 44)]

Almost every kind of token is one word of at least twenty characters with a fixed prefix, so only
such words are searched. A key without a fixed format is recognized by the text before it
(`api_key = "..."`). Obvious placeholders (`AKIAIOSFODNN7EXAMPLE`, `xxxx`) are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

_MIN_WORD_CHARACTERS = 20  # of the shortest token

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]{40,8000}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
)
# The token formats that issuers document: prefix -> pattern of the rest.
_FORMATS = {
    "AKIA": r"[0-9A-Z]{16}",  # Amazon, access key id
    "ASIA": r"[0-9A-Z]{16}",
    "ABIA": r"[0-9A-Z]{16}",
    "ACCA": r"[0-9A-Z]{16}",
    "AIza": r"[\w-]{35}",  # Google, API key
    "ya29.": r"[\w-]{40,}",  # Google, OAuth access token
    "GOCSPX-": r"[\w-]{28}",  # Google, OAuth client secret
    "ghp_": r"[A-Za-z0-9]{36,}",  # GitHub: personal, OAuth, user, server, refresh
    "gho_": r"[A-Za-z0-9]{36,}",
    "ghu_": r"[A-Za-z0-9]{36,}",
    "ghs_": r"[A-Za-z0-9]{36,}",
    "ghr_": r"[A-Za-z0-9]{36,}",
    "github_pat_": r"[A-Za-z0-9_]{40,}",
    "glpat-": r"[\w-]{20,}(?:\.[\w.]{5,})?",  # GitLab: personal, deploy, runner, trigger
    "gldt-": r"[\w-]{20,}",
    "glrt-": r"[\w-]{20,}",
    "glptt-": r"[0-9a-f]{40}",
    "xoxa-": r"[A-Za-z0-9-]{20,}",  # Slack
    "xoxb-": r"[A-Za-z0-9-]{20,}",
    "xoxe-": r"[A-Za-z0-9-]{20,}",
    "xoxp-": r"[A-Za-z0-9-]{20,}",
    "xoxr-": r"[A-Za-z0-9-]{20,}",
    "xoxs-": r"[A-Za-z0-9-]{20,}",
    "xapp-": r"[A-Za-z0-9-]{30,}",
    "hooks.slack.com/services/": r"T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}",
    "sk_live_": r"[A-Za-z0-9]{20,}",  # Stripe
    "rk_live_": r"[A-Za-z0-9]{20,}",
    "whsec_": r"[A-Za-z0-9+/]{32,}={0,2}",
    # OpenAI, Anthropic and others with the same format; a word like "sk-learn-..." has no digit
    "sk-": r"(?=[\w-]*\d)(?=[\w-]*[A-Z])[A-Za-z0-9_-]{32,}",
    "gsk_": r"[A-Za-z0-9]{40,}",  # Groq
    "xai-": r"[A-Za-z0-9]{60,}",
    "pplx-": r"[A-Za-z0-9]{40,}",
    "hf_": r"(?=\w*[A-Z])(?=\w*[a-z])[A-Za-z0-9]{34,}",  # Hugging Face
    "npm_": r"[A-Za-z0-9]{36}",
    "pypi-": r"AgE[\w-]{50,}",
    "SG.": r"[\w-]{20,24}\.[\w-]{39,50}",  # SendGrid
    "dop_v1_": r"[0-9a-f]{64}",  # DigitalOcean
    "dapi": r"[0-9a-f]{32}",  # Databricks
    "shpat_": r"[0-9a-fA-F]{32}",  # Shopify
    "shpss_": r"[0-9a-fA-F]{32}",
    "hvs.": r"[\w-]{24,}",  # Vault
    "dckr_pat_": r"[\w-]{27,}",  # Docker
    "lin_api_": r"[A-Za-z0-9]{40}",  # Linear
    "AGE-SECRET-KEY-1": r"[0-9A-Z]{58}",
    "eyJ": r"[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # JSON web token (RFC 7519)
    "AccountKey=": r"[A-Za-z0-9+/]{86}==",  # Azure storage
}
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    + "|".join(re.escape(prefix) + rest for prefix, rest in _FORMATS.items())
    + r")(?![\w-])"
)
_TELEGRAM = re.compile(r"(?<![\w-])\d{8,10}:AA[\w-]{33}(?![\w-])")
_PREFIX = re.compile("|".join(map(re.escape, _FORMATS)))

_LITERAL = re.compile(r"""["']([A-Za-z0-9+/_=.~-]{18,})["']""")  # 20 characters with its quotes
_KEY_BEFORE = re.compile(
    r"""(?:api|access|auth|secret|private|client|account|master|encryption|signing|bot|bearer|refresh)"""
    r"""[_-]?(?:access[_-]?)?(?:key|token|secret)["'\]]*\s*(?::=|=>|[:=])\s*\Z""",
    re.IGNORECASE,
)
# AWS_SECRET_ACCESS_KEY=..., API_TOKEN=... as in an .env file, or Authorization: Bearer ...
_ASSIGNMENT = re.compile(
    r"^(?:export )?[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET)=([A-Za-z0-9+/_.~-]{24,}={0,2})[ \t]*$"
    r"|\bBearer ([A-Za-z0-9+/_.~-]{24,}={0,2})",
    re.M,
)
# scheme://user:password@host, but not ${PASSWORD} and not a plain word, as manuals have it
_LOGIN = re.compile(r"://[\w.%+-]{1,64}:([^\s:/@<>{}$*\[\]\"'`]{3,64})@[\w-]+")
_PLAIN_WORD = re.compile(r"[a-z_.-]+|[A-Z_]+|(?i:pass(?:word|wd)?\d*)")
_PLACEHOLDER = re.compile(r"EXAMPLE|(?i:example|your[_-])|(.)\1{5}|x{4}|X{4}")

Span = tuple[int, int]  # start, end


def spans(text: str) -> Iterator[Span]:
    """Yields the spans of secrets in a text, in no particular order; some may overlap."""
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield match.span()
    long_words = _long_words(text)
    if not long_words:
        return
    # Each pattern is searched for in the whole text only if the long words contain a sign of it.
    if _PREFIX.search(long_words):
        for match in _TOKEN.finditer(text):
            if not _PLACEHOLDER.search(match[0]):
                yield match.span()
    if ":AA" in long_words:
        for match in _TELEGRAM.finditer(text):
            yield match.span()
    if "@" in long_words and "://" in long_words:
        for match in _LOGIN.finditer(text):
            if not _PLAIN_WORD.fullmatch(match[1]):
                yield match.span(1)
    yield from _labeled_keys(text, long_words)


def _long_words(text: str) -> str:
    """Returns the words of at least `_MIN_WORD_CHARACTERS` characters, joined by spaces.

    Five times as fast as `str.split`. Characters that are not ASCII are removed.
    """
    encoded = f" {text} ".encode()  # a space on both sides delimits the first and the last word
    spaces = np.flatnonzero(np.frombuffer(encoded, np.uint8) <= ord(" "))
    # Neighboring spaces whose distance is at least one space plus the minimum word.
    long = np.flatnonzero(spaces[1:] - spaces[:-1] > _MIN_WORD_CHARACTERS)
    edges = zip(spaces[long].tolist(), spaces[long + 1].tolist(), strict=True)
    return b" ".join([encoded[a + 1 : b] for a, b in edges]).decode("ascii", "ignore")


def _labeled_keys(text: str, long_words: str) -> Iterator[Span]:
    """Yields the spans of keys that are recognized by the text before them."""
    if any(part in long_words for part in ("KEY=", "TOKEN=", "SECRET=")) or "Bearer " in text:
        for match in _ASSIGNMENT.finditer(text):
            group = 1 if match[1] else 2
            if _is_random(match[group]):
                yield match.span(group)
    if '"' not in long_words and "'" not in long_words:
        return
    if not _LITERAL.search(long_words):
        return
    if any(part in text for part in ("key", "Key", "KEY", "oken", "OKEN", "ecret", "ECRET")):
        for match in _LITERAL.finditer(text):
            before = _KEY_BEFORE.search(text, max(0, match.start() - 40), match.start())
            if before and _is_random(match[1]):
                yield match.span(1)


def _is_random(key: str) -> bool:
    """Returns whether a key mixes letters and digits and is no placeholder.

    "my-private-key-name" has no digits, so it is not random.
    """
    digits, letters = sum(map(str.isdigit, key)), sum(map(str.isalpha, key))
    return digits >= 2 and letters >= 2 and _PLACEHOLDER.search(key) is None
