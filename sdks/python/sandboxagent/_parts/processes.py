"""Processes of a sandbox, their logs and terminals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from ..http import API_PREFIX
from ..sse_streaming import LogListener, ProcessLogSubscription, follow_process_logs, log_entries
from ..terminal import ProcessTerminalSession, connect_process_terminal, terminal_url
from .base import Part, dict_of, listed_of

if TYPE_CHECKING:
    pass

#: How long an answer may be late after the time a command was given.
_MARGIN = 10.0
#: Bytes of input that a server takes at once.
_INPUT = 32 << 10


class Processes(Part):
    """Running, following and ending."""

    async def create_process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Starts ``{command, args?, cwd?, env?, tty?, interactive?}`` and gives what is known of it (``id``, …)."""
        return dict_of(await self._http.post(f"{API_PREFIX}/processes", json=dict(config)))

    async def run_process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Runs ``{command, args?, cwd?, env?, timeoutMs?, maxOutputBytes?}`` to its end:
        ``{exitCode, timedOut, stdout, stderr, stdoutTruncated, stderrTruncated, durationMs}``."""
        milliseconds = config.get("timeoutMs")
        # The server ends it in time; without a time of the caller's, in the server's own, which may be longer.
        timeout = None if milliseconds is None else float(milliseconds) / 1000 + _MARGIN
        return dict_of(await self._http.post(f"{API_PREFIX}/processes/run", json=dict(config), timeout=timeout))

    async def list_processes(self, owner: str | None = None) -> list[dict[str, Any]]:
        response = await self._http.get(f"{API_PREFIX}/processes", params={"owner": owner})
        return listed_of(response, "processes")

    async def get_process(self, process_id: str) -> dict[str, Any]:
        return dict_of(await self._http.get(self._process(process_id)))

    async def stop_process(self, process_id: str, signal: str | None = None) -> None:
        """Asks a process to end: SIGTERM, or another signal by name."""
        body = None if signal is None else {"signal": signal}
        await self._http.post(f"{self._process(process_id)}/stop", params={"signal": signal}, json=body)

    async def kill_process(self, process_id: str, signal: str = "SIGKILL") -> dict[str, Any]:
        return dict_of(await self._http.post(f"{self._process(process_id)}/kill", json={"signal": signal}))

    async def delete_process(self, process_id: str) -> None:
        """Forgets a process that has ended."""
        await self._http.delete(self._process(process_id))

    async def send_input(self, process_id: str, data: str | bytes) -> None:
        """Writes to a process's standard input, exactly what is given."""

        raw = data.encode() if isinstance(data, str) else bytes(data)
        # A server takes so much at once.
        for start in range(0, max(len(raw), 1), _INPUT):
            body = {"data": base64.b64encode(raw[start : start + _INPUT]).decode(), "encoding": "base64"}
            await self._http.post(f"{self._process(process_id)}/input", json=body)

    async def resize_process_terminal(self, process_id: str, cols: int, rows: int) -> dict[str, Any]:
        body = {"cols": cols, "rows": rows}
        return dict_of(await self._http.post(f"{self._process(process_id)}/terminal/resize", json=body))

    async def get_process_logs(
        self,
        process_id: str,
        follow: bool | None = None,
        *,
        stream: str | None = None,
        tail: int | None = None,
        since: int | None = None,
    ) -> dict[str, Any]:
        """``{processId, stream, entries: [{sequence, stream, timestampMs, data, encoding}]}``; with ``follow``, all up to
        the process's end."""
        query: dict[str, Any] = {"stream": stream, "tail": tail, "since": since}
        if not follow:
            return dict_of(await self._http.get(f"{self._process(process_id)}/logs", params=query))
        entries = [entry async for entry in self.process_logs(process_id, **query)]
        return {"processId": process_id, "stream": stream or "combined", "entries": entries}

    async def follow_process_logs(
        self,
        process_id: str,
        listener: LogListener | None = None,
        *,
        stream: str | None = None,
        tail: int | None = None,
        since: int | None = None,
    ) -> ProcessLogSubscription:
        """Calls ``listener`` with each entry, history first, until the process has ended."""
        return await follow_process_logs(
            cast(Any, self._http),
            self._base_url,
            process_id,
            listener,
            token=self._token,
            query={"stream": stream, "tail": tail, "since": since},
        )

    def process_logs(
        self, process_id: str, *, stream: str | None = None, tail: int | None = None, since: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The same, to iterate over."""
        query = {"stream": stream, "tail": tail, "since": since}
        return log_entries(cast(Any, self._http), self._base_url, process_id, token=self._token, query=query)

    async def connect_process_terminal(self, process_id: str) -> ProcessTerminalSession:
        return await connect_process_terminal(self._base_url, process_id, token=self._token, headers=self._headers)

    def build_process_terminal_websocket_url(self, process_id: str) -> str:
        return terminal_url(self._base_url, process_id, self._token)

    async def get_process_config(self) -> dict[str, Any]:
        return dict_of(await self._http.get(f"{API_PREFIX}/processes/config"))

    async def set_process_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Changes limits; those that are left out stay as they are."""
        whole = {**await self.get_process_config(), **config}
        return dict_of(await self._http.post(f"{API_PREFIX}/processes/config", json=whole))

    @staticmethod
    def _process(process_id: str) -> str:
        return f"{API_PREFIX}/processes/{quote(process_id, safe='')}"
