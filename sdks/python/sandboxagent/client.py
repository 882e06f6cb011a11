"""A client for one sandbox agent."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx

from . import git
from .acp import AcpHttpClient, CloseHandler, ErrorHandler, MessageHandler, PermissionHandler
from .bootstrap import bootstrap, checked_env
from .exceptions import (
    DesktopNotSupportedError,
    GitCloneError,
    HealthTimeoutError,
    SandboxAgentError,
    SandboxConnectionError,
    SandboxDestroyedError,
    SandboxNotAttachedError,
    SessionNotFoundError,
    UnsupportedPermissionReplyError,
    UnsupportedSessionCategoryError,
    UnsupportedSessionConfigOptionError,
    UnsupportedSessionValueError,
)
from .http import API_PREFIX, FS_PATH, HttpTransport
from .inspector import build_inspector_url
from .persistence import REPLAY_HEAD, InMemorySessionPersistDriver, SessionPersistDriver, build_replay_text
from .providers.local import LocalProvider, LocalProviderOptions
from .providers.types import SandboxProvider
from .session import Session
from .sse_streaming import LogListener, ProcessLogSubscription, follow_process_logs, log_entries
from .terminal import ProcessTerminalSession, connect_process_terminal, terminal_url
from .types import SessionEvent, SessionRecord

__all__ = [
    "API_PREFIX",
    "DEFAULT_BASE_URL",
    "DesktopNotSupportedError",
    "GitCloneError",
    "SandboxAgent",
    "SandboxAgentError",
    "SandboxDestroyedError",
    "SandboxProvider",
    "Session",
    "UnsupportedPermissionReplyError",
    "UnsupportedSessionCategoryError",
    "UnsupportedSessionConfigOptionError",
    "UnsupportedSessionValueError",
]

T = TypeVar("T")

log = logging.getLogger("sandboxagent.client")

DEFAULT_BASE_URL = "http://sandbox-agent"
DEFAULT_WORKSPACE = "/workspace"
HEALTH_WAIT_MIN_DELAY = 0.5
HEALTH_WAIT_MAX_DELAY = 15.0

#: While a server is starting, it is asked more often than while it says that it is not well.
_CONNECT_DELAY = 0.05

#: How long an answer may be late after the time a command was given.
_MARGIN = 10.0
_DEFAULT_RUN = 30.0

_INSTALL = 900.0
_CHUNK = 1 << 20
_INPUT = 32 << 10

#: Envelopes of a session that begins, until it is on record.
_EARLY = 10_000

Progress = Callable[[int], Any]


class SandboxAgent:
    """Files, processes, terminals and coding agents of one sandbox.

    Make it with `connect`, or with `start`, which also starts what it speaks to. Use it with ``async with``, or call
    `dispose` when done.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        skip_health_check: bool = False,
        *,
        persist: SessionPersistDriver | None = None,
        replay_max_events: int = 100,
        replay_max_chars: int = 100_000,
    ) -> None:
        del skip_health_check  # Nothing is asked before the first call.
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._headers = dict(headers or {})
        self._http = HttpTransport(self._base_url, token=token, headers=headers)
        self.persist: SessionPersistDriver = InMemorySessionPersistDriver() if persist is None else persist
        self._replay = (replay_max_events, replay_max_chars)
        self._disposing: asyncio.Task[None] | None = None
        self._resuming: dict[str, asyncio.Lock] = {}
        self._event_listeners: dict[str, set[Callable[[dict[str, Any]], Any]]] = {}
        self._sessions: dict[str, Session] = {}
        self._indices: dict[str, int] = {}
        self._provider: SandboxProvider | None = None
        self._sandbox_id: str | None = None
        self._owns_sandbox = False
        self._bootstrap: dict[str, dict[str, Any]] = {}
        #: Where programs work if they are not told otherwise; ``None`` leaves it to the server.
        self.default_cwd: str | None = None

    # Life

    @classmethod
    async def connect(
        cls,
        base_url: str,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        skip_health_check: bool = False,
        health_timeout: float = 15.0,
        *,
        persist: SessionPersistDriver | None = None,
        replay_max_events: int = 100,
        replay_max_chars: int = 100_000,
    ) -> SandboxAgent:
        """Connects with a server that runs, or is about to."""
        replay: dict[str, Any] = {"replay_max_events": replay_max_events, "replay_max_chars": replay_max_chars}
        agent = cls(base_url, token, headers, persist=persist, **replay)
        if not skip_health_check:
            try:
                await agent.wait_for_health(health_timeout)
            except BaseException:
                await agent.dispose()
                raise
        return agent

    @classmethod
    async def start(
        cls,
        *,
        provider: SandboxProvider | None = None,
        sandbox: SandboxProvider | None = None,
        workspace_files: Mapping[str, str] | None = None,
        workspace_env: Mapping[str, str] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        skip_health_check: bool = False,
        health_timeout: float = 15.0,
        persist: SessionPersistDriver | None = None,
        sandbox_id: str | None = None,
        **spawn: Any,
    ) -> SandboxAgent:
        """Starts a sandbox and connects with it: of ``provider`` (or ``sandbox``), or a server on this machine.

        ``workspace_files`` (name → text) and ``workspace_env`` are there when this returns; ``setup.sh`` and
        ``clone-repos.sh`` among the files have been run. ``sandbox_id`` takes up one that the provider already has.
        What is left over (``host``, ``port``, ``binary_path``, ``timeout``, ``log_mode``, ``env``) is for the local server.
        """
        env = checked_env(workspace_env)
        chosen = provider or sandbox
        if chosen is None:
            chosen = LocalProvider(LocalProviderOptions(token=token, **spawn))
        elif spawn:
            raise TypeError(f"{', '.join(sorted(spawn))}: only of use without a provider")
        if env:
            chosen.set_env({**(chosen.env or {}), **env})
        created = sandbox_id is None
        if sandbox_id is None:
            sandbox_id = await chosen.create()
        else:
            await chosen.reconnect(sandbox_id)
        agent: SandboxAgent | None = None
        try:
            base_url = await chosen.get_url(sandbox_id)
            token = token or await chosen.get_token(sandbox_id)
            agent = cls(base_url, token, headers, persist=persist)
            agent._provider, agent._sandbox_id = chosen, sandbox_id
            agent._owns_sandbox = chosen.ends_with_client
            agent.default_cwd = await chosen.get_cwd(sandbox_id)
            if not skip_health_check:
                await chosen.ensure_server(sandbox_id)
                await agent.wait_for_health(health_timeout)
            directory = agent.default_cwd or DEFAULT_WORKSPACE
            agent._bootstrap = await bootstrap(agent, directory, workspace_files, env)
        except BaseException:
            # What was made for this call is nobody's now.
            if agent is not None:
                agent._owns_sandbox = False
                await agent.dispose()
            if created:
                await chosen.destroy(sandbox_id)
            raise
        return agent

    async def dispose(self) -> None:
        """Closes sessions and connections; a server that `start` started on this machine ends. It may be called again."""
        if self._disposing is None:
            # To its end, also if whoever asked for it waits no longer.
            self._disposing = asyncio.create_task(self._dispose())
        await asyncio.shield(self._disposing)

    async def _dispose(self) -> None:
        clients = [session.acp_client for session in self._sessions.values() if session.acp_client is not None]
        # Their agents stay, where the sandbox does, and so can be gone on with.
        await asyncio.gather(*(client.disconnect(end=self._owns_sandbox) for client in clients), return_exceptions=True)
        self._sessions.clear()
        self._event_listeners.clear()
        await self._http.close()
        if self._owns_sandbox and self._provider is not None and self._sandbox_id is not None:
            await self._provider.destroy(self._sandbox_id)
            self._provider = self._sandbox_id = None

    async def __aenter__(self) -> SandboxAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispose()

    @property
    def base_url(self) -> str:
        return self._base_url

    @property
    def inspector_url(self) -> str:
        """Where a browser sees what goes on here. It holds the token."""
        return build_inspector_url(self._base_url, token=self._token, headers=self._headers)

    @property
    def sandbox(self) -> SandboxProvider | None:
        """Who provides the sandbox, if anybody does."""
        return self._provider

    @property
    def sandbox_id(self) -> str | None:
        """The provider's name of the sandbox."""
        return self._sandbox_id

    @property
    def bootstrap_results(self) -> dict[str, dict[str, Any]]:
        """How the scripts of ``workspace_files`` ended, by name."""
        return dict(self._bootstrap)

    async def pause_sandbox(self) -> None:
        """Stops the sandbox; what is in it stays."""
        provider, sandbox_id = self._attached()
        if await provider.pause(sandbox_id) is False:
            await self._http.post(f"{API_PREFIX}/sandbox/pause")

    async def resume_sandbox(self) -> None:
        """Lets it go on."""
        provider, sandbox_id = self._attached()
        if await provider.resume(sandbox_id) is False:
            await self._http.post(f"{API_PREFIX}/sandbox/resume")
        await provider.ensure_server(sandbox_id)
        await self.wait_for_health()

    async def restart_sandbox(self) -> None:
        """Ends all that runs there, and starts the server again; files and sessions stay."""
        provider, sandbox_id = self._attached()
        if await provider.restart(sandbox_id) is False:
            await self._http.post(f"{API_PREFIX}/sandbox/restart")
        await self.wait_for_health()

    async def destroy_sandbox(self) -> None:
        """Removes the sandbox, and closes this client."""
        await self._end_sandbox(kill=False)

    async def kill_sandbox(self) -> None:
        """The same at once, where the provider knows a difference."""
        await self._end_sandbox(kill=True)

    async def _end_sandbox(self, *, kill: bool) -> None:
        provider, sandbox_id = self._attached()
        if not kill or await provider.kill(sandbox_id) is False:
            await provider.destroy(sandbox_id)
        self._provider = self._sandbox_id = None
        self._owns_sandbox = False
        await self.dispose()

    def _attached(self) -> tuple[SandboxProvider, str]:
        if self._provider is None or self._sandbox_id is None:
            raise SandboxNotAttachedError
        return self._provider, self._sandbox_id

    # Health

    async def health(self) -> dict[str, Any]:
        """``{"status": "ok"}``"""
        return _dict(await self._http.get(f"{API_PREFIX}/health"))

    async def wait_for_health(self, timeout_seconds: float = 15.0) -> dict[str, Any]:
        """Waits for a server that is starting, or not well. A refusal that time does not mend is raised at once."""
        end = time.monotonic() + timeout_seconds
        delay, refused = HEALTH_WAIT_MIN_DELAY, _CONNECT_DELAY
        while True:
            try:
                return await self.health()
            except SandboxConnectionError as error:
                last: Exception = error
                pause, refused = refused, min(refused * 1.5, HEALTH_WAIT_MIN_DELAY)
            except SandboxAgentError as error:
                if error.status in (400, 401, 403):
                    raise
                last = error
                pause, delay = delay, min(delay * 2, HEALTH_WAIT_MAX_DELAY)
            if time.monotonic() + pause > end:
                raise HealthTimeoutError(f"{self._base_url} is not healthy after {timeout_seconds} s: {last}") from last
            await asyncio.sleep(pause)

    # Files

    async def read_file(self, path: str) -> str:
        """A file's text. What is not UTF-8 is a `UnicodeDecodeError`: use `read_bytes`."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str) -> bytes:
        """A file's content, whole; `download` streams it."""
        return (await self._http.get(f"{FS_PATH}/file", params={"path": path}, timeout=None)).content

    async def write_file(self, path: str, content: str | bytes) -> None:
        """Writes a file; directories above it are made. One that begins with ``#!`` becomes executable."""
        data = content.encode() if isinstance(content, str) else bytes(content)
        await self._http.put(f"{FS_PATH}/file", content=data, params={"path": path}, timeout=None)
        if data.startswith(b"#!"):
            await self._chmod("u+x", path)

    async def write_executable(self, path: str, content: str) -> None:
        """Writes a program that only its owner can read and run."""
        await self._http.put(f"{FS_PATH}/file", content=content.encode(), params={"path": path})
        await self._chmod("700", path)

    async def _chmod(self, mode: str, path: str) -> None:
        result = await self.run_process({"command": "chmod", "args": [mode, "--", path]})
        if not git.run_result(result):
            raise OSError(f"{path} could not be made executable: {result.get('stderr')}")

    async def forget(self, path: str) -> None:
        """Removes a file, if it is there; what goes wrong is not this call's to tell."""
        try:
            await self._http.delete(f"{FS_PATH}/entry", params={"path": path})
        except (SandboxAgentError, SandboxConnectionError):
            return

    async def list_entries(self, path: str) -> list[dict[str, Any]]:
        """``[{name, path, entryType, size, modified}]``"""
        return _list(await self._http.get(f"{FS_PATH}/entries", params={"path": path}))

    async def stat(self, path: str) -> dict[str, Any]:
        """``{path, entryType, size, modified}``"""
        return _dict(await self._http.get(f"{FS_PATH}/stat", params={"path": path}))

    async def move(self, from_path: str, to_path: str, overwrite: bool | None = None) -> None:
        """Moves a file or directory."""
        body: dict[str, Any] = {"from": from_path, "to": to_path}
        if overwrite is not None:
            body["overwrite"] = overwrite
        await self._http.post(f"{FS_PATH}/move", json=body)

    async def delete_entry(self, path: str, recursive: bool = False) -> None:
        """Deletes a file, an empty directory, or with ``recursive`` a full one."""
        params = {"path": path, "recursive": True if recursive else None}
        await self._http.delete(f"{FS_PATH}/entry", params=params)

    async def mkdir_fs(self, path: str) -> dict[str, Any]:
        """Makes a directory, and those above it; ``{path}``."""
        return _dict(await self._http.post(f"{FS_PATH}/mkdir", params={"path": path}))

    async def upload_fs_batch(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes several files: ``[{path, content, encoding?}]`` → ``{paths, truncated}``."""
        return _dict(await self._http.post(f"{FS_PATH}/batch", json={"files": files}, timeout=None))

    async def download(self, path: str, local: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copies a file, or a directory with all that is in it, to this machine. ``progress`` hears bytes so far.

        ``local`` is what a file becomes, or the directory that the content of a directory is put into.
        """
        is_directory = (await self.stat(path))["entryType"] == "directory"
        target = Path(local)
        url = f"{FS_PATH}/{'archive' if is_directory else 'file'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            done = 0
            with os.fdopen(descriptor, "wb") as file:
                async with self._http.stream("GET", url, params={"path": path}) as response:
                    async for piece in response.aiter_bytes(_CHUNK):
                        await asyncio.to_thread(file.write, piece)
                        done += len(piece)
                        if progress is not None:
                            progress(done)
            if is_directory:
                await asyncio.to_thread(_unpack, name, target)
            else:
                os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)

    async def upload(self, local: str | os.PathLike[str], path: str, progress: Progress | None = None) -> None:
        """Copies a file, or a directory with all that is in it, into the sandbox, streamed. ``progress`` hears bytes so far."""
        source = Path(local)
        if source.is_dir():
            content, where, kind = _packed(source), "upload-batch", "application/x-tar"
            await self._http.post(
                f"{FS_PATH}/{where}",
                content=_counted(content, progress),
                params={"path": path},
                headers={"content-type": kind},
                timeout=None,
            )
        else:
            content = _pieces(source)
            await self._http.put(
                f"{FS_PATH}/file", content=_counted(content, progress), params={"path": path}, timeout=None
            )

    # Processes

    async def create_process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Starts ``{command, args?, cwd?, env?, tty?, interactive?}`` and gives what is known of it (``id``, …)."""
        return _dict(await self._http.post(f"{API_PREFIX}/processes", json=dict(config)))

    async def run_process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Runs ``{command, args?, cwd?, env?, timeoutMs?, maxOutputBytes?}`` to its end:
        ``{exitCode, timedOut, stdout, stderr, stdoutTruncated, stderrTruncated, durationMs}``."""
        milliseconds = config.get("timeoutMs")
        # The server ends it in time; without a time of the caller's, in the server's own, which may be longer.
        timeout = None if milliseconds is None else float(milliseconds) / 1000 + _MARGIN
        return _dict(await self._http.post(f"{API_PREFIX}/processes/run", json=dict(config), timeout=timeout))

    async def list_processes(self, owner: str | None = None) -> list[dict[str, Any]]:
        response = await self._http.get(f"{API_PREFIX}/processes", params={"owner": owner})
        return _listed(response, "processes")

    async def get_process(self, process_id: str) -> dict[str, Any]:
        return _dict(await self._http.get(self._process(process_id)))

    async def stop_process(self, process_id: str, signal: str | None = None) -> None:
        """Asks a process to end: SIGTERM, or another signal by name."""
        body = None if signal is None else {"signal": signal}
        await self._http.post(f"{self._process(process_id)}/stop", params={"signal": signal}, json=body)

    async def kill_process(self, process_id: str, signal: str = "SIGKILL") -> dict[str, Any]:
        return _dict(await self._http.post(f"{self._process(process_id)}/kill", json={"signal": signal}))

    async def delete_process(self, process_id: str) -> None:
        """Forgets a process that has ended."""
        await self._http.delete(self._process(process_id))

    async def send_input(self, process_id: str, data: str | bytes) -> None:
        """Writes to a process's standard input, exactly what is given."""
        import base64

        raw = data.encode() if isinstance(data, str) else bytes(data)
        # A server takes so much at once.
        for start in range(0, max(len(raw), 1), _INPUT):
            body = {"data": base64.b64encode(raw[start : start + _INPUT]).decode(), "encoding": "base64"}
            await self._http.post(f"{self._process(process_id)}/input", json=body)

    async def resize_process_terminal(self, process_id: str, cols: int, rows: int) -> dict[str, Any]:
        body = {"cols": cols, "rows": rows}
        return _dict(await self._http.post(f"{self._process(process_id)}/terminal/resize", json=body))

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
            return _dict(await self._http.get(f"{self._process(process_id)}/logs", params=query))
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
        return _dict(await self._http.get(f"{API_PREFIX}/processes/config"))

    async def set_process_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Changes limits; those that are left out stay as they are."""
        whole = {**await self.get_process_config(), **config}
        return _dict(await self._http.post(f"{API_PREFIX}/processes/config", json=whole))

    @staticmethod
    def _process(process_id: str) -> str:
        return f"{API_PREFIX}/processes/{quote(process_id, safe='')}"

    # Git

    async def clone_repo(
        self,
        url: str,
        path: str | None = None,
        token: str | None = None,
        branch: str | None = None,
        depth: int | None = None,
        timeout: float = 300,
    ) -> dict[str, Any]:
        """Clones a repository in the sandbox; gives how git ended.

        A ``token`` is seen by git alone: it is in no URL, argument or error, and its helper is gone afterwards.
        Raises `GitCloneError`, whose ``category`` is ``auth``, ``not_found``, ``network`` or ``unknown``.
        """
        return await git.clone_repo(self, url, path, token, branch, depth, timeout)

    # Agents

    async def list_agents(self, *, config: bool | None = None) -> list[dict[str, Any]]:
        """``[{id, installed, credentialsAvailable, capabilities, version?, …}]``"""
        return _listed(await self._http.get(f"{API_PREFIX}/agents", params={"config": config}), "agents")

    async def get_agent(self, agent_id: str, *, config: bool | None = None) -> dict[str, Any]:
        response = await self._http.get(f"{API_PREFIX}/agents/{quote(agent_id, safe='')}", params={"config": config})
        return _dict(response)

    async def install_agent(self, agent_id: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Installs an agent: ``{agentVersion?, agentProcessVersion?, reinstall?}`` → ``{already_installed, artifacts}``."""
        path = f"{API_PREFIX}/agents/{quote(agent_id, safe='')}/install"
        return _dict(await self._http.post(path, json=dict(config or {}), timeout=_INSTALL))

    # Configuration

    async def get_mcp_config(
        self,
        *,
        directory: str | None = None,
        name: str | None = None,
        mcpName: str | None = None,  # noqa: N803 - as callers of the first client write it
    ) -> dict[str, Any]:
        """One MCP server of a directory, or without ``name`` what is set for all."""
        return await self._get_config("mcp", {"directory": directory, "mcpName": name or mcpName})

    async def set_mcp_config(
        self,
        config: Mapping[str, Any],
        *,
        directory: str | None = None,
        name: str | None = None,
        mcpName: str | None = None,  # noqa: N803
    ) -> None:
        await self._set_config("mcp", config, {"directory": directory, "mcpName": name or mcpName})

    async def delete_mcp_config(
        self,
        *,
        directory: str | None = None,
        name: str | None = None,
        mcpName: str | None = None,  # noqa: N803
    ) -> None:
        await self._delete_config("mcp", {"directory": directory, "mcpName": name or mcpName})

    async def get_skills_config(
        self,
        *,
        directory: str | None = None,
        name: str | None = None,
        skillName: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """One skill of a directory, or without ``name`` what is set for all."""
        return await self._get_config("skills", {"directory": directory, "skillName": name or skillName})

    async def set_skills_config(
        self,
        config: Mapping[str, Any],
        *,
        directory: str | None = None,
        name: str | None = None,
        skillName: str | None = None,  # noqa: N803
    ) -> None:
        await self._set_config("skills", config, {"directory": directory, "skillName": name or skillName})

    async def delete_skills_config(
        self,
        *,
        directory: str | None = None,
        name: str | None = None,
        skillName: str | None = None,  # noqa: N803
    ) -> None:
        await self._delete_config("skills", {"directory": directory, "skillName": name or skillName})

    async def _get_config(self, kind: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return _dict(await self._http.get(f"{API_PREFIX}/config/{kind}", params=query))

    async def _set_config(self, kind: str, config: Mapping[str, Any], query: Mapping[str, Any]) -> None:
        await self._http.put(f"{API_PREFIX}/config/{kind}", json=dict(config), params=query)

    async def _delete_config(self, kind: str, query: Mapping[str, Any]) -> None:
        await self._http.delete(f"{API_PREFIX}/config/{kind}", params=query)

    async def session_config(
        self, method: str, session_id: str, kind: str, config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A session's own MCP servers or skills."""
        path = f"{API_PREFIX}/sessions/{quote(session_id, safe='')}/{kind}/config"
        return _dict(await self._http.request(method, path, json=None if config is None else dict(config)))

    # Sessions

    async def create_session(
        self,
        *,
        agent: str,
        server_id: str | None = None,
        mode: str | None = None,
        model: str | None = None,
        thought_level: str | None = None,
        id: str | None = None,  # noqa: A002 - part of the surface
        session_id: str | None = None,
        on_message: MessageHandler | None = None,
        on_error: ErrorHandler | None = None,
        on_close: CloseHandler | None = None,
        on_permission_request: PermissionHandler | None = None,
        cwd: str | None = None,
        session_init: Mapping[str, Any] | None = None,
    ) -> Session:
        """Begins a conversation with an agent, in a process of its own unless ``server_id`` names one.

        ``cwd`` is where it works; ``session_init`` may add ``mcpServers`` and ``env``.
        """
        local = session_id or id or str(uuid.uuid4())
        if local in self._sessions:
            raise ValueError(f"session_id: there is a session {local} already; end it first, or resume it")
        client = self._acp(server_id or f"py-{uuid.uuid4().hex[:20]}", agent, cwd)
        client.on_permission_request = on_permission_request
        record = SessionRecord(
            id=local,
            agent=agent,
            agent_session_id="",
            last_connection_id=client.server_id,
            created_at=int(time.time()),
            sandbox_id=self._sandbox_id,
            session_init={"cwd": client.cwd, **(session_init or {})},
        )
        # Variables of a session may be keys: they are kept nowhere.
        (record.session_init or {}).pop("env", None)
        session = Session(self, record, client)
        for handler, handlers in (
            (on_message, session._message_handlers),
            (on_error, session._error_handlers),
            (on_close, session._close_handlers),
        ):
            if handler is not None:
                cast(list[Any], handlers).append(handler)
        # What an agent says while it begins is heard, too.
        self._wire(session, client)
        try:
            await client.connect()
            greeting = await client.initialize()
            answer = await self._open(client, greeting, agent, session_init)
            session._take_up(answer)
            await self._adopt(session)
        except BaseException:
            self._sessions.pop(local, None)
            await client.disconnect(end=not self._is_shared(session))
            raise
        try:
            if mode is not None:
                await session.set_mode(mode)
            if model is not None:
                await session.set_model(model)
            if thought_level is not None:
                await session.set_thought_level(thought_level)
        except BaseException:
            await self.destroy_session(local)
            raise
        return session

    async def resume_session(self, session_id: str) -> Session:
        """Goes on with a session that this client's store knows, or its server: by either name."""
        # Two at once get the same.
        async with self._resuming.setdefault(session_id, asyncio.Lock()):
            try:
                return self._sessions.get(session_id) or await self._resumed(session_id)
            finally:
                self._resuming.pop(session_id, None)

    async def _resumed(self, session_id: str) -> Session:
        record = await self.persist.get_session(session_id) or await self._from_server(session_id)
        if record is None:
            raise SessionNotFoundError(session_id)
        cwd = (record.session_init or {}).get("cwd")
        client = self._acp(record.last_connection_id, record.agent, cwd)
        session = Session(self, record, client)
        # The stream begins with what was said before, and nothing of that belongs to what comes.
        client.catches_up = True
        # Questions that stand open wait for whoever answers the session's.
        client.on_permission_request = lambda _: None
        try:
            await client.connect()
            greeting = await client.initialize()
            loadable = bool((greeting.get("agentCapabilities") or {}).get("loadSession"))
            if loadable and record.agent_session_id:
                answer = await client.load_session({"sessionId": record.agent_session_id})
            else:
                answer = await self._open(client, greeting, record.agent, None)
                session._record.agent_session_id = ""
                await self._replay_into(session, client)
            client.catches_up = False
            client.on_permission_request = None
            session._record.destroyed_at = None
            session._take_up(answer)
            self._wire(session, client)
            await self._adopt(session)
        except BaseException:
            self._sessions.pop(session_id, None)
            await client.disconnect(end=False)
            raise
        return session

    async def resume_or_create_session(
        self, agent: str, resume_token: str | None = None, config: Mapping[str, Any] | None = None
    ) -> Session:
        """Resumes a session by its id, or begins another if it is not known."""
        if resume_token is not None:
            try:
                return await self.resume_session(resume_token)
            except SessionNotFoundError:
                pass
        return await self.create_session(agent=agent, **dict(config or {}))

    async def destroy_session(self, session_id: str) -> None:
        """Ends a session and its agent's process; what was said stays on record. Unknown ids are none."""
        session = self._sessions.pop(session_id, None)
        self._event_listeners.pop(session_id, None)
        record = session.to_record() if session is not None else await self.persist.get_session(session_id)
        if session is not None and session.acp_client is not None:
            await session.acp_client.disconnect(end=not self._is_shared(session))
        if record is None:
            return
        record.destroyed_at = record.destroyed_at or int(time.time())
        await self.persist.update_session(record)
        if session is not None:
            session._record.destroyed_at = record.destroyed_at

    async def list_sessions(self, page: int = 1, per_page: int = 10) -> dict[str, Any]:
        """Sessions on record, newest first: ``{sessions, page, perPage, total}``, those of this client's store and, by
        the agent's name, others that the server knows."""
        page, per_page = max(page, 1), max(per_page, 1)
        records: list[SessionRecord] = []
        cursor: str | None = None
        while True:
            found = await self.persist.list_sessions(cursor=cursor)
            records += found.items
            cursor = found.next_cursor
            if cursor is None:
                break
        known = {record.agent_session_id for record in records}
        try:
            response = await self._http.get(f"{API_PREFIX}/sessions", params={"page": 1, "perPage": 500})
            for other in response.json().get("sessions", []):
                if other.get("agentSessionId") not in known:
                    records.append(SessionRecord.model_validate(other))
        except SandboxAgentError as error:
            if error.status != 404:
                raise
        records.sort(key=lambda record: (-record.created_at, record.id))
        shown = records[(page - 1) * per_page : page * per_page]
        sessions = [record.model_dump(by_alias=True, exclude_none=True) for record in shown]
        return {"sessions": sessions, "page": page, "perPage": per_page, "total": len(records)}

    async def get_session(self, session_id: str) -> SessionRecord:
        """What is on record of a session."""
        if (session := self._sessions.get(session_id)) is not None:
            return session.to_record()
        record = await self.persist.get_session(session_id) or await self._from_server(session_id)
        if record is None:
            raise SessionNotFoundError(session_id)
        return record

    async def get_events(self, session_id: str, page: int = 1, per_page: int = 50) -> dict[str, Any]:
        """What was said, oldest first: ``{events: [{id, eventIndex, createdAt, sender, payload}], page, perPage, total}``."""
        if await self.persist.get_session(session_id) is None:
            path = f"{API_PREFIX}/sessions/{quote(session_id, safe='')}/events"
            return _dict(await self._http.get(path, params={"page": page, "perPage": per_page}))
        events: list[SessionEvent] = []
        cursor: str | None = None
        while True:
            found = await self.persist.list_events(session_id, cursor=cursor)
            events += found.items
            cursor = found.next_cursor
            if cursor is None:
                break
        # What was said elsewhere, before this client went on with it, the server knows.
        record = await self.persist.get_session(session_id)
        if record is not None and record.agent_session_id:
            path = f"{API_PREFIX}/sessions/{quote(record.agent_session_id, safe='')}/events"
            try:
                whole = _dict(await self._http.get(path, params={"page": page, "perPage": per_page}))
                if int(whole.get("total") or 0) > len(events):
                    return whole
            except (SandboxAgentError, SandboxConnectionError):
                pass
        shown = events[(max(page, 1) - 1) * per_page :][:per_page]
        told = [event.model_dump(by_alias=True) for event in shown]
        return {"events": told, "page": page, "perPage": per_page, "total": len(events)}

    def on_session_event(self, session_id: str, listener: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        """Hears what a session's agent says; what is given ends that."""
        self._event_listeners.setdefault(session_id, set()).add(listener)

        def unsubscribe() -> None:
            listeners = self._event_listeners.get(session_id, set())
            listeners.discard(listener)
            if not listeners:
                self._event_listeners.pop(session_id, None)

        return unsubscribe

    async def set_session_mode(self, session_id: str, mode: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_mode(mode)

    async def set_session_model(self, session_id: str, model: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_model(model)

    async def set_session_thought_level(self, session_id: str, level: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_thought_level(level)

    async def set_session_config_option(self, session_id: str, config_id: str, value: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_config_option(config_id, value)

    async def get_session_config_options(self, session_id: str) -> list[dict[str, Any]]:
        """``[{id, name, category?, currentValue, options}]``"""
        return (await self._session(session_id)).config_options()

    async def get_session_modes(self, session_id: str) -> list[dict[str, Any]]:
        """``[{id, name}]``"""
        return list((await self._session(session_id)).modes().get("availableModes", []))

    def on_permission_request(self, session_id: str, handler: PermissionHandler) -> PermissionHandler:
        """Says who answers the questions of a session's agent: see `Session.set_permission_callback`."""
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        session.set_permission_callback(handler)
        return handler

    async def respond_permission(self, session_id: str, permission_id: str, reply: Any) -> dict[str, Any]:
        """Answers a question that was left open: ``once``, ``always``, ``reject``, ``cancelled``, or an option's id."""
        return {"success": await self._active(session_id).respond_permission(permission_id, reply)}

    async def raw_respond_permission(
        self, session_id: str, permission_id: str, reply: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Answers a question with a result as it is."""
        client = self._active(session_id)
        asked = client._asked.pop(str(permission_id), None)
        await client.respond(asked["id"] if asked else permission_id, dict(reply))
        return {"success": True}

    async def list_acp_servers(self) -> dict[str, Any]:
        """``{servers: [{serverId, agent, createdAtMs}]}``"""
        return _dict(await self._http.get(f"{API_PREFIX}/acp"))

    async def get_acp_server(self, server_id: str) -> dict[str, Any]:
        """``{serverId, agent, createdAtMs}``"""
        for server in (await self.list_acp_servers()).get("servers", []):
            if server.get("serverId") == server_id:
                return cast(dict[str, Any], server)
        raise SandboxAgentError(404, {"title": "Not Found", "detail": f"there is no ACP server {server_id}"})

    def _acp(self, server_id: str, agent: str, cwd: str | None) -> AcpHttpClient:
        client = AcpHttpClient(self._base_url, server_id, agent=agent, token=self._token, headers=self._headers)
        client.cwd = cwd or self.default_cwd or "/"
        return client

    async def _open(
        self, client: AcpHttpClient, greeting: Mapping[str, Any], agent: str, init: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """A new session, after what authentication an agent wants that finds its key in its environment."""
        request: dict[str, Any] = {"agent": agent, "sessionInit": dict(init or {})}
        methods = [str(method.get("id")) for method in greeting.get("authMethods") or []]
        for method in ("gemini-api-key", "codex-api-key", "openai-api-key", "anthropic-api-key"):
            if method in methods:
                try:
                    await client.authenticate({"methodId": method})
                except Exception as error:
                    # Whether it was needed will be seen.
                    log.debug("%s did not authenticate by %s: %s", agent, method, error)
                break
        return await client.new_session(request)

    def _wire(self, session: Session, client: AcpHttpClient) -> None:
        """Connects a session's ends: what it hears is told to all who listen, and kept."""

        async def hear(envelope: dict[str, Any]) -> None:
            await session._hear(envelope)
            for handler in [*session._message_handlers, *self._event_listeners.get(session.id, set())]:
                await _told(handler, envelope)

        async def failed(error: Exception) -> None:
            for handler in list(session._error_handlers):
                await _told(handler, error)

        async def closed() -> None:
            for handler in list(session._close_handlers):
                await _told(handler)

        async def keep(direction: str, envelope: dict[str, Any]) -> None:
            envelope = _without_replay(envelope) if direction == "outbound" else envelope
            if session._early is None:
                await self._keep_event(session, client, direction, envelope)
            elif len(session._early) < _EARLY:
                session._early.append((direction, envelope))

        def owns(agent_session: str) -> bool:
            others = (other for other in self._sessions.values() if other is not session)
            return not any(other.agent_session_id == agent_session for other in others)

        client.on_message, client.on_error, client.on_close = hear, failed, closed
        client.on_envelope, client.owns = keep, owns

    async def _adopt(self, session: Session) -> None:
        """Puts a session that has begun on record, with what was said meanwhile."""
        if self._disposing is not None:
            raise RuntimeError("this SandboxAgent was disposed")
        self._sessions[session.id] = session
        await self.persist.update_session(session.to_record())
        client = session.acp_client
        while session._early and client is not None:
            await self._keep_event(session, client, *session._early.pop(0))
        session._early = None

    def _is_shared(self, session: Session) -> bool:
        """Whether another session here speaks to the same agent process."""
        server = session._record.last_connection_id
        others = (other for other in self._sessions.values() if other is not session)
        return any(other._record.last_connection_id == server for other in others)

    async def _keep_event(
        self, session: Session, client: AcpHttpClient, direction: str, envelope: dict[str, Any]
    ) -> None:
        index = self._indices.get(session.id)
        if index is None:
            index = await self._last_index(session.id)
        self._indices[session.id] = index + 1
        event = SessionEvent(
            id=str(uuid.uuid4()),
            event_index=index + 1,
            session_id=session.id,
            created_at=int(time.time() * 1000),
            connection_id=client.server_id,
            sender="client" if direction == "outbound" else "agent",
            payload=envelope,
        )
        await self.persist.insert_event(session.id, event)

    async def _last_index(self, session_id: str) -> int:
        number = getattr(self.persist, "create_event_index", None)
        if number is not None:
            return int(await number(session_id)) - 1
        last, cursor = 0, None
        while True:
            found = await self.persist.list_events(session_id, cursor=cursor)
            last = max([last, *(event.event_index for event in found.items)])
            cursor = found.next_cursor
            if cursor is None:
                return last

    async def _replay_into(self, session: Session, client: AcpHttpClient) -> None:
        """Tells an agent that has forgotten a session what was said in it, with the next prompt."""
        events, chars = self._replay
        text = await build_replay_text(self.persist, session.id, max_events=events, max_chars=chars)
        if text is None:
            return
        prompt = client.prompt

        async def first(request: Any) -> dict[str, Any]:
            asked = dict(request)
            given = asked.get("prompt", "")
            blocks = [{"type": "text", "text": given}] if isinstance(given, str) else list(given)
            answer = await prompt({**asked, "prompt": [{"type": "text", "text": text}, *blocks]})
            client.prompt = prompt  # type: ignore[method-assign]
            return answer

        client.prompt = first  # type: ignore[method-assign]

    async def _from_server(self, session_id: str) -> SessionRecord | None:
        try:
            response = await self._http.get(f"{API_PREFIX}/sessions/{quote(session_id, safe='')}")
        except SandboxAgentError as error:
            if error.status == 404:
                return None
            raise
        return SessionRecord.model_validate(response.json())

    async def _session(self, session_id: str) -> Session:
        return self._sessions.get(session_id) or await self.resume_session(session_id)

    def _active(self, session_id: str) -> AcpHttpClient:
        session = self._sessions.get(session_id)
        if session is None or session.acp_client is None:
            raise SessionNotFoundError(session_id)
        return session.acp_client

    # Desktop

    async def desktop_status(self) -> dict[str, Any]:
        return await self._desktop("GET", "status")

    async def desktop_start(self, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._desktop("POST", "start", json=dict(config or {}))

    async def desktop_stop(self) -> dict[str, Any]:
        return await self._desktop("POST", "stop", json={})

    async def desktop_screenshot(self, format: str | None = None) -> bytes:  # noqa: A002 - part of the surface
        return (await self._desktop_response("GET", "screenshot", params={"format": format})).content

    async def desktop_mouse_move(self, x: int, y: int) -> dict[str, Any]:
        return await self._desktop("POST", "mouse/move", json={"x": x, "y": y})

    async def desktop_mouse_click(
        self, button: str = "left", clicks: int | None = None, *, x: int | None = None, y: int | None = None
    ) -> dict[str, Any]:
        """Clicks where the pointer is, or at a position."""
        body = {"button": button, "clickCount": clicks, "x": x, "y": y}
        return await self._desktop("POST", "mouse/click", json={n: v for n, v in body.items() if v is not None})

    async def desktop_keyboard_type(self, text: str) -> dict[str, Any]:
        return await self._desktop("POST", "keyboard/type", json={"text": text})

    async def desktop_windows(self) -> dict[str, Any]:
        return await self._desktop("GET", "windows")

    async def desktop_stream_start(self, *, width: int | None = None, height: int | None = None) -> dict[str, Any]:
        body = {"width": width, "height": height}
        return await self._desktop("POST", "stream/start", json={n: v for n, v in body.items() if v is not None})

    async def _desktop(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return _dict(await self._desktop_response(method, path, **options))

    async def _desktop_response(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, f"{API_PREFIX}/desktop/{path}", **options)
        except SandboxAgentError as error:
            if error.status == 501:
                raise DesktopNotSupportedError from error
            raise


async def _told(handler: Callable[..., Any], *values: Any) -> None:
    try:
        done = handler(*values)
        if inspect.isawaitable(done):
            await done
    except asyncio.CancelledError:
        raise
    except Exception:
        from .acp import log

        log.exception("a listener failed")


def _without_replay(envelope: dict[str, Any]) -> dict[str, Any]:
    """A prompt as the caller gave it: what is kept is replayed, and would hold itself."""
    if envelope.get("method") != "session/prompt":
        return envelope
    params = envelope.get("params") or {}
    blocks = [block for block in params.get("prompt") or [] if not str(block.get("text", "")).startswith(REPLAY_HEAD)]
    return {**envelope, "params": {**params, "prompt": blocks}}


def _dict(response: httpx.Response) -> dict[str, Any]:
    if response.status_code == 204 or not response.content:
        return {}
    body = response.json()
    return body if isinstance(body, dict) else {"result": body}


def _list(response: httpx.Response) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], response.json())


def _listed(response: httpx.Response, name: str) -> list[dict[str, Any]]:
    body = response.json()
    return cast(list[dict[str, Any]], body if isinstance(body, list) else body.get(name, []))


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece


async def _packed(directory: Path) -> AsyncIterator[bytes]:
    """A directory as a tar stream, made by a thread as fast as it is taken."""
    read, write = os.pipe()
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(write, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                for entry in sorted(directory.iterdir()):
                    archive.add(entry, arcname=entry.name)
        except BrokenPipeError:
            return
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pack, daemon=True)
    thread.start()
    with os.fdopen(read, "rb") as stream:
        while piece := await asyncio.to_thread(stream.read, 64 * 1024):
            yield piece
    await asyncio.to_thread(thread.join)
    if failed:
        raise failed[0]


def _unpack(archive: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        # What a sandbox made leads nowhere but below the directory; a link that does is left out.
        if hasattr(tarfile, "data_filter"):

            def inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
                try:
                    return tarfile.data_filter(member, path)
                except tarfile.FilterError as error:
                    log.warning("%s was left out: %s", member.name, error)
                    return None

            packed.extractall(target, filter=inside)
        else:
            raise SandboxConnectionError("this Python cannot unpack archives safely: use 3.10.12, 3.11.4 or later")


async def _counted(content: AsyncIterator[bytes], progress: Progress | None) -> AsyncIterator[bytes]:
    done = 0
    async for piece in content:
        yield piece
        done += len(piece)
        if progress is not None:
            progress(done)
