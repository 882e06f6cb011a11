"""Sandboxes of Daytona. Needs the extra ``daytona``; not tried against its cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .shared import DEFAULT_IMAGE, RemoteProvider, awaited, needed, resolved


@dataclass
class DaytonaProviderOptions:
    create: Any = None
    """More of what ``create`` takes: a dict, or a function that gives one."""
    image: str | None = None
    agent_port: int | None = None
    cwd: str | None = None
    preview_ttl_seconds: int | None = None
    delete_timeout_seconds: float | None = None
    client: Any = None


class DaytonaProvider(RemoteProvider):
    def __init__(self, options: DaytonaProviderOptions | None = None) -> None:
        self._options = options or DaytonaProviderOptions()
        self._client = self._options.client
        super().__init__(self._options.agent_port)

    @property
    def name(self) -> str:
        return "daytona"

    @property
    def default_cwd(self) -> str | None:
        return self._options.cwd or "/home/sandbox"

    def _daytona(self) -> Any:
        if self._client is None:
            self._client = needed("daytona_sdk", "daytona").AsyncDaytona()
        return self._client

    async def make(self, env: dict[str, str]) -> tuple[str, Any]:
        more = dict(await resolved(self._options.create) or {})
        variables = {**env, **more.pop("env_vars", {})}
        module = needed("daytona_sdk", "daytona")
        given = {"image": self._options.image or DEFAULT_IMAGE, "auto_stop_interval": 0, **more}
        box = await awaited(self._daytona().create(module.CreateSandboxFromImageParams(env_vars=variables, **given)))
        return str(box.id), box

    async def find(self, sandbox_id: str) -> Any:
        try:
            return await awaited(self._daytona().get(sandbox_id))
        except Exception as error:
            if "not found" in str(error).lower():
                return None
            raise

    async def run(self, box: Any, command: str) -> tuple[int, str]:
        done = await awaited(box.process.exec(command))
        return int(done.exit_code), str(done.result)

    async def remove(self, box: Any) -> None:
        await awaited(box.delete(self._options.delete_timeout_seconds or 60))

    async def pause(self, sandbox_id: str) -> bool:
        await awaited((await self._there(sandbox_id)).stop())
        return True

    async def resume(self, sandbox_id: str) -> bool:
        await awaited((await self._there(sandbox_id)).start())
        return True

    async def url_of(self, box: Any, port: int) -> str:
        link = await awaited(box.create_signed_preview_url(port, self._options.preview_ttl_seconds or 14_400))
        return str(getattr(link, "url", link))


def daytona(options: DaytonaProviderOptions | None = None, **given: Any) -> DaytonaProvider:
    return DaytonaProvider(options or DaytonaProviderOptions(**given))
