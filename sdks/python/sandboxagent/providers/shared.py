"""What providers of remote sandboxes have in common."""

from __future__ import annotations

import importlib
import inspect
import secrets
import shlex
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from ..exceptions import SandboxDestroyedError, SandboxStartError
from .types import SandboxProvider

SERVER_VERSION = "0.4.2"
DEFAULT_IMAGE = f"rivetdev/sandbox-agent:{SERVER_VERSION}-full"
DEFAULT_AGENT_PORT = 3000
DEFAULT_AGENTS = ("claude", "codex")

#: Puts the program on the sandbox's PATH if it is not there. The registry's hash is checked by npm.
INSTALL_SCRIPT = (
    f"command -v sandbox-agent >/dev/null || npm install --global --ignore-scripts @sandbox-agent/cli@{SERVER_VERSION}"
)


def start_command(port: int = DEFAULT_AGENT_PORT) -> str:
    """A shell line that starts the server and returns. Its token stands in ``SANDBOX_AGENT_TOKEN``."""
    return f'{_arguments(port)}; nohup sandbox-agent "$@" >/tmp/sandbox-agent.log 2>&1 </dev/null &'


def serve_command(port: int, variables: Iterable[str] = ()) -> list[str]:
    """What a container runs: the same, in the foreground."""
    return ["sh", "-c", f'{_arguments(port, variables)}; exec sandbox-agent "$@"']


def _arguments(port: int, variables: Iterable[str] = ()) -> str:
    """Sets a shell's arguments to the server's, as the one that is there takes them: the published one has its token
    among them, and knows no hosts and no variables."""
    ours = " ".join(["--allow-host '*'", *(f"--pass-env {shlex.quote(name)}" for name in variables)])
    return (
        f"set -- server --host 0.0.0.0 --port {port}; "
        "if sandbox-agent server --help 2>&1 | grep -q -e --allow-host; "
        f'then set -- "$@" {ours}; else set -- "$@" --token "$SANDBOX_AGENT_TOKEN"; fi'
    )


def needed(module: str, extra: str) -> Any:
    """A module of an extra; where it is missing, an `ImportError` that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"the {extra} provider needs the package {module}: pip install 'sandbox-agent-sdk[{extra}]'"
        ) from error


async def resolved(value: Any) -> Any:
    """A value, or what a function or coroutine function of it gives."""
    if callable(value):
        value = value()
    return await value if inspect.isawaitable(value) else value


async def awaited(value: Any) -> Any:
    """For SDKs that come blocking or not."""
    return await value if inspect.isawaitable(value) else value


class RemoteProvider(SandboxProvider):
    """A sandbox of somebody's cloud, in which the server is installed and started by a shell."""

    def __init__(self, agent_port: int | None = None) -> None:
        self._port = agent_port or DEFAULT_AGENT_PORT
        self._boxes: dict[str, Any] = {}
        self._tokens: dict[str, str] = {}

    @abstractmethod
    async def make(self, env: dict[str, str]) -> tuple[str, Any]:
        """Makes a sandbox with these variables; gives its id and the SDK's object."""

    @abstractmethod
    async def find(self, sandbox_id: str) -> Any:
        """The SDK's object; ``None`` if there is none."""

    @abstractmethod
    async def run(self, box: Any, command: str) -> tuple[int, str]:
        """Runs a shell line to its end; gives exit code and output."""

    @abstractmethod
    async def remove(self, box: Any) -> None:
        """Removes it."""

    @abstractmethod
    async def url_of(self, box: Any, port: int) -> str:
        """Where a port of it is reached."""

    async def create(self) -> str:
        token = secrets.token_hex(24)
        sandbox_id, box = await self.make({**(self.env or {}), "SANDBOX_AGENT_TOKEN": token})
        self._boxes[sandbox_id], self._tokens[sandbox_id] = box, token
        try:
            await self._must(box, INSTALL_SCRIPT)
            await self._start(sandbox_id, box)
        except BaseException:
            await self.destroy(sandbox_id)
            raise
        return sandbox_id

    async def destroy(self, sandbox_id: str) -> None:
        box = await self._box(sandbox_id)
        self._boxes.pop(sandbox_id, None)
        self._tokens.pop(sandbox_id, None)
        if box is not None:
            await self.remove(box)

    async def reconnect(self, sandbox_id: str) -> None:
        if await self._box(sandbox_id) is None:
            raise SandboxDestroyedError(sandbox_id, self.name)

    async def ensure_server(self, sandbox_id: str) -> None:
        box = await self._there(sandbox_id)
        code, _ = await self.run(box, "pgrep -x sandbox-agent >/dev/null")
        if code != 0:
            await self._start(sandbox_id, box)

    async def get_url(self, sandbox_id: str) -> str:
        return await self.url_of(await self._there(sandbox_id), self._port)

    async def get_token(self, sandbox_id: str) -> str | None:
        return self._tokens.get(sandbox_id)

    async def _start(self, sandbox_id: str, box: Any) -> None:
        token = self._tokens.get(sandbox_id)
        # Some clouds do not hand their variables to a shell of theirs.
        given = f"export SANDBOX_AGENT_TOKEN={shlex.quote(token)}; " if token else ""
        await self._must(box, given + start_command(self._port))

    async def _must(self, box: Any, command: str) -> None:
        code, said = await self.run(box, command)
        if code != 0:
            raise SandboxStartError(f"{self.name}: the server could not be set up: {said.strip()[-500:]}")

    async def _box(self, sandbox_id: str) -> Any:
        if sandbox_id not in self._boxes:
            found = await self.find(sandbox_id)
            if found is None:
                return None
            self._boxes[sandbox_id] = found
        return self._boxes[sandbox_id]

    async def _there(self, sandbox_id: str) -> Any:
        box = await self._box(sandbox_id)
        if box is None:
            raise SandboxDestroyedError(sandbox_id, self.name)
        return box
