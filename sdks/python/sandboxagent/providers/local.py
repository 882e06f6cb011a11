"""A sandbox agent on this machine, as this user: no sandbox at all. For development, or inside one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import SandboxDestroyedError
from ..spawn import SandboxAgentSpawnHandle, SandboxAgentSpawnOptions, spawn_sandbox_agent
from ._scratch import Scratch
from .types import SandboxProvider


@dataclass
class LocalProviderOptions:
    """As of `SandboxAgentSpawnOptions`; what is ``None`` is chosen."""

    host: str | None = None
    port: int | None = None
    token: str | None = None
    binary_path: str | os.PathLike[str] | None = None
    timeout: float | None = None
    log_mode: str | None = None
    env: Mapping[str, str] | None = None
    arguments: list[str] = field(default_factory=list)


class LocalProvider(SandboxProvider):
    """Each sandbox is a server with a directory of its own to work in; both end with it."""

    ends_with_client = True

    def __init__(self, options: LocalProviderOptions | None = None) -> None:
        self._options = options or LocalProviderOptions()
        self._servers: dict[str, SandboxAgentSpawnHandle] = {}
        #: Of each sandbox, and the newest's.
        self._directories: dict[str, str] = {}
        self._scratch: dict[str, Scratch] = {}
        self._newest: str | None = None

    @property
    def name(self) -> str:
        return "local"

    @property
    def default_cwd(self) -> str | None:
        return self._newest

    async def get_cwd(self, sandbox_id: str) -> str | None:
        return self._directories.get(sandbox_id, self._newest)

    async def create(self) -> str:
        options = self._options
        scratch = Scratch()
        directory = os.path.join(scratch.path, "workspace")
        os.mkdir(directory)
        env = {**(options.env or {}), **(self.env or {})}
        # What it keeps of sessions goes with it.
        arguments = ["--state-dir", os.path.join(scratch.path, "state"), *options.arguments]
        for name, value in (self.env or {}).items():
            # What was declared for the workspace is for all that runs there.
            arguments += ["--pass-env", name]
            env[name] = value
        given: SandboxAgentSpawnOptions = {
            "host": options.host,
            "port": options.port,
            "token": options.token,
            "binary_path": options.binary_path,
            "timeout": options.timeout,
            "log_mode": options.log_mode,
            "env": env,
            "cwd": directory,
            "arguments": arguments,
        }
        try:
            handle = await spawn_sandbox_agent(given)
        except BaseException:
            scratch.remove()
            raise
        sandbox_id = handle.base_url.removeprefix("http://")
        self._servers[sandbox_id] = handle
        self._scratch[sandbox_id] = scratch
        self._directories[sandbox_id] = self._newest = directory
        return sandbox_id

    async def destroy(self, sandbox_id: str) -> None:
        handle = self._servers.pop(sandbox_id, None)
        if handle is not None:
            await handle.dispose()
        directory = self._directories.pop(sandbox_id, None)
        scratch = self._scratch.pop(sandbox_id, None)
        if scratch is not None:
            scratch.remove()
        if self._newest == directory:
            self._newest = None

    async def reconnect(self, sandbox_id: str) -> None:
        if sandbox_id not in self._servers:
            raise SandboxDestroyedError(sandbox_id, self.name)

    async def get_url(self, sandbox_id: str) -> str:
        return f"http://{sandbox_id}"

    async def get_token(self, sandbox_id: str) -> str | None:
        handle = self._servers.get(sandbox_id)
        return handle.token if handle is not None else self._options.token


def local(options: LocalProviderOptions | None = None, **given: Any) -> LocalProvider:
    """A server on this machine."""
    return LocalProvider(options or LocalProviderOptions(**given))
