"""One place that speaks HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from ._error import AgentjailError
from ._lines import Lines

#: An answer may take as long as the command it is of; only connecting has a limit.
_TIMEOUT = httpx.Timeout(None, connect=5.0)

#: How often a request that only reads is sent again if it found nobody, or was told to come later.
_RETRIES = 2
_PASSING = (429, 503)

#: What a stream tells of, beside lines of output.
_EVENTS = ("started", "stats", "completed", "error")


class Http:
    """Requests with the key. Errors become `AgentjailError`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        transport: httpx.BaseTransport | None,
        *,
        timeout: float | None = None,
        retries: int = _RETRIES,
    ) -> None:
        if not base_url:
            raise ValueError("base_url is required")
        self.base_url = base_url.rstrip("/")
        headers = {"accept": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._retries = retries
        limits = _TIMEOUT if timeout is None else httpx.Timeout(timeout)
        self._client = httpx.Client(headers=headers, timeout=limits, transport=transport, trust_env=False)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """JSON; text if it is not JSON; ``None`` for 204."""
        left = self._retries if method == "GET" else 0
        while True:
            try:
                response = self._client.request(
                    method, self.base_url + path, json=body, params=_set(query) if query else None
                )
            except httpx.TimeoutException as error:
                raise AgentjailError(408, None, f"no answer in time: {error}") from error
            except httpx.HTTPError as error:
                if left > 0:
                    left -= 1
                    time.sleep(0.1 * 2 ** (self._retries - left))
                    continue
                raise AgentjailError(0, None, str(error) or type(error).__name__) from error
            after = response.headers.get("retry-after") if response.status_code in _PASSING else None
            if left > 0 and after is not None:
                left -= 1
                time.sleep(min(float(after) if after.replace(".", "").isdecimal() else 1.0, 10.0))
                continue
            if response.status_code >= 300:
                raise error_of(response)
            return _read(response)

    def raw(
        self, method: str, path: str, *, content: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """An answer as it is."""
        try:
            return self._client.request(method, self.base_url + path, content=content, headers=dict(headers or {}))
        except httpx.HTTPError as error:
            raise AgentjailError(0, None, str(error) or type(error).__name__) from error

    @contextmanager
    def stream(self, method: str, path: str, *, body: Any = None, accept: str) -> Iterator[httpx.Response]:
        """The answer, unread."""
        try:
            with self._client.stream(method, self.base_url + path, json=body, headers={"accept": accept}) as response:
                if response.status_code >= 300:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.HTTPError as error:
            raise AgentjailError(0, None, str(error) or type(error).__name__) from error

    def events(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """The events of a stream as dicts with ``type``."""
        with self.stream("POST", path, body=body, accept="text/event-stream") as response:
            name, data = "message", list[str]()
            lines = Lines()
            for line in (line for piece in response.iter_bytes() for line in lines.feed(piece)):
                if not line:
                    if data and (event := _event(name, "\n".join(data))) is not None:
                        yield event
                    name, data = "message", []
                elif line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))

    def close(self) -> None:
        self._client.close()


def path(template: str, *parts: str | int) -> str:
    """A path whose parts are encoded, so that an id cannot become another path."""
    encoded = []
    for part in parts:
        text = quote(str(part), safe="")
        if text in ("", ".", ".."):
            raise ValueError(f"not an id: {part!r}")
        encoded.append(text)
    return template.format(*encoded)


def given(**values: Any) -> dict[str, Any]:
    """Those that are not ``None``."""
    return _set(values)


def error_of(response: httpx.Response) -> AgentjailError:
    return AgentjailError(
        response.status_code, _read(response), response.reason_phrase, response.headers.get("x-request-id")
    )


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read(response: httpx.Response) -> Any:
    if response.status_code == 204 or not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return response.text


def _event(name: str, data: str) -> dict[str, Any] | None:
    """What happened; ``None`` if it is not of this version."""
    if name in ("stdout", "stderr"):
        return {"type": name, "line": data}
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return {"type": name, **value} if name in _EVENTS and isinstance(value, dict) else None
