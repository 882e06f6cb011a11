"""A server of one's own, on this machine."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import importlib.metadata
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import httpx

from .exceptions import SandboxStartError

if TYPE_CHECKING:
    from typing_extensions import Self

LogMode = str

_PR_SET_PDEATHSIG = 1
_GRACE = 5.0
_ASKED_EVERY = 0.02
_FETCH = 300.0

_PACKAGES = {
    ("Linux", "x86_64"): "@sandbox-agent/cli-linux-x64",
    ("Linux", "aarch64"): "@sandbox-agent/cli-linux-arm64",
    ("Darwin", "arm64"): "@sandbox-agent/cli-darwin-arm64",
    ("Darwin", "x86_64"): "@sandbox-agent/cli-darwin-x64",
    ("Windows", "AMD64"): "@sandbox-agent/cli-win32-x64",
}


class SandboxAgentSpawnOptions(TypedDict, total=False):
    """All may be left out, or be ``None``."""

    host: str | None
    """Default 127.0.0.1."""
    port: int | None
    """Default: a free one."""
    token: str | None
    """Default: a random one."""
    binary_path: str | os.PathLike[str] | None
    timeout: float | None
    """Seconds until it must be healthy; default 15."""
    log_mode: LogMode | None
    """``inherit`` (default), ``pipe`` or ``silent``."""
    env: Mapping[str, str] | None
    """Added to this process's environment."""
    cwd: str | os.PathLike[str] | None
    arguments: list[str] | None
    """More arguments of ``sandbox-agent server``."""


@dataclass
class SandboxAgentSpawnHandle:
    """A server that runs; ``await dispose()`` ends it."""

    base_url: str
    token: str
    process: asyncio.subprocess.Process
    dispose: Callable[[], Awaitable[None]]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispose()


async def spawn_sandbox_agent(options: SandboxAgentSpawnOptions | None = None) -> SandboxAgentSpawnHandle:
    """Starts ``sandbox-agent server`` and waits until it is healthy. It ends with this process, however that ends."""
    if sys.platform == "emscripten":
        raise RuntimeError("no process can be started here")
    given: dict[str, Any] = {name: value for name, value in (options or {}).items() if value is not None}
    # It may have to be fetched.
    program = await asyncio.to_thread(find_binary, given.get("binary_path"))
    ours = await asyncio.to_thread(is_ours, program)
    host = given.get("host", "127.0.0.1")
    port = given.get("port") or _free_port()
    token = given.get("token") or secrets.token_hex(24)
    timeout = float(given.get("timeout", 15.0))
    streams = {"pipe": asyncio.subprocess.PIPE, "inherit": None}.get(
        given.get("log_mode", "inherit"), asyncio.subprocess.DEVNULL
    )
    # What is set for another server is not for this one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_AGENT_")}
    # In its environment and not among its arguments, which everybody on the machine can read.
    env = {**inherited, **given.get("env", {}), "SANDBOX_AGENT_TOKEN": token}
    arguments = ["server", "--host", str(host), "--port", str(port)]
    if ours:
        arguments += given.get("arguments", [])
    else:
        # The one that npm has reads its token nowhere else, and gives its environment to all that it starts.
        arguments += ["--token", token]
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env=env,
            cwd=given.get("cwd"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=streams,
            stderr=streams,
            # A Ctrl+C is this program's to hear, which then ends it.
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()) if sys.platform == "linux" else None,
        )
    except OSError as error:
        raise SandboxStartError(f"{program} could not be started: {error}") from error
    leftover = _end_at_exit(process)
    said = _Said(process)
    connect = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    base_url = f"http://{f'[{connect}]' if ':' in connect else connect}:{port}"

    async def dispose() -> None:
        await _end(process)
        said.end()
        atexit.unregister(leftover)

    try:
        await _healthy(process, said, base_url, token, timeout)
        if "--no-token" not in arguments:
            await _must_be_it(process, base_url, token)
    except BaseException:
        await dispose()
        raise
    return SandboxAgentSpawnHandle(base_url=base_url, token=token, process=process, dispose=dispose)


def find_binary(named: str | os.PathLike[str] | None = None) -> str:
    """The program: as named, ``SANDBOX_AGENT_BIN``, one that came with this package, npm's, one on the ``PATH``, or in
    the cache (``~/.cache/sandbox-agent/bin``); ``agentjail`` has it in itself, too."""
    if named is not None:
        if not Path(named).is_file():
            raise FileNotFoundError(f"binary_path: there is no file {named}")
        return str(Path(named).resolve())
    from_environment = os.environ.get("SANDBOX_AGENT_BIN")
    if from_environment and not Path(from_environment).is_file():
        raise FileNotFoundError(f"SANDBOX_AGENT_BIN: there is no file {from_environment}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    bundled = Path(__file__).parent / "bin" / "sandbox-agent"
    for place in (
        from_environment,
        bundled,
        *_of_npm(),
        shutil.which("sandbox-agent"),
        cache / "sandbox-agent/bin/sandbox-agent",
    ):
        if place and Path(place).is_file() and os.access(place, os.X_OK):
            return str(Path(place).resolve())
    fetched = _from_npm(cache)
    if fetched is not None:
        return fetched
    raise FileNotFoundError(
        "no sandbox-agent program: install one on the PATH, name it with SANDBOX_AGENT_BIN or binary_path, or have npm, "
        "with which it is fetched"
    )


def _package() -> str | None:
    return _PACKAGES.get((platform.system(), platform.machine()))


def _of_npm() -> list[Path]:
    """Where npm's package for this platform may be: below this directory and its parents."""
    package = _package()
    if package is None:
        return []
    here = Path.cwd()
    found = (place / "node_modules" / package / "bin" / "sandbox-agent" for place in (here, *here.parents))
    return [program for program in found if _is_trusted(program)]


def _is_trusted(program: Path) -> bool:
    """Whether a program is this user's or root's: below a directory like /tmp, anybody can leave one."""
    if not program.is_file() or not hasattr(os, "geteuid"):
        return program.is_file()
    return program.stat().st_uid in (0, os.geteuid())


#: The version that is fetched. npm checks what it fetches against the registry's hash.
_NPM_VERSION = "0.4.2"


def _from_npm(cache: Path) -> str | None:
    """Fetches npm's package for this platform into the cache: whole, or not at all."""
    npm, package = shutil.which("npm"), _package()
    if npm is None or package is None:
        return None
    target = cache / "sandbox-agent" / "bin" / "sandbox-agent"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as stage:
        command = [npm, "install", "--prefix", stage, "--ignore-scripts", "--no-save", f"{package}@{_NPM_VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH, check=False)
        found = Path(stage) / "node_modules" / package / "bin" / "sandbox-agent"
        if done.returncode != 0 or not found.is_file():
            raise SandboxStartError(f"sandbox-agent could not be fetched with npm: {done.stderr.strip()[-500:]}")
        found.chmod(0o755)
        found.replace(target)
    return str(target)


class _Said:
    """What a server writes where it is piped: read, so that it is never stopped by it, and its newest kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._newest: deque[bytes] = deque(maxlen=64)
        streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        self._tasks = [asyncio.create_task(self._read(stream)) for stream in streams]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(4096):
            self._newest.append(piece)

    async def text(self) -> str:
        """All that is left of it, when the server has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        return b"".join(self._newest).decode(errors="replace").strip()[-4000:]

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


def is_ours(program: str) -> bool:
    """Whether a server takes its token from its environment and its workspace's variables by name."""
    try:
        told = subprocess.run([program, "server", "--help"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return "--pass-env" in told.stdout


async def _must_be_it(process: asyncio.subprocess.Process, base_url: str, token: str) -> None:
    """Who answers must want this very token, or somebody else has the port, or nobody is kept out."""
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        without = await client.get(f"{base_url}/v1/acp")
        own = await client.get(f"{base_url}/v1/acp", headers={"authorization": f"Bearer {token}"})
    if process.returncode is not None or own.status_code == 401:
        raise SandboxStartError(f"another server answers at {base_url}: choose another port, or leave it out")
    if without.status_code != 401:
        raise SandboxStartError(f"the server at {base_url} asks nobody for a token; it was ended")


async def _healthy(process: asyncio.subprocess.Process, said: _Said, base_url: str, token: str, timeout: float) -> None:
    end = asyncio.get_running_loop().time() + timeout
    async with httpx.AsyncClient(trust_env=False, timeout=1.0, headers={"authorization": f"Bearer {token}"}) as client:
        while asyncio.get_running_loop().time() < end:
            if process.returncode is not None:
                text = await said.text()
                raise SandboxStartError(f"sandbox-agent ended with exit code {process.returncode}: {text}".rstrip(": "))
            try:
                if (await client.get(f"{base_url}/v1/health")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(_ASKED_EVERY)
    raise TimeoutError(f"sandbox-agent was not healthy after {timeout} s")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    try:
        process.terminate()
        await asyncio.wait_for(process.wait(), _GRACE)
    except asyncio.TimeoutError:
        process.kill()
        # What it has started may hold its pipes, for which a wait would wait.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE)
    except ProcessLookupError:
        await process.wait()


def _end_at_exit(process: asyncio.subprocess.Process) -> Callable[[], None]:
    def end() -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    atexit.register(end)
    return end


def _dies_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def package_version() -> str:
    """Of this package."""
    try:
        return importlib.metadata.version("sandbox-agent-sdk")
    except importlib.metadata.PackageNotFoundError:
        return "0.2.0"
