"""Where a client keeps its sessions and what was said in them: in memory, or in a SQLite file.

Any object with the five methods of `SessionPersistDriver` will do.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .types import ListPage, SessionEvent, SessionRecord

T = TypeVar("T")

_DEFAULT_SESSIONS = 1024
_DEFAULT_EVENTS = 500
_DEFAULT_PAGE = 100

REPLAY_HEAD = "Previous session history is replayed below as JSON-RPC envelopes. Use it as context before you answer."
_CUT = "[history truncated]"


class SessionPersistDriver(Protocol):
    """What a client asks of its store."""

    async def get_session(self, session_id: str) -> SessionRecord | None: ...

    async def list_sessions(
        self, *, cursor: str | None = None, limit: int | None = None
    ) -> ListPage[SessionRecord]: ...

    async def update_session(self, record: SessionRecord) -> None: ...

    async def list_events(
        self, session_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> ListPage[SessionEvent]: ...

    async def insert_event(self, session_id: str, event: SessionEvent) -> None: ...


class InMemorySessionPersistDriver:
    """In memory, the newest ``max_sessions`` with their newest ``max_events_per_session``."""

    def __init__(self, *, max_sessions: int | None = None, max_events_per_session: int | None = None) -> None:
        self._max_sessions = max_sessions if max_sessions and max_sessions > 0 else _DEFAULT_SESSIONS
        per_session = max_events_per_session
        self._max_events = per_session if per_session and per_session > 0 else _DEFAULT_EVENTS
        self._sessions: OrderedDict[str, SessionRecord] = OrderedDict()
        self._events: dict[str, list[SessionEvent]] = {}
        self._indices: dict[str, int] = {}

    async def get_session(self, session_id: str) -> SessionRecord | None:
        record = self._sessions.get(session_id)
        return record.model_copy(deep=True) if record else None

    async def list_sessions(self, *, cursor: str | None = None, limit: int | None = None) -> ListPage[SessionRecord]:
        ordered = sorted(self._sessions.values(), key=lambda record: (record.created_at, record.id))
        return _page(ordered, cursor, limit)

    async def update_session(self, record: SessionRecord) -> None:
        self._sessions[record.id] = record.model_copy(deep=True)
        while len(self._sessions) > self._max_sessions:
            oldest = min(self._sessions.values(), key=lambda record: (record.created_at, record.id)).id
            for kept in (self._sessions, self._events, self._indices):
                kept.pop(oldest, None)

    async def list_events(
        self, session_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> ListPage[SessionEvent]:
        ordered = sorted(self._events.get(session_id, []), key=lambda event: (event.event_index, event.id))
        return _page(ordered, cursor, limit)

    async def insert_event(self, session_id: str, event: SessionEvent) -> None:
        events = self._events.setdefault(session_id, [])
        events.append(event.model_copy(deep=True))
        self._indices[session_id] = max(self._indices.get(session_id, 0), event.event_index)
        del events[: -self._max_events]

    persist_event = insert_event

    async def create_event_index(self, session_id: str) -> int:
        """The number of the next event."""
        self._indices[session_id] = self._indices.get(session_id, 0) + 1
        return self._indices[session_id]

    async def build_replay_text(
        self,
        session_id: str,
        *,
        max_events: int = 100,
        max_chars: int = 100_000,
        event_filter: Callable[[SessionEvent], bool] | None = None,
    ) -> str | None:
        """What was said, for an agent that has forgotten it."""
        return await build_replay_text(
            self, session_id, max_events=max_events, max_chars=max_chars, event_filter=event_filter
        )


class SqliteSessionPersistDriver:
    """In a SQLite file, for as long as that stays. Safe to share between processes."""

    def __init__(self, path: str | Path, *, max_events_per_session: int = 100_000) -> None:
        self._max_events = max_events_per_session
        self._connection = sqlite3.connect(str(path), timeout=10, isolation_level=None, check_same_thread=False)
        # A statement at a time: the connection is used from threads.
        self._lock = asyncio.Lock()
        self._connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE IF NOT EXISTS sessions (
                id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, record TEXT NOT NULL
            );
            CREATE TABLE IF NOT EXISTS events (
                session TEXT NOT NULL, number INTEGER NOT NULL, id TEXT NOT NULL, event TEXT NOT NULL,
                PRIMARY KEY (session, number, id)
            );
            """
        )

    async def get_session(self, session_id: str) -> SessionRecord | None:
        rows = await self._run("SELECT record FROM sessions WHERE id = ?", session_id)
        return SessionRecord.model_validate_json(rows[0][0]) if rows else None

    async def list_sessions(self, *, cursor: str | None = None, limit: int | None = None) -> ListPage[SessionRecord]:
        skip, size = _bounds(cursor, limit)
        rows = await self._run("SELECT record FROM sessions ORDER BY created_at, id LIMIT ? OFFSET ?", size + 1, skip)
        items = [SessionRecord.model_validate_json(row[0]) for row in rows[:size]]
        return ListPage(items=items, next_cursor=str(skip + size) if len(rows) > size else None)

    async def update_session(self, record: SessionRecord) -> None:
        text = record.model_dump_json(by_alias=True)
        await self._run(
            "INSERT INTO sessions (id, created_at, record) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, record = excluded.record",
            record.id,
            record.created_at,
            text,
        )

    async def list_events(
        self, session_id: str, *, cursor: str | None = None, limit: int | None = None
    ) -> ListPage[SessionEvent]:
        skip, size = _bounds(cursor, limit)
        rows = await self._run(
            "SELECT event FROM events WHERE session = ? ORDER BY number, id LIMIT ? OFFSET ?",
            session_id,
            size + 1,
            skip,
        )
        items = [SessionEvent.model_validate_json(row[0]) for row in rows[:size]]
        return ListPage(items=items, next_cursor=str(skip + size) if len(rows) > size else None)

    async def insert_event(self, session_id: str, event: SessionEvent) -> None:
        text = event.model_dump_json(by_alias=True)
        await self._run(
            # Another process may have taken the number meanwhile.
            "INSERT INTO events (session, number, id, event) VALUES (?1, "
            "(SELECT max(?2, coalesce(max(number), 0) + 1) FROM events WHERE session = ?1), ?3, "
            "json_set(?4, '$.eventIndex', (SELECT max(?2, coalesce(max(number), 0) + 1) FROM events WHERE session = ?1)))",
            session_id,
            event.event_index,
            event.id,
            text,
        )
        if event.event_index % 256 == 0:
            await self._run(
                "DELETE FROM events WHERE session = ? AND number <= ?", session_id, event.event_index - self._max_events
            )

    async def create_event_index(self, session_id: str) -> int:
        """The number of the next event."""
        rows = await self._run("SELECT coalesce(max(number), 0) + 1 FROM events WHERE session = ?", session_id)
        return int(rows[0][0])

    async def close(self) -> None:
        """Closes the file."""
        async with self._lock:
            self._connection.close()

    async def _run(self, sql: str, *values: Any) -> list[Any]:
        async with self._lock:
            return await asyncio.to_thread(lambda: self._connection.execute(sql, values).fetchall())


async def build_replay_text(
    driver: SessionPersistDriver,
    session_id: str,
    *,
    max_events: int = 100,
    max_chars: int = 100_000,
    event_filter: Callable[[SessionEvent], bool] | None = None,
) -> str | None:
    """The newest events of a session as text; ``None`` if there are none."""
    events: list[SessionEvent] = []
    cursor: str | None = None
    while True:
        page = await driver.list_events(session_id, cursor=cursor, limit=_DEFAULT_PAGE)
        events = [*events, *page.items][-max(max_events, 1) :]
        cursor = page.next_cursor
        if cursor is None:
            break
    lines = [
        json.dumps({"createdAt": event.created_at, "sender": event.sender, "payload": event.payload})
        for event in events
        if event_filter is None or event_filter(event)
    ]
    if not lines:
        return None
    kept: list[str] = []
    room = max_chars - len(REPLAY_HEAD) - len(_CUT) - 2
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            kept.append(_CUT)
            break
        kept.append(line)
    return "\n".join([REPLAY_HEAD, *reversed(kept)])


def _bounds(cursor: str | None, limit: int | None) -> tuple[int, int]:
    skip = int(cursor) if cursor and cursor.isdecimal() else 0
    return skip, limit if limit and limit > 0 else _DEFAULT_PAGE


def _page(items: list[Any], cursor: str | None, limit: int | None) -> ListPage[Any]:
    skip, size = _bounds(cursor, limit)
    page = [item.model_copy(deep=True) for item in items[skip : skip + size]]
    return ListPage(items=page, next_cursor=str(skip + size) if skip + size < len(items) else None)
