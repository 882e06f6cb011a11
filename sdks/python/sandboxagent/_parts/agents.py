"""Repositories, agents, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from .. import git
from ..http import API_PREFIX
from .base import Part, dict_of, listed_of

if TYPE_CHECKING:
    from ..client import SandboxAgent

_INSTALL = 900.0


class Agents(Part):
    """Cloning, installing, configuring."""

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
        return await git.clone_repo(cast("SandboxAgent", self), url, path, token, branch, depth, timeout)

    # Agents

    async def list_agents(self, *, config: bool | None = None) -> list[dict[str, Any]]:
        """``[{id, installed, credentialsAvailable, capabilities, version?, …}]``"""
        return listed_of(await self._http.get(f"{API_PREFIX}/agents", params={"config": config}), "agents")

    async def get_agent(self, agent_id: str, *, config: bool | None = None) -> dict[str, Any]:
        response = await self._http.get(f"{API_PREFIX}/agents/{quote(agent_id, safe='')}", params={"config": config})
        return dict_of(response)

    async def install_agent(self, agent_id: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Installs an agent: ``{agentVersion?, agentProcessVersion?, reinstall?}`` → ``{already_installed, artifacts}``."""
        path = f"{API_PREFIX}/agents/{quote(agent_id, safe='')}/install"
        return dict_of(await self._http.post(path, json=dict(config or {}), timeout=_INSTALL))

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
        return dict_of(await self._http.get(f"{API_PREFIX}/config/{kind}", params=query))

    async def _set_config(self, kind: str, config: Mapping[str, Any], query: Mapping[str, Any]) -> None:
        await self._http.put(f"{API_PREFIX}/config/{kind}", json=dict(config), params=query)

    async def _delete_config(self, kind: str, query: Mapping[str, Any]) -> None:
        await self._http.delete(f"{API_PREFIX}/config/{kind}", params=query)

    async def session_config(
        self, method: str, session_id: str, kind: str, config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A session's own MCP servers or skills."""
        path = f"{API_PREFIX}/sessions/{quote(session_id, safe='')}/{kind}/config"
        return dict_of(await self._http.request(method, path, json=None if config is None else dict(config)))
