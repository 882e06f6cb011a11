"""What the parts of a client have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import httpx

from ..http import HttpTransport
from ..persistence import SessionPersistDriver


class Part:
    """What `SandboxAgent` sets, for all of its parts."""

    _http: HttpTransport
    _base_url: str
    _token: str | None
    _headers: dict[str, str]
    _sandbox_id: str | None
    persist: SessionPersistDriver
    default_cwd: str | None

    async def run_process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As `Processes` has it."""
        raise NotImplementedError


def dict_of(response: httpx.Response) -> dict[str, Any]:
    """An object; what is none stands below ``result``, and nothing is ``{}``."""
    if response.status_code == 204 or not response.content:
        return {}
    body = response.json()
    return body if isinstance(body, dict) else {"result": body}


def list_of(response: httpx.Response) -> list[dict[str, Any]]:
    """A list."""
    return cast("list[dict[str, Any]]", response.json())


def listed_of(response: httpx.Response, name: str) -> list[dict[str, Any]]:
    """A list, by itself or below a name."""
    body = response.json()
    return cast("list[dict[str, Any]]", body if isinstance(body, list) else body.get(name, []))
