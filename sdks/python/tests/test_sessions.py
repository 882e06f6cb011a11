"""Sessions with agents, against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import said, until

from sandboxagent import (
    AcpHttpClient,
    AcpRpcError,
    LiveAcpConnection,
    SandboxAgent,
    SandboxAgentSpawnHandle,
    SessionNotFoundError,
    SqliteSessionPersistDriver,
    UnsupportedPermissionReplyError,
    UnsupportedSessionCategoryError,
    UnsupportedSessionConfigOptionError,
    UnsupportedSessionValueError,
)

pytestmark = pytest.mark.integration


async def test_a_prompt_is_answered_and_every_listener_hears(client: SandboxAgent) -> None:
    first: list[Any] = []
    later: list[Any] = []
    events: list[Any] = []
    session = await client.create_session(agent="mock", on_message=first.append)
    stop = client.on_session_event(session.id, events.append)

    @session.on_message
    def hear(message: Any) -> None:
        later.append(message)

    session.track_events()
    answer = await session.prompt("one two")
    assert answer["stopReason"] == "end_turn"
    assert answer["text"] == "You said: one two"
    # All of it was heard before the answer was given.
    assert said(first) == said(later) == said(events) == answer["text"]
    assert "You" in session.get_transcript()
    stop()
    count = len(events)
    await session.prompt("again")
    assert len(events) == count


async def test_sessions_at_once_do_not_meet(client: SandboxAgent) -> None:
    sessions = await asyncio.gather(*(client.create_session(agent="mock") for _ in range(4)))
    answers = await asyncio.gather(*(session.prompt(f"number {n}") for n, session in enumerate(sessions)))
    assert [answer["text"] for answer in answers] == [f"You said: number {n}" for n in range(4)]
    assert len({session.agent_session_id for session in sessions}) == 4


async def test_a_long_prompt_is_waited_for(client: SandboxAgent) -> None:
    session = await client.create_session(agent="claude")
    answer = await session.prompt("wait 32 seconds")
    assert answer["text"].startswith("You said: wait 32")


async def test_a_turn_is_streamed_and_ends_when_the_loop_is_left(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    updates = [update async for update in session.stream("think tool done")]
    kinds = {update["sessionUpdate"] for update in updates}
    assert {"agent_thought_chunk", "tool_call", "agent_message_chunk"} <= kinds
    turn = session.stream("begin and wait")
    async for _ in turn:
        break
    await turn.aclose()
    # The agent is free again.
    assert (await session.prompt("next"))["stopReason"] == "end_turn"


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [
        ("once", "a"),
        ("always", "b"),
        ("reject", "r"),
        ("b", "b"),
        ({"outcome": "always"}, "b"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_permission_is_answered_in_words(client: SandboxAgent, reply: Any, chosen: str) -> None:
    asked: list[Any] = []

    async def decide(request: Any) -> Any:
        asked.append(request)
        return reply

    session = await client.create_session(agent="claude", on_permission_request=decide)
    answer = await session.prompt("permission please")
    assert answer["text"].strip() == f"chosen: {chosen}"
    assert asked[0]["permission"]["toolCall"]["title"] == "ls"
    assert len(asked[0]["permission"]["options"]) == 3


async def test_a_permission_that_nobody_answers_is_denied_and_one_may_be_answered_later(client: SandboxAgent) -> None:
    session = await client.create_session(agent="claude")
    assert (await session.prompt("permission unheard"))["text"].strip() == "chosen: r"
    asked: list[Any] = []
    session.set_permission_callback(lambda request: asked.append(request))
    turn = asyncio.create_task(session.prompt("permission later"))
    await until("a question", lambda: asked)
    with pytest.raises(UnsupportedPermissionReplyError):
        await client.respond_permission(session.id, asked[0]["id"], "perhaps")
    assert await client.respond_permission(session.id, asked[0]["id"], "once") == {"success": True}
    assert (await turn)["text"].strip() == "chosen: a"
    assert await client.respond_permission(session.id, asked[0]["id"], "once") == {"success": False}


async def test_settings_are_those_that_the_agent_offers(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock", mode="plan", model="mock-fast", thought_level="high")
    current = {option["id"]: option["currentValue"] for option in session.config_options()}
    assert (current["model"], current["thought_level"]) == ("mock-fast", "high")
    assert session.modes()["currentModeId"] == "plan"
    await session.set_config_option("thought_level", "low")
    assert [mode["id"] for mode in await client.get_session_modes(session.id)] == ["normal", "plan"]
    with pytest.raises(UnsupportedSessionValueError, match="low, medium, high"):
        await session.set_thought_level("extreme")
    with pytest.raises(UnsupportedSessionConfigOptionError, match="thought_level"):
        await session.set_config_option("color", "red")
    with pytest.raises(UnsupportedSessionValueError):
        await session.set_mode("none such")
    other = await client.create_session(agent="claude")
    with pytest.raises(UnsupportedSessionCategoryError, match="model"):
        await other.set_thought_level("high")
    await client.set_session_model(other.id, "opus")
    assert (await client.get_session_config_options(other.id))[0]["currentValue"] == "opus"


async def test_a_session_goes_on_in_another_process(server: SandboxAgentSpawnHandle, tmp_path: Path) -> None:
    driver = SqliteSessionPersistDriver(tmp_path / "sessions.db")
    async with await SandboxAgent.connect(server.base_url, server.token, persist=driver) as agent:
        session = await agent.create_session(agent="mock", id="mine", cwd="/tmp")
        await session.prompt("remember")
        agent_id = session.agent_session_id
    await driver.close()
    driver = SqliteSessionPersistDriver(tmp_path / "sessions.db")
    async with await SandboxAgent.connect(server.base_url, server.token, persist=driver) as agent:
        resumed = await agent.resume_session("mine")
        assert resumed.agent_session_id == agent_id
        assert (await resumed.prompt("more"))["text"] == "You said: more"
        listed = await agent.list_sessions()
        assert [entry["id"] for entry in listed["sessions"]] == ["mine"]
        events = await agent.get_events("mine", per_page=500)
        prompts = [event for event in events["events"] if event["payload"].get("method") == "session/prompt"]
        assert len(prompts) == 2
        with pytest.raises(SessionNotFoundError):
            await agent.resume_session("none")
        fresh = await agent.resume_or_create_session("mock", resume_token="none")
        assert fresh.id != "none"
    await driver.close()
    # A client that knows nothing asks the server, by the agent's name.
    async with await SandboxAgent.connect(server.base_url, server.token) as agent:
        resumed = await agent.resume_session(agent_id)
        assert (await resumed.prompt("once more"))["text"] == "You said: once more"
        assert (await agent.get_events(agent_id))["total"] > 0


async def test_a_destroyed_session_leaves_no_process(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    assert len((await client.list_acp_servers())["servers"]) == 1
    assert (await client.get_acp_server(session.to_record().last_connection_id))["agent"] == "mock"
    await asyncio.wait_for(client.destroy_session(session.id), 2)
    assert (await client.list_acp_servers())["servers"] == []
    await client.destroy_session("unknown")


async def test_what_an_agent_does_not_know_is_its_error(client: SandboxAgent) -> None:
    session = await client.create_session(agent="claude")
    with pytest.raises(AcpRpcError, match="Method not supported") as failed:
        await session.register_custom_tool("t", lambda: None)
    assert failed.value.code == -32601


async def test_the_layers_below(server: SandboxAgentSpawnHandle) -> None:
    closed: list[bool] = []
    async with AcpHttpClient(
        server.base_url, "raw", agent="mock", token=server.token, on_close=lambda: closed.append(True)
    ) as acp:
        assert (await acp.initialize())["protocolVersion"] == 1
        made = await acp.new_session({"agent": "mock"})
        assert (await acp.prompt({"sessionId": made["sessionId"], "prompt": "hi"}))["stopReason"] == "end_turn"
        assert (await acp.ext_method("mock/anything", {"x": 1}))["echoed"]["params"] == {"x": 1}
    assert closed == [True]
    with pytest.raises(RuntimeError):
        await acp.initialize()
    observed: list[tuple[str, Any]] = []
    live = await LiveAcpConnection.create(
        server.base_url,
        "mock",
        "live",
        lambda _, envelope, direction, local: observed.append((direction, local)),
        lambda *_: {"outcome": "once"},
        token=server.token,
    )
    await live.create_remote_session("mine")
    assert live.has_bound_session("mine")
    live.queue_replay("mine", "before")
    await live.send_session_method("mine", "session/prompt", {"prompt": "permission now"})
    with pytest.raises(RuntimeError):
        await live.send_session_method("other", "session/prompt", {"prompt": "x"})
    await live.disconnect()
    assert ("inbound", "mine") in observed
    assert ("outbound", "mine") in observed
