"""Servers to test against, and waiting for what is to be seen."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandboxagent import SandboxAgent, SandboxAgentSpawnHandle, spawn_sandbox_agent

T = TypeVar("T")


async def until(what: str, condition: Callable[[], T], seconds: float = 10.0) -> T:
    """The condition's value, as soon as there is one."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"in vain waited for: {what}"
        await asyncio.sleep(0.01)
    return value


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with a stand-in for Claude's adapter on the PATH."""
    binary = os.environ.get("SANDBOX_AGENT_BIN")
    assert binary, "SANDBOX_AGENT_BIN must name the sandbox-agent program"
    directory = tmp_path / "home"
    programs = directory / "bin"
    programs.mkdir(parents=True)
    adapter = programs / "claude-agent-acp"
    adapter.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / 'claude_stand_in.py'}\n")
    adapter.chmod(0o755)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return directory


@pytest.fixture
async def server(home: Path) -> AsyncIterator[SandboxAgentSpawnHandle]:
    """A server, with a token."""
    async with await spawn_sandbox_agent({"log_mode": "silent", "cwd": home}) as handle:
        yield handle


@pytest.fixture
async def client(server: SandboxAgentSpawnHandle) -> AsyncIterator[SandboxAgent]:
    """A client of it."""
    async with await SandboxAgent.connect(server.base_url, server.token) as agent:
        yield agent


@pytest.fixture
def workspace() -> Iterator[Path]:
    """``/workspace``, as snippets name it; gone afterwards if it was not there before."""
    path = Path("/workspace")
    existed = path.exists()
    path.mkdir(exist_ok=True)
    before = set(path.iterdir())
    yield path
    for entry in set(path.iterdir()) - before:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not existed:
        path.rmdir()


def said(messages: list[dict[str, Any]]) -> str:
    """What an agent has said in some envelopes."""
    updates = [message.get("params", {}).get("update", {}) for message in messages]
    chunks = [update for update in updates if update.get("sessionUpdate") == "agent_message_chunk"]
    return "".join(chunk["content"]["text"] for chunk in chunks)
