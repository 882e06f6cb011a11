"""One place that speaks HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from .exceptions import SandboxAgentError, SandboxConnectionError
from .types import ProblemDetails

API_PREFIX = "/v1"
FS_PATH = f"{API_PREFIX}/fs"

Params = Mapping[str, Any]

#: Requests of one client at once. Streams and prompts each hold a connection for as long as they last.
_CONNECTIONS = 256


class HttpTransport:
    """Requests to one server, with its token. Errors become exceptions of this package."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.token = token
        all_headers = {"Accept": "application/json", **(headers or {})}
        if token:
            all_headers["Authorization"] = f"Bearer {token}"
        self._headers, self._timeout = all_headers, timeout
        self._made: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """The client underneath: of the loop that runs, since connections cannot go from one to the next."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._loop = loop
            self._made = httpx.AsyncClient(
                headers=self._headers,
                timeout=self._timeout,
                limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=32),
                # A proxy of the environment is not meant for a sandbox.
                trust_env=False,
            )
        return self._made

    async def get(self, path: str, *, params: Params | None = None, timeout: float | None = -1) -> httpx.Response:
        return await self.request("GET", path, params=params, timeout=timeout)

    async def post(
        self,
        path: str,
        *,
        json: Any = None,
        content: Any = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = -1,
    ) -> httpx.Response:
        return await self.request(
            "POST", path, json=json, content=content, params=params, headers=headers, timeout=timeout
        )

    async def put(
        self,
        path: str,
        *,
        content: Any = None,
        json: Any = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = -1,
    ) -> httpx.Response:
        return await self.request(
            "PUT", path, json=json, content=content, params=params, headers=headers, timeout=timeout
        )

    async def delete(self, path: str, *, params: Params | None = None) -> httpx.Response:
        return await self.request("DELETE", path, params=params)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: Any = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = -1,
    ) -> httpx.Response:
        """Sends a request. ``timeout``: seconds, ``None`` for none, -1 for the transport's own.

        Raises `SandboxAgentError` from status 400 on, and `SandboxConnectionError` if nobody answers.
        """
        more: dict[str, Any] = {} if timeout == -1 else {"timeout": timeout}
        try:
            response = await self.client.request(
                method,
                f"{self.base_url}{path}",
                json=json,
                content=content,
                params=_query(params),
                headers=dict(headers or {}),
                **more,
            )
        except httpx.TimeoutException as error:
            raise SandboxConnectionError(f"{method} {path}: no answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SandboxConnectionError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if not response.is_success:
            raise SandboxAgentError(response.status_code, problem_of(response), response)
        return response

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
        timeout: float | httpx.Timeout | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """The same, and gives the answer unread. ``url`` may be a path."""
        full = url if "://" in url else f"{self.base_url}{url}"
        try:
            async with self.client.stream(
                method, full, headers=dict(headers or {}), params=_query(params), timeout=timeout
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise SandboxAgentError(response.status_code, problem_of(response), response)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SandboxConnectionError(f"{method} {url}: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        if self._made is not None and self._loop is asyncio.get_running_loop():
            await self._made.aclose()


def problem_of(response: httpx.Response) -> ProblemDetails | dict[str, Any] | None:
    """What a refusal says of itself."""
    try:
        body = response.json()
    except ValueError:
        return None
    try:
        return ProblemDetails.model_validate(body)
    except ValidationError:
        return body if isinstance(body, dict) else {"detail": body}


def _query(params: Params | None) -> dict[str, str] | None:
    if params is None:
        return None
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
