"""Sandboxes of E2B. Needs the extra ``e2b``; not tried against its cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .shared import RemoteProvider, needed, resolved


@dataclass
class E2bProviderOptions:
    create: Any = None
    """More of what ``AsyncSandbox.create`` takes: a dict, or a function that gives one."""
    template: str | None = None
    agent_port: int | None = None
    timeout: int | None = None
    """Seconds that a sandbox lives."""


class E2bProvider(RemoteProvider):
    def __init__(self, options: E2bProviderOptions | None = None) -> None:
        self._options = options or E2bProviderOptions()
        super().__init__(self._options.agent_port)

    @property
    def name(self) -> str:
        return "e2b"

    @property
    def default_cwd(self) -> str | None:
        return "/home/user"

    async def make(self, env: dict[str, str]) -> tuple[str, Any]:
        options = {"template": self._options.template, "timeout": self._options.timeout}
        more = await resolved(self._options.create) or {}
        given = {name: value for name, value in {**options, **more}.items() if value is not None}
        box = await needed("e2b", "e2b").AsyncSandbox.create(envs={**env, **given.pop("envs", {})}, **given)
        return str(box.sandbox_id), box

    async def find(self, sandbox_id: str) -> Any:
        module = needed("e2b", "e2b")
        try:
            return await module.AsyncSandbox.connect(sandbox_id)
        except module.NotFoundException:
            return None

    async def run(self, box: Any, command: str) -> tuple[int, str]:
        try:
            done = await box.commands.run(command, timeout=600)
        except needed("e2b", "e2b").CommandExitException as failed:
            return int(failed.exit_code), str(failed.stderr)
        return int(done.exit_code), str(done.stdout) + str(done.stderr)

    async def remove(self, box: Any) -> None:
        await box.kill()

    async def pause(self, sandbox_id: str) -> bool:
        await (await self._there(sandbox_id)).pause()
        return True

    async def resume(self, sandbox_id: str) -> bool:
        self._boxes.pop(sandbox_id, None)
        await self._there(sandbox_id)
        return True

    async def url_of(self, box: Any, port: int) -> str:
        return f"https://{box.get_host(port)}"


def e2b(options: E2bProviderOptions | None = None, **given: Any) -> E2bProvider:
    return E2bProvider(options or E2bProviderOptions(**given))
