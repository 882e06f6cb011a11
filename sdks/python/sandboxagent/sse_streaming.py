"""Following the log of a process."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from ._sse import Event, events_of
from .exceptions import SandboxAgentError, SandboxConnectionError
from .http import API_PREFIX

LogListener = Callable[[dict[str, Any]], Any]

_FIRST_DELAY = 0.2
_TRIES = 5


class StreamTransport(Protocol):
    """What can open a stream."""

    def stream(self, method: str, url: str, **options: Any) -> Any: ...


class ProcessLogSubscription:
    """A log that is being followed. Iterate over it, or `close` it; ``closed`` completes at its end.

    If it breaks off, or a listener fails, ``closed`` has the exception.
    """

    def __init__(self, close_fn: Callable[[], Any], closed_future: asyncio.Future[None]) -> None:
        self._close = close_fn
        self._closed = closed_future

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when nothing follows any more."""
        return self._closed

    def close(self) -> _Closing:
        """Stops following. What is given may be awaited."""
        self._close()
        return _Closing(self._closed)


class _Closing:
    """An end that may be waited for."""

    def __init__(self, closed: asyncio.Future[None]) -> None:
        self._closed = closed

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        await asyncio.wait([self._closed])


async def follow_process_logs(
    transport: StreamTransport,
    base_url: str,
    process_id: str,
    listener: LogListener | None,
    *,
    token: str | None = None,
    query: Mapping[str, Any] | None = None,
) -> ProcessLogSubscription:
    """Calls ``listener`` with each entry, in order, until the process and its log are at their end."""
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def follow() -> None:
        async for entry in log_entries(transport, base_url, process_id, token=token, query=query):
            if listener is not None:
                told = listener(entry)
                if inspect.isawaitable(told):
                    await told

    def ended(task: asyncio.Task[None]) -> None:
        if closed.done():
            return
        error = None if task.cancelled() else task.exception()
        if error is None:
            closed.set_result(None)
        else:
            closed.set_exception(error)
            # Whoever never looks is not told twice.
            closed.exception()

    task = asyncio.create_task(follow(), name=f"log of {process_id}")
    task.add_done_callback(ended)
    return ProcessLogSubscription(task.cancel, closed)


async def log_entries(
    transport: StreamTransport,
    base_url: str,
    process_id: str,
    *,
    token: str | None = None,
    query: Mapping[str, Any] | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The entries of a log as they come. A connection that breaks off is taken up where it was."""
    url = f"{base_url.rstrip('/')}{API_PREFIX}/processes/{quote(process_id, safe='')}/logs"
    params = {"follow": "true", **{name: value for name, value in (query or {}).items() if value is not None}}
    last: str | None = None
    failures = 0
    while True:
        headers = {"accept": "text/event-stream"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if last is not None:
            headers["last-event-id"] = last
        try:
            timeout = httpx.Timeout(30.0, read=None)
            async with transport.stream("GET", url, headers=headers, params=params, timeout=timeout) as response:
                async for event in events_of(response):
                    failures = 0
                    last = event.id or last
                    if event.name == "exit":
                        return
                    if (entry := _entry(event)) is not None:
                        yield entry
                # A server that ends the stream has no more to say.
                return
        except SandboxAgentError:
            raise
        except (SandboxConnectionError, httpx.HTTPError):
            failures += 1
            if last is None or failures > _TRIES:
                raise
            await asyncio.sleep(_FIRST_DELAY * 2**failures)


def decode_entry(entry: Mapping[str, Any]) -> bytes:
    """The bytes of a log entry."""
    data = str(entry.get("data", ""))
    return base64.b64decode(data) if entry.get("encoding") == "base64" else data.encode()


def _entry(event: Event) -> dict[str, Any] | None:
    if event.name != "log":
        return None
    return _json(event.data)


def _parse_log_sse_chunk(chunk: str) -> dict[str, Any] | None:
    """The entry of one event, if it is a log's."""
    name, data = "message", list[str]()
    for line in chunk.replace("\r\n", "\n").split("\n"):
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            data.append(value.removeprefix(" "))
    return _json("\n".join(data)) if name == "log" and data else None


def _json(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
