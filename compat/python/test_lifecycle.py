"""A sandbox's life: started by the client, paused, resumed, restarted, ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sandboxagent import SandboxAgent
from sandboxagent.providers.local import LocalProvider, LocalProviderOptions
from serving import TOKEN, Server, binary, free_port


class Local(LocalProvider):
    """The client's own provider, with a workspace that is not everybody's."""

    def __init__(self, directory: Path) -> None:
        env = {"HOME": str(directory), "SANDBOX_AGENT_STATE_DIR": str(directory / "state")}
        super().__init__(LocalProviderOptions(host="127.0.0.1", port=free_port(), token=TOKEN, env=env))
        self.directory = directory

    @property
    def default_cwd(self) -> str:
        return str(self.directory / "workspace")

    async def end(self) -> None:
        for sandbox in list(self._sandboxes):
            await self.destroy(sandbox)


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Local]:
    binary()
    provider = Local(tmp_path)
    yield provider
    await provider.end()


async def start(provider: Local) -> SandboxAgent:
    return await SandboxAgent.start(
        provider=provider, token=TOKEN, workspace_files={"hello.txt": "hi"}, workspace_env={"A": 'b "c"'}
    )


async def gone(client: SandboxAgent) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(500):
            try:
                await http.get(client._base_url)
            except httpx.TransportError:
                return
            await asyncio.sleep(0.015)
    raise AssertionError("the server does not end")


async def test_start_gives_a_handle_of_a_server_that_runs(tmp_path: Path) -> None:
    binary()
    env = {"HOME": str(tmp_path), "SANDBOX_AGENT_STATE_DIR": str(tmp_path / "state")}
    handle = await SandboxAgent.start(options={"log_mode": "silent", "env": env})
    async with await SandboxAgent.connect(handle.base_url, token=handle.token) as client:
        assert (await client.run_process({"command": "pwd"}))["exitCode"] == 0
        session = await client.create_session(agent="mock")
        assert (await session.prompt("hello"))["content"] == "You said: hello"
    await asyncio.wait_for(handle.dispose(), 5)
    assert handle.process.returncode is not None
    await gone(client)


async def test_a_provider_starts_a_server_with_a_workspace(provider: Local) -> None:
    async with await start(provider) as client:
        assert client.sandbox is provider
        assert await client.read_file(f"{provider.default_cwd}/hello.txt") == "hi"
        assert await client.read_file(f"{provider.default_cwd}/.env") == 'A="b \\"c\\""\n'


async def test_a_sandbox_stands_still_until_it_is_resumed(provider: Local, tmp_path: Path) -> None:
    async with await start(provider) as client:
        script = "n=0; while :; do n=$((n + 1)); echo $n > count; sleep 0.01; done"
        await client.create_process({"command": "/bin/sh", "args": ["-c", script], "cwd": str(tmp_path)})
        count = tmp_path / "count"

        async def moves(seconds: float) -> bool:
            before = count.read_text() if count.exists() else ""
            for _ in range(int(seconds / 0.02)):
                await asyncio.sleep(0.02)
                if count.exists() and count.read_text() not in ("", before):
                    return True
            return False

        assert await moves(5)
        await client.pause_sandbox()
        assert not await moves(0.3)
        assert (await client.health())["status"] == "ok"
        await client.resume_sandbox()
        assert await moves(5)


async def test_a_restart_ends_processes_and_keeps_files_and_sessions(provider: Local) -> None:
    async with await start(provider) as client:
        process = await client.create_process({"command": "sleep", "args": ["60"]})
        session = await client.create_session(agent="mock")
        await session.prompt("before")
        await client.write_file(f"{provider.default_cwd}/kept", "x")
        await client.restart_sandbox()
        running = [one for one in await client.list_processes() if one["status"] == "running"]
        assert process["id"] not in [one["id"] for one in running]
        assert await client.read_file(f"{provider.default_cwd}/kept") == "x"
        assert (await session.prompt("after"))["content"] == "You said: after"


@pytest.mark.parametrize("call", ["kill_sandbox", "destroy_sandbox"])
async def test_a_sandbox_ends_when_it_is_told_to(provider: Local, call: str) -> None:
    client = await start(provider)
    await client.create_process({"command": "sleep", "args": ["60"]})
    session = await client.create_session(agent="mock")
    await session.prompt("before")
    await asyncio.wait_for(getattr(client, call)(), 5)
    await gone(client)


async def test_a_client_without_a_provider_keeps_its_hands_off_the_sandbox(server: Server) -> None:
    async with await SandboxAgent.connect(server.url, token=server.token) as client:
        for call in ["pause_sandbox", "resume_sandbox", "restart_sandbox", "kill_sandbox", "destroy_sandbox"]:
            with pytest.raises(RuntimeError):
                await getattr(client, call)()
    assert server.is_healthy()
    assert not server.has_ended()
