"""Sandboxes of clouds whose SDK is given as an object: what is asked of it is said in one place.

For Vercel, Cloudflare, ComputeSDK, Fly Sprites and Agent Computer, of which there is no Python SDK that we could read or
try: wrap what you use in an object with `SandboxClient`'s methods.
"""

from __future__ import annotations

from typing import Any, Protocol

from .shared import RemoteProvider


class SandboxClient(Protocol):
    """What a wrapper of a cloud's SDK can do."""

    async def create(self, env: dict[str, str], port: int) -> tuple[str, Any]:
        """Makes a sandbox whose ``port`` is reached from outside; gives its id and an object of yours."""

    async def find(self, sandbox_id: str) -> Any:
        """The object; ``None`` if there is none."""

    async def run(self, box: Any, command: str) -> tuple[int, str]:
        """Runs a shell line to its end; gives exit code and output."""

    async def remove(self, box: Any) -> None:
        """Removes it."""

    async def url(self, box: Any, port: int) -> str:
        """Where a port of it is reached."""


class CustomProvider(RemoteProvider):
    """Any cloud, through a `SandboxClient`."""

    def __init__(
        self, client: SandboxClient, name: str = "custom", cwd: str | None = None, agent_port: int | None = None
    ) -> None:
        super().__init__(agent_port)
        self._client = client
        self._name = name
        self._cwd = cwd

    @property
    def name(self) -> str:
        return self._name

    @property
    def default_cwd(self) -> str | None:
        return self._cwd

    async def make(self, env: dict[str, str]) -> tuple[str, Any]:
        return await self._client.create(env, self._port)

    async def find(self, sandbox_id: str) -> Any:
        return await self._client.find(sandbox_id)

    async def run(self, box: Any, command: str) -> tuple[int, str]:
        return await self._client.run(box, command)

    async def remove(self, box: Any) -> None:
        await self._client.remove(box)

    async def url_of(self, box: Any, port: int) -> str:
        return await self._client.url(box, port)


def vercel(client: SandboxClient, agent_port: int | None = None) -> CustomProvider:
    return CustomProvider(client, "vercel", "/home/vercel-sandbox", agent_port)


def cloudflare(client: SandboxClient, agent_port: int | None = None) -> CustomProvider:
    return CustomProvider(client, "cloudflare", "/root", agent_port)


def computesdk(client: SandboxClient, agent_port: int | None = None) -> CustomProvider:
    return CustomProvider(client, "computesdk", "/root", agent_port)


def sprites(client: SandboxClient, agent_port: int | None = None) -> CustomProvider:
    return CustomProvider(client, "sprites", "/home/sprite", agent_port or 8080)


def agentcomputer(client: SandboxClient, agent_port: int | None = None) -> CustomProvider:
    return CustomProvider(client, "agentcomputer", "/home/node", agent_port)
