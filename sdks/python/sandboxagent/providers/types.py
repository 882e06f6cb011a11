"""What a provider of sandboxes is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class SandboxProvider(ABC):
    """Makes sandboxes with a sandbox agent in them, and ends them.

    `pause`, `resume`, `restart` and `kill` tell whether the provider did it; what it
    did not do (``False``) is asked of the server.
    """

    #: Variables for what is made from now on.
    env: dict[str, str] | None = None

    #: Whether what `create` made is to end with the client that it was made for.
    ends_with_client = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What the provider is called."""

    @property
    def default_cwd(self) -> str | None:
        """Where programs work, and files of the bootstrap are put."""
        return None

    async def get_cwd(self, sandbox_id: str) -> str | None:
        """The same, of one sandbox."""
        return self.default_cwd

    @abstractmethod
    async def create(self) -> str:
        """Makes a sandbox and gives its id."""

    @abstractmethod
    async def destroy(self, sandbox_id: str) -> None:
        """Removes a sandbox. One that is not there is removed."""

    async def reconnect(self, sandbox_id: str) -> None:  # noqa: B027 - nothing to do
        """Takes up a sandbox that is there, or raises `SandboxDestroyedError`."""

    async def pause(self, sandbox_id: str) -> bool:
        """Stops it; what is in it stays."""
        return False

    async def resume(self, sandbox_id: str) -> bool:
        """Lets it go on."""
        return False

    async def restart(self, sandbox_id: str) -> bool:
        """Ends all that runs in it, and starts its server again."""
        return False

    async def kill(self, sandbox_id: str) -> bool:
        """Removes it at once, where that is another thing than `destroy`."""
        return False

    async def ensure_server(self, sandbox_id: str) -> None:  # noqa: B027
        """Sees to it that the server in it runs."""

    async def get_url(self, sandbox_id: str) -> str:
        """Where its server is."""
        raise NotImplementedError(f"{self.name} gives no URL")

    async def get_token(self, sandbox_id: str) -> str | None:
        """What opens its server."""
        return None

    def get_fetch(self, sandbox_id: str) -> Any:
        """How to reach it where there is no URL."""
        raise NotImplementedError(f"{self.name} is reached by its URL")

    async def get_inspector_url(self, sandbox_id: str, base_url: str | None = None) -> str:
        """Where a browser sees what goes on in it."""
        url = base_url or await self.get_url(sandbox_id)
        return f"{url.rstrip('/')}/ui/"

    def set_env(self, env: Mapping[str, str]) -> None:
        """Sets the variables of what is made from now on."""
        self.env = dict(env)
