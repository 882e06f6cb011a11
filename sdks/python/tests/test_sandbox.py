"""Files, processes, terminals and lifecycle, against a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import until

from sandboxagent import (
    DesktopNotSupportedError,
    GitCloneError,
    HealthTimeoutError,
    SandboxAgent,
    SandboxAgentError,
    SandboxAgentSpawnHandle,
    SandboxConnectionError,
    SandboxDestroyedError,
    SandboxError,
    SandboxNotAttachedError,
    SandboxStartError,
    WorkspaceScriptError,
    spawn_sandbox_agent,
)
from sandboxagent.providers import local
from sandboxagent.sse_streaming import decode_entry
from sandboxagent.workspace_config import WorkspaceConfig

pytestmark = pytest.mark.integration


async def test_files_of_every_kind(client: SandboxAgent, tmp_path: Path) -> None:
    top = tmp_path / "top"
    assert await client.mkdir_fs(str(top / "a")) == {"path": str(top / "a")}
    await client.write_file(str(top / "a/text"), "grüße")
    await client.write_file(str(top / "a/bytes"), b"\xff\x00")
    assert await client.read_file(str(top / "a/text")) == "grüße"
    assert await client.read_bytes(str(top / "a/bytes")) == b"\xff\x00"
    with pytest.raises(UnicodeDecodeError):
        await client.read_file(str(top / "a/bytes"))
    assert {entry["name"] for entry in await client.list_entries(str(top / "a"))} == {"text", "bytes"}
    assert (await client.stat(str(top / "a/text")))["size"] == 7
    await client.move(str(top / "a/text"), str(top / "b"))
    with pytest.raises(SandboxAgentError) as refused:
        await client.move(str(top / "a/bytes"), str(top / "b"))
    assert refused.value.status == 400
    await client.move(str(top / "a/bytes"), str(top / "b"), overwrite=True)
    done = await client.upload_fs_batch([{"path": str(top / "a/one"), "content": "1"}])
    assert len(done["paths"]) == 1
    with pytest.raises(SandboxAgentError, match="not empty"):
        await client.delete_entry(str(top / "a"))
    await client.delete_entry(str(top / "a"), recursive=True)
    assert not (top / "a").exists()


async def test_trees_travel_streamed(client: SandboxAgent, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_bytes(os.urandom(300_000))
    (source / "top").write_text("t")
    progress: list[int] = []
    await client.upload(source, str(tmp_path / "there"), progress.append)
    assert progress == sorted(progress)
    assert progress[-1] > 300_000
    await client.download(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back/deep/file").read_bytes() == (source / "deep/file").read_bytes()
    await client.upload(source / "top", str(tmp_path / "one"))
    await client.download(str(tmp_path / "one"), tmp_path / "two")
    assert (tmp_path / "two").read_text() == "t"


async def test_processes_are_started_asked_and_ended(client: SandboxAgent, tmp_path: Path) -> None:
    process = await client.create_process({"command": "cat", "interactive": True})
    await client.send_input(process["id"], "test")
    await client.send_input(process["id"], b"\n\xff\n")

    async def logged() -> bytes:
        entries = (await client.get_process_logs(process["id"], stream="stdout"))["entries"]
        return b"".join(map(decode_entry, entries))

    for _ in range(200):
        if await logged() == b"test\n\xff\n":
            break
        await asyncio.sleep(0.01)
    assert await logged() == b"test\n\xff\n"
    assert [known["id"] for known in await client.list_processes(owner="user")] == [process["id"]]
    await client.stop_process(process["id"])
    trap = "trap 'echo got int; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    trapped = await client.create_process({"command": "sh", "args": ["-c", trap]})
    subscription = await client.follow_process_logs(trapped["id"])
    for _ in range(200):
        if (await client.get_process_logs(trapped["id"]))["entries"]:
            break
        await asyncio.sleep(0.01)
    await client.stop_process(trapped["id"], signal="SIGINT")
    await asyncio.wait_for(subscription.closed, 10)
    whole = await client.get_process_logs(trapped["id"], follow=True)
    assert b"got int" in b"".join(map(decode_entry, whole["entries"]))
    assert (await client.get_process(trapped["id"]))["exitCode"] == 3
    killed = await client.create_process({"command": "sleep", "args": ["100"]})
    await client.kill_process(killed["id"])
    await client.delete_process(trapped["id"])
    with pytest.raises(SandboxAgentError) as gone:
        await client.get_process(trapped["id"])
    assert gone.value.status == 404
    limits = await client.set_process_config({"maxOutputBytes": 1000})
    assert limits["maxOutputBytes"] == 1000
    result = await client.run_process({"command": "sleep", "args": ["60"], "timeoutMs": 200})
    assert result["timedOut"] is True


async def test_a_command_may_take_longer_than_half_a_minute(client: SandboxAgent) -> None:
    result = await client.run_process({"command": "sleep", "args": ["31"], "timeoutMs": 60_000})
    assert result["exitCode"] == 0


async def test_a_log_is_followed_in_order_to_its_end_and_failures_are_told(client: SandboxAgent) -> None:
    count = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    process = await client.create_process({"command": "sh", "args": ["-c", count]})
    entries: list[dict[str, Any]] = []
    subscription = await client.follow_process_logs(process["id"], entries.append)
    await asyncio.wait_for(subscription.closed, 20)
    lines = b"".join(map(decode_entry, entries)).decode().splitlines()
    assert lines == [f"line {n}" for n in range(2000)]
    streamed = [entry async for entry in client.process_logs(process["id"], stream="stdout")]
    assert b"".join(map(decode_entry, streamed)) == b"".join(map(decode_entry, entries))

    def fails(_: Any) -> None:
        raise ValueError("a listener of mine")

    broken = await client.follow_process_logs(process["id"], fails)
    with pytest.raises(ValueError, match="mine"):
        await asyncio.wait_for(broken.closed, 5)
    unknown = await client.follow_process_logs("none")
    with pytest.raises(SandboxAgentError):
        await asyncio.wait_for(unknown.closed, 5)
    endless = await client.create_process({"command": "sleep", "args": ["100"]})
    open_one = await client.follow_process_logs(endless["id"])
    await open_one.close()
    assert open_one.closed.done()
    await client.kill_process(endless["id"])


async def test_a_terminal_keeps_order_and_replays_what_came_first(client: SandboxAgent) -> None:
    process = await client.create_process({"command": "sh", "args": ["-c", "echo first; cat"], "tty": True})
    terminal = await client.connect_process_terminal(process["id"])
    ready: list[Any] = []
    closed: list[bool] = []
    exits: list[Any] = []
    output = bytearray()
    await asyncio.sleep(0.2)
    terminal.on_ready(ready.append)
    terminal.on_data(output.extend)
    terminal.on_exit(exits.append)
    terminal.on_close(lambda: closed.append(True))
    await until("what came before we listened", lambda: b"first" in output)
    assert ready[0].process_id == process["id"]
    terminal.resize(100, 30)
    for n in range(200):
        terminal.send_input(f"{n:03}" if n % 2 else f"{n:03}".encode())
    terminal.send_input("\n")
    await until("the whole line, twice", lambda: output.count(b"".join(b"%03d" % n for n in range(200))) == 2)
    terminal.send_input(b"\x04")
    await until("the end", lambda: exits)
    await asyncio.wait_for(terminal.closed, 5)
    await terminal.close()
    assert closed == [True]
    with pytest.raises(ConnectionError, match="Failed to connect to terminal WebSocket"):
        await client.connect_process_terminal("none")
    assert client.build_process_terminal_websocket_url("a/b").endswith(
        f"a%2Fb/terminal/ws?access_token={client._token}"
    )


async def test_agents_and_configuration(client: SandboxAgent, tmp_path: Path) -> None:
    agents = {agent["id"]: agent for agent in await client.list_agents()}
    assert agents["mock"]["installed"]
    assert (await client.get_agent("claude"))["id"] == "claude"
    assert (await client.install_agent("mock"))["already_installed"] is True
    where = str(tmp_path)
    server = {"type": "local", "command": "true"}
    await client.set_mcp_config(server, directory=where, name="tools")
    assert (await client.get_mcp_config(directory=where, mcpName="tools"))["command"] == "true"
    await client.delete_mcp_config(directory=where, name="tools")
    with pytest.raises(SandboxAgentError):
        await client.get_mcp_config(directory=where, name="tools")
    skills = {"sources": [{"type": "local", "source": "/skills"}]}
    await client.set_skills_config(skills, directory=where, name="mine")
    assert (await client.get_skills_config(directory=where, name="mine"))["sources"][0]["source"] == "/skills"
    await client.delete_skills_config(directory=where, name="mine")
    await client.set_mcp_config({})
    assert await client.get_mcp_config() is not None
    await client.set_skills_config({})
    assert await client.get_skills_config() is not None


async def test_a_desktop_is_not_supported(client: SandboxAgent) -> None:
    assert "state" in await client.desktop_status()
    for call in (client.desktop_start(), client.desktop_screenshot(), client.desktop_mouse_click("left")):
        with pytest.raises(DesktopNotSupportedError, match="Only Linux"):
            await call


@pytest.mark.parametrize(
    "url", ["--upload-pack=touch /tmp/x", "https://user:pw@host/repo.git", "https://token@host/repo.git"]
)
async def test_addresses_that_are_none_are_refused(client: SandboxAgent, url: str) -> None:
    with pytest.raises(GitCloneError):
        await client.clone_repo(url)


async def test_nobody_there_is_the_networks_fault(client: SandboxAgent, tmp_path: Path) -> None:
    with pytest.raises(GitCloneError) as failed:
        await client.clone_repo("http://127.0.0.1:1/404/repo.git", path=str(tmp_path / "x"), token="tok")
    assert failed.value.category == "network"


async def test_a_clone_that_takes_too_long_is_ended(client: SandboxAgent, tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.sleep(30)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(GitCloneError) as failed:
        await asyncio.wait_for(client.clone_repo(f"http://127.0.0.1:{port}/r.git", timeout=1), 10)
    assert failed.value.category == "network"
    server.close()


async def test_health_is_waited_for(server: SandboxAgentSpawnHandle, tmp_path: Path) -> None:
    with pytest.raises(SandboxAgentError) as refused:
        await asyncio.wait_for(SandboxAgent.connect(server.base_url), 2)
    assert refused.value.status == 401
    with pytest.raises(HealthTimeoutError) as late:
        await SandboxAgent.connect("http://127.0.0.1:1", health_timeout=0.3)
    assert isinstance(late.value, TimeoutError)
    assert isinstance(late.value.__cause__, SandboxConnectionError)

    async def start_later() -> SandboxAgentSpawnHandle:
        await asyncio.sleep(0.5)
        return await spawn_sandbox_agent({"port": port, "token": "t", "log_mode": "silent"})

    port = 20_000 + os.getpid() % 10_000
    starting = asyncio.create_task(start_later())
    async with await SandboxAgent.connect(f"http://127.0.0.1:{port}", "t") as agent:
        assert (await agent.health())["status"] == "ok"
    await (await starting).dispose()


async def test_without_a_sandbox_there_is_nothing_to_end(client: SandboxAgent) -> None:
    assert client.sandbox is None
    assert client.sandbox_id is None
    for act in (client.pause_sandbox, client.resume_sandbox, client.restart_sandbox, client.destroy_sandbox):
        with pytest.raises(SandboxNotAttachedError, match="not attached to a provisioned sandbox"):
            await act()


async def test_a_local_sandbox_lives_as_long_as_it_is_wanted(home: Path) -> None:
    provider = local(log_mode="silent")
    agent = await SandboxAgent.start(provider=provider, workspace_env={"FOO": "bar"})
    assert agent.sandbox is provider
    assert agent.sandbox_id is not None
    counter = await agent.create_process({"command": "sh", "args": ["-c", "while :; do echo x; sleep 0.02; done"]})
    await agent.pause_sandbox()
    before = len((await agent.get_process_logs(counter["id"]))["entries"])
    await asyncio.sleep(0.3)
    assert len((await agent.get_process_logs(counter["id"]))["entries"]) <= before + 1
    await agent.resume_sandbox()
    await asyncio.sleep(0.3)
    assert len((await agent.get_process_logs(counter["id"]))["entries"]) > before + 1
    await agent.restart_sandbox()
    assert all(process["status"] == "exited" for process in await agent.list_processes())
    handle = provider._servers[agent.sandbox_id]
    directory = provider.default_cwd
    await agent.destroy_sandbox()
    assert handle.process.returncode is not None
    assert directory is not None
    assert not Path(directory).exists()
    with pytest.raises(SandboxDestroyedError):
        await provider.reconnect("127.0.0.1:1")
    with pytest.raises(SandboxNotAttachedError):
        await agent.kill_sandbox()


async def test_an_end_that_was_asked_for_is_no_failure(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = local(log_mode="silent")
    agent = await SandboxAgent.start(provider=provider)
    session = await agent.create_session(agent="mock")
    connection = session.acp_client
    assert connection is not None
    destroy = provider.destroy

    async def roughly(sandbox_id: str) -> None:
        # As a stream does whose server is killed.
        await connection._failed(ConnectionError("cut"))
        await destroy(sandbox_id)

    monkeypatch.setattr(provider, "destroy", roughly)
    await agent.destroy_sandbox()
    assert caplog.messages == []


async def test_a_start_that_fails_leaves_nothing(home: Path) -> None:
    provider = local(log_mode="silent")
    with pytest.raises(WorkspaceScriptError, match=r"setup\.sh exited with 7"):
        await SandboxAgent.start(provider=provider, workspace_files={"setup.sh": "echo no >&2; exit 7"})
    assert provider._servers == {}
    with pytest.raises(TypeError, match="workspace_env"):
        await SandboxAgent.start(workspace_env={"A": 1})  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError):
        await SandboxAgent.start(binary_path="/nowhere")
    with pytest.raises(SandboxStartError, match="exit code"):
        await spawn_sandbox_agent({"host": "192.0.2.1", "log_mode": "pipe"})
    with pytest.warns(RuntimeWarning, match="skipped"):
        agent = await SandboxAgent.start(workspace_files={"../..": "x", "a/b\\c.txt": "kept"}, log_mode="silent")
    assert await agent.read_file(f"{agent.default_cwd}/c.txt") == "kept"
    await agent.dispose()


async def test_a_server_dies_with_whoever_started_it(home: Path) -> None:
    code = (
        "import asyncio, os\nfrom sandboxagent import SandboxAgent\n"
        "async def main():\n a = await SandboxAgent.start(log_mode='silent')\n"
        " print(a.base_url, a.sandbox._servers[a.sandbox_id].process.pid, a.default_cwd, flush=True)\n"
        " await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    url, pid, directory = child.stdout.readline().split()
    arguments = Path(f"/proc/{pid}/cmdline").read_text()
    assert "token" not in arguments.lower()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    await until("its end", lambda: not Path(f"/proc/{pid}").exists())
    async with httpx.AsyncClient() as asked:
        with pytest.raises(httpx.ConnectError):
            await asked.get(url)
    # What it left goes when the next one begins, and what has an owner stays.
    assert Path(directory).exists()
    async with await SandboxAgent.start(log_mode="silent") as first:
        assert not Path(directory).parent.exists()
        async with await SandboxAgent.start(log_mode="silent") as second:
            for agent in (first, second):
                assert Path(agent.default_cwd or "").is_dir()


async def test_the_program_acts_and_ends_as_its_command(server: SandboxAgentSpawnHandle, tmp_path: Path) -> None:
    async def cli(*words: str, text: str | None = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandboxagent.cli",
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SANDBOX_AGENT_TOKEN": server.token},
        )
        out, err = await process.communicate(text.encode() if text is not None else None)
        return process.returncode or 0, out.decode(), err.decode()

    where = ("--url", server.base_url)
    assert (await cli("health", *where))[1].strip() == '{\n  "status": "ok"\n}'
    assert "mock: installed=True" in (await cli(*where, "agents"))[1]
    code, out, err = await cli(*where, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (code, out, err) == (5, "out\n", "err\n")
    assert (await cli(*where, "run", "ls", "-la"))[0] == 0
    assert (await cli(*where, "run", "sh", "-c", "kill -9 $$"))[0] == 137
    assert (await cli(*where, "run", "--timeout", "0.2", "sleep", "9"))[0] == 124
    target = str(tmp_path / "f")
    assert (await cli(*where, "write", target, "--stdin", text="typed"))[0] == 0
    assert (await cli(*where, "read", target))[1] == "typed"
    assert (await cli(*where, "write", target))[0] == 2
    assert "f" in (await cli(*where, "ls", str(tmp_path)))[1]
    code, out, err = await cli("--url", "http://127.0.0.1:1", "health")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert (await cli("--url", "http://h", "inspector"))[1].startswith("http://h/ui/?token=")
    assert "Server: http://127.0.0.1:" in (await cli("start"))[1]


async def test_every_error_is_one_of_ours(client: SandboxAgent) -> None:
    with pytest.raises(SandboxError):
        await client.stat("/nowhere")
    with pytest.raises(SandboxError):
        await client.clone_repo("-x")


async def test_a_script_for_any_shell_quotes_what_it_is_given(tmp_path: Path) -> None:
    repos: list[dict[str, Any]] = [
        {"url": "https://h/r.git", "path": "a b; touch owned", "branch": "x'y", "depth": 1},
        {"url": "-u"},
    ]
    script = WorkspaceConfig.git_clone_script(repos, token="it's; a $token")
    program = tmp_path / "git"
    program.write_text(
        '#!/bin/sh\nfor a in "$@"; do echo "<$a>"; done; "$GIT_ASKPASS" Username; "$GIT_ASKPASS" Password\n'
    )
    program.chmod(0o755)
    file = tmp_path / "clone-repos.sh"
    file.write_text(script)
    for shell in ("sh", "bash", "dash"):
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **script.env}
        done = await asyncio.to_thread(
            subprocess.run, [shell, str(file)], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "<a b; touch owned>" in done.stdout
        assert "<x'y>" in done.stdout
        assert "<-u>" in done.stdout
        assert "it's; a $token" in done.stdout
    assert not (tmp_path / "owned").exists()
    assert "token" not in script.replace("GIT_TOKEN", "").replace("the token to clone with", "").replace(
        "x-access-token", ""
    )
