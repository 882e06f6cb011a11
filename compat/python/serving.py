"""Starts servers to test against, and waits for what is to be seen."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TOKEN = "a-token-for-tests"


def binary() -> str:
    """The program under test."""
    path = os.environ.get("SANDBOX_AGENT_BIN")
    assert path, "SANDBOX_AGENT_BIN must name the sandbox-agent program"
    return str(Path(path).resolve())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(what: str, condition: Callable[[], T], seconds: float = 10.0) -> T:
    """The condition's value, as soon as there is one."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"in vain waited for: {what}"
        await asyncio.sleep(0.015)
    return value


class Server:
    """A server in a directory of its own: its home, its state and work lie beside each other."""

    def __init__(self, *, port: int | None = None, token: str | None = TOKEN) -> None:
        self.program = binary()
        self.token = token
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = Path(tempfile.mkdtemp(prefix="compat-"))
        self.home = self.directory / "home"
        self.state = self.directory / "state"
        self.work = self.directory / "work"
        for path in (self.home, self.state, self.work):
            path.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self.launch()

    def launch(self) -> None:
        given = ["--token", self.token] if self.token else ["--no-token"]
        where = ["-H", "127.0.0.1", "-p", str(self.port), "--state-dir", str(self.state)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "server", *where, *given],
                env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 10
        while not self.is_healthy():
            ended = self._process.poll() is not None or time.monotonic() > end
            assert not ended, (self.directory / "log").read_text()
            time.sleep(0.015)

    def is_healthy(self) -> bool:
        request = urllib.request.Request(f"{self.url}/v1/health")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def crash(self) -> None:
        """`kill -9` of the program and of what it started to serve, and the same server again."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [*map(int, children), pid]:
            os.kill(one, signal.SIGKILL)
        self._process.wait(10)
        end = time.monotonic() + 10
        while self.is_healthy():
            assert time.monotonic() < end
            time.sleep(0.015)
        self.launch()

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)


def said(messages: list[dict[str, Any]], session: str | None = None) -> str:
    """What an agent said, put together from its messages."""
    words = []
    for message in messages:
        params = message.get("params") or {}
        update = params.get("update") or {}
        if update.get("sessionUpdate") == "agent_message_chunk" and session in (None, params["sessionId"]):
            words.append(update["content"]["text"])
    return "".join(words)
