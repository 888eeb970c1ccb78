"""The address, key and proxy of a teacher."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from data_pipeline.config import TeacherConfig


def base_url(config: TeacherConfig) -> str:
    """Returns the server's address without a slash at its end.

    Raises:
      ValueError: it is not the address of a server, or contains a password; the message begins with
        the field, "teacher.base_url".
    """
    parts = urlsplit(config.base_url)
    if "@" in parts.netloc:
        raise ValueError(
            "teacher.base_url: got an address with a user name or password, which logs would show, "
            "expected one without. Name an environment variable with the key in "
            "teacher.api_key_variable instead."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError(
            f"teacher.base_url: got {config.base_url!r}, expected the address of an "
            "OpenAI-compatible server as far as /v1, for example http://127.0.0.1:8000/v1"
        )
    return config.base_url.rstrip("/")


def api_key(config: TeacherConfig) -> str:
    """Returns the key, "" if none is sent.

    Raises:
      ValueError: the environment variable is not set, or contains no valid key; the message begins
        with the field, "teacher.api_key_variable".
    """
    variable = config.api_key_variable
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"teacher.api_key_variable: got {variable!r}, which is not set in the environment. "
            'Set it to the key, or the field to "" for a server that needs none.'
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            f"teacher.api_key_variable: got {variable!r}, an environment variable whose value is "
            "not a valid key, expected printable ASCII without spaces. Set the variable to the key "
            "alone."
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
