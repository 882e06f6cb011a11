"""The address of a server's inspector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlencode


def build_inspector_url(base_url: str, *, token: str | None = None, headers: Mapping[str, str] | None = None) -> str:
    """``<base>/ui/``, with what the page needs to speak to its server. It holds the token: show it to nobody else."""
    query: dict[str, str] = {}
    if token:
        query["token"] = token
    if headers:
        query["headers"] = json.dumps(dict(headers), separators=(",", ":"))
    return f"{base_url.rstrip('/')}/ui/" + (f"?{urlencode(query)}" if query else "")
