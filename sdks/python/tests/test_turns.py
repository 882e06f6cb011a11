"""What must not be lost, mixed or left hanging in the turns of a conversation."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import said, until

from sandboxagent import AcpHttpError, SandboxAgent, SandboxAgentSpawnHandle, SqliteSessionPersistDriver
from sandboxagent.persistence import InMemorySessionPersistDriver

pytestmark = pytest.mark.integration

#: What `str.splitlines` takes for the end of a line, and an event stream does not.
STRANGE = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"


def counted(number: int) -> str:
    return "".join(f"{n} " for n in range(number))


async def test_what_looks_like_the_end_of_a_line_is_none(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    assert (await session.prompt(STRANGE))["text"] == f"You said: {STRANGE}"


async def test_a_slow_reader_loses_nothing_and_hears_the_next_turn(client: SandboxAgent) -> None:
    session = await client.create_session(agent="claude")
    heard: list[str] = []
    async for update in session.stream("count 700"):
        if len(heard) == 3:
            # Longer than an idle stream is waited for.
            await asyncio.sleep(6)
        if update["sessionUpdate"] == "agent_message_chunk":
            heard.append(update["content"]["text"])
    assert "".join(heard) == counted(700)
    turn = session.stream("count 700")
    async for _ in turn:
        break
    await turn.aclose()
    messages: list[Any] = []
    session.on_message(messages.append)
    assert (await session.prompt("count 5"))["text"] == counted(5)
    assert said(messages).endswith(counted(5))


async def test_slow_handlers_do_not_cut_an_answer(client: SandboxAgent) -> None:
    async def slowly(_: Any) -> None:
        await asyncio.sleep(0.02)

    session = await client.create_session(agent="claude", on_message=slowly)
    assert (await session.prompt("count 300"))["text"] == counted(300)
    assert (await session.prompt("count 3"))["text"] == counted(3)


async def test_turns_of_one_session_do_not_mix(client: SandboxAgent) -> None:
    session = await client.create_session(agent="claude")
    first, second = await asyncio.gather(session.prompt("count 50 slowly"), session.prompt("count 7"))
    assert (first["text"], second["text"]) == (counted(50), counted(7))
    # Of one that was left, the rest is not the next one's.
    left = asyncio.create_task(session.prompt("count 60 slowly"))
    await asyncio.sleep(0.4)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert (await session.prompt("count 4"))["text"] == counted(4)


async def test_sessions_of_one_agent_process_hear_their_own(client: SandboxAgent) -> None:
    one = await client.create_session(agent="claude", server_id="shared")
    other = await client.create_session(agent="claude", server_id="shared", on_permission_request=lambda _: "always")
    # The stand-in asks for its first session, whoever prompts.
    assert (await other.prompt("permission"))["text"].strip() == "chosen: r"
    assert (await one.prompt("count 3"))["text"] == counted(3)
    await client.destroy_session(one.id)
    assert (await other.prompt("count 3"))["text"] == counted(3), "its agent is there"


async def test_a_cancelled_turn_leaves_no_question_open(client: SandboxAgent) -> None:
    asked: list[Any] = []

    async def never(request: Any) -> Any:
        asked.append(request)
        await asyncio.sleep(3600)

    session = await client.create_session(agent="claude", on_permission_request=never)
    turn = asyncio.create_task(session.prompt("permission"))
    await until("a question", lambda: asked)
    await session.cancel()
    assert (await asyncio.wait_for(turn, 10))["text"].strip() == "chosen: cancelled"
    assert session.acp_client is not None
    assert session.acp_client.open_permissions == []


async def test_a_handler_may_end_its_own_session(client: SandboxAgent) -> None:
    closed: list[bool] = []

    async def end(_: Any) -> None:
        await client.destroy_session("own")

    session = await client.create_session(
        agent="claude", session_id="own", on_message=end, on_close=lambda: closed.append(True)
    )
    with pytest.raises(AcpHttpError):
        await asyncio.wait_for(session.prompt("count 3"), 10)
    assert closed == [True]
    assert session.destroyed_at is not None
    servers = (await client.list_acp_servers())["servers"]
    assert servers == []


async def test_a_cancelled_dispose_goes_on(home: Path) -> None:
    del home
    agent = await SandboxAgent.start(log_mode="silent")
    directory = agent.default_cwd
    assert directory is not None
    ending = asyncio.create_task(agent.dispose())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    await agent.dispose()
    assert not Path(directory).exists()


async def test_an_answer_that_was_lost_on_the_way_comes_by_the_stream(server: SandboxAgentSpawnHandle) -> None:
    """A proxy swallows what is said to a prompt itself."""
    host, port = server.base_url.removeprefix("http://").split(":")
    tasks = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(host, int(port))
        swallow = False

        async def there() -> None:
            nonlocal swallow
            while data := await reader.read(65536):
                swallow = swallow or b"session/prompt" in data
                ahead.write(data)

        async def back() -> None:
            while data := await behind.read(65536):
                if not swallow:
                    writer.write(data)

        await asyncio.gather(there(), back(), return_exceptions=True)
        writer.close()
        ahead.close()

    def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(pass_on(reader, writer))
        tasks.add(task)

    proxy = await asyncio.start_server(begun, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with await SandboxAgent.connect(url, server.token) as client:
        session = await client.create_session(agent="claude")
        answer = await asyncio.wait_for(session.prompt("count 5"), 15)
        assert (answer["stopReason"], answer["text"]) == ("end_turn", counted(5))
    proxy.close()
    for task in tasks:
        task.cancel()


async def test_nothing_of_the_past_is_said_again(server: SandboxAgentSpawnHandle, tmp_path: Path) -> None:
    store = SqliteSessionPersistDriver(tmp_path / "s.db")
    async with await SandboxAgent.connect(server.base_url, server.token, persist=store) as first:
        session = await first.create_session(agent="claude", session_id="kept")
        await session.prompt("count 400")
        before = (await first.get_events("kept", per_page=1))["total"]
    async with await SandboxAgent.connect(server.base_url, server.token) as second:
        resumed = await second.resume_session(session.agent_session_id)
        again = await asyncio.gather(*(second.resume_session(session.agent_session_id) for _ in range(3)))
        assert {id(other) for other in again} == {id(resumed)}
        messages: list[Any] = []
        resumed.on_message(messages.append)
        assert (await resumed.prompt("count 3"))["text"] == counted(3)
        assert said(messages) == counted(3)
        total = (await second.get_events(resumed.id, per_page=1))["total"]
        assert total >= before, "what was said to the first client, too"
    await store.close()


async def test_two_sandboxes_of_a_provider_share_nothing(home: Path) -> None:
    from sandboxagent.providers import local

    del home
    provider = local(log_mode="silent")
    one = await SandboxAgent.start(provider=provider)
    other = await SandboxAgent.start(provider=provider)
    assert one.default_cwd
    assert other.default_cwd
    assert one.default_cwd != other.default_cwd
    await one.create_session(agent="mock")
    assert (await other.list_sessions())["total"] == 0
    await other.dispose()
    assert Path(one.default_cwd).is_dir()
    await one.dispose()


async def test_a_port_that_somebody_has_is_told(server: SandboxAgentSpawnHandle) -> None:
    port = int(server.base_url.rsplit(":", 1)[1])
    with pytest.raises(Exception, match=r"exit code|another server"):
        await SandboxAgent.start(port=port, log_mode="silent", timeout=5)
    with socket.socket() as still:
        still.connect(("127.0.0.1", port))


async def test_a_server_that_keeps_nobody_out_is_ended(home: Path) -> None:
    """A program that takes no token: what npm has, without ours."""
    open_server = home / "open"
    open_server.write_text(
        "#!/usr/bin/env python3\n"
        "import http.server, sys\n"
        "if '--help' in sys.argv: print('--pass-env'); sys.exit()\n"
        "class Open(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'{}')\n"
        "    def log_message(self, *_): pass\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "http.server.HTTPServer(('127.0.0.1', port), Open).serve_forever()\n"
    )
    open_server.chmod(0o755)
    with pytest.raises(Exception, match="asks nobody for a token"):
        await SandboxAgent.start(binary_path=open_server, log_mode="silent")


async def test_a_pipe_that_nobody_reads_stops_nothing(home: Path) -> None:
    del home
    agent = await SandboxAgent.start(log_mode="pipe", env={"RUST_LOG": "trace"})
    for _ in range(1500):
        await agent.health()
    await asyncio.wait_for(agent.dispose(), 10)


async def test_a_terminal_takes_all_that_is_typed(client: SandboxAgent) -> None:
    process = await client.create_process(
        {"command": "sh", "args": ["-c", "stty -echo raw; echo up; head -c 103000 | wc -c"], "tty": True}
    )
    terminal = await client.connect_process_terminal(process["id"])
    heard: list[bytes] = []

    async def hear(data: bytes) -> None:
        heard.append(data)

    terminal.on_data(hear)
    await until("it is up", lambda: b"up" in b"".join(heard))
    for n in range(3000):
        terminal.send_input(f"{n % 10}")
    terminal.send_input(b"x" * 100_000)
    await until("all of it was counted", lambda: b"103000" in b"".join(heard))
    await terminal.close()


async def test_a_store_with_five_methods_keeps_the_order(server: SandboxAgentSpawnHandle) -> None:
    class Five:
        """Only what is promised."""

        def __init__(self) -> None:
            whole = InMemorySessionPersistDriver()
            for name in ("get_session", "list_sessions", "update_session", "list_events", "insert_event"):
                setattr(self, name, getattr(whole, name))

    store: Any = Five()
    for words in ("first", "second"):
        async with await SandboxAgent.connect(server.base_url, server.token, persist=store) as client:
            sessions = (await client.list_sessions())["sessions"]
            session = await (client.resume_session("x") if sessions else client.create_session(agent="mock", id="x"))
            await session.prompt(words)
    events = (await store.list_events("x", cursor=None, limit=1000)).items
    numbers = [event.event_index for event in events]
    assert numbers == sorted(set(numbers)), numbers
