"""Checks of a teacher's settings before any request, and its address, key and proxy."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from data_pipeline.config import TeacherConfig
from data_pipeline.teacher.cache import FILE


def check(config: TeacherConfig) -> None:
    """Checks the settings; needs neither server nor key.

    Raises:
      ValueError: names the first invalid field.
    """
    if not config.model:
        raise ValueError("teacher.model is not set: expected the model's name on its server")
    for name, least in (
        ("concurrency", 1),
        ("max_retries", 0),
        ("temperature", 0),
        ("requests_per_minute", 0),
        ("tokens_per_minute", 0),
        ("first_backoff_s", 0),
        ("max_backoff_s", 0),
        ("prompt_price", 0),
        ("completion_price", 0),
        ("max_cost", 0),
    ):
        if not getattr(config, name) >= least:
            raise ValueError(f"teacher.{name}={getattr(config, name)}: expected {least} or more")
    for name in ("connect_timeout_s", "stall_timeout_s", "answer_timeout_s"):
        if not getattr(config, name) > 0:
            raise ValueError(f"teacher.{name}={getattr(config, name)}: expected seconds above 0")
    if not 0 < config.top_p <= 1:
        raise ValueError(f"teacher.top_p={config.top_p}: expected a share above 0, at most 1")
    if not 0 <= config.max_unanswered <= 1:
        raise ValueError(
            f"teacher.max_unanswered={config.max_unanswered}: expected a share from 0 to 1"
        )
    if config.max_cost and not (config.prompt_price or config.completion_price):
        raise ValueError(
            f"teacher.max_cost={config.max_cost} needs prices: set teacher.prompt_price and "
            "teacher.completion_price, per million tokens each"
        )


def check_server(config: TeacherConfig, cache: Path, name: str, without: str) -> None:
    """Checks that there is a server, or a cache of answers from before.

    Whether cached answers suffice shows with the first request that they lack.

    Args:
      config: the teacher.
      cache: the folder of answers, unless `config.cache` names one.
      name: path of this teacher in the recipe: "synthesis.teacher".
      without: the setting with which a run needs no such server.

    Raises:
      ValueError: there is neither.
    """
    folder = Path(config.cache) if config.cache else cache
    if config.base_url:
        base_url(config)
    elif not (folder / FILE).exists():
        raise ValueError(
            f"{name}.base_url is not set, and {folder} has no cached answers ({FILE}). Set "
            f"--config.data.{name}.base_url to a server, for example http://127.0.0.1:8000/v1, or "
            f"--config.data.{name}.cache to a folder with answers; without a teacher: "
            f"--config.data.{without}"
        )


def base_url(config: TeacherConfig) -> str:
    """Returns the server's address without a slash at its end.

    Raises:
      ValueError: it is not the address of a server, or contains a password.
    """
    parts = urlsplit(config.base_url)
    if "@" in parts.netloc:
        raise ValueError(
            "teacher.base_url contains a user name or password, which logs would show. Name an "
            "environment variable with the key in teacher.api_key_variable instead."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError(
            f"teacher.base_url={config.base_url!r}: expected the address of an OpenAI-compatible "
            "server as far as /v1, for example http://127.0.0.1:8000/v1"
        )
    return config.base_url.rstrip("/")


def api_key(config: TeacherConfig) -> str:
    """Returns the key, "" if none is sent.

    Raises:
      ValueError: the environment variable is not set, or contains no valid key.
    """
    variable = config.api_key_variable
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"teacher.api_key_variable={variable!r}: this environment variable is not set. Set it "
            'to the key, or teacher.api_key_variable to "" for a server that needs none.'
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            f"the environment variable {variable} contains characters that are not valid in a key: "
            "expected printable ASCII without spaces"
        )
    return key


def proxy_for(url: str) -> str | None:
    """Returns the proxy for a URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    if host == "localhost" or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
