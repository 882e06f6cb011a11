"""Sandboxes that are workspaces of an agentjail control plane: a jail that holds no real key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..exceptions import SandboxAgentError, SandboxDestroyedError, SandboxStartError
from ..http import HttpTransport
from .types import SandboxProvider

#: Starting may have to clone repositories.
_PATIENCE = 900.0


@dataclass
class AgentjailProviderOptions:
    """What a workspace and its agent are made of; what is ``None`` is the server's choice."""

    base_url: str
    """The control plane's, such as ``http://localhost:7000``."""
    api_key: str | None = None
    services: Sequence[str] | None = None
    """Whose phantom tokens the agent gets, such as ``["anthropic"]``."""
    scopes: Mapping[str, Sequence[str]] | None = None
    session_id: str | None = None
    """A session that is there already, in place of ``services``."""
    agents: Sequence[str] | None = None
    """Coding agents that must be installed on the server; default: all there are."""
    git: str | Mapping[str, Any] | None = None
    """A repository, or ``{repo, ref?, credential?, depth?}``, or ``{repos: […]}``."""
    flavors: Sequence[str] | None = None
    image: str | None = None
    network: Mapping[str, Any] | None = None
    memory_mb: int | None = None
    max_pids: int | None = None
    cpu_percent: int | None = None
    idle_timeout_secs: int | None = None
    label: str | None = None
    env: Mapping[str, str] | None = None
    """For all that runs there; not a place for keys."""


class AgentjailProvider(SandboxProvider):
    """Each sandbox is a workspace with a sandbox agent in its jail. It stays until it is destroyed."""

    def __init__(self, options: AgentjailProviderOptions) -> None:
        self._options = options
        self._http = HttpTransport(options.base_url, token=options.api_key, timeout=_PATIENCE)
        self._tokens: dict[str, str] = {}
        self.env = dict(options.env) if options.env else None
        self.sessions: dict[str, str | None] = {}
        """The session of each sandbox, as the audit knows it."""

    @property
    def name(self) -> str:
        return "agentjail"

    @property
    def default_cwd(self) -> str | None:
        return "/workspace"

    async def create(self) -> str:
        options = self._options
        git = {"repo": options.git} if isinstance(options.git, str) else options.git
        body = _given(
            git=git,
            flavors=options.flavors,
            image=options.image,
            network=options.network,
            idle_timeout_secs=options.idle_timeout_secs,
            label=options.label,
        )
        workspace = (await self._http.post("/v1/workspaces", json=body)).json()["id"]
        try:
            await self._begin(workspace)
        except BaseException:
            await self.destroy(workspace)
            raise
        return str(workspace)

    async def destroy(self, sandbox_id: str) -> None:
        self._tokens.pop(sandbox_id, None)
        try:
            await self._http.delete(_path(sandbox_id))
        except SandboxAgentError as error:
            if error.status != 404:
                raise

    async def reconnect(self, sandbox_id: str) -> None:
        try:
            await self._http.get(_path(sandbox_id))
        except SandboxAgentError as error:
            if error.status == 404:
                raise SandboxDestroyedError(sandbox_id, self.name) from error
            raise

    async def pause(self, sandbox_id: str) -> bool:
        """Stops its jail, and takes a snapshot. Whatever is asked of it wakes it."""
        return await self._become(sandbox_id, "paused")

    async def resume(self, sandbox_id: str) -> bool:
        return await self._become(sandbox_id, "running")

    async def restart(self, sandbox_id: str) -> bool:
        await self._become(sandbox_id, "ended")
        return await self._become(sandbox_id, "running")

    async def kill(self, sandbox_id: str) -> bool:
        await self.destroy(sandbox_id)
        return True

    async def get_url(self, sandbox_id: str) -> str:
        return f"{self._http.base_url}{_path(sandbox_id)}/agent"

    async def get_token(self, sandbox_id: str) -> str | None:
        # A key of the workspace's tenant opens its agent, too.
        return self._tokens.get(sandbox_id) or self._options.api_key

    async def ensure_server(self, sandbox_id: str) -> None:
        if not await self._state(sandbox_id):
            await self._begin(sandbox_id)

    async def fork(self, sandbox_id: str, count: int = 1, label: str | None = None, **agent: Any) -> list[str]:
        """Makes sandboxes that begin as this one is now, each with an agent and tokens of its own."""
        body = _given(count=count, label=label, agent=agent)
        forked = (await self._http.post(f"{_path(sandbox_id)}/fork", json=body)).json()
        ids = []
        for fork in forked["forks"]:
            self._note(fork["id"], fork["agent"])
            ids.append(str(fork["id"]))
        return ids

    async def snapshot(self, sandbox_id: str, name: str | None = None) -> dict[str, Any]:
        """Takes a snapshot, of all that runs."""
        body = _given(name=name)
        taken: dict[str, Any] = (await self._http.post(f"{_path(sandbox_id)}/snapshot", json=body)).json()
        return taken

    async def close(self) -> None:
        """Closes connections with the control plane."""
        await self._http.close()

    async def _begin(self, sandbox_id: str) -> None:
        options = self._options
        body = _given(
            services=options.services,
            scopes=options.scopes,
            session_id=options.session_id,
            agents=options.agents,
            network=options.network,
            memory_mb=options.memory_mb,
            max_pids=options.max_pids,
            cpu_percent=options.cpu_percent,
            env=[list(pair) for pair in (self.env or {}).items()] or None,
        )
        started = (await self._http.post(f"{_path(sandbox_id)}/agent", json=body)).json()
        if "token" not in started:
            raise SandboxStartError(f"{self._http.base_url} is no agentjail control plane")
        self._note(sandbox_id, started)

    def _note(self, sandbox_id: str, started: Mapping[str, Any]) -> None:
        self._tokens[sandbox_id] = started["token"]
        self.sessions[sandbox_id] = started.get("session_id")

    async def _become(self, sandbox_id: str, state: str) -> bool:
        await self._http.request("PATCH", f"{_path(sandbox_id)}/agent", json={"state": state})
        return True

    async def _state(self, sandbox_id: str) -> str | None:
        try:
            return str((await self._http.get(f"{_path(sandbox_id)}/agent")).json()["state"])
        except SandboxAgentError as error:
            if error.status == 404:
                return None
            raise


def agentjail(base_url: str, api_key: str | None = None, **options: Any) -> AgentjailProvider:
    """Workspaces of an agentjail control plane: ``services``, ``scopes``, ``git``, ``flavors``, … as of
    `AgentjailProviderOptions`."""
    return AgentjailProvider(AgentjailProviderOptions(base_url=base_url, api_key=api_key, **options))


def _path(sandbox_id: str) -> str:
    return f"/v1/workspaces/{quote(sandbox_id, safe='')}"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
