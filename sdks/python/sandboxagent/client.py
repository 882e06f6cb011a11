"""A client for one sandbox agent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ._parts.agents import Agents
from ._parts.base import dict_of
from ._parts.desktop import Desktop
from ._parts.files import Files
from ._parts.processes import Processes
from ._parts.sessions import Sessions
from .bootstrap import bootstrap, checked_env
from .exceptions import (
    DesktopNotSupportedError,
    GitCloneError,
    HealthTimeoutError,
    SandboxAgentError,
    SandboxConnectionError,
    SandboxDestroyedError,
    SandboxNotAttachedError,
    UnsupportedPermissionReplyError,
    UnsupportedSessionCategoryError,
    UnsupportedSessionConfigOptionError,
    UnsupportedSessionValueError,
)
from .http import API_PREFIX, HttpTransport
from .inspector import build_inspector_url
from .persistence import InMemorySessionPersistDriver, SessionPersistDriver
from .providers.local import LocalProvider, LocalProviderOptions
from .providers.types import SandboxProvider
from .session import Session

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


class SandboxAgent(Files, Processes, Agents, Sessions, Desktop):
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
        clients = [session.acp_client for session in self._sessions.values() if session.acp_client is not None]
        for client in clients:
            client.is_leaving = True
        try:
            if not kill or await provider.kill(sandbox_id) is False:
                await provider.destroy(sandbox_id)
        except BaseException:
            for client in clients:
                client.is_leaving = False
            raise
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
        return dict_of(await self._http.get(f"{API_PREFIX}/health"))

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
