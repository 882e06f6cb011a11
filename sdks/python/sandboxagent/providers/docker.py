"""A sandbox agent in a Docker container. Needs the extra ``docker``."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..exceptions import SandboxDestroyedError, SandboxStartError
from .shared import DEFAULT_IMAGE, needed, serve_command
from .types import SandboxProvider


@dataclass
class DockerProviderOptions:
    image: str | None = None
    host: str | None = None
    """Where the published port is reached; default 127.0.0.1, which is also where it is published."""
    agent_port: int | None = None
    env: Sequence[str] | Mapping[str, str] | None = None
    """``NAME=VALUE`` lines, or a mapping."""
    binds: Sequence[str] | None = None
    """``/host:/container[:ro]``"""
    create_container_options: Mapping[str, Any] | None = None
    """More of what ``docker.containers.run`` takes."""
    client: Any = None
    """A ``docker.DockerClient``; default: of the environment."""


class DockerProvider(SandboxProvider):
    """Each sandbox is a container, which is removed with it. Its port is published on loopback only, behind a token."""

    def __init__(self, options: DockerProviderOptions | None = None) -> None:
        self._options = options or DockerProviderOptions()
        self._client: Any = self._options.client
        self._tokens: dict[str, str] = {}
        given = self._options.env
        if isinstance(given, Mapping):
            self.env = dict(given)
        elif given:
            self.env = dict(line.split("=", 1) for line in given)

    @property
    def name(self) -> str:
        return "docker"

    @property
    def default_cwd(self) -> str | None:
        return "/home/sandbox"

    def _docker(self) -> Any:
        if self._client is None:
            self._client = needed("docker", "docker").from_env()
        return self._client

    @property
    def _port(self) -> int:
        return self._options.agent_port or 3000

    async def create(self) -> str:
        options, token = self._options, secrets.token_hex(24)
        host = options.host or "127.0.0.1"
        command = serve_command(self._port, self.env or {})

        def run() -> Any:
            return self._docker().containers.run(
                options.image or DEFAULT_IMAGE,
                command[1:],
                entrypoint=command[0],
                detach=True,
                environment={**(self.env or {}), "SANDBOX_AGENT_TOKEN": token},
                ports={f"{self._port}/tcp": (host, None)},
                volumes=list(options.binds or []),
                labels={"sandbox-agent": "true"},
                init=True,
                **dict(options.create_container_options or {}),
            )

        try:
            container = await asyncio.to_thread(run)
        except Exception as error:
            raise SandboxStartError(f"docker could not start a container: {error}") from error
        self._tokens[container.id] = token
        return str(container.id)

    async def destroy(self, sandbox_id: str) -> None:
        self._tokens.pop(sandbox_id, None)
        container = await self._find(sandbox_id)
        if container is not None:
            await asyncio.to_thread(container.remove, force=True, v=True)

    async def reconnect(self, sandbox_id: str) -> None:
        if await self._find(sandbox_id) is None:
            raise SandboxDestroyedError(sandbox_id, self.name)

    async def pause(self, sandbox_id: str) -> bool:
        await asyncio.to_thread((await self._there(sandbox_id)).pause)
        return True

    async def resume(self, sandbox_id: str) -> bool:
        container = await self._there(sandbox_id)
        await asyncio.to_thread(container.reload)
        await asyncio.to_thread(container.unpause if container.status == "paused" else container.start)
        return True

    async def restart(self, sandbox_id: str) -> bool:
        await asyncio.to_thread((await self._there(sandbox_id)).restart)
        return True

    async def get_url(self, sandbox_id: str) -> str:
        container = await self._there(sandbox_id)
        await asyncio.to_thread(container.reload)
        ports = container.attrs["NetworkSettings"]["Ports"].get(f"{self._port}/tcp") or []
        if not ports:
            raise SandboxStartError(f"container {sandbox_id[:12]} publishes no port {self._port}: has it ended?")
        return f"http://{self._options.host or '127.0.0.1'}:{ports[0]['HostPort']}"

    async def get_token(self, sandbox_id: str) -> str | None:
        return self._tokens.get(sandbox_id)

    async def _find(self, sandbox_id: str) -> Any:
        def find() -> Any:
            try:
                return self._docker().containers.get(sandbox_id)
            except Exception as error:
                if type(error).__name__ == "NotFound":
                    return None
                raise

        return await asyncio.to_thread(find)

    async def _there(self, sandbox_id: str) -> Any:
        container = await self._find(sandbox_id)
        if container is None:
            raise SandboxDestroyedError(sandbox_id, self.name)
        return container


def docker(options: DockerProviderOptions | None = None, **given: Any) -> DockerProvider:
    """Containers of the Docker of this machine."""
    return DockerProvider(options or DockerProviderOptions(**given))
