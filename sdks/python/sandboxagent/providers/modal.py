"""Sandboxes of Modal. Needs the extra ``modal``; not tried against its cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .shared import DEFAULT_IMAGE, RemoteProvider, needed, resolved


@dataclass
class ModalProviderOptions:
    create: Any = None
    """More of what ``Sandbox.create`` takes: a dict, or a function that gives one."""
    image: str | None = None
    agent_port: int | None = None
    app: str | None = None


class ModalProvider(RemoteProvider):
    def __init__(self, options: ModalProviderOptions | None = None) -> None:
        self._options = options or ModalProviderOptions()
        super().__init__(self._options.agent_port)

    @property
    def name(self) -> str:
        return "modal"

    @property
    def default_cwd(self) -> str | None:
        return "/root"

    async def make(self, env: dict[str, str]) -> tuple[str, Any]:
        module = needed("modal", "modal")
        app = await module.App.lookup.aio(self._options.app or "sandbox-agent", create_if_missing=True)
        given = {"memory": 2048, "timeout": 86_400, **(await resolved(self._options.create) or {})}
        box = await module.Sandbox.create.aio(
            app=app,
            image=module.Image.from_registry(self._options.image or DEFAULT_IMAGE),
            encrypted_ports=[self._port],
            secrets=[module.Secret.from_dict(env)],
            **given,
        )
        return str(box.object_id), box

    async def find(self, sandbox_id: str) -> Any:
        module = needed("modal", "modal")
        try:
            return await module.Sandbox.from_id.aio(sandbox_id)
        except module.exception.NotFoundError:
            return None

    async def run(self, box: Any, command: str) -> tuple[int, str]:
        done = await box.exec.aio("sh", "-c", command)
        code = await done.wait.aio()
        return int(code), str(await done.stderr.read.aio())

    async def remove(self, box: Any) -> None:
        await box.terminate.aio()

    async def url_of(self, box: Any, port: int) -> str:
        return str((await box.tunnels.aio())[port].url)


def modal(options: ModalProviderOptions | None = None, **given: Any) -> ModalProvider:
    return ModalProvider(options or ModalProviderOptions(**given))
