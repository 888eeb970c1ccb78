"""Keys and tokens in a text: what opens a door, by the published form of each issuer's tokens.

>>> token = "ghp_" + "a1B2" * 9
>>> [token == "x = ghp_..."[4:] or (start, end) for start, end in spans(f"x = {token}")]
[(4, 44)]

Almost every kind is one unbroken word of twenty or more characters with a fixed beginning, so only
such words are looked at. A key of no fixed form is known by what stands before it
(`api_key = "..."`). What is plainly a placeholder (`AKIAIOSFODNN7EXAMPLE`, `xxxx`) stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

_MIN_WORD = 20  # characters of the shortest token

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]{40,8000}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
)
# The forms that issuers document, by what they begin with.
_FORMS = {
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
    # OpenAI, Anthropic and those who took over their form; a word like "sk-learn-..." has no digit
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
    + "|".join(re.escape(sign) + form for sign, form in _FORMS.items())
    + r")(?![\w-])"
)
_TELEGRAM = re.compile(r"(?<![\w-])\d{8,10}:AA[\w-]{33}(?![\w-])")
_SIGN = re.compile("|".join(map(re.escape, _FORMS)))

_LITERAL = re.compile(r"""["']([A-Za-z0-9+/_=.~-]{18,})["']""")  # 20 with its quotes
_KEY_BEFORE = re.compile(
    r"""(?:api|access|auth|secret|private|client|account|master|encryption|signing|bot|bearer|refresh)"""
    r"""[_-]?(?:access[_-]?)?(?:key|token|secret)["'\]]*\s*(?::=|=>|[:=])\s*\Z""",
    re.IGNORECASE,
)
# AWS_SECRET_ACCESS_KEY=..., API_TOKEN=... as in an .env file; Authorization: Bearer ...
_SETTING = re.compile(
    r"^(?:export )?[A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET)=([A-Za-z0-9+/_.~-]{24,}={0,2})[ \t]*$"
    r"|\bBearer ([A-Za-z0-9+/_.~-]{24,}={0,2})",
    re.M,
)
# scheme://user:password@host; not ${PASSWORD}, and no word alone, as in manuals
_LOGIN = re.compile(r"://[\w.%+-]{1,64}:([^\s:/@<>{}$*\[\]\"'`]{3,64})@[\w-]+")
_WORD_ALONE = re.compile(r"[a-z_.-]+|[A-Z_]+|(?i:pass(?:word|wd)?\d*)")
_PLACEHOLDER = re.compile(r"EXAMPLE|(?i:example|your[_-])|(.)\1{5}|x{4}|X{4}")

Place = tuple[int, int]  # start, end


def spans(text: str) -> Iterator[Place]:
    """Where secrets stand, in no particular order; some may overlap."""
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield match.span()
    long_words = _long_words(text)
    if not long_words:
        return
    if _SIGN.search(long_words):
        for match in _TOKEN.finditer(text):
            if not _PLACEHOLDER.search(match[0]):
                yield match.span()
    if ":AA" in long_words:
        for match in _TELEGRAM.finditer(text):
            yield match.span()
    if "@" in long_words and "://" in long_words:
        for match in _LOGIN.finditer(text):
            if not _WORD_ALONE.fullmatch(match[1]):
                yield match.span(1)
    yield from _labelled(text, long_words)


def _long_words(text: str) -> str:
    """The words of `_MIN_WORD` and more characters, joined by spaces (five times split)."""
    encoded = f" {text} ".encode()
    spaces = np.flatnonzero(np.frombuffer(encoded, np.uint8) <= ord(" "))
    long = np.flatnonzero(spaces[1:] - spaces[:-1] > _MIN_WORD)
    edges = zip(spaces[long].tolist(), spaces[long + 1].tolist(), strict=True)
    return b" ".join([encoded[a + 1 : b] for a, b in edges]).decode("ascii", "ignore")


def _labelled(text: str, long_words: str) -> Iterator[Place]:
    """Keys that are known by what stands before them."""
    if any(part in long_words for part in ("KEY=", "TOKEN=", "SECRET=")) or "Bearer " in text:
        for match in _SETTING.finditer(text):
            number = 1 if match[1] else 2
            if _looks_random(match[number]):
                yield match.span(number)
    if '"' not in long_words and "'" not in long_words:
        return
    if not _LITERAL.search(long_words):
        return
    if any(part in text for part in ("key", "Key", "KEY", "oken", "OKEN", "ecret", "ECRET")):
        for match in _LITERAL.finditer(text):
            before = _KEY_BEFORE.search(text, max(0, match.start() - 40), match.start())
            if before and _looks_random(match[1]):
                yield match.span(1)


def _looks_random(key: str) -> bool:
    """Letters and digits mixed, and no placeholder: "my-private-key-name" is none."""
    digits, letters = sum(map(str.isdigit, key)), sum(map(str.isalpha, key))
    return digits >= 2 and letters >= 2 and _PLACEHOLDER.search(key) is None
