from __future__ import annotations

import pytest
from sandboxagent import SandboxAgent
from sandboxagent.client import Session
from sandboxagent.http import SandboxAgentError
from sandboxagent.types import SessionRecord
from serving import Server


async def test_agents_are_listed_and_looked_at(client: SandboxAgent) -> None:
    agents = await client.list_agents()
    known = ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"]
    assert [agent["id"] for agent in agents if agent["id"] in known] == known
    mock = await client.get_agent("mock")
    assert mock["installed"] is True
    assert mock["credentialsAvailable"] is True
    assert len(mock["capabilities"]) == 18


async def test_the_built_in_agent_is_installed_already(client: SandboxAgent) -> None:
    answer = await client.install_agent("mock", {})
    assert answer["already_installed"] is True
    assert isinstance(answer["artifacts"], list)


async def test_an_agent_that_nobody_knows_is_refused(client: SandboxAgent) -> None:
    for call in [lambda: client.get_agent("nobody"), lambda: client.install_agent("nobody", {})]:
        with pytest.raises(SandboxAgentError) as refused:
            await call()
        assert refused.value.status == 400
        assert refused.value.problem.type == "urn:sandbox-agent:error:unsupported_agent"


async def test_one_configuration_of_tools_holds_for_everything(client: SandboxAgent, server: Server) -> None:
    assert await client.get_mcp_config() == {}
    config = {"servers": {"tool": {"type": "local", "command": "tool", "args": ["--stdio"]}}}
    await client.set_mcp_config(config)
    assert await client.get_mcp_config() == config
    async with await SandboxAgent.connect(server.url, token=server.token) as other:
        assert await other.get_mcp_config() == config
    await client.delete_mcp_config()
    assert await client.get_mcp_config() == {}
    await client.delete_mcp_config()


async def test_one_configuration_of_skills_holds_for_everything(client: SandboxAgent) -> None:
    assert await client.get_skills_config() == {}
    config = {"sources": [{"type": "github", "source": "owner/skills", "skills": ["one"]}]}
    await client.set_skills_config(config)
    assert await client.get_skills_config() == config
    await client.delete_skills_config()
    assert await client.get_skills_config() == {}
    await client.delete_skills_config()


async def test_a_session_has_tools_and_skills_of_its_own_to_set(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    tools = {"servers": {"mine": {"type": "local", "command": "mine"}}}
    await session.set_mcp_config(tools)
    assert await session.get_mcp_config() == tools
    skills = {"sources": [{"type": "local", "source": "/skills"}]}
    await session.set_skills_config(skills)
    assert await session.get_skills_config() == skills


async def test_tools_may_be_configured_in_any_form_and_skills_be_none(client: SandboxAgent) -> None:
    """The client passes on whatever object it is given."""
    session = await client.create_session(agent="mock")
    for tools in [{"servers": []}, {"servers": [{"name": "mine"}]}, {}, {"mcpServers": {"mine": {"command": "mine"}}}]:
        await client.set_mcp_config(tools)
        assert await client.get_mcp_config() == tools
        await session.set_mcp_config(tools)
        assert await session.get_mcp_config() == tools
    for skills in [{"sources": []}, {"sources": [{"type": "local", "source": "/skills"}]}]:
        await client.set_skills_config(skills)
        assert await client.get_skills_config() == skills
        await session.set_skills_config(skills)
        assert await session.get_skills_config() == skills
    await client.delete_mcp_config()
    await client.delete_skills_config()


async def test_a_session_that_there_is_not_has_no_configuration(client: SandboxAgent) -> None:
    record = SessionRecord(
        id="nobody-knows", agent="mock", agent_session_id="nobody", last_connection_id="default", created_at=1
    )
    session = Session(client, record)
    for call in [
        lambda: session.get_mcp_config(),
        lambda: session.set_mcp_config({"servers": []}),
        lambda: session.get_skills_config(),
        lambda: session.set_skills_config({"sources": []}),
    ]:
        with pytest.raises(SandboxAgentError) as missing:
            await call()
        assert missing.value.status == 404


async def test_configuring_one_session_leaves_the_others_alone(client: SandboxAgent) -> None:
    first = await client.create_session(agent="mock")
    await first.set_mcp_config({"servers": {"first": {"type": "local", "command": "first"}}})
    second = await client.create_session(agent="mock")
    await second.set_mcp_config({"servers": {"second": {"type": "local", "command": "second"}}})
    assert list((await first.get_mcp_config())["servers"]) == ["first"]
    assert list((await second.get_mcp_config())["servers"]) == ["second"]


async def test_servers_are_listed_and_looked_at(client: SandboxAgent) -> None:
    session = await client.create_session(agent="mock")
    listed = await client.list_acp_servers()
    assert [server["serverId"] for server in listed["servers"]] == ["default"]
    assert session.to_record().last_connection_id == "default"
    server = await client.get_acp_server("default")
    assert server["serverId"] == "default"
    assert server["createdAtMs"] > 0
    with pytest.raises(SandboxAgentError) as missing:
        await client.get_acp_server("nobody")
    assert missing.value.status == 404
