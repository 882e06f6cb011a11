"""Server-sent events, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from agentjail._lines import Lines

#: A longer event is no event of a server of ours.
_LONGEST = 64 << 20


@dataclass
class Event:
    """One event."""

    name: str = "message"
    data: str = ""
    id: str | None = None


async def events_of(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream, to its end; one that is cut off in the middle is none."""
    event, data = Event(), list[str]()
    size, lines = 0, Lines()
    async for line in _lines_of(response, lines):
        if not line:
            if data:
                event.data = "\n".join(data)
                yield event
            event, data, size = Event(), [], 0
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            size += len(value)
            if size > _LONGEST:
                raise httpx.RemoteProtocolError("an event is too long")
            data.append(value)
        elif field == "event":
            event.name = value
        elif field == "id":
            event.id = value


async def _lines_of(response: httpx.Response, lines: Lines) -> AsyncIterator[str]:
    async for piece in response.aiter_bytes():
        for line in lines.feed(piece):
            yield line
        if lines.waiting > _LONGEST:
            raise httpx.RemoteProtocolError("an event is too long")
