"""Sessions with an agent, in the client's own dialect of ACP.

What no server can mend in client 0.1.5, and is therefore not tested as passing:

- ``Session.register_custom_tool`` and ``unregister_custom_tool`` call methods that the client's own connection lacks.
- A permission request never reaches ``on_message``, and one without a handler is cancelled at once: ``respond_permission``
  works only where a handler lets the request go by (as below).
- ``resume_or_create_session`` creates none where the token is unknown: the client raises before it asks the server.
- ``list_sessions`` and ``get_events`` know only sessions of the server, the client's own record of them is private.
- ``SandboxAgent.start()`` without a provider gives a handle, not a client (see ``test_lifecycle.py``).
- ``SandboxAgent.sandbox_id`` asks its provider for a member that none has.
- ``Session.start_desktop`` always raises, whatever the server can do.
- The README's names that do not exist: no server can serve them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from sandboxagent import SandboxAgent
from sandboxagent.acp import AcpHttpClient, AcpHttpError, AcpRpcError
from sandboxagent.http import SandboxAgentError
from sandboxagent.types import SessionEvent
from serving import Server, said, until


async def test_a_session_is_created_prompted_and_hears_the_answer_in_pieces(client: SandboxAgent) -> None:
    heard: list[dict[str, Any]] = []
    errors: list[Exception] = []
    session = await client.create_session(agent="mock", on_message=heard.append, on_error=errors.append)
    assert session.agent == "mock"
    assert session.agent_session_id
    answer = await session.prompt("one two three")
    assert answer["stopReason"] == "end_turn"
    assert answer["content"] == "You said: one two three"
    assert answer["error"] is None
    await until("the answer", lambda: said(heard, session.agent_session_id) == "You said: one two three")
    assert len(heard) > 1
    assert errors == []


async def test_a_prompt_takes_attachments_and_may_be_streamed(client: SandboxAgent, server: Server) -> None:
    await client.write_file(str(server.work / "file"), "x")
    session = await client.create_session(agent="mock")
    answer = await session.prompt(
        "look", attachments=[{"path": str(server.work / "file")}, {"type": "text", "text": "more"}], streaming=True
    )
    assert answer["stopReason"] == "end_turn"
    assert answer["content"] == "You said: look more"


async def test_events_reach_every_kind_of_listener(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    events: list[dict[str, Any]] = []
    stop = client.on_session_event(session.id, events.append)
    session.track_events()
    await session.prompt("think plan tool")
    wanted = {"agent_thought_chunk", "plan", "tool_call", "tool_call_update", "agent_message_chunk"}
    await until("every kind", lambda: wanted <= {event["params"]["update"]["sessionUpdate"] for event in events})
    assert "tool_call" in session.get_transcript()
    session.track_events(False)
    stop()
    count = len(events)
    messages: list[dict[str, Any]] = []
    session.on_message(messages.append)
    await session.prompt("again")
    await until("the answer", lambda: said(messages) == "You said: again")
    assert len(events) == count


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        ({"outcome": "selected", "optionId": "allow"}, "It was allowed."),
        ({"outcome": "allowed"}, "It was allowed."),
        ({"outcome": "always"}, "It was allowed."),
        ({"outcome": "reject"}, "It was not allowed."),
    ],
)
async def test_a_permission_is_asked_for_and_answered(
    client: SandboxAgent, outcome: dict[str, Any], end: str
) -> None:
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        return {"id": request["id"], "outcome": outcome}

    session = await client.create_session(agent="mock", on_permission_request=answer)
    result = await asyncio.wait_for(session.prompt("permission please"), 10)
    assert result["stopReason"] == "end_turn"
    assert result["content"].endswith(end)
    assert len(asked) == 1
    assert asked[0]["sessionId"] == session.agent_session_id
    assert asked[0]["permission"]["toolCall"]["toolCallId"]
    assert {option["kind"] for option in asked[0]["permission"]["options"]} >= {"allow_once", "reject_once"}


async def test_a_permission_that_nobody_listens_for_is_cancelled(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    result = await asyncio.wait_for(session.prompt("permission unheard"), 10)
    assert result["stopReason"] == "cancelled"


@pytest.mark.parametrize(
    ("reply", "end"),
    [("once", "It was allowed."), ("always", "It was allowed."), ("allowed", "It was allowed."),
     ("reject", "It was not allowed.")],
)
async def test_a_permission_is_answered_later_by_a_word(client: SandboxAgent, reply: str, end: str) -> None:
    session = await client.create_session(agent="mock")
    asked: list[Any] = []

    def let_go_by(request: Any) -> Any:
        asked.append(request)
        # Anything less would be answered by the client itself.
        raise asyncio.CancelledError

    client.on_permission_request(session.id, let_go_by)
    prompt = asyncio.create_task(session.prompt("permission later"))
    await until("a request", lambda: asked)
    assert await client.respond_permission(session.id, asked[0]["id"], reply) == {"success": True}
    result = await asyncio.wait_for(prompt, 10)
    assert result["content"].endswith(end)


async def test_a_permission_is_answered_raw_and_once(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    asked: list[Any] = []

    def let_go_by(request: Any) -> Any:
        asked.append(request)
        raise asyncio.CancelledError

    session.set_permission_callback(let_go_by)
    prompt = asyncio.create_task(session.prompt("permission raw"))
    await until("a request", lambda: asked)
    outcome = {"outcome": {"outcome": "selected", "optionId": "allow"}}
    await client.raw_respond_permission(session.id, str(asked[0]["id"]), outcome)
    assert (await asyncio.wait_for(prompt, 10))["stopReason"] == "end_turn"
    # What is answered already is nothing to fail for.
    await client.raw_respond_permission(session.id, str(asked[0]["id"]), outcome)
    await client.respond_permission(session.id, "nothing", "once")


def current(options: list[dict[str, Any]]) -> dict[str, Any]:
    return {option["category"]: option["currentValue"] for option in options}


async def test_mode_model_thought_level_and_options_are_set_and_stay_set(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    assert isinstance(await client.set_session_mode(session.id, "plan"), dict)
    assert isinstance(await client.set_session_model(session.id, "mock-fast"), dict)
    assert isinstance(await client.set_session_thought_level(session.id, "high"), dict)
    expected = {"mode": "plan", "model": "mock-fast", "thought_level": "high"}
    assert current(await client.get_session_config_options(session.id)) == expected
    assert isinstance(await client.set_session_config_option(session.id, "thought_level", "medium"), dict)
    assert current(await client.get_session_config_options(session.id)) == {**expected, "thought_level": "medium"}
    assert [mode["id"] for mode in await client.get_session_modes(session.id)] == ["normal", "plan"]
    record = await client.get_session(session.id)
    assert record.modes is not None
    assert record.modes["currentModeId"] == "plan"


async def test_a_value_that_there_is_not_is_refused_with_those_there_are(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    for call, allowed in [
        (lambda: client.set_session_model(session.id, "other"), "mock-fast"),
        (lambda: client.set_session_thought_level(session.id, "other"), "medium"),
    ]:
        with pytest.raises(SandboxAgentError) as refused:
            await call()
        assert refused.value.status == 400
        assert refused.value.response is not None
        assert allowed in refused.value.response.text


async def test_a_client_without_the_session_sets_it_too(client: SandboxAgent, other: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    id = session.agent_session_id
    await other.set_session_mode(id, "plan")
    await other.set_session_config_option(id, "model", "mock-fast")
    options = current(await other.get_session_config_options(id))
    assert (options["mode"], options["model"]) == ("plan", "mock-fast")
    with pytest.raises(SandboxAgentError) as refused:
        await other.set_session_config_option(id, "colour", "red")
    assert refused.value.status == 400


@pytest.mark.parametrize("name", [None, "id", "session_id"])
async def test_a_session_is_created_as_it_is_wanted(client: SandboxAgent, name: str | None) -> None:
    given = {name: f"chosen-by-{name}"} if name else {}
    session = await client.create_session(
        agent="mock", mode="plan", model="mock-fast", thought_level="medium", **given
    )
    if name:
        assert session.id == f"chosen-by-{name}"
    options = current(await client.get_session_config_options(session.id))
    assert options == {"mode": "plan", "model": "mock-fast", "thought_level": "medium"}
    assert (await client.get_session(session.id)).agent_session_id == session.agent_session_id


async def test_a_prompt_that_would_go_on_for_ever_is_cancelled(client: SandboxAgent) -> None:
    heard: list[dict[str, Any]] = []
    session = await client.create_session(agent="mock", on_message=heard.append)
    prompt = asyncio.create_task(session.prompt("wait"))
    await until("a beginning", lambda: said(heard))
    assert session.acp_client is not None
    await session.acp_client.cancel({"sessionId": session.agent_session_id, "requestId": "3"})
    assert (await asyncio.wait_for(prompt, 10))["stopReason"] == "cancelled"
    assert (await session.prompt("on"))["content"] == "You said: on"


async def test_a_long_answer_outlasts_the_clients_patience(server: Server) -> None:
    """The client gives up after so long a silence: thirty seconds, here a third of that."""
    patience = 11.0
    async with AcpHttpClient(server.url, "patient", token=server.token, timeout=patience) as acp:
        await acp.initialize()
        made = await acp.new_session({"agent": "mock"})
        id = made["agentSessionId"]
        prompt = asyncio.create_task(acp.prompt({"sessionId": id, "prompt": "wait"}))
        begin = time.monotonic()
        while time.monotonic() < begin + patience + 0.5:
            assert not prompt.done(), prompt.exception()
            await asyncio.sleep(0.1)
        await acp.cancel({"sessionId": id, "requestId": "3"})
        assert (await asyncio.wait_for(prompt, 10))["stopReason"] == "cancelled"


async def test_two_clients_share_a_server_and_each_gets_its_own_answers(
    client: SandboxAgent, other: SandboxAgent
) -> None:
    heard: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    one, two = await asyncio.gather(
        client.create_session(agent="mock", on_message=heard["one"].append),
        other.create_session(agent="mock", on_message=heard["two"].append),
    )
    assert one.agent_session_id != two.agent_session_id
    servers = [server["serverId"] for server in (await client.list_acp_servers())["servers"]]
    assert servers.count("default") == 1
    for round in range(3):
        answers = await asyncio.gather(one.prompt(f"apples {round}"), two.prompt(f"pears {round}"))
        assert [answer["content"] for answer in answers] == [f"You said: apples {round}", f"You said: pears {round}"]
    await until("one", lambda: "apples 2" in said(heard["one"], one.agent_session_id))
    await until("two", lambda: "pears 2" in said(heard["two"], two.agent_session_id))


async def test_a_permission_goes_to_the_client_whose_session_asks(
    client: SandboxAgent, other: SandboxAgent
) -> None:
    """The other one has no handler and cancels whatever it hears of."""
    bystander = await other.create_session(agent="mock")
    await bystander.prompt("here")
    session = await client.create_session(
        agent="mock",
        on_permission_request=lambda request: {"id": request["id"], "outcome": {"outcome": "always"}},
    )
    for _ in range(5):
        answer = await asyncio.wait_for(session.prompt("permission"), 10)
        assert answer["content"].endswith("It was allowed.")


async def test_a_client_that_leaves_does_not_end_the_others_sessions(server: Server) -> None:
    async with await SandboxAgent.connect(server.url, token=server.token) as stays:
        remaining = await stays.create_session(agent="mock")
        heard: list[dict[str, Any]] = []
        remaining.on_message(heard.append)
        waiting = asyncio.create_task(remaining.prompt("wait"))
        await until("a beginning", lambda: said(heard))
        async with await SandboxAgent.connect(server.url, token=server.token) as leaves:
            left = await leaves.create_session(agent="mock")
            await leaves.destroy_session(left.id)
        assert not waiting.done()
        assert remaining.acp_client is not None
        await remaining.acp_client.cancel({"sessionId": remaining.agent_session_id, "requestId": "3"})
        assert (await asyncio.wait_for(waiting, 10))["stopReason"] == "cancelled"
        heard.clear()
        assert (await remaining.prompt("still here"))["content"] == "You said: still here"
        await until("the answer", lambda: said(heard) == "You said: still here")


async def test_sessions_of_one_client_do_not_end_with_one_of_them(client: SandboxAgent) -> None:
    first = await client.create_session(agent="mock")
    second = await client.create_session(agent="mock")
    await client.destroy_session(first.id)
    assert (await second.prompt("on"))["content"] == "You said: on"


async def test_the_last_client_that_leaves_ends_the_agent(own: Server) -> None:
    async with await SandboxAgent.connect(own.url, token=own.token) as watches:

        async def runs() -> bool:
            status = (await watches.get_agent("mock")).get("serverStatus") or {}
            return status.get("status") == "running"

        async with await SandboxAgent.connect(own.url, token=own.token) as leaves:
            session = await leaves.create_session(agent="mock")
            await session.prompt("hello")
            assert await runs()
        for _ in range(200):
            if not await runs():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the agent goes on")


async def test_a_client_of_another_kind_is_no_hindrance(client: SandboxAgent, server: Server) -> None:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {server.token}"}) as http:
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}}
        answer = await http.post(f"{server.url}/v1/acp/another?agent=mock", json=hello)
        assert answer.json()["result"]["protocolVersion"] == 1
        session = await client.create_session(agent="mock")
        assert session.to_record().last_connection_id == "default"
        assert (await session.prompt("hello"))["content"] == "You said: hello"
        await http.delete(f"{server.url}/v1/acp/another")


async def test_a_prompt_may_be_large(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    long = "x" * (3 * 1024 * 1024)
    assert (await session.prompt(long))["content"] == f"You said: {long}"


async def test_a_new_client_does_not_hear_what_was_said_before(client: SandboxAgent, other: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    await session.prompt("old news")
    heard: list[dict[str, Any]] = []
    fresh = await other.create_session(agent="mock", on_message=heard.append)
    await fresh.prompt("fresh")
    await until("the answer", lambda: "fresh" in said(heard))
    assert "old news" not in said(heard)


async def test_sessions_and_their_events_are_on_record(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    await session.prompt("for the record")
    page = await client.list_sessions(page=1, per_page=1)
    assert page["page"] == 1
    assert page["perPage"] == 1
    assert page["total"] >= 1
    assert [one["agentSessionId"] for one in page["sessions"]] == [session.agent_session_id]
    assert isinstance((await client.list_sessions())["sessions"], list)
    record = await client.get_session(session.id)
    assert (record.agent, record.agent_session_id) == ("mock", session.agent_session_id)
    assert record.last_connection_id == "default"
    assert abs(record.created_at - time.time()) < 60
    assert record.destroyed_at is None
    got = await client.get_events(session.id, page=1, per_page=50)
    events = [SessionEvent.model_validate(event) for event in got["events"]]
    assert got["total"] == len(events)
    assert {event.sender for event in events} == {"client", "agent"}
    assert [event.event_index for event in events] == sorted({event.event_index for event in events})
    assert "for" in said([event.payload for event in events])
    second = await client.get_events(session.id, page=2, per_page=1)
    assert [event["id"] for event in second["events"]] == [events[1].id]
    for call in [lambda: client.get_session("nobody"), lambda: client.get_events("nobody")]:
        with pytest.raises(SandboxAgentError) as missing:
            await call()
        assert missing.value.status == 404


async def test_a_session_that_was_let_go_is_resumed(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    await session.prompt("before")
    await client.destroy_session(session.id)
    resumed = await client.resume_session(session.id)
    events: list[dict[str, Any]] = []
    client.on_session_event(resumed.id, events.append)
    assert (await resumed.prompt("after"))["content"] == "You said: after"
    await until("the answer", lambda: "after" in said(events))


async def test_a_session_is_resumed_or_created(client: SandboxAgent) -> None:
    created = await client.resume_or_create_session("mock")
    assert (await created.prompt("one"))["stopReason"] == "end_turn"
    resumed = await client.resume_or_create_session("mock", resume_token=created.id)
    assert resumed.agent_session_id == created.agent_session_id
    assert (await resumed.prompt("two"))["content"] == "You said: two"


async def test_a_session_is_resumed_after_the_server_was_killed_and_started_again(own: Server) -> None:
    async with await SandboxAgent.connect(own.url, token=own.token) as client:
        session = await client.create_session(agent="mock", mode="plan")
        await session.prompt("before")
        own.crash()
        resumed = await client.resume_session(session.id)
        events: list[dict[str, Any]] = []
        client.on_session_event(resumed.id, events.append)
        assert (await resumed.prompt("after"))["content"] == "You said: after"
        await until("the answer", lambda: said(events).endswith("You said: after"))
        assert current(await client.get_session_config_options(session.agent_session_id))["mode"] == "plan"
        texts = said([event["payload"] for event in (await client.get_events(session.agent_session_id))["events"]])
        assert "before" in texts
        assert "after" in texts


async def test_a_session_goes_on_over_a_restart_without_being_resumed(own: Server) -> None:
    async with await SandboxAgent.connect(own.url, token=own.token) as client:
        heard: list[dict[str, Any]] = []
        session = await client.create_session(agent="mock", on_message=heard.append)
        await session.prompt("before")
        await until("the first answer", lambda: said(heard) == "You said: before")
        own.crash()
        assert (await session.prompt("after"))["content"] == "You said: after"
        await until("the second answer", lambda: said(heard) == "You said: beforeYou said: after", 20)


async def test_an_agent_that_crashes_fails_its_prompt_and_the_session_goes_on(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    await session.prompt("before")
    with pytest.raises((AcpRpcError, AcpHttpError)):
        await asyncio.wait_for(session.prompt("crash"), 5)
    assert (await session.prompt("after"))["content"] == "You said: after"


async def test_the_connection_is_used_by_hand(server: Server) -> None:
    closed: list[bool] = []
    acp = AcpHttpClient(server.url, "by-hand", token=server.token, on_close=lambda: closed.append(True))
    await acp.connect()
    opened = await acp.initialize()
    assert isinstance(opened["authMethods"], list)
    assert (await acp.authenticate({"token": "x"}))["success"] is True
    made = await acp.new_session({"agent": "mock"})
    assert made["sessionId"] == made["agentSessionId"]
    id = made["sessionId"]
    assert (await acp.prompt({"sessionId": id, "prompt": "by hand"}))["content"] == "You said: by hand"
    assert isinstance(await acp.set_session_mode({"sessionId": id, "mode": "plan"}), dict)
    assert isinstance(
        await acp.set_session_config_option({"sessionId": id, "configId": "model", "value": "mock-fast"}), dict
    )
    loaded = await acp.load_session({"sessionId": id})
    assert loaded["agentSessionId"] == id
    listed = await acp.list_sessions({"limit": 1})
    assert len(listed["sessions"]) == 1
    assert "nextCursor" in listed
    echoed = await acp.ext_method("example/ask", {"sessionId": id, "a": 1})
    assert echoed["echoed"]["params"]["a"] == 1
    await acp.ext_notification("example/tell", {"sessionId": id})
    for request in [{"sessionId": "nobody", "prompt": "x"}]:
        with pytest.raises(AcpRpcError) as refused:
            await acp.prompt(request)
        assert refused.value.code == -32002
    with pytest.raises(AcpRpcError):
        await acp.new_session({"agent": "nobody"})
    await asyncio.wait_for(acp.disconnect(), 2)
    assert closed == [True]


async def test_a_sessions_own_calls_do_the_same(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    assert isinstance(await session.initialize(), dict)
    assert (await session.authenticate("x"))["success"] is True
    made = await session.new_session("mock")
    loaded = await session.load_session(made["agentSessionId"])
    assert loaded["sessionId"] == made["agentSessionId"]
    process = await client.create_process({"command": "/bin/sh", "args": ["-c", "read go; echo shown"], "tty": True})
    shown: list[bytes] = []
    exits: list[Any] = []
    terminal = await session.attach_terminal(process["id"], on_data=shown.append, on_exit=exits.append)
    terminal.send_input("go\n")
    await asyncio.wait_for(terminal.closed, 10)
    assert b"shown" in b"".join(shown)
    assert exits
